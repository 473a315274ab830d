"""Which elements files hold, and the energies of isolated atoms in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from hippynn_mf.data.formats.groups import Group
from hippynn_mf.data.formats.hdf5 import check_numbers, open_hdf5
from hippynn_mf.data.formats.layout import has_level, read_energies
from hippynn_mf.data.formats.sources import (
    DataPath,
    is_comp6_folder,
    open_data,
    shown_path,
    tagged_atoms,
)
from hippynn_mf.errors import UserError
from hippynn_mf.levels import KNOWN_LEVELS, Level, Levels
from hippynn_mf.units import EV_PER_HARTREE

# Level id → atomic number → hartree.
AtomEnergies = Mapping[str, Mapping[int, float]]

SAME_ATOM = 1e-3 / EV_PER_HARTREE  # what energies of an atom, rounded here and there, differ by


def elements_in(source: DataPath, *, levels: Levels = KNOWN_LEVELS) -> frozenset[int]:
    """Atomic numbers in data of any layout: extended XYZ, ANI-1x, or COMP6 (a file or folder).

    Labels are not looked at, nor what else may be wrong. Raises UserError for what cannot be read.
    """
    if isinstance(source, Path) and is_comp6_folder(source):
        files = sorted(source.glob("*.h5"))
        return frozenset().union(*(_elements_of_file(path) for path in files))
    with open_data(source, levels=levels) as file:
        return _elements_of(file, shown_path(source, levels=levels))


def _elements_of_file(path: Path) -> frozenset[int]:
    with open_hdf5(path) as file:
        return _elements_of(file, path)


def _elements_of(file: h5py.File, path: Path) -> frozenset[int]:
    found: set[int] = set()
    for group in _groups(file):
        if isinstance(numbers := group.get("atomic_numbers"), h5py.Dataset):
            place = f"{path}, group {group.name.lstrip('/')}: atomic_numbers"
            found.update(check_numbers(np.ravel(numbers[()]), place).tolist())
            continue
        for molecule in _groups(group):
            species = molecule.get("species")
            if isinstance(species, h5py.Dataset) and h5py.check_string_dtype(species.dtype):
                symbols = {bytes(symbol).decode(errors="replace") for symbol in species[()]}
                found.update(atomic_numbers[s] for s in symbols & set(chemical_symbols[1:]))
    return frozenset(found)


def _groups(parent: h5py.Group) -> Iterator[h5py.Group]:
    return (item for item in parent.values() if isinstance(item, h5py.Group))


def isolated_atoms(source: DataPath, levels: Iterable[Level], known: Levels) -> AtomEnergies:
    """Energies of neutral atoms by themselves, for each of `levels` that has any.

    They are structures of one atom, and those that extended XYZ names isolated atoms. Data in the
    COMP6 layout have none. Raises UserError for energies of one atom that contradict each other.
    """
    shown = shown_path(source, levels=known)
    found: dict[str, dict[int, float]] = {}
    if is_comp6_folder(source):
        return found
    tagged = tagged_atoms(source, levels=known)
    with open_data(source, levels=known) as file:
        single = [
            Group(
                group.name.lstrip("/"), group, np.ravel(numbers[()]), 0, len(group["coordinates"])
            )
            for group in _groups(file)
            if isinstance(numbers := group.get("atomic_numbers"), h5py.Dataset)
            and numbers.size == 1
            and "coordinates" in group
        ]
        for level in levels:
            values: dict[int, list[float]] = {}
            for number, energies in tagged:
                if (value := _energy_of(energies, level)) is not None:
                    values.setdefault(number, []).append(value)
            for group in single:
                if has_level(set(group.member), level):
                    energies_of_group = read_energies(group, level, shown)
                    finite = energies_of_group[np.isfinite(energies_of_group)]
                    values.setdefault(int(group.numbers[0]), []).extend(finite.tolist())
            found[level.id] = {
                number: _agreed(energies, number, level, shown)
                for number, energies in sorted(values.items())
                if energies
            }
    return {level_id: energies for level_id, energies in found.items() if energies}


def _energy_of(energies: Mapping[str, float], level: Level) -> float | None:
    """The energy of a level among datasets of the ANI-1x layout, whole or as a sum."""
    if level.energy_name in energies:
        return energies[level.energy_name]
    parts = [energies.get(key) for key in level.energy_keys]
    return None if None in parts else sum(part for part in parts if part is not None)


def _agreed(energies: list[float], number: int, level: Level, path: Path) -> float:
    """The energy of an atom, of which a file may have several copies."""
    if max(energies) - min(energies) > SAME_ATOM:
        raise UserError(
            f"{path}: isolated atoms of {chemical_symbols[number]} have energies of level "
            f"{level.id} ({level.label}) from {min(energies) * EV_PER_HARTREE:.6g} to "
            f"{max(energies) * EV_PER_HARTREE:.6g} eV. A self energy is one number: keep the atom "
            "in its ground state, or declare the self energies of the level."
        )
    return sorted(energies)[len(energies) // 2]
