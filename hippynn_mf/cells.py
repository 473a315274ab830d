"""Cells: what can be one, and how high and large it is."""

from __future__ import annotations

import numpy as np

from hippynn_mf.errors import UserError

LEAST_HEIGHT = 0.4  # Å between images of an atom; the shortest bond, that of H2, is 0.74 Å
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))  # ASE's order: xx, yy, zz, yz, xz, xy
# Of the largest component: what printed digits leave of a symmetric tensor.
MAX_ASYMMETRY = 1e-3


def is_periodic_along(cells: np.ndarray) -> np.ndarray:
    """(n, 3) which axes of cells (n, 3, 3) are periodic: those that have a vector."""
    return np.asarray(cells.any(axis=2))


def is_crystal(cells: np.ndarray) -> np.ndarray:
    """(n,) which cells (n, 3, 3) are periodic along all axes."""
    return np.asarray(is_periodic_along(cells).all(axis=1))


def is_periodic(cells: np.ndarray) -> np.ndarray:
    """(n,) which cells (n, 3, 3) are periodic along any axis."""
    return np.asarray(is_periodic_along(cells).any(axis=1))


def heights_of(cell: np.ndarray) -> np.ndarray:
    """How high (3,) a cell (3, 3) of three vectors is along each of them, in Å; 0 if it is flat."""
    areas = np.linalg.norm(np.cross(cell[[1, 2, 0]], cell[[2, 0, 1]]), axis=1)
    return np.asarray(np.abs(np.linalg.det(cell)) / np.maximum(areas, np.finfo(float).tiny))


def complete(cell: np.ndarray) -> np.ndarray:
    """A cell (3, 3) whose vectors of zeros are replaced by unit vectors across the others."""
    from ase.cell import Cell  # of few readers

    return np.asarray(Cell(cell).complete().array)


def periodic_cell(cell: np.ndarray, pbc: np.ndarray, place: str) -> np.ndarray | None:
    """The vectors (3, 3) of the periodic axes, the others 0; None without any.

    `cell` (3, 3) in Å, `pbc` (3,) bool. Raises UserError, naming the `place`, for a cell that is
    not finite, missing, flat or left-handed.
    """
    pbc = np.asarray(pbc, bool)
    if not pbc.any():
        return None
    cell = np.asarray(cell, np.float64)
    if not np.isfinite(cell).all():
        raise UserError(f"{place}: the cell has NaN or infinite numbers. Correct it.")
    if not cell[pbc].any(axis=1).all():
        raise UserError(
            f"{place}: periodic (pbc) along an axis without a cell vector. Give the cell "
            '(Lattice), or write pbc="F F F" for a molecule.'
        )
    kept = np.where(pbc[:, None], cell, 0.0)
    whole = complete(kept)
    determinant, heights = float(np.linalg.det(whole)), heights_of(whole)
    if heights[pbc].min() < LEAST_HEIGHT:
        raise UserError(
            f"{place}: the cell is flat: it is {heights[pbc].min():.2g} Å high along a periodic "
            f"axis, less than {LEAST_HEIGHT} Å. Correct it."
        )
    if pbc.all() and determinant < 0:
        raise UserError(
            f"{place}: the cell is left-handed, with a determinant of {determinant:.4g} Å³. Swap "
            "two of its vectors, or negate all three: positions, forces and stress stay as they "
            "are."
        )
    return kept


def stress_tensor(value: object, place: str) -> np.ndarray:
    """A symmetric tensor (3, 3) of 9 numbers, or of 6 in ASE's order of Voigt's notation.

    Raises UserError, naming the `place`, for anything else.
    """
    array = np.asarray(value)
    if array.dtype.kind not in "iuf" or array.shape not in ((3, 3), (9,), (6,)):
        raise UserError(
            f"{place} has shape {array.shape} and type {array.dtype}; a stress is 3 × 3 numbers, "
            "or 6 in the order xx, yy, zz, yz, xz, xy."
        )
    if not np.isfinite(array).all():
        raise UserError(
            f"{place} has NaN or infinite numbers. Where the stress is missing, leave the key out."
        )
    if array.shape == (6,):
        tensor = np.empty((3, 3))
        for number, (row, column) in zip(array, VOIGT, strict=True):
            tensor[row, column] = tensor[column, row] = number
        return tensor
    tensor = array.reshape(3, 3).astype(np.float64)
    if np.abs(tensor - tensor.T).max() > MAX_ASYMMETRY * max(np.abs(tensor).max(), 1e-6):
        raise UserError(
            f"{place} is not symmetric: {tensor.tolist()}. A stress is; correct it, or leave it "
            "out."
        )
    return np.asarray((tensor + tensor.T) / 2)
