"""Picture of errors against the number of labels of a level."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hippynn_mf.levels import Level
from hippynn_mf.report.label_curve import LabelCurve
from hippynn_mf.report.panels import label_log_axis, make_grid
from hippynn_mf.report.saving import save_with_numbers
from hippynn_mf.schema import Strict

# Okabe and Ito's palette, of which every experiment has one.
COLORS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


class LabelCurveData(Strict):
    """The numbers of the figure, and what is said of them."""

    format: Literal[1] = 1
    level: str
    curves: list[LabelCurve]
    beside_lower: list[str]


def write_label_curves(
    curves: Sequence[LabelCurve], beside: Sequence[str], level: Level, out: Path
) -> Path:
    """Write `learning-curve.png`, and its numbers as JSON beside it; the path of the figure."""
    data = LabelCurveData(level=level.id, curves=list(curves), beside_lower=list(beside))
    return save_with_numbers(draw_label_curves(curves, level), data, out / "learning-curve.png")


def draw_label_curves(curves: Sequence[LabelCurve], level: Level) -> Figure:
    """A panel for every error, a curve for every experiment.

    Points are means over the seeds with 95 % intervals, small ones single seeds; dashed lines and
    bands are what is expected of more labels.
    """
    columns = list(dict.fromkeys((curve.column, curve.unit) for curve in curves))
    experiments = list(dict.fromkeys(curve.experiment for curve in curves))
    title = f"Errors against labels of {level.label}"
    note = (
        "Means over the seeds with 95 % intervals, and single seeds. Dashed: power laws, of the "
        "mean; bands: 95 % intervals."
    )
    figure, grid = make_grid(title, note, 1, len(columns))
    for axes, (column, unit) in zip(grid[0], columns, strict=True):
        axes.set_xscale("log")
        axes.set_yscale("log", nonpositive="clip")  # an interval of few seeds may begin below 0
        values: list[float] = []
        numbers: list[int] = []
        for curve in curves:
            if (curve.column, curve.unit) == (column, unit):
                color = COLORS[experiments.index(curve.experiment) % len(COLORS)]
                values += _draw(axes, curve, color)
                numbers += [each.n_labels for each in curve.points]
                numbers += [each.n_labels for each in curve.expected]
        label_log_axis(axes.xaxis, min(numbers) * 0.9, max(numbers) * 1.1)
        axes.set_ylim(min(values) * 0.9, max(values) * 1.1)
        label_log_axis(axes.yaxis, *axes.get_ylim())
        axes.set_title(column, size=9)
        axes.set_xlabel(f"labels of {level.label}")
        axes.set_ylabel(f"RMSE ({unit})")
    grid[0][0].legend(frameon=False, fontsize=7)
    return figure


def _draw(axes: Axes, curve: LabelCurve, color: str) -> list[float]:
    """Draw a curve; the errors that are seen."""
    numbers = [point.n_labels for point in curve.points]
    means = [point.mean.value for point in curve.points]
    widths = [0 if p.mean.high is None else p.mean.high - p.mean.value for p in curve.points]
    axes.errorbar(
        numbers,
        means,
        yerr=widths,
        color=color,
        marker="o",
        markersize=4,
        linewidth=1.2,
        capsize=2,
        label=curve.experiment,
    )
    seen = list(means)
    for point in curve.points:
        values = list(point.by_seed.values())
        seen += values
        axes.plot(
            *([point.n_labels] * len(values), values, "."), color=color, markersize=3, alpha=0.4
        )
    if curve.expected:
        further = [numbers[-1], *(each.n_labels for each in curve.expected)]
        expected = [means[-1], *(each.value for each in curve.expected)]
        axes.plot(further, expected, "--", color=color, linewidth=1.2)
        seen += expected
        ends = [(each.low, each.high) for each in curve.expected]
        if all(low is not None for low, _ in ends):
            here = curve.last.mean
            low = [here.low or here.value, *(low or np.nan for low, _ in ends)]
            high = [here.high or here.value, *(high or np.nan for _, high in ends)]
            axes.fill_between(further, low, high, color=color, alpha=0.15, linewidth=0)
            seen += [*low[1:], *high]
    return seen
