"""Whether a model got worse than the one that it was made from, on the same structures.

The difference of two RMSEs has an interval by the bootstrap: structures are drawn with replacement,
the same ones for both models, and the interval holds 95 % of the differences so found. It covers
which structures test, not the seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hippynn_mf.evaluation.schema import ErrorChange
from hippynn_mf.evaluation.scoring import LabelledSet
from hippynn_mf.levels import Level

N_DRAWS = 2000
CONFIDENCE = 0.95
FEWEST = 3  # structures; of fewer there is no interval


def changes_of_set(
    before: Mapping[str, np.ndarray],
    now: Mapping[str, np.ndarray],
    test: LabelledSet,
    levels: Sequence[Level],
) -> dict[str, dict[str, ErrorChange]]:
    """Level id → quantity → how its error has changed, against labels of the level itself.

    Args:
        before: predictions of the first model by name, as `score_set` takes them.
        now: those of the other one.
        test: what they are compared with.
        levels: of which both have heads; those that either set lacks are left out.

    Quantities are `energy`, in a set with an energy cut `delta_e` (energies less the mean error of
    the molecule), in kcal/mol, and `force` in kcal/mol/Å.
    """
    found: dict[str, dict[str, ErrorChange]] = {}
    for level in levels:
        _, kept = test.kept(level)
        of_level: dict[str, ErrorChange] = {}
        name = level.energy_name
        if name in test.labels and name in before and name in now:
            errors = [_energy_errors(each[name], test, level, kept) for each in (before, now)]
            quantity = "energy" if test.cut is None else "delta_e"
            _add(of_level, quantity, errors[0], errors[1])
        name = level.forces_name
        if name in test.labels and name in before and name in now and level.id not in test.unproved:
            labelled = kept & np.isfinite(test.labels[name][:, 0]).all(axis=1)
            true, mask = test.labels[name][labelled], test.atom_mask[labelled]
            squares = [
                np.square(np.where(mask[..., None], each[name][labelled] - true, 0.0))
                .sum(axis=(1, 2))
                .astype(np.float64)
                for each in (before, now)
            ]
            _add(of_level, "force", squares[0], squares[1], 3.0 * mask.sum(axis=1))
        if of_level:
            found[level.id] = of_level
    return found


def _energy_errors(
    predicted: np.ndarray, test: LabelledSet, level: Level, kept: np.ndarray
) -> np.ndarray:
    """(n,) squared errors of labelled structures that count."""
    true = test.labels[level.energy_name]
    labelled = kept & np.isfinite(true)
    errors = np.asarray(predicted - true, np.float64)[labelled]
    if test.cut is not None:
        _, group = np.unique(test.groups[labelled], return_inverse=True)
        sizes = np.bincount(group)
        errors = errors - (np.bincount(group, weights=errors) / np.maximum(sizes, 1))[group]
        errors = errors[sizes[group] > 1]
    return np.square(errors)


def _add(
    of_level: dict[str, ErrorChange],
    quantity: str,
    before: np.ndarray,
    now: np.ndarray,
    counts: np.ndarray | None = None,
) -> None:
    if len(before):
        of_level[quantity] = compare_rmse(before, now, counts)


def compare_rmse(
    before: np.ndarray, now: np.ndarray, counts: np.ndarray | None = None
) -> ErrorChange:
    """How an RMSE has changed, with the interval of the paired bootstrap.

    Args:
        before: (n,) sums of squared errors of each structure.
        now: (n,) likewise, of the same structures.
        counts: (n,) errors in each sum, by default one.
    """
    n = len(before)
    counts = np.ones(n) if counts is None else counts
    errors = [float(np.sqrt(each.sum() / counts.sum())) for each in (before, now)]
    low = high = None
    if n >= FEWEST:
        random = np.random.default_rng(0)
        draws = random.multinomial(n, np.full(n, 1 / n), size=N_DRAWS)
        totals = draws @ counts
        differences = np.sqrt(draws @ now / totals) - np.sqrt(draws @ before / totals)
        tail = 100 * (1 - CONFIDENCE) / 2
        low, high = map(float, np.percentile(differences, [tail, 100 - tail]))
    return ErrorChange(before=errors[0], now=errors[1], low=low, high=high, n_structures=n)
