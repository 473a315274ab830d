"""The compiled interaction: the function of the fast one, with derivatives written by hand."""

from __future__ import annotations

import copy
import logging
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import test_interaction
import torch
from conftest import assert_close
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_interaction import (  # noqa: F401
    ORDERS,
    SIZES,
    assert_equal_to_1e_10,
    cloud,
    is_scalar,
    outputs,
    pairs_of,
    test_asymmetric_pair_list,
    test_no_atoms_at_all,
    test_open_systems,
    test_padded_batch,
    test_periodic_system_smaller_than_the_cutoff,
    test_same_initial_weights_from_the_same_seed,
    test_several_images_of_one_pair,
    test_single_precision,
    test_state_dicts_are_interchangeable,
    test_the_parameter_of_the_norms_travels_with_the_state,
    test_unsorted_pair_list,
)
from tiny import evaluate, labelled_batch, lose_labels, tiny_model

from hippynn_mf.errors import UserError
from hippynn_mf.model.losses import build_loss
from hippynn_mf.network import choice, hipnn
from hippynn_mf.network.compiled import kernels, preparing, room
from hippynn_mf.network.hipnn import NETWORKS, _FastForward

every_order = pytest.mark.parametrize("order", ORDERS)
LABELS = {"DZ": "EF", "TZ": "EF", "CC": "E"}


plain_hippynn = test_interaction._plain_hippynn


@pytest.fixture(autouse=True)
def _compiled(monkeypatch, plain_hippynn):
    """Tests that `test_interaction.py` has for the fast networks are for the compiled ones here."""
    monkeypatch.setattr(test_interaction, "OURS", "compiled")
    hipnn.say_fast.cache_clear()


@pytest.fixture
def no_fast(monkeypatch):
    """Nothing is left to the fast networks."""
    monkeypatch.setattr(_FastForward, "through_blocks", None)


def networks(order: int, **changes):
    """A fast and a compiled network with the same random parameters."""
    _, compiled = test_interaction.modules(order, **changes)
    fast = NETWORKS["fast"][order]._auto_module_class(**SIZES | changes)
    fast.load_state_dict(compiled.state_dict())
    return fast, compiled


def features(network, species, positions, first, second, strain=None):
    """Features of all blocks as a function of positions, and of a strain of the vectors."""
    one_hot = torch.eye(len(SIZES["possible_species"]), dtype=torch.bool)[species][:, 1:]
    vectors = positions[second] - positions[first]
    if strain is not None:
        vectors = vectors @ (torch.eye(3) + strain)
    vectors = [vectors.norm(dim=1), vectors][: 1 if is_scalar(network) else 2]
    return network(one_hot, first, second, *vectors)


def energy(network, *arguments, **keywords):
    """A scalar of the features that every one of them changes."""
    blocks = features(network, *arguments, **keywords)
    weights = torch.linspace(0.5, 1.5, len(blocks[0])).unsqueeze(1)
    return sum((block.sin() * weights).sum() for block in blocks)


@every_order
def test_compiled_networks_compile(order, no_fast):
    species, positions = cloud(9)
    _, compiled = networks(order)
    for found in outputs(compiled, species, positions, *pairs_of(positions))[:2]:
        assert torch.isfinite(found).all()


@every_order
@pytest.mark.parametrize("options", [{"resnet": False}, {"activation": torch.nn.SiLU}])
def test_options_without_a_compiled_form_are_fast(order, options):
    species, positions = cloud(6)
    arguments = species, positions, *pairs_of(positions)
    fast, compiled = networks(order, **options)
    assert_equal_to_1e_10(outputs(compiled, *arguments)[:2], outputs(fast, *arguments)[:2])


def test_other_features_than_species_are_fast():
    fast, compiled = networks(1)
    first, second = torch.tensor([0, 1]), torch.tensor([1, 0])
    vectors = torch.tensor([[1.0, 0.2, 0.3], [-1.0, -0.2, -0.3]])
    arguments = torch.rand(2, 3), first, second, vectors.norm(dim=1), vectors
    assert_equal_to_1e_10(compiled(*arguments), fast(*arguments))


