"""Figures from finished runs: the paper's figure 3, parity plots and learning curves.

Functions draw into given axes; `write_figures` writes all of them for a folder of runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hippynn_mf.files import replace_when_complete
from hippynn_mf.labels import parse_labels
from hippynn_mf.levels import CC, MP2, TZ, Level, get_level
from hippynn_mf.metrics import rmse
from hippynn_mf.results import Result, Results
from hippynn_mf.tables import Column, comp6_delta_e, comp6_force, heldout_energy

# Improvement that the paper quotes for transfer learning (energies and conformer energies).
TRANSFER_LEARNING_PERCENT = (15.0, 20.0)
KIND_UNITS = {"energy": "kcal/mol", "forces": "kcal/mol/Å"}
LEVEL_COLORS = {"DZ": "tab:blue", "TZ": "tab:green", "MP2": "tab:orange", "CC": "tab:red"}


def _cross_force(head: Level, reference: Level) -> Column:
    path = ("cross", head.id, reference.id, "force_{}_kcal_per_mol_per_angstrom")
    return Column(f"force of the {head.label} head, held-out {reference.label}", "kcal/mol/Å", path)


# Bars of figure 3: heading and metric for each high level. As in the paper, forces are those of
# the high level's head against DFT/TZ on the held-out and against MP2/TZ on the COMP6 structures.
FIGURE3_METRICS: tuple[tuple[str, dict[str, Column]], ...] = (
    ("energy", {level.label: heldout_energy(level) for level in (TZ, MP2, CC)}),
    ("force, held-out TZ", {level.label: _cross_force(level, TZ) for level in (TZ, MP2, CC)}),
    ("force, COMP6 MP2", {level.label: comp6_force(MP2) for level in (TZ, MP2, CC)}),
    ("ΔE, COMP6 CC", {level.label: comp6_delta_e(CC) for level in (TZ, MP2, CC)}),
)


def percent_improvement(
    results: Results, high: str, column: Column
) -> tuple[float | None, np.ndarray]:
    """(RMSE_SF − RMSE_MF) / RMSE_SF × 100 of MF-DZ/EF-X/E over SF-X/E, on the seeds both have.

    From the means over seeds, as the paper's (None without a common seed), and for every seed.
    """
    path = column.metric_path("rmse")
    single = results.by_seed(f"SF-{high}/E", *path)
    multi = results.by_seed(f"MF-DZ/EF-{high}/E", *path)
    seeds = sorted(single.keys() & multi)
    if not seeds:
        return None, np.array([])
    sf, mf = (np.array([values[seed] for seed in seeds]) for values in (single, multi))
    return float(100 * (1 - mf.mean() / sf.mean())), 100 * (1 - mf / sf)


def draw_figure3(axes: Axes, results: Results) -> None:
    """Percent improvement by multi-fidelity learning for TZ, MP2 and CC, as the paper's figure 3.

    Bars are from means over seeds, dots from single seeds; the band is what the paper quotes for
    transfer learning. Experiments that are missing are named under their level.
    """
    levels = (TZ, MP2, CC)
    width = 0.8 / len(FIGURE3_METRICS)
    for place, (heading, columns) in enumerate(FIGURE3_METRICS):
        offset = (place - (len(FIGURE3_METRICS) - 1) / 2) * width
        color = f"C{place}"
        axes.bar([0], [0], color=color, label=heading)
        for x, level in enumerate(levels):
            if level.label not in columns:
                continue
            mean, each = percent_improvement(results, level.label, columns[level.label])
            if mean is not None:
                axes.bar(x + offset, mean, 0.92 * width, color=color, alpha=0.75)
                axes.plot([x + offset] * len(each), each, ".", color="black", markersize=4)
    low, high = TRANSFER_LEARNING_PERCENT
    label = f"transfer learning in the paper's text: {low:.0f}–{high:.0f} %"
    axes.axhspan(low, high, color="grey", alpha=0.3, zorder=0, label=label)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(levels)), [_tick(results, level) for level in levels])
    axes.set_xlim(-0.5, 2.5)
    axes.set_ylabel("RMSE of MF-DZ/EF-X/E below SF-X/E (%)")
    axes.legend(fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _tick(results: Results, level: Level) -> str:
    """Name of a level, with the seeds that its bars rest on or the experiments it lacks."""
    names = (f"SF-{level.label}/E", f"MF-DZ/EF-{level.label}/E")
    missing = [name for name in names if name not in results.by_name]
    if missing:
        return f"X = {level.label}\nnot trained: {', '.join(missing)}"
    seeds = [{result.settings.seed for result in results.by_name[name]} for name in names]
    return f"X = {level.label}\nseeds {', '.join(map(str, sorted(seeds[0] & seeds[1])))}"


def draw_parity(axes: Axes, result: Result, level: Level, kind: str) -> None:
    """Predicted against reference energies or forces of the held-out structures of a run.

    Energies are drawn relative to the mean reference of the structures of the same composition,
    because compositions are hundreds of kcal/mol apart.
    """
    arrays = result.folder.read_predictions()
    predicted = arrays[f"heldout.{level.id}.{kind}"]
    true = arrays[f"heldout.reference.{level.id}.{kind}"]
    species = arrays["heldout.species"]
    if kind == "forces":
        predicted, true = predicted[species > 0].ravel(), true[species > 0].ravel()
    labelled = np.isfinite(true)
    predicted, true = predicted[labelled], true[labelled]
    if kind == "energy":
        formulas = np.sort(species[labelled], axis=1)
        _, formula, counts = np.unique(formulas, axis=0, return_inverse=True, return_counts=True)
        means = np.bincount(formula.ravel(), weights=true) / counts
        predicted, true = predicted - means[formula.ravel()], true - means[formula.ravel()]
    axes.plot(true, predicted, ".", markersize=2, alpha=0.5, color=LEVEL_COLORS.get(level.label))
    limits = [min(true.min(), predicted.min()), max(true.max(), predicted.max())]
    axes.plot(limits, limits, color="black", linewidth=0.8)
    what = "relative energy" if kind == "energy" else "force"
    unit = KIND_UNITS[kind]
    axes.set_title(f"{level.label} {what}, RMSE {rmse(predicted - true):.2f} {unit}", size=9)
    axes.set_xlabel(f"reference ({unit})")
    axes.set_ylabel(f"predicted ({unit})")


def draw_learning_curves(axes: Axes, results: Sequence[Result], kind: str) -> None:
    """Validation RMSE of energies or forces of every trained level, one line per seed."""
    metric = {"energy": "energy_rmse", "forces": "force_rmse"}[kind]
    for result in results:
        epochs = result.folder.read_epochs()
        for place, level in enumerate(parse_labels(result.settings.labels)):
            name = f"{metric}.{level.id}"
            if name in epochs[0]["valid"]:
                axes.semilogy(
                    [epoch["epoch"] + 1 for epoch in epochs],
                    [epoch["valid"][name] for epoch in epochs],
                    color=LEVEL_COLORS.get(level.label, f"C{place}"),
                    linewidth=1,
                    label=level.label if result is results[0] else None,
                )
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"validation RMSE ({KIND_UNITS[kind]})")
    axes.set_title(kind, size=9)
    axes.legend(fontsize=8)


def write_figures(out: Path, results: Results) -> list[Path]:
    """Write `figure3.png`, and a parity plot and learning curves per experiment; their paths."""
    folder = out / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    paths = []

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    draw_figure3(figure.subplots(), results)
    paths.append(_save(figure, folder / "figure3.png"))

    for name, runs in results.by_name.items():
        slug = runs[0].settings.slug
        panels = [
            (get_level(level), kind)
            for level in runs[0].settings.labels
            for kind in ("energy", "forces")
            if _has_reference(runs[0], level, kind)
        ]
        figure = Figure(figsize=(3.2 * len(panels), 3.2), layout="constrained")
        figure.suptitle(f"{name}, seed {runs[0].settings.seed}, held-out", size=10)
        for axes, (level, kind) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
        ):
            draw_parity(axes, runs[0], level, kind)
        paths.append(_save(figure, folder / f"parity-{slug}.png"))

        trained_forces = any("F" in properties for properties in runs[0].settings.labels.values())
        kinds = ("energy", "forces") if trained_forces else ("energy",)
        figure = Figure(figsize=(3.5 * len(kinds), 3.2), layout="constrained")
        figure.suptitle(f"{name}, seeds {', '.join(str(r.settings.seed) for r in runs)}", size=10)
        for axes, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
            draw_learning_curves(axes, runs, kind)
        paths.append(_save(figure, folder / f"learning-{slug}.png"))
    return paths


def _has_reference(result: Result, level_name: str, kind: str) -> bool:
    level = get_level(level_name)
    metric = {
        "energy": "energy_rmse_kcal_per_mol",
        "forces": "force_rmse_kcal_per_mol_per_angstrom",
    }[kind]
    return (result.metrics["heldout"].get(level.id) or {}).get(metric) is not None


def _save(figure: Figure, path: Path) -> Path:
    with replace_when_complete(path) as partial, matplotlib.rc_context({"savefig.dpi": 150}):
        figure.savefig(partial, format="png")
    return path
