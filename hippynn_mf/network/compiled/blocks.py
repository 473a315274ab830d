"""The parameters of a hippynn network, block by block, and which networks are supported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from hippynn.layers.hiplayers import CosCutoff, InverseSensitivityModule
from torch import Tensor


@dataclass(frozen=True)
class Linear:
    """Weight (n_out, n_in) and bias (n_out,)."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Interaction:
    """The parameters of an interaction layer; `scales` (ℓ, nf_out) are those of the norms."""

    mu: Tensor
    sigma: Tensor
    cutoff: float
    weights: Tensor  # (n_sensitivities, nf_out, nf_in)
    own: Linear
    scales: tuple[Tensor, ...]
    cusp: float


@dataclass(frozen=True)
class Block:
    """An interaction layer and its atom layers, each followed by a residual one."""

    interaction: Interaction
    residual: Linear
    adjust: Tensor | None
    atom_layers: tuple[tuple[Linear, Linear], ...]

    def parameters(self) -> Iterator[Tensor]:
        """Every parameter, in an order that does not change."""
        layer = self.interaction
        yield from (layer.mu, layer.sigma, layer.weights, layer.own.weight, layer.own.bias)
        yield from layer.scales
        yield from (self.residual.weight, self.residual.bias)
        if self.adjust is not None:
            yield self.adjust
        for pair in self.atom_layers:
            for linear in pair:
                yield from (linear.weight, linear.bias)


def blocks_of(network: Any) -> list[Block]:
    """The parameters of a hippynn network that `why_unsupported` has nothing against."""
    return [_block(block) for block in network.blocks]


def _block(block: Any) -> Block:
    wrapper, *atom_layers = block
    layer = wrapper.base_layer
    names = [name for name in ("vecscales", "quadscales") if hasattr(layer, name)]
    interaction = Interaction(
        layer.sensitivity.mu,
        layer.sensitivity.sigma,
        float(layer.sensitivity.cutoff.hard_max_dist),
        layer.int_weights,
        _linear(layer.selfint),
        tuple(getattr(layer, name) for name in names),
        float(getattr(layer, "cusp_reg", 0.0)),
    )
    return Block(
        interaction,
        _linear(wrapper.res_layer),
        wrapper.adjust_layer.weight if wrapper.needs_size_adjust else None,
        tuple((_linear(each.base_layer), _linear(each.res_layer)) for each in atom_layers),
    )


def _linear(layer: torch.nn.Linear) -> Linear:
    return Linear(layer.weight, layer.bias)


def why_unsupported(network: Any, dtype: torch.dtype) -> str | None:
    """What of a network has no compiled form for vectors of this dtype; None if all has."""
    weight = network.interaction_layers[0].int_weights
    if weight.dtype != dtype or weight.device.type != "cpu":
        return f"vectors of {dtype} and parameters of {weight.dtype} on {weight.device}"
    if dtype not in (torch.float32, torch.float64):
        return f"vectors of {dtype}"
    if not network.resnet:
        return "resnet=False"
    activation = network.activation
    is_softplus = isinstance(activation, torch.nn.Softplus)
    if not is_softplus or (activation.beta, activation.threshold) != (1, 20):
        return f"the activation {type(activation).__name__}"
    for layer in network.interaction_layers:
        if layer._forward_pre_hooks or layer._forward_hooks:
            return "hooks on interaction layers, which would not be called"
        if type(layer.sensitivity) is not InverseSensitivityModule:
            return f"sensitivities of type {type(layer.sensitivity).__name__}"
        if type(layer.sensitivity.cutoff) is not CosCutoff:
            return f"the cutoff {type(layer.sensitivity.cutoff).__name__}"
    return None
