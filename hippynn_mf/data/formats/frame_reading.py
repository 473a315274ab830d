"""Files that are read structure by structure, made one file in the ANI-1x layout in memory."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import h5py

from hippynn_mf.data.formats.ani1x_writer import write_ani1x
from hippynn_mf.data.formats.declared import Declared
from hippynn_mf.data.formats.extxyz_keys import PROVENANCE, forces_key
from hippynn_mf.data.formats.frame_formats import Telling, find_frame_format, known_formats
from hippynn_mf.data.formats.frames import Frame
from hippynn_mf.data.formats.label_names import Held
from hippynn_mf.data.formats.merging import merge_frames
from hippynn_mf.errors import UserError, errors_about
from hippynn_mf.keys import ENERGY
from hippynn_mf.levels import Level, Levels

# Atomic numbers, and energies by dataset of the ANI-1x layout.
TaggedAtoms = tuple[tuple[int, Mapping[str, float]], ...]


@dataclass(frozen=True)
class ReadFrames:
    """The content of files that are read structure by structure.

    Attributes:
        frames: the conformers. Structures that are in several files, or repeated in one, are one
            conformer with all labels.
        notes: what is to be said of them.
        others: names that are not used, with the number of structures that have them.
        isolated_atoms: as of `Content`.
        held: file → what it holds beside atoms and positions.
        absent: (file, name) of names that are declared for a file and not in it.
        energy_unit: of the files, `hartree` if they differ.
        remarks: what a user should hear of.
    """

    frames: list[Frame]
    notes: list[str]
    others: Counter[str]
    isolated_atoms: TaggedAtoms
    held: Mapping[Path, Mapping[str, Held]] = field(default_factory=dict)
    absent: Sequence[tuple[Path, str]] = ()
    energy_unit: str = "hartree"
    remarks: Sequence[str] = ()


def read_files(
    files: Sequence[tuple[Path, Level | None]], declared: Declared, levels: Levels
) -> ReadFrames:
    """Read files structure by structure, each with the level of its labels or (None) of many."""
    frames: list[list[Frame]] = []
    isolated: list[tuple[int, Mapping[str, float]]] = []
    notes: list[str] = []
    others: Counter[str] = Counter()
    held: dict[Path, Mapping[str, Held]] = {}
    absent: list[tuple[Path, str]] = []
    units: set[str] = set()
    remarks: list[str] = []
    for path, level in files:
        told: Telling = "names" if declared else "nothing" if level is None else "level"
        known = find_frame_format(path, told)
        if known is None:
            raise UserError(
                f"{path}: not {known_formats(frames_only=True)}, so it has no structures to read."
            )
        content = known.read(path, level, levels=levels, declared=declared)
        frames.append(content.frames)
        others.update(content.others)
        held[path] = content.held
        absent += [(path, name) for name in content.absent]
        default = content.energy_unit or known.energy_unit
        units.add(next((u for _, q, u in declared.units if q == ENERGY), default))
        note = f"{path}: {len(content.frames)} structures"
        if n_isolated := len(content.isolated_atoms):
            note += f"; {n_isolated} isolated atoms (IsolatedAtom) are left out of the structures"
        isolated += content.isolated_atoms
        if content.others:
            note += f"; not used: {', '.join(sorted(content.others))}"
        if said := sorted(name for name in content.held if name.startswith(PROVENANCE)):
            note += f"; where labels come from is not carried over: {', '.join(said)}"
        if content.absent:
            note += f"; declared, and not there: {', '.join(sorted(content.absent))}"
        notes.append(note)
        remarks += [f"{path}: {remark}" for remark in content.remarks]
    merged = merge_frames(frames)
    if len(files) > 1:
        notes.append(f"{merged.n_matched} conformers are in several files")
    if merged.n_repeated:
        notes.append(f"{merged.n_repeated} structures repeat others of their file, and are merged")
    unit = units.pop() if len(units) == 1 else "hartree"
    return ReadFrames(merged.frames, notes, others, tuple(isolated), held, absent, unit, remarks)


@dataclass(frozen=True)
class Converted:
    """Data in the ANI-1x layout, and the rest of what was read, see `ReadFrames`."""

    content: bytes
    notes: tuple[str, ...]
    isolated_atoms: TaggedAtoms
    held: Mapping[Path, Mapping[str, Held]]
    absent: tuple[tuple[Path, str], ...]
    energy_unit: str
    remarks: tuple[str, ...]


@lru_cache(maxsize=1)
def convert_in_memory(
    files: tuple[tuple[Path, Level | None], ...],
    stamps: object,
    levels: Levels,
    declared: Declared,
    shown: Path,
) -> Converted:
    """Convert the files; anew when their stamps, the levels or the declarations are others."""
    read = read_files(files, declared, levels)
    frames, notes = read.frames, read.notes
    for level in levels:
        if level.force_key is None and any(level.forces_name in frame.forces for frame in frames):
            notes.append(
                f"not used: {forces_key(level)}; level {level.label} is read without forces"
            )
    content = io.BytesIO()
    with h5py.File(content, "w") as file, errors_about(shown):
        write_ani1x(file, frames, levels=levels)
    return Converted(
        content.getvalue(),
        tuple(notes),
        read.isolated_atoms,
        read.held,
        tuple(read.absent),
        read.energy_unit,
        tuple(read.remarks),
    )
