"""Figures of square panels: a row for each head and a column for each quantity."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from hippynn_mf.errors import UserError
from hippynn_mf.report.comparisons import Comparison
from hippynn_mf.report.runs import Run

PANEL_INCHES = 2.7
NOTE_LETTERS_PER_PANEL = 44
SMALL = 8  # points, of axes and remarks
FEW_DECADES = 2.2  # on a log axis so short, also 2 and 5 are labelled


def make_grid(title: str, note: str, n_rows: int, n_columns: int) -> tuple[Figure, np.ndarray]:
    """A figure of square panels, with a note below them, and its axes (n_rows, n_columns)."""
    size = (PANEL_INCHES * n_columns + 0.1, PANEL_INCHES * n_rows + 0.6)
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(h_pad=0.08, compress=True))
    figure.suptitle(title, size=11)
    width = int(NOTE_LETTERS_PER_PANEL * n_columns)
    figure.supxlabel(textwrap.fill(note, width), size=SMALL, color="0.4")
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    for axes in grid.flat:
        axes.set_box_aspect(1)
        axes.tick_params(which="both", labelsize=SMALL)
        axes.xaxis.label.set_size(SMALL)
        axes.yaxis.label.set_size(SMALL)
    return figure, grid


def draw_panels(
    title: str,
    note: str,
    comparisons: Sequence[Comparison],
    draw: Callable[[Axes, Comparison], None],
) -> Figure:
    """Draw every comparison; one without references says why, a column without any is left out.

    Raises UserError if nothing can be compared.
    """
    with_any = {c.quantity for c in comparisons if c.reason is None}
    columns = [q for q in dict.fromkeys(c.quantity for c in comparisons) if q in with_any]
    levels = list(dict.fromkeys(c.level for c in comparisons))
    if not columns:
        raise UserError(f"{title}: no test structure has a label of a head's level.")
    figure, grid = make_grid(title, note, len(levels), len(columns))
    for comparison in comparisons:
        if comparison.quantity not in columns:
            continue
        axes = grid[levels.index(comparison.level)][columns.index(comparison.quantity)]
        heading = f"{comparison.level.label} {comparison.quantity.heading}"
        if comparison.reason is None:
            axes.set_title(heading, size=10)
            draw(axes, comparison)
        else:
            leave_empty(axes, heading, comparison.reason)
    return figure


def leave_empty(axes: Axes, heading: str, reason: str) -> None:
    """Write into a panel why it is empty."""
    axes.set_axis_off()
    text = f"{heading}:\n{textwrap.fill(reason, 28)}"
    axes.text(
        *(0.5, 0.5, text), ha="center", va="center", size=9, color="0.4", transform=axes.transAxes
    )


def write_in_corner(axes: Axes, lines: Sequence[str], *, right: bool = False) -> None:
    """Write lines into an upper corner, readable over points."""
    axes.text(
        *(0.96 if right else 0.04, 0.96, "\n".join(lines)),
        ha="right" if right else "left",
        va="top",
        size=SMALL,
        transform=axes.transAxes,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1.5},
        zorder=5,
    )


def label_log_axis(axis: Axis, low: float, high: float) -> None:
    """Plain numbers on a logarithmic axis from low to high, and not too many of them."""
    subs = (1.0, 2.0, 5.0) if np.log10(high / low) < FEW_DECADES else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=10))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def seeds_text(members: Sequence[Run]) -> str:
    """The seeds of runs, as `seed 3`, `seeds 0–7` or `seeds 0, 2, 5`."""
    seeds = [member.seed for member in members]
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"seeds {seeds[0]}–{seeds[-1]}"
    return f"seeds {', '.join(map(str, seeds))}"
