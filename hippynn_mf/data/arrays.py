"""Labels in the units of training: shifted, converted, cast last."""

from __future__ import annotations

import logging

import numpy as np

from hippynn_mf.data.elements import symbols
from hippynn_mf.data.self_energies import lacking_elements, with_self_energies
from hippynn_mf.data.structures import (
    Structures,
    atomic_energy_sum,
    composition,
    elements_of,
)
from hippynn_mf.keys import CELL, POSITIONS, SPECIES
from hippynn_mf.labels import Labels
from hippynn_mf.levels import Level
from hippynn_mf.ragged import Ragged, blocks_of
from hippynn_mf.units import KCAL_PER_MOL_PER_HARTREE

log = logging.getLogger(__name__)

VALUES_AT_ONCE = 2**20  # forces


def training_arrays(
    structures: Structures, labels: Labels, *, consume: bool = False
) -> dict[str, np.ndarray | Ragged]:
    """Arrays by `db_name`, in the units of training.

    `species` (n, n_atoms_max) uint8; `positions` (n, n_atoms_max, 3) float32 in Å;
    `<level>.energy` (n, 1) float32 in kcal/mol without self energies; `<level>.forces`
    (n, n_atoms_max, 3) float32 in kcal/mol/Å; `<level>.stress` (n, 3, 3) float32 in kcal/mol/Å³;
    `cell` (n, 3, 3) float64 in Å, if any structure is periodic. NaN marks missing labels. The self
    energies are subtracted in float64, and the cast comes last. What belongs to atoms is not
    padded. Species and positions are those of `structures`, not copies; with `consume`, forces also
    take the place of its own, for which it, and what shares them, is then no longer good.
    """
    arrays: dict[str, np.ndarray | Ragged] = {
        SPECIES: structures.species,
        POSITIONS: structures.positions,
    }
    if structures.cells is not None:
        arrays[CELL] = structures.cells
    for level, properties in labels.items():
        energies = reference_energies(structures, level)
        arrays[level.energy_name] = energies[:, None].astype(np.float32)
        if properties.forces:
            forces = structures.forces[level.id]
            arrays[level.forces_name] = in_kcal_per_mol(forces if consume else forces.compact())
        if properties.stress:
            arrays[level.stress_name] = reference_stress(structures, level).astype(np.float32)
    return arrays


def in_kcal_per_mol(forces: Ragged) -> Ragged:
    """The forces, whose values become kcal/mol/Å where they are."""
    values = forces.values
    for rows in blocks_of(len(values), VALUES_AT_ONCE):
        values[rows] = values[rows].astype(np.float64) * KCAL_PER_MOL_PER_HARTREE
    return forces


def reference_energies(structures: Structures, level: Level) -> np.ndarray:
    """Energies (n,) float64 in kcal/mol without self energies, NaN where missing."""
    shifted = structures.energies[level.id] - atomic_energy_sum(structures.species, level)
    return np.asarray(shifted * KCAL_PER_MOL_PER_HARTREE)


def known_energies(structures: Structures, level: Level) -> np.ndarray:
    """`reference_energies`, NaN also of structures with an element without a self energy.

    Such a level is not trained: a run has the self energies of all elements in its labels.
    """
    lacking = lacking_elements(level, elements_of(structures.species))
    if not lacking:
        return reference_energies(structures, level)
    energies = reference_energies(
        structures, with_self_energies(level, dict.fromkeys(lacking, 0.0))
    )
    is_unknown = composition(structures.species, sorted(lacking)).any(axis=1)
    if n := int((is_unknown & np.isfinite(energies)).sum()):
        log.warning(
            "%d energies of level %s (%s) are not compared: it declares no self energy of %s, and "
            "is not trained",
            n,
            level.id,
            level.label,
            symbols(lacking),
        )
    return np.where(is_unknown, np.nan, energies)


def reference_forces(structures: Structures, level: Level) -> np.ndarray:
    """Forces (n, n_atoms_max, 3) float64 in kcal/mol/Å, NaN where missing, 0 for padding."""
    return structures.forces[level.id][:].astype(np.float64) * KCAL_PER_MOL_PER_HARTREE


def reference_stress(structures: Structures, level: Level) -> np.ndarray:
    """Stress (n, 3, 3) float64 in kcal/mol/Å³, NaN where missing."""
    return structures.stress[level.id] * KCAL_PER_MOL_PER_HARTREE
