"""Labels in extended XYZ files: eV, Å, eV/Å, eV/Å³; a missing label is an absent key.

A file holds the labels of many levels under the names of `extxyz_keys`, or those of one level under
the names that MACE and ASE use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from hippynn_mf.cells import periodic_cell, stress_tensor
from hippynn_mf.data.formats.extxyz_keys import (
    STRESS,
    VIRIAL,
    energy_dataset,
    energy_key,
    forces_dataset,
    level_datasets,
    stress_dataset,
)
from hippynn_mf.data.formats.frames import Content, Frame
from hippynn_mf.data.formats.hdf5 import refuse_beyond_float32
from hippynn_mf.data.formats.system_keys import KEPT
from hippynn_mf.data.formats.xyz_file import read_molecules
from hippynn_mf.errors import UserError, unknown_name_message
from hippynn_mf.levels import DZ, KNOWN_LEVELS, Level, Levels
from hippynn_mf.units import EV_PER_HARTREE

GROUP = "ani1x_group"  # the group of a converted structure, where its formula does not tell
HEAD = "head"  # which level a structure of several in one file is labelled by, as in MACE
UNNAMED = (("REF_energy", "REF_forces"), ("energy", "forces"))  # MACE's names, ASE's
# Of the same styles, by the prefix of their energy: names of a stress, and of a virial.
TENSORS = (STRESS, VIRIAL, f"{VIRIAL}s")
# Of a structure of one atom: values of `config_type` that say that it is there for its energy, and
# a key that says the same.
CONFIG_TYPES = ("IsolatedAtom", "isolated_atom")
ISOLATED_ATOM = "isolated_atom"


@dataclass(frozen=True)
class _Names:
    """Names of labels in a file → datasets of the ANI-1x layout.

    Attributes:
        energies, forces, stress: of labels that name their level.
        styles: names of energy and forces of labels that name none, of which a structure uses the
            first pair that it has any of.
        level: of these labels, None where `head` says it.
    """

    energies: Mapping[str, str] = field(default_factory=dict)
    forces: Mapping[str, str] = field(default_factory=dict)
    stress: Mapping[str, str] = field(default_factory=dict)
    styles: tuple[tuple[str, str], ...] = ()
    level: Level | None = None

    def of(
        self, values: Mapping[str, Any], head: Level | None
    ) -> tuple[Mapping[str, str], Mapping[str, str], Mapping[str, str]]:
        """Names of energies, forces and stress of one structure with these values."""
        level = self.level or head
        if level is None:
            return self.energies, self.forces, self.stress
        energies, forces = level_datasets(level)
        for energy, force in self.styles:
            if energy in values or force in values:
                tensors = dict.fromkeys(_tensors(energy, level), level.stress_name)
                return (
                    {**self.energies, energy: energies},
                    {**self.forces, force: forces},
                    {**self.stress, **tensors},
                )
        return self.energies, self.forces, self.stress


def _tensors(energy: str, level: Level | None) -> list[str]:
    """Names of stress and virial beside an energy of this name."""
    names = [] if level is None else [level.id, level.label]
    ending = next((f"_{name}" for name in names if energy == f"energy_{name}"), "")
    prefix = "" if ending else energy.removesuffix("energy")
    return [f"{prefix}{tensor}{ending}" for tensor in TENSORS]


def read_extxyz(
    path: Path, level: Level | None = None, *, levels: Levels = KNOWN_LEVELS
) -> Content:
    """Read a file with the labels of one level, or (None) with labels that name their levels.

    Of one level, they are `REF_energy` and `REF_forces`, else `energy` and `forces`, else those
    with the name of the level: the first of these pairs that a structure has, so that files joined
    from two sources are read whole. Without a level, a structure's `head` names that of such
    labels. Names of levels are looked up among `levels`.

    Raises:
        UserError: for a file that cannot be read or has no label, and for labels that are no finite
            numbers of the right shape, or are there twice; for a `head` that is no level, or
            another than the file's; for cells that `periodic_cell` refuses, and for a stress
            without periodicity along all axes.
    """
    read: list[tuple[int, Atoms, dict[str, Any]]] = []
    isolated: list[tuple[int, Atoms, dict[str, Any]]] = []
    for number, atoms in enumerate(read_molecules(path), 1):
        values = _values(atoms)
        (isolated if _is_isolated(atoms) else read).append((number, atoms, values))
    found = Counter(name for _, _, values in read for name in values)
    names = (
        _find_names(path, found, levels) if level is None else _find_names_of(level, path, found)
    )
    _refuse_two_meanings(path, [values for _, _, values in read], names)
    frames = [
        _frame(path, number, atoms, values, names, _head(path, number, values, level, levels))
        for number, atoms, values in read
    ]
    # A pair that no structure uses, as predictions beside labels, is not used.
    used: set[tuple[str, ...]] = {
        next((pair for pair in names.styles if set(pair) & set(values)), ())
        for _, _, values in read
    }
    styled = {name for pair in used for name in pair}
    styled |= {name for energy, *_ in filter(None, used) for name in _tensors(energy, level)}
    known = {*names.energies, *names.forces, *names.stress, *styled, GROUP, HEAD, *KEPT}
    others = {name: count for name, count in found.items() if name not in known}
    atoms_alone = [
        (int(atoms.numbers[0]), _atomic_energies(path, number, values, names, levels))
        for number, atoms, values in isolated
    ]
    return Content(frames, others, atoms_alone)


def _is_isolated(atoms: Atoms) -> bool:
    """Whether a structure is named an isolated atom."""
    if len(atoms) != 1:
        return False
    is_said = atoms.info.get(ISOLATED_ATOM, False)
    return str(atoms.info.get("config_type")) in CONFIG_TYPES or (np.ndim(is_said) == 0 and is_said)


def _atomic_energies(
    path: Path, number: int, values: Mapping[str, Any], names: _Names, levels: Levels
) -> dict[str, float]:
    """Energies of an isolated atom that is neutral, by dataset; none of a `head` of no level."""
    if values.get("charge", 0) != 0:
        return {}
    place = f"{path}, structure {number}"
    of_energies, _, _ = names.of(values, levels.find(str(values.get(HEAD, ""))))
    energies = _select(values, of_energies, place)
    return {dataset: _energy(*label, place) for dataset, label in energies.items()}


def _values(atoms: Atoms) -> dict[str, Any]:
    """All that ASE has read beside the structure, of which it takes a part for results."""
    arrays = {name: a for name, a in atoms.arrays.items() if name not in ("numbers", "positions")}
    return {**atoms.info, **arrays, **(atoms.calc.results if atoms.calc is not None else {})}


def _find_names(path: Path, found: Mapping[str, int], levels: Levels) -> _Names:
    """Labels that name their level; none at all is a UserError."""
    names = _Names(
        energies={name: dataset for name in found if (dataset := energy_dataset(name, levels))},
        forces={name: dataset for name in found if (dataset := forces_dataset(name, levels))},
        stress={name: dataset for name in found if (dataset := stress_dataset(name, levels))},
        styles=_present(UNNAMED, found) if HEAD in found else (),
    )
    if not names.energies and not names.forces and not names.styles:
        raise UserError(
            f"{path} has no label that names its level, as {energy_key(DZ)} or energy_{DZ.label}. "
            f"{_list_found(found)} If all are of one level, name it, as {DZ.label}={path}; in "
            "training with --train."
        )
    return names


def _find_names_of(level: Level, path: Path, found: Mapping[str, int]) -> _Names:
    """Labels of one level; none at all is a UserError."""
    own = [(f"energy_{name}", f"forces_{name}") for name in (level.id, level.label)]
    styles = _present(UNNAMED, found) or _present(own, found)
    if styles:
        return _Names(styles=styles, level=level)
    looked_for = ", ".join(name for pair in (*UNNAMED, *own) for name in pair)
    raise UserError(
        f"{path} has no labels of level {level.id} ({level.label}). Looked for {looked_for}. "
        f"{_list_found(found)}"
    )


def _present(
    styles: Sequence[tuple[str, str]], found: Mapping[str, int]
) -> tuple[tuple[str, str], ...]:
    return tuple(pair for pair in styles if pair[0] in found or pair[1] in found)


def _refuse_two_meanings(path: Path, read: Sequence[Mapping[str, Any]], names: _Names) -> None:
    """Raise UserError if names of a style are labels in one structure and something else in others.

    Beside `REF_energy`, `energy` may be a prediction; alone it would be read as a label.
    """
    if len(names.styles) < 2:
        return
    (energy, force), (other, other_force) = names.styles[:2]
    has = [({energy, force} & set(values), {other, other_force} & set(values)) for values in read]
    n_both = sum(bool(one and two) for one, two in has)
    n_other = sum(bool(two and not one) for one, two in has)
    if n_both and n_other:
        raise UserError(
            f"{path}: {n_both} structures have both {energy} (or {force}) and {other} (or "
            f"{other_force}), and {n_other} the latter alone, so it is not clear whether these are "
            "labels. Remove the predictions, or rename the labels."
        )


def _head(
    path: Path, number: int, values: Mapping[str, Any], level: Level | None, levels: Levels
) -> Level | None:
    """The level that a structure's `head` names."""
    if HEAD not in values:
        return None
    text = str(values[HEAD])
    found = levels.find(text)
    place = f"{path}, structure {number}: head={text}"
    if found is None:
        known = [name for each in levels for name in (each.label, each.id)]
        raise UserError(
            f"{place} names no level. {unknown_name_message('level of theory', text, known)} "
            "Rename it, declare the level with --levels FILE, or remove the key."
        )
    if level is not None and found != level:
        raise UserError(
            f"{place} names level {found.id}, but the file is that of level {level.id}. Leave the "
            "structure out, or name the file with --data, where every head is its level."
        )
    return found


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


