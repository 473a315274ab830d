"""Adam on one vector against torch's."""

import copy

import pytest
import torch

from hippynn_mf.training.flat_adam import FlatAdam


def network():
    torch.manual_seed(3)
    return torch.nn.Sequential(
        torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3)
    ).float()


def train(model, optimizer, n_steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(n_steps):
        optimizer.zero_grad(set_to_none=True)
        values = torch.randn(11, 5, generator=generator)
        model(values).square().mean().backward()
        optimizer.step()


def both():
    model = network()
    other = copy.deepcopy(model)
    plain = torch.optim.Adam(other.parameters(), lr=0.01, fused=True)
    return (model, FlatAdam(model.parameters(), lr=0.01)), (other, plain)


def assert_same(state, other):
    assert state.keys() == other.keys()
    for name, value in state.items():
        torch.testing.assert_close(value, other[name], rtol=1e-6, atol=1e-7)


def test_the_steps_are_those_of_adam():
    ours, plain = both()
    for pair in (ours, plain):
        train(*pair, 20)
    assert_same(ours[0].state_dict(), plain[0].state_dict())


def test_the_order_in_the_vector_changes_nothing():
    _, (other, plain) = both()
    model = network()
    chosen = [model[2].bias, model[0].weight, torch.zeros(3)]  # the last one is none of them
    optimizer = FlatAdam(model.parameters(), lr=0.01, first=chosen)
    for pair in ((model, optimizer), (other, plain)):
        train(*pair, 5)
    assert_same(model.state_dict(), other.state_dict())
    front = torch.cat([each.detach().flatten() for each in chosen[:2]])
    assert torch.equal(optimizer.vector.detach()[: len(front)], front)
    model, other = network(), network()
    again = FlatAdam(model.parameters(), lr=0.01)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    theirs = torch.optim.Adam(other.parameters(), lr=0.01, fused=True)
    theirs.load_state_dict(plain.state_dict())
    for pair in ((model, again), (other, theirs)):
        train(*pair, 3, seed=1)
    assert_same(model.state_dict(), other.state_dict())


@pytest.mark.parametrize("ours_first", [True, False], ids=["ours", "torch's"])
def test_a_state_goes_both_ways(ours_first):
    pairs = both()
    first, second = pairs if ours_first else pairs[::-1]
    train(*first, 5)
    state = copy.deepcopy((first[0].state_dict(), first[1].state_dict()))
    train(*first, 5, seed=1)
    second[0].load_state_dict(state[0])
    second[1].load_state_dict(state[1])
    train(*second, 5, seed=1)
    assert_same(second[0].state_dict(), first[0].state_dict())


def test_the_state_is_read_without_running_code_and_has_the_parameters_shapes(tmp_path):
    (model, optimizer), (_, plain) = both()
    train(model, optimizer, 2)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    shapes = [state["state"][k]["exp_avg"].shape for k in state["param_groups"][0]["params"]]
    assert shapes == [p.shape for p in model.parameters()]
    assert state["param_groups"][0].keys() == plain.state_dict()["param_groups"][0].keys()


def test_a_state_before_the_first_step_is_taken_up():
    (model, optimizer), (other, plain) = both()
    optimizer.load_state_dict(plain.state_dict())
    plain.load_state_dict(optimizer.state_dict())
    train(model, optimizer, 3)
    train(other, plain, 3)
    assert_same(model.state_dict(), other.state_dict())


def test_other_parameters_are_refused():
    (_, optimizer), _ = both()
    state = torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))]).state_dict()
    with pytest.raises(ValueError, match="1 parameters instead of 4"):
        optimizer.load_state_dict(state)


def test_gradients_that_somebody_replaces_count():
    ours, plain = both()
    for model, optimizer in (ours, plain):
        train(model, optimizer, 2)
        model.zero_grad(set_to_none=True)
        model(torch.ones(1, 5)).sum().backward()
        optimizer.step()
    assert_same(ours[0].state_dict(), plain[0].state_dict())


def test_a_scheduler_moves_its_rate():
    (model, optimizer), (other, plain) = both()
    schedulers = [torch.optim.lr_scheduler.CosineAnnealingLR(o, 4) for o in (optimizer, plain)]
    for _ in range(4):
        train(model, optimizer, 1)
        train(other, plain, 1)
        for scheduler in schedulers:
            scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(plain.param_groups[0]["lr"])
    assert_same(model.state_dict(), other.state_dict())


def test_a_gradient_that_somebody_takes_away_is_none():
    model = network()
    optimizer = FlatAdam(model.parameters(), lr=0.01)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    model(torch.ones(1, 5)).sum().backward()
    first, *others = model.parameters()
    first.grad = None
    optimizer.step()
    assert torch.equal(first, before[0])
    assert not any(map(torch.equal, others, before[1:]))
