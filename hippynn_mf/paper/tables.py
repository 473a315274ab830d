"""The paper's tables 2 to 4, and its discussion of low-level forces."""

from __future__ import annotations

from collections.abc import Sequence

from hippynn_mf.levels import CC, DZ, MP2, TZ
from hippynn_mf.paper.published import DZ_FORCE_MODEL, DZ_FORCES, DZ_TO_MP2_FORCES
from hippynn_mf.paper.table1 import published_result, table1
from hippynn_mf.report.columns import (
    Column,
    LowLevel,
    PublishedNumber,
    RowSpec,
    TableSpec,
    comp6_delta_e,
    comp6_force,
    heldout_energy,
    heldout_force,
)
from hippynn_mf.runs.experiment import Experiment

# Number in the paper → its two columns, and the single-fidelity model that it compares with. The
# rows are the experiments that published there.
TABLES: dict[int, tuple[tuple[Column, Column], str]] = {
    2: ((heldout_energy(TZ), heldout_force(TZ)), "SF-TZ/E"),
    3: ((heldout_energy(MP2), comp6_force(MP2)), "SF-MP2/E"),
    4: ((heldout_energy(CC), comp6_delta_e(CC)), "SF-CC/E"),
}


def paper_table(number: int, experiments: Sequence[Experiment]) -> TableSpec:
    """One of tables 2 to 4, with those of the experiments that published there."""
    columns, reference = TABLES[number]
    return TableSpec(
        title=f"Table {number}: {columns[0].heading}; {columns[1].heading}",
        columns=columns,
        rows=_published_rows(number, experiments, (0, 1)),
        reference=reference,
    )


def low_level_tables(experiments: Sequence[Experiment]) -> list[TableSpec]:
    """The low-level comparisons of the paper's discussion, and the same for its other tables."""
    names = {experiment.name for experiment in experiments}
    forces = "the DZ forces themselves"
    return [
        TableSpec(
            title="What a second level costs the forces of the first: DZ forces, held-out",
            columns=(heldout_force(DZ),),
            rows=tuple(
                RowSpec(name, (PublishedNumber(value=value, half_width=None),))
                for name, value in DZ_FORCES.items()
                if name in names
            ),
            reference=DZ_FORCE_MODEL,
        ),
        TableSpec(
            title="Are a model's TZ forces nearer to TZ than DZ forces are? Held-out",
            columns=(heldout_force(TZ),),
            rows=_published_rows(2, experiments, (1,)),
            reference=LowLevel(DZ, forces, (None,)),
        ),
        TableSpec(
            title="Are a model's MP2 forces nearer to MP2 than DZ forces are? COMP6",
            columns=(comp6_force(MP2),),
            rows=_published_rows(3, experiments, (1,)),
            reference=LowLevel(DZ, forces, (DZ_TO_MP2_FORCES,)),
        ),
        TableSpec(
            title="Are a model's CC conformer energies nearer to CC than those of DZ are? COMP6",
            columns=(comp6_delta_e(CC),),
            rows=_published_rows(4, experiments, (1,)),
            reference=LowLevel(DZ, "the DZ energies themselves", (None,)),
        ),
    ]


def _published_rows(
    number: int, experiments: Sequence[Experiment], columns: Sequence[int]
) -> tuple[RowSpec, ...]:
    """The experiments published in a table, with the numbers of some of its two columns."""
    rows = []
    for experiment in experiments:
        result = published_result(experiment)
        if result is not None and result.table == number:
            both = (result.energy, result.other)
            numbers = [both[column] for column in columns]
            published = tuple(PublishedNumber(value=v, half_width=w) for v, w in numbers)
            rows.append(RowSpec(experiment.name, published))
    return tuple(rows)


def published_value(name: str, column: Column) -> float | None:
    """The paper's mean RMSE of an experiment in a column, None where its main text has none."""
    chosen = table1()
    for spec in (*(paper_table(number, chosen) for number in TABLES), *low_level_tables(chosen)):
        if column in spec.columns:
            for row in spec.rows:
                number = row.published[spec.columns.index(column)]
                if row.name == name and number is not None:
                    return number.value
    return None