def _list_found(found: Mapping[str, int]) -> str:
    return f"Found: {', '.join(sorted(found)) or 'positions only'}."


def _frame(
    path: Path,
    number: int,
    atoms: Atoms,
    values: Mapping[str, Any],
    names: _Names,
    head: Level | None,
) -> Frame:
    """A structure with its labels in hartree."""
    place = f"{path}, structure {number}"
    refuse_beyond_float32(atoms.positions, f"{place}: positions")
    energies, forces, stress = (
        _select(values, of_kind, place) for of_kind in names.of(values, head)
    )
    cell = periodic_cell(atoms.cell.array, atoms.pbc, place)
    return Frame(
        numbers=atoms.numbers.astype(np.uint8),
        positions=atoms.positions,
        energies={dataset: _energy(*label, place) for dataset, label in energies.items()},
        forces={dataset: _forces(*label, len(atoms), place) for dataset, label in forces.items()},
        group=str(values[GROUP]) if GROUP in values else None,
        path=path,
        number=number,
        system=_system(values, place),
        cell=cell,
        stress={dataset: _stress(*label, cell, place) for dataset, label in stress.items()},
    )


def _select(
    values: Mapping[str, Any], names: Mapping[str, str], place: str
) -> dict[str, tuple[str, Any]]:
    """Dataset → name and value of a structure's labels of one kind."""
    labels: dict[str, tuple[str, Any]] = {}
    for name in sorted(values.keys() & names.keys()):
        other = labels.setdefault(names[name], (name, values[name]))[0]
        if other != name:
            raise UserError(f"{place}: {other} and {name} are the same label. Remove one.")
    return labels


