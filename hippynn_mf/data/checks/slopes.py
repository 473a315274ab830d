"""Units and sign of forces, from the energies and positions of the same file.

Along the straight line between two conformers of one molecule the energy changes by about
−½ (F_1 + F_2)·(R_2 − R_1). The slope of the true change on this estimate is close to +1 for forces
and to −1 for gradients; another unit of the forces is another slope, which names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from hippynn_mf.data.checks.pairs import Pairs, find_pairs
from hippynn_mf.data.checks.report import Outcome, Verdict
from hippynn_mf.data.checks.units import FileUnits, name_force_unit
from hippynn_mf.data.structures import Structures
from hippynn_mf.levels import Level

# Numerical integration over two points and labels of finite precision stay far inside: embedded
# data give 0.99 to 1.00, pairs up to 0.5 Å apart 0.9. The nearest other unit is a factor of 1.89.
SLOPE_RANGE = (0.8, 1.25)
MIN_PAIRS = 10  # a choice: fewer can correlate by chance
MIN_CORRELATION = 0.9
# Å, root mean square over atoms: the nearest pairs are tried first, for the straight line fails
# with the distance; beyond the last one it says nothing (real ANI-1x: r 0.95 to 0.44 Å, 0.5 to 1 Å)
REACHES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6)
MAX_PAIRS = 2000  # of one reach, the closest: more do not change a slope
N_ERRORS = 2.0  # standard errors; else pairs further apart are tried
TRIMMED = 0.05  # share of pairs that fit worst and are left out: wrong labels are found elsewhere


@dataclass(frozen=True)
class ForceSlope:
    """Outcome of the test: a verdict, and the regression it rests on.

    Attributes:
        verdict: `forces`, `gradient`, `unit` (clear, but in other units) or `undecided`.
        slope, correlation: NaN where there are too few pairs.
        n_pairs: pairs of conformers that were compared.
        reach: Å, how far (root mean square over atoms) these are apart at most.
    """

    verdict: Literal["forces", "gradient", "unit", "undecided"]
    slope: float
    correlation: float
    n_pairs: int
    reach: float


def find_slope(parts: Structures | Sequence[Structures], level: Level) -> ForceSlope:
    """Regress energy differences on what forces say, over the closest pairs of each group."""
    whole = [parts] if isinstance(parts, Structures) else parts
    pairs = Pairs.join([find_pairs(part, level) for part in whole if level.id in part.forces])
    best = ForceSlope("undecided", np.nan, np.nan, len(pairs), float(max(pairs.apart, default=0)))
    for reach in REACHES:
        near = pairs.closest(reach, MAX_PAIRS)
        if len(near) < MIN_PAIRS:
            continue
        slope, correlation = _regress(near.estimates, near.changes)
        found = ForceSlope("undecided", slope, correlation, len(near), float(near.apart.max()))
        verdict = _verdict(slope, correlation, len(near))
        if verdict != "undecided":
            return replace(found, verdict=verdict)
        if np.isnan(best.slope) or abs(correlation) > abs(best.correlation):
            best = found
    return best


def check_forces(
    parts: Sequence[Structures], level: Level, units: FileUnits
) -> tuple[Outcome, ForceSlope]:
    """Whether the forces of a level are −dE/dR in the units of the file."""
    found = find_slope(parts, level)
    how = (
        f"slope {found.slope:+.3g}, correlation {found.correlation:+.2f} over {found.n_pairs} "
        f"pairs of conformers up to {found.reach:.2g} Å apart"
    )
    values = {
        "slope": None if np.isnan(found.slope) else round(found.slope, 4),
        "correlation": None if np.isnan(found.correlation) else round(found.correlation, 4),
        "n_pairs": found.n_pairs,
        "reach_angstrom": round(found.reach, 4),
    }
    what = f"the forces of level {level.id}"
    verdict: Verdict
    if found.verdict == "forces":
        verdict, text = "passed", f"{what} follow its energies ({how})."
    elif found.verdict == "undecided":
        few = f"{found.n_pairs} pairs of close conformers, {MIN_PAIRS} are needed"
        reason = few if np.isnan(found.slope) else how
        verdict = "undecided"
        text = f"its energies do not prove sign and unit of {what} ({reason}); they are used."
    else:
        verdict, text = "refused", f"{what} are not −dE/dR in {units.force}: {how}."
        if found.verdict == "gradient":
            text = (
                f"{what} have the wrong sign. Energy differences follow +dE/dR ({how}), but "
                "forces are −dE/dR. Negate them in the file; in a COMP6 key map, declare the key "
                "as 'gradient' instead of 'forces' or the reverse."
            )
        if not SLOPE_RANGE[0] <= abs(found.slope) <= SLOPE_RANGE[1]:
            named = name_force_unit(abs(found.slope), units)
            text += f" {named} Give forces in {units.force}."
    outcome = Outcome(
        check="forces",
        level=level.id,
        verdict=verdict,
        text=text,
        values=values,
    )
    return outcome, found


def _verdict(
    slope: float, correlation: float, n_pairs: int
) -> Literal["forces", "gradient", "unit", "undecided"]:
    """What a regression proves: a slope is outside only if its error does not reach inside."""
    if not abs(correlation) >= MIN_CORRELATION:
        return "undecided"
    if slope < 0:
        return "gradient"
    low, high = SLOPE_RANGE
    if low <= slope <= high:
        return "forces"
    error = slope * np.sqrt((1 - correlation**2) / n_pairs) / correlation
    is_outside = slope + N_ERRORS * error < low or slope - N_ERRORS * error > high
    return "unit" if is_outside else "undecided"


def _regress(estimates: np.ndarray, changes: np.ndarray) -> tuple[float, float]:
    """Slope and correlation of changes on estimates, both (n,), without the worst of them.

    What fits worst to the weighted median of the ratios is left out. The slope is the ratio of root
    mean squares, which errors of either do not draw towards zero; both are through the origin: a
    pair has no order.
    """
    known = estimates != 0
    if not known.any() or not changes.any():
        return np.nan, np.nan
    ratios = changes[known] / estimates[known]
    order = np.argsort(ratios)
    weights = np.cumsum(np.abs(estimates[known])[order])
    median = ratios[order][np.searchsorted(weights, weights[-1] / 2)]
    residuals = np.abs(changes - median * estimates)
    kept = residuals <= np.quantile(residuals, 1 - TRIMMED)
    x, y = estimates[kept], changes[kept]
    if not x.any() or not y.any():
        return np.nan, np.nan
    correlation = float(x @ y / np.sqrt((x @ x) * (y @ y)))
    return float(np.sign(correlation) * np.sqrt((y @ y) / (x @ x))), correlation
