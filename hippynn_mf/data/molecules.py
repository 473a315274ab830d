"""Which molecule a conformer is of: its elements, and which atoms are bonded."""

from __future__ import annotations

import numpy as np
from ase.data import covalent_radii

from hippynn_mf.data.matching import Batch

# Bonded are atoms nearer than so many times the sum of their covalent radii.
BOND = 1.4
DISTANCES_AT_ONCE = 2**20


def molecule_ids(batch: Batch) -> np.ndarray:
    """(n,) uint64, the same for conformers with the same elements and bonds, in any order of atoms.

    Atoms are told apart by their elements, their neighbours, those of these, and so on
    (Weisfeiler and Lehman). Molecules that this cannot tell apart count as one, so none is ever in
    two splits; a bond that is broken in a conformer makes it another molecule.
    """
    numbers = batch.numbers
    n_atoms = len(numbers)
    reach = BOND * (covalent_radii[numbers][:, None] + covalent_radii[numbers])
    at_once = max(1, DISTANCES_AT_ONCE // max(1, n_atoms**2))
    ids = np.empty(batch.size, np.uint64)
    for start in range(0, batch.size, at_once):
        rows = np.arange(start, min(start + at_once, batch.size))
        positions = batch.read(rows).astype(np.float64)
        apart = np.linalg.norm(positions[:, :, None] - positions[:, None], axis=-1)
        bonded = (apart < reach) & ~np.eye(n_atoms, dtype=bool)
        ids[rows] = _graph_ids(numbers, bonded)
    return ids


def _graph_ids(numbers: np.ndarray, bonded: np.ndarray) -> np.ndarray:
    """(n,) of graphs with bonds (n, n_atoms, n_atoms); most conformers share their graph."""
    n, n_atoms = bonded.shape[:2]
    packed = np.packbits(bonded.reshape(n, -1), axis=1)
    _, chosen, back = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    graphs = bonded[chosen].astype(np.uint64)
    colours = np.tile(mix(numbers.astype(np.uint64)), (len(graphs), 1))
    for _ in range(n_atoms):
        around = (graphs * mix(colours)[:, None, :]).sum(axis=2, dtype=np.uint64)
        colours = mix(colours * np.uint64(3) + around)
    return np.asarray(mix(colours.sum(axis=1, dtype=np.uint64))[back.reshape(-1)])


def mix(values: np.ndarray) -> np.ndarray:
    """Whole numbers uint64, well mixed (the finaliser of SplitMix64)."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))
