"""Which conformer trains, validates and tests: fixed by the file and one seed, for every run.

Each conformer of a file belongs to one split, whatever an experiment reads: the common
conformers are drawn first, then the others. So experiments that keep different rows never train
on a conformer that another one tests on, and the common test set is the same for all. Every level
of the file is in every split by its share, and copies of a conformer are in one.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from hippynn_mf.data.molecules import mix
from hippynn_mf.errors import UserError

SPLITS = ("train", "valid", "test")
TRAIN, VALID, TEST = range(3)
TEST_FRACTION = 0.1
VALID_FRACTION = 0.1
FEWEST = 3  # labelled conformers (or molecules) of a level, one for each split

# What is drawn as a whole.
SplitBy = Literal["conformer", "molecule"]


def assign_splits(
    is_common: np.ndarray,
    seed: int,
    *,
    has_label: np.ndarray | None = None,
    first: np.ndarray | None = None,
) -> np.ndarray:
    """Index into `SPLITS` of every conformer of a file.

    Args:
        is_common: (n_file,) whether a conformer carries the energies of all common levels.
        seed: the split seed.
        has_label: (n_labels, n_file) which conformers have each label that the file knows.
        first: (n_file,) index of the first conformer that each is a copy of.

    10 % of the common conformers are drawn for test, 10 % for validation (numbers rounded down,
    as the authors do), the rest train; the other conformers are drawn in the same way. Within both,
    those with the same labels give their share: of few with a label, one is in each split as soon
    as there are `FEWEST`. Copies follow the first.
    """
    n = len(is_common)
    labels = np.zeros((0, n), bool) if has_label is None else has_label
    pattern = _patterns(labels)
    splits, place = np.full(n, TRAIN, np.int8), np.empty(n, np.int64)
    for stratum, members in enumerate((np.flatnonzero(is_common), np.flatnonzero(~is_common))):
        order = np.random.default_rng((seed, stratum)).permutation(members)
        place[order] = np.arange(len(order))
        n_test = _shares(pattern[order], int(TEST_FRACTION * len(members)))
        n_valid = _shares(pattern[order], int(VALID_FRACTION * len(members)))
        for kind, of_kind in enumerate(_by_kind(pattern[order])):
            first_valid = n_test[kind]
            splits[order[of_kind[:first_valid]]] = TEST
            splits[order[of_kind[first_valid : first_valid + n_valid[kind]]]] = VALID
    unit = np.arange(n) if first is None else first
    splits = splits[unit]
    for members in (is_common, np.ones(n, bool)):  # so that common ones are drawn among themselves
        rows = np.flatnonzero(members)
        may_move = rows if members is is_common else np.flatnonzero(~is_common)
        _cover(splits, labels[:, rows], rows, unit, place, may_move)
    return splits


def assign_molecules(
    molecule: np.ndarray, seed: int, *, has_label: np.ndarray | None = None
) -> np.ndarray:
    """Index into `SPLITS` of every conformer, whole molecules in one split.

    Args:
        molecule: (n,) uint64 that says of which molecule a conformer is.
        seed: the split seed.
        has_label: as of `assign_splits`, of these conformers.

    A tenth of the molecules, and at least one, tests, another tenth validates; the draw depends on
    what the molecules are, not on where they stand in the file. A level with labels in `FEWEST`
    molecules is in every split. Fewer molecules are a UserError.
    """
    kinds, unit = np.unique(molecule, return_inverse=True)
    if len(kinds) < FEWEST:
        raise UserError(
            f"A split by molecules needs at least {FEWEST} molecules (elements and bonds); found "
            f"{len(kinds)}. Split by conformers, or supply more molecules."
        )
    mixed = mix(kinds ^ mix(np.array([seed + 1], np.uint64)))
    order = np.argsort(mixed, kind="stable")
    n_test = max(1, int(TEST_FRACTION * len(kinds)))
    n_valid = max(1, int(VALID_FRACTION * len(kinds)))
    of_kind = np.full(len(kinds), TRAIN, np.int8)
    of_kind[order[:n_test]] = TEST
    of_kind[order[n_test : n_test + n_valid]] = VALID
    place = np.empty(len(kinds), np.int64)
    place[order] = np.arange(len(kinds))
    unit, rows = unit.reshape(-1), np.arange(len(molecule))
    splits = of_kind[unit]
    labels = np.zeros((0, len(rows)), bool) if has_label is None else has_label
    _cover(splits, labels, rows, unit, place[unit], rows)
    return splits


def split_rows(
    rows: np.ndarray, splits: np.ndarray, *, validates_elsewhere: bool = False
) -> dict[str, np.ndarray]:
    """Which of the kept conformers belong to each split, as indices into `rows`.

    `rows` (n,) are their positions in the file, `splits` (n_file,) as of `assign_splits`. An empty
    split is a UserError. What would validate trains if other structures validate.
    """
    splits = splits[rows]
    if validates_elsewhere:
        splits = np.where(splits == VALID, TRAIN, splits)
    members = {name: np.flatnonzero(splits == index) for index, name in enumerate(SPLITS)}
    if validates_elsewhere:
        del members["valid"]
    for name, indices in members.items():
        if not len(indices):
            raise UserError(
                f"The {name} split is empty: {len(rows)} conformers are too few. At least "
                f"{FEWEST} of them must carry the labels of the experiment (see hippynn-mf data "
                "info)."
            )
    return members


def _patterns(labels: np.ndarray) -> np.ndarray:
    """(n,) which combination of labels (n_labels, n) each has, in lexicographic order."""
    kinds = np.zeros(labels.shape[1], np.int64)
    for has_label in labels:  # one after another, so that their number is no matter
        codes = 2 * kinds + has_label
        found = np.flatnonzero(np.bincount(codes)) if len(codes) else codes
        kinds = np.searchsorted(found, codes)
    return kinds


def _shares(kinds: np.ndarray, n: int) -> np.ndarray:
    """How many of each kind (0, 1, …) to draw, `n` in all, by largest remainders."""
    counts = np.bincount(kinds) if len(kinds) else np.zeros(0, np.int64)
    exact = counts * (n / max(1, len(kinds)))
    shares = np.floor(exact + 1e-9).astype(np.int64)
    lacking = n - int(shares.sum())
    shares[np.argsort(-(exact - shares), kind="stable")[:lacking]] += 1
    return shares


def _by_kind(kinds: np.ndarray) -> list[np.ndarray]:
    """For each kind the places where it stands, in their order."""
    n_kinds = int(kinds.max()) + 1 if len(kinds) else 0
    # Of so short numbers the sort is many times faster.
    order = np.argsort(kinds.astype(np.min_scalar_type(n_kinds)), kind="stable")
    return np.split(order, np.searchsorted(kinds[order], np.arange(1, n_kinds)))[:n_kinds]


def _cover(
    splits: np.ndarray,
    has_label: np.ndarray,
    rows: np.ndarray,
    unit: np.ndarray,
    place: np.ndarray,
    may_move: np.ndarray,
) -> None:
    """Move units to splits that lack a label, of which at least `FEWEST` units have some.

    `splits`, `unit` (what is moved as a whole) and `place` (in the draw) are of all conformers,
    `has_label` (n_labels, n) of those in `rows`. The rarest labels come first; what is moved comes
    from the split that has most, the last of the draw first, and of those that no other label needs
    where they are.
    """
    if all(_is_everywhere(splits, rows, labelled) for labelled in has_label):
        return  # without lists of who has what, which of large files are large
    movable = np.zeros(len(splits), bool)
    movable[may_move] = True
    owned = [np.unique(unit[rows[labelled]], return_index=True) for labelled in has_label]
    owners = [
        (units, rows[np.flatnonzero(labelled)[index]])
        for (units, index), labelled in zip(owned, has_label, strict=True)
        if len(units) >= FEWEST
    ]
    owners.sort(key=lambda each: len(each[0]))
    for units, heads in owners:
        for split in (TEST, VALID, TRAIN):
            found = np.bincount(splits[heads], minlength=len(SPLITS))
            if found[split]:
                continue
            source = int(np.argmax(found))
            here = np.flatnonzero((splits[heads] == source) & movable[heads])
            here = here[np.argsort(-place[heads[here]], kind="stable")]
            if not len(here):
                continue
            free = [i for i in here if not _is_last(units[i], source, splits, owners)]
            splits[unit == units[(free or list(here))[0]]] = split


def _is_everywhere(splits: np.ndarray, rows: np.ndarray, labelled: np.ndarray) -> bool:
    """Whether a label (n,) of conformers in `rows` (n,) is in every split, or nowhere."""
    counts = np.bincount(splits[rows[labelled]], minlength=len(SPLITS))
    return bool(counts.all() or not counts.any())


def _is_last(
    unit: int, source: int, splits: np.ndarray, owners: list[tuple[np.ndarray, np.ndarray]]
) -> bool:
    """Whether a unit is the only one of its split with some label."""
    return any(unit in units and (splits[heads] == source).sum() < 2 for units, heads in owners)
