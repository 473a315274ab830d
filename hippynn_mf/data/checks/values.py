"""Placeholders: 0 is not a label. A missing label is NaN, or an absent key of extended XYZ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hippynn_mf.data.checks.report import Outcome, list_some
from hippynn_mf.data.structures import Structures
from hippynn_mf.levels import Level

MAX_ZERO_STRESS = 0.1  # printed with few digits, that of a relaxed crystal may be 0
REMEDY = (
    "Where a label is missing, write NaN (HDF5) or leave the key out (extended XYZ); 0 is not a "
    "label."
)


def check_values(parts: Sequence[Structures], level: Level) -> list[Outcome]:
    """Outcomes for labels of a level that are exactly zero."""
    energies: list[str] = []
    forces: list[str] = []
    stress: list[str] = []
    n_energies = n_forces = n_stress = 0
    for part in parts:
        if level.id in part.energies:
            n_energies += int(part.has_energy(level).sum())
            energies += _names(part, np.asarray(part.energies[level.id] == 0))
        if level.id in part.forces:
            n_forces += int(part.has_forces(level).sum())
            # A free atom has no force, and in a crystal symmetry may leave none.
            of_molecules = (part.n_atoms > 1) & ~part.is_periodic
            values = part.forces[level.id]
            doubtful = np.flatnonzero(of_molecules & (values.first() == 0).all(axis=1))
            is_zero = np.zeros(len(part), bool)
            is_zero[doubtful] = [not values[row].any() for row in doubtful]
            forces += _names(part, is_zero)
        if level.id in part.stress:
            n_stress += int(part.has_stress(level).sum())
            stress += _names(part, np.logical_not(part.stress[level.id].any(axis=(1, 2))))
    outcomes = []
    for what, found in (("energies", energies), ("forces", forces), ("stress tensors", stress)):
        if found and (what != "stress tensors" or len(found) > MAX_ZERO_STRESS * n_stress):
            text = (
                f"{what} of level {level.id} are exactly 0 in {len(found)} structures "
                f"({list_some(found)}). {REMEDY}"
            )
            outcomes.append(Outcome(check="values", level=level.id, verdict="refused", text=text))
    if not outcomes:
        counts = f"{n_energies} energies and {n_forces} forces"
        if n_stress:
            counts = f"{n_energies} energies, {n_forces} forces and {n_stress} stress tensors"
        text = f"none of {counts} of level {level.id} is 0."
        outcomes.append(Outcome(check="values", level=level.id, verdict="passed", text=text))
    return outcomes


def _names(part: Structures, chosen: np.ndarray) -> list[str]:
    return [
        f"row {part.rows[i]} of {part.group_names[part.groups[i]]}" for i in np.flatnonzero(chosen)
    ]
