"""Structures laid over each other, atom upon atom, by any rotation or reflection."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

# What five printed digits leave, in both structures: 0.4e-5 Å. Root mean square displacement, in
# Å, along each of the 3N - 6 directions that change a structure of N atoms (1 of two atoms).
SAME_POSITION = 1.5e-5
FARTHEST = 5e-5  # Å, of any one atom
FLOAT32 = 2.0**-23  # of a coordinate: what two structures in float32 may differ by


@dataclass(frozen=True)
class Superposed:
    """Pairs of structures of n_atoms atoms, the second laid over the first.

    Attributes:
        is_same: (n,) whether they are one conformer.
        orders: (n, n_atoms) atom of the second for each of the first.
        turns: (n, 3, 3): `(second - its centre)[order] @ turn` is `first - its centre`.
    """

    is_same: np.ndarray
    orders: np.ndarray
    turns: np.ndarray

    def turned(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors (n, n_atoms, 3) (as forces) of the second ones in the frame of the first."""
        ordered = np.take_along_axis(vectors, self.orders[:, :, None], axis=1)
        return np.asarray(ordered @ self.turns)


def total_limit(n_atoms: int, reach: float, tolerance: float = SAME_POSITION) -> float:
    """Largest root of the sum of squared displacements, in Å, between copies of one conformer.

    `reach` is the largest coordinate in Å, which says how much is lost to float32.
    """
    return float(np.sqrt(max(1, 3 * n_atoms - 6)) * (tolerance + FLOAT32 * reach))


def atom_limit(reach: float) -> float:
    """Largest displacement of an atom, in Å, between copies of one conformer."""
    return FARTHEST + 2 * FLOAT32 * reach


def superpose(
    numbers: tuple[np.ndarray, np.ndarray],
    first: np.ndarray,
    second: np.ndarray,
    tolerance: float = SAME_POSITION,
) -> Superposed:
    """Lay structures over others of the same atoms, in any order of atoms.

    Args:
        numbers: (n_atoms,) atomic numbers of the first, and of the second structures.
        first, second: (n, n_atoms, 3) positions in Å.
        tolerance: in Å, as `SAME_POSITION`.

    Mirror images are the same: distances, and so energies, do not tell them apart.
    """
    by_element = tuple(np.argsort(each, kind="stable") for each in numbers)
    one, two = (
        positions[:, order].astype(np.float64)
        for positions, order in zip((first, second), by_element, strict=True)
    )
    reach = float(max(np.abs(one).max(initial=0), np.abs(two).max(initial=0)))
    one, two = (each - each.mean(axis=1, keepdims=True) for each in (one, two))
    n, n_atoms = one.shape[:2]
    limits = total_limit(n_atoms, reach, tolerance), atom_limit(reach)
    turns = _turns(one, two)
    is_same = _are_near(one, two @ turns, *limits)
    orders = np.tile(np.arange(n_atoms), (n, 1))
    elements = numbers[0][by_element[0]]
    for pair in np.flatnonzero(~is_same):
        for order in _assignments(elements, one[pair], two[pair], 2 * limits[1]):
            ordered = two[pair][order][None]
            turn = _turns(one[pair][None], ordered)
            if _are_near(one[pair][None], ordered @ turn, *limits)[0]:
                is_same[pair], orders[pair], turns[pair] = True, order, turn[0]
                break
    back = np.empty_like(orders)
    back[:, by_element[0]] = by_element[1][orders]
    return Superposed(is_same, back, turns)


def _turns(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """(n, 3, 3) rotations or reflections that bring centred structures `two` onto `one`."""
    left, _, right = np.linalg.svd(np.swapaxes(two, 1, 2) @ one)
    return np.asarray(left @ right)


def _are_near(one: np.ndarray, two: np.ndarray, total: float, farthest: float) -> np.ndarray:
    squares = ((one - two) ** 2).sum(axis=2)
    near = squares.sum(axis=1) <= total**2
    return np.asarray(near & (squares.max(axis=1, initial=0) <= farthest**2))


def _assignments(
    elements: np.ndarray, one: np.ndarray, two: np.ndarray, tolerance: float
) -> Iterator[np.ndarray]:
    """Every order of the atoms of `two` that gives it the distances of `one`, to a tolerance.

    Of structures without symmetry there is one at most, of others one for each symmetry: atoms are
    placed one after another, each where its distances to all those before it fit.
    """
    lengths = [np.linalg.norm(each[:, None] - each, axis=-1) for each in (one, two)]
    bounds = [0, *(np.flatnonzero(np.diff(elements)) + 1), len(elements)]
    marks = [
        np.concatenate(
            [np.sort(each[:, a:b], axis=1) for a, b in pairwise(bounds)],
            axis=1,
        )
        for each in lengths
    ]
    fits = np.abs(marks[0][:, None] - marks[1]).max(axis=2, initial=0) <= tolerance
    fits &= elements[:, None] == elements
    atoms = np.argsort(fits.sum(axis=1), kind="stable")  # those with the least choice first
    order = np.full(len(elements), -1)

    def place(depth: int) -> Iterator[np.ndarray]:
        if depth == len(atoms):
            yield order.copy()
            return
        atom, placed = atoms[depth], atoms[:depth]
        choices = np.flatnonzero(fits[atom])
        choices = choices[~np.isin(choices, order[placed])]
        apart = np.abs(lengths[1][choices][:, order[placed]] - lengths[0][atom, placed])
        for choice in choices[(apart <= tolerance).all(axis=1)]:
            order[atom] = choice
            yield from place(depth + 1)
        order[atom] = -1

    return place(0)
