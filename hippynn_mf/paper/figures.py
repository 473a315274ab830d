"""Figures of a folder of runs, written in one call: figure 3, CC forces, and each experiment's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from tqdm import tqdm

from hippynn_mf.errors import UserError, unknown_name_message
from hippynn_mf.files import replace_when_complete, write_json
from hippynn_mf.paper.cc_forces import DOCUMENT as CC_FORCES
from hippynn_mf.paper.cc_forces import cc_force_tables
from hippynn_mf.paper.cc_forces_figure import cc_forces_data, draw_cc_forces
from hippynn_mf.paper.figure3 import LEVELS, draw_figure3, figure3_data, pair_names
from hippynn_mf.report.completeness import Written, missing_runs
from hippynn_mf.report.ensemble import find_ensembles
from hippynn_mf.report.learning import make_learning_curves
from hippynn_mf.report.parity import make_parity
from hippynn_mf.report.results import Result, Results, chosen_experiments
from hippynn_mf.report.spread import FEWEST_SEEDS, make_spread
from hippynn_mf.runs.experiment import Experiment
from hippynn_mf.schema import Strict

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FigureKind:
    """A figure of an experiment: how it is made, the file and the seeds it needs of its runs.

    The file is one of the run, or one `of_phases`, of every phase of the run.
    """

    make: Callable[[Sequence[Result]], tuple[Figure, Strict]]
    file: str
    fewest_seeds: int = 1
    of_phases: bool = False

    def lacks(self, members: Sequence[Result]) -> str | None:
        """What the runs lack for it, None for nothing."""
        for member in members:
            run = member.folder
            for folder in run.phases(member.settings) if self.of_phases else [run]:
                if not folder.file(self.file).exists():
                    return f"{self.file} of every run, which is missing: {folder.path}"
        if len(members) < self.fewest_seeds:
            return f"{self.fewest_seeds} or more seeds"
        return None


FIGURE3 = "figure3"
KINDS: Mapping[str, FigureKind] = {
    "parity": FigureKind(make_parity, "predictions.npz"),
    "spread": FigureKind(make_spread, "predictions.npz", FEWEST_SEEDS),
    "learning": FigureKind(make_learning_curves, "epochs.jsonl", of_phases=True),
}
FIGURES = (FIGURE3, CC_FORCES, *KINDS)


def write_complete_figures(
    out: Path,
    results: Results,
    *,
    only: Sequence[str] | None = None,
    experiments: Sequence[Experiment] | None = None,
    seeds: Sequence[int] | None = None,
    partial: bool = False,
) -> Written:
    """Draw `FIGURES`, or `only` these, into `out/figures`: images, and their numbers as JSON.

    Figure 3 needs the runs of both models of every level, for `seeds` or for all seeds that any
    of them has; otherwise it is left as it was, and the result says what it lacks. With
    `experiments`, only levels with both models among them are drawn; with `partial`, what is
    there. The errors of CC forces need the same runs as their tables, and are drawn where any was
    tested on such forces. The other figures, of every experiment, need files that only training
    writes, and error against spread three seeds; an experiment that lacks them is left out, and a
    logged warning says so. Raises UserError for an unknown name, or if nothing of a name in `only`
    can be drawn.
    """
    for name in only or ():
        if name not in FIGURES:
            raise UserError(unknown_name_message("figure", name, FIGURES))
    chosen = [name for name in FIGURES if only is None or name in only]
    (out / "figures").mkdir(parents=True, exist_ok=True)
    written = Written(out)
    compared = chosen_experiments(results, experiments)
    if seeds is not None:
        results = results.only(seeds)
    if FIGURE3 in chosen:
        written += _write_figure3(out, results, compared, seeds, partial=partial)
    if CC_FORCES in chosen:
        drawn = _write_cc_forces(out, results, experiments, seeds, partial=partial)
        if only is not None and drawn == Written(out):
            raise UserError(
                f"No {CC_FORCES} figure can be drawn. No finished run of a model with a CC head "
                "was tested on a file with CC forces; 'hippynn-mf evaluate RUNS --test NAME=FILE' "
                "does that."
            )
        written += drawn
    for name in chosen:
        if name in KINDS:
            paths, lacking = _write_kind(out, results, name)
            if lacking and not paths and only is not None:
                raise UserError(f"No {name} figure can be drawn. {lacking}")
            if lacking:
                log.warning(lacking)
            written += Written(out, paths)
    return written


def write_figures(
    out: Path,
    results: Results,
    *,
    only: Sequence[str] | None = None,
    experiments: Sequence[Experiment] | None = None,
    seeds: Sequence[int] | None = None,
    partial: bool = False,
) -> list[Path]:
    """`write_complete_figures` with a UserError for what lacks runs; returns the images."""
    written = write_complete_figures(
        out, results, only=only, experiments=experiments, seeds=seeds, partial=partial
    )
    return written.require()


def _write_figure3(
    out: Path,
    results: Results,
    experiments: Sequence[Experiment],
    seeds: Sequence[int] | None,
    *,
    partial: bool,
) -> Written:
    names = {experiment.name for experiment in experiments}
    levels = [level for level in LEVELS if names.issuperset(pair_names(level))]
    missing = missing_runs(results, [n for level in levels for n in pair_names(level)], seeds)
    path = out / "figures" / f"{FIGURE3}.png"
    if missing and not partial:
        return Written(out, lacking={"figures/figure3.png": missing})
    if not levels:
        return Written(out)
    data = figure3_data(results, levels, missing)
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    draw_figure3(figure.subplots(), data)
    return Written(out, [_write(figure, data, path)])


def _write_cc_forces(
    out: Path,
    results: Results,
    experiments: Sequence[Experiment] | None,
    seeds: Sequence[int] | None,
    *,
    partial: bool,
) -> Written:
    specs = cc_force_tables(results, experiments)
    if not specs:
        return Written(out)
    names = [row.name for row in specs[0].rows]
    missing = missing_runs(results, names, seeds)
    if missing and not partial:
        return Written(out, lacking={f"figures/{CC_FORCES}.png": missing})
    data = cc_forces_data(specs, results, find_ensembles(results, names), missing)
    path = out / "figures" / f"{CC_FORCES}.png"
    return Written(out, [_write(draw_cc_forces(data), data, path)])


def _write_kind(out: Path, results: Results, name: str) -> tuple[list[Path], str | None]:
    """Draw a kind of figure for every experiment; the paths, and what experiments lack for it."""
    kind, paths, lacking = KINDS[name], [], {}
    for experiment in tqdm(results.by_name, desc=name, disable=None, leave=False):
        members = results.members(experiment)
        lacks = kind.lacks(members)
        if lacks is None:
            path = out / "figures" / f"{name}-{members[0].settings.slug}.png"
            paths.append(_write(*kind.make(members), path))
        else:
            lacking[experiment] = lacks
    if not lacking:
        return paths, None
    names, first = ", ".join(lacking), next(iter(lacking))
    text = f"No {name} figure of {names}: {first} lacks {lacking[first]}."
    return paths, text


def _write(figure: Figure, data: Strict, path: Path) -> Path:
    """Write an image, and the numbers in it beside it."""
    write_json(path.with_suffix(".json"), data.model_dump(mode="json"))
    return save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, complete or not at all."""
    with replace_when_complete(path) as partial, matplotlib.rc_context({"savefig.dpi": 150}):
        figure.savefig(partial, format="png")
    return path
