"""Which structures are one conformer, however they are turned, moved, ordered or rounded.

Copies have the same elements, and lie upon each other by a rotation or reflection and some order of
the atoms, up to what five printed digits leave (`superposition.SAME_POSITION`). A few numbers that
no such change alters, distances of the atoms from their centre, tell nearly all structures apart;
only those that agree in them are superposed.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hippynn_mf.data.structures import ROWS_AT_ONCE, Structures
from hippynn_mf.data.superposition import atom_limit, superpose, total_limit

CELL = 64  # side of a cell of the hash, in tolerances: one structure in ten is near a side
N_HASHED = 3  # marks of a structure that the hash looks at
PAIRS_AT_ONCE = 2**13


@dataclass(frozen=True)
class Batch:
    """Conformers with the same atoms in the same order.

    Attributes:
        numbers: (n_atoms,) atomic numbers.
        size: how many there are.
        read: ascending indices (k,) → positions (k, n_atoms, 3) in Å.
    """

    numbers: np.ndarray
    size: int
    read: Callable[[np.ndarray], np.ndarray]


def batches_of(structures: Structures) -> Iterator[tuple[np.ndarray, Batch]]:
    """The conformers of structures by their atoms, with their indices."""
    for _, group in structures.by_group():
        # A file's group has one order of atoms, and structures of any origin may have several.
        if (group.species == group.species[0]).all():
            parts = [np.arange(len(group))]
        else:
            kinds = np.unique(group.species, axis=0, return_inverse=True)[1].reshape(-1)
            parts = [np.flatnonzero(kinds == kind) for kind in range(kinds.max() + 1)]
        start = int(np.searchsorted(structures.groups, group.groups[0]))
        for members in parts:
            is_atom = group.species[members[0]] > 0
            whole = len(members) == len(group)
            positions = group.positions if whole else group.positions[members]
            if not is_atom.all():
                last = int(np.flatnonzero(is_atom)[-1]) + 1 if is_atom.any() else 0
                positions = positions[:, :last] if is_atom[:last].all() else positions[:, is_atom]
            numbers = group.species[members[0]][is_atom]
            yield start + members, Batch(numbers, len(members), positions.__getitem__)


def find_first(batches: Sequence[Batch]) -> np.ndarray:
    """(n,) index of the first conformer that each is the same as: its own where there is none.

    Conformers are counted through all batches. None is further from its first than the tolerance,
    so chains of ever so slightly different structures, as scans of a bond, are no copies.
    """
    starts = np.cumsum([0, *(batch.size for batch in batches)])
    first = np.arange(starts[-1])
    by_elements: defaultdict[bytes, list[int]] = defaultdict(list)
    for place, batch in enumerate(batches):
        if batch.size:
            by_elements[np.sort(batch.numbers).tobytes()].append(place)
    for places in by_elements.values():
        if sum(batches[place].size for place in places) < 2:
            continue
        rows = np.concatenate([np.arange(starts[p], starts[p + 1]) for p in places])
        found = _Composition([batches[place] for place in places]).find_first()
        first[rows] = rows[found]
    return first


def find_copies(structures: Structures) -> np.ndarray:
    """(n,) index of the first of the structures that each is the same as; of others its own."""
    order, batches = _listed(structures)
    first = np.empty(len(structures), np.int64)
    first[order] = order[find_first(batches)]
    # The first is that of lowest index, also where groups hold several orders of atoms.
    lowest = np.arange(len(first))
    np.minimum.at(lowest, first, np.arange(len(first)))
    return np.asarray(lowest[first])


def find_shared(structures: Structures, others: Structures) -> np.ndarray:
    """(n,) True for each of `structures` that is the same conformer as one of the `others`."""
    shared = np.zeros(len(structures), bool)
    order, batches = _listed(structures)
    elements = {np.sort(batch.numbers).tobytes() for batch in batches}
    # Copies among the structures themselves are left to those who count them.
    _, of_others = _listed(others)
    known = [b for b in of_others if np.sort(b.numbers).tobytes() in elements]
    n = sum(batch.size for batch in known)
    first = find_first([*known, *batches])
    shared[order] = first[n:] < n
    return shared


def _listed(structures: Structures) -> tuple[np.ndarray, list[Batch]]:
    listed = list(batches_of(structures))
    if not listed:
        return np.empty(0, np.int64), []
    return np.concatenate([rows for rows, _ in listed]), [batch for _, batch in listed]


class _Composition:
    """Conformers of the same elements, in batches."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.batches = batches
        self.starts = np.cumsum([0, *(batch.size for batch in batches)])
        marks, reach = [], 0.0
        for batch in batches:
            for start in range(0, batch.size, ROWS_AT_ONCE):
                rows = np.arange(start, min(start + ROWS_AT_ONCE, batch.size))
                positions = batch.read(rows)
                finite = np.isfinite(positions).all(axis=(1, 2))
                positions = np.where(finite[:, None, None], positions, 0.0)
                of_rows = _marks(batch.numbers, positions)
                of_rows[~finite] = np.nan
                marks.append(of_rows)
                reach = max(reach, float(np.abs(positions).max(initial=0)))
        self.marks = np.concatenate(marks)
        # Damaged positions, which readers refuse or leave out, are nobody's copies.
        self.damaged = np.isnan(self.marks).any(axis=1)
        n_atoms = len(batches[0].numbers)
        limit = 1.01 * total_limit(n_atoms, reach)
        self.limits = np.full(self.marks.shape[1], limit)
        self.limits[:2] = 1.01 * np.minimum(limit, atom_limit(reach))

    def find_first(self) -> np.ndarray:
        """(n,) first conformer that each is the same as."""
        n = len(self.marks)
        kept = np.empty((0, 2), np.int64)
        component: np.ndarray = np.arange(n)
        whole = np.flatnonzero(~self.damaged)
        for found in _near_pairs(self.marks[whole], self.limits):
            near = whole[found]
            pairs = near[component[near[:, 0]] != component[near[:, 1]]]
            pairs = pairs[self._are_same(pairs)]
            if len(pairs):
                kept = np.concatenate([kept, pairs])
                graph = coo_array((np.ones(len(kept)), tuple(kept.T)), shape=(n, n))
                component = connected_components(graph, directed=False)[1]
        first = np.arange(n)
        order = np.argsort(component, kind="stable")
        sizes = np.bincount(component[order])
        ends = np.cumsum(sizes)
        for end, size in zip(ends[sizes > 1], sizes[sizes > 1], strict=True):
            members = order[end - size : end]
            while len(members) > 1:  # each is near the first of its own, not only its neighbour
                pairs = np.column_stack([np.full(len(members) - 1, members[0]), members[1:]])
                same = np.ones(1, bool) if size == 2 else self._are_same(pairs)
                first[members[1:][same]] = members[0]
                members = members[1:][~same]
        return first

    def _are_same(self, pairs: np.ndarray) -> np.ndarray:
        """(n,) whether pairs (n, 2) of conformers are the same."""
        same = np.zeros(len(pairs), bool)
        batch_of = np.searchsorted(self.starts, pairs, side="right") - 1
        kinds, kind_of = np.unique(batch_of, axis=0, return_inverse=True)
        for kind, batches in enumerate(kinds):
            members = np.flatnonzero(kind_of.reshape(-1) == kind)
            for start in range(0, len(members), PAIRS_AT_ONCE):
                chosen = members[start : start + PAIRS_AT_ONCE]
                sides = [
                    self._positions(int(batch), pairs[chosen, side])
                    for side, batch in enumerate(batches)
                ]
                numbers = (self.batches[batches[0]].numbers, self.batches[batches[1]].numbers)
                same[chosen] = superpose(numbers, sides[0], sides[1]).is_same
        return same

    def _positions(self, batch: int, rows: np.ndarray) -> np.ndarray:
        wanted, back = np.unique(rows - self.starts[batch], return_inverse=True)
        return self.batches[batch].read(wanted)[back.reshape(-1)]


