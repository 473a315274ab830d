"""Where training data come from: one file, or one extended XYZ file for each level.

Extended XYZ, as every format of structures one after another, becomes a file in the ANI-1x layout
in memory, so that everything after reading is the same for both.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import h5py

from hippynn_mf.data.formats.ani1x_writer import write_ani1x
from hippynn_mf.data.formats.extxyz import read_extxyz
from hippynn_mf.data.formats.extxyz_keys import forces_key
from hippynn_mf.data.formats.frames import Content, Frame
from hippynn_mf.data.formats.hdf5 import SUFFIXES as HDF5_SUFFIXES
from hippynn_mf.data.formats.hdf5 import open_hdf5
from hippynn_mf.data.formats.merging import merge_frames
from hippynn_mf.data.formats.xyz_file import SUFFIXES as XYZ_SUFFIXES
from hippynn_mf.errors import UserError, errors_about
from hippynn_mf.levels import KNOWN_LEVELS, Level, Levels

# A file, or level → extended XYZ file. Levels are named by id or label.
DataPath = Path | Mapping[str, Path]
# Atomic numbers, and energies by dataset of the ANI-1x layout.
TaggedAtoms = tuple[tuple[int, Mapping[str, float]], ...]
# A file in the ANI-1x layout, notes, and isolated atoms.
_Converted = tuple[bytes, tuple[str, ...], TaggedAtoms]


class FrameReader(Protocol):
    """Reads the files of a format, see `read_extxyz`."""

    def __call__(self, path: Path, level: Level | None, *, levels: Levels) -> Content:
        """With the labels of `level`, or (None) with labels that name their `levels`."""


@dataclass(frozen=True)
class FrameFormat:
    """A format of structures one after another.

    Attributes:
        name: for messages.
        suffixes: of its files, in lower case; they alone tell the format.
        read: its reader.
        energy_unit: of its files, a name of `checks.units.ENERGIES`; forces are in it per Å. What
            is read is in hartree; checks name the unit that a file has instead of this one.
    """

    name: str
    suffixes: tuple[str, ...]
    read: FrameReader
    energy_unit: str


FRAME_FORMATS = (FrameFormat("extended XYZ", XYZ_SUFFIXES, read_extxyz, "eV"),)


@contextmanager
def open_data(source: DataPath, *, levels: Levels = KNOWN_LEVELS) -> Iterator[h5py.File]:
    """Open data for reading in the ANI-1x layout; extended XYZ may name these levels.

    Raises UserError for what cannot be read. Extended XYZ is read once and then kept, as long as
    the files do not change.
    """
    source = as_data_path(source, levels=levels)
    if has_frames(source):
        with h5py.File(io.BytesIO(_kept(source, levels)[0]), "r") as file:
            yield file
    else:
        _refuse_other_suffix(shown_path(source))
        with open_hdf5(shown_path(source)) as file:
            yield file


def _refuse_other_suffix(path: Path) -> None:
    """Raise UserError for a file whose name and first bytes are not those of HDF5."""
    if path.is_file() and path.suffix.lower() not in HDF5_SUFFIXES and not h5py.is_hdf5(path):
        raise UserError(
            f"{path}: neither its name nor its content tells the format. Known are "
            f"{known_formats()}, not compressed."
        )


def find_frame_format(path: Path) -> FrameFormat | None:
    """The format that a file's name says, None if it is none of structures one after another."""
    suffix = path.suffix.lower()
    return next((known for known in FRAME_FORMATS if suffix in known.suffixes), None)


def known_formats(*, frames_only: bool = False) -> str:
    """The formats of training data with their suffixes, for messages."""
    named = [f"{known.name} ({' or '.join(known.suffixes)})" for known in FRAME_FORMATS]
    if not frames_only:
        named.append(f"the ANI-1x layout in HDF5 ({' or '.join(HDF5_SUFFIXES)})")
    return ", ".join(named)


def data_notes(source: DataPath, *, levels: Levels = KNOWN_LEVELS) -> tuple[str, ...]:
    """What was noticed in reading extended XYZ: structures matched, names and structures unused."""
    source = as_data_path(source, levels=levels)
    return _kept(source, levels)[1] if has_frames(source) else ()


def has_frames(source: DataPath) -> bool:
    """Whether the data are structures one after another, as extended XYZ."""
    return isinstance(source, Mapping) or find_frame_format(Path(source)) is not None


def energy_unit(source: DataPath) -> str:
    """The unit that energies of these files are to be in; forces are in it per Å."""
    paths = source.values() if isinstance(source, Mapping) else [Path(source)]
    formats = [find_frame_format(Path(path)) for path in paths]
    units = {"hartree" if known is None else known.energy_unit for known in formats}
    return units.pop() if len(units) == 1 else "hartree"


def as_data_path(source: DataPath, *, levels: Levels = KNOWN_LEVELS) -> Path | dict[str, Path]:
    """The source with ids for levels, ordered by rank; UserError as `by_rank`."""
    return by_rank(source, levels=levels) if isinstance(source, Mapping) else Path(source)


