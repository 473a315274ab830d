"""Which periodic structures are the same, whatever cell, origin and order of atoms they have.

Copies have the same elements and volume, and the same distances between atoms and images, element
by element, up to what printed digits leave. That is so however a crystal is turned, mirrored,
moved, wrapped into its cell or described by other vectors of the same volume. Two crystals with all
distances within `REACH` in common are taken for one; a supercell has another number of atoms, and
is another structure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from vesin import NeighborList

from hippynn_mf.cells import complete
from hippynn_mf.data.superposition import FARTHEST

REACH = 5.0  # Å, of the distances that are compared
SAME_DISTANCE = 2 * FARTHEST + 2e-5  # Å; float32 leaves 8e-6 of a coordinate of 100 Å
SAME_VOLUME = 1e-4  # of the volume: edges of 5 Å with five printed digits
SCALES = (0.5, 1.5)  # Å, of the sums that tell nearly all structures apart


@dataclass(frozen=True)
class Crystals:
    """Periodic structures of the same elements.

    `numbers` (n_atoms,) of each, its positions (n_atoms, 3) and its cell (3, 3), see `Structures`.
    """

    numbers: Sequence[np.ndarray]
    positions: Sequence[np.ndarray]
    cells: Sequence[np.ndarray]

    def __len__(self) -> int:
        return len(self.numbers)

    def distances(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Distances within reach, with the pair of elements of each, both (n,), in that order."""
        cell = self.cells[index]
        finder = NeighborList(cutoff=REACH + SAME_DISTANCE, full_list=False, n_threads=1)
        first, second, distances = finder.compute(
            self.positions[index].astype(np.float64),
            complete(cell),
            cell.any(axis=1),
            quantities="ijd",
        )
        numbers = self.numbers[index].astype(np.int64)
        one, two = numbers[first], numbers[second]
        kinds = 128 * np.minimum(one, two) + np.maximum(one, two)
        order = np.lexsort((distances, kinds))
        return kinds[order], distances[order]

    def marks(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers (n, n_marks) that are the same for copies, up to the limits (n_marks,)."""
        rows = []
        most = 0.0
        for index, cell in enumerate(self.cells):
            _, distances = self.distances(index)
            closeness = [np.exp(-distances / scale).sum() for scale in SCALES]
            most = max(most, len(distances) / min(SCALES))
            areas = np.linalg.norm(cell, axis=1)
            size = abs(np.linalg.det(complete(cell))) ** (1 / 3)
            rows.append([*closeness, size, float((areas > 0).sum())])
        marks = np.array(rows)
        limit = max(most, 1.0) * SAME_DISTANCE
        limits = np.array([limit, limit, 0.0, 0.5])
        limits[2] = SAME_VOLUME * marks[:, 2].max(initial=1.0)
        return marks, limits

    def are_same(self, one: int, two: int) -> bool:
        """Whether all distances within reach agree."""
        (kinds, distances), (other_kinds, others) = self.distances(one), self.distances(two)
        for kind in np.unique(np.concatenate([kinds, other_kinds])):
            mine, theirs = distances[kinds == kind], others[other_kinds == kind]
            n = min(len(mine), len(theirs))
            if np.abs(mine[:n] - theirs[:n]).max(initial=0.0) > SAME_DISTANCE:
                return False
            # What one has beyond must lie on the edge of the reach.
            beyond = np.concatenate([mine[n:], theirs[n:]])
            if (beyond < REACH).any():
                return False
        return True


def find_first_crystal(
    crystals: Crystals,
    near_pairs: Callable[[np.ndarray, np.ndarray], Iterator[np.ndarray]],
) -> np.ndarray:
    """(n,) index of the first crystal that each is the same as: its own where there is none.

    `near_pairs` gives pairs of rows of marks that differ by no more than limits.
    """
    first = np.arange(len(crystals))
    marks, limits = crystals.marks()
    candidates = [first[:0].reshape(0, 2), *near_pairs(marks, limits)]
    for one, two in np.unique(np.concatenate(candidates), axis=0):
        if first[one] == one and first[two] == two and crystals.are_same(int(one), int(two)):
            first[two] = one
    return first


def is_moved(
    one: np.ndarray, two: np.ndarray, cell: np.ndarray, other_cell: np.ndarray, numbers: bool
) -> bool:
    """Whether a crystal is another one moved, with atoms in the same order and in the same cell.

    Positions (n_atoms, 3) of both; atoms may be in other images of the cell. `numbers` says whether
    the elements are the same, one by one.
    """
    if not numbers or np.abs(cell - other_cell).max() > 1e-3:
        return False
    whole = complete(cell)
    moved = np.linalg.solve(whole.T, (two - one).astype(np.float64).T).T
    moved -= moved[:1]
    moved -= np.where(cell.any(axis=1), np.round(moved), 0.0)
    moved = moved @ whole
    return bool(np.abs(moved - moved.mean(axis=0)).max() < 2 * SAME_DISTANCE)
