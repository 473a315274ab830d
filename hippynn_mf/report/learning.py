"""Learning curves: validation errors of every head after each epoch, of all seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hippynn_mf.labels import join_labels
from hippynn_mf.levels import Level
from hippynn_mf.metrics_schema import Strict
from hippynn_mf.report.level_colors import level_color
from hippynn_mf.report.panels import (
    label_log_axis,
    leave_empty,
    make_grid,
    seeds_text,
    write_in_corner,
)
from hippynn_mf.report.results import Result, Results

# Kind → (metric of an epoch, unit).
KINDS = {"energy": ("energy_rmse", "kcal/mol"), "forces": ("force_rmse", "kcal/mol/Å")}


class LearningCurve(Strict):
    """Validation RMSE of a head's energies or forces.

    `median` is over the seeds after each epoch, as long as all seeds train; `last` is of every
    seed's last epoch. `first_epoch` is the first one that trains the label, counted over all
    phases from 1.
    """

    level: str
    kind: Literal["energy", "forces"]
    unit: str
    first_epoch: int
    median: list[float]
    last: dict[str, float]


class LearningData(Strict):
    """The numbers of the figure; those of each seed are in `epochs.jsonl`."""

    format: Literal[1]
    name: str
    seeds: list[int]
    curves: list[LearningCurve]


def draw_learning_curves(results: Results, name: str) -> Figure:
    """Validation RMSE after each epoch, in a panel for each trained label of an experiment.

    A thin line per finished seed, and a thick one for their median while all of them train. Raises
    UserError for an experiment without finished runs, or without `epochs.jsonl`.
    """
    return make_learning_curves(results.members(name))[0]


def make_learning_curves(members: Sequence[Result]) -> tuple[Figure, LearningData]:
    """The figure of `draw_learning_curves` and its numbers."""
    settings = members[0].settings
    epochs = {member.settings.seed: _validation_errors(member) for member in members}
    labels = join_labels(*(phase.labels for phase in settings.experiment.phases))
    any_forces = any(properties.forces for properties in labels.values())
    kinds = ["energy", "forces"] if any_forces else ["energy"]
    title = f"{settings.name}, {seeds_text(members)}"
    note = "Thick: median of the seeds." if len(members) > 1 else ""
    figure, grid = make_grid(title, note, len(kinds), len(labels))
    curves: list[LearningCurve] = []
    for row, kind in zip(grid, kinds, strict=True):
        metric, unit = KINDS[kind]
        of_kind = []
        for axes, (level, properties) in zip(row, labels.items(), strict=True):
            if kind == "forces" and not properties.forces:
                leave_empty(axes, f"{level.label} {kind}", "not trained")
                continue
            name = f"{metric}.{level.id}"
            values = {s: [e[name] for e in each if name in e] for s, each in epochs.items()}
            first = min(
                next(n for n, e in enumerate(each, 1) if name in e) for each in epochs.values()
            )
            of_kind.append(_curve(level, kind, first, values))
            axes.set_title(f"{level.label} {kind}", size=10)
            _draw_curve(axes, of_kind[-1], values, level_color(level))
            axes.set(xlabel="epoch", ylabel=f"validation RMSE ({unit})")
        _share_limits([axes for axes in row if axes.axison])
        curves += of_kind
    data = LearningData(format=1, name=settings.name, seeds=list(epochs), curves=curves)
    return figure, data


def _validation_errors(member: Result) -> list[Mapping[str, float]]:
    """Validation errors after every epoch of every phase; a UserError where they are not there."""
    member.folder.read_epochs()  # of the last phase, without which a run has none
    by_phase = member.folder.read_epochs_by_phase(member.settings)
    return [epoch["valid"] for of_phase in by_phase for epoch in of_phase]


def _curve(
    level: Level, kind: str, first_epoch: int, values: Mapping[int, Sequence[float]]
) -> LearningCurve:
    n_common = min(map(len, values.values()))
    median = np.median([each[:n_common] for each in values.values()], axis=0)
    return LearningCurve.model_validate(
        {
            "level": level.id,
            "kind": kind,
            "unit": KINDS[kind][1],
            "first_epoch": first_epoch,
            "median": median.tolist(),
            "last": {str(seed): each[-1] for seed, each in values.items()},
        }
    )


def _draw_curve(
    axes: Axes, curve: LearningCurve, values: Mapping[int, Sequence[float]], color: str
) -> None:
    first = curve.first_epoch
    for each in values.values():
        axes.plot(range(first, first + len(each)), each, color=color, linewidth=0.7, alpha=0.45)
    axes.plot(range(first, first + len(curve.median)), curve.median, color=color, linewidth=2)
    last = np.median(list(curve.last.values()))
    write_in_corner(axes, [f"at the end {last:.2f}"], right=True)


def _share_limits(row: Sequence[Axes]) -> None:
    """The same logarithmic axis for the levels, so that they can be compared."""
    low = min(axes.dataLim.y0 for axes in row) / 1.2
    high = max(axes.dataLim.y1 for axes in row) * 1.2
    for axes in row:
        axes.set(yscale="log", ylim=(low, high))
        label_log_axis(axes.yaxis, low, high)
        axes.grid(axis="y", which="major", linewidth=0.4, alpha=0.6)