def by_rank(source: Mapping[str, Path], *, levels: Levels = KNOWN_LEVELS) -> dict[str, Path]:
    """Level id → file, ordered by rank; UserError for unknown levels and other formats."""
    named = sorted(map(levels.get, source), key=lambda level: level.rank)
    if len(set(named)) < len(named) or not named:
        raise UserError(
            f"Every level has one file of its own; found {', '.join(source) or 'none'}."
        )
    files = {levels.get(name).id: Path(path) for name, path in source.items()}
    for path in files.values():
        if find_frame_format(path) is None:
            raise UserError(
                f"{path}: the file of a level is {known_formats(frames_only=True)}. Name a file "
                "in the ANI-1x layout with --data."
            )
    return {level.id: files[level.id] for level in named}


def absolute_paths(source: DataPath, *, levels: Levels = KNOWN_LEVELS) -> Path | dict[str, Path]:
    """The source with absolute paths, for workers that start elsewhere."""
    source = as_data_path(source, levels=levels)
    if isinstance(source, Path):
        return source.absolute()
    return {level: path.absolute() for level, path in source.items()}


def shown_path(source: DataPath, *, levels: Levels = KNOWN_LEVELS) -> Path:
    """The source as a path for messages: that of its file, or LEVEL=FILE for every file.

    Among `levels`, a level is named by its label.
    """
    if not isinstance(source, Mapping):
        return Path(source)
    labels = {name: level.label if (level := levels.find(name)) else name for name in source}
    return Path(" ".join(f"{labels[name]}={path}" for name, path in source.items()))


@dataclass(frozen=True)
class ReadFrames:
    """The content of extended XYZ files.

    Attributes:
        frames: the conformers. Structures that are in several files, or repeated in one, are one
            conformer with all labels.
        notes: what is to be said of them.
        others: names that are not used, with the number of structures that have them.
        isolated_atoms: as of `Content`.
    """

    frames: list[Frame]
    notes: list[str]
    others: Counter[str]
    isolated_atoms: TaggedAtoms


def read_frames(source: DataPath, *, levels: Levels = KNOWN_LEVELS) -> ReadFrames:
    """Read extended XYZ files."""
    source = as_data_path(source, levels=levels)
    files: list[tuple[Path, Level | None]] = (
        [(source, None)]
        if isinstance(source, Path)
        else [(path, levels.get(name)) for name, path in source.items()]
    )
    frames: list[list[Frame]] = []
    isolated: list[tuple[int, Mapping[str, float]]] = []
    notes: list[str] = []
    others: Counter[str] = Counter()
    for path, level in files:
        known = find_frame_format(path)
        if known is None:
            raise UserError(
                f"{path}: not {known_formats(frames_only=True)}, so it has no structures to read."
            )
        content = known.read(path, level, levels=levels)
        frames.append(content.frames)
        others.update(content.others)
        note = f"{path}: {len(content.frames)} structures"
        if n_isolated := len(content.isolated_atoms):
            note += f"; {n_isolated} isolated atoms (IsolatedAtom) are left out of the structures"
        isolated += content.isolated_atoms
        if content.others:
            note += f"; not used: {', '.join(sorted(content.others))}"
        notes.append(note)
    merged = merge_frames(frames)
    if len(files) > 1:
        notes.append(f"{merged.n_matched} conformers are in several files")
    if merged.n_repeated:
        notes.append(f"{merged.n_repeated} structures repeat others of their file, and are merged")
    return ReadFrames(merged.frames, notes, others, tuple(isolated))


def tagged_atoms(source: DataPath, *, levels: Levels = KNOWN_LEVELS) -> TaggedAtoms:
    """The isolated atoms that extended XYZ names so; none of another format."""
    source = as_data_path(source, levels=levels)
    return _kept(source, levels)[2] if has_frames(source) else ()


def _kept(source: Path | dict[str, Path], levels: Levels) -> _Converted:
    """What a source is in memory; that of the last one is kept."""
    files = {"": source} if isinstance(source, Path) else source
    stamps = []
    for path in files.values():
        if not path.is_file():
            raise UserError(
                f"No file {path}. Check the path; relative paths start at {Path.cwd()}."
            )
        status = path.stat()
        stamps.append((status.st_mtime_ns, status.st_size))
    return _convert_in_memory(tuple(files.items()), tuple(stamps), levels)


@lru_cache(maxsize=1)
def _convert_in_memory(
    files: tuple[tuple[str, Path], ...], stamps: object, levels: Levels
) -> _Converted:
    """Convert the files; anew when their stamps or the levels are others."""
    source: DataPath = dict(files) if files[0][0] else files[0][1]
    read = read_frames(source, levels=levels)
    frames, notes = read.frames, read.notes
    for level in levels:
        if level.force_key is None and any(level.forces_name in frame.forces for frame in frames):
            notes.append(
                f"not used: {forces_key(level)}; level {level.label} is read without forces"
            )
    content = io.BytesIO()
    with h5py.File(content, "w") as file, errors_about(shown_path(source, levels=levels)):
        write_ani1x(file, frames, levels=levels)
    return content.getvalue(), tuple(notes), read.isolated_atoms
