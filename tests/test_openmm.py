"""OpenMM moves atoms on our forces, through OpenMM-ML's potential of any ASE calculator."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from conservation import (
    LEVEL,
    N_STEPS,
    TEMPERATURE,
    TIMESTEP,
    is_conserved,
    methanol,
    one_member,
)
from pages import blocks_of, run_block
from potentials import random_potential

from hippynn_mf import MultiFidelityCalculator

pytestmark = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("openmm", "openmmml")),
    reason="pip install 'hippynn_mf[openmm]'",
)
KJ_PER_MOL = units.kJ / units.mol


class Scaled(MultiFidelityCalculator):
    """Forces that are not the derivative of the energy."""

    factor = 1.0

    def calculate(self, *arguments, **options):
        super().calculate(*arguments, **options)
        self.results["forces"] = self.results["forces"] * self.factor


def simulation_of(atoms: Atoms, timestep: float):
    """OpenMM with the atoms and their calculator, in double precision; `timestep` in fs."""
    from openmm import Platform, VerletIntegrator, app, unit
    from openmmml import MLPotential

    topology = app.Topology()
    residue = topology.addResidue("MOL", topology.addChain())
    for symbol in atoms.symbols:
        topology.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
    if atoms.pbc.all():
        topology.setPeriodicBoxVectors(atoms.cell.array * unit.angstrom)
    system = MLPotential("ase").createSystem(topology, removeCMMotion=False, calculator=atoms.calc)
    integrator = VerletIntegrator(timestep * unit.femtosecond)
    platform = Platform.getPlatform("Reference")
    simulation = app.Simulation(topology, system, integrator, platform)
    simulation.context.setPositions(atoms.positions * unit.angstrom)
    return simulation


def state_of(simulation) -> tuple[float, float, np.ndarray, np.ndarray]:
    """Potential and kinetic energy in eV, forces in eV/Å, positions in Å."""
    from openmm import unit

    state = simulation.context.getState(energy=True, forces=True, positions=True)
    molar = unit.kilojoule_per_mole
    forces = state.getForces(asNumpy=True).value_in_unit(molar / unit.angstrom)
    return (
        state.getPotentialEnergy().value_in_unit(molar) * KJ_PER_MOL,
        state.getKineticEnergy().value_in_unit(molar) * KJ_PER_MOL,
        forces * KJ_PER_MOL,
        state.getPositions(asNumpy=True).value_in_unit(unit.angstrom),
    )


def test_the_example_of_the_documentation_runs(tmp_path, monkeypatch):
    (script,) = blocks_of("engines.md", "OpenMM")
    monkeypatch.chdir(tmp_path)
    simulation = run_block("engines.md", script)["simulation"]
    assert simulation.currentStep == 50
    potential, _, forces, positions = state_of(simulation)
    atoms = Atoms("COH4", positions)
    atoms.calc = MultiFidelityCalculator("mini-ani1x", "CC")
    assert potential == pytest.approx(atoms.get_potential_energy(), abs=1e-5)
    np.testing.assert_allclose(forces, atoms.get_forces(), rtol=0, atol=1e-5)


def test_a_skew_cell_has_the_calculators_results():
    cell = [[5.0, 0, 0], [0.7, 5.2, 0], [-0.4, 0.6, 5.4]]  # reduced, as OpenMM wants it
    atoms = molecule("CH3OH", cell=cell, pbc=True)
    atoms.calc = MultiFidelityCalculator(random_potential({"DZ": "EF", "CC": "E"}), "CC")
    simulation = simulation_of(atoms, TIMESTEP)
    simulation.step(2)
    potential, _, forces, positions = state_of(simulation)
    atoms.positions = positions
    assert potential == pytest.approx(atoms.get_potential_energy(), abs=1e-8)
    np.testing.assert_allclose(forces, atoms.get_forces(), rtol=0, atol=1e-8)
    assert np.abs(forces).max() > 0.01


def test_what_the_calculator_refuses_ends_the_run():
    atoms = Atoms("OF", [[0, 0, 0], [1, 0, 0]])
    atoms.calc = MultiFidelityCalculator("mini-ani1x", "CC")
    with pytest.raises(Exception, match=r"Atomic numbers \[9\] are outside the species"):
        simulation_of(atoms, TIMESTEP).step(1)


@pytest.mark.slow
@pytest.mark.parametrize(("factor", "expected"), [(1.0, True), (1.01, False)])
def test_a_picosecond_conserves_energy(factor, expected):
    """And that of forces 1 % too large does not, which says that the criterion can fail."""
    from openmm import unit

    calculator = Scaled(one_member(), LEVEL)
    simulation = simulation_of(methanol(calculator), TIMESTEP)
    simulation.context.setVelocitiesToTemperature(TEMPERATURE * unit.kelvin, 0)
    calculator.factor = factor
    totals, potentials = [], []
    for _ in range(N_STEPS // 5):
        simulation.step(5)
        potential, kinetic, *_ = state_of(simulation)
        potentials.append(potential)
        totals.append(potential + kinetic)
    assert is_conserved(totals, potentials) == expected
