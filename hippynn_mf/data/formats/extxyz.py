"""Labels in extended XYZ files: eV, Å, eV/Å, eV/Å³; a missing label is an absent key.

A file holds the labels of many levels under the names of `extxyz_keys`, or those of one level under
the names that MACE and ASE use.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hippynn_mf.cells import periodic_cell
from hippynn_mf.data.formats.array_frames import stress_of
from hippynn_mf.data.formats.declared import NOTHING_DECLARED, Declared, Label, Told, Units
from hippynn_mf.data.formats.extxyz_keys import PROVENANCE
from hippynn_mf.data.formats.frames import Content, Frame
from hippynn_mf.data.formats.hdf5 import refuse_beyond_float32
from hippynn_mf.data.formats.kinds import KINDS, Shape
from hippynn_mf.data.formats.label_names import Held, key_option
from hippynn_mf.data.formats.label_styles import (
    HEAD,
    Names,
    find_head,
    find_names,
    refuse_two_meanings,
    tensors,
)
from hippynn_mf.data.formats.system_keys import KEPT, LEAST_MOMENT, MOMENTS
from hippynn_mf.data.formats.xyz_file import read_molecules
from hippynn_mf.data.formats.xyz_frames import FileStructure
from hippynn_mf.errors import UserError
from hippynn_mf.keys import ENERGY, FORCES, STRESS
from hippynn_mf.levels import KNOWN_LEVELS, Level, Levels

UNITS = Units("eV")
TENSOR_SHAPES = ((3, 3), (9,), (6,))
GROUP = "ani1x_group"  # the group of a converted structure, where its formula does not tell
# Of a structure of one atom: values of `config_type` that say that it is there for its energy, and
# a key that says the same.
CONFIG_TYPES = ("IsolatedAtom", "isolated_atom")
ISOLATED_ATOM = "isolated_atom"


def read_extxyz(
    path: Path,
    level: Level | None = None,
    *,
    levels: Levels = KNOWN_LEVELS,
    declared: Declared = NOTHING_DECLARED,
) -> Content:
    """Read a file with the labels of one level, or (None) with labels that name their levels.

    Of one level, they are `REF_energy` and `REF_forces`, else `energy` and `forces`, else those
    with the name of the level: the first of these pairs that a structure has, so that files joined
    from two sources are read whole. Without a level, a structure's `head` names that of such
    labels. Names that are declared come before all of them.

    Raises:
        UserError: for a file that cannot be read or has no label, and for labels that are no finite
            numbers of the right shape, or are there twice; for a `head` that is no level, or
            another than the file's; for cells that `periodic_cell` refuses, and for a stress
            without periodicity along all axes.
    """
    told = Told(level, levels, declared)
    return content_of_atoms(path, "extended XYZ", read_molecules(path), told)


def content_of_atoms(
    path: Path, what: str, structures: Iterable[FileStructure], told: Told, default: Units = UNITS
) -> Content:
    """The content of a file of such structures, see `read_extxyz`.

    `what` is its format for messages, `default` the units where nothing else is declared.
    """
    read: list[tuple[int, FileStructure]] = []
    isolated: list[tuple[int, FileStructure]] = []
    for number, structure in enumerate(structures, 1):
        (isolated if _is_isolated(structure) else read).append((number, structure))
    held = _held([structure for _, structure in read])
    names = find_names(path, what, held, told)
    refuse_two_meanings(path, [structure.values for _, structure in read], names)
    labels = told.labels()
    units = {level: told.units(default, level) for level in (None, *told.levels)}
    frames = [
        _frame(path, number, each, names, units, find_head(path, number, each.values, told))
        for number, each in read
    ]
    # A pair that no structure uses, as predictions beside labels, is not used.
    used: set[tuple[str, ...]] = {
        next((pair for pair in names.styles if not each.values.keys().isdisjoint(pair)), ())
        for _, each in read
    }
    styled = {name for pair in used for name in pair}
    styled |= {name for energy, *_ in filter(None, used) for name in tensors(energy, told.level)}
    known = {*names.labels, *styled, GROUP, HEAD, *KEPT}
    atoms_alone = [
        (
            int(each.numbers[0]),
            _atomic_energies(path, number, each.values, names, units, told.levels),
        )
        for number, each in isolated
    ]
    absent = [name for name in labels if name not in held]
    others = {
        name: each.count
        for name, each in held.items()
        if name not in known and not name.startswith(PROVENANCE)
    }
    structures_read = [each for _, each in read]
    remarks = [text for name in MOMENTS if (text := _unknown_moments(name, structures_read))]
    return Content(frames, others, atoms_alone, held, absent, remarks=remarks)


def _unknown_moments(name: str, read: Sequence[FileStructure]) -> str | None:
    """What is said of charges or moments of atoms, which no model knows; None if there are none."""
    values = [np.asarray(each.values[name]) for each in read if name in each.values]
    are_numbers = [array for array in values if array.dtype.kind in "iuf"]
    count = sum(bool((np.abs(array) > LEAST_MOMENT).any()) for array in are_numbers)
    what = "charges" if "charge" in name else "magnetic moments"
    text = f"{count} structures have {what} ({name}), which no model knows: not used"
    return text if count else None


def _held(read: Sequence[FileStructure]) -> dict[str, Held]:
    """What a file holds; the shape is that of the first structure that has a name."""
    counts = Counter(itertools.chain.from_iterable(each.values for each in read))
    shapes: dict[str, Shape] = {}
    for atoms in read:
        for name in atoms.values.keys() - shapes.keys():
            array = np.asarray(atoms.values[name])
            if array.dtype.kind in "iuf" and array.ndim == 0:
                shapes[name] = "number"
            elif array.dtype.kind in "iuf" and name in atoms.info and array.shape in TENSOR_SHAPES:
                shapes[name] = "tensor"
            elif array.dtype.kind in "iuf" and array.shape == (len(atoms), 3):
                shapes[name] = "vectors"
            else:
                shapes[name] = "other"
    return {name: Held(shapes[name], count) for name, count in counts.items()}


def _is_isolated(atoms: FileStructure) -> bool:
    """Whether a structure is named an isolated atom."""
    if len(atoms) != 1:
        return False
    is_said = atoms.info.get(ISOLATED_ATOM, False)
    return str(atoms.info.get("config_type")) in CONFIG_TYPES or (np.ndim(is_said) == 0 and is_said)


def _atomic_energies(
    path: Path,
    number: int,
    values: Mapping[str, Any],
    names: Names,
    units: Mapping[Level | None, Units],
    levels: Levels,
) -> dict[str, float]:
    """Energies of an isolated atom that is neutral, by dataset; none of a `head` of no level."""
    if values.get("charge", 0) != 0:
        return {}
    place = f"{path}, structure {number}"
    of_structure = names.of(values, levels.find(str(values.get(HEAD, ""))))
    selected = _select(values, of_structure, place)
    return {
        dataset: _energy(name, value, place, units, label)
        for dataset, (name, value, label) in selected.items()
        if label.kind == ENERGY
    }


def _system(values: Mapping[str, Any], place: str) -> dict[str, float]:
    """Charge, spin and weights of a structure; a UserError for what is no number."""
    found = {}
    for name in KEPT:
        value = values.get(name)
        if value is None or np.ndim(value) != 0:  # columns of atoms, which are not used
            continue
        try:
            found[name] = float(value)
        except (TypeError, ValueError):
            raise UserError(f"{place}: {name} is {value!s}; a number was expected.") from None
    return found


def _frame(
    path: Path,
    number: int,
    atoms: FileStructure,
    names: Names,
    units: Mapping[Level | None, Units],
    head: Level | None,
) -> Frame:
    """A structure with its labels in hartree."""
    place, values = f"{path}, structure {number}", atoms.values
    refuse_beyond_float32(atoms.positions, f"{place}: positions")
    length = units[None].length
    cell = periodic_cell(atoms.cell * length, atoms.pbc, place)
    labels: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
    for dataset, (name, value, label) in _select(values, names.of(values, head), place).items():
        if label.kind == ENERGY:
            labels[ENERGY][dataset] = _energy(name, value, place, units, label)
        elif label.kind == FORCES:
            labels[FORCES][dataset] = _forces(name, value, len(atoms), place, units, label)
        else:
            stress = stress_of(name, value, cell, place, units[label.level], label)
            labels[STRESS][dataset] = stress
    return Frame(
        numbers=atoms.numbers.astype(np.uint8),
        positions=atoms.positions if length == 1 else atoms.positions * length,
        energies=labels[ENERGY],
        forces=labels[FORCES],
        group=str(values[GROUP]) if GROUP in values else None,
        path=path,
        number=number,
        system=_system(values, place),
        cell=cell,
        stress=labels[STRESS],
    )


def _select(
    values: Mapping[str, Any], labels: Mapping[str, Label], place: str
) -> dict[str, tuple[str, Any, Label]]:
    """Dataset → name, value and label of what a structure has."""
    selected: dict[str, tuple[str, Any, Label]] = {}
    for name in sorted(values.keys() & labels.keys()):
        label = labels[name]
        other = selected.setdefault(label.dataset, (name, values[name], label))[0]
        if other != name:
            raise UserError(
                f"{place}: {other} and {name} are the same label. Remove one, or say which, as "
                f"{key_option(label.shown, name)}."
            )
    return selected


def _divisor(units: Mapping[Level | None, Units], label: Label) -> float:
    """By which a value is divided to be in hartree, or forces in hartree/Å."""
    return label.sign * units[label.level].per_hartree(label.kind)


def _energy(
    name: str, value: Any, place: str, units: Mapping[Level | None, Units], label: Label
) -> float:
    is_number = np.ndim(value) == 0 and np.asarray(value).dtype.kind in "iuf"
    if not is_number or not np.isfinite(value):
        unit = units[label.level].energy
        raise UserError(
            f"{place}: {name} is {value!s}; an energy in {unit} was expected. Where it is missing, "
            "leave the key out."
        )
    return float(value) / _divisor(units, label)


def _forces(
    name: str,
    value: Any,
    n_atoms: int,
    place: str,
    units: Mapping[Level | None, Units],
    label: Label,
) -> np.ndarray:
    array = np.asarray(value)
    unit = units[label.level].force
    if array.shape != (n_atoms, 3) or array.dtype.kind not in "iuf":
        raise UserError(
            f"{place}: {name} has shape {array.shape} and type {array.dtype}; forces in {unit}, "
            f"{(n_atoms, 3)} numbers, were expected."
        )
    if not np.isfinite(array).all():
        raise UserError(
            f"{place}: NaN or infinite values in {name}. Where forces are missing, leave the "
            "columns out."
        )
    refuse_beyond_float32(array, f"{place}: {name}")
    return array / _divisor(units, label)
