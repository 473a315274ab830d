"""Extended XYZ structures written in the ANI-1x layout: groups of the same atoms, NaN = missing."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace

import h5py
import numpy as np
from ase import Atoms

from hippynn_mf.data.formats.extxyz import Frame
from hippynn_mf.errors import UserError
from hippynn_mf.levels import KNOWN_LEVELS, Level, Levels
from hippynn_mf.units import EV_PER_HARTREE

SAME_SUM = 1e-6 / EV_PER_HARTREE  # a level and the sum of its parts, in one structure
# Beyond the self energies; bonds, and the atoms of another method, are far below it.
LARGEST_SHIFT = 1.0  # hartree per atom


def write_ani1x(file: h5py.File, frames: Sequence[Frame], *, levels: Levels = KNOWN_LEVELS) -> None:
    """Write conformers into an empty file, in groups by formula, in their order.

    Atoms of the same formula in another order are a group of their own. Numbers that fit are
    float32, as in the public file. Raises UserError for labels of `levels` that contradict each
    other, or that are no total energies in eV.
    """
    frames = [_without_sums(frame, levels) for frame in frames]
    for level in levels:
        _refuse_no_total(frames, level)
    energies = sorted({dataset for frame in frames for dataset in frame.energies})
    forces = sorted({dataset for frame in frames for dataset in frame.forces})
    for name, members in _group(frames).items():
        group = file.create_group(name)
        group["atomic_numbers"] = members[0].numbers
        group["coordinates"] = _narrow(np.stack([frame.positions for frame in members]))
        missing = np.full_like(members[0].positions, np.nan)
        for dataset in energies:
            group[dataset] = np.array([frame.energies.get(dataset, np.nan) for frame in members])
        for dataset in forces:
            group[dataset] = _narrow(
                np.stack([frame.forces.get(dataset, missing) for frame in members])
            )


def formula(numbers: np.ndarray) -> str:
    """Name of the group of some atoms in the ANI-1x layout."""
    return str(Atoms(numbers).get_chemical_formula(mode="hill"))


def _group(frames: Sequence[Frame]) -> dict[str, list[Frame]]:
    """Frames by the names of their groups, in each of which all have the same atoms."""
    formulas: dict[bytes, str] = {}
    names: dict[tuple[str, bytes], str] = {}
    groups: defaultdict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        atoms = frame.numbers.tobytes()
        if atoms not in formulas:
            formulas[atoms] = formula(frame.numbers)
        base = formulas[atoms] if frame.group is None else frame.group
        if (base, atoms) not in names:
            if not base or "/" in base or base == ".":
                raise UserError(f"{frame.place}: {base!r} cannot be the name of a group.")
            names[base, atoms] = _free_name(base, groups)
        groups[names[base, atoms]].append(frame)
    return groups


def _free_name(base: str, taken: Collection[str]) -> str:
    """The name itself, or with the first number that makes it another than those taken."""
    names = itertools.chain([base], (f"{base}_{count}" for count in itertools.count(2)))
    return next(name for name in names if name not in taken)


def _narrow(values: np.ndarray) -> np.ndarray:
    """The values as float32 if they were that before a change of units, else as they are."""
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    return narrow if np.allclose(narrow, values, rtol=1e-14, atol=0, equal_nan=True) else values


def _without_sums(frame: Frame, levels: Levels) -> Frame:
    """The frame without energies that are the sum of others, which the layout does not have."""
    for level in levels:
        parts = [frame.energies.get(key) for key in level.energy_keys]
        whole = frame.energies.get(level.energy_name)
        if level.energy_keys == (level.energy_name,) or whole is None or None in parts:
            continue
        difference = whole - sum(part for part in parts if part is not None)
        if abs(difference) > SAME_SUM:
            raise UserError(
                f"{frame.place}: the energy of {level.id} is not the sum of "
                f"{' and '.join(level.energy_keys)}, but differs by "
                f"{difference * EV_PER_HARTREE:.3g} eV. Correct one of them."
            )
        energies = {
            name: value for name, value in frame.energies.items() if name != level.energy_name
        }
        frame = replace(frame, energies=energies)
    return frame


def _refuse_no_total(frames: Sequence[Frame], level: Level) -> None:
    """Raise UserError if the energies of a level cannot be total energies in eV.

    The fit of atomic energies would hide it.
    """
    shifts = []
    for frame in frames:
        parts = [frame.energies.get(key, np.nan) for key in level.energy_keys]
        energy = frame.energies.get(level.energy_name, sum(parts))
        atom_energies = [level.self_energies.get(int(number), np.nan) for number in frame.numbers]
        shifts.append((energy - sum(atom_energies)) / len(atom_energies))
    known = np.array(shifts)[np.isfinite(shifts)]
    if len(known) and abs(np.median(known)) > LARGEST_SHIFT:
        raise UserError(
            f"The energies of level {level.id} ({level.label}) are no total energies in eV: they "
            f"are {np.median(known) * EV_PER_HARTREE:.4g} eV per atom (median) above the self "
            "energies of the atoms. Give total energies in eV, or declare a level with self "
            "energies of its own."
        )
