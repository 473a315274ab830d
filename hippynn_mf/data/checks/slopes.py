"""Units and sign of forces, from the energies and positions of the same file.

Along the straight line between two conformers of one molecule the energy changes by about
−½ (F_1 + F_2)·(R_2 − R_1). The slope of the true change on this estimate is close to +1 for forces
and to −1 for gradients; another unit of the forces is another slope, which names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import units as ase_units
from scipy.special import stdtrit

from hippynn_mf.data.checks.crystal_pairs import crystal_pairs
from hippynn_mf.data.checks.pairs import ConformerPairs, find_pairs
from hippynn_mf.data.structures import Structures
from hippynn_mf.levels import Level

# Right labels have a slope of 1; the nearest other unit of length makes it 1.89 or 0.53 of that.
SLOPE_RANGE = (0.8, 1.25)
OTHER_UNITS = (ase_units.Bohr, 1 / ase_units.Bohr)
MIN_PAIRS = 10  # a choice: fewer can correlate by chance
MIN_CORRELATION = 0.9
# Å, root mean square over atoms, beyond which a straight line passes through what no conformer does
MAX_REACH = 0.6
MAX_PAIRS = 2000  # the closest: more do not change a slope
CONFIDENCE = 0.95  # of the interval
TRIMMED = 0.05  # share of pairs that fit worst and are left out: wrong labels are found elsewhere
BOND_EXPONENT = 2.0  # 1/Å, of a Morse potential: E‴ is −3 of them times E″ at rest
# 1/Å², of the share by which a straight line is wrong over a path of 1 Å: what the trapezoid rule
# misses of the repulsion exp(−2 · BOND_EXPONENT · r). How much it is, up to this, the pairs say.
CURVATURE = (2 * BOND_EXPONENT) ** 2 / 12
# Share of the rule's error that all paths have with one sign: as if a quarter of a path stretched a
# bond. Near pairs have nearly none; of real ANI-1x, whose nearest are 0.4 Å long, it is 0.14.
SHARED_CURVATURE = 0.25
LEAST_OTHERS = 0.05  # share of a fit that others than the pair have, for a division
LEAST_ERROR = 0.02  # of an estimate, whatever the distance


@dataclass(frozen=True)
class ForceSlope:
    """Outcome of the test: a verdict, and the regression it rests on.

    Attributes:
        verdict: `forces`, `gradient`, `unit` (clear, but in other units) or `undecided`.
        slope, correlation: NaN where there are too few pairs.
        error: half the width of the slope's interval of 95 % confidence; NaN as the slope.
        bias: how far off the slope may be by the curvature of paths, if that of all has one sign.
        n_pairs: pairs of conformers that were compared.
        reach: Å, how far (root mean square over atoms) these are apart at most.
    """

    verdict: Literal["forces", "gradient", "unit", "undecided"]
    slope: float
    error: float
    bias: float
    correlation: float
    n_pairs: int
    reach: float


def find_slope(parts: Structures | Sequence[Structures], level: Level) -> ForceSlope:
    """Regress energy differences on what forces say, over the closest pairs of each group."""
    whole = [parts] if isinstance(parts, Structures) else parts
    pairs = []
    for part in whole:
        if level.id in part.forces and level.id in part.energies:
            periodic = part.is_periodic
            pairs.append(find_pairs(part[~periodic] if periodic.any() else part, level))
            if periodic.any():
                pairs.append(crystal_pairs(part[periodic], level))
    return slope_of(ConformerPairs.join(pairs))


def slope_of(pairs: ConformerPairs) -> ForceSlope:
    """The regression over the closest of sorted pairs."""
    near = pairs.closest(MAX_REACH, MAX_PAIRS)
    near = near[near.estimates != 0]
    if len(near) < MIN_PAIRS or not near.changes.any():
        reach = float(max(pairs.apart, default=0))
        return ForceSlope("undecided", np.nan, np.nan, np.nan, np.nan, len(near), reach)
    slope, error, bias, correlation = _regress(near)
    verdict = _verdict(slope, error, bias, correlation)
    return ForceSlope(verdict, slope, error, bias, correlation, len(near), float(near.apart.max()))


def _verdict(
    slope: float, error: float, bias: float, correlation: float
) -> Literal["forces", "gradient", "unit", "undecided"]:
    """What a regression proves: refusing needs more than passing, for right data must train.

    What is wrong is so with the error and with all that curvature may do; what is right has a slope
    in `SLOPE_RANGE` whose error reaches no other unit.
    """
    if not abs(correlation) >= MIN_CORRELATION:
        return "undecided"
    lowest, highest = slope - error - bias, slope + error + bias
    if highest < 0:
        return "gradient"
    low, high = SLOPE_RANGE
    if lowest > 0 and (highest < low or lowest > high):
        return "unit"
    is_apart = slope - error > OTHER_UNITS[0] and slope + error < OTHER_UNITS[1]
    return "forces" if low <= slope <= high and is_apart else "undecided"


def rule_errors(pairs: ConformerPairs) -> np.ndarray:
    """(n,) hartree, by how much an estimate may be wrong, for the energy changes along a curve.

    The trapezoid rule is wrong by E‴ D³/12 over a path of length D, which is the stiffness E″ of
    the pairs (the median of how much the forces of both ends differ, over D²) times
    `BOND_EXPONENT`/4.
    """
    stiffness = float(np.median(pairs.bends / np.square(pairs.path)))
    return np.asarray(BOND_EXPONENT / 4 * stiffness * pairs.path**3)


def _regress(pairs: ConformerPairs) -> tuple[float, float, float, float]:
    """Slope of changes on estimates at no distance, its error and bias, and their correlation.

    All are through the origin, for a pair has no order, and weighted. The estimates are wrong by
    much over long paths (`rule_errors`); so the nearest pairs decide. As what is wrong has a sign,
    of hot conformers that of repulsion, the slope is one that changes with D²: its value at 0 is
    what counts. The error is half the interval of a regression whose errors are unequal, by
    Student's t with as many degrees of freedom as there are pairs that weigh.
    """
    rule = rule_errors(pairs)
    errors = np.sqrt(rule**2 + np.square(pairs.noise) + np.square(LEAST_ERROR * pairs.estimates))
    x, y, path = pairs.estimates / errors, pairs.changes / errors, pairs.path
    ratios = y / x
    order = np.argsort(ratios)
    weights = np.cumsum(np.abs(x)[order])
    median = ratios[order][np.searchsorted(weights, weights[-1] / 2)]
    residuals = np.abs(y - median * x)
    kept = residuals <= np.quantile(residuals, 1 - TRIMMED)
    x, y, path, rule = x[kept], y[kept], path[kept], (rule / errors)[kept]
    if not y.any():
        return np.nan, np.nan, np.nan, np.nan
    bias = float(abs(median) * SHARED_CURVATURE * (np.abs(x) @ rule) / (x @ x))
    correlation = float(x @ y / np.sqrt((x @ x) * (y @ y)))
    columns = np.stack([x, x * path**2], axis=1)
    # What is known of curvature before: 0 within `CURVATURE`, in units of the slope.
    prior = np.diag([0.0, 1 / (CURVATURE * median) ** 2]) if median else np.zeros((2, 2))
    inverse = np.linalg.pinv(columns.T @ columns + prior)
    solution = inverse @ (columns.T @ y)
    # What a pair draws to itself is no proof: each is judged by the line that others give.
    own = np.einsum("nc,cd,nd->n", columns, inverse, columns)
    left = columns * ((y - columns @ solution) / np.maximum(1 - own, LEAST_OTHERS))[:, None]
    n_weighing = np.sum(x**2) ** 2 / np.sum(x**4)
    freedom = max(n_weighing - 1, 1.0)
    variance = (inverse @ (left.T @ left) @ inverse)[0, 0] * n_weighing / freedom
    quantile = stdtrit(freedom, (1 + CONFIDENCE) / 2)
    return float(solution[0]), float(quantile * np.sqrt(variance)), bias, correlation
