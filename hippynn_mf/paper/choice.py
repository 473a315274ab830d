"""Which experiments a folder of runs is about."""

from __future__ import annotations

from collections.abc import Sequence

from hippynn_mf.evaluation.schema import HELDOUT
from hippynn_mf.paper.cc_forces import DOCUMENT
from hippynn_mf.paper.table1 import beyond_table1, strategies, table1
from hippynn_mf.report.columns import COMP6
from hippynn_mf.report.results import Results, Selection
from hippynn_mf.report.runs import Run
from hippynn_mf.runs.experiment import Experiment

# SHA-256 of `mini-ani1x.h5` in every edition of the embedded data, the newest last.
EMBEDDED_EDITIONS = ("ccd061909bc69786dd71ce1695d5498185d88e612d1283e5690525d8dc6b3adf",)
# Conformers that `ani1x-release.h5` gives a run: those with the labels of all levels, or all.
# Its hash is nowhere published. Of copies one counts, so that a run may have a few less.
ANI1X_STRUCTURES = {"common": 489_571, "all": 4_956_005}
MAX_COPIES_SHARE = 1e-3
# Sets that the paper's documents are about, and the one of CC forces.
PAPER_SETS = (HELDOUT, COMP6, DOCUMENT)


def are_of_paper(results: Results) -> bool:
    """Whether the runs are of data beside which the paper's numbers are shown.

    Those are the embedded data, by their hash, which stand in for ANI-1x, and ANI-1x itself, by the
    number of its structures. Levels called DZ or CC in data of one's own do not make them so.
    """
    return all(_is_of_paper(run) for run in results.runs)


def _is_of_paper(run: Run) -> bool:
    settings = run.settings
    if settings.data.sha256 in EMBEDDED_EDITIONS:
        return True
    counts = run.facts.get("n_structures") or {}
    published = ANI1X_STRUCTURES[settings.rows]
    return 0 <= published - sum(counts.values()) <= MAX_COPIES_SHARE * published


def chosen_experiments(results: Results, selection: Selection) -> Sequence[Experiment]:
    """What documents are about: the experiments asked for, or all that the folder is about.

    Those are Table 1, unless the folder has none of it but others, and every other experiment that
    has runs. Of a folder of strategies alone, or of data that are not the paper's, they are those
    that have runs.
    """
    if selection.experiments is not None:
        return selection.experiments
    if not are_of_paper(results):
        return list(results.experiments.values())
    rows = {experiment.name: experiment for experiment in table1()}
    there = results.experiments
    beside = {experiment.name for experiment in beyond_table1()}
    if there.keys() & beside and there.keys() <= {e.name for e in strategies()}:
        return [experiment for experiment in strategies() if experiment.name in there]
    others = [experiment for name, experiment in there.items() if name not in rows]
    return [*(rows.values() if rows.keys() & there.keys() or not others else ()), *others]


def own_experiments(experiments: Sequence[Experiment], results: Results) -> list[Experiment]:
    """Those of the experiments of which the paper's documents are not: all, on other data."""
    known = {experiment.name for experiment in (*table1(), *beyond_table1())}
    known = known if are_of_paper(results) else set()
    return list({e.name: e for e in experiments if e.name not in known}.values())
