"""Which experiments a folder of runs is about."""

from __future__ import annotations

from collections.abc import Sequence

from hippynn_mf.evaluation.schema import HELDOUT
from hippynn_mf.paper.cc_forces import DOCUMENT
from hippynn_mf.paper.table1 import beyond_table1, strategies, table1
from hippynn_mf.report.columns import COMP6
from hippynn_mf.report.results import Results, Selection
from hippynn_mf.runs.experiment import Experiment

# Sets that the paper's documents are about, and the one of CC forces.
PAPER_SETS = (HELDOUT, COMP6, DOCUMENT)


def chosen_experiments(results: Results, selection: Selection) -> Sequence[Experiment]:
    """What documents are about: the experiments asked for, or all that the folder is about.

    Those are Table 1, unless the folder has none of it but others, and every other experiment that
    has runs. Of a folder of strategies alone, they are those that have runs.
    """
    if selection.experiments is not None:
        return selection.experiments
    rows = {experiment.name: experiment for experiment in table1()}
    there = results.experiments
    beside = {experiment.name for experiment in beyond_table1()}
    if there.keys() & beside and there.keys() <= {e.name for e in strategies()}:
        return [experiment for experiment in strategies() if experiment.name in there]
    others = [experiment for name, experiment in there.items() if name not in rows]
    return [*(rows.values() if rows.keys() & there.keys() or not others else ()), *others]


def own_experiments(experiments: Sequence[Experiment]) -> list[Experiment]:
    """Those of the experiments that this package does not have."""
    known = {experiment.name for experiment in (*table1(), *beyond_table1())}
    return list({e.name: e for e in experiments if e.name not in known}.values())
