"""Structures one after another, as files of several formats hold them: what their readers give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hippynn_mf.data.formats.label_names import Held


@dataclass(frozen=True)
class Frame:
    """A structure of a file.

    Attributes:
        numbers: (n_atoms,) uint8 atomic numbers.
        positions: (n_atoms, 3) float64 in Å.
        energies: dataset of the ANI-1x layout → hartree.
        forces: dataset of the ANI-1x layout → (n_atoms, 3) float64 in hartree/Å.
        group: name of its group in that layout, None for its formula.
        path, number: where it comes from; the first structure of a file is 1.
        system: charge, spin and weights of the structure, by the names of `system_keys`.
        cell: (3, 3) float64 in Å, rows are lattice vectors, 0 along an axis without periodicity;
            None for a molecule.
        stress: dataset of the ANI-1x layout → (3, 3) float64 in hartree/Å³.
    """

    numbers: np.ndarray
    positions: np.ndarray
    energies: Mapping[str, float]
    forces: Mapping[str, np.ndarray]
    group: str | None
    path: Path
    number: int
    system: Mapping[str, float] = field(default_factory=dict)
    cell: np.ndarray | None = None
    stress: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """File and number of the structure, for messages."""
        return f"{self.path}, structure {self.number}"


@dataclass(frozen=True)
class Content:
    """The structures of a file, and what else is in it.

    Attributes:
        frames: the structures, without isolated atoms.
        others: names that are no labels, with the number of structures that have them.
        isolated_atoms: atomic number, and energies as of a frame, of structures that are there for
            atomic energies, as in MACE, and not to be trained on. Charged ones have none.
        held: what the file holds beside atoms and positions, labels among it.
        absent: names that are declared for the file and not in it.
        energy_unit: of the file, where its format alone does not tell it.
        remarks: what a user should hear of, and no error.
    """

    frames: list[Frame]
    others: Mapping[str, int]
    isolated_atoms: Sequence[tuple[int, Mapping[str, float]]]
    held: Mapping[str, Held] = field(default_factory=dict)
    absent: Sequence[str] = ()
    energy_unit: str | None = None
    remarks: Sequence[str] = ()
