"""Data files with known truth: a sum of Morse bonds between all atoms, plus atomic energies.

Levels differ by a scale of the bonds and by their atomic energies, so that every label, its sign
and its units can be recomputed by hand.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from hippynn_mf.levels import SELF_ENERGIES

DEPTH = 0.09  # hartree: bonds of hydrogen are about as stiff as real ones at every level
WIDTH = 1.6  # 1/Å
LENGTH = 1.3  # Å
SCALES = {"wb97x_dz": 1.0, "wb97x_tz": 1.1, "hf_tz": 0.9, "mp2_tz": 0.3, "ccsd(t)_cbs": 1.25}
# hartree per atom beyond the self energy, different for every level and element
ATOMIC = {
    name: {z: 1e-3 * (place + 1) * z for z in SELF_ENERGIES} for place, name in enumerate(SCALES)
}

ANI1X_ENERGIES = {
    "wb97x_dz.energy": "wb97x_dz",
    "wb97x_tz.energy": "wb97x_tz",
    "ccsd(t)_cbs.energy": "ccsd(t)_cbs",
    "hf_tz.energy": "hf_tz",
    "mp2_tz.corr_energy": "mp2_tz",
}
ANI1X_FORCES = {"wb97x_dz.forces": "wb97x_dz", "wb97x_tz.forces": "wb97x_tz"}
CC_FORCES = {"ccsd(t)_cbs.forces": "ccsd(t)_cbs"}  # of few files

WATER = ("OHH", [(0, 0, 0), (0.97, 0, 0), (-0.24, 0.94, 0)])
METHANE = (
    "CHHHH",
    [
        (0, 0, 0),
        (0.63, 0.63, 0.63),
        (-0.63, -0.63, 0.63),
        (-0.63, 0.63, -0.63),
        (0.63, -0.63, -0.63),
    ],
)
AMMONIA = ("NHHH", [(0, 0, 0.1), (0.94, 0, -0.27), (-0.47, 0.81, -0.27), (-0.47, -0.81, -0.27)])
HCN = ("CHN", [(0, 0, 0), (0, 0, -1.07), (0, 0, 1.16)])
NITROGEN = ("NN", [(0, 0, 0), (0, 0, 1.1)])
MOLECULES = {"H2O": WATER, "CH4": METHANE, "H3N": AMMONIA, "CHN": HCN, "N2": NITROGEN}


def numbers_of(symbols: str) -> np.ndarray:
    """Atomic numbers of a string of one-letter elements."""
    return np.array([atomic_numbers[symbol] for symbol in symbols])


def conformers(molecule: tuple[str, list], n: int, seed: int, spread: float = 0.05) -> np.ndarray:
    """Positions (n, n_atoms, 3) in Å scattered around a molecule, exactly float32."""
    reference = np.array(molecule[1], float)
    noise = np.random.default_rng(seed).normal(scale=spread, size=(n, *reference.shape))
    return (reference + noise).astype(np.float32).astype(np.float64)


def energy(numbers: np.ndarray, positions: np.ndarray, name: str) -> np.ndarray:
    """Energies (n,) in hartree; `mp2_tz` is a correlation energy, without self energies."""
    first, second = np.triu_indices(len(numbers), 1)
    lengths = np.linalg.norm(positions[:, first] - positions[:, second], axis=-1)
    bonds = DEPTH * (1 - np.exp(-WIDTH * (lengths - LENGTH))) ** 2
    own = {z: 0.0 if name == "mp2_tz" else SELF_ENERGIES[z] for z in SELF_ENERGIES}
    atoms = sum(own[z] + ATOMIC[name][z] for z in numbers)
    return atoms + SCALES[name] * bonds.sum(axis=-1)


def forces(numbers: np.ndarray, positions: np.ndarray, name: str) -> np.ndarray:
    """Forces −dE/dR, (n, n_atoms, 3) in hartree/Å."""
    result = np.zeros_like(positions)
    for i in range(len(numbers)):
        for j in range(len(numbers)):
            if i != j:
                bond = positions[:, i] - positions[:, j]
                length = np.linalg.norm(bond, axis=-1, keepdims=True)
                decay = np.exp(-WIDTH * (length - LENGTH))
                slope = 2 * SCALES[name] * DEPTH * WIDTH * (1 - decay) * decay
                result[:, i] -= slope * bond / length
    return result


def write_ani1x(
    path: Path,
    n: int | dict[str, int] = 40,
    *,
    seed: int = 0,
    missing: dict[str, dict[str, slice]] | None = None,
    more_forces: dict[str, str] | None = None,
) -> Path:
    """Write a file in the ANI-1x layout with `n` conformers of every molecule.

    `missing` maps group and key to the conformers that lose that label (NaN); `more_forces` are
    further keys as in `ANI1X_FORCES`.
    """
    with h5py.File(path, "w") as file:
        for place, (name, molecule) in enumerate(MOLECULES.items()):
            count = n if isinstance(n, int) else n.get(name, 0)
            if not count:
                continue
            numbers = numbers_of(molecule[0])
            positions = conformers(molecule, count, seed=1000 * seed + place)
            group = file.create_group(name)
            group["atomic_numbers"] = numbers.astype("u1")
            group["coordinates"] = positions.astype("f4")
            columns = {k: energy(numbers, positions, v) for k, v in ANI1X_ENERGIES.items()}
            columns |= {
                k: forces(numbers, positions, v).astype("f4")
                for k, v in {**ANI1X_FORCES, **(more_forces or {})}.items()
            }
            for key, values in columns.items():
                rows = (missing or {}).get(name, {}).get(key)
                if rows is not None:
                    values[rows] = np.nan
                group[key] = values
    return path


def write_comp6(path: Path, n: int = 6, *, seed: int = 7, spread: float = 0.08) -> Path:
    """Write a file in the COMP6 layout: ωB97X/6-31G(d) energies and gradients, plus MP2 and CC."""
    with h5py.File(path, "w") as file:
        for place, (name, molecule) in enumerate(MOLECULES.items()):
            numbers = numbers_of(molecule[0])
            positions = conformers(molecule, n, seed=1000 * seed + place, spread=spread)
            group = file.create_group(f"planted/{name}")
            group["species"] = np.array([s.encode() for s in Atoms(numbers).symbols], "S1")
            group["coordinates"] = positions.astype("f4")
            group["energies"] = energy(numbers, positions, "wb97x_dz")
            group["forces"] = -forces(numbers, positions, "wb97x_dz").astype("f4")
            parts = ("hf_tz", "mp2_tz")
            group["mp2_tz.energy"] = sum(energy(numbers, positions, part) for part in parts)
            gradient = -sum(forces(numbers, positions, part) for part in parts)
            group["mp2_tz_grad"] = gradient.astype("f4")
            group["ccsd(t)_cbs.energy"] = energy(numbers, positions, "ccsd(t)_cbs")
            group["cm5"] = np.zeros((n, len(numbers) + 1), "f4")
            group["lot"] = np.array([b"wb97x/6-31g(d)"])
    return path


def replace(path: Path, group: str, key: str, values: np.ndarray | None) -> None:
    """Overwrite a dataset of a written file, or remove it (`None`)."""
    with h5py.File(path, "r+") as file:
        if key in file[group]:
            del file[group][key]
        if values is not None:
            file[group][key] = values


def damage(path: Path, group: str, key: str) -> None:
    """Make a dataset of a written file unreadable, keeping its shape and type."""
    with h5py.File(path, "r+") as file:
        values = file[group][key][()]
        del file[group][key]
        kept = file[group].create_dataset(key, data=values, chunks=values.shape, compression="gzip")
        kept.id.write_direct_chunk((0,) * values.ndim, b"no gzip stream")
