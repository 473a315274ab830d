"""Structures as prediction takes them: as arrays, neutral, with closed shells. Without torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from ase import Atoms

from hippynn_mf.cells import is_crystal
from hippynn_mf.errors import UserError, errors_about

MOST_ATOMS = 2**12  # of a batch, unless a single structure has more
CHARGE_TOLERANCE = 1e-3  # of a sum of partial charges, elementary charges
CHARGES = ("charge", "total_charge")
# Names of the spin of a structure → values of a closed shell: S, 2S, or 2S + 1.
SPINS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {"spin": (0, 1), "multiplicity": (1,), "spin_multiplicity": (1,), "total_spin": (0,)}
)


@dataclass(frozen=True)
class Batch:
    """Structures, their atoms one after another; as arrays they are quickly sent and looked at.

    Attributes:
        numbers: (n_atoms,) atomic numbers.
        positions: (n_atoms, 3) in Å.
        cells: (n, 3, 3) in Å, zeros where there is no vector.
        pbc: (n, 3) bool.
        sizes: (n,) atoms of every structure.
    """

    numbers: np.ndarray
    positions: np.ndarray
    cells: np.ndarray
    pbc: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, structures: Sequence[Atoms]) -> Batch:
        """The arrays of at least one structure."""
        return cls(
            np.concatenate([atoms.numbers for atoms in structures]),
            np.concatenate([atoms.positions for atoms in structures]),
            np.array([atoms.cell.array for atoms in structures]),
            np.array([atoms.pbc for atoms in structures]),
            np.array([len(atoms) for atoms in structures]),
        )

    @property
    def volumes(self) -> np.ndarray:
        """(n,) volumes of the cells in Å³, NaN of what is not periodic along all axes."""
        has_volume = is_crystal(np.where(self.pbc[:, :, None], self.cells, 0.0))
        return np.where(has_volume, np.abs(np.linalg.det(self.cells)), np.nan)

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[Atoms]:
        ends = self.sizes.cumsum()
        for start, end, cell, pbc in zip(
            ends - self.sizes, ends, self.cells, self.pbc, strict=True
        ):
            yield Atoms(self.numbers[start:end], self.positions[start:end], cell=cell, pbc=pbc)


def in_batches(structures: Iterable[Atoms], size: int) -> Iterator[list[Atoms]]:
    """Batches of at most `size` structures and `MOST_ATOMS` atoms."""
    batch: list[Atoms] = []
    n_atoms = 0
    for atoms in structures:
        if batch and (len(batch) == size or n_atoms + len(atoms) > MOST_ATOMS):
            yield batch
            n_atoms, batch = 0, []
        batch.append(atoms)
        n_atoms += len(atoms)
    if batch:
        yield batch


def refuse_charged(atoms: Atoms) -> None:
    """Raise UserError for a structure that says that it is charged or has unpaired electrons.

    Looked at are the initial charges and magnetic moments of the atoms, and `CHARGES` and `SPINS`
    in `info`.
    """
    if found := _what_is_charged(atoms):
        raise UserError(
            f"{found}; the model knows neutral closed shells only, and would give the energy of "
            "one. Remove the structure, or what says so if it is wrong."
        )


def neutral(structures: Iterable[Atoms]) -> Iterator[Atoms]:
    """The structures; a UserError, counting from 1, for one that `refuse_charged` refuses."""
    for number, atoms in enumerate(structures, 1):
        with errors_about(f"structure {number} ({atoms.symbols})"):
            refuse_charged(atoms)
        yield atoms


def _what_is_charged(atoms: Atoms) -> str | None:
    for name, columns in (("charges", "initial_charges"), ("magnetic moments", "initial_magmoms")):
        total = float(np.sum(atoms.arrays.get(columns, 0.0)))
        if not abs(total) <= CHARGE_TOLERANCE:  # which NaN is not
            return f"the {name} of the atoms add up to {total:g}"
    for name in CHARGES:
        if name in atoms.info and not _is_any_of(atoms.info[name], (0,)):
            return f"{name}={atoms.info[name]}"
    for name, closed in SPINS.items():
        if name in atoms.info and not _is_any_of(atoms.info[name], closed):
            return f"{name}={atoms.info[name]}"
    return None


def _is_any_of(value: object, numbers: tuple[int, ...]) -> bool:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return any(abs(number - each) <= CHARGE_TOLERANCE for each in numbers)
