"""Reading what belongs to atoms, coordinates and forces, straight into the arrays where it stays.

A reader first decides from the energies which conformers it needs, and then reads the groups that
have any, in blocks of rows. Rows are chosen in memory: a mask inside h5py is far slower. So memory
grows with the atoms that are kept, by one copy of each array and one block.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hippynn_mf.data.formats.groups import (
    Group,
    read_blocks,
    read_cells,
    read_forces,
    read_stress,
)
from hippynn_mf.data.formats.hdf5 import (
    refuse_beyond_float32,
)
from hippynn_mf.data.formats.reading_bar import ReadingBar
from hippynn_mf.data.structures import Structures
from hippynn_mf.errors import UserError
from hippynn_mf.keys import CELL
from hippynn_mf.levels import Level
from hippynn_mf.ragged import Places, Ragged, blocks_of, recentred
from hippynn_mf.stores import new_store


@dataclass(frozen=True)
class Part:
    """Conformers to read: ascending `rows` (n,) of the file, their energies, whose other labels."""

    rows: np.ndarray
    energies: Mapping[str, np.ndarray]
    force_levels: Sequence[Level]
    stress_levels: Sequence[Level] = ()


@dataclass(frozen=True)
class Coordinates:
    """The atoms of some conformers of a file, read once for all that look at them.

    Attributes:
        rows: (n,) ascending positions in the file.
        species: of the conformers, uint8.
        positions: as of `Structures`; damaged ones are not finite.
    """

    rows: np.ndarray
    species: Ragged
    positions: Ragged

    def of_group(self, group: Group) -> tuple[np.ndarray, np.ndarray]:
        """The rows (n,) of a group, and their positions (n, n_atoms, 3), which are no copy."""
        first, last = np.searchsorted(self.rows, (group.start, group.start + group.size))
        return self.rows[first:last], _block(self.positions, slice(first, last), group)

    def without_others(self, parts: Sequence[np.ndarray]) -> Coordinates:
        """Those of some rows alone, if that is less than half of the atoms; else all."""
        places = self.positions.places
        n_kept = sum(places[np.searchsorted(self.rows, rows)].n_atoms for rows in parts)
        if 2 * n_kept > places.n_atoms:
            return self
        rows = np.unique(np.concatenate(parts))
        places = places[np.searchsorted(self.rows, rows)]
        positions = self.positions.at(places).compact()
        species = self.species.at(places).compact().at(positions.places)
        return Coordinates(rows, species, positions)


def _block(array: Ragged, rows: slice, group: Group) -> np.ndarray:
    """Structures of a group, one after another in an array, as (n, n_atoms, …), to be filled."""
    places = array.places[rows]
    start = int(places.starts[0]) if len(places) else 0
    values = array.values[start : start + places.n_atoms]
    return values.reshape(len(places), len(group.numbers), *values.shape[1:])


def read_coordinates(
    path: Path,
    groups: Sequence[Group],
    rows: np.ndarray,
    *,
    bar: ReadingBar,
    mapped: bool = False,
    drop_damaged: bool = False,
) -> Coordinates:
    """The atoms of conformers of a file, by ascending positions in it.

    Raises UserError for a key or shape that cannot be right, and, unless `drop_damaged`, for what
    float32 does not hold.
    """
    ends = np.searchsorted(rows, [group.start + group.size for group in groups])
    bounds = itertools.starmap(slice, itertools.pairwise([0, *ends.tolist()]))
    used = {group.start: of for group, of in zip(groups, bounds, strict=True) if of.stop > of.start}
    sizes = np.repeat([len(group.numbers) for group in groups], np.diff(ends, prepend=0))
    places = Places.of_sizes(sizes)
    species = Ragged(new_store((places.n_atoms,), np.uint8, mapped=mapped), places)
    positions = Ragged(new_store((places.n_atoms, 3), np.float32, mapped=mapped), places)
    for group in bar.over("coordinates", [group for group in groups if group.start in used]):
        if not group.size:  # where another one starts
            continue
        of_group = used[group.start]
        _block(species, of_group, group)[:] = group.numbers
        target = _block(positions, of_group, group)
        wanted = rows[of_group] - group.start
        for start, values in read_blocks(group, "coordinates", path):
            if not drop_damaged:
                refuse_beyond_float32(values, f"{path}, group {group.name}: coordinates")
            first, last = np.searchsorted(wanted, (start, start + len(values)))
            whole = last - first == len(values)
            chosen = values if whole else values[wanted[first:last] - start]
            with np.errstate(over="ignore"):  # infinite, as what is damaged
                target[first:last] = recentred(chosen)
    return Coordinates(rows, species, positions)


def read_parts(
    path: Path,
    groups: Sequence[Group],
    parts: Mapping[str, Part],
    *,
    bar: ReadingBar,
    drop_damaged: bool = False,
    coordinates: Coordinates | None = None,
    mapped: bool = False,
) -> dict[str, Structures]:
    """The structures of each part.

    With `drop_damaged`, infinite forces are missing and conformers without finite coordinates are
    left out; otherwise both are a UserError, as is a key or shape that cannot be right. The
    `coordinates` are those that were read before, of all conformers of the parts; parts share them.
    With `mapped`, what belongs to atoms is kept in files.
    """
    if coordinates is None:
        rows = np.unique(np.concatenate([part.rows for part in parts.values()]))
        coordinates = read_coordinates(
            path, groups, rows, bar=bar, mapped=mapped, drop_damaged=drop_damaged
        )
    coordinates = coordinates.without_others([part.rows for part in parts.values()])
    starts = np.array([group.start for group in groups])
    numbers_of_parts = {
        name: (np.searchsorted(starts, part.rows, side="right") - 1).astype(np.int32)
        for name, part in parts.items()
    }
    counts = [np.bincount(each, minlength=len(groups)) for each in numbers_of_parts.values()]
    used: list[int] = np.flatnonzero(np.any(counts, axis=0)).tolist()
    is_periodic = any(CELL in groups[number].member for number in used)
    read = {}
    for name, part in parts.items():
        places = coordinates.positions.places[np.searchsorted(coordinates.rows, part.rows)]
        own = Places.of_sizes(places.sizes)
        read[name] = Structures(
            species=coordinates.species.at(places),
            positions=coordinates.positions.at(places),
            energies=part.energies,
            forces={
                level.id: Ragged(new_store((own.n_atoms, 3), np.float32, mapped=mapped), own)
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
    if drop_damaged:
        whole = {name: ~_damaged(structures) for name, structures in read.items()}
    else:
        _refuse_damaged(path, read)
    for group in bar.over("labels of atoms", [groups[number] for number in used]):
        _read_group(path, group, parts, read, drop_damaged)
    if drop_damaged:
        return {name: structures[whole[name]] for name, structures in read.items()}
    return read


def _damaged(structures: Structures) -> np.ndarray:
    """(n,) which structures have positions that are not finite."""
    damaged = np.zeros(len(structures), bool)
    values = structures.positions.values
    if all(np.isfinite(values[rows]).all() for rows in blocks_of(len(values), 2**20)):
        return damaged
    for rows in blocks_of(len(structures)):
        damaged[rows] = ~np.isfinite(structures.positions[rows]).all(axis=(1, 2))
    return damaged


def _refuse_damaged(path: Path, parts: Mapping[str, Structures]) -> None:
    """Raise UserError for positions that are not finite, naming the first group that has any."""
    counts: Counter[int] = Counter()
    names: tuple[str, ...] = ()
    for structures in parts.values():
        counts.update(structures.groups[_damaged(structures)].tolist())
        names = structures.group_names
    if counts:
        group = min(counts)
        raise UserError(
            f"{path}, group {names[group]}: NaN or infinite coordinates in {counts[group]} "
            "conformers. Remove them."
        )


def _read_group(
    path: Path,
    group: Group,
    parts: Mapping[str, Part],
    read: Mapping[str, Structures],
    drop_damaged: bool,
) -> None:
    """Fill in what belongs to the conformers of one group, in the structures of every part."""
    ends = (group.start, group.start + group.size)
    bounds = {name: np.searchsorted(part.rows, ends) for name, part in parts.items()}
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
                _block(read[name].forces[level.id], rows, group)[:] = values[chosen]


def _chosen(
    rows: np.ndarray, bounds: np.ndarray, start: int, size: int
) -> tuple[slice, np.ndarray]:
    """Which rows of a part lie in a block of the file, and where in the block they are."""
    first, last = bounds[0] + np.searchsorted(rows[slice(*bounds)], (start, start + size))
    return slice(first, last), rows[first:last] - start
