"""What prediction gives: labels of structures, under their names in files. Without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from hippynn_mf.data.formats.extxyz_keys import REFERENCE, STD
from hippynn_mf.levels import Level


@dataclass(frozen=True)
class PredictedLabels:
    """Labels of a batch, under their names in files.

    Attributes:
        of_structures: key → (n,), as energies in eV.
        of_atoms: name of columns → (n_atoms, 3), as forces in eV/Å.
    """

    of_structures: dict[str, np.ndarray]
    of_atoms: dict[str, np.ndarray]


def add_labels(
    structures: Sequence[Atoms], labels: PredictedLabels, levels: Sequence[Level]
) -> None:
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
