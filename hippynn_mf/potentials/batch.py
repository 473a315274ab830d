"""Structures as arrays, as prediction takes them. Torch is not needed here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

MOST_ATOMS = 2**12  # of a batch, unless a single structure has more


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
