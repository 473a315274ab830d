"""Files of other formats that ASE reads: trajectories, databases, outputs of programs.

Labels are the results of calculators, `energy` and `forces`, and what stands in `info`, `arrays`,
and in the key-value pairs and data of a database. ASE converts every format to eV and Å.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from ase import Atoms
from ase.io import iread
from ase.io.formats import UnknownFileTypeError, filetype, ioformats

from hippynn_mf.data.formats.ase_databases import DATABASES, database_images
from hippynn_mf.data.formats.declared import NOTHING_DECLARED, Declared, Told
from hippynn_mf.data.formats.extxyz import content_of_atoms
from hippynn_mf.data.formats.frames import Content
from hippynn_mf.data.formats.hdf5 import SUFFIXES as HDF5_SUFFIXES
from hippynn_mf.data.formats.hdf5 import is_hdf5
from hippynn_mf.data.formats.xyz_file import progress_bar, refuse_structure
from hippynn_mf.data.formats.xyz_frames import FileStructure
from hippynn_mf.errors import UserError, comes_from, one_line
from hippynn_mf.files import reading, require_file
from hippynn_mf.levels import KNOWN_LEVELS, Level, Levels

# What ASE reads by running it, by opening further files, or with packages of its own; and what is
# read elsewhere.
NOT_READ = {
    *("py", "bundletrajectory", "gpw", "mysql", "postgresql", "netcdftrajectory", "nomad-json"),
    *("extxyz", "xyz", "html", "png", "gif", "mp4", "pov", "eps"),
}


def find_ase_format(path: Path) -> str | None:
    """ASE's name of the format of a file; None if ASE does not know it, or it is not read."""
    suffix = path.suffix.lower()
    if suffix in DATABASES:
        return DATABASES[suffix]
    if not path.is_file():
        return "traj" if suffix == ".traj" else None
    if suffix in HDF5_SUFFIXES or is_hdf5(path):
        return None
    status = path.stat()
    return _format_of(path, (status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=64)
def _format_of(path: Path, stamp: object) -> str | None:
    try:
        name = str(filetype(str(path)))
    except (UnknownFileTypeError, OSError, ValueError, IndexError, UnicodeError):
        return None
    known = ioformats.get(name)
    return name if known is not None and known.can_read and name not in NOT_READ else None


def describe_ase_format(path: Path) -> str:
    """The format of a file in words."""
    name = find_ase_format(path) or "of a format"
    known = ioformats.get(name)
    return f"{known.description} ({name}), which ASE reads" if known else f"a file {name} of ASE"


def read_ase_file(
    path: Path,
    level: Level | None = None,
    *,
    levels: Levels = KNOWN_LEVELS,
    declared: Declared = NOTHING_DECLARED,
) -> Content:
    """Read all structures of a file, as `read_extxyz` does with their names.

    Raises UserError for what ASE cannot read, for a database whose package is not installed, and
    as `read_extxyz`.
    """
    told = Told(level, levels, declared)
    name = find_ase_format(path)
    if name is None:
        raise UserError(f"{path}: ASE does not know this format.")
    require_file(path, "a file of structures")
    read = map(FileStructure.of, _sound(path, _images(path, name)))
    return content_of_atoms(path, describe_ase_format(path), read, told)


def _sound(path: Path, structures: Iterator[Atoms]) -> Iterator[Atoms]:
    """The structures, with whatever ASE raises made a UserError."""
    number = 0
    with progress_bar(path) as progress, reading(path):
        while True:
            try:
                atoms = next(structures, None)
            except Exception as error:  # ASE has no class for what a wrong file raises
                if not comes_from(error, "ase"):
                    raise
                raise UserError(
                    f"{path}, structure {number + 1}: ASE cannot read it ({type(error).__name__}: "
                    f"{one_line(error)}). It may be truncated; copy it again."
                ) from None
            if atoms is None:
                break
            number += 1
            refuse_structure(atoms, f"{path}, structure {number}")
            yield atoms
            progress.update()
    if not number:
        raise UserError(f"{path} is empty: it holds no structure.")


def _images(path: Path, name: str) -> Iterator[Atoms]:
    if name in (*DATABASES.values(), "json"):
        return database_images(path, name)
    images: Iterator[Atoms] = iread(str(path), index=":", format=name, do_not_split_by_at_sign=True)
    return images
