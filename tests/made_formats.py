"""Small files of every format with planted labels of one level, and of the same structures."""

from __future__ import annotations

import gzip
from pathlib import Path

import h5py
import made_xyz
import numpy as np
import planted
from ase import Atoms, units
from ase.db import connect
from ase.io.trajectory import Trajectory

LEVEL = "wb97x_dz"
KCAL = units.Hartree / (units.kcal / units.mol)  # kcal/mol per hartree
N = 12


def molecule(name: str = "H2O", n: int = N) -> tuple[np.ndarray, np.ndarray]:
    """Atomic numbers and positions (n, n_atoms, 3) of conformers."""
    positions = planted.conformers(planted.MOLECULES[name], n, seed=1)
    return planted.numbers_of(planted.MOLECULES[name][0]), positions.astype(np.float64)


def labels(numbers: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Energies (n,) in hartree and forces in hartree/Å."""
    return planted.energy(numbers, positions, LEVEL), planted.forces(numbers, positions, LEVEL)


def structures(n: int = N) -> list[Atoms]:
    """Conformers of two molecules with the results of a calculator in eV."""
    return made_xyz.label_results(made_xyz.molecules(n, names=["H2O", "CH4"]), LEVEL)


def write_xyz(path: Path) -> Path:
    """Extended XYZ with the names of ASE."""
    return made_xyz.save(path, structures())


def write_packed(path: Path) -> Path:
    """The same with gzip, a mark of the order of bytes, and line ends of Windows."""
    text = write_xyz(path.with_name("plain.xyz")).read_text()
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()))
    return path


def write_trajectory(path: Path) -> Path:
    """A trajectory of ASE."""
    with Trajectory(path, "w") as trajectory:
        for atoms in structures():
            trajectory.write(atoms)
    return path


def write_database(path: Path) -> Path:
    """A database of ASE."""
    with connect(path) as database:
        for atoms in structures():
            database.write(atoms, dft_energy=made_xyz.energy(atoms, [LEVEL]))
    return path


def write_sgdml(path: Path, **more: np.ndarray) -> Path:
    """One molecule as sGDML has it."""
    numbers, positions = molecule()
    energies, forces = labels(numbers, positions)
    arrays = {
        "R": positions,
        "z": numbers.astype(np.uint8),
        "E": energies[:, None] * KCAL,
        "F": forces * KCAL,
        "e_unit": np.array("kcal/mol"),
        "r_unit": np.array("Ang"),
        "theory": np.array("unknown"),
    }
    np.savez_compressed(path, **{**arrays, **more})
    return path


def write_rmd17(path: Path) -> Path:
    """One molecule as rMD17 has it, which says no units."""
    numbers, positions = molecule()
    energies, forces = labels(numbers, positions)
    np.savez_compressed(
        path,
        coords=positions,
        nuclear_charges=numbers.astype(np.uint8),
        energies=energies * KCAL,
        forces=forces * KCAL,
        old_indices=np.arange(len(energies)),
    )
    return path


def write_physnet(path: Path) -> Path:
    """Two molecules padded with zeros, in eV."""
    rows = {"N": [], "Z": [], "R": [], "E": [], "F": []}
    for name in ("H2O", "CH4"):
        numbers, positions = molecule(name)
        energies, forces = labels(numbers, positions)
        missing = ((0, 0), (0, 5 - len(numbers)), (0, 0))
        rows["N"].append(np.full(N, len(numbers)))
        rows["Z"].append(np.tile(np.pad(numbers, (0, 5 - len(numbers))), (N, 1)))
        rows["R"].append(np.pad(positions, missing))
        rows["E"].append(energies * units.Hartree)
        rows["F"].append(np.pad(forces * units.Hartree, missing))
    arrays = {name: np.concatenate(values) for name, values in rows.items()}
    np.savez(path, **arrays, e_unit=np.array("eV"), r_unit=np.array("Ang"))
    return path


def write_deepmd(path: Path, *, names: tuple[str, ...] = ("H2O", "CH4")) -> Path:
    """A folder of systems of DeePMD-kit, each with two sets."""
    for name in names:
        numbers, positions = molecule(name)
        energies, forces = labels(numbers, positions)
        system = path / name
        elements = sorted(set(numbers.tolist()), reverse=True)
        for place, rows in enumerate((slice(0, 5), slice(5, None))):
            folder = system / f"set.{place:03d}"
            folder.mkdir(parents=True)
            np.save(folder / "coord.npy", positions[rows].reshape(-1, 3 * len(numbers)))
            np.save(folder / "energy.npy", energies[rows] * units.Hartree)
            flat = forces[rows].reshape(-1, 3 * len(numbers))
            np.save(folder / "force.npy", flat * units.Hartree)
            np.save(folder / "box.npy", np.tile(np.eye(3).ravel() * 50, (len(flat), 1)))
        types = " ".join(str(elements.index(z)) for z in numbers)
        (system / "type.raw").write_text(types + "\n")
        symbols = Atoms(elements).get_chemical_symbols()
        (system / "type_map.raw").write_text("\n".join(symbols) + "\n")
        (system / "nopbc").touch()
    return path


def write_spice(path: Path) -> Path:
    """Two molecules as SPICE has them: bohr, hartree, and gradients."""
    with h5py.File(path, "w") as file:
        for name in ("H2O", "CH4"):
            numbers, positions = molecule(name)
            energies, forces = labels(numbers, positions)
            group = file.create_group(name.lower())
            group["atomic_numbers"] = numbers
            group["conformations"] = positions / units.Bohr
            group["conformations"].attrs["units"] = "bohr"
            group["dft_total_energy"] = energies
            group["dft_total_energy"].attrs["units"] = "hartree"
            group["dft_total_gradient"] = -forces * units.Bohr
            group["dft_total_gradient"].attrs["units"] = "hartree/bohr"
            group["subset"] = [b"a subset"]
    return path


def write_transition1x(path: Path) -> Path:
    """Two molecules as Transition1x has them, and a second way to the same groups."""
    with h5py.File(path, "w") as file:
        for name in ("H2O", "CH4"):
            numbers, positions = molecule(name)
            energies, forces = labels(numbers, positions)
            group = file.create_group(f"data/{name}/rxn0001")
            group["atomic_numbers"] = numbers
            group["positions"] = positions
            group["wB97x_6-31G(d).energy"] = energies * units.Hartree
            group["wB97x_6-31G(d).forces"] = forces * units.Hartree
        file["train"] = file["data"]
    return path


def write_comp6(path: Path) -> Path:
    """Two molecules as COMP6 has them: hartree, gradients, and a level of theory."""
    with h5py.File(path, "w") as file:
        for name in ("H2O", "CH4"):
            numbers, positions = molecule(name)
            energies, forces = labels(numbers, positions)
            group = file.create_group(f"top/{name}")
            group["species"] = [symbol.encode() for symbol in Atoms(numbers).symbols]
            group["coordinates"] = positions
            group["energies"] = energies
            group["forces"] = -forces
            group["lot"] = [b"wb97x/6-31g*"]
    return path