def test_hooks_of_layers_are_called():
    species, positions = cloud(5)
    _, compiled = networks(2)
    called = []
    compiled.interaction_layers[1].register_forward_pre_hook(lambda *_: called.append(True))
    features(compiled, species, positions, *pairs_of(positions))
    assert called


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    order=st.sampled_from(ORDERS),
    n_atoms=st.integers(1, 14),
    spread=st.sampled_from([0.4, 1.0, 3.0]),
    seed=st.integers(0, 10**6),
    n_features=st.integers(1, 9),
    n_sensitivities=st.integers(1, 9),
    n_interaction_layers=st.integers(1, 3),
    n_atom_layers=st.integers(0, 3),
    resnet=st.sampled_from([True, 5]),
    removed=st.floats(0, 0.5),
)
def test_random_systems(order, n_atoms, spread, seed, removed, **sizes):
    species, positions = cloud(n_atoms, seed=seed, spread=spread)
    first, second = pairs_of(positions)
    kept = torch.rand(len(first), generator=torch.Generator().manual_seed(seed)) >= removed
    arguments = species, positions, first[kept], second[kept]
    fast, compiled = networks(order, **sizes)
    expected = outputs(fast, *arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_FastForward, "through_blocks", None)
        found = outputs(compiled, *arguments)
    assert_equal_to_1e_10(found[:2], expected[:2])
    # A parameter may have a gradient of rounding alone: compared beside the largest of them.
    largest = max(torch.linalg.norm(each) for each in expected[2])
    for ours, theirs in zip(found[2], expected[2], strict=True):
        assert (
            torch.linalg.norm(ours - theirs) <= 1e-10 * torch.linalg.norm(theirs) + 1e-14 * largest
        )


def test_the_straight_part_of_softplus():
    """Beyond 20 torch's softplus is straight: its slope differs from a sigmoid by 2e-9."""
    species, positions = cloud(8, seed=1, spread=0.4)
    arguments = species, positions, *pairs_of(positions)
    fast, compiled = networks(1)
    for network in (fast, compiled):
        with torch.no_grad():
            network.interaction_layers[0].selfint.bias.add_(21.0)
    assert_equal_to_1e_10(outputs(compiled, *arguments)[:2], outputs(fast, *arguments)[:2])


@every_order
def test_gradients_are_slopes(order, no_fast):
    """By central differences: of the energy, and of a directional derivative of it."""
    species, positions = cloud(6, seed=3)
    arguments = pairs_of(positions)
    _, compiled = networks(order)
    parameters = list(compiled.parameters())
    generator = torch.Generator().manual_seed(0)
    along = torch.randn(positions.shape, generator=generator)
    directions = [torch.randn(p.shape, generator=generator) for p in parameters]

    def slope(shift, create_graph=False):
        moved = (positions + shift * along).requires_grad_(True)
        value = energy(compiled, species, moved, *arguments)
        (gradient,) = torch.autograd.grad(value, moved, create_graph=create_graph)
        return value, (gradient * along).sum()

    h = 1e-5
    _, forward = slope(0.0, create_graph=True)
    by_difference = (slope(h)[0] - slope(-h)[0]) / (2 * h)
    torch.testing.assert_close(forward, by_difference, rtol=1e-7, atol=1e-7)

    gradients = torch.autograd.grad(forward, parameters, allow_unused=True)
    expected = sum(
        (g * d).sum() for g, d in zip(gradients, directions, strict=True) if g is not None
    )
    shifted = []
    for sign in (1, -1):
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter += sign * h * direction
        shifted.append(slope(0.0)[1])
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter -= sign * h * direction
    torch.testing.assert_close(expected, (shifted[0] - shifted[1]) / (2 * h), rtol=1e-6, atol=1e-6)


@every_order
def test_second_derivatives_by_positions(order):
    species, positions = cloud(5, seed=2)
    arguments = pairs_of(positions)
    found = []
    for network in networks(order):
        moved = positions.clone().requires_grad_(True)
        value = energy(network, species, moved, *arguments)
        (gradient,) = torch.autograd.grad(value, moved, create_graph=True)
        rows = [
            torch.autograd.grad(each, moved, retain_graph=True)[0] for each in gradient.flatten()
        ]
        found.append([value, gradient, torch.stack(rows)])
    assert found[0][2].abs().max() > 1e-3
    assert_equal_to_1e_10(found[1], found[0])


@every_order
def test_a_loss_of_stress(order):
    """Stress comes from the derivatives by pair vectors, as forces do."""
    species, positions = cloud(7)
    found = []
    for network in networks(order):
        strain = torch.zeros(3, 3, requires_grad=True)
        value = energy(network, species, positions, *pairs_of(positions), strain=strain)
        (stress,) = torch.autograd.grad(value, strain, create_graph=True)
        stress.square().sum().backward()
        slopes = [torch.zeros_like(p) if p.grad is None else p.grad for p in network.parameters()]
        found.append([stress, *slopes])
    assert found[0][0].abs().max() > 1e-3
    assert_equal_to_1e_10(found[1], found[0])


