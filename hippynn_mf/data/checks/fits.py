"""Energies without their composition, and the spread of what remains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hippynn_mf.data.structures import Structures
from hippynn_mf.ragged import blocks_of

N_ROUNDS = 5  # of the fit, each without the outliers of the one before
FIT_WITHIN = 6.0  # robust standard deviations that count in the next round
MAX_FITTED = 20_000  # structures of a file that a fit or a spread is of
MIN_STRUCTURES = 20  # beyond the number of elements, for a spread to mean anything


def count_elements(parts: Sequence[Structures]) -> tuple[list[int], np.ndarray]:
    """The elements that occur, and (n, n_elements) how often each structure has each, in few bytes.

    A group has the same atoms in all its structures, so its first one is looked at.
    """
    firsts = [np.unique(part.groups, return_index=True, return_inverse=True)[1:] for part in parts]
    species = [part.species[first] for part, (first, _) in zip(parts, firsts, strict=True)]
    elements = sorted({number for each in species for number in np.unique(each).tolist()} - {0})
    counts = [
        np.stack([(each == number).sum(axis=1) for number in elements], axis=1) for each in species
    ]
    kind = np.min_scalar_type(max((each.max(initial=0) for each in counts), default=0))
    narrow = [each.astype(kind)[of] for each, (_, of) in zip(counts, firsts, strict=True)]
    return elements, np.concatenate(narrow)


def sample(n: int) -> slice:
    """At most `MAX_FITTED` of n structures, evenly spread."""
    return slice(None, None, -(-n // MAX_FITTED) or 1)


def sample_text(n: int) -> str:
    """How many of n structures a fit is of, if not of all; for the end of a sentence."""
    n_chosen = len(range(n)[sample(n)])
    return "" if n_chosen == n else f" (fitted to {n_chosen} of {n} structures, evenly spread)"


def fit_composition(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A robust fit (n_elements,) of atomic contributions to values (n,), all finite.

    The fit is of a `sample`.
    """
    chosen = sample(len(values))
    some, target = counts[chosen].astype(np.float64), values[chosen]
    kept = np.ones(len(target), bool)
    solution = np.zeros(counts.shape[1])
    for _ in range(N_ROUNDS):
        solution = np.linalg.lstsq(some[kept], target[kept], rcond=None)[0]
        left = target - some @ solution
        near = np.abs(left - np.median(left)) <= FIT_WITHIN * robust_spread(left)
        if (near == kept).all() or near.sum() <= counts.shape[1]:
            break
        kept = near
    return solution


def sums_over_atoms(counts: np.ndarray, of_elements: np.ndarray) -> np.ndarray:
    """(n,) sums of what every atom of an element contributes (n_elements,)."""
    sums = np.empty(len(counts))
    for rows in blocks_of(len(counts)):
        sums[rows] = counts[rows].astype(np.float64) @ of_elements
    return sums


def group_medians(groups: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, ...]:
    """Numbers (n_groups,) of the groups that occur, medians of their values, and their sizes."""
    order = np.lexsort((values, groups))
    names, starts, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    ordered = values[order]
    medians = (ordered[starts + (sizes - 1) // 2] + ordered[starts + sizes // 2]) / 2
    return names, medians, sizes


def within_groups(groups: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values (n,) less the median of their group; NaN in groups of fewer than four."""
    names, medians, sizes = group_medians(groups, values)
    medians[sizes < 4] = np.nan
    return np.asarray(values - medians[np.searchsorted(names, groups)])


def robust_spread(values: np.ndarray) -> float:
    """The standard deviation (of a normal distribution) by the median absolute deviation.

    That of a `sample`.
    """
    if not len(values):
        return 0.0
    some = values[sample(len(values))]
    return float(1.4826 * np.median(np.abs(some - np.median(some))))
