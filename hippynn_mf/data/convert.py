"""From any format that is read to the ANI-1x layout, extended XYZ or `.npz`: `data convert`.

`energy_<name>` and `forces_<name>` in eV and eV/Å are the datasets `<name>.energy` and
`<name>.forces` in hartree and hartree/Å, `corr_energy_<name>` is `<name>.corr_energy`, and a key
that is absent is NaN. A level that is a sum of datasets, as MP2, has its sum in extended XYZ beside
the parts, so that others can train on it; where there are no parts, its sum is `mp2_tz.energy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

import h5py
import numpy as np

from hippynn_mf.data.checks.gate import check_structures
from hippynn_mf.data.checks.report import NOTHING, Accepted
from hippynn_mf.data.formats.ani1x import labels_in_file, read_ani1x
from hippynn_mf.data.formats.ani1x_writer import formula, write_ani1x
from hippynn_mf.data.formats.extxyz import GROUP
from hippynn_mf.data.formats.extxyz_keys import FORCES, energy_key, extxyz_key
from hippynn_mf.data.formats.frame_formats import known_formats
from hippynn_mf.data.formats.groups import Group, read_cells, read_stress
from hippynn_mf.data.formats.hdf5 import SUFFIXES as HDF5_SUFFIXES
from hippynn_mf.data.formats.hdf5 import is_hdf5, read_array, refuse_infinite
from hippynn_mf.data.formats.layout import has_level, list_groups, read_energies
from hippynn_mf.data.formats.npz import SUFFIX as NPZ_SUFFIX
from hippynn_mf.data.formats.npz_writer import to_npz
from hippynn_mf.data.formats.reading_bar import ReadingBar
from hippynn_mf.data.formats.sources import (
    DataPath,
    has_frames,
    open_data,
    read_frames,
    refuse_absent_keys,
    refuse_untold,
    shown_path,
    split_source,
)
from hippynn_mf.data.formats.system_keys import KEPT, PERIODIC
from hippynn_mf.data.formats.xyz_file import PLAIN, is_xyz, write_molecule, written_xyz
from hippynn_mf.errors import UserError, errors_about
from hippynn_mf.files import replace_when_complete
from hippynn_mf.keys import CELL, STRESS
from hippynn_mf.levels import DZ, KNOWN_LEVELS, Levels
from hippynn_mf.units import EV_PER_HARTREE

ATOMS = ("atomic_numbers", "coordinates", CELL, *PERIODIC)


def convert_data(
    source: DataPath,
    out: Path,
    *,
    force: bool = False,
    drop_others: bool = False,
    accepted: Accepted = NOTHING,
    levels: Levels = KNOWN_LEVELS,
) -> list[str]:
    """Convert a file, or one file for each level, to what the suffix of `out` says.

    Args:
        source: what to convert.
        out: written complete or not at all.
        force: replace an `out` that exists.
        drop_others: leave out what the other format has no place for, instead of refusing it.
        accepted: what the checks let through, as of training data.
        levels: those that files may name.

    Returns:
        What is to be said: how many structures, what was left out.

    Raises:
        UserError: for a suffix that says nothing, an `out` that exists, input that cannot be read,
            what cannot be converted, and what the checks refuse, see `check_structures`.
    """
    shown = shown_path(source, levels=levels)
    files, declared = split_source(source)
    refuse_untold(source)
    if isinstance(files, Path) and not (
        has_frames(source) or is_hdf5_name(files) or is_hdf5(files)
    ):
        raise UserError(
            f"{files}: neither its name nor its content tells the format. Known are "
            f"{known_formats()}."
        )
    if not (is_xyz(out) or is_hdf5_name(out) or is_npz(out)):
        raise UserError(
            f"{out}: the suffix does not tell the format. Extended XYZ ends in "
            f"{' or '.join(PLAIN)}, the ANI-1x layout in {' or '.join(HDF5_SUFFIXES)}, arrays of "
            f"numpy in {NPZ_SUFFIX}."
        )
    if isinstance(files, Path) and not declared and _same_format(files, source, out):
        raise UserError(
            f"{shown} and {out}: these have the same format, and there is nothing to convert."
        )
    if out.exists() and not force:
        raise UserError(f"{out} exists. Choose another name, or replace it with --force.")
    if not out.absolute().parent.is_dir():
        raise UserError(f"No folder {out.absolute().parent}. Create it first.")
    refuse_absent_keys(source, levels=levels)
    with replace_when_complete(out) as partial:
        if is_hdf5_name(out):
            return _to_hdf5(source, partial, drop_others, accepted, levels)
        said = _dropped(source, drop_others, levels) if has_frames(source) else []
        if is_npz(out):
            notes = to_npz(source, partial, drop_others, levels)
        else:
            notes = _to_extxyz(source, out, partial, drop_others, levels)
        return [*said, *notes, *_check(source, accepted, levels)]


def is_hdf5_name(path: Path) -> bool:
    """Whether the name of a file says that it is HDF5."""
    return path.suffix.lower() in HDF5_SUFFIXES


def is_npz(path: Path) -> bool:
    """Whether the name of a file says that it holds arrays of numpy."""
    return path.suffix.lower() == NPZ_SUFFIX


def _same_format(files: Path, source: DataPath, out: Path) -> bool:
    if is_hdf5_name(out):
        return not has_frames(source)
    return (is_xyz(files) and is_xyz(out)) or (is_npz(files) and is_npz(out))


def _dropped(source: DataPath, drop_others: bool, levels: Levels) -> list[str]:
    """What was noticed in reading; UserError for what is not a label, unless it may be dropped."""
    read = read_frames(source, levels=levels)
    if read.others and not drop_others:
        raise UserError(
            f"{shown_path(source, levels=levels)}: only energies and forces are converted. No "
            f"place for {_list_counts(read.others)}. Labels are named with --key, as --key "
            f"{DZ.label}.energy=NAME. Leave the others out with --drop-others."
        )
    return read.notes


def _to_hdf5(
    source: DataPath, out: Path, drop_others: bool, accepted: Accepted, levels: Levels
) -> list[str]:
    read = read_frames(source, levels=levels)
    frames, notes, others = read.frames, read.notes, read.others
    shown = shown_path(source, levels=levels)
    if others and not drop_others:
        raise UserError(
            f"{shown}: the ANI-1x layout has no place for {_list_counts(others)}. Labels are named "
            f"{energy_key(DZ)} and so on, or with --key. Leave the others out with --drop-others."
        )
    with h5py.File(out, "w") as file, errors_about(shown):
        write_ani1x(file, frames, levels=levels)
    return [*notes, *_check(source, accepted, levels)]


def _check(source: DataPath, accepted: Accepted, levels: Levels) -> list[str]:
    """What the checks say of a file with labels of `levels`; UserError for what they refuse."""
    labels = labels_in_file(source, levels=levels)
    if not labels:
        return []
    structures, _ = read_ani1x(source, labels, levels=levels)
    report = check_structures(structures, levels, source, accepted=accepted)
    report.refuse()
    return [o.text for o in report.outcomes if o.verdict == "accepted"]


def _to_extxyz(
    source: DataPath, out: Path, partial: Path, drop_others: bool, levels: Levels
) -> list[str]:
    path = shown_path(source, levels=levels)
    with open_data(source, levels=levels) as file, written_xyz(partial, out) as stream:
        groups = list_groups(file, path)
        names = {key: extxyz_key(key, levels) for group in groups for key in group.member}
        others = sorted(
            key for key, name in names.items() if name is None and key not in (*ATOMS, *KEPT)
        )
        if others and not drop_others:
            raise UserError(
                f"{path}: extended XYZ takes energies, forces and stress. No place for the "
                f"datasets {', '.join(others)}. Leave them out with --drop-others."
            )
        labels = {key: name for key, name in names.items() if name is not None}
        n_partial = 0
        with ReadingBar(path, 1) as bar:
            for group in bar.over("structures", groups):
                n_partial += _write_group(stream, group, labels, path, levels)
    total = sum(group.size for group in groups)
    notes = [f"{path}: {total} structures in {len(groups)} groups"]
    if n_partial and not drop_others:
        raise UserError(
            f"{path}: {n_partial} forces are NaN for some atoms only, which no key can say. Leave "
            "these forces out with --drop-others."
        )
    if n_partial:
        notes.append(f"not carried over: {n_partial} forces that are NaN for some atoms")
    if others:
        notes.append(f"not carried over: {', '.join(others)}")
    return notes


def _write_group(
    stream: TextIO, group: Group, labels: Mapping[str, str], path: Path, levels: Levels
) -> int:
    """Append the conformers of a group; the number of forces with holes, which are left out."""
    positions = read_array(group.member, "coordinates", path, group.shape).astype(np.float64)
    if not np.isfinite(positions).all():
        raise UserError(f"{path}, group {group.name}: NaN or infinite coordinates. Remove them.")
    energies, forces, stress, n_partial = {}, {}, {}, 0
    cells = read_cells(group, path)
    for key in sorted(labels.keys() & set(group.member)):
        is_forces = labels[key].startswith(FORCES)
        if labels[key].startswith(STRESS):
            stress[labels[key]] = read_stress(group, key, cells, path) * EV_PER_HARTREE
            continue
        values = read_array(group.member, key, path, group.shape if is_forces else group.shape[:1])
        refuse_infinite(values, key, path, group.name)
        values = values.astype(np.float64) * EV_PER_HARTREE
        if is_forces:
            forces[labels[key]] = values
            holes = np.isnan(values).reshape(len(values), -1)
            n_partial += int((holes.any(axis=1) & ~holes.all(axis=1)).sum())
        else:
            energies[labels[key]] = values
    for level in levels:
        if energy_key(level) not in energies and has_level(set(group.member), level):
            energies[energy_key(level)] = read_energies(group, level, path) * EV_PER_HARTREE
    systems = {
        key: np.broadcast_to(np.asarray(group.member[key][()], np.float64), group.shape[:1])
        for key in sorted(set(group.member) & set(KEPT))
    }
    names = {} if group.name == formula(group.numbers) else {GROUP: group.name}
    for row in range(group.size):
        columns = {"pos": positions[row]}
        columns |= {name: v[row] for name, v in forces.items() if np.isfinite(v[row]).all()}
        info = {name: v[row] for name, v in energies.items() if np.isfinite(v[row])}
        info |= {name: v[row] for name, v in systems.items() if np.isfinite(v[row])}
        info |= {name: v[row] for name, v in stress.items() if np.isfinite(v[row]).all()}
        cell = None if cells is None else cells[row]
        write_molecule(stream, group.numbers, columns, {**info, **names}, cell)
    return n_partial


def _list_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count} structures)" for name, count in sorted(counts.items()))