@every_order
def test_gradients_can_be_asked_for_again_and_one_by_one(order, no_fast):
    species, positions = cloud(7)
    arguments = pairs_of(positions)
    _, compiled = networks(order)
    moved = positions.clone().requires_grad_(True)
    value = energy(compiled, species, moved, *arguments)
    (gradient,) = torch.autograd.grad(value, moved, create_graph=True)
    loss = value + gradient.square().sum()
    parameters = list(compiled.parameters())
    whole = torch.autograd.grad(loss, [*parameters, moved], retain_graph=True)
    again = torch.autograd.grad(loss, [*parameters, moved], retain_graph=True)
    for first, second in zip(whole, again, strict=True):
        assert torch.equal(first, second)
    for parameter, expected in zip(parameters, whole, strict=False):
        (alone,) = torch.autograd.grad(loss, parameter, retain_graph=True)
        assert_close(alone, expected)
    parts = [
        torch.autograd.grad(part, parameters, retain_graph=True)
        for part in (value, gradient.square().sum())
    ]
    for one, other, both in zip(*parts, whole, strict=False):
        assert_close(one + other, both)


@every_order
def test_frozen_parameters_get_no_gradient(order, no_fast):
    species, positions = cloud(7)
    _, compiled = networks(order)
    compiled.blocks[0].requires_grad_(False)
    positions.requires_grad_(True)
    value = energy(compiled, species, positions, *pairs_of(positions))
    (gradient,) = torch.autograd.grad(value, positions, create_graph=True)
    gradient.square().sum().backward()
    for name, parameter in compiled.named_parameters():
        assert (parameter.grad is None) == name.startswith("blocks.0"), name


def test_a_third_derivative_is_refused():
    species, positions = cloud(4)
    _, compiled = networks(2)
    positions.requires_grad_(True)
    value = energy(compiled, species, positions, *pairs_of(positions))
    (gradient,) = torch.autograd.grad(value, positions, create_graph=True)
    with pytest.raises(RuntimeError, match="interaction=fast"):
        torch.autograd.grad(gradient.square().sum(), positions, create_graph=True)


def test_second_derivatives_by_two_parameters_are_refused():
    species, positions = cloud(4)
    _, compiled = networks(2)
    value = energy(compiled, species, positions, *pairs_of(positions))
    with pytest.raises(RuntimeError, match="interaction=fast"):
        torch.autograd.grad(value, list(compiled.parameters()), create_graph=True)


def model_pair(labels, **options):
    """A fast and a compiled model with the same parameters."""
    fast = tiny_model(labels, interaction="fast", **options)
    compiled = tiny_model(labels, seed=1, interaction="compiled", **options)
    compiled.parameters.load_state_dict(fast.parameters.state_dict())
    return fast, compiled


def assert_same_loss(models, batch):
    (expected, slopes), (found, ours) = (
        evaluate(build_loss(model.heads), model, batch) for model in models
    )
    assert torch.isfinite(expected)
    assert_equal_to_1e_10([found], [expected])
    for name, slope in slopes.items():
        if slope is None:
            assert ours[name] is None or not ours[name].any(), name
        else:
            found = torch.zeros_like(slope) if ours[name] is None else ours[name]
            assert torch.linalg.norm(found - slope) <= 1e-10 * (torch.linalg.norm(slope) + 1e-4), (
                name
            )


@every_order
@pytest.mark.parametrize("coupling", ["independent", "delta"])
@pytest.mark.parametrize(
    "labels", [{"CC": "E"}, {"DZ": "EF"}, {"DZ": "EF", "CC": "E"}, LABELS], ids=str
)
def test_losses_of_models(order, coupling, labels):
    """Any heads, several force levels, padding."""
    models = model_pair(labels, tensor_order=order, coupling=coupling)
    assert_same_loss(models, labelled_batch(models[0]))


@pytest.mark.parametrize("missing", ["some", "a level", "all forces", "everything"])
def test_missing_labels(missing):
    models = model_pair(LABELS)
    batch = labelled_batch(models[0])
    lose_labels(models[0], batch, missing)
    assert_same_loss(models, batch)


