"""Which runs were tested on coupled-cluster forces, and the tables of their errors.

No model of Table 1 trains on such forces, and the paper had none to test with: a test file may hold
them for conformers that nothing is trained on.
"""

from __future__ import annotations

from collections.abc import Sequence

from hippynn_mf.labels import parse_labels
from hippynn_mf.levels import CC, DZ, TZ, Levels, known_levels
from hippynn_mf.paper.table1 import BASELINES, get_experiment
from hippynn_mf.report.columns import (
    RowSpec,
    TableSpec,
    test_file_energy,
    test_file_force,
)
from hippynn_mf.report.low_forces import beside_head, beside_labels
from hippynn_mf.report.results import Results
from hippynn_mf.runs.experiment import Experiment

DOCUMENT = "cc-forces"
# Of these the question is asked; other models with a CC head follow by name.
FIRST_ROWS = BASELINES[1:]  # those that have a CC head
FORCE, ENERGY = test_file_force(CC), test_file_energy(CC)
LOW_LEVELS = (DZ, TZ)
WHERE = "Conformers never trained on"


def cc_force_names(results: Results, experiments: Sequence[Experiment] | None = None) -> list[str]:
    """The experiments with a CC head whose runs, begun or finished, are there, in the rows' order.

    Empty unless a finished run of one has an error of CC forces on its test file. With
    `experiments`, only those count.
    """
    there = [name for name in results.labels if results.seeds(name) or name in results.unfinished]
    names = [
        name
        for name in there
        if CC in parse_labels(results.labels[name], levels=Levels(known_levels()))
    ]
    if experiments is not None:
        chosen = {experiment.name for experiment in experiments}
        names = [name for name in names if name in chosen]
    if not any(results.by_seed(name, *FORCE.metric_path("rmse")) for name in names):
        return []
    first = [name for name in FIRST_ROWS if name in names]
    return first + sorted(set(names) - set(first))


def cc_force_tables(
    results: Results, experiments: Sequence[Experiment] | None = None
) -> list[TableSpec]:
    """Errors of CC heads on the test file, beside low levels' forces themselves and their heads'.

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
            rows=tuple(RowSpec(name, (None, None)) for name in names),
            reference=FIRST_ROWS[0],
        ),
        *(beside_labels(FORCE, CC, low, names, WHERE) for low in LOW_LEVELS),
        *(
            beside_head(FORCE, CC, low, with_low, WHERE)
            for low in LOW_LEVELS
            if (
                with_low := [
                    n
                    for n in names
                    if low in get_experiment(n, levels=Levels(known_levels())).maintained_levels
                ]
            )
        ),
    ]
