"""Forces for use are hippynn's forces, from graphs that keep less."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from hippynn.graphs import Predictor
from hippynn.interfaces.ase_interface import HippynnCalculator
from tiny import structures, tiny_model

from hippynn_mf import FastCalculator
from hippynn_mf.model.predicting import build_predictor
from hippynn_mf.network.hipnn import NETWORKS

LABELS = {"DZ": "EF", "CC": "EF"}


def periodic_methanol():
    """A crystal-like box, smaller than the cut-off, so that an atom sees its own images."""
    atoms = molecule("CH3OH")
    atoms.set_cell([5.1, 5.6, 6.2])
    atoms.pbc = True
    return atoms


SYSTEMS = {"molecule": lambda: molecule("CH3OH", cell=[30] * 3), "periodic": periodic_methanol}


@pytest.mark.parametrize("interaction", list(NETWORKS))
def test_predicted_forces_are_those_of_training(float64, interaction):
    model = tiny_model(LABELS, interaction=interaction)
    species, positions = structures()
    values = {"species": species, "positions": positions}
    heads = model.heads.values()
    nodes = [node for head in heads for node in (head.energy.main_output, head.forces)]
    expected = Predictor([model.species, model.positions], nodes)(**values)
    found = build_predictor(model)(**values)
    for head in model.heads.values():
        assert expected[head.forces].abs().max() > 1e-6
        torch.testing.assert_close(found[head.level.forces_name], expected[head.forces])
        torch.testing.assert_close(found[head.level.energy_name], expected[head.energy.main_output])


def test_predicted_forces_cannot_be_trained_on():
    """They raise, rather than leave a loss without its gradient."""
    model = tiny_model({"DZ": "EF"})
    predictor = build_predictor(model)
    predictor.requires_grad = True
    species, positions = structures(1)
    forces = predictor(species=species, positions=positions)[model.heads["DZ"].level.forces_name]
    with pytest.raises(RuntimeError, match="does not require grad"):
        forces.square().sum().backward()


def test_a_prediction_leaves_the_training_graph_as_it_was():
    model = tiny_model({"DZ": "EF"})
    build_predictor(model)
    forces = model.heads["DZ"].forces
    predictor = Predictor([model.species, model.positions], [forces], requires_grad=True)
    species, positions = structures(1)
    predictor(species=species, positions=positions)[forces].square().sum().backward()
    slopes = [p.grad for p in model.heads.network.torch_module.parameters() if p.grad is not None]
    assert max(slope.abs().max() for slope in slopes) > 0


@pytest.mark.parametrize("level", list(LABELS))
@pytest.mark.parametrize("system", list(SYSTEMS))
@pytest.mark.parametrize("atoms_per_block", [None, 1, 4])
def test_the_calculator_agrees_with_hippynns(float64, level, system, atoms_per_block):
    model = tiny_model(LABELS)
    energy = model.heads[level].energy
    results = {}
    for name, options in {"hippynn": None, "fast": {"atoms_per_block": atoms_per_block}}.items():
        atoms = SYSTEMS[system]()
        atoms.rattle(0.05, seed=0)
        calculator = (
            HippynnCalculator(energy) if options is None else FastCalculator(energy, **options)
        )
        atoms.calc = calculator
        assert model.heads.network.torch_module.atoms_per_block is None
        stress = atoms.get_stress(voigt=False) if system == "periodic" else np.zeros((3, 3))
        results[name] = atoms.get_potential_energy(), atoms.get_forces(), stress
    assert np.abs(results["hippynn"][1]).max() > 1e-6
    for theirs, ours in zip(results["hippynn"], results["fast"], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_the_calculator_follows_a_change_of_boundaries(float64):
    calculator = FastCalculator(tiny_model({"DZ": "EF"}).heads["DZ"].energy)
    stresses = []
    for atoms in (SYSTEMS["molecule"](), periodic_methanol(), SYSTEMS["molecule"]()):
        calculator.calculate(atoms)
        stresses.append(np.abs(calculator.results["stress"]).max())
    assert stresses[0] == stresses[2]
    assert stresses[0] > stresses[1]  # of open systems hippynn gives the virial, not per volume


def test_the_calculator_keeps_no_graph():
    model = tiny_model({"DZ": "EF"})
    atoms = bulk("C", cubic=True)
    atoms.calc = FastCalculator(model.heads["DZ"].energy)
    (forces,) = (m for m in atoms.calc.module.modules() if type(m).__name__ == "FinalStressForce")
    kept = []
    forces.register_forward_hook(lambda module, inputs, output: kept.extend(output))
    atoms.get_forces()
    assert kept
    assert not any(tensor.requires_grad for tensor in kept)


def test_blocks_of_a_network_of_hippynn_are_refused():
    model = tiny_model({"DZ": "EF"}, interaction="stock")
    with pytest.raises(ValueError, match="needs a network of hippynn_mf"):
        FastCalculator(model.heads["DZ"].energy, atoms_per_block=100)


def test_calculators_of_one_energy_do_not_share_their_blocks():
    energy = tiny_model({"DZ": "EF"}).heads["DZ"].energy
    sizes = [1, None, 3]
    calculators = [FastCalculator(energy, atoms_per_block=size) for size in sizes]
    for size, calculator in zip(sizes, calculators, strict=True):
        found = {
            m.atoms_per_block for m in calculator.module.modules() if hasattr(m, "atoms_per_block")
        }
        assert found == {size}


def test_a_calculator_follows_the_parameters_of_the_model():
    model = tiny_model({"DZ": "EF"})
    atoms = SYSTEMS["molecule"]()
    atoms.calc = FastCalculator(model.heads["DZ"].energy, atoms_per_block=2)
    before = atoms.get_forces()
    with torch.no_grad():
        for layer in model.heads.network.torch_module.interaction_layers:
            layer.int_weights.mul_(0.5)
    atoms.calc.calculate(atoms)
    assert np.abs(atoms.calc.results["forces"] - before).max() > 1e-6


def test_other_derivatives_of_the_same_energy_are_properties(float64):
    model = tiny_model(LABELS)
    heads = model.heads
    properties = {"own": heads["DZ"].forces, "other": heads["CC"].forces}
    found = []
    for calculator_class in (HippynnCalculator, FastCalculator):
        calculator = calculator_class(heads["DZ"].energy, extra_properties=properties)
        calculator.calculate(SYSTEMS["molecule"]())
        found.append([calculator.results[name] for name in ("forces", "own", "other")])
    for theirs, ours in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_predictions_do_not_let_the_graph_grow():
    model = tiny_model({"DZ": "EF"})
    build_predictor(model)
    before = len(model.positions.children)
    for _ in range(3):
        build_predictor(model)
    assert len(model.positions.children) == before


def test_final_forces_in_blocks_keep_little(float64):
    """After the forward pass, a system in blocks holds far fewer numbers than one at a time."""
    kept = {}
    for size in (None, 8):
        model = tiny_model({"DZ": "EF"}, n_features=24, interaction="fast")
        atoms = bulk("C", cubic=True) * (2, 2, 2)
        calculator = FastCalculator(model.heads["DZ"].energy, atoms_per_block=size)
        sizes = {}

        def pack(tensor, sizes=sizes):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            calculator.calculate(atoms)
        kept[size] = sum(sizes.values())
    assert kept[8] < kept[None] / 2
