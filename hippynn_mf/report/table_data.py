"""A table of results as numbers: what `tables/*.json` hold."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hippynn_mf.report.columns import (
    Metric,
    PublishedNumber,
)
from hippynn_mf.report.statistics import (
    Estimate,
)
from hippynn_mf.schema import Strict


class Cell(Strict):
    """One experiment in one column, in the unit of the column.

    Attributes:
        values: error by seed; in tables over splits mean over seeds, by split seed.
        mean: mean of the values; None without any.
        ensemble: error of the mean prediction of all seeds; None for one seed, or unknown. Over
            splits, the mean of theirs.
        published: the paper's.
        reference: error of a low level's own labels, or mean error of its head, where that is the
            reference.
        difference: mean of value − reference, paired by seed, or by split.
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
    """One experiment; in tables over splits with theirs, each of which has all of the seeds."""

    model: str
    seeds: list[int]
    cells: list[Cell]
    splits: list[int] = Field(default=[])


class ColumnData(Strict):
    """A column: its unit and address, the error of predicting zero, and why a number is missing.

    `published_reference` is the paper's error of a low level's own labels. Costs are no errors,
    and have neither set nor levels.
    """

    heading: str
    unit: str
    set: str | None
    head: str | None
    reference: str | None
    quantity: str
    label_rms: float | None
    null_reason: str | None
    published_reference: float | None
    is_error: bool


class TestFile(Strict):
    """A test set with the name of its file, or of its files."""

    __test__ = False  # no test of pytest's

    name: str
    file: str
    sha256: str


class Origin(Strict):
    """The data and recipe of all runs of a table, and the test sets that its columns are of.

    `split_seeds` are there in tables over splits, whose first is `split_seed`.
    """

    rows: str
    preset: str
    data_file: str
    data_sha256: str
    split_seed: int
    tests: list[TestFile]
    split_seeds: list[int] = Field(default=[])


class TableData(Strict):
    """A table: everything that its text says, unrounded.

    Intervals are of means over seeds, or over splits.
    """

    format: Literal[2]
    title: str
    metric: Metric
    confidence: float
    reference: str
    paired_with_experiment: bool
    columns: list[ColumnData]
    rows: list[RowData]
    missing: list[str]
    source: Origin | None
    over: Literal["seeds", "splits"] = "seeds"

    @property
    def unit(self) -> Literal["seed", "split"]:
        """What is repeated."""
        return "seed" if self.over == "seeds" else "split"
