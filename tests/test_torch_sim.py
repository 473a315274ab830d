"""TorchSim computes molecules and crystals together, and says what the ASE calculator says."""

from __future__ import annotations

import importlib
import importlib.util
import sys

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.stress import voigt_6_to_full_3x3_stress
from conservation import (
    LEVEL,
    N_STEPS,
    TEMPERATURE,
    TIMESTEP,
    among_images,
    is_conserved,
    methanol,
    one_member,
)
from mliap_data import cell
from pages import blocks_of, run_block
from potentials import random_potential

from hippynn_mf import MultiFidelityCalculator, UserError

needs_torch_sim = pytest.mark.skipif(
    importlib.util.find_spec("torch_sim") is None,
    reason="with Python 3.12 or later, pip install 'hippynn_mf[torch-sim]'",
)
LABELS = {"DZ": "EF", "CC": "E"}
CPU = torch.device("cpu")
KNOWN = {1: 1, 6: 6, 7: 7, 8: 8}  # other elements of TorchSim's own structures become these


@pytest.fixture
def adapter():
    return importlib.import_module("hippynn_mf.potentials.torch_sim")


@pytest.fixture(scope="module")
def ensemble():
    return random_potential(LABELS, n_members=3)


def mixed() -> list[Atoms]:
    """Molecules, a skew crystal smaller than the cut-off, a slab and a chain."""
    slab = bulk("C", cubic=True).repeat((1, 1, 2))
    slab.pbc = [True, True, False]
    slab.cell[2] = 0
    chain = Atoms("CO", [[0, 0, 0], [0, 1.2, 0]], cell=[2.9, 0, 0], pbc=[True, False, False])
    systems = [molecule("CH3OH"), cell(), slab, molecule("H2O"), chain, Atoms("N")]
    for number, atoms in enumerate(systems):
        atoms.rattle(0.05, seed=number)
    return systems


def known_elements(state):
    """The same state of elements that the model knows."""
    numbers = state.atomic_numbers.tolist()
    state.atomic_numbers = torch.tensor([KNOWN.get(z, (6, 7, 8)[z % 3]) for z in numbers])
    return state


