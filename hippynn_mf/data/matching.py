"""Which structures are the same: the same atoms, in the same order, at the same positions."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from hippynn_mf.data.structures import Structures

SAME_POSITION = 1e-6  # Å, in every coordinate


def find_shared(structures: Structures, others: Structures) -> np.ndarray:
    """(n,) True for each of `structures` that is also among the `others`.

    The same are structures with the same atoms, in the same order, at the same positions.
    """
    shared = np.zeros(len(structures), bool)
    by_atoms: defaultdict[bytes, list[int]] = defaultdict(list)
    for index, species in enumerate(structures.species):
        by_atoms[species[species > 0].tobytes()].append(index)
    for _, group in others.by_group():
        n_atoms = int(group.atom_mask[0].sum())
        members = np.array(by_atoms.get(group.species[0, :n_atoms].tobytes(), []), np.int64)
        if not len(members):
            continue
        both = (structures[members], group)
        positions = [each.positions[:, :n_atoms].reshape(len(each), -1) for each in both]
        first = find_equal_rows(np.concatenate(positions, dtype=np.float64))
        shared[members] |= np.isin(first[: len(members)], first[len(members) :])
    return shared


def find_equal_rows(positions: np.ndarray) -> np.ndarray:
    """(n,) index of the first row that equals each row of `positions` (n, n_coordinates)."""
    # Equal rows stay near each other in a projection, in which a search is far quicker.
    directions = np.random.default_rng(0).normal(size=(positions.shape[1], 3))
    reach = SAME_POSITION * np.abs(directions).sum(axis=0).max()
    tree = cKDTree(positions @ directions)
    pairs = tree.query_pairs(reach, p=np.inf, output_type="ndarray")
    apart = np.abs(positions[pairs[:, 0]] - positions[pairs[:, 1]]).max(axis=1)
    pairs = pairs[apart <= SAME_POSITION]
    n_rows = len(positions)
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n_rows, n_rows))
    component = connected_components(graph, directed=False)[1]
    return np.unique(component, return_index=True)[1][component]
