"""Levels against each other: their difference scatters far less than either.

A column that is shifted by a row, another unit or a mixed level stands out, also where there are no
forces.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from hippynn_mf.data.checks.energies import judge_outliers
from hippynn_mf.data.checks.fits import (
    MIN_STRUCTURES,
    fit_composition,
    robust_spread,
    sample,
    sample_text,
    sums_over_atoms,
    within_groups,
)
from hippynn_mf.data.checks.molecules import check_molecules
from hippynn_mf.data.checks.report import Accepted, Outcome, Verdict
from hippynn_mf.levels import Level
from hippynn_mf.ragged import blocks_of
from hippynn_mf.units import KCAL_PER_MOL_PER_HARTREE

# Spread of the difference as a share of the smaller spread of the two. Embedded data have 0.04 to
# 0.38, real ANI-1x 0.07; two unrelated columns have 1.4, a column shifted by a row likewise. Beyond
# that share both must rise and fall together: HF and DFT near minima have up to 0.84 with a
# correlation of ranks of 0.84, a trajectory shifted by a frame 0.8 with 0.7.
MAX_SCATTER, MAX_SCATTER_TOGETHER = 0.6, 1.0
MIN_CORRELATION = 0.8
# Robust standard deviations of the difference. Embedded data have 7, real ANI-1x 9.
MAX_RATIO = 20.0
SAME = 1e-3  # kcal/mol; no two levels of theory are nearer than this
LEAST_SPREAD = 0.1  # kcal/mol: what is nearer than `MAX_RATIO` times it is no wrong label


def check_levels(
    energies: Mapping[Level, np.ndarray],
    names: Sequence[str],
    counts: np.ndarray,
    groups: np.ndarray,
    accepted: Accepted,
) -> list[Outcome]:
    """Outcomes for every level with the next higher one that it shares structures with.

    Args:
        energies: (n,) of each level in hartree, NaN where missing.
        names: of the structures, for messages.
        counts: (n, n_elements) of the elements.
        groups: (n,) which group of the file a structure is of.
        accepted: what the user takes responsibility for.
    """
    outcomes = []
    ordered = sorted(energies, key=lambda level: level.rank)
    for lower, higher in itertools.pairwise(ordered):
        of_lower, of_higher = energies[lower], energies[higher]
        both = np.flatnonzero(np.isfinite(of_lower) & np.isfinite(of_higher))
        pair = f"{lower.label} and {higher.label}"
        if len(both) < MIN_STRUCTURES + counts.shape[1]:
            text = f"{len(both)} structures with energies of both {pair} are too few to compare."
            outcomes.append(
                Outcome(check="levels", level=higher.id, verdict="undecided", text=text)
            )
            continue
        # All spreads are of a sample; only outliers are looked for among all differences.
        some = both[sample(len(both))]
        low, high = of_lower[some], of_higher[some]
        left = {
            name: _without_composition(counts[some], values)[0]
            for name, values in (("low", low), ("high", high), ("difference", high - low))
        }
        difference = of_higher[both]
        difference -= of_lower[both]
        del of_lower, of_higher
        composed = _without_composition(counts[some], high - low)[1]
        for rows in blocks_of(len(both)):
            difference[rows] -= sums_over_atoms(counts[both[rows]], composed)
        difference *= KCAL_PER_MOL_PER_HARTREE
        judged = _judge(pair, higher, left, difference, names, both, groups[some], accepted)
        outcomes += judged
        if not any(outcome.verdict == "refused" for outcome in judged):
            differences = (high - low) * KCAL_PER_MOL_PER_HARTREE
            outcomes += check_molecules(
                pair, higher, differences, names, some, counts[some], groups[some]
            )
    return outcomes


def _without_composition(counts: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a fit of atomic contributions leaves, in kcal/mol, and the fit, in hartree."""
    composed = fit_composition(counts, values)
    return (values - sums_over_atoms(counts, composed)) * KCAL_PER_MOL_PER_HARTREE, composed


