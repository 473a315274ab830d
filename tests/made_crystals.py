"""Strained crystals with known energies, forces and stress: a Lennard-Jones potential of ASE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.calculators.lj import LennardJones
from ase.io import write

from hippynn_mf.levels import CC, DZ, Level

SIGMA, EPSILON = 1.36, 0.4  # Å, eV: nearest neighbours as far apart as carbon atoms
SCALES = {DZ.id: 1.0, CC.id: 1.1}  # of the energy of each level


def crystals(n: int = 40, *, seed: int = 0, strain: float = 0.03, shake: float = 0.01):
    """`n` small crystals of carbon, all in cells of their own, positions with 8 decimals."""
    generator = np.random.default_rng(seed)
    grid = np.array(np.meshgrid(*3 * [np.arange(2)])).reshape(3, -1).T / 2
    made = []
    for _ in range(n):
        tensor = generator.normal(scale=strain, size=(3, 3))
        cell = (3.1 * (np.eye(3) + (tensor + tensor.T) / 2)).round(8)
        positions = (grid + 0.1) @ cell + generator.normal(scale=shake, size=(8, 3))
        made.append(Atoms("C8", positions.round(8), cell=cell, pbc=True))
    return made


def labels_of(atoms: Atoms, level: Level) -> tuple[float, np.ndarray, np.ndarray]:
    """Total energy in eV, forces in eV/Å and stress (3, 3) in eV/Å³."""
    scale = SCALES[level.id]
    copy = atoms.copy()
    copy.calc = LennardJones(sigma=SIGMA, epsilon=EPSILON * scale, rc=2.9, smooth=True)
    own = sum(level.self_energies[int(z)] for z in atoms.numbers) * units.Hartree
    return (
        own + float(copy.get_potential_energy()),
        copy.get_forces(),
        copy.get_stress(voigt=False),
    )


def label(
    structures: Sequence[Atoms],
    levels: Sequence[Level] = (DZ, CC),
    *,
    stress_factor: float = 1.0,
    force_factor: float = 1.0,
    keys: Mapping[str, str] | None = None,
) -> list[Atoms]:
    """Copies with energies, forces and stress of the levels, by their names in extended XYZ."""
    labelled = []
    for atoms in structures:
        copy = atoms.copy()
        for level in levels:
            energy, forces, stress = labels_of(atoms, level)
            copy.info[f"energy_{level.id}"] = energy
            copy.arrays[f"forces_{level.id}"] = forces * force_factor
            if atoms.pbc.all():
                copy.info[f"stress_{level.id}"] = stress * stress_factor
        labelled.append(copy)
    return labelled


def write_crystals(path: Path, structures: Sequence[Atoms]) -> Path:
    """Write extended XYZ as ASE does."""
    write(path, structures, format="extxyz")
    return path
