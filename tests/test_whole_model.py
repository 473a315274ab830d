"""The whole model at once: the outputs of the graph, and the derivatives of a loss of them."""

from __future__ import annotations

import contextlib
import copy

import hippynn
import numpy as np
import pytest
import torch
from hippynn.experiment import assemble_for_training
from hippynn.experiment.step_functions import get_step_function
from planted import write_ani1x
from tiny import labelled_batch, lose_labels, short_training, tiny_model

from hippynn_mf.data.database import TrainingDatabase
from hippynn_mf.keys import PAIRS, SPECIES
from hippynn_mf.levels import CC
from hippynn_mf.model.losses import LossWeights, build_loss
from hippynn_mf.model.whole_loss import WholeLoss
from hippynn_mf.model.whole_model import WholeModel, compute_at_once
from hippynn_mf.network.compiled import shares
from hippynn_mf.network.stored_pairs import precompute_pairs
from hippynn_mf.training.loop import (
    continue_training,
    flat_adam,
    freeze_interactions,
)

pytestmark = pytest.mark.usefixtures("float64")

LABELS = {"DZ": "EF", "TZ": "EF", "CC": "E"}


def graph_and_whole(model, batch):
    """The graph of a training with stored pairs, and the same as a whole; and their inputs."""
    loss = build_loss(model.heads)
    modules, info = assemble_for_training(loss, {"loss": loss})
    arrays = {name: array.numpy() for name, array in batch.items()}
    database = TrainingDatabase(dict.fromkeys(("train", "valid", "test"), arrays), **info)
    modules = precompute_pairs(modules, database)
    whole = compute_at_once(modules, model.heads)
    pairs = database.pairs["train"]
    width = batch[SPECIES].shape[1]
    batch[PAIRS] = pairs.batch_pairs(torch.arange(len(batch[SPECIES])), width)
    inputs = [batch[name] for name in database.inputs]
    return modules, whole, inputs, [batch[name] for name in info["targets"]]


def assert_same(model, batch):
    graph, whole, inputs, targets = graph_and_whole(model, batch)
    assert type(whole.model) is WholeModel
    assert whole.evaluator.model is whole.model
    parameters = [p for p in model.parameters.parameters() if p.requires_grad]
    results = []
    for modules in (graph, whole):
        outputs = modules.model(*(each.clone() for each in inputs))
        (loss,) = modules.loss(*outputs, *targets)
        slopes = torch.autograd.grad(loss, parameters, allow_unused=True)
        results.append((outputs, slopes))
    (expected, slopes), (found, ours) = results
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    largest = max(torch.linalg.norm(each) for each in slopes if each is not None)
    for one, other in zip(ours, slopes, strict=True):
        if other is None:
            assert one is None or not one.any()
        else:
            norm = torch.linalg.norm(other)
            assert torch.linalg.norm(one - other) <= 1e-10 * norm + 1e-13 * largest


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("coupling", ["independent", "delta"])
@pytest.mark.parametrize(
    "labels", [{"CC": "E"}, {"DZ": "EF"}, {"DZ": "EF", "CC": "E"}, LABELS], ids=str
)
def test_outputs_and_gradients_are_those_of_the_graph(order, coupling, labels):
    model = tiny_model(labels, tensor_order=order, coupling=coupling, interaction="compiled")
    assert_same(model, labelled_batch(model))


@pytest.mark.parametrize("missing", ["some", "a level", "all forces", "everything"])
def test_missing_labels(missing):
    model = tiny_model(LABELS, interaction="compiled")
    batch = labelled_batch(model)
    lose_labels(model, batch, missing)
    assert_same(model, batch)


def test_frozen_layers():
    model = tiny_model(LABELS, interaction="compiled")
    model.heads.network.torch_module.blocks[0][0].requires_grad_(False)
    assert_same(model, labelled_batch(model))


def test_heads_with_layers_in_common():
    model = tiny_model(LABELS, interaction="compiled")
    first, *others = (head.energy.torch_module for head in model.heads.values())
    for other in others:
        other.layers[1] = first.layers[1]
    assert_same(model, labelled_batch(model))


