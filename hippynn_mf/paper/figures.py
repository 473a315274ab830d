"""Figures of a folder of runs, written in one call: figure 3, forces, and each experiment's."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from hippynn_mf.errors import UserError, unknown_name_message
from hippynn_mf.files import make_folder
from hippynn_mf.levels import Level, highest_level
from hippynn_mf.paper import FIGURES, cc_forces
from hippynn_mf.paper.cc_forces import DOCUMENT as CC_FORCES
from hippynn_mf.paper.choice import (
    PAPER_SETS,
    are_of_paper,
    chosen_experiments,
    own_experiments,
)
from hippynn_mf.paper.documents import split_parts
from hippynn_mf.paper.figure3 import LEVELS, draw_figure3, figure3_data, pair_names
from hippynn_mf.report.columns import Column, set_name
from hippynn_mf.report.completeness import MissingRuns, Written, missing_runs
from hippynn_mf.report.experiment_figures import KINDS, drawn_figures, lacking_text
from hippynn_mf.report.forces_figure import (
    forces_data,
    forces_figure,
    lower_levels,
    models_with_forces,
)
from hippynn_mf.report.results import Results, Selection
from hippynn_mf.report.saving import save_with_numbers
from hippynn_mf.schema import Strict

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
    unknown name, or if nothing of a name in `only` can be drawn.

    Where runs have several split seeds, the figures of each lie in `out/figures/split-S`.
    """
    for name in only or ():
        if name not in FIGURES:
            raise UserError(unknown_name_message("figure", name, FIGURES))
    written = Written(out)
    for part, folder in split_parts(results, selection or Selection()):
        if part.split_seed is not None or len(results.split_seeds) < 2:
            written += _write_figures(out, f"figures/{folder}".rstrip("/"), results, part, only)
    return written


def _write_figures(
    out: Path, folder: str, results: Results, selection: Selection, only: Sequence[str] | None
) -> Written:
    chosen = [name for name in FIGURES if only is None or name in only]
    selected = selection.of(results)
    make_folder(out / folder)
    written = Written(out)
    planned = [figure for name in chosen for figure in shared_figures(results, selection, name)]
    if only is not None and CC_FORCES in only and not any(f.stem == CC_FORCES for f in planned):
        raise UserError(
            f"No {CC_FORCES} figure can be drawn. No finished run of a model with a CC head was "
            f"tested on a set {CC_FORCES!r} with CC forces; 'hippynn-mf evaluate RUNS --test "
            f"{CC_FORCES}=FILE' does that."
        )
    if only is not None and "forces" in only and not any(f.stem[:7] == "forces-" for f in planned):
        raise UserError(
            "No forces figure can be drawn. It is of models of several levels of your own, or of a "
            "test set of your own, with forces of the highest level."
        )
    for figure in planned:
        path = out / folder / f"{figure.stem}.png"
        if figure.missing and not selection.partial:
            written.lacking[f"{folder}/{path.name}"] = figure.missing
        else:
            written.paths.append(save_with_numbers(*figure.make(), path))
    for name in chosen:
        if name in KINDS:
            paths = [
                save_with_numbers(figure, data, out / folder / f"{name}-{slug}.png")
                for slug, figure, data in drawn_figures(selected, name)
            ]
            lacking = lacking_text(selected, name)
            if lacking and not paths and only is not None:
                raise UserError(f"No {name} figure can be drawn. {lacking}")
            if lacking:
                log.warning(lacking)
            written += Written(out, paths)
    return written


@dataclass(frozen=True)
class SharedFigure:
    """A figure of several experiments: its file's stem, its title on a page, what it lacks."""

    stem: str
    title: str
    missing: list[MissingRuns]
    make: Callable[[], tuple[Figure, Strict]]


def shared_figures(results: Results, selection: Selection, name: str) -> list[SharedFigure]:
    """The figures of several experiments of one of `FIGURES`, without those of no experiment."""
    if name == "figure3":
        return _figure3(results, selection)
    if name == CC_FORCES:
        return _cc_forces(results, selection)
    return _forces(results, selection) if name == "forces" else []


def _figure3(results: Results, selection: Selection) -> list[SharedFigure]:
    if not are_of_paper(results):
        return []
    names = {experiment.name for experiment in chosen_experiments(results, selection)}
    results = selection.of(results)
    levels = [level for level in LEVELS if names.issuperset(pair_names(level))]
    needed = [name for level in levels for name in pair_names(level)]
    missing = missing_runs(results, needed, selection.seeds)

    def make() -> tuple[Figure, Strict]:
        data = figure3_data(results, levels, missing)
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        draw_figure3(figure.subplots(), data)
        return figure, data

    title = "By how much low-level forces improve models of high-level energies"
    return [SharedFigure("figure3", title, missing, make)] if levels else []


def _cc_forces(results: Results, selection: Selection) -> list[SharedFigure]:
    if not are_of_paper(results):
        return []
    results = selection.of(results)
    names = cc_forces.cc_force_names(results, selection.experiments)
    if not names:
        return []
    column, low_levels = cc_forces.FORCE, cc_forces.LOW_LEVELS
    return [_bars(results, selection, CC_FORCES, column, names, low_levels)]


def _forces(results: Results, selection: Selection) -> list[SharedFigure]:
    chosen = chosen_experiments(results, selection)
    results = selection.of(results)
    there = [e for e in chosen if e.name in results.experiments]
    figures = []
    for name in results.sets:
        experiments = own_experiments(there, results) if name in PAPER_SETS else there
        labels = [e.resolved_labels for e in experiments if len(e.resolved_labels) > 1]
        for level in {highest_level(levels): None for levels in labels}:
            with_forces = models_with_forces(results, name, level)
            names = [e.name for e in experiments if e.name in with_forces]
            if names:
                label = re.sub(r"[/ ]", "-", level.label.lower())
                stem = f"forces-{name}-{label}"
                column, lower = Column.own(name, level, "force"), lower_levels(results, level)
                figures.append(_bars(results, selection, stem, column, names, lower))
    return figures


def _bars(
    results: Results,
    selection: Selection,
    stem: str,
    column: Column,
    names: Sequence[str],
    low_levels: Sequence[Level],
) -> SharedFigure:
    missing = missing_runs(results, names, selection.seeds)

    def make() -> tuple[Figure, Strict]:
        data = forces_data(results, column, names, low_levels, missing)
        return forces_figure(data, results.known), data

    level = column.reference.label
    title = f"Errors of {level} forces, {set_name(column.set)}, beside those of cheaper forces"
    return SharedFigure(stem, title, missing, make)
