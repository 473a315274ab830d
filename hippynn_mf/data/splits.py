"""Which conformer trains, validates and tests: fixed by the file and one seed, for every run.

Each conformer of a file belongs to one split, whatever an experiment reads: the common
conformers are drawn first, then the others. So experiments that keep different rows never train
on a conformer that another one tests on, and the common test set is the same for all.
"""

from __future__ import annotations

import numpy as np

from hippynn_mf.errors import UserError

SPLITS = ("train", "valid", "test")
TEST_FRACTION = 0.1
VALID_FRACTION = 0.1


def assign_splits(is_common: np.ndarray, seed: int) -> np.ndarray:
    """Index into `SPLITS` of every conformer of a file.

    Args:
        is_common: (n_file,) whether a conformer carries the energies of all common levels.
        seed: the split seed.

    10 % of the common conformers are drawn for test, 10 % for validation (numbers rounded down,
    as the authors do), the rest train; the other conformers are drawn in the same way.
    """
    splits = np.zeros(len(is_common), np.int64)
    for stratum, members in enumerate((np.flatnonzero(is_common), np.flatnonzero(~is_common))):
        order = np.random.default_rng((seed, stratum)).permutation(members)
        n_test = int(TEST_FRACTION * len(members))
        n_valid = int(VALID_FRACTION * len(members))
        splits[order[:n_test]] = SPLITS.index("test")
        splits[order[n_test : n_test + n_valid]] = SPLITS.index("valid")
    return splits


def split_rows(rows: np.ndarray, is_common: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Which of the kept conformers belong to each split, as indices into `rows`.

    `rows` (n,) are their positions in the file; `is_common` and `seed` as in `assign_splits`. An
    empty split is a UserError.
    """
    splits = assign_splits(is_common, seed)[rows]
    members = {name: np.flatnonzero(splits == index) for index, name in enumerate(SPLITS)}
    for name, indices in members.items():
        if not len(indices):
            raise UserError(
                f"The {name} split is empty: {len(rows)} conformers are too few. At least "
                "10 of them must carry the labels of the experiment (see hippynn-mf data info)."
            )
    return members
