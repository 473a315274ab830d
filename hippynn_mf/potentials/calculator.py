"""ASE calculator of a model file: any level, with the spread of the members."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress, voigt_6_to_full_3x3_stress

from hippynn_mf.levels import Level
from hippynn_mf.potentials.batch import CHARGES, SPINS, refuse_charged
from hippynn_mf.potentials.evaluator import DTypeName, Evaluator, Surfaces
from hippynn_mf.potentials.potential import Potential
from hippynn_mf.potentials.systems import Systems

SPREADS = ("energy_std", "forces_std", "stress_std")


@dataclass(frozen=True)
class LevelDifference:
    """One level minus another, of the members' mean: eV, and (n_atoms, 3) in eV/Å.

    The standard deviations over the members are those of the difference, NaN with one member.
    """

    energy: float
    forces: np.ndarray
    energy_std: float
    forces_std: np.ndarray


class MultiFidelityCalculator(Calculator):
    """Energies and forces of one level of a model, in ASE's units: eV, Å, eV/Å, eV/Å³.

    Args:
        model: a model file, the name of a shipped model, or a `Potential`.
        level: id or label of the level. There is no default if the model has several.
        dtype: `float64`, or `float32`, which is faster and good enough for dynamics.
        device: `cpu`, `cuda`, `cuda:N`, or `auto`.
        atoms_per_block: work through the atoms in blocks (a few hundred) to save memory.

    ASE's properties are means over the members: `energy`, `free_energy` (the same), `energies` (of
    atoms), `forces`, and `stress` of systems that are periodic along all axes. With several
    members, `energy_std`, `forces_std` and, where there is a stress, `stress_std` (6,) are the
    standard deviations (n − 1) over them, which `get_property` gives and `spreads` holds beside
    ASE's `results`. Setting `level` to another one clears both.

    Raises UserError for a level that the model lacks, and, when it computes, for elements that it
    does not know, overlapping atoms, positions that are not finite, and charged atoms.
    """

    def __init__(
        self,
        model: str | Path | Potential,
        level: str | Level | None = None,
        *,
        dtype: DTypeName = "float64",
        device: torch.device | str = "cpu",
        atoms_per_block: int | None = None,
    ) -> None:
        super().__init__()
        self.evaluator = Evaluator.of(
            model, dtype=dtype, device=device, atoms_per_block=atoms_per_block
        )
        self.potential = self.evaluator.potential
        self.spreads: dict[str, Any] = {}
        self._level = self.potential.level(level)
        self.implemented_properties = ["energy", "free_energy", "energies", "forces", "stress"]
        if len(self.potential.members) > 1:
            self.implemented_properties += SPREADS

    @property
    def level(self) -> Level:
        """The level of energies and forces; set by an id, a label or a `Level`."""
        return self._level

    @level.setter
    def level(self, level: str | Level | None) -> None:
        self._level = self.potential.level(level)
        self.reset()

    def reset(self) -> None:
        """Forget what was computed; ASE calls it when atoms change."""
        super().reset()
        self.spreads = {}

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What has changed since the last calculation; ASE asks several times in every step.

        As ASE's, but to the last bit instead of to `tol`, which is quicker.
        """
        if self.atoms is None:
            return list(all_changes)
        both = (self.atoms, atoms)
        states = {
            "positions": [each.positions for each in both],
            "numbers": [each.numbers for each in both],
            "cell": [each.cell.array for each in both],
            "pbc": [each.pbc for each in both],
            "initial_charges": [each.get_initial_charges() for each in both],
            "initial_magmoms": [each.get_initial_magnetic_moments() for each in both],
        }
        changes = [name for name in all_changes if not np.array_equal(*states[name])]
        before, now = ([repr(each.info.get(name)) for name in (*CHARGES, *SPINS)] for each in both)
        if "initial_charges" not in changes and before != now:
            changes.append("initial_charges")  # by which a charged system is refused
        return changes

    def get_property(
        self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True
    ) -> Any:
        """As ASE's, and also the standard deviations over the members, where there are several."""
        if name in SPREADS and name not in self.implemented_properties:
            raise PropertyNotImplementedError(
                f"{name} is the standard deviation over the members of a potential, and this one "
                "has a single member. Export the runs of several seeds together: 'hippynn-mf "
                "export RUN RUN... --out FILE'."
            )
        if name not in SPREADS:
            return super().get_property(name, atoms, allow_calculation)
        if super().get_property(name.removesuffix("_std"), atoms, allow_calculation) is None:
            return None
        value = self.spreads[name]
        return value.copy() if isinstance(value, np.ndarray) else value

    def single_point(self, atoms: Atoms) -> Atoms:
        """A copy of the atoms with the results, and the spreads where ASE's writers keep them.

        Its calculator is ASE's `SinglePointCalculator`; with several members,
        `info["energy_std"]` in eV, `arrays["forces_std"]` (n_atoms, 3) in eV/Å and, where there is
        a stress, `info["stress_std"]` (3, 3) in eV/Å³.
        """
        self.get_property("energy", atoms)
        copy = atoms.copy()
        copy.calc = SinglePointCalculator(copy, **self.results)
        if self.spreads:
            copy.info["energy_std"] = self.spreads["energy_std"]
            copy.arrays["forces_std"] = self.spreads["forces_std"]
        if "stress_std" in self.spreads:
            copy.info["stress_std"] = voigt_6_to_full_3x3_stress(self.spreads["stress_std"])
        return copy

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Compute everything; ASE calls it."""
        super().calculate(atoms, properties, system_changes)
        surfaces = self._evaluate(self.atoms, [self.level])
        name = self.level.id
        energies, forces = surfaces.energies[name][:, 0], surfaces.forces[name]
        self.results = {
            "energy": float(energies.mean()),
            "free_energy": float(energies.mean()),
            "energies": surfaces.atomic_energies[name].mean(axis=0),
            "forces": forces.mean(axis=0),
        }
        self.spreads = {}
        if len(energies) > 1:
            self.spreads["energy_std"] = float(energies.std(ddof=1))
            self.spreads["forces_std"] = forces.std(axis=0, ddof=1)
        if self.atoms.pbc.all():
            stress = surfaces.virials[name][:, 0] / self.atoms.get_volume()
            self.results["stress"] = full_3x3_to_voigt_6_stress(stress.mean(axis=0))
            if len(energies) > 1:
                spread = stress.std(axis=0, ddof=1)
                self.spreads["stress_std"] = full_3x3_to_voigt_6_stress(spread)
        elif "stress" in properties:
            raise PropertyNotImplementedError(
                f"Stress needs a cell that is periodic along all axes; pbc is {self.atoms.pbc}."
            )

    def get_level_energies(self, atoms: Atoms) -> dict[str, np.ndarray]:
        """Total energies in eV of every level, by its id: (n_members,) of one pass."""
        surfaces = self._evaluate(atoms, [])
        return {name: values[:, 0] for name, values in surfaces.energies.items()}

    def get_level_difference(
        self, atoms: Atoms, high: str | Level, low: str | Level
    ) -> LevelDifference:
        """Level `high` minus level `low`; energies with the difference of the atoms' energies."""
        first, second = self.potential.level(high), self.potential.level(low)
        surfaces = self._evaluate(atoms, list(dict.fromkeys([first, second])))
        energies = (surfaces.energies[first.id] - surfaces.energies[second.id])[:, 0]
        forces = surfaces.forces[first.id] - surfaces.forces[second.id]
        several = len(energies) > 1
        return LevelDifference(
            energy=float(energies.mean()),
            forces=forces.mean(axis=0),
            energy_std=float(energies.std(ddof=1)) if several else float("nan"),
            forces_std=forces.std(axis=0, ddof=1) if several else np.full(forces.shape[1:], np.nan),
        )

    def _evaluate(self, atoms: Any, forces_of: Sequence[Level]) -> Surfaces:
        refuse_charged(atoms)
        systems = Systems.of([atoms], self.evaluator.cutoff, self.evaluator.species)
        return self.evaluator(systems, forces_of, virials=bool(atoms.pbc.all()))
