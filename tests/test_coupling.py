"""Coupled heads: what they compute, what they start from, and that they fold away."""

from __future__ import annotations

import pytest
import torch
from ase.build import molecule
from conftest import assert_close
from hippynn.interfaces.ase_interface import HippynnCalculator
from test_pretraining import PLANTED, linear_database
from tiny import evaluate, labelled_batch, outputs, structures, tiny_model

from hippynn_mf import FastCalculator, UserError, build_heads, build_loss, initialize_heads
from hippynn_mf.levels import CC, DZ, TZ
from hippynn_mf.model.losses import LossWeights
from hippynn_mf.model.parameters import fold

pytestmark = pytest.mark.usefixtures("float64")

CHAIN = {"DZ": "EF", "TZ": "E", "CC": "EF"}
CHAIN_PLANTED = PLANTED | {TZ.id: 0.3 * PLANTED[DZ.id] + 0.7 * PLANTED[CC.id] + 2}


def perturbed(**hyperparameters):
    model = tiny_model(CHAIN, **hyperparameters)
    with torch.no_grad():
        for name, parameter in model.parameters["heads"].named_parameters():
            generator = torch.Generator().manual_seed(len(name))
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    return model


def test_levels_form_a_chain_by_rank():
    model = tiny_model({"CC": "E", "DZ": "EF", "TZ": "E"}, coupling="delta")
    assert {k: h.base and h.base.id for k, h in model.heads.items()} == {
        DZ.id: None,
        TZ.id: DZ.id,
        CC.id: TZ.id,
    }
    independent = tiny_model(CHAIN)
    assert all(head.base is None for head in independent.heads.values())


def test_a_coupled_level_is_the_lower_one_plus_its_correction():
    coupled, alone = perturbed(coupling="delta"), perturbed()
    alone.parameters.load_state_dict(coupled.parameters.state_dict())  # heads as corrections
    species, positions = structures()
    found, parts = outputs(coupled, species, positions), outputs(alone, species, positions)
    assert_close(found[DZ.energy_name], parts[DZ.energy_name])
    assert_close(found[TZ.energy_name], parts[DZ.energy_name] + parts[TZ.energy_name])
    total = sum(parts[level.energy_name] for level in (DZ, TZ, CC))
    assert_close(found[CC.energy_name], total)
    assert (total - parts[CC.energy_name]).abs().max() > 0.1


def test_forces_of_a_coupled_level_are_its_derivative():
    model = perturbed(coupling="delta")
    species, positions = structures(1)
    forces = outputs(model, species, positions)[CC.forces_name]
    step = 1e-5
    for atom, axis in ((0, 0), (1, 2)):
        energies = []
        for sign in (1, -1):
            moved = positions.clone()
            moved[:, atom, axis] += sign * step
            energies.append(outputs(model, species, moved)[CC.energy_name][:, 0])
        assert_close(
            forces[:, atom, axis].round(decimals=5),
            (-(energies[0] - energies[1]) / (2 * step)).round(decimals=5),
        )
    assert forces.abs().max() > 0.1


def test_folded_heads_compute_the_same():
    coupled, independent = perturbed(coupling="delta"), tiny_model(CHAIN)
    state = fold(coupled.parameters.state_dict(), coupled.heads.bases)
    independent.parameters.load_state_dict(state)
    species, positions = structures()
    expected, found = outputs(coupled, species, positions), outputs(independent, species, positions)
    for name in expected:
        assert_close(found[name], expected[name])


def test_corrections_start_from_the_difference_of_atomic_energies():
    model = tiny_model({"DZ": "E", "CC": "E"}, coupling="delta")
    database = linear_database(model)
    rows = database.splits["train"]
    rows[CC.energy_name][6:] = float("nan")
    rows[DZ.energy_name][0] = float("nan")  # five rows have both
    initialize_heads(model.heads, database)
    first = model.heads["CC"].energy.torch_module.layers[0]
    expected = PLANTED[CC.id] - PLANTED[DZ.id]
    torch.testing.assert_close(first.weight.detach(), expected[None], rtol=1e-7, atol=1e-7)
    assert not first.weight.requires_grad


def test_levels_that_no_structure_shares_start_from_the_difference_as_well():
    model = tiny_model({"DZ": "E", "TZ": "E", "CC": "E"}, coupling="delta")
    database = linear_database(model, planted=CHAIN_PLANTED)
    train = database.splits["train"]
    for place, level in enumerate((DZ, TZ, CC)):
        lost = torch.arange(len(train["species"])) % 3 != place
        train[level.energy_name][lost] = float("nan")
    initialize_heads(model.heads, database)
    lower = None
    for level in (DZ, TZ, CC):
        expected = CHAIN_PLANTED[level.id] - (0 if lower is None else CHAIN_PLANTED[lower.id])
        first = model.heads[level].energy.torch_module.layers[0]
        torch.testing.assert_close(first.weight.detach(), expected[None], rtol=1e-7, atol=1e-7)
        lower = level


def test_the_lower_head_learns_from_labels_of_the_higher_level():
    """That is what coupling changes: with independent heads it does not."""
    gradients = {}
    for coupling in ("delta", "independent"):
        model = perturbed(coupling=coupling)
        loss = build_loss(model.heads, {"DZ": LossWeights(0, 0, 0), "TZ": LossWeights(0, 0, 0)})
        _, slopes = evaluate(loss, model, labelled_batch(model))
        slope = slopes[f"heads.{DZ.id}.layers.1.weight"]
        gradients[coupling] = 0.0 if slope is None else slope.abs().max().item()
    assert gradients["independent"] == 0
    assert gradients["delta"] > 1e-6


def test_an_unknown_coupling_is_refused():
    network = tiny_model(CHAIN).heads.network
    with pytest.raises(UserError, match=r"Unknown coupling 'dleta'. Did you mean delta"):
        build_heads(network, CHAIN, coupling="dleta")


@pytest.mark.parametrize("options", [None, {}, {"atoms_per_block": 2}], ids=str)
def test_calculators_of_hippynn_take_coupled_heads(options):
    model = perturbed(coupling="delta")
    atoms = molecule("CH3OH")
    energy = model.heads["CC"].energy
    if options is None:
        atoms.calc = HippynnCalculator(energy, en_unit=1.0)
    else:
        atoms.calc = FastCalculator(energy, en_unit=1.0, **options)
    atoms.calc.to(torch.float64)
    found = outputs(model, torch.tensor(atoms.numbers)[None], torch.tensor(atoms.positions)[None])
    assert atoms.get_potential_energy() == pytest.approx(found[CC.energy_name].item(), abs=1e-9)
    assert_close(torch.tensor(atoms.get_forces()), found[CC.forces_name][0])
