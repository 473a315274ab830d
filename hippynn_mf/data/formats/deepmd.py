"""Folders of DeePMD-kit (`deepmd/npy`): systems with `type.raw` and sets of frames.

A system has `type.raw` (n_atoms integers), `type_map.raw` (the names of types), an empty file
`nopbc` if it is not periodic, and folders `set.*` with `coord.npy` (n, 3 n_atoms) in Å,
`energy.npy` (n,) in eV, `force.npy` (n, 3 n_atoms) in eV/Å, `virial.npy` (n, 9) in eV and `box.npy`
(n, 9) in Å; in systems of mixed types `real_atom_types.npy` (n, n_atoms), −1 for no
atom. A folder of systems is read whole.
Source: https://docs.deepmodeling.com/projects/deepmd/en/stable/data/system.html and data-conv.html.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from hippynn_mf.data.formats.array_frames import Conformers, frames_of, held_in
from hippynn_mf.data.formats.declared import NOTHING_DECLARED, Declared, Told, Units
from hippynn_mf.data.formats.extxyz_keys import VIRIAL
from hippynn_mf.data.formats.frames import Content
from hippynn_mf.data.formats.label_names import find_labels, other_names
from hippynn_mf.errors import UserError
from hippynn_mf.files import map_npy, read_text
from hippynn_mf.keys import ENERGY, FORCES
from hippynn_mf.levels import KNOWN_LEVELS, Level, Levels

WHAT = "a folder of DeePMD-kit"
UNITS = Units("eV")
USUAL = (("energy", ENERGY), ("force", FORCES), ("virial", VIRIAL))
TYPES, TYPE_MAP, NOT_PERIODIC = "type.raw", "type_map.raw", "nopbc"
COORDINATES, BOX, REAL_TYPES = "coord", "box", "real_atom_types"
NO_ATOM = -1  # in systems of mixed types
MOST_SYSTEMS, DEEPEST = 10**5, 8


def is_deepmd(path: Path) -> bool:
    """Whether a path is a folder of systems of DeePMD-kit."""
    return path.is_dir() and next(_systems(path), None) is not None


def files_of(path: Path) -> list[Path]:
    """All files that are read of a folder of systems, sorted, for its hash."""
    found: list[Path] = []
    for system in _systems(path):
        found += [system / name for name in (TYPES, TYPE_MAP, NOT_PERIODIC)]
        found += [file for folder in _sets(system) for file in sorted(folder.glob("*.npy"))]
    return sorted(file for file in found if file.is_file())


def read_deepmd(
    path: Path,
    level: Level | None = None,
    *,
    levels: Levels = KNOWN_LEVELS,
    declared: Declared = NOTHING_DECLARED,
) -> Content:
    """Read all frames of all systems of a folder.

    Raises UserError for a system without elements or frames, with arrays of wrong shapes or of
    Python objects, and a periodic one without boxes.
    """
    told = Told(level, levels, declared)
    parts = [part for system in _systems(path) for part in _read_system(system)]
    held = held_in(parts)
    labels = find_labels(path, WHAT, held, told, USUAL)
    frames = frames_of(path, parts, labels, told, UNITS)
    absent = [name for name in told.labels() if name not in held]
    return Content(frames, other_names(held, labels, ()), [], held, absent)


def _systems(path: Path) -> Iterator[Path]:
    """Folders with types of atoms, in the order of their names; links are not followed."""
    n_found = 0
    for folder, folders, files in os.walk(path):
        folders.sort()
        if len(Path(folder).relative_to(path).parts) >= DEEPEST:
            folders.clear()
        if TYPES in files:
            folders.clear()
            n_found += 1
            if n_found > MOST_SYSTEMS:
                raise UserError(f"{path} has more than {MOST_SYSTEMS:,} systems. Split it.")
            yield Path(folder)


def _sets(system: Path) -> list[Path]:
    found = sorted(folder for folder in system.glob("set.*") if folder.is_dir())
    for path in (*found, *(file for folder in found for file in folder.glob("*.npy"))):
        if path.is_symlink():
            raise UserError(
                f"{path} is a link, which may lead out of the folder, so it is not read. Put the "
                "file itself there."
            )
    return found


def _read_system(system: Path) -> Iterator[Conformers]:
    types = _types(system)
    names = _type_names(system)
    sets = _sets(system)
    if not sets:
        raise UserError(f"{system} has no folder set.*, so no frames.")
    is_periodic = not (system / NOT_PERIODIC).exists()
    for folder in sets:
        arrays = {file.stem: map_npy(file) for file in sorted(folder.glob("*.npy"))}
        coordinates = arrays.pop(COORDINATES, None)
        if coordinates is None:
            raise UserError(f"{folder} has no {COORDINATES}.npy.")
        n = len(coordinates) if coordinates.ndim else 0
        n_atoms = len(types)
        if coordinates.size != 3 * n * n_atoms or not n:
            raise UserError(
                f"{folder / COORDINATES}.npy has shape {coordinates.shape}; {n_atoms} atoms, as "
                f"{TYPES} says, make (frames, {3 * n_atoms})."
            )
        box, cells = arrays.pop(BOX, None), None
        if is_periodic:
            if box is None or box.size != 9 * n:
                raise UserError(
                    f"{folder} is periodic, for {system.name} has no file {NOT_PERIODIC}, and has "
                    f"no {BOX}.npy of shape ({n}, 9). Make an empty file {NOT_PERIODIC} for "
                    "molecules."
                )
            cells = np.asarray(box, np.float64).reshape(n, 3, 3)
        of_frames = arrays.pop(REAL_TYPES, None)
        ragged = [name for name, array in arrays.items() if array.ndim and len(array) != n]
        if ragged:
            raise UserError(
                f"{folder}: {ragged[0]}.npy has {len(arrays[ragged[0]])} frames, and "
                f"{COORDINATES}.npy has {n}. Each frame has one of each."
            )
        positions = coordinates.reshape(n, n_atoms, 3)
        arrays = {
            name: array.reshape(n, n_atoms, 3) if array.size == 3 * n * n_atoms else array
            for name, array in arrays.items()
        }
        if of_frames is None:
            numbers = _numbers(types, names, system)
            yield Conformers(str(folder), numbers, positions, arrays, cells=cells, pbc=_pbc(cells))
        else:
            yield from _mixed(folder, of_frames, names, positions, arrays, cells)


def _pbc(cells: np.ndarray | None) -> np.ndarray | None:
    """Systems are periodic along all axes, or along none."""
    return None if cells is None else np.ones((len(cells), 3), bool)


def _mixed(
    folder: Path,
    types: np.ndarray,
    names: list[str],
    positions: np.ndarray,
    arrays: dict[str, np.ndarray],
    cells: np.ndarray | None,
) -> Iterator[Conformers]:
    """Frames of mixed types by their atoms."""
    if types.shape != positions.shape[:2] or types.dtype.kind not in "iu":
        raise UserError(
            f"{folder / REAL_TYPES}.npy has shape {types.shape} and type {types.dtype}; integers "
            f"of shape {positions.shape[:2]} were expected."
        )
    if types.min(initial=0) < NO_ATOM:
        raise UserError(
            f"{folder / REAL_TYPES}.npy has the type {types.min()}; types are counted from 0, and "
            f"{NO_ATOM} is no atom."
        )
    unique, member = np.unique(types, axis=0, return_inverse=True)
    for place, row in enumerate(unique):
        rows, atoms = np.flatnonzero(np.ravel(member) == place), row != NO_ATOM
        of_rows = {
            name: array[rows][:, atoms] if array.shape == positions.shape else array[rows]
            for name, array in arrays.items()
        }
        numbers = _numbers(row[atoms], names, folder)
        of_cells = None if cells is None else cells[rows]
        yield Conformers(
            str(folder),
            numbers,
            positions[rows][:, atoms],
            of_rows,
            cells=of_cells,
            pbc=_pbc(of_cells),
        )


def _types(system: Path) -> np.ndarray:
    words = read_text(system / TYPES, "a list of types").split()
    if not words or not all(
        word.isascii() and word.isdecimal() and len(word) < 5 for word in words
    ):
        raise UserError(f"{system / TYPES} should hold the type of every atom, integers from 0.")
    return np.array([int(word) for word in words])


def _type_names(system: Path) -> list[str]:
    path = system / TYPE_MAP
    if not path.exists():
        raise UserError(
            f"{system} has no {TYPE_MAP}, so its elements are not known. Write their symbols "
            "there, one for each type, in the order of the types."
        )
    names = read_text(path, "a list of elements").split()
    if unknown := [name for name in names if name not in chemical_symbols[1:]]:
        raise UserError(f"{path}: {', '.join(unknown)} are no chemical symbols.")
    return names


def _numbers(types: np.ndarray, names: list[str], place: Path) -> np.ndarray:
    if types.size and int(types.max()) >= len(names):
        raise UserError(
            f"{place}: type {int(types.max())} is none of the {len(names)} in {TYPE_MAP} "
            f"({', '.join(names)})."
        )
    return np.array([atomic_numbers[names[each]] for each in types], np.uint8)
