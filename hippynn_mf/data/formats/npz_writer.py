"""Structures written as arrays of numpy, in eV and Å, as `npz.py` reads them.

Of one molecule they are `R` (n, n_atoms, 3) and `z` (n_atoms,), of several `R` (n, n_atoms_max, 3),
`Z` (n, n_atoms_max) with 0 for no atom, and `N` (n,). Labels of one level are `E` and `F`, beside
its id as `theory`; those of several are `energy_<id>` and `forces_<id>`. Missing ones are NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hippynn_mf.cells import is_periodic_along
from hippynn_mf.data.formats.ani1x import labels_in_file
from hippynn_mf.data.formats.extxyz_keys import FORCES, STRESS, energy_key, forces_key, stress_key
from hippynn_mf.data.formats.groups import Group, read_cells, read_stress
from hippynn_mf.data.formats.hdf5 import read_array, refuse_infinite
from hippynn_mf.data.formats.layout import list_groups, read_energies
from hippynn_mf.data.formats.npz import ENERGY_UNIT, LENGTH_UNIT, PBC, THEORY
from hippynn_mf.data.formats.sources import DataPath, open_data, shown_path
from hippynn_mf.errors import UserError
from hippynn_mf.keys import CELL
from hippynn_mf.labels import Labels
from hippynn_mf.levels import KNOWN_LEVELS, Levels
from hippynn_mf.units import EV_PER_HARTREE

UNITS = {ENERGY_UNIT: np.array("eV"), LENGTH_UNIT: np.array("Ang")}


def to_npz(
    source: DataPath, out: Path, drop_others: bool = False, levels: Levels = KNOWN_LEVELS
) -> list[str]:
    """Write the structures of data that have a label of `levels`; what is to be said.

    Raises UserError for data without such labels, and for structures without any unless
    `drop_others`.
    """
    shown = shown_path(source, levels=levels)
    labels = labels_in_file(source, levels=levels)
    if not labels:
        raise UserError(f"{shown} has no label of a known level, so there is nothing to write.")
    n_unlabelled, parts = 0, []
    with open_data(source, levels=levels) as file:
        groups = list_groups(file, shown)
        with_cells = any(CELL in group.member for group in groups)
        for group in groups:
            arrays = _arrays(group, labels, shown, with_cells)
            kept = np.zeros(group.size, bool)
            for name, values in arrays.items():
                if name not in ("R", CELL):
                    kept |= np.isfinite(values).reshape(len(values), -1).all(axis=1)
            n_unlabelled += int((~kept).sum())
            parts.append({name: values[kept] for name, values in arrays.items()})
    if n_unlabelled and not drop_others:
        raise UserError(
            f"{shown}: {n_unlabelled} structures have no label of a known level. Leave them out "
            "with --drop-others."
        )
    written = _padded([group.numbers for group in groups], parts)
    if len(labels) == 1:
        (level,) = labels
        names = {energy_key(level): "E", forces_key(level): "F", stress_key(level): STRESS}
        written = {names.get(name, name): values for name, values in written.items()}
        written[THEORY] = np.array(level.id)
    if CELL in written:
        written[PBC] = is_periodic_along(written[CELL])
    with out.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **written, **UNITS)
    n_written = len(written["R"])
    names_of_levels = ", ".join(level.label for level in labels)
    return [f"{shown}: {n_written} structures with labels of {names_of_levels}"]


def _arrays(group: Group, labels: Labels, path: Path, with_cells: bool) -> dict[str, np.ndarray]:
    """Positions and labels of a group, float64 in Å, eV and eV/Å."""
    arrays = {"R": read_array(group.member, "coordinates", path, group.shape).astype(np.float64)}
    if not np.isfinite(arrays["R"]).all():
        raise UserError(f"{path}, group {group.name}: NaN or infinite coordinates. Remove them.")
    for level, properties in labels.items():
        arrays[energy_key(level)] = read_energies(group, level, path) * EV_PER_HARTREE
        if properties.forces:
            forces = read_array(group.member, str(level.force_key), path, group.shape)
            arrays[forces_key(level)] = forces.astype(np.float64) * EV_PER_HARTREE
        if properties.stress:
            stress = read_stress(group, level.stress_name, read_cells(group, path), path)
            arrays[stress_key(level)] = stress * EV_PER_HARTREE
    if with_cells:
        cells = read_cells(group, path)
        arrays[CELL] = np.zeros((group.size, 3, 3)) if cells is None else cells
    for name, values in arrays.items():
        refuse_infinite(values, name, path, group.name)
    return arrays


def _padded(
    numbers: Sequence[np.ndarray], parts: Sequence[Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """All groups in arrays of the width of the largest, or of their atoms if all have the same."""
    sizes = [len(part["R"]) for part in parts]
    used = [atoms for atoms, size in zip(numbers, sizes, strict=True) if size]
    width = max(map(len, used), default=0)
    written = {}
    for name in parts[0]:
        blocks = [part[name] for part, size in zip(parts, sizes, strict=True) if size]
        if blocks and (name == "R" or name.startswith(FORCES)):
            blocks = [np.pad(b, ((0, 0), (0, width - b.shape[1]), (0, 0))) for b in blocks]
        written[name] = np.concatenate(blocks)
    if all(np.array_equal(atoms, used[0]) for atoms in used):
        return {**written, "z": used[0]}
    rows = np.concatenate(
        [np.tile(np.pad(atoms, (0, width - len(atoms))), (size, 1))
         for atoms, size in zip(numbers, sizes, strict=True) if size]
    )  # fmt: skip
    return {**written, "Z": rows, "N": (rows > 0).sum(axis=1)}
