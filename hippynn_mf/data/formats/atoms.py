"""Reading what belongs to atoms, coordinates and forces, straight into the arrays where it stays.

A reader first decides from the energies which conformers it needs, and then reads the groups that
have any, in blocks of rows. Rows are chosen in memory: a mask inside h5py is far slower. So memory
grows with the conformers that are kept, by one copy of each array and one block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from tqdm import tqdm

from hippynn_mf.cells import (
    is_crystal,
    is_periodic_along,
    periodic_cell,
    stress_tensor,
)
from hippynn_mf.data.formats.hdf5 import (
    read_array,
    refuse_beyond_float32,
    refuse_infinite,
    require_array,
)
from hippynn_mf.data.structures import Structures
from hippynn_mf.errors import UserError
from hippynn_mf.keys import CELL
from hippynn_mf.levels import Level

BLOCK_BYTES = 2**24


@dataclass(frozen=True)
class Group:
    """A group of an open file: `size` conformers of atoms `numbers` (n_atoms,), from `start` on.

    Conformers are counted through the whole file, group after group.
    """

    name: str
    member: h5py.Group
    numbers: np.ndarray
    start: int
    size: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of its coordinates and forces."""
        return self.size, len(self.numbers), 3


def group_progress(path: Path, what: str, groups: Iterable[Group]) -> tqdm[Any]:
    """A bar that counts the conformers of groups; seen after two seconds, on a terminal."""
    return tqdm(
        total=sum(group.size for group in groups),
        desc=f"{path.name}: {what}",
        unit="conformer",
        unit_scale=True,
        delay=2,
        disable=None,
    )


@dataclass(frozen=True)
class Part:
    """Conformers to read: ascending `rows` (n,) of the file, their energies, whose other labels."""

    rows: np.ndarray
    energies: Mapping[str, np.ndarray]
    force_levels: Sequence[Level]
    stress_levels: Sequence[Level] = ()


@dataclass(frozen=True)
class Coordinates:
    """Coordinates of some conformers of a group, read once for all that look at them.

    Attributes:
        rows: (n,) ascending indices into the group.
        positions: (n, n_atoms, 3) in Å, in the type of the file; damaged ones are not finite.
    """

    rows: np.ndarray
    positions: np.ndarray


def read_coordinates(group: Group, rows: np.ndarray, path: Path) -> Coordinates:
    """The coordinates of conformers of a group, by ascending indices (n,).

    Raises UserError for a key or shape that cannot be right, and for what float32 does not hold.
    """
    found = []
    for start, values in read_blocks(group, "coordinates", path):
        refuse_beyond_float32(values, f"{path}, group {group.name}: coordinates")
        first, last = np.searchsorted(rows, (start, start + len(values)))
        whole = last - first == len(values)
        found.append(values if whole else values[rows[first:last] - start])
    return Coordinates(rows, found[0] if len(found) == 1 else np.concatenate(found))


def read_parts(
    path: Path,
    groups: Sequence[Group],
    parts: Mapping[str, Part],
    *,
    drop_damaged: bool = False,
    coordinates: MutableMapping[int, Coordinates] | None = None,
) -> dict[str, Structures]:
    """The structures of each part, padded to the largest molecule of all parts.

    With `drop_damaged`, infinite forces are missing and conformers without finite coordinates are
    left out; otherwise both are a UserError, as is a key or shape that cannot be right. What was
    read of groups before, by their number, is taken from `coordinates`, group by group, so that
    memory does not hold it twice; it has all conformers of the parts.
    """
    starts = np.array([group.start for group in groups])
    numbers_of_parts = {
        name: np.searchsorted(starts, part.rows, side="right") - 1 for name, part in parts.items()
    }
    used = np.unique(np.concatenate(list(numbers_of_parts.values())))
    width = max((len(groups[number].numbers) for number in used), default=0)
    is_periodic = any(CELL in groups[number].member for number in used)
    read = {
        name: Structures(
            species=np.zeros((len(part.rows), width), np.uint8),
            positions=np.zeros((len(part.rows), width, 3), np.float32),
            energies=part.energies,
            forces={
                level.id: np.zeros((len(part.rows), width, 3), np.float32)
                for level in part.force_levels
            },
            stress={
                level.id: np.full((len(part.rows), 3, 3), np.nan) for level in part.stress_levels
            },
            cells=np.zeros((len(part.rows), 3, 3)) if is_periodic else None,
            groups=numbers_of_parts[name],
            rows=part.rows,
            group_names=tuple(group.name for group in groups),
        )
        for name, part in parts.items()
    }
    with group_progress(path, "atoms", [groups[number] for number in used]) as progress:
        for number in used:
            known = None if coordinates is None else coordinates.pop(int(number), None)
            _read_group(path, groups[number], parts, read, drop_damaged, known)
            progress.update(groups[number].size)
    if drop_damaged:
        for name, structures in read.items():
            whole = np.isfinite(structures.positions).all(axis=(1, 2))
            read[name] = structures[whole]
    return read


