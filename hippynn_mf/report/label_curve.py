"""Errors against the number of labels of a level, and what more labels would give.

Runs of the same seed with nested fractions of a level's labels are one curve. Errors of potentials
fall about as a power of the number of labels, ln e = a − b·ln n. It is fitted to the curve of every
seed by itself and carried on; the mean over the seeds has an interval by Student's t. What a power
law misses is seen from two fits, of all numbers of labels and without the smallest one: the
interval that is stated holds both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hippynn_mf.evaluation.doubts import NAMES, beside_lower
from hippynn_mf.levels import Level
from hippynn_mf.report.columns import Column, set_name
from hippynn_mf.report.results import Results
from hippynn_mf.report.statistics import Estimate, estimate_mean
from hippynn_mf.report.stored_predictions import (
    heads_of,
    labelled_set,
    part_of,
    set_names,
    unproved_forces,
)
from hippynn_mf.schema import Strict

FEWEST_FOR_FIT = 3  # numbers of labels: two make a line through whatever they are
FURTHER = (2, 4)  # times the labels there are, for which errors are stated


class Point(Strict):
    """Errors with a number of labels: their mean over seeds, and each by seed."""

    fraction: float
    n_labels: int
    mean: Estimate
    by_seed: dict[str, float]


class Expected(Strict):
    """The error that a fit expects with a number of labels; None where it has no interval."""

    n_labels: int
    value: float
    low: float | None
    high: float | None


class LabelCurve(Strict):
    """A curve of one experiment and error.

    Attributes:
        column: what the error is, with its unit.
        exponent: b of the power law, None for fewer than three numbers of labels.
        expected: errors of more labels.
        backtest: the error of the largest number of labels as the smaller ones expect it.
    """

    experiment: str
    column: str
    unit: str
    points: list[Point]
    exponent: Estimate | None
    expected: list[Expected]
    backtest: Expected | None

    @property
    def last(self) -> Point:
        """The point of all labels."""
        return self.points[-1]

    def lines(self, level: str) -> list[str]:
        """What the curve says, as sentences."""
        now = f"{self.last.n_labels} labels of {level} give {_plain(self.last.mean)} {self.unit}"
        lines = [f"{self.experiment}, {self.column}: {now}"]
        for each in self.expected:
            lines[0] += f"; {each.n_labels} would give {_range(each)}"
        lines[0] += "."
        if self.exponent is not None and self.exponent.low is not None and self.exponent.low <= 0:
            lines.append(
                f"{self.experiment}, {self.column}: no gain from more labels is seen (exponent "
                f"{self.exponent.value:.2f} [{self.exponent.low:.2f}, {self.exponent.high:.2f}])."
            )
        if self.backtest is not None and self.backtest.low is not None:
            held = self.backtest.low <= self.last.mean.value <= (self.backtest.high or 0)
            lines.append(
                f"From fewer labels {_range(self.backtest)} was to be expected with "
                f"{self.backtest.n_labels}, which {'held' if held else 'did not hold'}."
            )
        return lines


@dataclass(frozen=True)
class FractionResults:
    """The runs with one fraction of the labels of a level."""

    fraction: float
    results: Results

    def n_labels(self, name: str, level: Level) -> int:
        """Training energies of the level; the same for all seeds."""
        counts = {run.facts["n_labels"][level.id] for run in self.results.by_name.get(name, ())}
        (count,) = counts
        return int(count)


def curve_columns(results: Results, level: Level) -> list[Column]:
    """The errors of a level's head against its own labels, on every set that has any."""
    columns = [
        Column.own(name, level, quantity)
        for name in results.sets
        for quantity in results.quantities(name)
    ]
    names = list(results.by_name)
    return [c for c in columns if any(len(results.values(name, c)) for name in names)]


def label_curve(
    parts: Sequence[FractionResults], name: str, level: Level, column: Column
) -> LabelCurve:
    """The curve of an experiment's errors in a column, from the fewest labels to all."""
    errors = {part.n_labels(name, level): part.results.values(name, column) for part in parts}
    fractions = {part.n_labels(name, level): part.fraction for part in parts}
    points = []
    for n in sorted(errors):
        mean = estimate_mean(errors[n])
        if mean is not None:
            by_seed = {str(seed): float(value) for seed, value in errors[n].items()}
            point = Point(fraction=fractions[n], n_labels=n, mean=mean, by_seed=by_seed)
            points.append(point)
    table = pd.DataFrame({n: errors[n] for n in sorted(errors)}).dropna()
    fits = power_laws(table)
    most = points[-1].n_labels
    return LabelCurve(
        experiment=name,
        column=column.heading,
        unit=column.unit,
        points=points,
        exponent=None if fits is None else estimate_mean(fits["b"]),
        expected=[] if fits is None else [expect(table, most * times) for times in FURTHER],
        backtest=(expect(table.iloc[:, :-1], most) if table.shape[1] > FEWEST_FOR_FIT else None),
    )


def power_laws(errors: pd.DataFrame) -> pd.DataFrame | None:
    """`a` and `b` of ln e = a − b·ln n for every seed (row) of errors with n labels (columns).

    None for fewer than three numbers of labels.
    """
    if errors.shape[1] < FEWEST_FOR_FIT or errors.empty:
        return None
    numbers = np.log(errors.columns.to_numpy(float))
    slopes, starts = np.polynomial.polynomial.polyfit(numbers, np.log(errors.to_numpy(float)).T, 1)[
        ::-1
    ]
    return pd.DataFrame({"a": starts, "b": -slopes}, index=errors.index)


def expect(errors: pd.DataFrame, n_labels: int) -> Expected:
    """The error with so many labels by power laws, with the interval that both fits have."""
    estimates = []
    for table in (errors, errors.iloc[:, 1:]):
        fits = power_laws(table)
        if fits is not None:
            logs = estimate_mean(fits["a"] - fits["b"] * np.log(n_labels))
            if logs is not None:
                estimates.append(logs)
    ends = [(each.low, each.high) for each in estimates]
    lows = [low for low, _ in ends if low is not None]
    highs = [high for _, high in ends if high is not None]
    return Expected(
        n_labels=n_labels,
        value=float(np.exp(estimates[0].value)),
        low=float(np.exp(min(lows))) if lows else None,
        high=float(np.exp(max(highs))) if highs else None,
    )


def beside_lower_lines(results: Results, name: str, level: Level) -> list[str]:
    """In how many runs the level's head was better than the level below it, on every set."""
    better: dict[str, list[bool]] = {}
    for run in results.by_name.get(name, ()):
        arrays = run.require_folder().read_predictions()
        unproved = unproved_forces(arrays, run.sets)
        for part in set_names(run.settings):
            test = labelled_set(arrays, part, run.settings, unproved)
            heads = list(heads_of(run.settings))
            for each in beside_lower(test, part_of(arrays, part), heads):
                if each.level == level:
                    what = f"{NAMES[each.quantity]} of {level.label} on {set_name(part)}"
                    beside = f"{what} beside the {each.whose} of {each.low.label}"
                    better.setdefault(beside, []).append(each.is_better)
    return [
        f"{name}, {what}: better in {sum(found)} of {len(found)} runs, by mean absolute error."
        for what, found in better.items()
    ]


def _plain(mean: Estimate) -> str:
    if mean.high is None:
        return f"{mean.value:.3g}"
    return f"{mean.value:.3g} ± {mean.high - mean.value:.2g}"


def _range(expected: Expected) -> str:
    if expected.low is None or expected.high is None:
        return f"{expected.value:.3g} (too few seeds for an interval)"
    return f"{expected.low:.3g} to {expected.high:.3g}"
