"""Files of numpy arrays (`.npz`) of one molecule, or of molecules padded with zeros.

The names are those of these data sets, each also in the other's company:

- sGDML and MD17: `R` (n, n_atoms, 3), `z` (n_atoms,), `E` (n,) or (n, 1), `F` (n, n_atoms, 3), with
  `r_unit`, `e_unit` and `theory` as texts (http://www.sgdml.org/doc/, sgdml_dataset_via_ase.py);
- rMD17: `coords`, `nuclear_charges`, `energies`, `forces`, in kcal/mol and Å, which only its
  description says (https://doi.org/10.6084/m9.figshare.12672038);
- PhysNet: `R` (n, n_atoms_max, 3), `Z` (n, n_atoms_max) with 0 for no atom, `N` (n,), `E`, `F`
  (https://doi.org/10.5281/zenodo.2605341).

`cell` (3, 3) or (n, 3, 3) has lattice vectors as rows, `pbc` says along which axes structures are
periodic (all, if there is a cell alone); sGDML's `lattice` is read where rows are columns.

No pickle is read: arrays of Python objects are left out, and refused where they are needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hippynn_mf.data.formats.array_frames import Conformers, checked, frames_of, held_in, systems_of
from hippynn_mf.data.formats.declared import NOTHING_DECLARED, Declared, Told, Units
from hippynn_mf.data.formats.extxyz_keys import VIRIAL
from hippynn_mf.data.formats.frames import Content
from hippynn_mf.data.formats.hdf5 import check_numbers
from hippynn_mf.data.formats.label_names import find_labels, other_names
from hippynn_mf.data.formats.system_keys import KEPT
from hippynn_mf.errors import UserError
from hippynn_mf.files import read_npz as read_arrays
from hippynn_mf.keys import ENERGY, FORCES, STRESS
from hippynn_mf.levels import KNOWN_LEVELS, Level, Levels
from hippynn_mf.units import ENERGY_UNITS

WHAT = "a file of numpy arrays (.npz)"
SUFFIX = ".npz"
NUMBERS = ("z", "Z", "nuclear_charges", "atomic_numbers", "numbers")
POSITIONS = ("R", "coords", "coordinates", "positions", "pos")
USUAL = (
    *(("E", ENERGY), ("energies", ENERGY), ("energy", ENERGY)),
    *(("F", FORCES), ("forces", FORCES), ("force", FORCES)),
    *(("stress", STRESS), ("virial", VIRIAL), ("virials", VIRIAL)),
)
LATTICE, PBC = "lattice", "pbc"
CELLS = ("cell", LATTICE)
ENERGY_UNIT, LENGTH_UNIT, THEORY, COUNTS = "e_unit", "r_unit", "theory", "N"
# How files spell units.
SPELT = {
    **{name.lower(): name for name in ENERGY_UNITS},
    "kcalmol": "kcal/mol",
    "kcal mol-1": "kcal/mol",
    "ha": "hartree",
}
LENGTHS = {"ang": "Å", "angstrom": "Å", "å": "Å", "a": "Å", "au": "bohr", "bohr": "bohr"}


def read_npz(
    path: Path,
    level: Level | None = None,
    *,
    levels: Levels = KNOWN_LEVELS,
    declared: Declared = NOTHING_DECLARED,
) -> Content:
    """Read the conformers of a file.

    Raises UserError for a damaged file, arrays that are missing, ambiguous or of a wrong shape, and
    where neither the file nor the user says the unit of energies.
    """
    told = Told(level, levels, declared)
    unread: list[str] = []
    arrays = read_arrays(path, "Copy it again.", unread=unread)
    numbers_key = _one_of(path, arrays, unread, NUMBERS, "atomic numbers")
    positions_key = _one_of(path, arrays, unread, POSITIONS, "positions")
    positions = arrays[positions_key]
    if positions.ndim == 2:  # of one structure
        positions = positions[None]
    if positions.ndim != 3 or positions.shape[2] != 3 or not len(positions):
        raise UserError(
            f"{path}: {positions_key} has shape {positions.shape}; positions of shape (structures, "
            "atoms, 3) were expected."
        )
    used = {numbers_key, positions_key, *KEPT, COUNTS, *CELLS, PBC}
    rest = {name: array for name, array in arrays.items() if name not in used}
    parts = _parts(path, arrays, numbers_key, positions, rest)
    held = held_in(parts)
    theory = told.levels.find(_text(arrays.get(THEORY)))
    if theory is not None and told.level not in (None, theory):
        raise UserError(
            f"{path}: {THEORY} says that its labels are of level {theory.label}, and it is read as "
            f"{told.level.label}. Name it {theory.label}={path}, or correct {THEORY}."
        )
    if theory is not None:  # as `npz_writer` says it
        told = replace(told, level=theory)
    _refuse_objects(path, unread, told)
    labels = find_labels(path, WHAT, held, told, USUAL)
    _refuse_unknown_units(path, arrays, told)
    default = _units(arrays)
    if any(told.units(default, label.level).energy is None for label in labels.values()):
        raise UserError(
            f"{path} does not say in which unit its energies are. Declare it, as --units "
            "energy=kcal/mol (MD17, rMD17) or energy=eV; known are "
            f"{', '.join(ENERGY_UNITS)}. Forces are in it per Å, unless --units forces= says "
            "otherwise."
        )
    known = (ENERGY_UNIT, LENGTH_UNIT, THEORY)
    others = other_names(held, labels, known) | dict.fromkeys(unread, len(positions))
    absent = [name for name in told.labels() if name not in held]
    frames = frames_of(path, parts, labels, told, default)
    return Content(frames, others, [], held, absent, told.units(default).energy)


def _one_of(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    unread: list[str],
    names: tuple[str, ...],
    what: str,
) -> str:
    """The one of some names that a file has."""
    found = [name for name in names if name in arrays]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{path}: {' and '.join(found)} may both be the {what}. Remove one.")
    if objects := [name for name in names if name in unread]:
        raise _objects_error(path, objects[0])
    raise UserError(
        f"{path} is {WHAT} without {what}. It holds {', '.join([*arrays, *unread]) or 'nothing'}; "
        f"looked for {', '.join(names)}."
    )


def _refuse_objects(path: Path, unread: Sequence[str], told: Told) -> None:
    """Raise UserError if a label that is declared, or would be looked for, is of Python objects."""
    usual = {name for name, _ in USUAL}
    for name in unread:
        if name in told.labels() or (told.level is not None and name in usual):
            raise _objects_error(path, name)


def _objects_error(path: Path, name: str) -> UserError:
    return UserError(
        f"{path}: {name} holds Python objects, which are not loaded, for loading them runs code. "
        "Write the array again as numbers."
    )


def _cells(
    path: Path, arrays: Mapping[str, np.ndarray], n: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Cells (n, 3, 3) and pbc (n, 3), None of molecules; UserError for what is unclear."""
    named = [name for name in CELLS if name in arrays]
    pbc = arrays.get(PBC)
    if pbc is not None and pbc.dtype.kind in "biuf" and not pbc.any():
        return None, None
    if not named or not np.asarray(arrays[named[0]]).any():
        if pbc is not None:
            raise UserError(f"{path}: {PBC} says that structures are periodic, without a cell.")
        return None, None
    if len(named) > 1:
        raise UserError(f"{path}: {' and '.join(named)} may both be the cell. Remove one.")
    cells = np.asarray(arrays[named[0]])
    if cells.dtype.kind not in "iuf" or cells.shape not in ((3, 3), (n, 3, 3)):
        raise UserError(
            f"{path}: {named[0]} has shape {cells.shape} and type {cells.dtype}; a cell is (3, 3), "
            f"or one for each structure, {(n, 3, 3)}."
        )
    cells = np.broadcast_to(cells.astype(np.float64), (n, 3, 3))
    if named[0] == LATTICE and not np.allclose(cells, np.swapaxes(cells, 1, 2), atol=1e-9):
        raise UserError(
            f"{path}: {LATTICE} has its vectors as columns in sGDML's description, and as rows in "
            "files that its own script writes. Name it cell, with its vectors as rows."
        )
    along = np.ones(3, bool) if pbc is None else pbc.astype(bool)
    if along.shape not in ((), (1,), (3,), (n, 3)):
        raise UserError(f"{path}: {PBC} has shape {along.shape}; (3,) or {(n, 3)} was expected.")
    return cells, np.broadcast_to(along, (n, 3))