def _read_group(
    path: Path,
    group: Group,
    parts: Mapping[str, Part],
    read: Mapping[str, Structures],
    drop_damaged: bool,
    known: Coordinates | None,
) -> None:
    """Fill the rows of one group in the structures of every part."""
    ends = (group.start, group.start + group.size)
    bounds = {name: np.searchsorted(part.rows, ends) for name, part in parts.items()}
    for name, (first, last) in bounds.items():
        read[name].species[first:last, : len(group.numbers)] = group.numbers

    damaged = np.zeros(group.size, bool)
    for indices, values in _coordinates(group, path, known, drop_damaged):
        finite = np.isfinite(values)
        is_whole = finite.all()
        for name, part in parts.items():
            wanted = part.rows[slice(*bounds[name])] - group.start
            first, last = np.searchsorted(wanted, (indices[0], indices[-1] + 1))
            chosen = np.searchsorted(indices, wanted[first:last])
            rows = slice(bounds[name][0] + first, bounds[name][0] + last)
            read[name].positions[rows, : values.shape[1]] = values[chosen]
            if not is_whole:
                damaged[wanted[first:last]] = ~finite[chosen].all(axis=(1, 2))
    if damaged.any() and not drop_damaged:
        raise UserError(
            f"{path}, group {group.name}: NaN or infinite coordinates in {int(damaged.sum())} "
            "conformers. Remove them."
        )

    cells = read_cells(group, path)
    for name, part in parts.items():
        rows, chosen = _chosen(part.rows, bounds[name], group.start, group.size)
        of_part = read[name]
        if cells is not None and of_part.cells is not None:
            of_part.cells[rows] = cells[chosen]
        for level in part.stress_levels:
            of_part.stress[level.id][rows] = read_stress(group, level.stress_name, cells, path)[
                chosen
            ]

    for level in dict.fromkeys(level for part in parts.values() for level in part.force_levels):
        wanting = {
            name: part
            for name, part in parts.items()
            if level in part.force_levels and np.ptp(bounds[name])
        }
        if not wanting:
            continue
        for start, values in read_forces(group, level, path, drop_damaged):
            for name, part in wanting.items():
                rows, chosen = _chosen(part.rows, bounds[name], group.start + start, len(values))
                read[name].forces[level.id][rows, : values.shape[1]] = values[chosen]


