"""Means over seeds, paired differences and percent improvements, with intervals by Student's t.

With n values of mean m and standard deviation s (divided by n − 1), the 95 % interval of the mean
is m ± t·s/√n; t is the 97.5 % quantile of Student's t with n − 1 degrees of freedom. Fewer than
three values have no interval, only their range.

The interval covers what the seed changes: initial weights and the order of batches. It does not
cover the choice of training and test structures, which are the same for all seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict
from scipy import stats

from hippynn_mf.errors import UserError

CONFIDENCE = 0.95
Values = Mapping[int, float] | pd.Series  # by seed
FEWEST_FOR_INTERVAL = 3


class Estimate(BaseModel):
    """A value estimated from n seeds: its 95 % interval (None for fewer than three) and range."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    value: float
    low: float | None
    high: float | None
    smallest: float
    largest: float
    n: int


def half_width(values: np.ndarray) -> float:
    """Half the width of the 95 % confidence interval of the mean of values (n,), t·s/√n."""
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * stats.sem(values))


def estimate_mean(values: Values | np.ndarray | Sequence[float]) -> Estimate | None:
    """Mean of values (n,), or of values by seed, with its interval; None for no value."""
    if not len(values):
        return None
    values = np.asarray(list(values.values()) if isinstance(values, Mapping) else values, float)
    mean = float(np.mean(values))
    width = half_width(values) if len(values) >= FEWEST_FOR_INTERVAL else None
    return Estimate(
        value=mean,
        low=None if width is None else mean - width,
        high=None if width is None else mean + width,
        smallest=float(np.min(values)),
        largest=float(np.max(values)),
        n=len(values),
    )


def paired_difference(values: Values, reference: Values) -> Estimate | None:
    """Mean of `values` − `reference` over the seeds that both have, with its interval.

    It is the interval of the paired t test. None without a common seed.
    """
    pairs = pair(values, reference)
    return estimate_mean(pairs["ours"] - pairs["theirs"])


def percent_improvement(values: Values, reference: Values) -> Estimate | None:
    """By how many percent errors are below those of a reference, from their paired log ratios.

    With d_k = ln(error_k / reference error_k) of seed k, the improvement is 100·(1 − exp(mean d)),
    and the ends of its interval are those of the mean d, transformed in the same way. None
    without a common seed; an error of zero, which has no logarithm, is a UserError.
    """
    pairs = pair(values, reference)
    if (pairs <= 0).any(axis=None):
        raise UserError(
            "An error of exactly zero has no ratio to another. A model is never that good: look "
            "whether its predictions were compared with themselves."
        )
    logs = estimate_mean(np.log(pairs["ours"] / pairs["theirs"]))
    if logs is None:
        return None
    return Estimate(
        value=_percent(logs.value),
        low=None if logs.high is None else _percent(logs.high),
        high=None if logs.low is None else _percent(logs.low),
        smallest=_percent(logs.largest),
        largest=_percent(logs.smallest),
        n=logs.n,
    )


def percent_of_means(value: float, reference: float) -> float:
    """(reference − value) / reference × 100, the paper's formula, of two mean errors."""
    return 100 * (1 - value / reference)


def percent_by_seed(values: Values, reference: Values) -> dict[str, float]:
    """The same of every seed that both have."""
    pairs = pair(values, reference)
    return {
        str(seed): percent_of_means(float(ours), float(theirs))
        for seed, ours, theirs in pairs.itertuples()
    }


def _percent(log_ratio: float) -> float:
    return float(-100 * np.expm1(log_ratio))


def pair(values: Values, reference: Values) -> pd.DataFrame:
    """Columns `ours` and `theirs`, by the seeds that both have, ascending."""
    series: dict[str, Any] = {
        "ours": pd.Series(values, dtype=float),
        "theirs": pd.Series(reference, dtype=float),
    }
    return pd.concat(series, axis=1, join="inner").sort_index()


def format_mean(
    estimate: Estimate | None, digits: int = 2, *, signed: bool = False, unit: str = "seed"
) -> str:
    """`m ± half width`; `m (smallest to largest)` for two seeds; `—` for no value."""
    if estimate is None:
        return "—"
    sign = "+" if signed else ""
    value = f"{estimate.value:{sign}.{digits}f}"
    if estimate.high is not None:
        value += f" ± {estimate.high - estimate.value:.{digits}f}"
        return value.replace("-", "−")
    return value.replace("-", "−") + _range(estimate, digits, sign, unit)


def format_interval(estimate: Estimate | None, digits: int = 1, *, unit: str = "seed") -> str:
    """`value [low, high]`; `value (smallest to largest)` for two seeds; `—` for no value."""
    if estimate is None:
        return "—"
    value = f"{estimate.value:.{digits}f}".replace("-", "−")
    if estimate.low is not None:
        ends = f" [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"
        return value + ends.replace("-", "−")
    return value + _range(estimate, digits, "", unit)


def _range(estimate: Estimate, digits: int, sign: str, unit: str) -> str:
    if estimate.n == 1:
        return f" (one {unit})"
    ends = (f"{end:{sign}.{digits}f}" for end in (estimate.smallest, estimate.largest))
    return " ({} to {})".format(*ends).replace("-", "−")
