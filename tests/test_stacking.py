"""Stacked modules do for every member's rows what that member does."""

from __future__ import annotations

import pytest
import torch
from hippynn.layers.hiplayers.sensitivity import (
    GaussianSensitivityModule,
    InverseSensitivityModule,
    SensitivityBottleneck,
)

from hippynn_mf.potentials.stacking import FinalSensitivities, StackedLinear, stack_modules

CUTOFF = 6.5


@pytest.fixture(autouse=True)
def no_warnings(monkeypatch):
    """hippynn warns of distances below its shortest sensitivity."""
    import hippynn

    monkeypatch.setattr(hippynn.settings, "WARN_LOW_DISTANCES", False)


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


@pytest.mark.parametrize("kind", [InverseSensitivityModule, GaussianSensitivityModule])
def test_sensitivities_are_those_of_hippynn_with_their_slopes(float64, kind):
    modules = []
    for seed in range(2):
        torch.manual_seed(seed)
        modules.append(kind(7, 0.8, 5.5, CUTOFF))
        with torch.no_grad():
            for parameter in modules[-1].parameters():
                parameter.mul_(1 + 0.1 * torch.rand_like(parameter))
    once = torch.linspace(0.6, 7.0, 50)
    distances = once.repeat(2).requires_grad_()
    found = FinalSensitivities(modules)(distances)
    expected = torch.cat([m(part) for m, part in zip(modules, distances.view(2, -1), strict=True)])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-100)
    weights = torch.randn_like(found)
    (slopes,) = torch.autograd.grad((found * weights).sum(), distances, retain_graph=True)
    (theirs,) = torch.autograd.grad((expected * weights).sum(), distances)
    torch.testing.assert_close(slopes, theirs, rtol=1e-11, atol=1e-13)
    assert not found[once.repeat(2) > CUTOFF].any()


def test_sensitivities_have_no_second_derivative(float64):
    module = FinalSensitivities([InverseSensitivityModule(4, 0.8, 5.5, CUTOFF)])
    distances = torch.tensor([1.0, 2.0], requires_grad=True)
    energy = module(distances).sum(dim=1).square().sum()
    (slope,) = torch.autograd.grad(energy, distances, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sensitivities_are_never_denormal(dtype):
    module = FinalSensitivities([InverseSensitivityModule(20, 0.75, 5.5, CUTOFF)]).to(dtype)
    values = module(torch.linspace(0.5, 6.49, 2000, dtype=dtype))
    assert values[values > 0].min() > torch.finfo(dtype).tiny


def test_other_sensitivities_are_refused():
    module = SensitivityBottleneck(4, 0.8, 5.5, CUTOFF, 8)
    with pytest.raises(TypeError, match="hippynn's own sensitivities"):
        FinalSensitivities([module])
