"""Energies of every level along a torsion: a rigid scan, all angles in one pass."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import networkx
import numpy as np
import torch
from ase import Atoms
from ase.neighborlist import build_neighbor_list, natural_cutoffs

from hippynn_mf.errors import UserError
from hippynn_mf.potentials.evaluator import Evaluator
from hippynn_mf.potentials.potential import Potential
from hippynn_mf.potentials.systems import Systems
from hippynn_mf.units import EV_PER_KCAL_PER_MOL

STRAIGHT = 1.0  # degrees


@dataclass(frozen=True)
class TorsionScan:
    """Energies along a torsion.

    Attributes:
        angles: (n_angles,) in degrees.
        energies: level id → (n_members, n_angles) in kcal/mol, above each member's mean of the
            scan: atomic energies, which differ between levels, are no part of it.
        structures: one for each angle.
    """

    angles: np.ndarray
    energies: dict[str, np.ndarray]
    structures: list[Atoms]

    def difference(self, high: str, low: str) -> np.ndarray:
        """One level minus another, by ids: (n_members, n_angles) in kcal/mol."""
        return self.energies[high] - self.energies[low]


def scan_torsion(
    potential: Potential,
    atoms: Atoms,
    dihedral: Sequence[int],
    angles: Sequence[float] | np.ndarray | np.ndarray,
) -> TorsionScan:
    """Turn one end of a molecule about the bond in the middle of `dihedral`, four atoms' numbers.

    Everything beyond the third atom moves, rigidly. Raises UserError if the four atoms are no chain
    of bonds, or if the bond is part of a ring.
    """
    if atoms.pbc.any():
        raise UserError("The structure is periodic; a torsion is one of a molecule. Set pbc=False.")
    if not len(angles):
        raise UserError("Name at least one angle.")
    moving = _beyond_the_bond(atoms, dihedral)
    structures = []
    for angle in angles:
        turned = atoms.copy()
        turned.set_dihedral(*dihedral, angle, indices=moving)
        structures.append(turned)
    evaluator = Evaluator(potential, dtype=torch.float64)
    surfaces = evaluator(Systems.of(structures, evaluator.cutoff, evaluator.species))
    energies = {
        name: (level_energies - level_energies.mean(axis=1, keepdims=True)) / EV_PER_KCAL_PER_MOL
        for name, level_energies in surfaces.energies.items()
    }
    return TorsionScan(np.asarray(angles, float), energies, structures)


def _beyond_the_bond(atoms: Atoms, dihedral: Sequence[int]) -> list[int]:
    numbers = list(dihedral)
    if len(numbers) != 4 or len(set(numbers)) != 4 or not all(0 <= k < len(atoms) for k in numbers):
        raise UserError(
            f"A dihedral is four different atoms of 0 to {len(atoms) - 1}, found {numbers}."
        )
    neighbours = build_neighbor_list(
        atoms, natural_cutoffs(atoms, mult=1.2), self_interaction=False
    )
    bonds = networkx.from_scipy_sparse_array(neighbours.get_connectivity_matrix(sparse=True))
    for pair in itertools.pairwise(numbers):
        if not bonds.has_edge(*pair):
            raise UserError(f"Atoms {pair[0]} and {pair[1]} of {atoms.symbols} are not bonded.")
    for k in (0, 1):
        angle = atoms.get_angle(*numbers[k : k + 3])
        if not STRAIGHT < angle < 180 - STRAIGHT:
            raise UserError(f"Atoms {numbers[k : k + 3]} lie on a line, which has no dihedral.")
    first, last = numbers[1:3]
    bonds.remove_edge(first, last)
    moving = networkx.node_connected_component(bonds, last)
    if first in moving:
        raise UserError(f"The bond of atoms {first} and {last} is part of a ring; it cannot turn.")
    return sorted(moving)
