"""Errors of a level's forces on a set: of every model, and of cheaper forces themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from matplotlib.figure import Figure

from hippynn_mf.errors import UserError
from hippynn_mf.levels import Level, Levels
from hippynn_mf.report.columns import Column, set_name
from hippynn_mf.report.ensemble import find_ensembles
from hippynn_mf.report.level_colors import level_color
from hippynn_mf.report.results import Results
from hippynn_mf.report.statistics import CONFIDENCE, Estimate, estimate_mean
from hippynn_mf.schema import Strict

BAR_INCHES = 0.5
DIAMOND: dict[str, Any] = {
    "color": "white",
    "markeredgecolor": "black",
    "markersize": 5,
    "zorder": 4,
}


class Bar(Strict):
    """Force RMSEs of a model in kcal/mol/Å: of every seed, their mean, and the mean prediction."""

    model: str
    values: dict[str, float]
    mean: Estimate | None
    mean_prediction: float | None


class ForcesData(Strict):
    """What the figure shows, unrounded.

    `low_levels` are the RMSEs of their own forces against those of `level`, by id, None where they
    are not known; `label_rms` is the RMSE of predicting no force.
    """

    format: Literal[2]
    set: str
    level: str
    confidence: float
    unit: str
    missing: list[str]
    bars: list[Bar]
    low_levels: dict[str, float | None]
    label_rms: float | None


def models_with_forces(results: Results, name: str, level: Level) -> list[str]:
    """The experiments with a head of this level and an error of its forces on a set."""
    column = Column.own(name, level, "force")
    return [
        experiment
        for experiment, labels in (
            (name, e.resolved_labels) for name, e in results.experiments.items()
        )
        if level in labels and len(results.values(experiment, column))
    ]


def forces_data(
    results: Results,
    column: Column,
    names: Sequence[str],
    low_levels: Sequence[Level],
    missing: Sequence[object] = (),
) -> ForcesData:
    """The numbers of the figure: a bar for each of the experiments, a line for each low level."""
    ensembles = find_ensembles(results, names)
    records = list(ensembles.values())
    bars = []
    for name in names:
        values = results.values(name, column)
        record = ensembles.get(name)
        mean_prediction = None
        if record is not None and len(record.members) > 1:
            mean_prediction = column.pick(record.errors(), "rmse")
        if name not in results.by_name:
            continue
        bars.append(
            Bar(
                model=name,
                values={str(seed): value for seed, value in values.items()},
                mean=estimate_mean(values),
                mean_prediction=mean_prediction,
            )
        )
    errors_of_labels = {
        low.id: [column.at_head(low).pick(record.differences(), "rmse") for record in records]
        for low in low_levels
    }
    sizes = [v for name in names for v in results.values(name, column, "label_rms")]
    return ForcesData(
        format=2,
        set=column.set,
        level=column.reference.id,
        confidence=CONFIDENCE,
        unit=column.unit,
        missing=[str(run) for run in missing],
        bars=bars,
        low_levels={
            low: next((value for value in values if value is not None), None)
            for low, values in errors_of_labels.items()
        },
        label_rms=float(estimate_mean(sizes).value) if sizes else None,  # type: ignore[union-attr]
    )


def lower_levels(results: Results, level: Level) -> list[Level]:
    """The known levels below a level, the lowest first."""
    return [low for low in results.known if low.rank < level.rank]


def draw_forces(results: Results, name: str, level: str | Level) -> Figure:
    """Force RMSEs on a set at a level: of all models with its head, and of cheaper levels' forces.

    A bar is the mean over seeds with its 95 % interval, a dot a seed, a diamond the error of the
    mean prediction; lines are what the lower levels' own forces have. Raises UserError if no
    finished run has such errors.
    """
    level = results.known.get(level)
    names = models_with_forces(results, name, level)
    if not names:
        raise UserError(
            f"No finished run in {results.out} has a {level.label} head and an error of its forces "
            f"on the set {name!r}. Sets: {', '.join(results.sets)}."
        )
    column = Column.own(name, level, "force")
    data = forces_data(results, column, names, lower_levels(results, level))
    return forces_figure(data, results.known)


def forces_figure(data: ForcesData, known: Levels) -> Figure:
    """The figure of these numbers."""
    figure = Figure(figsize=(7, 1.7 + BAR_INCHES * len(data.bars)), layout="constrained")
    axes = figure.subplots()
    level = known.get(data.level)
    color = level_color(level, known)
    axes.barh(0, 0, color=color, alpha=0.6, label="mean over seeds, 95 % interval")
    for place, bar in enumerate(data.bars):
        if bar.mean is None:
            continue
        axes.barh(place, bar.mean.value, 0.7, color=color, alpha=0.6)
        if bar.mean.low is not None and bar.mean.high is not None:
            error = [[bar.mean.value - bar.mean.low], [bar.mean.high - bar.mean.value]]
            axes.errorbar(bar.mean.value, place, xerr=error, color="black", capsize=3, linewidth=1)
        values = list(bar.values.values())
        axes.plot(values, [place] * len(values), ".", color="black", markersize=4, zorder=3)
        if bar.mean_prediction is not None:
            axes.plot([bar.mean_prediction], [place], "D", **DIAMOND)
    axes.plot([], [], ".", color="black", label="seeds")
    axes.plot([], [], "D", label="their mean prediction", **DIAMOND)
    for name, value in data.low_levels.items():
        if value is not None:
            low = known.get(name)
            text = f"{low.label} forces themselves: {value:.2f}"
            axes.axvline(value, color=level_color(low, known), linewidth=1.5, label=text)
    if data.label_rms is not None:
        text = f"no force at all: {data.label_rms:.2f}"
        axes.axvline(data.label_rms, color="0.5", linestyle=":", label=text)
    axes.set_yticks(range(len(data.bars)), [bar.model for bar in data.bars])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel(f"RMSE of {level.label} forces, {set_name(data.set)} ({data.unit})")
    axes.legend(fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.4, 1.0))
    return figure
