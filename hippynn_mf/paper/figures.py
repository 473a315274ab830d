"""Figures of a folder of runs, written in one call: figure 3, forces, and each experiment's."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from hippynn_mf.errors import UserError, unknown_name_message
from hippynn_mf.levels import Level, highest_level
from hippynn_mf.paper import FIGURES, cc_forces
from hippynn_mf.paper.choice import PAPER_SETS, chosen_experiments, own_experiments
from hippynn_mf.paper.figure3 import LEVELS, draw_figure3, figure3_data, pair_names
from hippynn_mf.report.columns import Column
from hippynn_mf.report.completeness import Written, missing_runs
from hippynn_mf.report.experiment_figures import KINDS, drawn_figures, lacking_text
from hippynn_mf.report.forces_figure import (
    forces_data,
    forces_figure,
    lower_levels,
    models_with_forces,
)
from hippynn_mf.report.results import Results, Selection
from hippynn_mf.report.saving import save_with_numbers

log = logging.getLogger(__name__)


def write_figures(
    out: Path,
    results: Results,
    selection: Selection | None = None,
    *,
    only: Sequence[str] | None = None,
) -> Written:
    """Draw `FIGURES`, or `only` these, into `out/figures`: images, and their numbers as JSON.

    Figure 3 needs the runs of both models of every level, for the chosen seeds or for all seeds
    that any of them has; otherwise it is left as it was, and the result says what it lacks. With
    chosen experiments, only levels with both models among them are drawn; of a partial selection,
    what is there. Errors of forces are drawn where runs were tested on them: of CC forces on the
    embedded set, and of the highest level of one's own models on any set. The other figures, of
    every experiment, need files that only training writes, and error against spread three seeds; an
    experiment that lacks them is left out, and a logged warning says so. Raises UserError for an
    unknown name, for runs with several split seeds of which none is chosen, or if nothing of a name
    in `only` can be drawn.
    """
    selection = selection or Selection()
    for name in only or ():
        if name not in FIGURES:
            raise UserError(unknown_name_message("figure", name, FIGURES))
    chosen = [name for name in FIGURES if only is None or name in only]
    selected = selection.of(results)
    selected.require_one_split()
    (out / "figures").mkdir(parents=True, exist_ok=True)
    written = Written(out)
    if "figure3" in chosen:
        written += _write_figure3(out, results, selection)
    if "cc-forces" in chosen:
        drawn = _write_cc_forces(out, selected, selection)
        if only is not None and drawn == Written(out):
            raise UserError(
                "No cc-forces figure can be drawn. No finished run of a model with a CC head was "
                f"tested on a set {cc_forces.DOCUMENT!r} with CC forces; 'hippynn-mf evaluate RUNS "
                f"--test {cc_forces.DOCUMENT}=FILE' does that."
            )
        written += drawn
    if "forces" in chosen:
        written += _write_forces(out, results, selection)
    for name in chosen:
        if name in KINDS:
            paths = [
                save_with_numbers(figure, data, out / "figures" / f"{name}-{slug}.png")
                for slug, figure, data in drawn_figures(selected, name)
            ]
            lacking = lacking_text(selected, name)
            if lacking and not paths and only is not None:
                raise UserError(f"No {name} figure can be drawn. {lacking}")
            if lacking:
                log.warning(lacking)
            written += Written(out, paths)
    return written


def _write_figure3(out: Path, results: Results, selection: Selection) -> Written:
    names = {experiment.name for experiment in chosen_experiments(results, selection)}
    results = selection.of(results)
    levels = [level for level in LEVELS if names.issuperset(pair_names(level))]
    needed = [name for level in levels for name in pair_names(level)]
    missing = missing_runs(results, needed, selection.seeds)
    if missing and not selection.partial:
        return Written(out, lacking={"figures/figure3.png": missing})
    if not levels:
        return Written(out)
    data = figure3_data(results, levels, missing)
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    draw_figure3(figure.subplots(), data)
    return Written(out, [save_with_numbers(figure, data, out / "figures" / "figure3.png")])


def _write_cc_forces(out: Path, results: Results, selection: Selection) -> Written:
    names = cc_forces.cc_force_names(results, selection.experiments)
    if not names:
        return Written(out)
    return _write_bars(
        out, results, selection, cc_forces.DOCUMENT, cc_forces.FORCE, names, cc_forces.LOW_LEVELS
    )


def _write_forces(out: Path, results: Results, selection: Selection) -> Written:
    chosen = chosen_experiments(results, selection)
    results = selection.of(results)
    there = [e for e in chosen if e.name in results.experiments]
    written = Written(out)
    for name in results.sets:
        experiments = own_experiments(there) if name in PAPER_SETS else there
        labels = [e.resolved_labels for e in experiments if len(e.resolved_labels) > 1]
        for level in {highest_level(levels): None for levels in labels}:
            names = models_with_forces(results, name, level)
            names = [e.name for e in experiments if e.name in names]
            if names:
                stem = f"forces-{name}-{level.label.lower()}"
                column = Column.own(name, level, "force")
                lower = lower_levels(results, level)
                written += _write_bars(out, results, selection, stem, column, names, lower)
    return written


def _write_bars(
    out: Path,
    results: Results,
    selection: Selection,
    stem: str,
    column: Column,
    names: Sequence[str],
    low_levels: Sequence[Level],
) -> Written:
    missing = missing_runs(results, names, selection.seeds)
    if missing and not selection.partial:
        return Written(out, lacking={f"figures/{stem}.png": missing})
    data = forces_data(results, column, names, low_levels, missing)
    path = out / "figures" / f"{stem}.png"
    return Written(out, [save_with_numbers(forces_figure(data, results.known), data, path)])
