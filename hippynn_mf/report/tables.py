"""A table of results as numbers: what `tables/*.json` hold, and how it is made of runs.

Statistics are those of `hippynn_mf.report.statistics`. Every row can be compared with one
reference, seed by seed: another experiment, a lower level's head of the same run, or the labels of
a lower level taken as the prediction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from hippynn_mf.report.columns import (
    LowHead,
    LowLevel,
    Metric,
    PublishedNumber,
    RowSpec,
    TableSpec,
    low_head_path,
    low_level_path,
    pick,
)
from hippynn_mf.report.ensemble import EnsembleRecord
from hippynn_mf.report.results import Results
from hippynn_mf.report.statistics import (
    CONFIDENCE,
    Estimate,
    estimate_mean,
    paired_difference,
    percent_improvement,
    percent_of_means,
)
from hippynn_mf.schema import Strict


class Cell(Strict):
    """One experiment in one column, in the unit of the column.

    Attributes:
        values: error by seed.
        mean: mean of the values; None without any.
        ensemble: error of the mean prediction of all seeds; None for one seed, or unknown.
        published: the paper's.
        reference: error of a low level's own labels, or mean error of its head, where that is the
            reference.
        difference: mean of value − reference, paired by seed.
        percent_improvement: from the paired log ratios.
        published_percent_improvement: from the published means.
    """

    values: dict[str, float]
    mean: Estimate | None
    ensemble: float | None
    published: PublishedNumber | None
    reference: float | None
    difference: Estimate | None
    percent_improvement: Estimate | None
    published_percent_improvement: float | None


class RowData(Strict):
    """One experiment."""

    model: str
    seeds: list[int]
    cells: list[Cell]


class ColumnData(Strict):
    """A column: its unit, the error of predicting zero, and why a number may be missing.

    `published_reference` is the paper's error of a low level's own labels. Costs are no errors.
    """

    heading: str
    unit: str
    path: str
    label_rms: float | None
    null_reason: str | None
    published_reference: float | None
    is_error: bool = True


class Source(Strict):
    """The data and recipe of all runs of a table; of a test file only where errors are on it."""

    rows: str
    preset: str
    data_file: str
    data_sha256: str
    comp6_sha256: str | None
    split_seed: int
    test_file: str | None = None
    test_file_sha256: str | None = None


class TableData(Strict):
    """A table: everything that its text says, unrounded."""

    format: Literal[1]
    title: str
    metric: Metric
    confidence: float
    reference: str
    paired_with_experiment: bool
    columns: list[ColumnData]
    rows: list[RowData]
    missing: list[str]
    source: Source | None


def build_table(
    spec: TableSpec,
    results: Results,
    ensembles: Mapping[str, EnsembleRecord],
    metric: Metric,
    missing: Sequence[object] = (),
) -> TableData:
    """The numbers of a table from the runs that are there; `missing` names those that are not."""
    rows = [row for row in spec.rows if row.name in results.by_name]
    return TableData(
        format=1,
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
                cells=[
                    _cell(spec, place, row, results, ensembles, metric)
                    for place in range(len(spec.columns))
                ],
            )
            for row in rows
        ],
        missing=[str(run) for run in missing],
        source=_source(spec, results, rows),
    )


def _column(spec: TableSpec, place: int, rows: Sequence[RowSpec], results: Results) -> ColumnData:
    column, reference = spec.columns[place], spec.reference
    if not column.is_error:
        return ColumnData(
            heading=column.heading,
            unit=column.unit,
            path=".".join(column.path),
            label_rms=None,
            null_reason="these runs did not measure it",
            published_reference=None,
            is_error=False,
        )
    sizes = [v for r in rows for v in results.by_seed(r.name, *column.label_rms_path).values()]
    reasons = [
        pick(result.metrics, *column.reason_path)
        for row in rows
        for result in results.by_name[row.name]
    ]
    return ColumnData(
        heading=column.heading,
        unit=column.unit,
        path=".".join(column.path),
        label_rms=float(np.mean(sizes)) if sizes else None,
        null_reason=next((str(reason) for reason in reasons if reason), None),
        published_reference=(
            reference.published[place] if isinstance(reference, LowLevel) else None
        ),
    )


def _cell(
    spec: TableSpec,
    place: int,
    row: RowSpec,
    results: Results,
    ensembles: Mapping[str, EnsembleRecord],
    metric: Metric,
) -> Cell:
    column = spec.columns[place]
    path = column.metric_path(metric)
    values = results.by_seed(row.name, *path)
    record = ensembles.get(row.name)
    own: float | None = None
    against: Mapping[int, float] = {}
    if isinstance(spec.reference, LowLevel):
        if record is not None:
            found = pick(
                record.level_differences.model_dump(),
                *low_level_path(column, spec.reference.level, metric),
            )
            own = found if isinstance(found, float) else None
        against = {} if own is None else dict.fromkeys(values, own)
    elif isinstance(spec.reference, LowHead):
        against = results.by_seed(row.name, *low_head_path(column, spec.reference.level, metric))
        own = float(np.mean(list(against.values()))) if against else None
    elif spec.reference != row.name:
        against = results.by_seed(spec.reference, *path)
    return Cell(
        values={str(seed): value for seed, value in values.items()},
        mean=estimate_mean(np.array(list(values.values()))),
        ensemble=_ensemble(record, path),
        published=row.published[place] if metric == "rmse" else None,
        reference=own,
        difference=paired_difference(values, against),
        percent_improvement=percent_improvement(values, against),
        published_percent_improvement=_published_percent(spec, place, row, metric),
    )


def _ensemble(record: EnsembleRecord | None, path: Sequence[str]) -> float | None:
    if record is None or len(record.members) < 2:
        return None
    found = pick(record.metrics.model_dump(), *path)
    return found if isinstance(found, float) else None


def _published_percent(spec: TableSpec, place: int, row: RowSpec, metric: Metric) -> float | None:
    published = row.published[place]
    if isinstance(spec.reference, LowLevel):
        reference = spec.reference.published[place]
    elif isinstance(spec.reference, LowHead):
        reference = None
    else:
        numbers = {other.name: other.published[place] for other in spec.rows}
        found = numbers.get(spec.reference) if row.name != spec.reference else None
        reference = found.value if found else None
    if published is None or reference is None or metric != "rmse":
        return None
    return percent_of_means(published.value, reference)


def _source(spec: TableSpec, results: Results, rows: Sequence[RowSpec]) -> Source | None:
    runs = [result for row in rows for result in results.by_name[row.name]]
    if not runs:
        return None
    settings = runs[0].settings
    tested = {}
    if settings.test_file and any(column.path[0] == "test_file" for column in spec.columns):
        source = settings.test_file
        tested = {"test_file": source.name, "test_file_sha256": source.sha256}
    return Source(
        rows=settings.rows,
        preset=settings.preset,
        data_file=settings.data.name,
        data_sha256=settings.data.sha256,
        comp6_sha256=settings.comp6.sha256 if settings.comp6 else None,
        split_seed=settings.split_seed,
        **tested,
    )
