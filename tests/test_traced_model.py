"""The traced training step: outputs and gradients of the graph, and what is said when it fails.

Without a compiler: the backend `aot_eager` traces both derivatives, which takes seconds, and runs
them as they are; `eager` runs what would be traced.
"""

from __future__ import annotations

import copy
import logging

import hippynn
import pytest
import torch
from hippynn.experiment import assemble_for_training
from planted import write_ani1x
from tiny import TINY, labelled_batch, lose_labels, short_training, tiny_model

from hippynn_mf.data.database import TrainingDatabase, load_database
from hippynn_mf.errors import UserError
from hippynn_mf.hyperparameters import Hyperparameters, get_hyperparameters
from hippynn_mf.keys import PAIRS, POSITIONS, SPECIES
from hippynn_mf.labels import parse_labels
from hippynn_mf.model import traced_model, tracing
from hippynn_mf.model.losses import build_loss
from hippynn_mf.model.model import build_model
from hippynn_mf.model.traced_model import TracedModel, trace
from hippynn_mf.neighbours import NeighbourLists
from hippynn_mf.network import choice
from hippynn_mf.network.padded import Sizes, SizeSteps, sizes_needed
from hippynn_mf.network.stored_pairs import precompute_pairs
from hippynn_mf.training.loop import continue_training, prepare_training

pytestmark = pytest.mark.usefixtures("float64")

LABELS = {"DZ": "EF", "TZ": "EF", "CC": "E"}


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch):
    monkeypatch.setattr(tracing, "BACKEND", "eager")


def graph_and_traced(model, batch, batch_size=None):
    """The graph of a training with stored pairs, the same traced; inputs and targets."""
    loss = build_loss(model.heads)
    modules, info = assemble_for_training(loss, {"loss": loss})
    arrays = {name: array.numpy() for name, array in batch.items()}
    database = TrainingDatabase(dict.fromkeys(("train", "valid", "test"), arrays), **info)
    modules = precompute_pairs(modules, database)
    traced = trace(modules, model.heads, database, batch_size or len(batch[SPECIES]))
    width = batch[SPECIES].shape[1]
    pairs = database.pairs["train"].batch_pairs(torch.arange(len(batch[SPECIES])), width)
    inputs = [(batch | {PAIRS: pairs})[name] for name in database.inputs]
    return modules, traced, inputs, [batch[name] for name in info["targets"]]


def outputs_and_slopes(modules, model, inputs, targets):
    parameters = [p for p in model.parameters.parameters() if p.requires_grad]
    outputs = modules.model(*(each.clone() for each in inputs))
    (loss,) = modules.loss(*outputs, *targets)
    return outputs, torch.autograd.grad(loss, parameters, allow_unused=True)


def assert_same(model, batch, batch_size=None):
    graph, traced, inputs, targets = graph_and_traced(model, batch, batch_size)
    assert type(traced.model) is TracedModel
    assert traced.evaluator.model is traced.model
    expected, slopes = outputs_and_slopes(graph, model, inputs, targets)
    for _ in range(2):  # the first call is compared, the second one is not
        found, ours = outputs_and_slopes(traced, model, inputs, targets)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
        largest = max(torch.linalg.norm(each) for each in slopes if each is not None)
        for one, other in zip(ours, slopes, strict=True):
            if other is None:
                assert one is None or not one.any()
            else:
                norm = torch.linalg.norm(other)
                assert torch.linalg.norm(one - other) <= 1e-10 * norm + 1e-13 * largest
    assert len(traced.model._tracer.compiled) == 1


