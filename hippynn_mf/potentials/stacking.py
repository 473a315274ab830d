"""Modules of several members as one, on weights stacked member by member.

The rows of a stacked module are those of all members, one member after another; each member's are
multiplied with its weights. There is no more arithmetic than member by member, but as few calls as
for a single one. What comes out can be differentiated once.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from hippynn.layers.hiplayers import InteractLayer
from hippynn.layers.hiplayers.sensitivity import (
    CosCutoff,
    GaussianSensitivityModule,
    InverseSensitivityModule,
)
from torch import Tensor, nn

from hippynn_mf.network.interaction import by_member

# Of a Gaussian's logarithm. Below, it is nothing beside the others; denormal numbers, which come
# before zero, would make arithmetic many times slower.
LEAST_LOGARITHM = {torch.float32: -60.0, torch.float64: -500.0}


class StackedLinear(nn.Module):
    """Linear layers of several members: rows (n_members * n, in) to (n_members * n, out)."""

    def __init__(self, members: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = _stacked([member.weight.t() for member in members])
        has_bias = members[0].bias is not None
        self.bias = _stacked([member.bias for member in members]) if has_bias else None

    def forward(self, rows: Tensor) -> Tensor:
        """Rows of every member times its weights."""
        if self.bias is None:
            return by_member(rows, self.weight)
        members = rows.view(len(self.weight), -1, rows.shape[1])
        return torch.baddbmm(self.bias.unsqueeze(1), members, self.weight).flatten(0, 1)


class FinalSensitivities(nn.Module):
    """The sensitivities of an interaction layer, of several members.

    The same functions as hippynn's modules, in a fraction of the time: values and slopes are found
    together, and the result can be differentiated once.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        for member in members:
            known = (InverseSensitivityModule, GaussianSensitivityModule)
            if not isinstance(member, known) or not isinstance(member.cutoff, CosCutoff):
                raise TypeError(f"Expected hippynn's own sensitivities; found {member!r}.")
        self.cutoff = float(members[0].hard_max_dist)  # type: ignore[arg-type]
        parameters = [{name: p.detach()[0] for name, p in m.named_parameters()} for m in members]
        # Not their inverse: the dtype may become a wider one.
        self.register_buffer("centres", torch.stack([p["mu"] for p in parameters]).unsqueeze(1))
        self.register_buffer("widths", torch.stack([p["sigma"] for p in parameters]).unsqueeze(1))

    def forward(self, distances: Tensor) -> Tensor:
        """Sensitivities (n_members * n_pairs, n_sensitivities) of the distances in Å."""
        sensitivities: Tensor = _Gaussians.apply(distances, self.centres, self.widths, self.cutoff)  # type: ignore[no-untyped-call]
        return sensitivities


class _Gaussians(torch.autograd.Function):
    """exp(−((1/r − 1/μ) σ)²/2) cos²(π r / 2 r_c), zero beyond r_c."""

    @staticmethod
    def forward(
        ctx: Any, distances: Tensor, centres: Tensor, widths: Tensor, cutoff: float
    ) -> Tensor:
        """Values (n_members * n_pairs, n_sensitivities), and slopes if they will be needed."""
        r = distances.view(len(centres), -1, 1)
        inverse = r.reciprocal()
        inside = (r <= cutoff).to(r.dtype)
        phase = (torch.pi / 2 / cutoff) * r
        fade = phase.cos().square() * inside
        scaled = (inverse - centres.reciprocal()).mul_(widths)
        logarithms = scaled.square().mul_(-0.5).clamp_(min=LEAST_LOGARITHM[r.dtype])
        gaussians = logarithms.exp_()
        if ctx.needs_input_grad[0]:
            fade_slope = (2 * phase).sin() * inside * (-torch.pi / 2 / cutoff)
            slopes = scaled.mul_(widths).mul_(inverse.square() * fade).add_(fade_slope)
            ctx.save_for_backward(slopes.mul_(gaussians))
        return gaussians.mul_(fade).flatten(0, 1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Slope times gradient, summed over the sensitivities."""
        (slopes,) = ctx.saved_tensors
        by_pair = (slopes.flatten(0, 1) * gradient).sum(dim=1)
        return by_pair, None, None, None


def stack_modules(members: Sequence[nn.Module]) -> nn.Module:
    """One module that does for every member's rows what that member does.

    Of networks of this package and heads of hippynn; the members are not changed.
    """
    first = members[0]
    if isinstance(first, nn.Linear):
        return StackedLinear([m for m in members if isinstance(m, nn.Linear)])
    stacked = copy.deepcopy(first)
    for name in first._modules:
        children = [member._modules[name] for member in members]
        if isinstance(first, InteractLayer) and name == "sensitivity":
            stacked._modules[name] = FinalSensitivities([c for c in children if c is not None])
        else:
            stacked._modules[name] = stack_modules([c for c in children if c is not None])
    for name, parameter in first._parameters.items():
        if parameter is not None:
            stacked._parameters[name] = _stacked([m.get_parameter(name) for m in members])
    return stacked


def _stacked(tensors: Sequence[Tensor]) -> nn.Parameter:
    return nn.Parameter(torch.stack([t.detach().to(tensors[0].device) for t in tensors]))
