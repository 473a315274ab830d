"""Which structures are one conformer, however they are turned, moved, ordered or rounded.

Copies have the same elements, and lie upon each other by a rotation or reflection and some order of
the atoms, up to what five printed digits leave (`superposition.SAME_POSITION`). A few numbers that
no such change alters, distances of the atoms from their centre, tell nearly all structures apart;
only those that agree in them are superposed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hippynn_mf.cells import is_periodic
from hippynn_mf.data.crystals import Crystals, find_first_crystal
from hippynn_mf.data.structures import Structures
from hippynn_mf.data.superposition import atom_limit, superpose, total_limit
from hippynn_mf.ragged import ROWS_AT_ONCE

CELL = 64  # side of a cell of the hash, in tolerances: one structure in 30 is near a side
PAIRS_AT_ONCE = 2**13


@dataclass(frozen=True)
class Batch:
    """Conformers with the same atoms in the same order.

    Attributes:
        numbers: (n_atoms,) atomic numbers.
        size: how many there are.
        read: ascending indices (k,), or a slice → positions (k, n_atoms, 3) in Å.
        cells: (size, 3, 3) of `Structures`; None if all are molecules.
    """

    numbers: np.ndarray
    size: int
    read: Callable[[np.ndarray | slice], np.ndarray]
    cells: np.ndarray | None = None

    @property
    def is_periodic(self) -> np.ndarray:
        """(size,) which of them are periodic along any axis."""
        if self.cells is None:
            return np.zeros(self.size, bool)
        return is_periodic(self.cells)

    def only(self, rows: np.ndarray) -> Batch:
        """Some of them as molecules, by ascending indices."""
        return Batch(self.numbers, len(rows), lambda chosen: self.read(rows[chosen]))


def batches_of(structures: Structures) -> Iterator[tuple[np.ndarray, Batch]]:
    """The conformers of structures by their atoms, with their indices."""
    for _, group in structures.by_group():
        # A file's group has one order of atoms, and structures of any origin may have several.
        species = group.species[:]
        if (species == species[:1]).all():
            parts = [np.arange(len(group))]
        else:
            kinds = np.unique(species, axis=0, return_inverse=True)[1].reshape(-1)
            parts = [np.flatnonzero(kinds == kind) for kind in range(kinds.max() + 1)]
        start = int(np.searchsorted(structures.groups, group.groups[0]))
        for members in parts:
            positions = group.positions.at(group.positions.places[members])
            numbers = group.species[int(members[0])]
            cells = None if group.cells is None else group.cells[members]
            yield start + members, Batch(numbers, len(members), positions.__getitem__, cells)


def find_first(batches: Sequence[Batch]) -> np.ndarray:
    """(n,) index of the first conformer that each is the same as: its own where there is none.

    Conformers are counted through all batches. None is further from its first than the tolerance,
    so chains of ever so slightly different structures, as scans of a bond, are no copies. What is
    periodic is compared as in `crystals`, and is never the same as a molecule.
    """
    periodic = [batch.is_periodic for batch in batches]
    if any(flags.any() for flags in periodic):
        return _find_first_of_both(batches, periodic)
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


def _find_first_of_both(batches: Sequence[Batch], periodic: Sequence[np.ndarray]) -> np.ndarray:
    """As `find_first`, of molecules and crystals."""
    is_crystal = np.concatenate(periodic)
    first = np.arange(len(is_crystal))
    pairs = list(zip(batches, periodic, strict=True))
    molecules = np.flatnonzero(~is_crystal)
    found = find_first([batch.only(np.flatnonzero(~flags)) for batch, flags in pairs])
    first[molecules] = molecules[found]
    by_elements: defaultdict[bytes, list[tuple[int, Batch, int]]] = defaultdict(list)
    start = 0
    for batch, flags in pairs:
        if not flags.any():
            start += batch.size
            continue
        key = np.sort(batch.numbers).tobytes()
        by_elements[key] += [(start + int(row), batch, int(row)) for row in np.flatnonzero(flags)]
        start += batch.size
    for members in by_elements.values():
        crystals = Crystals(
            [batch.numbers for _, batch, _ in members],
            [batch.read(np.array([row]))[0] for _, batch, row in members],
            [batch.cells[row] for _, batch, row in members if batch.cells is not None],
        )
        rows = np.array([place for place, _, _ in members], np.int64)
        first[rows] = rows[find_first_crystal(crystals, _near_pairs)]
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
                rows = slice(start, start + ROWS_AT_ONCE)
                of_rows, of_batch = _marks(batch.numbers, batch.read(rows))
                marks.append(of_rows)
                reach = max(reach, of_batch)
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
        if not len(kept):
            return first
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


def _marks(numbers: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, float]:
    """Numbers (n, n_marks) in Å that turning, moving and reordering leave as they are.

    The largest and the smallest distance of an atom from the centre; then for each element the root
    of the sum of its squared distances, and the distance of its own centre, times √n. Each changes
    by no more than the atoms are displaced, all together. They are NaN for damaged positions; with
    them comes the largest coordinate of the others.
    """
    n, n_atoms = positions.shape[:2]
    flat = np.array(positions, np.float64).reshape(n, -1)
    is_element = np.array([numbers == number for number in np.unique(numbers)], float)
    n_elements = len(is_element)
    damaged = None
    if not np.isfinite(flat).all():
        damaged = ~np.isfinite(flat).all(axis=1)
        flat[damaged] = 0.0
    reach = max(float(flat.max(initial=0)), -float(flat.min(initial=0)))
    # One product with a matrix is a fifth of the time of sums over the atoms of small molecules.
    centres = flat @ np.tile(np.eye(3) / max(n_atoms, 1), (n_atoms, 1))
    centred = flat.reshape(n, n_atoms, 3)
    centred -= centres[:, None]
    sums = (flat @ np.kron(is_element, np.eye(3)).T).reshape(n, n_elements, 3)
    sums = np.sqrt(np.square(sums).sum(axis=2) / is_element.sum(axis=1))
    squares = np.square(flat, out=flat).reshape(n, n_atoms, 3).sum(axis=2)
    roots = np.sqrt(squares @ is_element.T)
    ends = np.sqrt(np.stack([squares.max(axis=1), squares.min(axis=1)], axis=1))
    marks = np.concatenate([ends, roots, sums], axis=1)
    if damaged is not None:
        marks[damaged] = np.nan
    return marks, reach


def _near_pairs(marks: np.ndarray, limits: np.ndarray) -> Iterator[np.ndarray]:
    """Pairs (n, 2), the lower index first, of rows that differ by no more than the limits.

    Rows are sorted along the mark that tells most of them apart, inside cells of the second such
    mark; one near the side of its cell is also in the cell beyond it, so that rounding parts no
    pair. A pair may come twice.
    """
    n = len(marks)
    if n < 2:
        return
    quartiles = np.partition(marks, (n // 4, (3 * n) // 4), axis=0)[[n // 4, (3 * n) // 4]]
    by_spread = np.argsort(-(quartiles[1] - quartiles[0]) / limits, kind="stable")
    along, across = by_spread[0], by_spread[1]
    side, limit = CELL * limits[across], limits[along]
    cells = np.floor((marks[:, across] - limits[across]) / side)
    beyond = np.floor((marks[:, across] + limits[across]) / side)
    twice = np.flatnonzero(beyond > cells)
    rows = np.concatenate([np.arange(n), twice])
    cells = np.concatenate([cells, beyond[twice]])
    order = np.lexsort((marks[rows, along], cells))
    rows, cells = rows[order], cells[order]
    places = marks[rows, along]
    active = np.arange(len(rows))
    for step in range(1, len(rows)):
        active = active[: np.searchsorted(active, len(rows) - step)]
        other = active + step
        close = (cells[other] == cells[active]) & (places[other] - places[active] <= limit)
        active = active[close]
        if not len(active):
            return
        pairs = np.column_stack([rows[active], rows[active + step]])
        near = np.abs(marks[pairs[:, 0], across] - marks[pairs[:, 1], across]) <= limits[across]
        pairs = pairs[near]
        pairs = pairs[(np.abs(marks[pairs[:, 0]] - marks[pairs[:, 1]]) <= limits).all(axis=1)]
        if len(pairs):
            yield np.unique(np.sort(pairs, axis=1), axis=0)
