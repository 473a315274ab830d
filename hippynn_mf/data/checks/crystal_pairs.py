"""Pairs of similar periodic structures, and what forces and stress say of their energy difference.

Between two structures of the same atoms with fractional coordinates s and cells h, the energy
changes by about −F·(Δs h) + V σ:ε, with ε = h⁻¹ Δh and the means of both ends: the trapezoid rule
that `pairs` uses for molecules. Forces are judged by pairs in the same cell, the stress by pairs in
different cells.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from hippynn_mf.data.checks.pairs import ConformerPairs
from hippynn_mf.data.structures import Structures
from hippynn_mf.levels import Level

SAME_CELL = 1e-4  # Å, of every component
MAX_CONFORMERS = 1000  # of a group
N_NEAREST = 8  # of a structure, with which it is compared
ROUNDING = 1e-5  # Å, of cells and positions with five printed digits


def crystal_pairs(
    structures: Structures, level: Level, *, of_stress: bool = False
) -> ConformerPairs:
    """Pairs of similar periodic structures, for the slope of forces or (`of_stress`) of the stress.

    Estimates of forces are −F·Δx of pairs in the same cell, or, where there is a stress, in any
    cells, without the energy that the stress explains. Those of the stress are V σ:ε of pairs in
    different cells, and changes are then the energy differences without what forces explain.
    """
    found = []
    cells = structures.cells
    if cells is None:
        return ConformerPairs.join([])
    whole = structures.is_crystal & structures.has_energy(level) & structures.has_forces(level)
    if of_stress:
        whole &= structures.has_stress(level)
    for group in np.unique(structures.groups[whole]):
        members = np.flatnonzero(whole & (structures.groups == group))
        kinds = np.unique(structures.species[members], axis=0, return_inverse=True)[1].reshape(-1)
        for kind in range(kinds.max() + 1):
            rows = members[kinds == kind]
            if len(rows) > MAX_CONFORMERS:
                drawn = np.random.default_rng(0).permutation(len(rows))[:MAX_CONFORMERS]
                rows = rows[np.sort(drawn)]
            if len(rows) > 1:
                found.append(_pairs_of(structures[rows], level, of_stress=of_stress))
    return ConformerPairs.join(found)


def _pairs_of(same: Structures, level: Level, *, of_stress: bool) -> ConformerPairs:
    """Pairs of structures of the same atoms in the same order, all periodic along three axes."""
    assert same.cells is not None
    n_atoms = int(same.n_atoms[0])
    cells = same.cells
    fractions = np.linalg.solve(
        np.swapaxes(cells, 1, 2), np.swapaxes(same.positions[:].astype(np.float64), 1, 2)
    )
    fractions = np.swapaxes(fractions, 1, 2)
    # In the images that are nearest to those of the first, and without drift.
    fractions -= np.round(fractions - fractions[:1])
    fractions -= fractions.mean(axis=1, keepdims=True)
    positions = fractions @ cells.mean(axis=0)
    flat = np.concatenate([positions, cells], axis=1).reshape(len(same), -1)
    near = cKDTree(flat).query(flat, k=min(N_NEAREST + 1, len(flat)))[1]
    one = np.repeat(np.arange(len(flat)), near.shape[1])
    two = near.ravel()
    codes = np.unique(np.minimum(one, two) * len(flat) + np.maximum(one, two))
    one, two = codes // len(flat), codes % len(flat)
    is_pair = one != two
    alike = np.abs(cells[one] - cells[two]).max(axis=(1, 2)) <= SAME_CELL
    known = np.zeros(len(cells), bool)
    if level.id in same.stress:
        known = same.has_stress(level)
    chosen = is_pair & (~alike if of_stress else alike | (known[one] & known[two]))
    one, two = one[chosen], two[chosen]
    mean_cells = (cells[one] + cells[two]) / 2
    moved = fractions[two] - fractions[one]
    moved = (moved - np.round(moved)) @ mean_cells
    forces = same.forces[level.id][:].astype(np.float64)
    energies = same.energies[level.id]
    changes = energies[two] - energies[one]
    mean_forces = (forces[one] + forces[two]) / 2
    work = -(mean_forces * moved).sum(axis=(1, 2))
    path = np.sqrt(np.square(moved).sum(axis=(1, 2)))
    strain = np.linalg.solve(mean_cells, cells[two] - cells[one])
    strain = (strain + np.swapaxes(strain, 1, 2)) / 2  # a turned cell has no other energy
    volumes = np.abs(np.linalg.det(mean_cells))
    stress = np.zeros_like(cells)
    if level.id in same.stress:
        stress = np.nan_to_num(same.stress[level.id])

    def by_strain(tensors: np.ndarray) -> np.ndarray:
        return np.asarray(volumes * np.einsum("nij,nij->n", tensors, strain))

    mean_stress = (stress[one] + stress[two]) / 2
    if not of_stress:
        return ConformerPairs(
            estimates=work,
            changes=changes - by_strain(mean_stress),
            apart=path / np.sqrt(n_atoms),
            path=path,
            bends=np.abs(((forces[one] - forces[two]) * moved).sum(axis=(1, 2))),
            noise=ROUNDING * np.sqrt(np.square(mean_forces).sum(axis=(1, 2))),
        )
    size = np.cbrt(volumes) / 2  # how far a strain of 1 moves an atom, about
    stretched = np.linalg.norm(strain, axis=(1, 2)) * size
    return ConformerPairs(
        estimates=by_strain(mean_stress),
        changes=changes - work,
        apart=np.sqrt(np.square(stretched) + np.square(path) / n_atoms),
        path=np.sqrt(n_atoms * np.square(stretched) + np.square(path)),
        bends=np.abs(by_strain(stress[one] - stress[two]))
        + np.abs(((forces[one] - forces[two]) * moved).sum(axis=(1, 2))),
        noise=ROUNDING * volumes * np.linalg.norm(mean_stress, axis=(1, 2)) / size
        + ROUNDING * np.sqrt(np.square(mean_forces).sum(axis=(1, 2))),
    )
