"""Energies without their composition, and the spread of what remains."""

from __future__ import annotations

import numpy as np

from hippynn_mf.data.structures import elements_of

N_ROUNDS = 5  # of the fit, each without the outliers of the one before
FIT_WITHIN = 6.0  # robust standard deviations that count in the next round
MIN_STRUCTURES = 20  # beyond the number of elements, for a spread to mean anything


def count_elements(species: np.ndarray) -> np.ndarray:
    """(n, n_elements) how often each element that occurs is in each structure."""
    counts = [(species == number).sum(axis=1) for number in elements_of(species) if number]
    return np.stack(counts, axis=1).astype(np.float64) if counts else np.zeros((len(species), 0))


def without_composition(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """What a robust fit of atomic contributions leaves of values (n,), all finite."""
    kept = np.ones(len(values), bool)
    left = values
    for _ in range(N_ROUNDS):
        solution = np.linalg.lstsq(counts[kept], values[kept], rcond=None)[0]
        left = values - counts @ solution
        near = np.abs(left - np.median(left)) <= FIT_WITHIN * robust_spread(left)
        if (near == kept).all() or near.sum() <= counts.shape[1]:
            break
        kept = near
    return left


def within_groups(groups: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values (n,) less the median of their group; NaN in groups of fewer than four."""
    left = np.full(len(values), np.nan)
    order = np.argsort(groups, kind="stable")
    _, starts = np.unique(groups[order], return_index=True)
    for members in np.split(order, starts[1:]):
        if len(members) >= 4:
            left[members] = values[members] - np.median(values[members])
    return left


def robust_spread(values: np.ndarray) -> float:
    """The standard deviation (of a normal distribution) by the median absolute deviation."""
    if not len(values):
        return 0.0
    return float(1.4826 * np.median(np.abs(values - np.median(values))))