@pytest.mark.parametrize(
    ("order", "coupling", "labels", "backend"),
    [
        (0, "delta", {"DZ": "EF", "CC": "E"}, "eager"),
        (1, "independent", {"DZ": "EF", "CC": "E"}, "eager"),
        (2, "delta", LABELS, "eager"),
        (2, "independent", LABELS, "eager"),
        (2, "independent", {"DZ": "EF", "CC": "E"}, "aot_eager"),
        (2, "independent", {"CC": "E"}, "aot_eager"),
    ],
    ids=str,
)
def test_outputs_and_gradients_are_those_of_the_graph(
    order, coupling, labels, backend, monkeypatch
):
    monkeypatch.setattr(tracing, "BACKEND", backend)
    model = tiny_model(labels, tensor_order=order, coupling=coupling, interaction="traced")
    assert_same(model, labelled_batch(model))


@pytest.mark.parametrize("missing", ["some", "all forces", "everything"])
def test_missing_labels(missing):
    model = tiny_model({"DZ": "EF", "CC": "E"}, interaction="traced")
    batch = labelled_batch(model)
    lose_labels(model, batch, missing)
    assert_same(model, batch)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_frozen_layers_and_heads_with_layers_in_common(backend, monkeypatch):
    monkeypatch.setattr(tracing, "BACKEND", backend)
    model = tiny_model({"DZ": "EF", "CC": "E"}, interaction="traced", n_interaction_layers=1)
    first, *others = (head.energy.torch_module for head in model.heads.values())
    for other in others:
        other.layers[1] = first.layers[1]
    model.heads.network.torch_module.blocks[0][0].requires_grad_(False)
    assert_same(model, labelled_batch(model))


def test_atoms_without_neighbours():
    model = tiny_model({"DZ": "EF"}, interaction="traced", dist_hard_max=1.2, dist_soft_max=1.1)
    batch = labelled_batch(model)
    batch[POSITIONS][:, 0] += 50.0
    assert_same(model, batch)


def test_no_pairs_at_all():
    model = tiny_model({"DZ": "EF"}, interaction="traced")
    batch = labelled_batch(model)
    batch[SPECIES][:, 1:] = 0
    assert_same(model, batch)


def test_a_batch_smaller_than_the_batch_size_is_filled_up():
    model = tiny_model({"DZ": "EF", "CC": "E"}, interaction="traced")
    batch = labelled_batch(model, 4)
    graph, traced, inputs, targets = graph_and_traced(model, batch)
    outputs_and_slopes(traced, model, inputs, targets)
    kept = batch[SPECIES].shape[0] - 5
    fewer = [each[:kept] if len(each) == len(batch[SPECIES]) else each for each in inputs]
    places = [k for k, each in enumerate(inputs) if each.shape[1:] == (2,)]
    fewer[places[0]] = (pairs := inputs[places[0]])[
        (pairs < kept * batch[SPECIES].shape[1]).all(dim=1)
    ]
    some = [each[:kept] for each in targets]
    expected, slopes = outputs_and_slopes(graph, model, fewer, some)
    found, ours = outputs_and_slopes(traced, model, fewer, some)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    for one, other in zip(ours, slopes, strict=True):
        if other is not None:
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    assert len(traced.model._tracer.compiled) == 1


def test_evaluation_and_derivatives_by_positions_are_the_graphs():
    model = tiny_model({"DZ": "EF"}, interaction="traced")
    graph, traced, inputs, _ = graph_and_traced(model, labelled_batch(model))
    traced.model.eval()
    for one, other in zip(
        traced.model(*(i.clone() for i in inputs)), graph.model(*inputs), strict=True
    ):
        assert torch.equal(one, other)
    traced.model.train()
    place = next(k for k, each in enumerate(inputs) if each.is_floating_point())
    inputs[place].requires_grad_(True)
    energies = traced.model(*inputs)[0].sum()
    torch.autograd.grad(energies, inputs[place])
    assert not traced.model._tracer.compiled


