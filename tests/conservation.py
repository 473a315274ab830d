"""Whether an engine conserves energy: a test that forces which are 1 % too large do not pass."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.optimize import BFGS

from hippynn_mf import MultiFidelityCalculator
from hippynn_mf.potentials.potential import Potential

N_STEPS, TIMESTEP = 5000, 0.2  # a picosecond; fs
TEMPERATURE = 600  # K of the first velocities, half of which becomes potential energy
TOLERANCE = 0.005
NAME, LEVEL = "mini-ani1x", "CC"


def one_member() -> Potential:
    """The first member of the shipped model: one is a sixth of the work of all."""
    potential = Potential.load(NAME)
    return potential.member(potential.card.members[0].seed)


def methanol(calculator: MultiFidelityCalculator) -> Atoms:
    """A molecule that the shipped model knows, in its minimum."""
    atoms = molecule("CH3OH")
    atoms.center(vacuum=8)
    atoms.calc = calculator
    BFGS(atoms, logfile=None).run(fmax=0.01)
    return atoms


def among_images(atoms: Atoms) -> Atoms:
    """The same molecule in a cell, where it sees its images within the cut-off."""
    copy = atoms.copy()
    copy.set_cell([7.0, 7.5, 8.0])
    copy.pbc = True
    copy.calc = atoms.calc
    return copy


def lost_share(totals: np.ndarray, potentials: np.ndarray) -> float:
    """How much of the changes of the potential energy does not come back as kinetic energy.

    Energies (n_steps,) of one system. Where forces are 1 + ε times what they should be, the total
    energy follows the potential one, and this is ε. The Verlet algorithm itself loses (ω dt)²/4 in
    a vibration of angular frequency ω: 0.005 in that of O–H at 0.2 fs, 0.003 of C–H, hardly
    anything in the slow ones.
    """
    return float(np.std(totals) / np.std(potentials))


def is_conserved(totals: np.ndarray, potentials: np.ndarray, tolerance: float = TOLERANCE) -> bool:
    """Whether total energies stay while atoms vibrate; energies in eV."""
    assert len(totals) == len(potentials) >= N_STEPS / 10
    assert np.std(potentials) > 0.01
    return lost_share(np.asarray(totals), np.asarray(potentials)) < tolerance
