"""Figures from finished runs: the paper's figure 3, parity plots and learning curves.

Functions draw into given axes; `write_complete_figures` writes all of them for a folder of runs.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hippynn_mf.experiment import Experiment, table1
from hippynn_mf.files import replace_when_complete
from hippynn_mf.labels import parse_labels
from hippynn_mf.levels import Level, get_level
from hippynn_mf.metrics import rmse
from hippynn_mf.report.completeness import Written, missing_runs
from hippynn_mf.report.figure3 import LEVELS, draw_figure3, figure3_data, pair_names
from hippynn_mf.report.results import Result, Results
from hippynn_mf.runs import write_json

log = logging.getLogger(__name__)

KIND_UNITS = {"energy": "kcal/mol", "forces": "kcal/mol/Å"}
LEVEL_COLORS = {"DZ": "tab:blue", "TZ": "tab:green", "MP2": "tab:orange", "CC": "tab:red"}


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


def write_complete_figures(
    out: Path,
    results: Results,
    *,
    experiments: Sequence[Experiment] | None = None,
    seeds: Sequence[int] | None = None,
    partial: bool = False,
) -> Written:
    """Draw figure 3, and a parity plot and learning curves per experiment, into `out/figures`.

    Figure 3 needs the runs of both models of every level, for `seeds` or for all seeds that any
    of them has; otherwise it is left as it was, and the result says what it lacks. With
    `experiments`, only levels with both models among them are drawn; with `partial`, what is
    there. The other figures need files that only training writes; one without is left out, and a
    logged warning says so.
    """
    (out / "figures").mkdir(parents=True, exist_ok=True)
    written = Written(out)
    if seeds is not None:
        results = results.only(seeds)
    names = {e.name for e in (table1() if experiments is None else experiments)}
    levels = [level for level in LEVELS if names.issuperset(pair_names(level))]
    missing = missing_runs(results, [n for level in levels for n in pair_names(level)], seeds)
    if missing and not partial:
        written.lacking["figures/figure3.png"] = missing
    elif levels:
        data = figure3_data(results, levels, missing)
        write_json(out / "figures" / "figure3.json", data.model_dump(mode="json"))
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        draw_figure3(figure.subplots(), data)
        written.paths.append(_save(figure, out / "figures" / "figure3.png"))
    for file, draw in {"predictions.npz": _parity, "epochs.jsonl": _learning}.items():
        kind = draw.__name__[1:]
        left_out = {}
        for name, runs in results.by_name.items():
            without = [run.folder.file(file) for run in runs if not run.folder.file(file).exists()]
            if without:
                left_out[name] = without[0]
                continue
            path = out / "figures" / f"{kind}-{runs[0].settings.slug}.png"
            written.paths.append(_save(draw(name, runs), path))
        if left_out:
            log.warning(
                "no %s plots of %s: they need %s of every run, which is missing, first of all %s",
                kind,
                ", ".join(left_out),
                file,
                next(iter(left_out.values())),
            )
    return written


def write_figures(
    out: Path,
    results: Results,
    *,
    experiments: Sequence[Experiment] | None = None,
    seeds: Sequence[int] | None = None,
    partial: bool = False,
) -> list[Path]:
    """`write_complete_figures` with a UserError for what lacks runs; returns the images."""
    written = write_complete_figures(
        out, results, experiments=experiments, seeds=seeds, partial=partial
    )
    return written.require()


def _parity(name: str, runs: Sequence[Result]) -> Figure:
    """Parity plots of an experiment's first run."""
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
    return figure


def _learning(name: str, runs: Sequence[Result]) -> Figure:
    """Learning curves of an experiment's runs."""
    trained_forces = any("F" in properties for properties in runs[0].settings.labels.values())
    kinds = ("energy", "forces") if trained_forces else ("energy",)
    figure = Figure(figsize=(3.5 * len(kinds), 3.2), layout="constrained")
    figure.suptitle(f"{name}, seeds {', '.join(str(r.settings.seed) for r in runs)}", size=10)
    for axes, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        draw_learning_curves(axes, runs, kind)
    return figure


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