def test_training_takes_the_same_steps():
    models = model_pair({"DZ": "EF", "CC": "E"})
    losses = []
    for model in models:
        optimizer = torch.optim.Adam(model.parameters.parameters(), lr=4e-3)
        for step in range(15):
            value, slopes = evaluate(
                build_loss(model.heads), model, labelled_batch(model, 1, seed=step)
            )
            for name, parameter in model.parameters.named_parameters():
                parameter.grad = slopes[name]
            optimizer.step()
            losses.append(value)
    fast, compiled = torch.stack(losses).view(2, -1)
    torch.testing.assert_close(compiled, fast, rtol=1e-8, atol=1e-8)
    for ours, theirs in zip(
        models[1].parameters.parameters(), models[0].parameters.parameters(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)


@every_order
def test_positions_that_are_nan(order):
    """What is not a number stays so, where the fast network has it, and only there."""
    species, positions = cloud(8)
    first, second = pairs_of(positions)
    positions[3] = torch.nan
    found = []
    for network in networks(order):
        moved = positions.clone().requires_grad_(True)
        blocks = features(network, species, moved, first, second)
        (gradient,) = torch.autograd.grad(blocks[1].sum(), moved)
        found.append([*(block.detach() for block in blocks), gradient])
    for ours, theirs in zip(found[1], found[0], strict=True):
        assert torch.equal(ours.isnan(), theirs.isnan())
    assert found[0][1].isnan().any()
    assert not found[0][1].isnan().all()


def test_kernels_keep_nan():
    assert kernels._dispatchers
    for dispatcher in kernels._dispatchers:
        assert not {"nnan", "ninf"} & set(dispatcher.targetoptions["fastmath"])


@every_order
def test_the_same_numbers_again(order, no_fast):
    species, positions = cloud(12)
    _, compiled = networks(order)
    first, second = (outputs(compiled, species, positions, *pairs_of(positions)) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert all(torch.equal(*pair) for pair in zip(first[2], second[2], strict=True))


def test_single_precision_stays_close():
    """A third of the digits are lost to the sums, as they are in the fast network."""
    species, positions = cloud(10)
    arguments = pairs_of(positions)
    fast, compiled = networks(2)
    exact = outputs(fast, species, positions, *arguments)
    torch.set_default_dtype(torch.float32)
    found = outputs(compiled.float(), species, positions.float(), *arguments)
    assert found[1].dtype == torch.float32
    for ours, theirs in zip(found[:2], exact[:2], strict=True):
        assert torch.linalg.norm(ours - theirs) <= 1e-4 * torch.linalg.norm(theirs)


def test_results_outlive_the_room_that_is_used_again():
    """Gradients and features of one step stay what they are while others are taken."""
    _, compiled = networks(2, n_features=130, n_sensitivities=20)
    kept = []
    for seed in range(3):
        species, positions = cloud(12, seed=seed)
        arguments = species, positions, *pairs_of(positions)
        blocks = features(compiled, *arguments)
        found = [*blocks, *outputs(compiled, *arguments)[:2], *outputs(compiled, *arguments)[2]]
        kept.append((found, [each.detach().clone() for each in found]))
    assert room._kept
    for found, copies in kept:
        for each, copied in zip(found, copies, strict=True):
            assert torch.equal(each, copied)


def test_the_last_room_is_kept_however_large_and_takes_the_place_of_others(monkeypatch):
    monkeypatch.setattr(room, "MOST_KEPT", 3 * room.PIECE)
    room.give_back()

    def sizes_after(*n_pieces):
        for n in n_pieces:
            room.Room().empty(n * room.PIECE, dtype=np.uint8)
        return [len(piece) // room.PIECE for piece in room._kept]

    assert sizes_after(1) == [1]
    assert sizes_after(4) == [4]
    assert sizes_after(1) == [4], "a smaller one lies in what is there"
    both = room.Room(), room.Room()
    for each, n in zip(both, (4, 2), strict=True):
        each.empty(n * room.PIECE, dtype=np.uint8)
    del each, both
    assert len(room._kept) == 1
    room.give_back()
    assert not room._kept


def test_copies_and_pickles():
    species, positions = cloud(5)
    arguments = species, positions, *pairs_of(positions)
    _, compiled = networks(2)
    expected = outputs(compiled, *arguments)[0]
    for copied in (copy.deepcopy(compiled), pickle.loads(pickle.dumps(compiled))):
        assert torch.equal(outputs(copied, *arguments)[0], expected)


SECOND_PROCESS = """
import torch
from hippynn_mf.network.compiled import kernels, preparing
for dtype in (torch.float32, torch.float64):
    assert preparing.why_not_compiled(dtype) is None
print(kernels.compilations())
"""


def test_a_second_process_compiles_nothing():
    assert all(
        preparing.why_not_compiled(dtype) is None for dtype in (torch.float32, torch.float64)
    )
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SECOND_PROCESS],
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stdout.split()[-1] == "0"


def test_indices_that_are_not_consecutive_compile_nothing_more():
    species, positions = cloud(6)
    first, second = torch.stack(pairs_of(positions), dim=1).unbind(dim=1)
    assert not first.is_contiguous()
    assert preparing.why_not_compiled(torch.float64) is None
    before = [len(each.signatures) for each in kernels._dispatchers]
    outputs(networks(2)[1], species, positions, first, second)
    assert [len(each.signatures) for each in kernels._dispatchers] == before


def test_without_compiling_fast_is_used_and_the_log_says_so():
    command = """
import logging, torch
logging.basicConfig(level=logging.INFO)
from hippynn_mf.network.hipnn import NETWORKS
kind = NETWORKS["compiled"][2]._auto_module_class
network = kind(4, 4, 0.7, 2.5, 3.0, 1, 1, possible_species=[0, 1, 6])
vectors = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
for _ in range(2):
    network(torch.eye(2).bool(), torch.tensor([0, 1]), torch.tensor([1, 0]), torch.ones(2), vectors)
"""
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", command],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1", "HIPPYNN_USE_CUSTOM_KERNELS": "pytorch"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stderr.count("interaction=fast") == 1
    assert "NUMBA_DISABLE_JIT" in process.stderr


def test_a_compiler_that_fails_is_reported(monkeypatch, caplog):
    def fail(dtype):
        raise NotImplementedError("no such processor\nsecond line")

    monkeypatch.setattr(preparing, "_compile", fail)
    reason = preparing.why_not_compiled.__wrapped__(torch.float32)
    assert reason == "numba cannot compile it: NotImplementedError: no such processor"
    choose, device = choice.choose_interaction, torch.device("cpu")
    monkeypatch.setattr(preparing, "why_not_compiled", lambda dtype: reason)
    assert choose("auto", device) == choice.InteractionUsed("fast", reason)
    with pytest.raises(UserError, match=r"no such processor\. Take interaction=auto or fast"):
        choose("compiled", device)


@pytest.mark.parametrize("asked", ["auto", "compiled", "fast", "stock"])
def test_the_interaction_is_chosen_by_what_is_there(asked):
    expected = {"auto": "compiled"}.get(asked, asked)
    assert str(choice.choose_interaction(asked, torch.device("cpu"))) == expected
    elsewhere = torch.device("meta")
    if asked == "compiled":
        with pytest.raises(UserError, match="for CPUs, and this is a device of type meta"):
            choice.choose_interaction(asked, elsewhere)
    else:
        used = choice.choose_interaction(asked, elsewhere)
        assert used.name == {"auto": "fast"}.get(asked, asked)
        assert ("for CPUs" in str(used)) == (asked == "auto")


def test_a_network_that_is_not_compiled_says_why_once(caplog):
    network = networks(2)[1]
    network.interaction_layers[0].register_forward_hook(lambda *_: None)
    species, positions = cloud(5)
    arguments = (species, positions, *torch.stack(pairs_of(positions), dim=1).unbind(dim=1))
    for _ in range(3):
        outputs(network, *arguments)
    (record,) = [each for each in caplog.records if "interaction=fast" in each.message]
    assert "it has hooks on interaction layers" in record.message
    with caplog.at_level(logging.INFO):
        network = networks(2)[1]
        network.atoms_per_block = 2
        outputs(network, *arguments)
    assert caplog.records[-1].levelno == logging.INFO
    assert hipnn.IN_BLOCKS in caplog.records[-1].message


MODULES = {
    "low.py": """
from hippynn_mf.network.compiled.kernels import kernel
@kernel
def factor(x):
    return x * 2
""",
    "high.py": """
from hippynn_mf.network.compiled.kernels import compilations, kernel
from low import factor
@kernel
def applied(x):
    return factor(x) + 1
print(applied(3.0), compilations())
""",
}


def test_compiled_code_is_made_again_when_a_module_that_it_uses_changes(tmp_path):
    for name, text in MODULES.items():
        tmp_path.joinpath(name).write_text(text)

    def run():
        command = [sys.executable, "-W", "ignore", "high.py"]
        process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return process.stdout.split()

    assert run() == ["7.0", "2"]
    assert run() == ["7.0", "0"]
    tmp_path.joinpath("low.py").write_text(MODULES["low.py"].replace("* 2", "* 5"))
    assert run()[0] == "16.0"
