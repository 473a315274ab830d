"""One molecule against all others: what its atoms should make of the difference of two levels.

A whole molecule with energies of another state, charge or setting is right within itself, so no
check of its conformers finds it; and it bends a fit of composition that it is a part of. So each
molecule is compared with a fit to the others, of those that do not stand out themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hippynn_mf.data.checks.fits import group_medians, sample
from hippynn_mf.data.checks.report import Outcome, list_some
from hippynn_mf.levels import Level

MIN_CONFORMERS = 4  # of a group; of fewer, each is judged as a structure by itself
MIN_FREEDOM = 5  # groups beyond the number of elements, for their spread to mean anything
# Residuals as shares of their standard deviation. The 18 molecules of the embedded data have up to
# 4.5 between any two levels, 65 others of up to four heavy atoms 3.5; 2 eV added to any one of the
# 18 make more than 6.
MAX_RESIDUAL = 6.0
N_REWEIGHTED = 30  # rounds of the fit of least absolute residuals
N_REFITTED = 20  # rounds of fits of squares, if they do not stay the same before
NEAR = 5.0  # median residuals of that fit, within which the first fit of squares is
LEAST_RESIDUAL = 10.0  # kcal/mol, of which N2 between MP2 and CC has 5


def check_molecules(
    pair: str,
    higher: Level,
    differences: np.ndarray,
    names: Sequence[str],
    rows: np.ndarray,
    counts: np.ndarray,
    groups: np.ndarray,
) -> list[Outcome]:
    """An outcome that names the groups that stand out, if there are any.

    Args:
        pair: the two levels, for messages.
        higher: the level whose energies are looked at.
        differences: (n,) between the two levels in kcal/mol, all finite.
        names: of all structures, for messages.
        rows: (n,) which of them these are.
        counts: (n, n_elements) of the elements, the same within a group.
        groups: (n,) which group of the file a structure is of.

    It looks at a `sample`.
    """
    some = sample(len(groups))
    differences, rows, counts, groups = differences[some], rows[some], counts[some], groups[some]
    _, medians, sizes = group_medians(groups, differences)
    _, firsts = np.unique(groups, return_index=True)
    kept = sizes >= MIN_CONFORMERS
    medians, sizes, firsts = medians[kept], sizes[kept], firsts[kept]
    residuals, ratios = robust_residuals(counts[firsts], medians)
    is_far = (np.abs(ratios) > MAX_RESIDUAL) & (np.abs(residuals) > LEAST_RESIDUAL)
    far = np.flatnonzero(is_far)
    if not len(far):
        return []
    far = far[np.argsort(-np.abs(ratios[far]))]
    shown = [
        f"{sizes[i]} like {names[int(rows[firsts[i]])]} by {residuals[i]:+.0f} kcal/mol "
        f"({abs(ratios[i]):.0f} standard deviations)"
        for i in far
    ]
    text = (
        f"energy differences of {pair} of {len(far)} of {len(medians)} groups are not what the "
        f"others' atoms say: {list_some(shown)}. Look whether their energies are of the same "
        "state, charge and setting as the others'; nothing is refused for it."
    )
    values: dict[str, float | int | None] = {"n_groups": len(medians), "n_far": len(far)}
    return [Outcome(check="molecules", level=higher.id, verdict="noted", text=text, values=values)]


def robust_residuals(counts: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `deleted_residuals`, of a fit to those values alone that do not stand out of it.

    Several wrong values hide each other in a fit to all. So the first fit is one of least absolute
    residuals, which few do not bend; then those within `MAX_RESIDUAL` are fitted, which are again
    those that do not stand out, until they stay the same.
    """
    residuals, ratios = deleted_residuals(counts, values)
    if len(values) < counts.shape[1] + MIN_FREEDOM:
        return residuals, ratios
    kept = _near_the_rest(counts, values)
    for _ in range(N_REFITTED):
        residuals, ratios = _residuals_of(counts, values, kept)
        near = np.abs(ratios) <= MAX_RESIDUAL
        if (near == kept).all():
            break
        kept = near
    return residuals, ratios


def _near_the_rest(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(n,) which values are near a fit of least absolute residuals; all, if too few are."""
    weights = np.ones(len(values))
    for _ in range(N_REWEIGHTED):
        root = np.sqrt(weights)
        solution = np.linalg.lstsq(counts * root[:, None], values * root, rcond=None)[0]
        apart = np.abs(values - counts @ solution)
        weights = 1 / np.maximum(apart, 1e-3 * max(float(np.median(apart)), 1e-9))
    kept = apart <= NEAR * max(float(np.median(apart)), 1e-9)
    enough = kept.sum() >= np.linalg.matrix_rank(counts) + MIN_FREEDOM
    return kept if enough else np.ones(len(values), bool)


def _residuals_of(
    counts: np.ndarray, values: np.ndarray, kept: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Residuals from the fit to the values that are kept, each without itself."""
    residuals, ratios = np.zeros(len(values)), np.zeros(len(values))
    residuals[kept], ratios[kept] = deleted_residuals(counts[kept], values[kept])
    # Of the others: the error of a prediction is that of the fit and that of a value itself.
    inverse = np.linalg.pinv(counts[kept])
    left = values[~kept] - counts[~kept] @ (inverse @ values[kept])
    own = values[kept] - counts[kept] @ (inverse @ values[kept])
    freedom = max(int(kept.sum()) - np.linalg.matrix_rank(counts[kept]), 1)
    shares = counts[~kept] @ inverse
    is_known = np.isclose(shares @ counts[kept], counts[~kept], atol=1e-6).all(axis=1)
    deviations = np.sqrt(own @ own / freedom * (1 + (shares**2).sum(axis=1)))
    residuals[~kept] = np.where(is_known, left, 0.0)
    ratios[~kept] = np.where(is_known, left / np.maximum(deviations, 1e-9), 0.0)
    return residuals, ratios


def deleted_residuals(counts: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each value less what a least-squares fit to all others makes of it, plain and studentized.

    With the residuals r of the fit to all n values, its leverages h and rank p, the first are
    r / (1 − h) and the second r / (s √(1 − h)), s² = (Σr² − r²/(1 − h)) / (n − p − 1): Student's t
    where errors are normal (Cook and Weisberg, Residuals and Influence in Regression, 1982). Both
    are zero where the others do not determine a value, or are too few to judge.

    Args:
        counts: (n, n_elements).
        values: (n,).
    """
    n = len(values)
    u, singular, _ = np.linalg.svd(counts, full_matrices=False)
    u = u[:, singular > 1e-9 * singular.max(initial=0.0)]
    rank = u.shape[1]
    if n - rank < MIN_FREEDOM:
        return np.zeros(n), np.zeros(n)
    residuals = values - u @ (u.T @ values)
    free = 1 - (u**2).sum(axis=1)
    is_known = free > 1e-9
    free = np.where(is_known, free, 1.0)
    variances = ((residuals**2).sum() - residuals**2 / free) / (n - rank - 1)
    # What rounding leaves of a fit without errors is no spread.
    least = 1e-9 * max(1.0, float(np.abs(values).max()))
    deviations = np.sqrt(np.maximum(variances, least**2))
    return (
        np.where(is_known, residuals / free, 0.0),
        np.where(is_known, residuals / (deviations * np.sqrt(free)), 0.0),
    )
