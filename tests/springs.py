"""A calculator without programs: springs between all atoms, as long as they are at the start.

For tests of `hippynn-mf sample` and `label`, which name it as `springs.py:factory`. Every call is
counted in a file, if one is named.
"""

from __future__ import annotations

import os
import time
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np
from ase.build import molecule
from ase.calculators.calculator import Calculator, all_changes

NAMES = {"CH4O": "CH3OH", "H3N": "NH3"}
STIFFNESS = 20.0  # eV/Å², so that no wavenumber is below that of the softest drawn mode


@cache
def lengths_of(name):
    """Distances (n_atoms, n_atoms) in ASE's molecule of this name."""
    return molecule(name).get_all_distances()


class Springs(Calculator):
    """E = k/2 Σ (r_ij − d_ij)² over all pairs; the lengths are those of ASE's molecule."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def __init__(self, calls=None, wrong=None, formula=None, wait=0.0, properties=("forces",)):
        super().__init__()
        self.calls, self.wrong, self.formula, self.wait = calls, wrong, formula, wait
        self.implemented_properties = ["energy", *properties]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        formula = self.atoms.get_chemical_formula()
        if self.calls is not None:
            with Path(self.calls).open("a") as stream:
                stream.write(f"{formula}\n")
        if self.wait:
            time.sleep(self.wait)
        rest = lengths_of(NAMES.get(formula, formula))
        vectors = self.atoms.positions[:, None] - self.atoms.positions
        lengths = np.linalg.norm(vectors, axis=2)
        excess = lengths - rest
        energy = STIFFNESS * (excess**2).sum() / 4
        np.fill_diagonal(lengths, 1.0)
        forces = -STIFFNESS * (excess / lengths)[:, :, None] * vectors
        self.results = {"energy": energy, "forces": forces.sum(axis=1)}
        if formula == self.formula:
            self._go_wrong()

    def _go_wrong(self):
        if self.wrong == "raise":
            raise RuntimeError('no "convergence"\nin 100 steps')
        if self.wrong == "exit":
            raise SystemExit(3)
        if self.wrong == "interrupt":
            raise KeyboardInterrupt
        if self.wrong == "die":
            os._exit(9)
        if self.wrong == "nan":
            self.results["forces"][0, 0] = np.nan
        if self.wrong == "large":
            self.results["energy"] = 1e39
        if self.wrong == "shape":
            self.results["forces"] = np.zeros(3)


def factory(**arguments):
    """What `--with springs.py:factory` calls."""
    return Springs(**arguments)
