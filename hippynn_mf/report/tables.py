"""How a table of results is made of runs.

Statistics are those of `hippynn_mf.report.statistics`. Every row can be compared with one
reference, seed by seed: another experiment, a lower level's head of the same run, or the labels of
a lower level taken as the prediction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from hippynn_mf.report.columns import (
    AnyColumn,
    Column,
    LowHead,
    LowLevel,
    Metric,
    RowSpec,
    TableSpec,
)
from hippynn_mf.report.ensemble import EnsembleRecord
from hippynn_mf.report.recipe import recipe_text
from hippynn_mf.report.results import Results
from hippynn_mf.report.statistics import (
    CONFIDENCE,
    estimate_mean,
    paired_difference,
    percent_improvement,
    percent_of_means,
)
from hippynn_mf.report.table_data import Cell, ColumnData, Origin, RowData, TableData, TestFile


def build_table(
    spec: TableSpec,
    results: Results,
    ensembles: Mapping[str, Mapping[int, EnsembleRecord]],
    metric: Metric,
    missing: Sequence[object] = (),
) -> TableData:
    """The numbers of a table from the runs that are there; `missing` names those that are not.

    `ensembles` are those of `split_ensembles`.
    """
    rows = [row for row in spec.rows if row.name in results.by_name]
    return TableData(
        format=2,
        title=spec.title,
        metric=metric,
        confidence=CONFIDENCE,
        reference=spec.reference if isinstance(spec.reference, str) else spec.reference.what,
        paired_with_experiment=isinstance(spec.reference, str),
        columns=[_column(spec, place, rows, results) for place in range(len(spec.columns))],
        rows=[
            RowData(
                model=row.name,
                seeds=results.seeds(row.name),
                splits=results.splits(row.name) if results.over == "splits" else [],
                cells=[
                    _cell(spec, place, row, results, ensembles, metric)
                    for place in range(len(spec.columns))
                ],
            )
            for row in rows
        ],
        missing=[str(run) for run in missing],
        source=_origin(spec, results, rows),
        over=results.over,
    )


def _column(spec: TableSpec, place: int, rows: Sequence[RowSpec], results: Results) -> ColumnData:
    column, reference = spec.columns[place], spec.reference
    if not isinstance(column, Column):
        return ColumnData(
            heading=column.heading,
            unit=column.unit,
            set=None,
            head=None,
            reference=None,
            quantity=column.quantity,
            label_rms=None,
            null_reason="these runs did not measure it",
            published_reference=None,
            is_error=False,
        )
    sizes = pd.concat([_no_values(), *(results.values(r.name, column, "label_rms") for r in rows)])
    runs = [run for row in rows for run in results.by_name[row.name]]
    reasons = (column.reason(run.sets) for run in runs)
    return ColumnData(
        heading=column.heading,
        unit=column.unit,
        **column.address,
        label_rms=float(sizes.mean()) if len(sizes) else None,
        null_reason=next(filter(None, reasons), None),
        published_reference=reference.published[place] if isinstance(reference, LowLevel) else None,
        is_error=True,
    )


def _no_values() -> pd.Series:
    return pd.Series(dtype=float)


def _cell(
    spec: TableSpec,
    place: int,
    row: RowSpec,
    results: Results,
    ensembles: Mapping[str, Mapping[int, EnsembleRecord]],
    metric: Metric,
) -> Cell:
    column = spec.columns[place]
    values = results.values(row.name, column, metric)
    records = ensembles.get(row.name, {})
    reference_error: float | None = None
    ours, against = values, _no_values()
    if isinstance(spec.reference, LowLevel) and isinstance(column, Column):
        against = label_errors(records, column.at_head(spec.reference.level), metric)
        reference_error = float(against.mean()) if len(against) else None
        if results.over == "seeds" and reference_error is not None:
            against = pd.Series(reference_error, values.index)
    elif isinstance(spec.reference, LowHead) and isinstance(column, Column):
        low = (row.name, column.at_head(spec.reference.level))
        ours, against = results.paired((row.name, column), low, metric)
        reference_error = float(against.mean()) if len(against) else None
    elif isinstance(spec.reference, str) and spec.reference != row.name:
        ours, against = results.paired((row.name, column), (spec.reference, column), metric)
    return Cell(
        values={str(seed): value for seed, value in values.items()},
        mean=estimate_mean(values),
        ensemble=_ensemble(records, column, metric),
        published=row.published[place] if metric == "rmse" else None,
        reference=reference_error,
        difference=paired_difference(ours, against),
        percent_improvement=percent_improvement(ours, against),
        published_percent_improvement=_published_percent(spec, place, row, metric),
    )


def label_errors(
    records: Mapping[int, EnsembleRecord], column: Column, metric: Metric
) -> pd.Series:
    """Errors of the own labels of the level of the column's head by split seed, where known."""
    errors = {s: column.pick(record.differences(), metric) for s, record in records.items()}
    return pd.Series({s: e for s, e in errors.items() if e is not None}, dtype=float)


def _ensemble(
    records: Mapping[int, EnsembleRecord], column: AnyColumn, metric: Metric
) -> float | None:
    if any(len(record.members) < 2 for record in records.values()) or not isinstance(
        column, Column
    ):
        return None
    errors = [column.pick(record.errors(), metric) for record in records.values()]
    known = [error for error in errors if error is not None]
    return sum(known) / len(known) if known and len(known) == len(errors) else None


def _published_percent(spec: TableSpec, place: int, row: RowSpec, metric: Metric) -> float | None:
    published = row.published[place]
    if isinstance(spec.reference, LowLevel):
        reference = spec.reference.published[place]
    elif isinstance(spec.reference, LowHead):
        reference = None
    else:
        numbers = {other.name: other.published[place] for other in spec.rows}
        published_number = numbers.get(spec.reference) if row.name != spec.reference else None
        reference = published_number.value if published_number else None
    if published is None or reference is None or metric != "rmse":
        return None
    return percent_of_means(published.value, reference)


def _origin(spec: TableSpec, results: Results, rows: Sequence[RowSpec]) -> Origin | None:
    runs = [run for row in rows for run in results.by_name[row.name]]
    if not runs:
        return None
    settings = runs[0].settings
    shown = {column.set for column in spec.columns if isinstance(column, Column)}
    return Origin(
        rows=settings.rows,
        preset=recipe_text(settings),
        data_file=settings.data.file_name,
        data_sha256=settings.data.sha256,
        split_seed=settings.split_seed,
        split_seeds=results.split_seeds if results.over == "splits" else [],
        tests=[
            TestFile(name=test.name, file=test.file_name, sha256=test.sha256)
            for test in settings.tests
            if test.name in shown
        ],
    )
