"""Errors of coupled-cluster forces of every model, beside those of cheap forces themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from matplotlib.figure import Figure

from hippynn_mf.levels import CC, KNOWN_LEVELS
from hippynn_mf.report.columns import LowLevel, TableSpec
from hippynn_mf.report.ensemble import EnsembleRecord
from hippynn_mf.report.level_colors import level_color
from hippynn_mf.report.results import Results
from hippynn_mf.report.statistics import CONFIDENCE, Estimate
from hippynn_mf.report.tables import build_table
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


class CcForcesData(Strict):
    """What the figure shows, unrounded.

    `low_levels` are the RMSEs of their own forces against those of CC by label, None where they
    are not known; `label_rms` is the RMSE of predicting no force.
    """

    format: Literal[1]
    confidence: float
    unit: str
    missing: list[str]
    bars: list[Bar]
    low_levels: dict[str, float | None]
    label_rms: float | None


def cc_forces_data(
    specs: Sequence[TableSpec],
    results: Results,
    ensembles: Mapping[str, EnsembleRecord],
    missing: Sequence[object] = (),
) -> CcForcesData:
    """The numbers of the figure from those of the tables of `cc_force_tables`."""
    tables = [build_table(spec, results, ensembles, "rmse", missing) for spec in specs]
    main = tables[0]
    cells = {row.model: row.cells[0] for row in main.rows}
    low_levels: dict[str, float | None] = {}
    for spec, table in zip(specs, tables, strict=True):
        if isinstance(spec.reference, LowLevel):
            known = [row.cells[0].reference for row in table.rows]
            label = spec.reference.level.label
            low_levels[label] = next((value for value in known if value is not None), None)
    return CcForcesData(
        format=1,
        confidence=CONFIDENCE,
        unit=main.columns[0].unit,
        missing=main.missing,
        bars=[
            Bar(model=name, values=cell.values, mean=cell.mean, mean_prediction=cell.ensemble)
            for name, cell in cells.items()
        ],
        low_levels=low_levels,
        label_rms=main.columns[0].label_rms,
    )


def draw_cc_forces(data: CcForcesData) -> Figure:
    """A bar for each model with its 95 % interval, a dot per seed, and lines for cheap forces."""
    figure = Figure(figsize=(7, 1.7 + BAR_INCHES * len(data.bars)), layout="constrained")
    axes = figure.subplots()
    color = level_color(CC)
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
    for label, value in data.low_levels.items():
        if value is not None:
            text = f"{label} forces themselves: {value:.2f}"
            axes.axvline(
                value, color=level_color(KNOWN_LEVELS.get(label)), linewidth=1.5, label=text
            )
    if data.label_rms is not None:
        text = f"no force at all: {data.label_rms:.2f}"
        axes.axvline(data.label_rms, color="0.5", linestyle=":", label=text)
    axes.set_yticks(range(len(data.bars)), [bar.model for bar in data.bars])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel(f"RMSE of {CC.label} forces on the test file ({data.unit})")
    axes.legend(fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.4, 1.0))
    return figure
