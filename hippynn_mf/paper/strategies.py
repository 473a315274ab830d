"""How the strategies compare: at the high level, at the low one, and in what they cost."""

from __future__ import annotations

from collections.abc import Sequence

from hippynn_mf.levels import CC, DZ
from hippynn_mf.paper.cc_forces import FORCE as CC_FORCE
from hippynn_mf.paper.table1 import BASELINES, beyond_table1, strategies
from hippynn_mf.report.columns import (
    INFERENCE,
    TRAINING,
    AnyColumn,
    RowSpec,
    TableSpec,
    comp6_delta_e,
    heldout_energy,
    heldout_force,
)
from hippynn_mf.report.results import Results
from hippynn_mf.runs.experiment import Experiment

STRATEGIES_DOCUMENT = "strategies"
REFERENCE = BASELINES[-1]


def strategy_tables(
    results: Results, experiments: Sequence[Experiment] | None = None
) -> list[TableSpec]:
    """Tables of the strategies that have runs, begun or finished; empty without any.

    With `experiments`, only those are rows.
    """
    there = set(results.experiments)
    if experiments is not None:
        there &= {experiment.name for experiment in experiments}
    if not there & {experiment.name for experiment in beyond_table1()}:
        return []
    chosen = [experiment for experiment in strategies() if experiment.name in there]
    names = [e.name for e in chosen if CC in e.resolved_labels]
    with_low_level = [e.name for e in chosen if DZ in e.resolved_labels]
    high = (heldout_energy(CC), comp6_delta_e(CC), CC_FORCE)
    return [
        _table("Strategies at the high level", high, names),
        _table(
            "Strategies at the low level", (heldout_energy(DZ), heldout_force(DZ)), with_low_level
        ),
        _table("What the strategies cost", (TRAINING, INFERENCE), names),
    ]


def _table(title: str, columns: tuple[AnyColumn, ...], names: Sequence[str]) -> TableSpec:
    rows = tuple(RowSpec.plain(name, len(columns)) for name in names)
    return TableSpec(title, columns, rows, REFERENCE)
