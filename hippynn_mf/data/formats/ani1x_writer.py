"""Extended XYZ structures written in the ANI-1x layout: groups of the same atoms, NaN = missing."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace

import h5py
import numpy as np
from ase import Atoms

from hippynn_mf.data.formats.frames import Frame
from hippynn_mf.errors import UserError
from hippynn_mf.keys import CELL
from hippynn_mf.levels import KNOWN_LEVELS, Levels
from hippynn_mf.units import EV_PER_HARTREE

SAME_SUM = 1e-6 / EV_PER_HARTREE  # a level and the sum of its parts, in one structure


def write_ani1x(file: h5py.File, frames: Sequence[Frame], *, levels: Levels = KNOWN_LEVELS) -> None:
    """Write conformers into an empty file, in groups by formula, in their order.

    Atoms of the same formula in another order are a group of their own. Numbers that fit are
    float32, as in the public file. Raises UserError for labels of `levels` that contradict each
    other.
    """
    frames = [_without_sums(frame, levels) for frame in frames]
    energies = sorted({dataset for frame in frames for dataset in frame.energies})
    forces = sorted({dataset for frame in frames for dataset in frame.forces})
    stress = sorted({dataset for frame in frames for dataset in frame.stress})
    systems = sorted({name for frame in frames for name in frame.system})
    is_periodic = any(frame.cell is not None for frame in frames)
    for group_name, members in _group(frames).items():
        group = file.create_group(group_name)
        group["atomic_numbers"] = members[0].numbers
        group["coordinates"] = _narrow(np.stack([frame.positions for frame in members]))
        missing = np.full_like(members[0].positions, np.nan)
        for dataset in energies:
            group[dataset] = np.array([frame.energies.get(dataset, np.nan) for frame in members])
        for name in systems:
            group[name] = np.array([frame.system.get(name, np.nan) for frame in members])
        if is_periodic:
            open_cell = np.zeros((3, 3))
            cells = [open_cell if frame.cell is None else frame.cell for frame in members]
            group[CELL] = np.stack(cells)
        no_stress = np.full((3, 3), np.nan)
        for dataset in stress:
            group[dataset] = np.stack([frame.stress.get(dataset, no_stress) for frame in members])
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
