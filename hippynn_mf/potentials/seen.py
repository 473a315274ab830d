"""What a model has seen: distances in its training set, and the spread of its members.

A structure lies outside if it has an element, a distance or a spread beyond them. Inside is no
promise: a new molecule can have familiar distances. See the page on uncertainty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from ase.data import chemical_symbols

from hippynn_mf.neighbours import NeighbourLists
from hippynn_mf.potentials.card import Distances
from hippynn_mf.ragged import Ragged, as_ragged, blocks_by_size, blocks_of
from hippynn_mf.units import EV_PER_KCAL_PER_MOL

SPREAD_QUANTILE = 0.99  # of held-out structures, so one of a hundred of them is outside
DISTANCE_TOLERANCE = 0.01  # Å; what a file with few digits changes is no new distance
DISTANCES_AT_ONCE = 2**22
STRUCTURES_AT_ONCE = 2**10  # periodic ones
REACH = 6.0  # Å, in periodic structures
N_NUMBERS = 119  # atomic numbers up to 118, and 0


def pair_name(first: int, second: int) -> str:
    """Two elements, the lighter first: `H-C`."""
    return "-".join(chemical_symbols[z] for z in sorted((first, second)))


def distances_of(
    species: Ragged | np.ndarray,
    positions: Ragged | np.ndarray,
    cells: np.ndarray | None = None,
) -> Distances:
    """Distances in structures: species (n, n_atoms_max), 0 for padding, and positions in Å.

    `cells` (n, 3, 3) as of `Structures`; in them distances up to `REACH` are looked at.
    """
    species, positions = as_ragged(species, positions)
    if cells is not None and cells.any():
        return _distances_in_cells(species, positions, cells)
    shortest = np.full((N_NUMBERS, N_NUMBERS), np.inf)
    farthest = np.zeros(N_NUMBERS)
    every: set[int] = set()
    for rows in blocks_by_size(species.places.sizes, DISTANCES_AT_ONCE):
        block, places = species[rows], positions[rows]
        elements = [int(z) for z in np.unique(block) if z]
        every.update(elements)
        vectors = (places[:, :, None] - places[:, None]).astype(np.float32)
        lengths = np.sqrt(np.einsum("nijk,nijk->nij", vectors, vectors))
        is_pair = (block[:, :, None] > 0) & (block[:, None] > 0)
        is_pair &= ~np.eye(block.shape[1], dtype=bool)
        lengths[~is_pair] = np.inf
        nearest = lengths.min(axis=2, initial=np.inf)
        for z in elements:
            of_first = lengths[block == z]  # (n_atoms of z, n_atoms_max)
            partners = np.broadcast_to(block[:, None], lengths.shape)[block == z]
            for other in elements:
                found = of_first.min(where=partners == other, initial=np.inf)
                shortest[z, other] = min(shortest[z, other], found)
            known = nearest[block == z]
            farthest[z] = max(farthest[z], known.max(where=np.isfinite(known), initial=0.0))
    return _distances(shortest, farthest, sorted(every))


def _distances_in_cells(species: Ragged, positions: Ragged, cells: np.ndarray) -> Distances:
    lists = NeighbourLists.of(species, positions, REACH, cells)
    shortest = np.full((N_NUMBERS, N_NUMBERS), np.inf)
    farthest = np.zeros(N_NUMBERS)
    every: set[int] = set()
    for slice_of_rows in blocks_of(len(species), STRUCTURES_AT_ONCE):
        rows = np.arange(len(species))[slice_of_rows]
        numbers, places = species[rows].astype(np.int64), positions[rows].astype(np.float64)
        pairs = lists.batch_pairs(rows, numbers.shape[1]).numpy()
        shifts = lists.batch_shifts(rows, cells[rows]).numpy()
        numbers, places = numbers.ravel(), places.reshape(-1, 3)
        every.update(np.unique(numbers[numbers > 0]).tolist())
        lengths = np.linalg.norm(places[pairs[:, 1]] - places[pairs[:, 0]] + shifts, axis=1)
        np.minimum.at(shortest, (numbers[pairs[:, 0]], numbers[pairs[:, 1]]), lengths)
        nearest = np.full(len(numbers), np.inf)
        np.minimum.at(nearest, pairs[:, 0], lengths)
        known = np.isfinite(nearest)
        np.maximum.at(farthest, numbers[known], nearest[known])
    return _distances(shortest, farthest, sorted(every))


def _distances(shortest: np.ndarray, farthest: np.ndarray, elements: list[int]) -> Distances:
    return Distances(
        shortest={
            pair_name(a, b): round(float(shortest[a, b]), 4)
            for a in elements
            for b in elements
            if a <= b and np.isfinite(shortest[a, b])
        },
        farthest_neighbour={
            chemical_symbols[z]: round(float(farthest[z]), 4) for z in elements if farthest[z]
        },
    )


def spread_quantiles(
    energies: Mapping[str, Sequence[np.ndarray]], n_atoms: np.ndarray
) -> dict[str, float]:
    """Quantiles in eV per atom of the members' spread: level id → (n,) of members in kcal/mol."""
    quantiles = {}
    for level_id, of_members in energies.items():
        if len(of_members) > 1 and len(n_atoms):
            spread = np.std(np.stack(of_members), axis=0, ddof=1) / n_atoms * EV_PER_KCAL_PER_MOL
            quantiles[level_id] = float(np.quantile(spread, SPREAD_QUANTILE))
    return quantiles