def _coordinates(
    group: Group, path: Path, known: Coordinates | None, drop_damaged: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Coordinates (n, n_atoms, 3) of a group with their indices (n,) in it, block by block."""
    if known is not None:
        if len(known.rows):
            yield known.rows, known.positions
        return
    for start, values in read_blocks(group, "coordinates", path):
        if not drop_damaged:
            refuse_beyond_float32(values, f"{path}, group {group.name}: coordinates")
        yield np.arange(start, start + len(values)), values


def _chosen(
    rows: np.ndarray, bounds: np.ndarray, start: int, size: int
) -> tuple[slice, np.ndarray]:
    """Which rows of a part lie in a block of the file, and where in the block they are."""
    first, last = bounds[0] + np.searchsorted(rows[slice(*bounds)], (start, start + size))
    return slice(first, last), rows[first:last] - start


def read_forces(
    group: Group, level: Level, path: Path, drop_damaged: bool
) -> Iterator[tuple[int, np.ndarray]]:
    """Blocks of a level's forces, float32, as `read_blocks`; with a hole they are NaN throughout.

    Raises UserError for infinite values unless `drop_damaged`.
    """
    key = str(level.force_key)
    for start, values in read_blocks(group, key, path):
        finite = np.isfinite(values).all(axis=(1, 2))
        if not drop_damaged and not finite.all():
            refuse_infinite(values, key, path, group.name)
        if not drop_damaged:
            refuse_beyond_float32(values, f"{path}, group {group.name}: {key}")
        with np.errstate(over="ignore"):
            narrow = values.astype(np.float32, copy=False)
        narrow[~np.isfinite(narrow).all(axis=(1, 2))] = np.nan  # forces with a hole are no forces
        yield start, narrow


def read_cells(group: Group, path: Path) -> np.ndarray | None:
    """Cells (n, 3, 3) of a group, see `Structures`; None of molecules.

    Raises UserError as `periodic_cell` does, and for `pbc` without a cell.
    """
    place = f"{path}, group {group.name}"
    is_said = "pbc" in group.member
    if CELL not in group.member:
        if is_said and np.asarray(group.member["pbc"][()]).any():
            raise UserError(
                f"{place}: periodic (pbc), and there is no dataset {CELL}. Add it, "
                f"{(group.size, 3, 3)} numbers in Å, or remove pbc."
            )
        return None
    cells = read_array(group.member, CELL, path, (group.size, 3, 3)).astype(np.float64)
    pbc = is_periodic_along(cells)
    if is_said:
        said = np.asarray(group.member["pbc"][()])
        if said.shape not in ((), (3,), (group.size, 3)) or said.dtype.kind not in "iub":
            raise UserError(f"{place}: pbc has shape {said.shape}; expected {(group.size, 3)}.")
        pbc = np.broadcast_to(said.astype(bool), pbc.shape)
    rows = np.flatnonzero(np.any(pbc, axis=1) | ~np.isfinite(cells).all(axis=(1, 2)))
    found = np.zeros_like(cells)
    for row in rows:
        kept = periodic_cell(cells[row], pbc[row], f"{place}, conformer {row}")
        found[row] = 0.0 if kept is None else kept
    return found


def read_stress(group: Group, key: str, cells: np.ndarray | None, path: Path) -> np.ndarray:
    """A stress (n, 3, 3) in a group, hartree/Å³, NaN where missing.

    Raises UserError for infinite values, a stress that is not symmetric, and one of structures that
    are not periodic along all axes.
    """
    values = read_array(group.member, key, path, (group.size, 3, 3)).astype(np.float64)
    refuse_infinite(values, key, path, group.name)
    known = np.asarray(np.isfinite(values).all(axis=(1, 2)))
    found = np.where(known[:, None, None], values, np.nan)  # with a hole it is none
    has_volume = np.zeros(group.size, bool) if cells is None else is_crystal(cells)
    place = f"{path}, group {group.name}"
    if (known & ~has_volume).any():
        raise UserError(
            f"{place}: {int((known & ~has_volume).sum())} conformers have {key} and are not "
            f"periodic along all three axes, so they have no stress. Add their {CELL}, or write "
            "NaN."
        )
    for row in np.flatnonzero(known):
        found[row] = stress_tensor(found[row], f"{place}, conformer {row}: {key}")
    return found


def read_blocks(group: Group, key: str, path: Path) -> Iterator[tuple[int, np.ndarray]]:
    """Blocks of rows of the coordinates or forces of a group, with the first row of each.

    They hold whole chunks of the file, for a chunk is decompressed as a whole.
    """
    dataset = require_array(group.member, key, path, group.shape)
    row_bytes = max(1, dataset.dtype.itemsize * int(np.prod(group.shape[1:])))
    n_rows = max(1, BLOCK_BYTES // row_bytes)
    if dataset.chunks is not None:
        n_rows = -(-n_rows // dataset.chunks[0]) * dataset.chunks[0]
    for start in range(0, group.size, n_rows):
        yield start, np.asarray(dataset[start : start + n_rows])
