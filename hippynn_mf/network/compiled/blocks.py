"""The parameters of a hippynn network, block by block, and which networks are supported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from hippynn.layers.hiplayers import CosCutoff, InverseSensitivityModule
from torch import Tensor

from hippynn_mf.network.compiled.geometry import Array


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


class Weights(NamedTuple):
    """The parameters of a block for kernels, or derivatives by them, in one precision.

    The residual layer of the interaction, and then those of the atom layers, are `out_weights`
    (n_layers, n_features, n_middle) and `out_biases`; `in_weights` and `in_biases` are what comes
    before in the atom layers. `V` is (n_sensitivities * n_middle, nf_in), `scales` (ℓ, n_middle),
    and `adjust` has no rows where the number of features stays.
    """

    mu: Array
    sigma: Array
    V: Array
    own_weight: Array
    own_bias: Array
    scales: Array
    adjust: Array
    out_weights: Array
    out_biases: Array
    in_weights: Array
    in_biases: Array

    @classmethod
    def of(cls, block: Block) -> Weights:
        """Of the parameters as they are now."""
        layer, bases = block.interaction, [base for base, _ in block.atom_layers]
        residuals = [block.residual, *(residual for _, residual in block.atom_layers)]
        V = _array(layer.weights)
        (n_features, n_middle), dtype = block.residual.weight.shape, V.dtype
        return cls(
            _array(layer.mu).reshape(-1),
            _array(layer.sigma).reshape(-1),
            V.reshape(-1, V.shape[2]),
            _array(layer.own.weight),
            _array(layer.own.bias),
            _stacked(layer.scales, (0, n_middle), dtype),
            np.empty((0, V.shape[2]), dtype) if block.adjust is None else _array(block.adjust),
            np.stack([_array(each.weight) for each in residuals]),
            np.stack([_array(each.bias) for each in residuals]),
            _stacked([each.weight for each in bases], (0, n_middle, n_features), dtype),
            _stacked([each.bias for each in bases], (0, n_middle), dtype),
        )

    def zeros(self) -> Weights:
        """Derivatives by these, to be added to."""
        return Weights(*map(np.zeros_like, self))

    def by_parameter(self, block: Block) -> Iterator[tuple[Tensor, Array]]:
        """Every parameter of the block with its derivative; shapes may differ by ones."""
        layer = block.interaction
        yield from zip(
            (layer.mu, layer.sigma, layer.weights, layer.own.weight, layer.own.bias),
            (self.mu, self.sigma, self.V, self.own_weight, self.own_bias),
            strict=True,
        )
        yield from zip(layer.scales, self.scales, strict=True)
        if block.adjust is not None:
            yield block.adjust, self.adjust
        yield block.residual.weight, self.out_weights[0]
        yield block.residual.bias, self.out_biases[0]
        for q, (base, residual) in enumerate(block.atom_layers):
            yield base.weight, self.in_weights[q]
            yield base.bias, self.in_biases[q]
            yield residual.weight, self.out_weights[q + 1]
            yield residual.bias, self.out_biases[q + 1]


def _array(parameter: Tensor) -> Array:
    """Kernels are compiled for consecutive numbers alone."""
    found: Array = parameter.detach().contiguous().numpy()
    return found


def _stacked(parameters: Sequence[Tensor], without: tuple[int, ...], dtype: Any) -> Array:
    """Parameters of one shape in one array; an array of the shape `without`, if there are none."""
    if not parameters:
        return np.empty(without, dtype)
    return np.stack([_array(each) for each in parameters])


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
