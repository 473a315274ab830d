"""Which runs were tested on coupled-cluster forces, and the tables of their errors.

No model of Table 1 trains on such forces, and the paper had none to test with: the embedded test
set of that name holds them for conformers that nothing is trained on.
"""

from __future__ import annotations

from collections.abc import Sequence

from hippynn_mf.levels import CC, DZ, TZ
from hippynn_mf.paper.table1 import BASELINES
from hippynn_mf.report.columns import Column, RowSpec, TableSpec
from hippynn_mf.report.low_forces import beside_head, beside_labels
from hippynn_mf.report.results import Results
from hippynn_mf.runs.experiment import Experiment

DOCUMENT = "cc-forces"  # and the name of the set
# Of these the question is asked; other models with a CC head follow by name.
FIRST_ROWS = BASELINES[1:]  # those that have a CC head
FORCE, ENERGY = Column.own(DOCUMENT, CC, "force"), Column.own(DOCUMENT, CC, "energy")
LOW_LEVELS = (DZ, TZ)
WHERE = "Conformers never trained on"


def cc_force_names(results: Results, experiments: Sequence[Experiment] | None = None) -> list[str]:
    """The experiments with a CC head whose runs, begun or finished, are there, in the rows' order.

    Empty unless a finished run of one has an error of CC forces on the set. With `experiments`,
    only those count.
    """
    names = [n for n, e in results.experiments.items() if CC in e.resolved_labels]
    if experiments is not None:
        chosen = {experiment.name for experiment in experiments}
        names = [name for name in names if name in chosen]
    if not any(len(results.values(name, FORCE)) for name in names):
        return []
    first = [name for name in FIRST_ROWS if name in names]
    return first + sorted(set(names) - set(first))


def cc_force_tables(
    results: Results, experiments: Sequence[Experiment] | None = None
) -> list[TableSpec]:
    """Errors of CC heads on the set, beside low levels' forces themselves and their heads'.

    Empty where `cc_force_names` is.
    """
    names = cc_force_names(results, experiments)
    if not names:
        return []
    return [
        TableSpec(
            title=f"Errors at {CC.label} level on conformers with {CC.method}/{CC.basis} forces, "
            "never trained on",
            columns=(FORCE, ENERGY),
            rows=tuple(RowSpec.plain(name, 2) for name in names),
            reference=FIRST_ROWS[0],
        ),
        *(beside_labels(FORCE, CC, low, names, WHERE) for low in LOW_LEVELS),
        *(
            beside_head(FORCE, CC, low, with_low, WHERE)
            for low in LOW_LEVELS
            if (with_low := [n for n in names if low in results.experiments[n].maintained_levels])
        ),
    ]
