"""Groups of an open file in the ANI-1x layout, and what belongs to their atoms, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

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