def test_atoms_without_neighbours():
    model = tiny_model(LABELS, interaction="compiled", dist_hard_max=1.2, dist_soft_max=1.1)
    batch = labelled_batch(model)
    batch["positions"][:, 0] += 50.0
    assert_same(model, batch)


@pytest.fixture(params=[2, 3, 50])
def threads(request, monkeypatch):
    """So many threads, each with a share of any batch."""
    monkeypatch.setattr(shares, "LEAST_SHARE", 1)
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("missing", [None, "some", "a level", "everything"])
def test_shares_of_threads_are_the_whole(threads, missing, monkeypatch):
    model = tiny_model(LABELS, interaction="compiled")
    batch = labelled_batch(model)
    if missing:
        lose_labels(model, batch, missing)
    used = []
    in_threads = shares._in_threads
    monkeypatch.setattr(shares, "_in_threads", lambda f, n: used.append(n) or in_threads(f, n))
    assert_same(model, batch)
    assert min(used) > 1
    _, whole, inputs, targets = graph_and_whole(model, batch)
    found = []
    for _ in range(3):
        model.parameters.zero_grad()
        outputs = whole.model(*inputs)
        whole.loss(*outputs, *targets)[0].backward()
        found.append([*outputs, *(p.grad for p in model.parameters.parameters())])
    for again in found[1:]:
        for one, other in zip(found[0], again, strict=True):
            assert one is other is None or torch.equal(one, other)


