"""Error against ensemble spread: whether the disagreement of seeds says where they are wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from hippynn_mf.errors import UserError
from hippynn_mf.evaluation.errors import rmse
from hippynn_mf.report.comparisons import Comparison, Kind, compare_predictions
from hippynn_mf.report.level_colors import level_color
from hippynn_mf.report.panels import draw_panels, label_log_axis, seeds_text, write_in_corner
from hippynn_mf.report.results import Results
from hippynn_mf.report.runs import Run
from hippynn_mf.schema import Strict

FEWEST_SEEDS = 3
FEWEST_IN_BIN = 20
MOST_BINS = 10
NOTE = (
    "Dots: structures, or pairs of conformers. Circles: RMS values of equal numbers of dots, by "
    "their spread. Dashed: error = spread."
)


class Bin(Strict):
    """RMS spread and RMS error of the structures of neighbouring spreads."""

    n: int
    spread: float
    error: float


class Calibration(Strict):
    """How errors of a mean prediction follow the spread of its members, for n structures or pairs.

    Attributes:
        spearman: rank correlation of error and spread; 1 if the spread sorts structures by error.
        ratio: RMS error over RMS spread; above 1, the spread is too small.
        slope: of log RMS error against log RMS spread over the bins; 1 if errors grow with it.
        bins: of equal n, by ascending spread.

    Numbers are None where nothing varies. References that were drawn as the members are would
    give a ratio of √(1 + 1/n_seeds).
    """

    n: int
    spearman: float | None
    ratio: float | None
    slope: float | None
    bins: list[Bin]


class SpreadPanel(Strict):
    """The calibration of a head and quantity; `reason` says why there is none."""

    level: str
    part: str
    kind: Kind
    unit: str
    calibration: Calibration | None
    reason: str | None


class SpreadData(Strict):
    """The numbers of the figure; its points follow from `predictions.npz`."""

    format: Literal[1]
    name: str
    seeds: list[int]
    panels: list[SpreadPanel]


def calibrate(errors: np.ndarray, spreads: np.ndarray) -> Calibration:
    """Calibration of errors (n,), not negative, by spreads (n,) in the same unit."""
    order = np.argsort(spreads, kind="stable")
    n_bins = int(np.clip(len(order) // FEWEST_IN_BIN, 1, MOST_BINS))
    bins = [
        Bin(n=len(rows), spread=rmse(spreads[rows]) or 0.0, error=rmse(errors[rows]) or 0.0)
        for rows in np.array_split(order, n_bins)
    ]
    spread = rmse(spreads)
    return Calibration(
        n=len(errors),
        spearman=_rank_correlation(errors, spreads),
        ratio=(rmse(errors) or 0.0) / spread if spread else None,
        slope=_slope([b for b in bins if b.spread > 0 and b.error > 0]),
        bins=bins,
    )


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(spearmanr(first, second).statistic)


def _slope(bins: Sequence[Bin]) -> float | None:
    """Least-squares slope over bins; None for fewer than three, or where spreads do not differ."""
    x, y = np.log([b.spread for b in bins]), np.log([b.error for b in bins])
    if len(bins) < 3 or np.ptp(x) < 1e-9:
        return None
    return float(np.polyfit(x, y, 1)[0])


def draw_spread(results: Results, name: str) -> Figure:
    """Error of the mean prediction against the standard deviation over the seeds, on log axes.

    A point is a structure (forces: RMS over the components of its atoms) or, for conformer
    energies, a pair of conformers; circles are RMS values in bins of equal number. Panels are as
    in `draw_parity`. Raises UserError as that does, and for fewer than three seeds.
    """
    return make_spread(results.members(name))[0]


def make_spread(members: Sequence[Run]) -> tuple[Figure, SpreadData]:
    """The figure of `draw_spread` and its numbers."""
    name = members[0].settings.name
    if len(members) < FEWEST_SEEDS:
        raise UserError(
            f"{name} has {len(members)} finished runs here; a spread needs {FEWEST_SEEDS} or more. "
            "Train more seeds with 'hippynn-mf reproduce --seeds'."
        )
    comparisons = compare_predictions(members)
    figure = draw_panels(f"{name}, {seeds_text(members)}", NOTE, comparisons, _draw_panel)
    data = SpreadData(
        format=1,
        name=name,
        seeds=[member.seed for member in members],
        panels=[
            SpreadPanel(
                level=c.level.id,
                part=c.quantity.part,
                kind=c.quantity.kind,
                unit=c.quantity.unit,
                calibration=calibrate(c.errors, c.spreads) if c.reason is None else None,
                reason=c.reason,
            )
            for c in comparisons
        ],
    )
    return figure, data


def _draw_panel(axes: Axes, comparison: Comparison) -> None:
    errors, spreads = comparison.errors, comparison.spreads
    calibration = calibrate(errors, spreads)
    color = level_color(comparison.level)
    axes.plot(spreads, errors, ".", markersize=4, alpha=0.45, markeredgewidth=0, color=color)
    axes.plot(
        [b.spread for b in calibration.bins],
        [b.error for b in calibration.bins],
        "o-",
        color="black",
        markerfacecolor=color,
        markersize=5,
        linewidth=1,
    )
    shown = np.concatenate([spreads[spreads > 0], errors[errors > 0]])
    # A few errors are nearly zero by chance; they would take most of a log axis.
    low, high = (np.quantile(shown, 0.02), shown.max()) if len(shown) else (0.1, 1.0)
    limits = (low / 2, high * 2)
    axes.plot(limits, limits, "--", color="0.5", linewidth=0.8, zorder=1)
    axes.set(xscale="log", yscale="log", xlim=limits, ylim=limits)
    for axis in (axes.xaxis, axes.yaxis):
        label_log_axis(axis, *limits)
    unit = comparison.quantity.unit
    axes.set_xlabel(f"spread of the seeds ({unit})")
    axes.set_ylabel(f"error of their mean ({unit})")
    counted = "pairs" if comparison.quantity.kind == "delta_e" else "structures"
    lines = [
        f"error/spread {_format(calibration.ratio)}",
        f"Spearman {_format(calibration.spearman)}",
        f"{calibration.n:,} {counted}",
    ]
    write_in_corner(axes, lines)


def _format(value: float | None) -> str:
    return "—" if value is None else f"{value:.2f}".replace("-", "−")
