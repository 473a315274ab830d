"""Where training data come from: one file, or a file for each level.

Extended XYZ, as every format that is read structure by structure, becomes a file in the ANI-1x
layout in memory, so that everything after reading is the same for all.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import h5py

from hippynn_mf.data.formats.declared import Declared, DeclaredData, KeyTable, UnitTable
from hippynn_mf.data.formats.deepmd import files_of
from hippynn_mf.data.formats.frame_formats import (
    Telling,
    describe_format,
    find_frame_format,
    known_formats,
)
from hippynn_mf.data.formats.frame_reading import (
    Converted,
    ReadFrames,
    TaggedAtoms,
    convert_in_memory,
    read_files,
)
from hippynn_mf.data.formats.grouped_hdf5 import COMP6, PYANITOOLS, find_hdf5_layout, held_of
from hippynn_mf.data.formats.hdf5 import SUFFIXES as HDF5_SUFFIXES
from hippynn_mf.data.formats.hdf5 import open_hdf5
from hippynn_mf.data.formats.label_names import Held, key_option, list_held
from hippynn_mf.errors import UserError, unknown_name_message
from hippynn_mf.levels import KNOWN_LEVELS, Level, Levels

# A file or folder, or level → file, or either with what is declared of it. Levels are named by id
# or label.
DataPath = Path | Mapping[str, Path] | DeclaredData


@contextmanager
def open_data(source: DataPath, *, levels: Levels = KNOWN_LEVELS) -> Iterator[h5py.File]:
    """Open data for reading in the ANI-1x layout; other formats may name these levels.

    Raises UserError for what cannot be read. What is read structure by structure is read once and
    then kept, as long as the files do not change.
    """
    if has_frames(source):
        with h5py.File(io.BytesIO(_kept(source, levels).content), "r") as file:
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
            f"{known_formats()}."
        )


def split_source(source: DataPath) -> tuple[Path | Mapping[str, Path], Declared]:
    """The files of data, and what is declared of them."""
    if isinstance(source, DeclaredData):
        return source.files, source.declared
    return (source if isinstance(source, Mapping) else Path(source)), Declared()


def data_notes(source: DataPath, *, levels: Levels = KNOWN_LEVELS) -> tuple[str, ...]:
    """What was noticed in reading extended XYZ: structures matched, names and structures unused."""
    return _kept(source, levels).notes if has_frames(source) else ()


def data_remarks(source: DataPath, *, levels: Levels = KNOWN_LEVELS) -> tuple[str, ...]:
    """What was noticed in reading that a user should hear of: what no model knows, as moments."""
    return _kept(source, levels).remarks if has_frames(source) else ()


def with_declared(
    source: DataPath, keys: KeyTable | None = None, units: UnitTable | None = None
) -> DataPath:
    """Data with what is declared of them; themselves if that is nothing."""
    declared = Declared.of(keys, units)
    return DeclaredData(split_source(source)[0], declared) if declared else source


def _telling(source: DataPath) -> Telling:
    """What is told of the labels of data beside the files."""
    files, declared = split_source(source)
    if declared:
        return "names"
    return "level" if isinstance(files, Mapping) else "nothing"


def has_frames(source: DataPath) -> bool:
    """Whether the data are read structure by structure, as extended XYZ."""
    files, _ = split_source(source)
    return isinstance(files, Mapping) or find_frame_format(files, _telling(source)) is not None


def is_comp6_folder(source: DataPath) -> bool:
    """Whether a source is a folder of files in the COMP6 layout, and none of another format."""
    return isinstance(source, Path) and source.is_dir() and not has_frames(source)


def refuse_untold(source: DataPath) -> None:
    """Raise UserError for HDF5 whose labels name no level, where nobody has told it."""
    if is_comp6_folder(source):
        raise UserError(
            f"{source} is a folder; training data in the COMP6 layout are read file by file, as "
            "LEVEL=FILE with --train. To test on the folder, take --comp6."
        )
    if isinstance(source, Path) and (layout := find_hdf5_layout(source)) in (COMP6, PYANITOOLS):
        keys = " ".join(key_option(f"LEVEL.{spelt}", name) for name, spelt in layout.usual)
        raise UserError(
            f"{source} is {layout.name}, whose labels name no level. {list_held(held_of(source))} "
            f"To train on it, name their level, as LEVEL={source} with --train, or with {keys}. To "
            "test on it, take --comp6."
        )


def format_name(source: DataPath) -> str:
    """The format of data in words, for people."""
    files, _ = split_source(source)
    paths = list(files.values()) if isinstance(files, Mapping) else [files]
    names = [describe_format(path, _telling(source)) for path in paths]
    return "; ".join(dict.fromkeys(names))


def energy_unit(source: DataPath, *, levels: Levels = KNOWN_LEVELS) -> str:
    """The unit that energies of these files are to be in; forces are in it per Å."""
    if not has_frames(source):
        return "hartree"
    return _kept(source, levels).energy_unit


def as_data_path(source: DataPath, *, levels: Levels = KNOWN_LEVELS) -> Path | dict[str, Path]:
    """The files with ids for levels, ordered by rank; UserError as `by_rank`."""
    files, _ = split_source(source)
    if not isinstance(files, Mapping):
        return files
    return by_rank(files, levels=levels, telling=_telling(source))


def by_rank(
    source: Mapping[str, Path], *, levels: Levels = KNOWN_LEVELS, telling: Telling = "level"
) -> dict[str, Path]:
    """Level id → file, ordered by rank; UserError for unknown levels and other formats."""
    named = sorted(map(levels.get, source), key=lambda level: level.rank)
    if len(set(named)) < len(named) or not named:
        raise UserError(
            f"Every level has one file of its own; found {', '.join(source) or 'none'}."
        )
    files = {levels.get(name).id: Path(path) for name, path in source.items()}
    for path in files.values():
        if find_frame_format(path, telling) is None and path.exists():
            raise UserError(
                f"{path}: the file of a level is {known_formats(frames_only=True)}. Name a file "
                "in the ANI-1x layout with --data, or say which of its names are labels, with "
                "--key LEVEL.energy=NAME."
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
    files, _ = split_source(source)
    if not isinstance(files, Mapping):
        return Path(files)
    labels = {name: level.label if (level := levels.find(name)) else name for name in files}
    return Path(" ".join(f"{labels[name]}={path}" for name, path in files.items()))


def read_frames(source: DataPath, *, levels: Levels = KNOWN_LEVELS) -> ReadFrames:
    """Read files structure by structure."""
    return read_files(_files(source, levels), split_source(source)[1], levels)


def _files(source: DataPath, levels: Levels) -> tuple[tuple[Path, Level | None], ...]:
    """Every file with the level of its labels, or (None) of a file with labels of many."""
    paths = as_data_path(source, levels=levels)
    if isinstance(paths, Path):
        return ((paths, None),)
    return tuple((path, levels.get(name)) for name, path in paths.items())


def tagged_atoms(source: DataPath, *, levels: Levels = KNOWN_LEVELS) -> TaggedAtoms:
    """The isolated atoms that extended XYZ names so; none of another format."""
    return _kept(source, levels).isolated_atoms if has_frames(source) else ()


def held_names(
    source: DataPath, *, levels: Levels = KNOWN_LEVELS
) -> Mapping[Path, Mapping[str, Held]]:
    """File → what it holds beside atoms and positions; of data read structure by structure."""
    return _kept(source, levels).held if has_frames(source) else {}


def refuse_absent_keys(source: DataPath, *, levels: Levels = KNOWN_LEVELS) -> None:
    """Raise UserError for a declared name that its file does not have, or that has no file."""
    files, declared = split_source(source)
    if not declared.keys:
        return
    if isinstance(files, Mapping):
        with_file = {levels.get(name) for name in files}
        for name, spelt, key in declared.keys:
            if levels.get(name) not in with_file:
                raise UserError(
                    f"The key {name}.{spelt}={key} is declared, and {name} has no file among "
                    f"{shown_path(source, levels=levels)}. Leave it out, or name the file."
                )
    read = _kept(source, levels)
    for path, name in read.absent:
        held = read.held[path]
        raise UserError(
            f"{path}: {unknown_name_message('key', name, held)} {list_held(held)} Keys are "
            "declared with --key, as the file spells them."
        )


def _kept(source: DataPath, levels: Levels) -> Converted:
    """What a source is in memory; that of the last one is kept."""
    files = _files(source, levels)
    stamps = []
    for path, _ in files:
        members = files_of(path) if path.is_dir() else [path]
        if not members or not all(member.is_file() for member in members):
            raise UserError(
                f"No file {path}. Check the path; relative paths start at {Path.cwd()}."
            )
        for member in members:
            status = member.stat()
            stamps.append((status.st_mtime_ns, status.st_size))
    declared, shown = split_source(source)[1], shown_path(source, levels=levels)
    return convert_in_memory(files, tuple(stamps), levels, declared, shown)
