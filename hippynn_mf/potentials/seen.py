"""What a model has seen: distances in its training set, and the spread of its members.

A structure lies outside if it has an element, a distance or a spread beyond them. Inside is no
promise: a new molecule can have familiar distances. See the page on uncertainty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from ase.data import chemical_symbols

from hippynn_mf.neighbours import NeighbourLists
from hippynn_mf.potentials.card import Distances
from hippynn_mf.units import EV_PER_KCAL_PER_MOL

SPREAD_QUANTILE = 0.99  # of held-out structures, so one of a hundred of them is outside
DISTANCE_TOLERANCE = 0.01  # Å; what a file with few digits changes is no new distance
DISTANCES_AT_ONCE = 2**22
REACH = 6.0  # Å, in periodic structures
N_NUMBERS = 119  # atomic numbers up to 118, and 0


def pair_name(first: int, second: int) -> str:
    """Two elements, the lighter first: `H-C`."""
    return "-".join(chemical_symbols[z] for z in sorted((first, second)))


def distances_of(
    species: np.ndarray, positions: np.ndarray, cells: np.ndarray | None = None
) -> Distances:
    """Distances in structures: species (n, n_atoms_max), 0 for padding, and positions in Å.

    `cells` (n, 3, 3) as of `Structures`; in them distances up to `REACH` are looked at.
    """
    if cells is not None and cells.any():
        return _distances_in_cells(species, positions, cells)
    shortest = np.full((N_NUMBERS, N_NUMBERS), np.inf)
    farthest = np.zeros(N_NUMBERS)
    n_atoms = species.shape[1]
    elements = [int(z) for z in np.unique(species) if z]
    at_once = max(1, DISTANCES_AT_ONCE // max(1, n_atoms**2))
    for start in range(0, len(species), at_once):
        block, places = species[start : start + at_once], positions[start : start + at_once]
        vectors = (places[:, :, None] - places[:, None]).astype(np.float32)
        lengths = np.sqrt(np.einsum("nijk,nijk->nij", vectors, vectors))
        is_pair = (block[:, :, None] > 0) & (block[:, None] > 0) & ~np.eye(n_atoms, dtype=bool)
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
    return _distances(shortest, farthest, elements)


def _distances_in_cells(species: np.ndarray, positions: np.ndarray, cells: np.ndarray) -> Distances:
    lists = NeighbourLists.of(
        torch.as_tensor(species), torch.as_tensor(positions), REACH, torch.as_tensor(cells)
    )
    rows = torch.arange(len(species))
    pairs = lists.batch_pairs(rows, species.shape[1]).numpy()
    shifts = lists.batch_shifts(rows, torch.as_tensor(cells)).numpy()
    places = positions.reshape(-1, 3).astype(np.float64)
    lengths = np.linalg.norm(places[pairs[:, 1]] - places[pairs[:, 0]] + shifts, axis=1)
    numbers = species.ravel().astype(np.int64)
    shortest = np.full((N_NUMBERS, N_NUMBERS), np.inf)
    np.minimum.at(shortest, (numbers[pairs[:, 0]], numbers[pairs[:, 1]]), lengths)
    nearest = np.full(len(numbers), np.inf)
    np.minimum.at(nearest, pairs[:, 0], lengths)
    farthest = np.zeros(N_NUMBERS)
    known = np.isfinite(nearest)
    np.maximum.at(farthest, numbers[known], nearest[known])
    return _distances(shortest, farthest, [int(z) for z in np.unique(species) if z])


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
