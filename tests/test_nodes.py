import ase
import pytest
import torch
from conftest import assert_close
from hippynn.graphs import Predictor, make_ensemble
from hippynn.graphs.nodes.inputs import PositionsNode, SpeciesNode
from hippynn.graphs.nodes.networks import Hipnn
from hippynn.graphs.nodes.physics import GradientNode
from hippynn.graphs.nodes.targets import HEnergyNode
from hippynn.interfaces.ase_interface import HippynnCalculator
from planted import METHANE, WATER, numbers_of
from tiny import outputs, structures, tiny_model

from hippynn_mf import UserError, build_heads
from hippynn_mf.levels import CC, DZ, MP2, TZ
from hippynn_mf.model.predicting import build_predictor
from hippynn_mf.network.hipnn import NETWORKS

pytestmark = pytest.mark.usefixtures("float64")

TWO = {"DZ": "EF", "CC": "EF"}
LABELS = [
    pytest.param({"TZ": "EF"}, id="one"),
    pytest.param({"DZ": "EF", "CC": "E"}, id="two"),
    pytest.param({"DZ": "EF", "TZ": "EF", "MP2": "E", "CC": "EF"}, id="four"),
]
every_order = pytest.mark.parametrize("order", [0, 1, 2], ids=["Hipnn", "HipnnVec", "HipnnQuad"])


def rotation():
    """A rotation without symmetry: the orthogonal factor of a random matrix, determinant 1."""
    q = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))[0]
    return q * torch.linalg.det(q)


def plain_outputs(model, head, species, positions):
    """Energy, hierarchicality and forces of plain hippynn nodes with the weights of a head."""
    inputs = SpeciesNode(db_name="species"), PositionsNode(db_name="positions")
    trunk = model.heads.network
    network = type(trunk)("plain", inputs, module_kwargs=trunk.module_kwargs)
    energy = HEnergyNode("energy", network)
    forces = GradientNode("forces", (energy, inputs[1]), sign=-1)
    network.torch_module.load_state_dict(trunk.torch_module.state_dict())
    energy.torch_module.load_state_dict(head.energy.torch_module.state_dict())
    nodes = energy.mol_energy, energy.hierarchicality, forces
    values = Predictor(list(inputs), list(nodes))(
        node_values={inputs[0]: species, inputs[1]: positions.clone()}
    )
    return [values[node] for node in nodes]


@every_order
@pytest.mark.parametrize("interaction", list(NETWORKS))
@pytest.mark.parametrize("labels", LABELS)
def test_a_level_is_a_plain_energy_node_with_its_weights(labels, interaction, order):
    model = tiny_model(labels, tensor_order=order, interaction=interaction)
    assert type(model.heads.network) is NETWORKS[interaction][order]
    species, positions = structures()
    nodes = [head.energy.mol_energy for head in model.heads.values()]
    nodes += [head.energy.hierarchicality for head in model.heads.values()]
    nodes += [head.forces for head in model.heads.values() if head.forces is not None]
    values = Predictor([model.species, model.positions], nodes)(
        species=species, positions=positions.clone()
    )
    for head in model.heads.values():
        energy, hierarchicality, forces = plain_outputs(model, head, species, positions)
        assert torch.equal(values[head.energy.mol_energy], energy)
        assert torch.equal(values[head.energy.hierarchicality], hierarchicality)
        if head.forces is not None:
            assert torch.equal(values[head.forces], forces)


@pytest.mark.parametrize("labels", LABELS)
def test_a_model_has_the_outputs_that_its_labels_ask_for(labels):
    model = tiny_model(labels)
    assert [level.label for level in model.heads.levels] == list(labels)
    found = outputs(model, *structures())
    expected = {head.level.energy_name for head in model.heads.values()}
    expected |= {h.level.forces_name for h in model.heads.values() if labels[h.level.label] == "EF"}
    assert set(found) == expected
    assert len({tuple(found[h.level.energy_name].ravel()) for h in model.heads.values()}) == len(
        labels
    )


def test_the_order_of_the_labels_does_not_matter():
    labels = {"CC": "E", "DZ": "EF", "TZ": "E"}
    models = [tiny_model(labels), tiny_model(dict(reversed(labels.items())))]
    assert [list(model.heads) for model in models] == [[DZ.id, TZ.id, CC.id]] * 2
    first, second = (outputs(model, *structures()) for model in models)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_head_is_found_by_id_label_or_level():
    heads = tiny_model(TWO).heads
    assert heads["CC"] is heads["ccsd(t)_cbs"] is heads[CC]
    assert heads["CC"].level is CC
    assert CC in heads
    assert "TZ" not in heads


def test_an_unknown_level_is_refused():
    with pytest.raises(UserError, match=r"Unknown level of this model 'CCC'\. Did you mean CC\?"):
        tiny_model(TWO).heads["CCC"]


@pytest.mark.parametrize("name", ["TZ", TZ.id, TZ], ids=["label", "id", "level"])
def test_a_level_without_head_lists_those_with_one(name):
    match = r"Unknown level of this model '(TZ|wb97x_tz)'.*Known: DZ, wb97x_dz, CC, ccsd\(t\)_cbs\."
    with pytest.raises(UserError, match=match):
        tiny_model(TWO).heads[name]


@pytest.mark.parametrize("labels", [{}, {"DZ": "F"}, {"DZ": "E", DZ.id: "E"}], ids=str)
def test_wrong_labels_are_refused(labels):
    with pytest.raises(UserError, match=r"No labels|Unknown property|named twice"):
        build_heads(tiny_model(TWO).heads.network, labels)


