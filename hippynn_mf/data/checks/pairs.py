"""Pairs of close conformers of the same atoms, and what forces say of their energy difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
from scipy.spatial import cKDTree

from hippynn_mf.data.structures import Structures
from hippynn_mf.labels import Properties
from hippynn_mf.levels import Level

MAX_CONFORMERS = 2000  # of each group: those with the first draws of a fixed seed
MAX_TOTAL = 4000  # of all groups that are drawn; a file with more shows some of its groups whole
MAX_DISTANCES = 100  # between atoms of a molecule that tell its conformers apart: of a large one
N_DIRECTIONS = 6  # of the projection that a k-d tree searches
N_CANDIDATES = 4  # nearest in the projection, of which the nearest by all distances is taken
ROUNDING = 1e-5  # Å, of positions with five printed digits


@dataclass(frozen=True)
class ConformerPairs:
    """Pairs of conformers: each array is (n,).

    Attributes:
        estimates: what the forces say of the energy difference, hartree.
        changes: the energy difference, hartree; (n, n_levels) where several were asked for.
        apart: distance after superposition, Å, root mean square over atoms.
        path: length of the straight line between them in the space of all coordinates, Å.
        bends: how much more one end's forces say than the other's, hartree.
        noise: what rounded positions make of the estimate, hartree.
    """

    estimates: np.ndarray
    changes: np.ndarray
    apart: np.ndarray
    path: np.ndarray
    bends: np.ndarray
    noise: np.ndarray

    def __len__(self) -> int:
        return len(self.apart)

    def __getitem__(self, chosen: slice | np.ndarray) -> ConformerPairs:
        return ConformerPairs(*(getattr(self, field.name)[chosen] for field in fields(self)))

    @classmethod
    def join(cls, several: Sequence[ConformerPairs]) -> ConformerPairs:
        """All of several, the closest first."""
        some = [each for each in several if len(each)]
        if not some:
            return ConformerPairs(*(np.zeros(0) for _ in fields(cls)))
        columns = [[getattr(each, field.name) for each in some] for field in fields(cls)]
        joined = ConformerPairs(*map(np.concatenate, columns))
        return joined[np.argsort(joined.apart, kind="stable")]

    def closest(self, reach: float, n: int) -> ConformerPairs:
        """The first `n` of sorted pairs that are no further apart than `reach`."""
        return self[: min(n, int(np.searchsorted(self.apart, reach, side="right")))]


def draw_conformers(
    groups: np.ndarray, labelled: np.ndarray, n_total: int = MAX_TOTAL
) -> list[np.ndarray]:
    """The labelled conformers that are compared, as indices, group by group.

    `groups` (n,) is the group of each conformer, in ascending order; `labelled` is (n,) bool.
    At most `MAX_CONFORMERS` of a group, and groups in a drawn order until `n_total`, but one at
    least.
    """
    rows = np.flatnonzero(labelled)
    names, starts = np.unique(groups[rows], return_index=True)
    if not len(names):
        return []
    generator = np.random.default_rng(0)
    members = np.split(rows, starts[1:])
    chosen: list[int] = []
    total = 0
    for number in generator.permutation(len(members)):
        size = min(len(members[number]), MAX_CONFORMERS)
        if size < 2 or (chosen and total + size > n_total):
            continue
        chosen.append(int(number))
        total += size
    return [
        members[number]
        if len(members[number]) <= MAX_CONFORMERS
        else np.sort(generator.permutation(members[number])[:MAX_CONFORMERS])
        for number in sorted(chosen)
    ]


def find_pairs(
    structures: Structures, level: Level, energies: np.ndarray | None = None
) -> ConformerPairs:
    """Every drawn conformer with the closest of its group, of those with energy and forces.

    `energies` (n,) or (n, n_levels), hartree, NaN where there is none, are those of the level
    unless given; of several, all are needed.
    """
    if energies is None:
        energies = structures.energies[level.id]
    has_energies = np.isfinite(energies).all(axis=tuple(range(1, energies.ndim)))
    labelled = has_energies & structures.has_forces(level)
    found = []
    of_level = structures.only({level: Properties.EF})
    for drawn in draw_conformers(structures.groups, labelled):
        members = of_level[drawn]
        positions = members.positions[:].astype(np.float64)
        pairs = _nearest_pairs(positions)
        if not len(pairs):
            continue
        forces = members.forces[level.id][:].astype(np.float64)
        of_drawn = energies[drawn]
        changes = of_drawn[pairs[:, 1]] - of_drawn[pairs[:, 0]]
        found.append(_compare(positions, forces, pairs, changes))
    return ConformerPairs.join(found)


@lru_cache
def _looked_at(n_atoms: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """The pairs of atoms whose distances tell conformers apart, and the projection for a k-d tree.

    Both are drawn by a fixed seed; without too many distances there is no projection.
    """
    first, second = np.triu_indices(n_atoms, 1)
    if len(first) > MAX_DISTANCES:
        some = np.random.default_rng(0).permutation(len(first))[:MAX_DISTANCES]
        first, second = first[some], second[some]
    if len(first) <= N_DIRECTIONS:
        return first, second, None
    return first, second, np.random.default_rng(0).normal(size=(len(first), N_DIRECTIONS))


def _nearest_pairs(positions: np.ndarray) -> np.ndarray:
    """(n_pairs, 2) every conformer with the one most similar to it by its interatomic distances."""
    n, n_atoms = positions.shape[:2]
    if n_atoms < 2 or n < 2:
        return np.zeros((0, 2), np.int64)
    first, second, directions = _looked_at(n_atoms)
    shapes = np.zeros((n, len(first)))
    for axis in range(3):
        apart = positions[:, first, axis] - positions[:, second, axis]
        shapes += np.square(apart, out=apart)
    np.sqrt(shapes, out=shapes)
    seen = shapes if directions is None else shapes @ directions
    near = cKDTree(seen).query(seen, k=min(N_CANDIDATES + 1, n))[1]
    itself = np.arange(n)
    squares = np.square(shapes[near] - shapes[:, None]).sum(axis=2)
    squares[near == itself[:, None]] = np.inf
    nearest = near[itself, squares.argmin(axis=1)]
    codes = np.unique(np.minimum(itself, nearest) * n + np.maximum(itself, nearest))
    return np.stack([codes // n, codes % n], axis=1)


def _compare(
    positions: np.ndarray, forces: np.ndarray, pairs: np.ndarray, changes: np.ndarray
) -> ConformerPairs:
    """The pairs with trapezoid estimates of E(second) − E(first), after superposition."""
    one, two = (
        positions[index] - positions[index].mean(axis=1, keepdims=True) for index in pairs.T
    )
    left, _, right = np.linalg.svd(np.swapaxes(two, 1, 2) @ one)
    turns = left @ right  # two @ turn ≈ one; a reflection will do, since energies are invariant
    moved = two @ turns - one
    at_one, at_two = forces[pairs[:, 0]], forces[pairs[:, 1]] @ turns
    square = np.square(moved).sum(axis=(1, 2))
    return ConformerPairs(
        estimates=-((at_one + at_two) / 2 * moved).sum(axis=(1, 2)),
        changes=changes,
        apart=np.sqrt(square / positions.shape[1]),
        path=np.sqrt(square),
        bends=np.abs(((at_one - at_two) * moved).sum(axis=(1, 2))),
        noise=ROUNDING * np.sqrt(np.square((at_one + at_two) / 2).sum(axis=(1, 2))),
    )
