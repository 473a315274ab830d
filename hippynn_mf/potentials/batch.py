"""What prediction takes and gives: structures as arrays, and labels. Torch is not needed here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from hippynn_mf.data.formats.extxyz_keys import REFERENCE, STD
from hippynn_mf.levels import Level

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


@dataclass(frozen=True)
class Labels:
    """Labels of a batch, under their names in files.

    Attributes:
        of_structures: key → (n,), as energies in eV.
        of_atoms: name of columns → (n_atoms, 3), as forces in eV/Å.
    """

    of_structures: dict[str, np.ndarray]
    of_atoms: dict[str, np.ndarray]


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


def add_labels(structures: Sequence[Atoms], labels: Labels, levels: Sequence[Level]) -> None:
    """Put labels of the levels into `info` and `arrays`; what was there becomes a reference."""
    end = 0
    for number, atoms in enumerate(structures):
        _set_references_aside(atoms, levels)
        start, end = end, end + len(atoms)
        for key, values in labels.of_structures.items():
            atoms.info[key] = float(values[number])
        for key, values in labels.of_atoms.items():
            atoms.arrays[key] = values[start:end]


def _set_references_aside(atoms: Atoms, levels: Sequence[Level]) -> None:
    """Rename labels of the levels, and forget standard deviations of another prediction."""
    for level in levels:
        for name in (level.id, level.label):
            for key, values in ((f"energy_{name}", atoms.info), (f"forces_{name}", atoms.arrays)):
                values.pop(STD + key, None)
                if key in values:
                    values[REFERENCE + key] = values.pop(key)
