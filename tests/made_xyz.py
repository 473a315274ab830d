"""Extended XYZ files of the planted molecules with known labels, written by ASE itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import planted
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

# Labels by their names in a file, with the planted levels of which they are the sum.
ENERGIES = {
    "energy_wb97x_dz": ("wb97x_dz",),
    "energy_wb97x_tz": ("wb97x_tz",),
    "energy_mp2_tz": ("hf_tz", "mp2_tz"),
    "energy_ccsd(t)_cbs": ("ccsd(t)_cbs",),
}
FORCES = {"forces_wb97x_dz": ("wb97x_dz",), "forces_wb97x_tz": ("wb97x_tz",)}


def molecules(
    n: int = 12, *, seed: int = 0, names: Iterable[str] = planted.MOLECULES
) -> list[Atoms]:
    """`n` conformers of each molecule without labels, positions with 8 decimals."""
    made = []
    for place, name in enumerate(names):
        symbols = planted.MOLECULES[name][0]
        for positions in planted.conformers(planted.MOLECULES[name], n, seed=1000 * seed + place):
            made.append(Atoms(symbols, positions.round(8)))
    return made


def energy(atoms: Atoms, levels: Iterable[str]) -> float:
    """Total energy in eV."""
    positions = atoms.positions[None]
    return (
        sum(planted.energy(atoms.numbers, positions, level)[0] for level in levels) * units.Hartree
    )


def forces(atoms: Atoms, levels: Iterable[str]) -> np.ndarray:
    """Forces (n_atoms, 3) in eV/Å."""
    positions = atoms.positions[None]
    return (
        sum(planted.forces(atoms.numbers, positions, level)[0] for level in levels) * units.Hartree
    )


def label(
    structures: Iterable[Atoms],
    energies: Mapping[str, Iterable[str]] = ENERGIES,
    columns: Mapping[str, Iterable[str]] = FORCES,
) -> list[Atoms]:
    """Copies with labels under these names."""
    labelled = []
    for atoms in structures:
        copy = atoms.copy()
        copy.info.update({name: energy(atoms, levels) for name, levels in energies.items()})
        for name, levels in columns.items():
            copy.arrays[name] = forces(atoms, levels)
        labelled.append(copy)
    return labelled


def label_results(structures: Iterable[Atoms], level: str) -> list[Atoms]:
    """Copies with the results of an ASE calculator, which ASE writes as `energy` and `forces`."""
    labelled = []
    for atoms in structures:
        copy = atoms.copy()
        results = {"energy": energy(atoms, [level]), "forces": forces(atoms, [level])}
        copy.calc = SinglePointCalculator(copy, **results)
        labelled.append(copy)
    return labelled


def label_mace(structures: Iterable[Atoms], level: str, *, with_forces: bool = True) -> list[Atoms]:
    """Copies with labels under the names that MACE expects."""
    return label(
        structures, {"REF_energy": (level,)}, {"REF_forces": (level,)} if with_forces else {}
    )


def save(path: Path, structures: Iterable[Atoms]) -> Path:
    """Write a file with ASE."""
    write(path, list(structures), format="extxyz")
    return path