def test_the_state_is_that_of_the_graph_and_a_copy_has_its_own():
    model = tiny_model(LABELS, interaction="traced")
    graph, traced, inputs, _ = graph_and_traced(model, labelled_batch(model))
    assert traced.model.state_dict().keys() == graph.model.state_dict().keys()
    copied = copy.deepcopy(traced.model)
    expected = [each.detach().clone() for each in traced.model(*inputs)]
    with torch.no_grad():
        for parameter in traced.model.parameters():
            if parameter.is_floating_point():
                parameter.mul_(0.5)
    for one, other in zip(copied(*inputs), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def backend_of(compile_graph):
    """A backend for one test."""

    def backend(graph, inputs):
        return compile_graph(graph.forward)

    return backend


def wrong_outputs(forward):
    return lambda *a: tuple(1.01 * each for each in forward(*a))


def wrong_gradients(forward):
    """Right numbers of which a derivative has been lost, as by a `detach` in a traced graph."""
    return lambda *a: tuple(0.5 * each + 0.5 * each.detach() for each in forward(*a))


def no_number(forward):
    return lambda *a: tuple(each * torch.nan for each in forward(*a))


@pytest.mark.parametrize(
    ("wrong", "what"),
    [(wrong_outputs, "outputs"), (wrong_gradients, "gradients"), (no_number, "outputs")],
)
def test_what_differs_from_the_graph_is_not_used(wrong, what, monkeypatch):
    model = tiny_model({"DZ": "EF"}, interaction="traced")
    monkeypatch.setattr(tracing, "BACKEND", backend_of(wrong))
    _, traced, inputs, _ = graph_and_traced(model, labelled_batch(model))
    with pytest.raises(UserError, match=f"{what} of the compiled step differ .* Take interaction"):
        traced.model(*inputs)
    with pytest.raises(UserError, match="differ"):  # nor is it the next time
        traced.model(*inputs)


def test_a_diverged_training_is_not_blamed_on_the_compiler(monkeypatch):
    model = tiny_model({"DZ": "EF"}, interaction="traced")
    _, traced, inputs, _ = graph_and_traced(model, labelled_batch(model))
    weight = model.heads.network.torch_module.blocks[0][0].base_layer.int_weights
    before = weight.detach().clone()
    weight.data.fill_(torch.nan)
    assert all(each.isnan().any() for each in traced.model(*inputs))
    weight.data.copy_(before)
    monkeypatch.setattr(traced_model, "OUTPUTS_AGREE", {torch.float64: -1.0})
    with pytest.raises(UserError, match="differ"):  # it is compared as soon as it can be
        traced.model(*inputs)


def test_a_failing_compiler_is_reported(monkeypatch):
    def fails(forward):
        raise RuntimeError("no such instruction\nand much more")

    model = tiny_model({"DZ": "EF"}, interaction="traced")
    monkeypatch.setattr(tracing, "BACKEND", backend_of(fails))
    _, traced, inputs, _ = graph_and_traced(model, labelled_batch(model))
    with pytest.raises(UserError, match=r"could not compile \(RuntimeError: no such instruction\)"):
        traced.model(*inputs)


def test_a_missing_compiler_is_reported_before_anything_is_read(monkeypatch):
    from torch._inductor import cpp_builder

    device = torch.device("cpu")
    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", lambda: "g++")
    assert str(choice.choose_interaction("traced", device)) == "traced"

    def none_there():
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none_there)
    with pytest.raises(UserError, match=r"interaction=traced is not possible here: .*g\+\+"):
        choice.choose_interaction("traced", device)
    assert str(choice.choose_interaction("fast", device)) == "fast"


def test_what_is_not_traced_is_an_error():
    labels = {"DZ": "EF", "CC": "E"}
    hyperparameters = Hyperparameters(**TINY, interaction="traced")
    second = build_model(hyperparameters, parse_labels(labels), has_second_network=True)
    loss = build_loss(second.heads)
    modules, _ = assemble_for_training(loss, {"loss": loss})
    with pytest.raises(UserError, match=r"interaction=traced .*: pairs are not stored"):
        trace(modules, second.heads, None, 2)
    assert traced_model._why_not_traced(modules.model, second.heads) == "this model has 2 networks"
    stock = tiny_model(labels, interaction="stock")
    with pytest.raises(UserError, match="not one of hippynn_mf"):
        graph_and_traced(stock, labelled_batch(stock))