def _judge(
    pair: str,
    higher: Level,
    left: Mapping[str, np.ndarray],
    differences: np.ndarray,
    names: Sequence[str],
    both: np.ndarray,
    groups: np.ndarray,
    accepted: Accepted,
) -> list[Outcome]:
    """Outcomes of a pair: `left` and `groups` are of a sample of `both`, `differences` of all."""
    scatter = _scatter(left)
    inside = {name: within_groups(groups, values) for name, values in left.items()}
    known = np.isfinite(inside["low"])
    scatter_inside = None
    is_wrong = _is_wrong(left)
    if known.sum() >= MIN_STRUCTURES:
        inside = {name: values[known] for name, values in inside.items()}
        scatter_inside, is_wrong = _scatter(inside), is_wrong or _is_wrong(inside)
    spread = robust_spread(left["difference"])
    if spread < SAME and robust_spread(left["low"]) > LEAST_SPREAD:
        text = (
            f"the energies of {pair} are the same: without composition they differ by "
            f"{spread:.2g} kcal/mol. A column was written under two names. Correct it"
        )
        text += "." if accepted.outliers else ", or train on it with --accept-outliers."
        same: Verdict = "accepted" if accepted.outliers else "refused"
        return [Outcome(check="levels", level=higher.id, verdict=same, text=text)]
    how = (
        f"the energy difference of {pair} scatters by {spread:.3g} kcal/mol, {scatter:.2f} times "
        "as much as the energies"
    )
    if scatter_inside is not None:
        how += f", within groups {scatter_inside:.2f} times"
    how += sample_text(len(both))
    values: dict[str, float | int | None] = {
        "n": len(both),
        "spread_kcal_per_mol": round(spread, 4),
        "scatter": round(scatter, 4),
        "scatter_within_groups": None if scatter_inside is None else round(scatter_inside, 4),
    }
    if is_wrong:
        text = (
            f"the energies of {pair} are not of the same structures: {how}; at most {MAX_SCATTER}, "
            f"or {MAX_SCATTER_TOGETHER} where both rise and fall together, is right. A column may "
            "be shifted, in another unit or of another level. Correct it"
        )
        verdict: Verdict = "accepted" if accepted.outliers else "refused"
        text += "." if accepted.outliers else ", or train on it with --accept-outliers."
        return [Outcome(check="levels", level=higher.id, verdict=verdict, text=text, values=values)]
    outcomes = [
        Outcome(check="levels", level=higher.id, verdict="passed", text=f"{how}.", values=values)
    ]
    apart = differences - np.median(differences)
    np.abs(apart, out=apart)
    scale = max(spread, LEAST_SPREAD)
    far = np.flatnonzero(apart > MAX_RATIO * scale)
    if len(far):
        shown = [
            f"{names[both[i]]} ({apart[i] / scale:.0f} times the spread, {apart[i]:.3g} kcal/mol)"
            for i in far[np.argsort(-apart[far])][:6]
        ]
        outcomes.append(
            judge_outliers(f"differences of {pair}", higher, len(far), len(both), shown, accepted)
        )
    return outcomes


def _scatter(left: Mapping[str, np.ndarray]) -> float:
    """Spread of the difference as a share of that of the level that spreads less."""
    least = min(robust_spread(left["low"]), robust_spread(left["high"]))
    spread = robust_spread(left["difference"])
    return spread / least if least > LEAST_SPREAD else 0.0


def _is_wrong(left: Mapping[str, np.ndarray]) -> bool:
    """Whether the difference scatters too much."""
    scatter = _scatter(left)
    if scatter <= MAX_SCATTER:
        return False
    from scipy import stats  # half a second, which hardly any data need

    correlation = stats.spearmanr(left["low"], left["high"]).statistic
    # also where one of them is constant and has no correlation
    return scatter > MAX_SCATTER_TOGETHER or not correlation >= MIN_CORRELATION
