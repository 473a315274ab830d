"""The paper's tables 2 to 4, its discussion of low-level forces, and every table as a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from hippynn_mf.errors import UserError, unknown_name_message
from hippynn_mf.files import replace_when_complete, write_json
from hippynn_mf.levels import CC, DZ, MP2, TZ
from hippynn_mf.paper.cc_forces import DOCUMENT, cc_force_tables
from hippynn_mf.paper.strategies import STRATEGIES_DOCUMENT, strategy_tables
from hippynn_mf.paper.table1 import published_result, table1
from hippynn_mf.report.columns import (
    Column,
    LowLevel,
    Metric,
    PublishedNumber,
    RowSpec,
    TableSpec,
    comp6_delta_e,
    comp6_force,
    heldout_energy,
    heldout_force,
)
from hippynn_mf.report.completeness import Written, missing_runs
from hippynn_mf.report.ensemble import EnsembleRecord, find_ensembles
from hippynn_mf.report.experiment_tables import experiment_tables
from hippynn_mf.report.results import Results, chosen_experiments
from hippynn_mf.report.tables import build_table
from hippynn_mf.report.text import format_document
from hippynn_mf.runs.experiment import Experiment

# Number in the paper → its two columns, and the single-fidelity model that it compares with. The
# rows are the experiments that published there.
TABLES: dict[int, tuple[tuple[Column, Column], str]] = {
    2: ((heldout_energy(TZ), heldout_force(TZ)), "SF-TZ/E"),
    3: ((heldout_energy(MP2), comp6_force(MP2)), "SF-MP2/E"),
    4: ((heldout_energy(CC), comp6_delta_e(CC)), "SF-CC/E"),
}

# The paper's discussion: held-out DZ force RMSEs of models that learn DZ forces.
DZ_FORCE_MODEL = "SF-DZ/EF"
PUBLISHED_DZ_FORCES = {
    DZ_FORCE_MODEL: 3.17,
    "MF-DZ/EF-TZ/E": 3.95,
    "MF-DZ/EF-MP2/E": 3.91,
    "MF-DZ/EF-CC/E": 3.76,
}
# The paper's test case two: RMSE between the DZ and the MP2 forces of COMP6.
PUBLISHED_DZ_TO_MP2_FORCES = 5.9


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
                for name, value in PUBLISHED_DZ_FORCES.items()
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
            reference=LowLevel(DZ, forces, (PUBLISHED_DZ_TO_MP2_FORCES,)),
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


def format_table(
    number: int, results: Results, metric: Metric, experiments: Sequence[Experiment]
) -> str:
    """One of the paper's tables as Markdown, of the runs that are there; it names those missing."""
    spec = paper_table(number, experiments)
    ensembles = find_ensembles(results, [row.name for row in spec.rows])
    missing = missing_runs(results, [row.name for row in spec.rows])
    return format_document([build_table(spec, results, ensembles, metric, missing)])


def write_complete_tables(
    out: Path,
    results: Results,
    *,
    metric: Metric = "rmse",
    experiments: Sequence[Experiment] | None = None,
    seeds: Sequence[int] | None = None,
    partial: bool = False,
) -> Written:
    """Write `table2` to `table4`, `low-level-forces` and `experiments`, as `.md` and `.json`.

    They lie below `out/tables`. `experiments` is of the experiments that are not among those of
    this package. Where runs were tested on CC forces, there is also `cc-forces`, and where there
    are runs of strategies beside those of Table 1, `strategies`.

    A document is written if the runs of all its rows are finished, for `seeds` or for all seeds
    that any of its rows has; otherwise it is left as it was, and the result says what it lacks.
    With `experiments`, only those are rows, and documents without one are skipped. With
    `partial`, documents are written of what is there, and name what is missing. Files of MAEs are
    called `…-mae`.
    """
    if metric not in get_args(Metric):
        raise UserError(unknown_name_message("metric", metric, get_args(Metric)))
    chosen = chosen_experiments(results, experiments)
    documents: dict[str, list[TableSpec]] = {
        f"table{number}": [paper_table(number, chosen)] for number in TABLES
    }
    documents["low-level-forces"] = low_level_tables(chosen)
    if seeds is not None:
        results = results.only(seeds)
    documents["experiments"] = experiment_tables(results, chosen)
    documents[DOCUMENT] = cc_force_tables(results, experiments)
    documents[STRATEGIES_DOCUMENT] = strategy_tables(results, experiments)
    written = Written(out)
    ensembles: dict[str, EnsembleRecord] = {}
    for document, specs in documents.items():
        specs = [spec for spec in specs if spec.rows]
        names = list(dict.fromkeys(row.name for spec in specs for row in spec.rows))
        missing = missing_runs(results, names, seeds)
        stem = document if metric == "rmse" else f"{document}-{metric}"
        if missing and not partial:
            written.lacking[f"tables/{stem}.md"] = missing
        elif specs:
            new = [name for name in names if name not in ensembles]
            ensembles |= find_ensembles(results, new)
            path = out / "tables" / f"{stem}.md"
            _write_document(path, specs, results, ensembles, metric, seeds)
            written.paths.append(path)
    return written


def _write_document(
    path: Path,
    specs: Sequence[TableSpec],
    results: Results,
    ensembles: Mapping[str, EnsembleRecord],
    metric: Metric,
    seeds: Sequence[int] | None,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tables = []
    for spec in specs:
        missing = missing_runs(results, [row.name for row in spec.rows], seeds)
        tables.append(build_table(spec, results, ensembles, metric, missing))
    content = {"tables": [table.model_dump(mode="json", exclude_unset=True) for table in tables]}
    write_json(path.with_suffix(".json"), content)
    with replace_when_complete(path) as unfinished:
        unfinished.write_text(format_document(tables), encoding="utf-8")


def write_tables(
    out: Path,
    results: Results,
    *,
    metric: Metric = "rmse",
    experiments: Sequence[Experiment] | None = None,
    seeds: Sequence[int] | None = None,
    partial: bool = False,
) -> list[Path]:
    """`write_complete_tables` with a UserError for what lacks runs; returns the Markdown files."""
    written = write_complete_tables(
        out, results, metric=metric, experiments=experiments, seeds=seeds, partial=partial
    )
    return written.require()
