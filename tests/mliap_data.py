"""What LAMMPS' ML-IAP hands to a model, and what it does with the results.

Its own coupling is written in Cython and is in no wheel.
"""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass, field

import hippynn
import numpy as np
import pytest
from ase.build import molecule

from hippynn_mf import MultiFidelityCalculator

SPECIES = [1, 6, 7, 8]
CUTOFF = 6.5


@pytest.fixture
def lammps_modules(monkeypatch):
    """Settings, and a stand-in for LAMMPS' base class where its module cannot be imported."""
    try:
        import lammps.mliap.mliap_unified_abc  # noqa: F401
    except (ImportError, OSError):
        abstract = types.ModuleType("lammps.mliap.mliap_unified_abc")
        abstract.MLIAPUnified = type("MLIAPUnified", (), {})
        monkeypatch.setitem(sys.modules, "lammps.mliap", types.ModuleType("lammps.mliap"))
        monkeypatch.setitem(sys.modules, abstract.__name__, abstract)
        if "lammps" not in sys.modules:
            monkeypatch.setitem(sys.modules, "lammps", types.ModuleType("lammps"))
    monkeypatch.setattr(hippynn.settings, "WARN_LOW_DISTANCES", False)
    monkeypatch.setattr(hippynn.settings, "COMM_FEATURES_LAMMPS", False)


@dataclass
class Data:
    """LAMMPS' `MLIAPData` of one process: local atoms first, then ghosts, each of an owner."""

    numbers: np.ndarray
    positions: np.ndarray
    owners: np.ndarray  # of every atom; a local one owns itself
    nlistatoms: int
    ghost_neighbours: bool = True
    energy: float = 0.0
    eatoms: np.ndarray = field(init=False)

    def __post_init__(self):
        self.ntotal = len(self.numbers)
        self.elems = np.array([SPECIES.index(number) for number in self.numbers], np.int32)
        first = self.ntotal if self.ghost_neighbours else self.nlistatoms
        vectors = self.positions[None] - self.positions[:first, None]
        near = (vectors**2).sum(axis=2) < CUTOFF**2
        near[np.arange(first), np.arange(first)] = False
        i, j = np.nonzero(near)
        self.set_pairs(i, j)
        self.f = np.zeros((self.ntotal, 3))

    def set_pairs(self, i, j):
        self.pair_i, self.pair_j = i.astype(np.int32), j.astype(np.int32)
        self.npairs, self.rij = len(i), self.positions[j] - self.positions[i]

    def update_pair_forces(self, fij):
        assert fij.dtype == np.float64
        np.add.at(self.f, self.pair_i, fij)
        np.add.at(self.f, self.pair_j, -fij)

    @property
    def forces(self):
        """Of the local atoms: what is found on ghosts is sent to their owners."""
        folded = np.zeros((self.nlistatoms, 3))
        np.add.at(folded, self.owners, self.f)
        return folded


def cell():
    """A molecule in a cell that is smaller than twice the cut-off, beside another's image."""
    atoms = molecule("CH3CH2OH")
    atoms.set_cell([[6.0, 0, 0], [0.9, 6.4, 0], [-0.5, 0.7, 5.8]])
    atoms.pbc = True
    atoms.rattle(0.05, seed=3)
    return atoms


def expected(potential, level, atoms):
    atoms = atoms.copy()
    atoms.calc = MultiFidelityCalculator(potential, level)
    energies = atoms.calc.get_property("energies", atoms)
    return atoms.get_potential_energy(), energies, atoms.get_forces()


def assert_equal(data, potential, level, atoms, atol=1e-8):
    energy, energies, forces = expected(potential, level, atoms)
    assert data.energy == pytest.approx(energy, abs=10 * atol)
    np.testing.assert_allclose(data.eatoms, energies, rtol=0, atol=10 * atol)
    assert np.abs(forces).max() > 0.1
    np.testing.assert_allclose(data.forces, forces, rtol=0, atol=atol)