def _energy(name: str, value: Any, place: str) -> float:
    is_number = np.ndim(value) == 0 and np.asarray(value).dtype.kind in "iuf"
    if not is_number or not np.isfinite(value):
        raise UserError(
            f"{place}: {name} is {value!s}; an energy in eV was expected. Where it is missing, "
            "leave the key out."
        )
    return float(value) / EV_PER_HARTREE


def _forces(name: str, value: Any, n_atoms: int, place: str) -> np.ndarray:
    array = np.asarray(value)
    if array.shape != (n_atoms, 3) or array.dtype.kind not in "iuf":
        raise UserError(
            f"{place}: {name} has shape {array.shape} and type {array.dtype}; forces in eV/Å, "
            f"{(n_atoms, 3)} numbers, were expected."
        )
    if not np.isfinite(array).all():
        raise UserError(
            f"{place}: NaN or infinite values in {name}. Where forces are missing, leave the "
            "columns out."
        )
    refuse_beyond_float32(array, f"{place}: {name}")
    return array / EV_PER_HARTREE


def _stress(name: str, value: Any, cell: np.ndarray | None, place: str) -> np.ndarray:
    """A stress in hartree/Å³, of a stress in eV/Å³ or a virial in eV."""
    if cell is None or not cell.any(axis=1).all():
        raise UserError(
            f"{place}: {name} is there, and the structure is not periodic along all three axes, so "
            "it has no stress. Give the cell (Lattice) with pbc, or remove the key."
        )
    tensor = stress_tensor(value, f"{place}: {name}")
    if VIRIAL in name:
        tensor = -tensor / np.abs(np.linalg.det(cell))
    return tensor / EV_PER_HARTREE
