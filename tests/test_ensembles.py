"""Members predict together what each of them predicts alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import structures, tiny_model

from hippynn_mf import UserError
from hippynn_mf.ensembles import Ensemble, StackedLinear, stack_modules
from hippynn_mf.models import predict

LABELS = {"DZ": "EF", "CC": "E"}


def members(n: int = 3, **changes):
    return [tiny_model(LABELS, seed=seed, **changes) for seed in range(n)]


@pytest.mark.parametrize("tensor_order", [0, 1, 2])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_members_predict_what_they_predict_alone(float64, tensor_order, batch_size):
    models = members(tensor_order=tensor_order)
    species, positions = (array.numpy() for array in structures())
    together = Ensemble(models).predict(species, positions, batch_size=batch_size)
    alone = [predict(model, species, positions, batch_size=100) for model in models]
    assert together.keys() == alone[0].keys()
    for name, array in together.items():
        expected = np.stack([values[name] for values in alone])
        assert array.shape == expected.shape
        assert np.ptp(expected, axis=0).max() > 1e-6, "the members must differ"
        np.testing.assert_allclose(array, expected, rtol=1e-9, atol=1e-11)


def test_members_are_left_as_they_were():
    models = members()
    before = [{k: v.clone() for k, v in m.parameters.named_parameters()} for m in models]
    Ensemble(models)
    species, positions = (array.numpy() for array in structures(1))
    predict(models[0], species, positions, batch_size=5)
    for model, values in zip(models, before, strict=True):
        found = dict(model.parameters.named_parameters())
        assert found.keys() == values.keys()
        assert all(torch.equal(found[name], values[name]) for name in values)


def test_later_changes_of_a_member_do_not_reach_the_ensemble():
    models = members(2)
    ensemble = Ensemble(models)
    species, positions = (array.numpy() for array in structures(1))
    before = ensemble.predict(species, positions, batch_size=5)
    with torch.no_grad():
        for parameter in models[0].parameters.parameters():
            parameter.mul_(2)
    after = ensemble.predict(species, positions, batch_size=5)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_stacked_weights_have_gradients_of_every_member():
    linears = [torch.nn.Linear(4, 2) for _ in range(3)]
    stacked = stack_modules(linears)
    assert isinstance(stacked, StackedLinear)
    rows = torch.randn(15, 4, generator=torch.Generator().manual_seed(0))
    parts = [linear(part) for linear, part in zip(linears, rows.view(3, 5, 4), strict=True)]
    torch.testing.assert_close(stacked(rows), torch.cat(parts))
    stacked(rows).square().sum().backward()
    torch.cat(parts).square().sum().backward()
    for k, linear in enumerate(linears):
        torch.testing.assert_close(stacked.weight.grad[k], linear.weight.grad.t())
        torch.testing.assert_close(stacked.bias.grad[k], linear.bias.grad)


def test_unknown_elements_are_refused():
    species, positions = (array.numpy().copy() for array in structures(1))
    species[0, 0] = 17
    with pytest.raises(UserError, match=r"\[17\] are outside the species"):
        Ensemble(members(2)).predict(species, positions, batch_size=5)


def test_an_ensemble_of_nothing_is_refused():
    with pytest.raises(UserError, match="at least one model"):
        Ensemble([])


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"n_features": 5}, "sizes"),
        ({"dist_hard_max": 6.0}, "cut-off"),
        ({"species": (0, 1, 8, 6, 7)}, "species"),
        ({"tensor_order": 1}, "sizes"),
    ],
)
def test_members_of_another_architecture_are_refused(changes, what):
    with pytest.raises(UserError, match=f"Model 1 of the ensemble has other {what} than model 0"):
        Ensemble([*members(1), *members(1, **changes)])


def test_members_of_other_levels_are_refused():
    with pytest.raises(UserError, match="other levels and forces"):
        Ensemble([tiny_model({"DZ": "EF"}), tiny_model({"DZ": "E"})])


def test_members_with_other_constants_are_refused():
    models = members(2)
    models[1].heads.network.torch_module.interaction_layers[0].cusp_reg = 1e-3
    with pytest.raises(UserError, match="other constants"):
        Ensemble(models)


def test_another_device_leaves_the_members_where_they_are():
    models = members(2)
    ensemble = Ensemble(models, device="meta")
    assert {p.device.type for p in ensemble.predictor.graph.parameters()} == {"meta"}
    for model in models:
        assert {p.device.type for p in model.parameters.parameters()} == {"cpu"}
        buffers = model.heads.network.torch_module.buffers()
        assert {buffer.device.type for buffer in buffers} <= {"cpu"}


def test_nothing_to_predict_is_refused():
    species, positions = (array.numpy() for array in structures(1))
    with pytest.raises(UserError, match="no structure"):
        Ensemble(members(2)).predict(species[:0], positions[:0], batch_size=5)


def test_stock_members_are_refused():
    with pytest.raises(UserError, match="needs the fast interaction"):
        Ensemble(members(2, interaction="stock"))


def test_members_in_blocks_are_refused():
    models = members(2)
    for model in models:
        model.heads.network.torch_module.atoms_per_block = 10
    with pytest.raises(UserError, match="blocks of atoms"):
        Ensemble(models)