def test_sizes_do_not_depend_on_the_order_of_batches():
    species = torch.tensor([[1] * 9 + [0] * 3, [1] * 12] * 50)
    positions = torch.rand(100, 12, 3, generator=torch.Generator().manual_seed(0))
    lists = NeighbourLists.of(species, positions, 10.0)
    steps = SizeSteps.of((species > 0).sum(dim=1).numpy(), lists, 20)
    assert steps.usual == Sizes(20, 256, 11)  # 210 atoms, and two standard deviations of 6.7
    assert steps.at_least(Sizes(3, 30, 8)) == steps.usual
    assert steps.at_least(Sizes(20, 257, 13)) == Sizes(20, 320, 15)
    assert steps.at_least(Sizes(21, 256, 11)) == Sizes(40, 256, 11)


def test_sizes_needed_of_a_batch():
    species = torch.tensor([[1, 1, 0], [6, 1, 1]])
    pairs = torch.tensor([[0, 1], [1, 0], [3, 4], [3, 5], [4, 3], [5, 3]])
    assert sizes_needed(species, pairs) == Sizes(2, 5, 2)
    assert sizes_needed(species, pairs[:0]) == Sizes(2, 5, 1)


def test_training_is_that_of_the_fast_interaction(tmp_path, monkeypatch, caplog):
    """The whole loop: batches, the last of which is smaller, validation, the best parameters."""
    monkeypatch.setattr(hippynn.settings, "WARN_LOW_DISTANCES", False)
    torch.set_default_dtype(torch.float32)
    path = write_ani1x(tmp_path / "planted.h5")
    found = {}
    for interaction in ("fast", "traced"):
        training = short_training(path, interaction)
        with caplog.at_level(logging.INFO, logger="hippynn_mf"):
            continue_training(training, [])
        found[interaction] = training.tracker.best_metric_values["valid"]
    assert "agrees with interaction=fast" in caplog.text
    for name, value in found["fast"].items():
        assert found["traced"][name] == pytest.approx(value, rel=1e-3), name


def test_pairs_that_are_not_stored_are_refused_before_anything_begins():
    with pytest.raises(UserError, match="traced goes with precompute_pairs=true; found false"):
        get_hyperparameters("quick", {"interaction": "traced", "precompute_pairs": False})


def test_several_processes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(hippynn.settings, "WARN_LOW_DISTANCES", False)
    path = write_ani1x(tmp_path / "planted.h5")
    hyperparameters = Hyperparameters(**TINY, interaction="traced")
    database = load_database(path, {"CC": "E"})
    with pytest.raises(UserError, match="one process"):
        prepare_training(tiny_model({"CC": "E"}), database, hyperparameters, in_one_process=False)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_what_is_compiled_for_a_gpu_trains_as_the_graph_does(tmp_path, monkeypatch):
    monkeypatch.setattr(hippynn.settings, "WARN_LOW_DISTANCES", False)
    monkeypatch.setattr(tracing, "BACKEND", "inductor")
    torch.set_default_dtype(torch.float32)
    path = write_ani1x(tmp_path / "planted.h5")
    found = {}
    for interaction in ("fast", "traced"):
        options = {"interaction": interaction, "max_epochs": 2, "batch_size": 8}
        hyperparameters = Hyperparameters(**TINY, **options)
        model = tiny_model({"DZ": "EF", "CC": "E"}, interaction=interaction)
        database = load_database(path, {"DZ": "EF", "CC": "E"})
        training = prepare_training(model, database, hyperparameters, device="cuda")
        continue_training(training, [])
        found[interaction] = training.tracker.best_metric_values["valid"]
    for name, value in found["fast"].items():
        assert found["traced"][name] == pytest.approx(value, rel=1e-2), name
