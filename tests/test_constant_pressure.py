"""Dynamics at constant pressure with the stress of a model."""

from __future__ import annotations

import numpy as np
import pytest
from ase import units
from ase.build import molecule
from ase.md.nose_hoover_chain import MTKNPT, IsotropicMTKNPT

from hippynn_mf.potentials.calculator import MultiFidelityCalculator

DURATION = 12.0  # fs


@pytest.mark.parametrize("dynamics", [MTKNPT, IsotropicMTKNPT])
def test_what_is_conserved_at_constant_pressure_is_conserved(dynamics):
    """The error of the integrator falls with the square of the step; a wrong stress leaves one."""
    errors = []
    for step in (0.5, 0.25):
        atoms = molecule("CH4")
        atoms.set_cell([4.6, 4.7, 4.8])
        atoms.center()
        atoms.pbc = True
        atoms.calc = MultiFidelityCalculator("mini-ani1x", "CC")
        momenta = (
            np.random.default_rng(0).normal(size=(5, 3)) * np.sqrt(atoms.get_masses())[:, None]
        )
        atoms.set_momenta(0.1 * momenta)
        run = dynamics(
            atoms,
            timestep=step * units.fs,
            temperature_K=100,
            pressure_au=0.0,
            tdamp=50 * units.fs,
            pdamp=200 * units.fs,
        )
        conserved, volumes = [], []
        run.attach(lambda run=run, found=conserved: found.append(run.get_conserved_energy()))
        run.attach(lambda atoms=atoms, found=volumes: found.append(atoms.get_volume()))
        run.run(int(DURATION / step))
        assert abs(volumes[-1] / volumes[0] - 1) > 0.005  # the stress did work
        errors.append(np.ptp(conserved))
    assert 3 < errors[0] / errors[1] < 8
