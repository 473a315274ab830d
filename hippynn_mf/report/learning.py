"""Learning curves: validation errors of every head after each epoch, of all seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hippynn_mf.labels import join_labels
from hippynn_mf.levels import Level
from hippynn_mf.report.comparisons import GPA
from hippynn_mf.report.level_colors import level_color
from hippynn_mf.report.panels import (
    label_log_axis,
    leave_empty,
    make_grid,
    seeds_text,
    write_in_corner,
)
from hippynn_mf.report.results import Results
from hippynn_mf.report.runs import Run
from hippynn_mf.runs.kept import kept_number
from hippynn_mf.schema import Strict

# Kind → (metric of an epoch, unit of the figure, how many of it the unit of the metric is).
KINDS = {
    "energy": ("energy_rmse", "kcal/mol", 1.0),
    "forces": ("force_rmse", "kcal/mol/Å", 1.0),
    "stress": ("stress_rmse", "GPa", GPA),
}


class LearningCurve(Strict):
    """Validation RMSE of a head's energies, forces or stress.

    `median` is over the seeds after each of `epochs`, those in which all seeds train the label;
    `last` is of every seed's last epoch. Epochs are counted from 1 over all phases, of which each
    begins when no seed is in the one before it. `kept` is the epoch whose parameters a seed kept,
    where `epochs.jsonl` says it.
    """

    level: str
    kind: Literal["energy", "forces", "stress"]
    unit: str
    epochs: list[int]
    median: list[float]
    last: dict[str, float]
    kept: dict[str, int]


class LearningData(Strict):
    """The numbers of the figure; those of each seed are in `epochs.jsonl`."""

    format: Literal[3]
    name: str
    seeds: list[int]
    curves: list[LearningCurve]


def draw_learning_curves(results: Results, name: str) -> Figure:
    """Validation RMSE after each epoch, in a panel for each trained label of an experiment.

    A thin line per finished seed, with a ring around the epoch that it kept, and a thick line for
    their median while all of them train. Raises UserError for an experiment without
    finished runs, or without `epochs.jsonl`.
    """
    return make_learning_curves(results.members(name))[0]


def make_learning_curves(members: Sequence[Run]) -> tuple[Figure, LearningData]:
    """The figure of `draw_learning_curves` and its numbers."""
    settings = members[0].settings
    epochs, kept = _validation_errors(members)
    labels = join_labels(*(phase.labels for phase in settings.experiment.phases))
    trained = {
        "energy": dict.fromkeys(labels, True),
        "forces": {level: properties.forces for level, properties in labels.items()},
        "stress": {level: properties.stress for level, properties in labels.items()},
    }
    kinds = [kind for kind, levels in trained.items() if any(levels.values())]
    title = f"{settings.name}, {seeds_text(members)}"
    note = "Thick: median of the seeds. " if len(members) > 1 else ""
    note += "Rings: the epochs that were kept." if kept else ""
    figure, grid = make_grid(title, note, len(kinds), len(labels))
    curves: list[LearningCurve] = []
    for row, kind in zip(grid, kinds, strict=True):
        metric, unit, factor = KINDS[kind]
        curves_of_row = []
        for axes, level in zip(row, labels, strict=True):
            if not trained[kind][level]:
                leave_empty(axes, f"{level.label} {kind}", "not trained")
                continue
            name = f"{metric}.{level.id}"
            values = {seed: _metric_by_epoch(each, name, factor) for seed, each in epochs.items()}
            curves_of_row.append(_curve(level, kind, values, kept))
            axes.set_title(f"{level.label} {kind}", size=10)
            _draw_curve(axes, curves_of_row[-1], values, level_color(level, labels))
            axes.set(xlabel="epoch", ylabel=f"validation RMSE ({unit})")
        _share_limits([axes for axes in row if axes.axison])
        curves += curves_of_row
    data = LearningData(format=3, name=settings.name, seeds=list(epochs), curves=curves)
    return figure, data


def _validation_errors(
    members: Sequence[Run],
) -> tuple[dict[int, dict[int, Mapping[str, float]]], dict[int, int]]:
    """Seed → epoch → validation errors, and seed → the epoch that was kept.

    Raises UserError where epochs are not there.
    """
    by_phase = {}
    for member in members:
        member.require_folder()
        by_phase[member.seed] = [phase.read_epochs() for phase in member.phase_folders()]
    n_epochs = [max(map(len, phase)) for phase in zip(*by_phase.values(), strict=True)]
    starts = [1 + sum(n_epochs[:place]) for place in range(len(n_epochs))]
    errors = {
        seed: {
            start + n: epoch["valid"]
            for start, phase in zip(starts, phases, strict=True)
            for n, epoch in enumerate(phase)
        }
        for seed, phases in by_phase.items()
    }
    kept = {}
    for member in members:
        rule = member.settings.hyperparameters.kept_epoch
        number = kept_number(by_phase[member.seed][-1], rule)
        if number is not None:
            kept[member.seed] = starts[-1] + number - 1
    return errors, kept


def _metric_by_epoch(
    epochs: Mapping[int, Mapping[str, float]], name: str, factor: float
) -> dict[int, float]:
    return {number: factor * errors[name] for number, errors in epochs.items() if name in errors}


def _curve(
    level: Level,
    kind: str,
    values: Mapping[int, Mapping[int, float]],
    kept: Mapping[int, int],
) -> LearningCurve:
    common = sorted(set.intersection(*(set(each) for each in values.values())))
    median = [float(np.median([each[n] for each in values.values()])) for n in common]
    return LearningCurve.model_validate(
        {
            "level": level.id,
            "kind": kind,
            "unit": KINDS[kind][1],
            "epochs": common,
            "median": median,
            "last": {str(seed): each[max(each)] for seed, each in values.items()},
            "kept": {str(seed): epoch for seed, epoch in kept.items() if epoch in values[seed]},
        }
    )


def _draw_curve(
    axes: Axes, curve: LearningCurve, values: Mapping[int, Mapping[int, float]], color: str
) -> None:
    for each in values.values():
        axes.plot(*_with_gaps(each), color=color, linewidth=0.7, alpha=0.45)
    rings = [(epoch, values[int(seed)][epoch]) for seed, epoch in curve.kept.items()]
    if rings:
        axes.plot(*zip(*rings, strict=True), "o", color=color, fillstyle="none", markersize=5)
    median = dict(zip(curve.epochs, curve.median, strict=True))
    axes.plot(*_with_gaps(median), color=color, linewidth=2)
    last = np.median(list(curve.last.values()))
    write_in_corner(axes, [f"at the end {last:.2f}"], right=True)


def _with_gaps(values: Mapping[int, float]) -> tuple[Sequence[int], list[float]]:
    """Epochs and values of a line that is interrupted where epochs are missing."""
    epochs = range(min(values, default=0), max(values, default=-1) + 1)
    return epochs, [values.get(epoch, np.nan) for epoch in epochs]


def _share_limits(row: Sequence[Axes]) -> None:
    """The same logarithmic axis for the levels, so that they can be compared."""
    low = min(axes.dataLim.y0 for axes in row) / 1.2
    high = max(axes.dataLim.y1 for axes in row) * 1.2
    for axes in row:
        axes.set(yscale="log", ylim=(low, high))
        label_log_axis(axes.yaxis, low, high)
        axes.grid(axis="y", which="major", linewidth=0.4, alpha=0.6)
