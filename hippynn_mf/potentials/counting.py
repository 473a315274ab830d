"""How many structures a file holds by its own marks; ASE's readers may end early without a word."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ase.io import Trajectory
from ase.io.formats import filetype, open_with_compression, string2index

from hippynn_mf.data.formats.xyz_scan import count_structures
from hippynn_mf.files import reading


def expected_structures(path: Path, part: str | None) -> int | None:
    """Structures in a file, or in a part of it as `1:3`; None where the format does not tell.

    Raises UserError for extended XYZ whose counts and lines do not fit, and Exceptions of ASE's for
    a file whose format it does not know.
    """
    known = COUNTS.get(filetype(str(path)))
    if known is None:
        return None
    total = known(path)
    if part is None:
        return total
    index = string2index(part)
    if isinstance(index, slice):
        return len(range(*index.indices(total)))
    return 1 if isinstance(index, int) else None


def _xyz(path: Path) -> int:
    return count_structures(path, strict_end=False, least_atoms=0)


def _trajectory(path: Path) -> int:
    with Trajectory(path) as trajectory:
        return len(trajectory)


def _of_lines(count: Callable[[Iterable[str]], int]) -> Callable[[Path], int]:
    def of_file(path: Path) -> int:
        with reading(path), open_with_compression(str(path), "rt") as stream:
            return count(stream)

    return of_file


def _pdb(lines: Iterable[str]) -> int:
    """Models that end, and one more if atoms follow, which ASE leaves out."""
    ends, goes_on = 0, False
    for line in lines:
        if line.startswith("END"):
            ends, goes_on = ends + 1, False
        elif line.startswith(("ATOM", "HETATM")):
            goes_on = True
    return ends + goes_on or 1


def _sdf(lines: Iterable[str]) -> int:
    """Molecules, of which ASE reads the first."""
    return sum(line.startswith("$$$$") for line in lines) or 1


def _xdatcar(lines: Iterable[str]) -> int:
    return sum(line.lstrip().startswith("Direct configuration") for line in lines) or 1


COUNTS: Mapping[str, Callable[[Path], int]] = {
    "extxyz": _xyz,
    "xyz": _xyz,
    "traj": _trajectory,
    "proteindatabank": _of_lines(_pdb),
    "sdf": _of_lines(_sdf),
    "vasp-xdatcar": _of_lines(_xdatcar),
}
