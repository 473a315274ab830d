"""The loss in one pass against the loss of the nodes."""

import numpy as np
import pytest
import torch
from hippynn.experiment import assemble_for_training
from hippynn.graphs.nodes.base import LossInputNode
from planted import write_ani1x
from tiny import split_structures

from hippynn_mf import keys
from hippynn_mf.data.database import build_database
from hippynn_mf.data.formats.ani1x import read_ani1x
from hippynn_mf.hyperparameters import get_hyperparameters
from hippynn_mf.labels import parse_labels
from hippynn_mf.levels import PAPER_LEVELS
from hippynn_mf.model.losses import LossWeights, build_loss
from hippynn_mf.model.model import build_model
from hippynn_mf.model.whole_loss import WholeLoss
from hippynn_mf.training.loop import prepare_training

N, N_ATOMS = 7, 5
LABELS = {
    "one level": {"DZ": "E"},
    "with forces": {"DZ": "EF"},
    "forces below": {"DZ": "EF", "CC": "E"},
    "forces of two levels": {"DZ": "EF", "TZ": "EF", "CC": "E"},
}


EQUAL = LossWeights()


def losses_of(labels, weight=EQUAL):
    network = get_hyperparameters("quick", {"n_features": 4, "n_atom_layers": 1})
    heads = build_model(network, parse_labels(labels)).heads
    weights = {
        level_id: LossWeights(weight.energy + k, weight.forces + 2 * k, weight.hierarchicality + k)
        for k, level_id in enumerate(heads)
    }
    modules, _ = assemble_for_training(build_loss(heads, weights), {"loss": build_loss(heads)})
    return modules.loss, WholeLoss(modules.loss, heads, weights)


def values_for(graph, *, missing=0.3, seed=0):
    """Random inputs of a loss graph, with padding and missing labels."""
    generator = np.random.default_rng(seed)
    species = generator.choice([1, 6, 8], size=(N, N_ATOMS))
    species[2, 3:] = species[4, 1:] = 0
    values = []
    for node in graph.input_nodes:
        assert isinstance(node, LossInputNode)
        is_forces = (node.db_name or "").endswith(keys.FORCES)
        if node.db_name == keys.SPECIES:
            values.append(torch.as_tensor(species))
            continue
        array = generator.normal(size=(N, N_ATOMS, 3) if is_forces else (N, 1))
        if is_forces:
            array[species == 0] = 0
        if type(node).__name__ == "LossTrueNode":
            array[generator.random(array.shape) < missing] = np.nan
            array.flat[0] = np.inf  # not finite either, so no label
        values.append(torch.as_tensor(array).requires_grad_(type(node).__name__ == "LossPredNode"))
    return values


def loss_and_gradients(loss, values):
    leaves = [v for v in values if v.requires_grad]
    (value,) = loss(*values)
    gradients = torch.autograd.grad(3 * value, leaves, allow_unused=True)
    return value.detach(), [
        torch.zeros_like(v) if g is None else g for v, g in zip(leaves, gradients, strict=True)
    ]


@pytest.mark.parametrize("labels", LABELS.values(), ids=list(LABELS))
@pytest.mark.parametrize("missing", [0.0, 0.4, 1.0], ids=["all", "some", "none"])
@pytest.mark.parametrize("is_compiled", [False, True], ids=["torch", "kernels"])
def test_value_and_gradients_are_those_of_the_nodes(labels, missing, is_compiled):
    nodes, whole = losses_of(labels)
    whole.is_compiled = is_compiled
    values = values_for(nodes, missing=missing)
    expected, of_nodes = loss_and_gradients(nodes, values)
    found, gradients = loss_and_gradients(whole, values)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    for gradient, other in zip(gradients, of_nodes, strict=True):
        assert gradient.numpy() == pytest.approx(other.numpy(), rel=1e-11, abs=1e-14)