def _parts(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    numbers_key: str,
    positions: np.ndarray,
    rest: Mapping[str, np.ndarray],
) -> list[Conformers]:
    """The conformers by their atoms, in the order in which those occur first."""
    n, width = positions.shape[:2]
    numbers = arrays[numbers_key]
    what = f"{path}: {numbers_key}"
    systems = systems_of(arrays, n, str(path))
    cells, pbc = _cells(path, arrays, n)
    if numbers.ndim < 2 or numbers.shape[0] != n:
        numbers = checked(np.ravel(numbers), (width,), what)
        atoms = check_numbers(numbers, what)
        return [Conformers(str(path), atoms, positions, rest, None, systems, cells, pbc)]
    numbers = checked(numbers, (n, width), what)
    counts = arrays.get(COUNTS)
    if counts is not None and not np.array_equal(np.ravel(counts), (numbers != 0).sum(axis=1)):
        raise UserError(
            f"{path}: {COUNTS} is the number of atoms of a structure, and contradicts "
            f"{numbers_key}, where 0 is no atom. Correct one of them."
        )
    _, first, member = np.unique(numbers, axis=0, return_index=True, return_inverse=True)
    parts = []
    for place in np.argsort(first):
        rows = np.flatnonzero(np.ravel(member) == place)
        row = numbers[rows[0]]
        is_atom = row != 0
        n_atoms = int(is_atom.sum())
        if not is_atom[:n_atoms].all():
            raise UserError(f"{what}: zeros among the atoms of structure {rows[0] + 1}.")
        of_rows = {}
        for name, array in rest.items():
            chosen = array[rows] if array.shape[:1] == (n,) else array
            of_rows[name] = chosen[:, :n_atoms] if array.shape == (n, width, 3) else chosen
        parts.append(
            Conformers(
                f"{path}, structures like {rows[0] + 1}",
                check_numbers(row[:n_atoms], what),
                positions[rows, :n_atoms],
                of_rows,
                systems={name: values[rows] for name, values in systems.items()},
                cells=None if cells is None else cells[rows],
                pbc=None if pbc is None else pbc[rows],
            )
        )
    return parts


