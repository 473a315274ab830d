"""Frames from arrays of conformers of the same atoms, as files of several formats hold them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hippynn_mf.cells import periodic_cell, stress_tensor
from hippynn_mf.data.formats.declared import Label, Told, Units
from hippynn_mf.data.formats.frames import Frame
from hippynn_mf.data.formats.hdf5 import refuse_beyond_float32
from hippynn_mf.data.formats.kinds import KINDS, Shape
from hippynn_mf.data.formats.label_names import Held
from hippynn_mf.data.formats.system_keys import KEPT
from hippynn_mf.errors import UserError
from hippynn_mf.keys import ENERGY, FORCES, STRESS
from hippynn_mf.levels import Level


@dataclass(frozen=True)
class Conformers:
    """Conformers of the same atoms, as a file holds them.

    Attributes:
        place: where they are, for messages.
        numbers: (n_atoms,) uint8 atomic numbers.
        positions: (n, n_atoms, 3) in the unit of the file.
        arrays: name → whatever the file has, among it the labels: (n,) or (n, 1) energies and
            (n, n_atoms, 3) forces; NaN is a missing label. Datasets of an open file will do.
        group: name of their group in the ANI-1x layout, None for their formula.
        systems: charges, spins and weights (n,), by the names of `system_keys`.
        cells: (n, 3, 3) in the unit of the file, rows are lattice vectors; None for molecules.
        pbc: (n, 3) along which axes they are periodic.
    """

    place: str
    numbers: np.ndarray
    positions: np.ndarray
    arrays: Mapping[str, np.ndarray]
    group: str | None = None
    systems: Mapping[str, np.ndarray] = field(default_factory=dict)
    cells: np.ndarray | None = None
    pbc: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.positions)


def shape_of(array: np.ndarray, n: int, n_atoms: int) -> Shape:
    """What an array of a file holds for each of n conformers."""
    if array.dtype.kind in "iuf":
        if array.shape in ((n,), (n, 1)):
            return "number"
        if array.shape == (n, n_atoms, 3):
            return "vectors"
        if array.shape in ((n, 3, 3), (n, 9), (n, 6)):
            return "tensor"
    return "other"


def held_in(parts: Sequence[Conformers]) -> dict[str, Held]:
    """What all conformers have beside atoms and positions."""
    held: dict[str, Held] = {}
    for part in parts:
        for name, array in part.arrays.items():
            before = held.get(name)
            shape = shape_of(array, len(part), len(part.numbers))
            count = len(part) + (before.count if before else 0)
            held[name] = Held(before.shape if before else shape, count)
    return held


def frames_of(
    path: Path,
    parts: Sequence[Conformers],
    labels: Mapping[str, Label],
    told: Told,
    default: Units,
) -> list[Frame]:
    """Frames with the labels by these names; missing ones (NaN) are left out.

    Raises UserError for positions or labels of a wrong shape or type, for infinite values and for
    those that single precision does not hold.
    """
    units = {level: told.units(default, level) for level in (None, *told.levels)}
    frames: list[Frame] = []
    for part in parts:
        if not len(part):
            continue
        frames += _frames_of_part(path, part, labels, units, len(frames))
    return frames


def _frames_of_part(
    path: Path,
    part: Conformers,
    labels: Mapping[str, Label],
    units: Mapping[Level | None, Units],
    before: int,
) -> Iterator[Frame]:
    n, n_atoms = len(part), len(part.numbers)
    if not n_atoms:
        raise UserError(f"{part.place}: there are no atoms. Remove these structures.")
    positions = np.asarray(checked(part.positions, (n, n_atoms, 3), f"{part.place}: positions")[()])
    if not np.isfinite(positions).all():
        raise UserError(f"{part.place}: NaN or infinite positions. Remove these structures.")
    refuse_beyond_float32(positions, f"{part.place}: positions")
    if (length := units[None].length) != 1:
        positions = positions.astype(np.float64) * length
    cells: list[np.ndarray | None] = [None] * n
    if part.cells is not None and part.pbc is not None:
        cells = [
            periodic_cell(
                part.cells[row] * length, part.pbc[row], f"{part.place}, structure {row + 1}"
            )
            for row in range(n)
        ]
    values: dict[str, dict[str, np.ndarray]] = {kind: {} for kind in KINDS}
    tensors: list[dict[str, np.ndarray]] = [{} for _ in range(n)]
    for name in sorted(labels.keys() & part.arrays.keys()):
        label, what = labels[name], f"{part.place}: {name}"
        array = part.arrays[name]
        if label.kind == STRESS:
            rows = np.asarray(checked_tensors(array, n, what)[()])
            for row in range(n):
                if not np.isnan(rows[row]).all():
                    place = f"{part.place}, structure {row + 1}"
                    tensors[row][label.dataset] = stress_of(
                        name, rows[row], cells[row], place, units[label.level], label
                    )
            continue
        expected: tuple[int, ...] = (n,) if label.kind == ENERGY else (n, n_atoms, 3)
        if label.kind == ENERGY and array.shape == (n, 1):
            expected = (n, 1)
        array = np.asarray(checked(array, expected, what)[()])
        if label.kind == ENERGY:
            array = array.reshape(n)
        if np.isinf(array).any():
            raise UserError(f"{what} has infinite values. Missing labels are NaN.")
        refuse_beyond_float32(array, what)
        holes = np.isnan(array).reshape(n, -1)
        if n_partial := int((holes.any(axis=1) & ~holes.all(axis=1)).sum()):
            raise UserError(
                f"{what}: NaN for some atoms only, in {n_partial} structures. Missing forces are "
                "NaN for all atoms."
            )
        divisor = label.sign * units[label.level].per_hartree(label.kind)
        values[label.kind][label.dataset] = array.astype(np.float64) / divisor
    return (
        Frame(
            numbers=part.numbers,
            positions=positions[row].astype(np.float64),
            energies={d: float(v[row]) for d, v in values[ENERGY].items() if np.isfinite(v[row])},
            forces={d: v[row] for d, v in values[FORCES].items() if np.isfinite(v[row]).all()},
            group=part.group,
            path=path,
            number=before + row + 1,
            system={name: float(v[row]) for name, v in part.systems.items()},
            cell=cells[row],
            stress=tensors[row],
        )
        for row in range(n)
    )


def checked_tensors(array: np.ndarray, n: int, what: str) -> np.ndarray:
    """The array itself; a UserError if it does not hold n tensors."""
    if array.dtype.kind not in "iuf" or array.shape not in ((n, 3, 3), (n, 9), (n, 6)):
        raise UserError(
            f"{what} has shape {array.shape} and type {array.dtype}; numbers of shape {(n, 3, 3)}, "
            f"{(n, 9)} or {(n, 6)} were expected."
        )
    return array


def stress_of(
    name: str, value: object, cell: np.ndarray | None, place: str, units: Units, label: Label
) -> np.ndarray:
    """A stress (3, 3) in hartree/Å³, of a stress or a virial; `cell` (3, 3) is in Å.

    Raises UserError for a structure that is not periodic along all axes, and for no tensor.
    """
    if cell is None or not cell.any(axis=1).all():
        raise UserError(
            f"{place}: {name} is there, and the structure is not periodic along all three axes, so "
            "it has no stress. Give the cell (Lattice) with pbc, or remove the key."
        )
    tensor = label.sign * stress_tensor(value, f"{place}: {name}")
    if label.virial:
        return tensor / np.abs(np.linalg.det(cell)) / units.per_hartree(ENERGY)
    return tensor / units.per_hartree(STRESS)


def checked(array: np.ndarray, shape: tuple[int, ...], what: str) -> np.ndarray:
    """The array itself; a UserError if it does not hold numbers in the expected shape."""
    if array.shape != shape or array.dtype.kind not in "iuf":
        raise UserError(
            f"{what} has shape {array.shape} and type {array.dtype}; numbers of shape {shape} were "
            "expected."
        )
    return array


def systems_of(arrays: Mapping[str, np.ndarray], n: int, place: str) -> dict[str, np.ndarray]:
    """Charges, spins and weights of n conformers, by the names of `system_keys`."""
    found = {}
    for name in KEPT:
        if name in arrays and arrays[name].dtype.kind in "iufb":
            values = arrays[name].astype(np.float64)
            if values.size == 1:
                values = np.full(n, values.ravel()[0])
            if values.shape not in ((n,), (n, 1)):
                continue  # of atoms, which is not used
            found[name] = values.reshape(n)
    return found
