"""The formats that are read structure by structure: a further one is an entry of the table here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from hippynn_mf.data.formats.ase_files import describe_ase_format, find_ase_format, read_ase_file
from hippynn_mf.data.formats.declared import Declared
from hippynn_mf.data.formats.deepmd import is_deepmd, read_deepmd
from hippynn_mf.data.formats.extxyz import read_extxyz
from hippynn_mf.data.formats.frames import Content
from hippynn_mf.data.formats.grouped_hdf5 import (
    ANI1X,
    COMP6,
    PYANITOOLS,
    find_hdf5_layout,
    read_grouped_hdf5,
)
from hippynn_mf.data.formats.hdf5 import SUFFIXES as HDF5_SUFFIXES
from hippynn_mf.data.formats.matpes import SUFFIXES as MATPES_SUFFIXES
from hippynn_mf.data.formats.matpes import is_matpes, read_matpes
from hippynn_mf.data.formats.npz import SUFFIX as NPZ_SUFFIX
from hippynn_mf.data.formats.npz import read_npz
from hippynn_mf.data.formats.xyz_file import PLAIN as XYZ_SUFFIXES
from hippynn_mf.data.formats.xyz_file import is_xyz
from hippynn_mf.levels import Level, Levels

# What is said of the labels of a file: the level of all of them, or names in it.
Telling = Literal["nothing", "level", "names"]


class FrameReader(Protocol):
    """Reads the files of a format, see `read_extxyz`."""

    def __call__(
        self, path: Path, level: Level | None, *, levels: Levels, declared: Declared
    ) -> Content:
        """With the labels of `level`, or (None) with labels that name their `levels`."""


@dataclass(frozen=True)
class FrameFormat:
    """A format that is read structure by structure.

    Attributes:
        name: for messages.
        suffixes: of its files, in lower case.
        read: its reader.
        energy_unit: of its files, a name of `checks.units.ENERGIES`; forces are in it per Å. What
            is read is in hartree; checks name the unit that a file has instead of this one.
        is_of: whether a path is of the format; (None) where the suffix alone tells it. The second
            argument says what is told of its labels beside the file.
    """

    name: str
    suffixes: tuple[str, ...]
    read: FrameReader
    energy_unit: str
    is_of: Callable[[Path, Telling], bool] | None = None


def _is_grouped(path: Path, telling: Telling) -> bool:
    """Whether a file is HDF5 with groups of molecules, of which enough is told to read it so."""
    layout = find_hdf5_layout(path)
    if layout is None or telling == "names":
        return layout is not None
    return layout not in (ANI1X, *(() if telling == "level" else (COMP6, PYANITOOLS)))


FRAME_FORMATS = (
    FrameFormat("extended XYZ", XYZ_SUFFIXES, read_extxyz, "eV", lambda path, _: is_xyz(path)),
    FrameFormat("numpy arrays", (NPZ_SUFFIX,), read_npz, "kcal/mol"),
    FrameFormat("folders of DeePMD-kit", (), read_deepmd, "eV", lambda path, _: is_deepmd(path)),
    FrameFormat(
        "HDF5 in the layouts of SPICE, Transition1x, COMP6 and pyanitools",
        HDF5_SUFFIXES,
        read_grouped_hdf5,
        "hartree",
        _is_grouped,
    ),
    FrameFormat(
        "JSON of pymatgen structures, as MatPES",
        MATPES_SUFFIXES,
        read_matpes,
        "eV",
        lambda path, _: is_matpes(path),
    ),
    FrameFormat(
        "what else ASE reads, as trajectories and databases",
        (".traj", ".db"),
        read_ase_file,
        "eV",
        lambda path, _: find_ase_format(path) is not None,
    ),
)


def find_frame_format(path: Path, telling: Telling = "nothing") -> FrameFormat | None:
    """The format of a file or folder that is read structure by structure, None if it is none.

    HDF5 whose labels name no level is one where it is told which levels they are of; in the ANI-1x
    layout, where names are declared.
    """
    suffix = path.suffix.lower()
    for known in FRAME_FORMATS:
        if known.is_of(path, telling) if known.is_of is not None else suffix in known.suffixes:
            return known
    return None


def known_formats(*, frames_only: bool = False) -> str:
    """The formats of training data with their suffixes, for messages."""
    named = [
        f"{known.name} ({' or '.join(known.suffixes)})" if known.suffixes else known.name
        for known in FRAME_FORMATS
    ]
    if not frames_only:
        named.append(f"the ANI-1x layout in HDF5 ({' or '.join(HDF5_SUFFIXES)})")
    return ", ".join(named)


def describe_format(path: Path, telling: Telling) -> str:
    """The format of a file or folder in words."""
    layout = find_hdf5_layout(path)
    if layout is not None:
        return layout.name
    known = find_frame_format(path, telling)
    if known is None:
        return "HDF5"
    return describe_ase_format(path) if known.read is read_ase_file else known.name