def _refuse_unknown_units(path: Path, arrays: Mapping[str, np.ndarray], told: Told) -> None:
    """Raise UserError where the file says a unit that is not known, and nobody declares another."""
    declared = {quantity for _, quantity, _ in told.declared.units}
    for name, spelt, quantity in (
        (ENERGY_UNIT, SPELT, "energy"),
        (LENGTH_UNIT, LENGTHS, "positions"),
    ):
        said = _text(arrays.get(name))
        if said and said.lower() not in spelt and quantity not in declared:
            raise UserError(
                f"{path}: {name} is {said!r}, which is not known. Known are "
                f"{', '.join(dict.fromkeys(spelt.values()))}; if it is one of them, declare it, as "
                f"--units {quantity}={next(iter(spelt.values()))}, or convert the file."
            )


def _units(arrays: Mapping[str, np.ndarray]) -> Units:
    """The units that a file says; energies in none where it says none that is known."""
    return Units(
        SPELT.get(_text(arrays.get(ENERGY_UNIT)).lower()),
        LENGTHS.get(_text(arrays.get(LENGTH_UNIT)).lower(), "Å"),
    )


def _text(array: np.ndarray | None) -> str:
    if array is None or array.size != 1 or array.dtype.kind not in "SU":
        return ""
    value = array.ravel()[0]
    return bytes(value).decode(errors="replace") if array.dtype.kind == "S" else str(value)
