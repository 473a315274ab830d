"""Where training data come from: one file, or one extended XYZ file for each level.

Extended XYZ becomes a file in the ANI-1x layout in memory, so that everything after reading is the
same for both.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import h5py

from hippynn_mf.data.formats.ani1x_writer import write_ani1x
from hippynn_mf.data.formats.extxyz import Frame, read_extxyz
from hippynn_mf.data.formats.extxyz_keys import forces_key
from hippynn_mf.data.formats.hdf5 import open_hdf5
from hippynn_mf.data.formats.xyz_file import SUFFIXES, is_xyz
from hippynn_mf.data.merging import merge_frames
from hippynn_mf.errors import UserError, errors_about
from hippynn_mf.levels import Level, get_level, known_levels

DataPath = Path | Mapping[str, Path]  # a file, or level → extended XYZ file


@contextmanager
def open_data(source: DataPath) -> Iterator[h5py.File]:
    """Open data for reading in the ANI-1x layout.

    Raises UserError for what cannot be read. Extended XYZ is read once and then kept, as long as
    the files do not change.
    """
    source = as_data_path(source)
    if is_extxyz(source):
        with h5py.File(io.BytesIO(_kept(source)[0]), "r") as file:
            yield file
    else:
        with open_hdf5(shown_path(source)) as file:
            yield file


def data_notes(source: DataPath) -> tuple[str, ...]:
    """What was noticed in reading extended XYZ: structures matched, names and structures unused."""
    source = as_data_path(source)
    return _kept(source)[1] if is_extxyz(source) else ()


def is_extxyz(source: DataPath) -> bool:
    """Whether the data are in extended XYZ."""
    return isinstance(source, Mapping) or is_xyz(Path(source))


def as_data_path(source: DataPath) -> Path | dict[str, Path]:
    """The source with ids for levels, ordered by rank; UserError as `by_rank`."""
    return by_rank(source) if isinstance(source, Mapping) else Path(source)


def by_rank(source: Mapping[str, Path]) -> dict[str, Path]:
    """Level id → file, ordered by rank; UserError for unknown levels and other formats."""
    levels = sorted(map(get_level, source), key=lambda level: level.rank)
    if len(set(levels)) < len(levels) or not levels:
        raise UserError(
            f"Every level has one file of its own; found {', '.join(source) or 'none'}."
        )
    files = {get_level(name).id: Path(path) for name, path in source.items()}
    for path in files.values():
        if not is_xyz(path):
            raise UserError(
                f"{path}: the file of a level is extended XYZ, {' or '.join(SUFFIXES)}. Name a "
                "file in the ANI-1x layout with --data."
            )
    return {level.id: files[level.id] for level in levels}


def absolute_paths(source: DataPath) -> Path | dict[str, Path]:
    """The source with absolute paths, for workers that start elsewhere."""
    source = as_data_path(source)
    if isinstance(source, Path):
        return source.absolute()
    return {level: path.absolute() for level, path in source.items()}


def parse_level_files(texts: Sequence[str]) -> dict[str, Path]:
    """Level id → file from texts as `DZ=a.xyz`; UserError for anything else."""
    files: dict[str, Path] = {}
    for text in texts:
        name, separator, path = text.partition("=")
        if not separator or not path:
            raise UserError(f"LEVEL=FILE was expected, as DZ=dz.xyz; found {text!r}.")
        level_id = get_level(name).id
        if level_id in files:
            raise UserError(f"Level {level_id} has two files, {files[level_id]} and {path}.")
        files[level_id] = Path(path)
    return by_rank(files)


def shown_path(source: DataPath) -> Path:
    """The source as a path for messages: that of its file, or LEVEL=FILE for every file."""
    source = as_data_path(source)
    if isinstance(source, Path):
        return source
    return Path(" ".join(f"{get_level(name).label}={path}" for name, path in source.items()))


def read_frames(source: DataPath) -> tuple[list[Frame], list[str], Counter[str]]:
    """The conformers of extended XYZ files, what is to be said of them, and unused names.

    Structures that are in several files, or repeated in one, are one conformer with all labels.
    """
    source = as_data_path(source)
    files: list[tuple[Path, Level | None]] = (
        [(source, None)]
        if isinstance(source, Path)
        else [(path, get_level(name)) for name, path in source.items()]
    )
    frames: list[list[Frame]] = []
    notes: list[str] = []
    others: Counter[str] = Counter()
    for path, level in files:
        content = read_extxyz(path, level)
        frames.append(content.frames)
        others.update(content.others)
        of_file = f"{path}: {len(content.frames)} structures"
        if content.n_isolated_atoms:
            of_file += f"; {content.n_isolated_atoms} isolated atoms (IsolatedAtom) are left out"
        if content.others:
            of_file += f"; not used: {', '.join(sorted(content.others))}"
        notes.append(of_file)
    merged = merge_frames(frames)
    if len(files) > 1:
        notes.append(f"{merged.n_matched} conformers are in several files")
    if merged.n_repeated:
        notes.append(f"{merged.n_repeated} structures repeat others of their file, and are merged")
    return merged.frames, notes, others


def _kept(source: Path | dict[str, Path]) -> tuple[bytes, tuple[str, ...]]:
    """The content of a file in the ANI-1x layout, and notes; those of the last source are kept."""
    files = {"": source} if isinstance(source, Path) else source
    stamps = []
    for path in files.values():
        if not path.is_file():
            raise UserError(
                f"No file {path}. Check the path; relative paths start at {Path.cwd()}."
            )
        status = path.stat()
        stamps.append((status.st_mtime_ns, status.st_size))
    return _convert_in_memory(tuple(files.items()), tuple(stamps), tuple(known_levels()))


@lru_cache(maxsize=1)
def _convert_in_memory(
    files: tuple[tuple[str, Path], ...], stamps: object, levels: object
) -> tuple[bytes, tuple[str, ...]]:
    """Convert the files; what they are when their stamps change, or levels are registered."""
    source: DataPath = dict(files) if files[0][0] else files[0][1]
    frames, notes, _ = read_frames(source)
    for level in known_levels():
        if level.force_key is None and any(level.forces_name in frame.forces for frame in frames):
            notes.append(
                f"not used: {forces_key(level)}; level {level.label} is read without forces"
            )
    content = io.BytesIO()
    with h5py.File(content, "w") as file, errors_about(shown_path(source)):
        write_ani1x(file, frames)
    return content.getvalue(), tuple(notes)