@every_order
def test_forces_are_the_negative_gradient_of_each_energy(order):
    model = tiny_model(TWO, tensor_order=order)
    species, positions = (array[[2]] for array in structures(1))  # NH3
    forces = outputs(model, species, positions)
    steps = 2e-4 * torch.eye(15).reshape(15, 1, 5, 3)[:12]
    # The five-point formula: its error is of fourth order.
    stencil = {-2: 1 / 12, -1: -8 / 12, 1: 8 / 12, 2: -1 / 12}
    displaced = torch.cat([positions + n * step for step in steps for n in stencil])
    energies = outputs(model, species.expand(48, -1), displaced)
    for head in model.heads.values():
        values = energies[head.level.energy_name].reshape(12, 4)
        gradient = values @ torch.tensor(list(stencil.values())) / 2e-4
        actual = forces[head.level.forces_name][0, :4].ravel()
        assert actual.abs().max() > 1e-3
        assert_close(actual, -gradient)


@every_order
def test_translation_and_rotation_change_no_energy_and_turn_the_forces(order):
    model = tiny_model(TWO, tensor_order=order)
    species, positions = structures()
    before = outputs(model, species, positions)
    after = outputs(model, species, positions @ rotation().T + torch.tensor([3.0, -1.0, 2.0]))
    for head in model.heads.values():
        assert_close(after[head.level.energy_name], before[head.level.energy_name])
        turned = before[head.level.forces_name] @ rotation().T
        assert_close(after[head.level.forces_name], turned)


@every_order
def test_a_permutation_of_the_atoms_permutes_the_forces(order):
    model = tiny_model(TWO, tensor_order=order)
    species, positions = structures()
    new_order = torch.tensor([2, 0, 4, 1, 3])
    before = outputs(model, species, positions)
    after = outputs(model, species[:, new_order], positions[:, new_order])
    for head in model.heads.values():
        assert_close(after[head.level.energy_name], before[head.level.energy_name])
        assert_close(after[head.level.forces_name], before[head.level.forces_name][:, new_order])


def test_distant_molecules_are_additive():
    model = tiny_model(TWO)
    numbers = [torch.as_tensor(numbers_of(molecule[0])) for molecule in (WATER, METHANE)]
    places = [torch.tensor(molecule[1], dtype=torch.float64) for molecule in (WATER, METHANE)]
    apart = torch.cat([places[0], places[1] + torch.tensor([100.0, 0.0, 0.0])])
    joint = outputs(model, torch.cat(numbers)[None], apart[None])
    single = [outputs(model, z[None], r[None]) for z, r in zip(numbers, places, strict=True)]
    for head in model.heads.values():
        energy, forces = head.level.energy_name, head.level.forces_name
        assert_close(joint[energy], single[0][energy] + single[1][energy])
        assert_close(joint[forces], torch.cat([s[forces] for s in single], dim=1))


def test_padding_changes_nothing():
    model = tiny_model(TWO)
    species, positions = structures()
    noise = torch.randn(len(species), 2, 3)  # where there is no atom, positions mean nothing
    wider = outputs(
        model,
        torch.cat([species, torch.zeros(len(species), 2, dtype=torch.int64)], dim=1),
        torch.cat([positions, noise], dim=1),
    )
    before = outputs(model, species, positions)
    for head in model.heads.values():
        assert_close(wider[head.level.energy_name], before[head.level.energy_name])
        forces = wider[head.level.forces_name]
        assert_close(forces[:, :5], before[head.level.forces_name])
        assert torch.equal(forces[:, 5:], torch.zeros(len(species), 2, 3))


@pytest.mark.parametrize("level", [DZ, CC], ids=["DZ", "CC"])
def test_the_ase_calculator_takes_one_level(level):
    model = tiny_model({"DZ": "EF", "CC": "EF"})
    unit = ase.units.kcal / ase.units.mol
    calculator = HippynnCalculator(model.heads[level].energy, en_unit=unit)
    species, positions = structures(1)
    expected = outputs(model, species, positions)
    for row in range(len(species)):
        n_atoms = int((species[row] > 0).sum())
        numbers, places = species[row, :n_atoms].numpy(), positions[row, :n_atoms].numpy()
        atoms = ase.Atoms(numbers, places, calculator=calculator)
        energy = torch.tensor(atoms.get_potential_energy())
        assert_close(energy, expected[level.energy_name][row, 0] * unit)
        forces = torch.as_tensor(atoms.get_forces())
        assert_close(forces, expected[level.forces_name][row, :n_atoms] * unit)


def test_an_ensemble_averages_every_level():
    models = [tiny_model({"DZ": "EF", "CC": "E"}, seed=seed) for seed in (1, 2)]
    species, positions = structures()
    members = [outputs(model, species, positions) for model in models]
    graph, (_, counts) = make_ensemble(
        [build_predictor(model).graph for model in models], quiet=True
    )
    names = {DZ.energy_name, DZ.forces_name, CC.energy_name}
    assert counts == dict.fromkeys(names, 2)
    ensemble = Predictor.from_graph(graph)(species=species, positions=positions.clone())
    for name in names:
        assert not torch.allclose(members[0][name], members[1][name])
        assert_close(ensemble[f"ensemble_{name}.mean"], (members[0][name] + members[1][name]) / 2)


def test_heads_fit_any_hippynn_network():
    species, positions = SpeciesNode(db_name="z"), PositionsNode(db_name="r")
    arguments = tiny_model(TWO).heads.network.module_kwargs
    network = Hipnn("another name", (species, positions), module_kwargs=arguments)
    heads = build_heads(network, {"MP2": "E", "DZ": "EF"})
    assert heads.network is network
    for level in (DZ, MP2):
        assert heads[level].energy.main_output.db_name == level.energy_name
    assert heads["DZ"].forces.db_name == DZ.forces_name
    assert heads["MP2"].forces is None