def test_shares_have_all_structures_and_pairs_once():
    rng = np.random.default_rng(3)
    for n_shares in (2, 3, 7):
        n, width = 7, 5
        species = (rng.random((n, width)) < 0.6) * 6
        species[rng.integers(n)] = 0  # a structure without atoms
        structures = rng.integers(n, size=40)
        pairs = rng.integers(width, size=(40, 2)) + width * structures[:, None]
        bounds, parts, chosen = shares._cut(species, pairs, n_shares)
        assert sorted(np.concatenate(chosen)) == list(range(len(pairs)))
        assert (bounds[0], bounds[-1]) == (0, n)
        assert (np.diff(bounds) > 0).all()
        joined = [part + first * width for part, first in zip(parts, bounds[:-1], strict=True)]
        assert sorted(map(tuple, np.concatenate(joined))) == sorted(map(tuple, pairs))
        for part, first, last in zip(parts, bounds[:-1], bounds[1:], strict=True):
            assert set((part // width).ravel()) <= set(range(last - first))


def test_the_state_is_that_of_the_graph():
    model = tiny_model(LABELS, interaction="compiled")
    graph, whole, inputs, _ = graph_and_whole(model, labelled_batch(model))
    assert whole.model.state_dict().keys() == graph.model.state_dict().keys()
    copied = copy.deepcopy(whole.model)
    expected = [each.clone() for each in whole.model(*inputs)]
    with torch.no_grad():
        for parameter in whole.model.parameters():
            if parameter.is_floating_point():
                parameter.zero_()
    for one, other in zip(copied(*inputs), expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("is_frozen", [False, True])
def test_parameters_in_the_vector_of_adam(is_frozen):
    """The loss and a step are those of single parameters, which still follow."""
    found = []
    for takes_vector in (False, True):
        model = tiny_model(LABELS, interaction="compiled")
        batch = labelled_batch(model)
        for head in model.heads.values():  # as trainings do
            head.energy.torch_module.layers[0].requires_grad_(False)
        if is_frozen:
            freeze_interactions(model)
        _, whole, inputs, targets = graph_and_whole(model, batch)
        parameters = [p for p in model.parameters.parameters() if p.requires_grad]
        adam = flat_adam(whole.model, parameters, 0.01)
        if not takes_vector:
            whole.model._vector.clear()
        for _ in range(3):
            adam.zero_grad()
            outputs = whole.model(*(each.clone() for each in inputs))
            (loss,) = whole.loss(*outputs, *targets)
            loss.backward()
            adam.step()
        found.append((loss.detach(), model.parameters.state_dict()))
        is_in_vector = not is_frozen and takes_vector
        n_leaves = 1 + len(LABELS) if is_in_vector else len(list(model.parameters.parameters()))
        assert len(outputs[0].grad_fn.next_functions) == n_leaves
    (expected, state), (ours, our_state) = found
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)
    for name, value in our_state.items():
        torch.testing.assert_close(value, state[name], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("labels_as", [torch.float64, torch.float32])
@pytest.mark.parametrize("fixed_species", [True, False])
def test_a_step_past_autograd_is_the_same(labels_as, fixed_species):
    """Also where labels have another precision, so that the loss is none of kernels."""
    found = []
    for is_past in (False, True):
        model = tiny_model(LABELS, interaction="compiled", coupling="delta")
        batch = labelled_batch(model)
        batch[CC.energy_name][0] = torch.nan
        for head in model.heads.values():
            head.energy.torch_module.layers[0].requires_grad_(not fixed_species)
        modules, _, inputs, targets = graph_and_whole(model, batch)
        targets = [t.to(labels_as) if t.is_floating_point() else t for t in targets]
        weights = dict.fromkeys(model.heads, LossWeights(forces=2.0))
        modules = modules._replace(loss=WholeLoss(modules.loss, model.heads, weights))
        whole = compute_at_once(modules, model.heads)
        whole.model.train()
        parameters = [p for p in model.parameters.parameters() if p.requires_grad]
        adam = flat_adam(whole.model, parameters, 0.01)
        with whole.model.steps_at_once() if is_past else contextlib.nullcontext():
            for _ in range(3):
                outputs = get_step_function(adam)(adam, whole.model, whole.loss, inputs, targets)
        assert outputs[0].requires_grad == (not (is_past and fixed_species))
        found.append(model.parameters.state_dict())
        assert whole.model(*inputs)[0].requires_grad, "only inside"
        with torch.no_grad(), whole.model.steps_at_once():
            (loss,) = whole.loss(*whole.model(*inputs), *targets)
        assert isinstance(loss, torch.Tensor), "a loss that is only looked at"
    state, our_state = found
    for name, value in our_state.items():
        torch.testing.assert_close(value, state[name], rtol=1e-7, atol=1e-9)


def test_a_second_derivative_is_refused():
    model = tiny_model({"CC": "E"}, interaction="compiled")
    _, whole, inputs, _ = graph_and_whole(model, labelled_batch(model))
    energy = whole.model(*inputs)[0].sum()
    parameters = [p for p in model.parameters.parameters() if p.requires_grad]
    slopes = torch.autograd.grad(energy, parameters, create_graph=True, allow_unused=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        slopes[0].sum().backward()


def test_derivatives_by_positions_come_from_the_graph():
    model = tiny_model({"DZ": "EF"}, interaction="compiled")
    graph, whole, inputs, _ = graph_and_whole(model, labelled_batch(model))
    found = []
    for modules in (graph, whole):
        moved = [each.clone() for each in inputs]
        place = next(k for k, each in enumerate(moved) if each.is_floating_point())
        moved[place].requires_grad_(True)
        energy = modules.model(*moved)[0].sum()
        found.append(torch.autograd.grad(energy, moved[place])[0])
    assert torch.equal(*found)


@pytest.mark.parametrize("interaction", ["fast", "stock"])
def test_other_interactions_keep_their_graph(interaction):
    model = tiny_model({"CC": "E"}, interaction=interaction)
    graph, whole, _, _ = graph_and_whole(model, labelled_batch(model))
    assert whole.model is graph.model


def test_training_is_that_of_the_fast_interaction(tmp_path, monkeypatch):
    """The whole loop: batches, validation, the best parameters."""
    monkeypatch.setattr(hippynn.settings, "WARN_LOW_DISTANCES", False)
    torch.set_default_dtype(torch.float32)
    path = write_ani1x(tmp_path / "planted.h5")
    found = {}
    for interaction in ("fast", "compiled"):
        training = short_training(path, interaction)
        is_whole = type(training.modules.model) is WholeModel
        assert is_whole == (interaction == "compiled")
        continue_training(training, [])
        found[interaction] = training.tracker.best_metric_values["valid"]
    for name, value in found["fast"].items():
        assert found["compiled"][name] == pytest.approx(value, rel=1e-3), name