def _marks(numbers: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Numbers (n, n_marks) in Å that turning, moving and reordering leave as they are.

    The largest and the smallest distance of an atom from the centre; then for each element the root
    of the sum of its squared distances, and the distance of its own centre, times √n. Each changes
    by no more than the atoms are displaced, all together.
    """
    centred = positions.astype(np.float64) - positions.mean(axis=1, keepdims=True, dtype=np.float64)
    squares = np.einsum("nax,nax->na", centred, centred)
    is_element = np.array([numbers == number for number in np.unique(numbers)], float)
    roots = np.sqrt(squares @ is_element.T)
    sums = np.einsum("nax,ea->nex", centred, is_element, optimize=True)
    sums = np.sqrt((sums**2).sum(axis=2) / is_element.sum(axis=1))
    ends = np.sqrt(np.stack([squares.max(axis=1), squares.min(axis=1)], axis=1))
    return np.concatenate([ends, roots, sums], axis=1)


def _near_pairs(marks: np.ndarray, limits: np.ndarray) -> Iterator[np.ndarray]:
    """Pairs (n, 2), the lower index first, of rows that differ by no more than the limits.

    Rows are hashed by the cell of some marks; one near the side of its cell is also in the cell
    beyond it, so that rounding parts no pair. A pair may come twice.
    """
    spread = np.ptp(marks, axis=0) / limits
    hashed = np.argsort(-spread, kind="stable")[:N_HASHED]
    sides = CELL * limits[hashed]
    low = np.floor((marks[:, hashed] - limits[hashed]) / sides).astype(np.int64)
    high = np.floor((marks[:, hashed] + limits[hashed]) / sides).astype(np.int64)
    entries, keys = [], []
    for corner in itertools.product((False, True), repeat=len(hashed)):
        inside = ~(np.array(corner) & (low == high)).any(axis=1)
        cells = np.where(corner, high, low)[inside]
        key = np.zeros(len(cells), np.int64)
        for column in cells.T:
            key = key * 1_000_003 + column  # another cell of this key is a pair to look at more
        entries.append(np.flatnonzero(inside))
        keys.append(key)
    rows, key = np.concatenate(entries), np.concatenate(keys)
    order = np.lexsort((marks[rows, hashed[0]], key))
    rows, key = rows[order], key[order]
    along = marks[rows, hashed[0]]
    for step in range(1, len(rows)):
        close = (key[step:] == key[:-step]) & (along[step:] - along[:-step] <= limits[hashed[0]])
        if not close.any():
            return
        pairs = np.column_stack([rows[:-step][close], rows[step:][close]])
        near = (np.abs(marks[pairs[:, 0]] - marks[pairs[:, 1]]) <= limits).all(axis=1)
        if near.any():
            yield np.unique(np.sort(pairs[near], axis=1), axis=0)