@needs_torch_sim
@pytest.mark.parametrize("n_members", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_torch_sims_own_tests_of_the_interface_pass(adapter, n_members, dtype):
    from torch_sim.models.interface import validate_model_outputs

    model = adapter.MultiFidelityModel(random_potential(LABELS, n_members), "CC", dtype=dtype)
    validate_model_outputs(model, CPU, torch.float64, state_modifier=known_elements)


@needs_torch_sim
def test_torch_sims_own_structures_have_the_calculators_results(adapter, ensemble):
    from torch_sim.testing import SIMSTATE_GENERATORS, assert_model_calculator_consistency

    calculator = MultiFidelityCalculator(ensemble, "CC")
    seen = set()
    for make in SIMSTATE_GENERATORS.values():
        state = known_elements(make(CPU, torch.float64))
        is_crystal = bool(state.pbc.all())
        model = adapter.MultiFidelityModel(ensemble, "CC", compute_stress=is_crystal)
        assert_model_calculator_consistency(model, calculator, state)
        seen.add(is_crystal)
    assert seen == {True, False}


@needs_torch_sim
@pytest.mark.parametrize("n_members", [1, 3])
def test_a_mixed_batch_has_the_calculators_results(adapter, ensemble, n_members):
    potential = ensemble if n_members == 3 else ensemble.member(1)
    model = adapter.MultiFidelityModel(potential, "DZ")
    calculator = MultiFidelityCalculator(potential, "DZ")
    structures = mixed()
    state = model.state_of(structures)
    positions = state.positions.clone()
    found = model(state)
    assert (state.positions == positions).all()
    ends = np.cumsum([len(atoms) for atoms in structures])
    for number, (atoms, end) in enumerate(zip(structures, ends, strict=True)):
        rows = slice(end - len(atoms), end)
        atoms.calc = calculator
        tolerance = {"rtol": 0, "atol": 1e-9}
        assert float(found["energy"][number]) == pytest.approx(atoms.get_potential_energy())
        np.testing.assert_allclose(found["forces"][rows], atoms.get_forces(), **tolerance)
        names = [("stress", lambda name, a=atoms: a.calc.get_property(name, a))]
        if n_members > 1:
            names += [("stress_std", names[0][1])]
            for name in ("energy_std", "forces_std"):
                value = found[name][number if name == "energy_std" else rows]
                expected = calculator.get_property(name, atoms)
                np.testing.assert_allclose(value, expected, **tolerance)
        for name, expected in names:
            value = found[name][number]
            if atoms.pbc.all():
                stress = voigt_6_to_full_3x3_stress(expected(name))
                np.testing.assert_allclose(value, stress, **tolerance)
                assert np.abs(stress).max() > 1e-3
            else:
                assert value.isnan().all()
    assert {"energy_std", "forces_std", "stress_std"} <= set(found) or n_members == 1


@needs_torch_sim
def test_open_systems_alone_stay_open(adapter, ensemble):
    model = adapter.MultiFidelityModel(ensemble, "CC")
    structures = [molecule("H2O"), molecule("CH4")]
    state = model.state_of(structures)
    assert not state.pbc.any()
    found = model(state)
    assert found["stress"].isnan().all()
    assert found["energy"].dtype == found["forces"].dtype == torch.float64
    only = adapter.MultiFidelityModel(ensemble, "CC", compute_forces=False, compute_stress=False)
    energies = only(state)
    assert set(energies) == {"energy", "energy_std"}
    torch.testing.assert_close(energies["energy"], found["energy"])


@needs_torch_sim
def test_runs_of_torch_sim_keep_the_spread_and_split_states(adapter, ensemble):
    import torch_sim as ts

    model = adapter.MultiFidelityModel(ensemble, "CC")
    state = model.state_of(mixed())
    moved = ts.integrate(
        system=state,
        model=model,
        integrator=ts.Integrator.nve,
        n_steps=2,
        timestep=0.0002,
        temperature=100,
    )
    expected = model(moved)
    torch.testing.assert_close(moved.energy_std, expected["energy_std"])
    torch.testing.assert_close(moved.forces_std, expected["forces_std"])
    for number, part in enumerate(moved.split()):
        single = model(part)
        torch.testing.assert_close(single["energy"][0], expected["energy"][number])
        stress = expected["stress"][number]
        torch.testing.assert_close(single["stress"][0], stress, equal_nan=True)
    (relaxed,) = ts.optimize(
        system=model.state_of([molecule("H2O")]),
        model=adapter.MultiFidelityModel("mini-ani1x", "CC"),
        optimizer=ts.Optimizer.fire,
        max_steps=200,
    ).to_atoms()
    relaxed.calc = MultiFidelityCalculator("mini-ani1x", "CC")
    assert np.abs(relaxed.get_forces()).max() < 0.1
    assert relaxed.get_angle(1, 0, 2) == pytest.approx(104, abs=3)


@needs_torch_sim
def test_there_is_no_default_level(adapter, ensemble):
    with pytest.raises(UserError, match=r"several levels: DZ \(wb97x_dz\), CC"):
        adapter.MultiFidelityModel(ensemble)
    with pytest.raises(UserError, match=r"Unknown level of this model 'MP2'"):
        adapter.MultiFidelityModel(ensemble, "MP2")
    with pytest.raises(UserError, match="Unknown dtype 'half'"):
        adapter.MultiFidelityModel(ensemble, "CC", dtype="half")


@needs_torch_sim
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"atomic_numbers": [8, 1, 9]}, r"structure 2 \(OHF\): Atomic numbers \[9\] are outside"),
        ({"positions": [[0.0] * 3] * 3}, r"structure 2 .*overlap"),
        ({"positions": [[float("nan")] * 3] * 3}, r"structure 2 .*positions hold NaN"),
    ],
)
def test_structures_that_no_model_knows_are_refused(adapter, ensemble, change, expected):
    model = adapter.MultiFidelityModel(ensemble, "CC")
    state = model.state_of([molecule("H2O")] * 2)
    for name, value in change.items():
        getattr(state, name)[3:] = torch.tensor(value)
    with pytest.raises(UserError, match=expected):
        model(state)


