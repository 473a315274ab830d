"""Parity plots: predictions against references, a panel per head and quantity.

Of several seeds, the mean prediction is drawn: its errors are those that the tables call "mean
prediction". A single seed can be drawn with `results.only([seed])`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hippynn_mf.evaluation.errors import mae, rmse
from hippynn_mf.report.comparisons import Comparison, Kind, compare_predictions
from hippynn_mf.report.level_colors import level_color
from hippynn_mf.report.panels import draw_panels, seeds_text, write_in_corner
from hippynn_mf.report.results import Results
from hippynn_mf.report.runs import Run
from hippynn_mf.schema import Strict

MANY_POINTS = 500
NOTE = (
    "Energies are drawn relative to the mean reference of the structures of the same composition; "
    "ΔE: of all pairs of conformers of a molecule."
)
COUNTED = {
    "energy": "energies",
    "forces": "components",
    "delta_e": "pairs",
    "stress": "components",
}


class ParityPanel(Strict):
    """The numbers of a panel: errors of the mean prediction over n values.

    `reason` says why there are none.
    """

    level: str
    part: str
    kind: Kind
    unit: str
    n: int
    rmse: float | None
    mae: float | None
    reason: str | None


class ParityData(Strict):
    """The numbers of a parity plot; its points are those of `predictions.npz`."""

    format: Literal[1]
    name: str
    seeds: list[int]
    panels: list[ParityPanel]


def draw_parity(results: Results, name: str) -> Figure:
    """Parity plots of an experiment: the mean prediction of its finished seeds.

    A row of panels for each head, with energies, forces and (of periodic structures) stress of
    every set; for a set of conformers, with the differences of their energies. Energies are drawn
    relative to the mean reference of the structures of the same composition. The panels say RMSE,
    MAE and the number n of energies, components or pairs of conformers. Raises UserError for an
    experiment without finished runs, without predictions, or without any label.
    """
    return make_parity(results.members(name))[0]


def make_parity(members: Sequence[Run]) -> tuple[Figure, ParityData]:
    """The figure of `draw_parity` and its numbers."""
    comparisons = compare_predictions(members)
    predicted_by = f"mean of {seeds_text(members)}" if len(members) > 1 else seeds_text(members)
    name = members[0].settings.name
    figure = draw_panels(f"{name}, {predicted_by}", NOTE, comparisons, _draw_panel)
    data = ParityData(
        format=1,
        name=name,
        seeds=[member.seed for member in members],
        panels=[_numbers(comparison) for comparison in comparisons],
    )
    return figure, data


def _numbers(comparison: Comparison) -> ParityPanel:
    errors = comparison.mean - comparison.true
    return ParityPanel(
        level=comparison.level.id,
        part=comparison.quantity.part,
        kind=comparison.quantity.kind,
        unit=comparison.quantity.unit,
        n=len(errors),
        rmse=rmse(errors),
        mae=mae(errors),
        reason=comparison.reason,
    )


def _draw_panel(axes: Axes, comparison: Comparison) -> None:
    numbers = _numbers(comparison)
    true, predicted = comparison.true - comparison.shift, comparison.mean - comparison.shift
    low = min(true.min(), predicted.min())
    high = max(true.max(), predicted.max())
    margin = 0.05 * (high - low) or 1.0
    limits = (low - margin, high + margin)
    axes.plot(limits, limits, color="0.5", linewidth=0.8, zorder=1)
    axes.plot(
        *(true, predicted, "."),
        markersize=3 if len(true) > MANY_POINTS else 5,
        alpha=0.5,
        markeredgewidth=0,
        color=level_color(comparison.level),
    )
    axes.set(xlim=limits, ylim=limits)
    axes.locator_params(nbins=5)
    kind, unit = comparison.quantity.kind, comparison.quantity.unit
    axes.set_xlabel(f"{'relative ' if kind == 'energy' else ''}reference ({unit})")
    axes.set_ylabel(f"predicted ({unit})")
    counted = f"{numbers.n:,} {COUNTED[kind]}"
    write_in_corner(axes, [f"RMSE {numbers.rmse:.2f}", f"MAE {numbers.mae:.2f}", counted])
