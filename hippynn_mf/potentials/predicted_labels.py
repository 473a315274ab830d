"""What prediction gives: labels of structures, under their names in files. Without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress

from hippynn_mf.data.formats.extxyz_keys import (
    REFERENCE,
    STD,
    energy_key,
    forces_key,
    stress_key,
)
from hippynn_mf.errors import UserError
from hippynn_mf.levels import Level

ENERGY, FORCES = "energy", "forces"  # ASE's names, of the main level
# Of the main level; ASE keeps them, as no names of its own.
SPREADS_OF_STRUCTURES, SPREAD_OF_ATOMS = ("energy_std", "stress_std"), "forces_std"
OUTSIDE, OUTSIDE_BY = "outside", "outside_by"
# What a structure may have of another prediction.
MARKS = (OUTSIDE, OUTSIDE_BY)


@dataclass(frozen=True)
class PredictedLabels:
    """Labels of a batch, under their names in files.

    Attributes:
        of_structures: key → (n,), as energies in eV.
        of_atoms: name of columns → (n_atoms, 3), as forces in eV/Å.
        marks: for each structure, further `info`, as that it lies outside; may be empty.
        of_cells: key → (n, 3, 3), as a stress in eV/Å³, NaN of what is not periodic along all axes.
    """

    of_structures: dict[str, np.ndarray]
    of_atoms: dict[str, np.ndarray]
    marks: Sequence[Mapping[str, Any]] = field(default=())
    of_cells: dict[str, np.ndarray] = field(default_factory=dict)


def add_labels(
    structures: Sequence[Atoms],
    labels: PredictedLabels,
    levels: Sequence[Level],
    main: Level | None = None,
) -> None:
    """Put labels of the levels into `info` and `arrays`, those of `main` also as ASE's results.

    What was there becomes a reference: the structures' own results, and labels of these levels.
    """
    end = 0
    for number, atoms in enumerate(structures):
        _set_references_aside(atoms, levels)
        start, end = end, end + len(atoms)
        for key, values in labels.of_structures.items():
            atoms.info[key] = float(values[number])
        for key, values in labels.of_atoms.items():
            atoms.arrays[key] = values[start:end]
        for key, values in labels.of_cells.items():
            if np.isfinite(values[number]).all():
                atoms.info[key] = values[number]
        if labels.marks:
            atoms.info.update(labels.marks[number])
        if main is not None:
            _add_main(atoms, main)


def _add_main(atoms: Atoms, main: Level) -> None:
    """Make the labels of a level the structure's own, as ASE's readers and writers know them."""
    energy, forces, stress = energy_key(main), forces_key(main), stress_key(main)
    results = {"energy": atoms.info[energy], "forces": atoms.arrays[forces]}
    if stress in atoms.info:
        results["stress"] = full_3x3_to_voigt_6_stress(atoms.info[stress])
    atoms.calc = SinglePointCalculator(atoms, **results)
    if STD + forces in atoms.arrays:
        atoms.arrays[SPREAD_OF_ATOMS] = atoms.arrays[STD + forces]
    for name, key in zip(SPREADS_OF_STRUCTURES, (STD + energy, STD + stress), strict=True):
        if key in atoms.info:
            atoms.info[name] = atoms.info[key]


def _is_predicted(atoms: Atoms, energy: float | None) -> bool:
    """Whether a structure's own energy is that of an earlier prediction, which names its level."""
    named = [v for key, v in atoms.info.items() if key.startswith(f"{ENERGY}_")]
    return OUTSIDE in atoms.info or any(np.ndim(v) == 0 and v == energy for v in named)


def _set_references_aside(atoms: Atoms, levels: Sequence[Level]) -> None:
    """Rename labels, and forget an earlier prediction, whose references stay."""
    results = {} if atoms.calc is None else dict(atoms.calc.results)
    atoms.calc = None
    if not _is_predicted(atoms, results.get(ENERGY)):
        for name, value in results.items():
            is_of_atoms = np.shape(value)[:1] == (len(atoms),) and name != "stress"
            values = atoms.arrays if is_of_atoms else atoms.info
            if REFERENCE + name in values:
                raise UserError(
                    f"A structure ({atoms.symbols}) has both {name} and {REFERENCE}{name}, which "
                    "its own labels become. Remove one of them."
                )
            values[REFERENCE + name] = value
    for name in (*MARKS, *SPREADS_OF_STRUCTURES):
        atoms.info.pop(name, None)
    atoms.arrays.pop(SPREAD_OF_ATOMS, None)
    for level in levels:
        for name in (level.id, level.label):
            for key, values in (
                (f"energy_{name}", atoms.info),
                (f"forces_{name}", atoms.arrays),
                (f"stress_{name}", atoms.info),
            ):
                values.pop(STD + key, None)
                if key in values:
                    values.setdefault(REFERENCE + key, values.pop(key))