@needs_torch_sim
@pytest.mark.parametrize("name", ["charge", "spin", "total_charge", "total_spin"])
def test_charged_systems_are_refused(adapter, ensemble, name):
    import torch_sim as ts

    model = adapter.MultiFidelityModel(ensemble, "CC")
    plain = model.state_of([molecule("H2O")] * 2)
    state = ts.SimState.from_state(plain, **{name: torch.tensor([0.0, 0.0])})
    torch.testing.assert_close(model(state)["energy"], model(plain)["energy"])
    state = ts.SimState.from_state(plain, **{name: torch.tensor([0.0, 2.0])})
    with pytest.raises(UserError, match=f"structure 2: {name}=2.*neutral closed shells only"):
        model(state)
    alone = model.state_of([Atoms("N")] * 2)  # as many systems as atoms
    fine = ts.SimState.from_state(alone, **{name: torch.tensor([0.0, 0.0])})
    torch.testing.assert_close(model(fine)["energy"], model(alone)["energy"])
    ions = ts.SimState.from_state(alone, **{name: torch.tensor([0.0, 2.0])})
    with pytest.raises(UserError, match=f"structure 2: {name}=2"):
        model(ions)
    ion = molecule("H2O")
    ion.info["charge"] = 1
    with pytest.raises(UserError, match=r"structure 2 .*charge=1"):
        model.state_of([molecule("H2O"), ion])
    with pytest.raises(UserError, match="no structures"):
        model.state_of([])


@needs_torch_sim
@pytest.mark.parametrize("name", ["charges", "initial_charges", "spin", "magmoms"])
def test_systems_whose_atoms_are_charged_are_refused(adapter, ensemble, name):
    import torch_sim as ts

    model = adapter.MultiFidelityModel(ensemble, "CC")
    plain = model.state_of([molecule("H2O")] * 2)
    values = torch.tensor([-0.8, 0.4, 0.4, -0.8, 0.4, 0.4])
    state = ts.SimState.from_state(plain, **{name: values})
    torch.testing.assert_close(model(state)["energy"], model(plain)["energy"])
    values[3] = 0.2
    with pytest.raises(UserError, match=r"structure 2: .*of the atoms add up to 1"):
        model(ts.SimState.from_state(plain, **{name: values}))


def test_without_torch_sim_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_sim", None)
    monkeypatch.delitem(sys.modules, "hippynn_mf.potentials.torch_sim", raising=False)
    with pytest.raises(UserError, match=r"3\.12 .*pip install 'hippynn_mf\[torch-sim\]'"):
        importlib.import_module("hippynn_mf.potentials.torch_sim")


@needs_torch_sim
@pytest.mark.slow
def test_a_picosecond_conserves_energy(adapter):
    """Of a molecule in open space and among its images, in one batch."""
    import torch_sim as ts

    member = one_member()
    model = adapter.MultiFidelityModel(member, LEVEL)
    alone = methanol(MultiFidelityCalculator(member, LEVEL))
    state = model.state_of([alone, among_images(alone)])
    state.rng = 0
    metal = ts.units.MetalUnits
    moving = ts.nve_init(state, model, kT=TEMPERATURE * float(metal.temperature))
    totals, potentials = np.zeros((2, N_STEPS, 2))
    for step in range(N_STEPS):
        moving = ts.nve_step(moving, model, dt=TIMESTEP * 1e-3 * float(metal.time))
        kinetic = ts.calc_kinetic_energy(
            masses=moving.masses, momenta=moving.momenta, system_idx=moving.system_idx
        )
        potentials[step], totals[step] = moving.energy, moving.energy + kinetic
    assert is_conserved(totals[:, 0], potentials[:, 0])
    assert is_conserved(totals[:, 1], potentials[:, 1])


@needs_torch_sim
def test_the_example_of_the_documentation_runs(tmp_path, monkeypatch, capsys):
    (script,) = blocks_of("engines.md", "TorchSim")
    monkeypatch.chdir(tmp_path)
    names = run_block("engines.md", script)
    assert names["results"]["stress"][:2].isnan().all()
    assert names["results"]["stress"][2].isfinite().all()
    final, calculator = names["final"], MultiFidelityCalculator("mini-ani1x", "CC")
    for number, atoms in enumerate(final.to_atoms()):
        atoms.calc = calculator
        assert float(final.energy[number]) == pytest.approx(atoms.get_potential_energy())
    assert str(final.energy_std) in capsys.readouterr().out
