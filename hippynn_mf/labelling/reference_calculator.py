"""ASE calculator of the package's own levels: ωB97X, MP2 and CCSD(T)/CBS of `reference`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from hippynn_mf.errors import UserError
from hippynn_mf.labelling.harmonic import internal_directions
from hippynn_mf.labelling.reference import (
    ccsd_t_cbs_energy,
    gradient_by_differences,
    mp2_tz_energy,
    wb97x,
)
from hippynn_mf.potentials.batch import refuse_charged
from hippynn_mf.units import EV_PER_HARTREE

GRADIENT_STEP = 0.002  # Å along a unit vector of all Cartesian coordinates, as of the embedded data
HEAVIEST_CORRELATED = 10  # beyond neon more orbitals than 1s belong to the frozen core

Energy = Callable[[np.ndarray, np.ndarray, dict[str, np.ndarray]], float]
CORRELATED: dict[str, Energy] = {"MP2": mp2_tz_energy, "CC": ccsd_t_cbs_energy}


class ReferenceCalculator(Calculator):
    """Energies (eV) and forces (eV/Å) of a level of this package: DZ, TZ, MP2 or CC, by PySCF.

    Those of a structure do not depend on what was computed before. Forces of MP2 and CC are central
    differences of energies, two for each of the 3n − 6 internal directions, with a `gradient_step`
    in Å. Molecules that are neutral closed shells only; UserError for others.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def __init__(self, label: str, *, gradient_step: float = GRADIENT_STEP) -> None:
        super().__init__()
        if not isinstance(gradient_step, int | float) or not 0 < gradient_step < 0.1:
            raise UserError(f"gradient_step is a length in Å below 0.1; found {gradient_step!r}.")
        self.label_of_level, self.gradient_step = label, float(gradient_step)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Compute what is asked for; ASE calls it."""
        super().calculate(atoms, properties, system_changes)
        numbers, positions = self.atoms.numbers, self.atoms.positions
        self._refuse(self.atoms)
        if self.label_of_level in CORRELATED:
            self.results = self._correlated(numbers, positions, "forces" in properties)
            return
        options: dict[str, Any] = {"basis": "6-31g(d)", "cartesian": True}
        if self.label_of_level == "TZ":
            options = {"basis": "def2-tzvpp", "fitted_with": "def2-universal-jkfit"}
        energy, forces, _ = wb97x(numbers, positions, **options)
        self.results = {"energy": energy * EV_PER_HARTREE, "forces": forces * EV_PER_HARTREE}

    def _correlated(
        self, numbers: np.ndarray, positions: np.ndarray, forces: bool
    ) -> dict[str, Any]:
        energy = CORRELATED[self.label_of_level]
        guesses: dict[str, np.ndarray] = {}
        results: dict[str, Any] = {"energy": energy(numbers, positions, guesses) * EV_PER_HARTREE}
        if forces:
            gradient = gradient_by_differences(
                lambda moved: energy(numbers, moved, guesses),
                positions,
                directions=internal_directions(positions, np.ones(len(numbers))),
                step=self.gradient_step,
            )
            results["forces"] = -gradient * EV_PER_HARTREE
        return results

    def _refuse(self, atoms: Atoms) -> None:
        refuse_charged(atoms)
        if atoms.pbc.any():
            raise UserError("PySCF's levels are those of molecules, and the structure is periodic")
        if int(atoms.numbers.sum()) % 2:
            raise UserError("PySCF's levels are closed shells; the number of electrons is odd")
        heaviest = int(atoms.numbers.max())
        if self.label_of_level in CORRELATED and heaviest > HEAVIEST_CORRELATED:
            raise UserError(
                f"the frozen core of MP2 and CC is 1s alone, up to neon; found {atoms.symbols}"
            )