def test_no_error_is_no_slope():
    nodes, whole = losses_of({"DZ": "EF"}, LossWeights(hierarchicality=0.0))
    values = values_for(nodes, missing=0.0)
    by_name = {(type(n).__name__, n.db_name): k for k, n in enumerate(nodes.input_nodes)}
    for (kind, name), place in by_name.items():
        if kind == "LossPredNode" and ("LossTrueNode", name) in by_name:
            values[place] = values[by_name["LossTrueNode", name]].clone().requires_grad_()
    values = [
        torch.where(torch.isinf(v), 0, v).detach().requires_grad_(v.requires_grad) for v in values
    ]
    found, gradients = loss_and_gradients(whole, values)
    assert found.item() == 0
    assert all((gradient == 0).all() for gradient in gradients)


def test_a_diverged_prediction_makes_the_loss_nan():
    nodes, whole = losses_of({"DZ": "EF"})
    for place, node in enumerate(nodes.input_nodes):
        if type(node).__name__ != "LossPredNode":
            continue
        values = values_for(nodes, missing=0.0)
        values[place] = torch.full_like(values[place], np.nan).requires_grad_()
        assert whole(*values)[0].isnan()
        assert nodes(*values)[0].isnan()


def test_other_shapes_are_refused():
    nodes, whole = losses_of({"DZ": "EF"})
    for place, node in enumerate(nodes.input_nodes):
        values = values_for(nodes)
        if type(node).__name__ == "LossTrueNode" and node.db_name != keys.SPECIES:
            values[place] = values[place][1:]
            with pytest.raises(ValueError, match="differ in shape"):
                whole(*values)


def test_there_is_no_second_derivative():
    nodes, whole = losses_of({"DZ": "E"})
    values = values_for(nodes)
    (value,) = whole(*values)
    leaf = next(v for v in values if v.requires_grad)
    (gradient,) = torch.autograd.grad(value, leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        gradient.sum().backward()


def test_the_first_steps_of_a_training_are_those_of_nodes_and_adam(parts_with_holes):
    """Everything that one process does otherwise than several, together."""
    labels = parse_labels({"DZ": "EF", "MP2": "E"})
    chosen = {
        "n_features": 6,
        "n_sensitivities": 5,
        "n_atom_layers": 1,
        "batch_size": 16,
        "dist_soft_min": 0.5,
    }
    hyperparameters = get_hyperparameters("quick", chosen)
    losses, metrics = [], []
    for in_one_process in (True, False):
        torch.manual_seed(3)
        model = build_model(hyperparameters, labels)
        database = build_database(parts_with_holes, labels)
        training = prepare_training(model, database, hyperparameters, in_one_process=in_one_process)
        network, loss, evaluator = training.modules
        optimizer, n_inputs = training.controller.optimizer, len(database.inputs)
        of_steps = []
        for batch in database.make_generator("train", "train", 16):
            optimizer.zero_grad()
            (value,) = loss(*network(*batch[:n_inputs]), *batch[n_inputs:])
            value.backward()
            optimizer.step()
            of_steps.append(value.item())
        losses.append(of_steps)
        valid = database.make_generator("valid", "eval", 16)
        metrics.append(evaluator.evaluate(valid, "valid"))
    assert len(losses[0]) > 5
    # In float32, as data are: rounding is all the difference there may be.
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert metrics[0] == pytest.approx(metrics[1], rel=1e-5)


@pytest.fixture
def parts_with_holes(tmp_path):
    missing = {
        "H2O": {"mp2_tz.corr_energy": slice(0, 20)},
        "N2": {"wb97x_dz.forces": slice(0, 20)},
    }
    path = write_ani1x(tmp_path / "holey.h5", missing=missing)
    labels = parse_labels({"DZ": "EF", "MP2": "E"})
    structures, _ = read_ani1x(path, labels, common_levels=PAPER_LEVELS)
    return split_structures(structures, np.ones(len(structures), bool), 0)
