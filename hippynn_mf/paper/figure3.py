"""The paper's figure 3: by how much cheap forces improve models of expensive energies.

The bars are `percent_improvement` of MF-DZ/EF-X/E over SF-X/E, from the paired log ratios of the
RMSEs of each seed, with its 95 % interval: the statistic of the tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from matplotlib.axes import Axes

from hippynn_mf.levels import CC, MP2, TZ, Level
from hippynn_mf.paper.published import TRANSFER_LEARNING_PERCENT
from hippynn_mf.paper.table1 import get_experiment, published_result
from hippynn_mf.report.columns import (
    Column,
    comp6_delta_e,
    comp6_force,
    heldout_energy,
    heldout_force,
)
from hippynn_mf.report.results import Results
from hippynn_mf.report.statistics import (
    CONFIDENCE,
    Estimate,
    percent_by_seed,
    percent_improvement,
    percent_of_means,
)
from hippynn_mf.schema import Strict

LEVELS = (TZ, MP2, CC)

# Heading and metric for each high level. As in the paper, forces are those of the high level's
# head against DFT/TZ on the held-out and against MP2/TZ on the COMP6 structures.
METRICS: tuple[tuple[str, dict[str, Column]], ...] = (
    ("energy", {level.label: heldout_energy(level) for level in LEVELS}),
    ("force, held-out TZ", {level.label: heldout_force(TZ).at_head(level) for level in LEVELS}),
    ("force, COMP6 MP2", {level.label: comp6_force(MP2).at_head(level) for level in LEVELS}),
    ("ΔE, COMP6 CC", {level.label: comp6_delta_e(CC).at_head(level) for level in LEVELS}),
)
# Metrics that tables 2 to 4 report, beside the energy: their `other` number.
PUBLISHED_OTHER = {"TZ": "force, held-out TZ", "MP2": "force, COMP6 MP2", "CC": "ΔE, COMP6 CC"}


class Bar(Strict):
    """The improvement of one metric by low-level forces, in percent, beside the published one."""

    level: str
    metric: str
    percent_improvement: Estimate | None
    values_percent: dict[str, float]
    published_percent_improvement: float | None


class Figure3Data(Strict):
    """What figure 3 shows, unrounded."""

    format: Literal[1]
    confidence: float
    missing: list[str]
    bars: list[Bar]


def pair_names(level: Level) -> tuple[str, str]:
    """The two experiments that the bars of a level compare."""
    return f"SF-{level.label}/E", f"MF-DZ/EF-{level.label}/E"


def figure3_data(
    results: Results, levels: Sequence[Level] = LEVELS, missing: Sequence[object] = ()
) -> Figure3Data:
    """The bars of these levels from the runs that are there."""
    return Figure3Data(
        format=1,
        confidence=CONFIDENCE,
        missing=[str(run) for run in missing],
        bars=[
            _bar(results, level, metric, columns[level.label])
            for level in levels
            for metric, columns in METRICS
        ],
    )


def _bar(results: Results, level: Level, metric: str, column: Column) -> Bar:
    one, several = pair_names(level)
    single, multi = results.paired((one, column), (several, column))
    return Bar(
        level=level.label,
        metric=metric,
        percent_improvement=percent_improvement(multi, single),
        values_percent=percent_by_seed(multi, single),
        published_percent_improvement=_published(level, metric),
    )


def _published(level: Level, metric: str) -> float | None:
    """Improvement of the published means, where the paper's tables have them."""
    single, multi = (published_result(get_experiment(name)) for name in pair_names(level))
    if single is None or multi is None:
        return None
    if metric == "energy":
        return percent_of_means(multi.energy[0], single.energy[0])
    if metric == PUBLISHED_OTHER[level.label]:
        return percent_of_means(multi.other[0], single.other[0])
    return None


def draw_figure3(axes: Axes, data: Figure3Data) -> None:
    """Bars with 95 % intervals, a dot per seed, and diamonds for the paper's own improvements.

    The band is what the paper quotes for transfer learning. A level without any bar says so.
    """
    levels = list(dict.fromkeys(bar.level for bar in data.bars))
    metrics = [metric for metric, _ in METRICS]
    width = 0.8 / len(metrics)
    for place, metric in enumerate(metrics):
        axes.bar([0], [0], color=f"C{place}", label=metric)
    for bar in data.bars:
        place = metrics.index(bar.metric)
        x = levels.index(bar.level) + (place - (len(metrics) - 1) / 2) * width
        if bar.percent_improvement is not None:
            _draw_bar(axes, x, width, f"C{place}", bar.percent_improvement)
            dots = list(bar.values_percent.values())
            axes.plot([x] * len(dots), dots, ".", color="black", markersize=3, zorder=3)
        if bar.published_percent_improvement is not None:
            y = bar.published_percent_improvement
            axes.plot([x], [y], "D", color="white", markeredgecolor="black", markersize=5, zorder=4)
    axes.plot(
        [], [], "D", color="white", markeredgecolor="black", label="the paper, from its means"
    )
    low, high = TRANSFER_LEARNING_PERCENT
    label = f"transfer learning in the paper's text: {low:.0f}–{high:.0f} %"
    axes.axhspan(low, high, color="grey", alpha=0.3, zorder=0, label=label)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(levels)), [_tick(data, level) for level in levels])
    axes.set_xlim(-0.5, len(levels) - 0.5)
    axes.set_ylabel("RMSE of MF-DZ/EF-X/E below SF-X/E (%)")
    axes.legend(fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _draw_bar(axes: Axes, x: float, width: float, color: str, estimate: Estimate) -> None:
    axes.bar(x, estimate.value, 0.92 * width, color=color, alpha=0.75)
    if estimate.low is not None and estimate.high is not None:
        error = [[estimate.value - estimate.low], [estimate.high - estimate.value]]
        axes.errorbar(x, estimate.value, error, color="black", capsize=3, linewidth=1, zorder=3)


def _tick(data: Figure3Data, level: str) -> str:
    """Name of a level, and the seeds that its bars rest on."""
    seeds = {int(seed) for bar in data.bars if bar.level == level for seed in bar.values_percent}
    seeds_text = f"seeds {', '.join(map(str, sorted(seeds)))}" if seeds else "no pair of runs"
    return f"X = {level}\n{seeds_text}"
