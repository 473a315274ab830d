"""Conformers that a file holds more than once: made one, with the labels of all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hippynn_mf.data.crystals import is_moved
from hippynn_mf.data.matching import find_copies
from hippynn_mf.data.structures import Structures
from hippynn_mf.data.superposition import SAME_POSITION, superpose
from hippynn_mf.errors import UserError
from hippynn_mf.units import EV_PER_HARTREE

# Two labels of one structure may differ by so much: what a repeated calculation does not reproduce.
SAME_ENERGY = 1e-3 / EV_PER_HARTREE  # 1e-3 eV
SAME_FORCE = 1e-2 / EV_PER_HARTREE  # 1e-2 eV/Å
SAME_STRESS = 1e-3 / EV_PER_HARTREE  # 1e-3 eV/Å³, 0.16 GPa
N_SHOWN = 3  # copies that a message names


@dataclass(frozen=True)
class Contradiction:
    """A label of a structure that another copy of the conformer has otherwise."""

    first: int
    copy: int
    level_id: str
    kind: str
    difference: float  # hartree, hartree/Å or hartree/Å³

    def text(self, structures: Structures) -> str:
        """In words, with the rows of the file and eV or eV/Å."""
        unit = {"energy": "eV", "stress": "eV/Å³"}.get(self.kind, "eV/Å")
        rows, names = structures.rows, structures.group_names
        return (
            f"row {rows[self.copy]} (of {names[structures.groups[self.copy]]}) repeats row "
            f"{rows[self.first]}, but its {self.kind} of {self.level_id} differs by "
            f"{self.difference * EV_PER_HARTREE:.3g} {unit}"
        )


@dataclass(frozen=True)
class Joined:
    """Conformers of a file, each once.

    Attributes:
        structures: the first of each, with the labels of its copies where it lacks them.
        n_copies: structures that repeated another.
        contradictions: labels in which copies differ by more than `SAME_ENERGY`, `SAME_FORCE` or
            `SAME_STRESS`; the first is kept.
    """

    structures: Structures
    n_copies: int
    contradictions: list[Contradiction]


def join_copies(structures: Structures, first: np.ndarray | None = None) -> Joined:
    """Make copies of a conformer one, with forces turned into the frame of the first.

    `first` (n,) says which are copies, by a number they have in common; by default they are found.
    """
    if first is None:
        first = find_copies(structures)
    # Few of many structures are copies, and only those are looked at one by one.
    several = np.flatnonzero((np.bincount(first) > 1)[first])
    if not len(several):
        return Joined(structures, 0, [])
    _, place, unit = np.unique(first[several], return_index=True, return_inverse=True)
    lowest = several[place[unit.reshape(-1)]]  # index of the same conformer
    copies, leaders = several[lowest != several], lowest[lowest != several]
    once = np.ones(len(structures), bool)
    once[copies] = False
    joined = structures[once]  # forces are shared, other labels its own
    filled: dict[str, dict[int, np.ndarray]] = {name: {} for name in joined.forces}
    contradictions: list[Contradiction] = []
    for copy, kept in zip(copies.tolist(), leaders.tolist(), strict=True):
        there = kept - int(np.searchsorted(copies, kept))  # copies before it are no more there
        for name, values in joined.energies.items():
            of_this = structures.energies[name][copy]
            apart = abs(values[there] - of_this)
            if apart > SAME_ENERGY:
                contradictions.append(Contradiction(kept, int(copy), name, "energy", float(apart)))
            if np.isnan(values[there]):
                values[there] = of_this
        forces = {name: values[copy] for name, values in structures.forces.items()}
        known = {name: values for name, values in forces.items() if np.isfinite(values).all()}
        tensors = {n: v[copy] for n, v in structures.stress.items() if np.isfinite(v[copy]).all()}
        is_crystal = structures.cells is not None and structures.cells[copy].any()
        if is_crystal and (known or tensors):
            _refuse_turned_crystal(structures, kept, int(copy))
        for name, tensor in tensors.items():
            of_first = joined.stress[name]
            if np.isfinite(of_first[there]).all():
                apart = np.abs(of_first[there] - tensor).max()
                if apart > SAME_STRESS:
                    contradictions.append(
                        Contradiction(kept, int(copy), name, "stress", float(apart))
                    )
            else:
                of_first[there] = tensor
        turned_forces = known if is_crystal else _turned(structures, kept, int(copy), known)
        for name, turned in turned_forces.items():
            forces_of_first = filled[name].get(there, joined.forces[name][there])
            if np.isfinite(forces_of_first).all():
                apart = np.abs(forces_of_first - turned).max(initial=0)
                if apart > SAME_FORCE:
                    contradictions.append(
                        Contradiction(kept, int(copy), name, "force", float(apart))
                    )
            else:
                filled[name][there] = turned
    forces_of_all = {name: v.replaced(filled[name]) for name, v in joined.forces.items()}
    return Joined(replace(joined, forces=forces_of_all), len(copies), contradictions)


def join_agreeing(
    structures: Structures, source: Path | str, first: np.ndarray | None = None
) -> tuple[Structures, int]:
    """The conformers, each once, and how many were copies.

    Raises UserError if labels of copies contradict each other, naming them.
    """
    joined = join_copies(structures, first)
    if found := joined.contradictions:
        shown = "; ".join(each.text(structures) for each in found[:N_SHOWN])
        more = f"; and {len(found) - N_SHOWN} more" if len(found) > N_SHOWN else ""
        raise UserError(
            f"{source}: labels of one conformer contradict each other: {shown}{more}. A conformer "
            "is the same however it is turned, mirrored, ordered or rounded. Remove the wrong ones."
        )
    return joined.structures, joined.n_copies


def _refuse_turned_crystal(structures: Structures, kept: int, copy: int) -> None:
    """Raise UserError for a copy of a crystal whose forces and stress are in another frame."""
    assert structures.cells is not None
    same_atoms = np.array_equal(structures.species[kept], structures.species[copy])
    one, two = structures.positions[kept], structures.positions[copy]
    if not is_moved(one, two, structures.cells[kept], structures.cells[copy], same_atoms):
        rows = structures.rows
        raise UserError(
            f"row {rows[copy]} repeats row {rows[kept]}, a periodic structure, in another cell, "
            "orientation or order of atoms, so its forces and stress cannot be compared. Write "
            "both alike, or remove one."
        )


def _turned(
    structures: Structures, kept: int, copy: int, forces: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Forces (n_atoms, 3) of a copy in the frame and order of atoms of the one that is kept."""
    if not forces:
        return {}
    numbers = structures.species[kept], structures.species[copy]
    one, two = structures.positions[kept], structures.positions[copy]
    # Both are within the tolerance of a third, if neither is the first that was found.
    laid = superpose(numbers, one[None], two[None], 2 * SAME_POSITION)
    return {name: laid.turned(values[None])[0] for name, values in forces.items()}
