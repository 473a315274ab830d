"""All parameters of a network and of its linear heads in one vector, as kernels take them.

A training that keeps its parameters in such a vector (`FlatAdam`) has them in this form already;
otherwise they are copied into one. Derivatives are found in a vector of the same layout. The heads'
energies of the species, which are mostly fixed, come after the others and may lie elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor, from_numpy

from hippynn_mf.network.compiled.blocks import Block
from hippynn_mf.network.compiled.geometry import Array
from hippynn_mf.network.compiled.ordering import Indices


@dataclass(frozen=True)
class ParameterLayout:
    """The order of the parameters, which `weights` and `biases` of `Readout` belong to as well."""

    blocks: list[Block]
    weights: Sequence[Sequence[Tensor]]
    biases: Sequence[Sequence[Tensor]]

    @cached_property
    def inner(self) -> list[Tensor]:
        """Parameters in the order of the vector; heads may have some in common, which repeat."""
        _, *weights = zip(*self.weights, strict=True)
        return [
            *(parameter for block in self.blocks for parameter in _ordered(block)),
            *(parameter for of_term in weights for parameter in of_term),
            *(parameter for of_term in zip(*self.biases, strict=True) for parameter in of_term),
        ]

    @cached_property
    def of_species(self) -> list[Tensor]:
        """The heads' energies of the species (1, n_elements)."""
        return [of_head[0] for of_head in self.weights]

    @property
    def parameters(self) -> list[Tensor]:
        """All of them, those of the species last."""
        return [*self.inner, *self.of_species]

    @cached_property
    def unique(self) -> list[Tensor]:
        """Every parameter once."""
        return list({id(parameter): parameter for parameter in self.parameters}.values())

    @cached_property
    def n_inner(self) -> int:
        """The length of the vector without those of the species."""
        return sum(parameter.numel() for parameter in self.inner)

    @cached_property
    def size(self) -> int:
        """The length of the vector."""
        return sum(parameter.numel() for parameter in self.parameters)

    @cached_property
    def sizes(self) -> Indices:
        """By block (n_blocks, 7): those of `_sizes`."""
        return np.array([_sizes(block) for block in self.blocks], np.int64)

    @cached_property
    def numbers(self) -> Array:
        """Cut-off and cusp of every block (n_blocks, 2)."""
        layers = [block.interaction for block in self.blocks]
        return np.array([(layer.cutoff, layer.cusp) for layer in layers], np.float64)

    @cached_property
    def _starts(self) -> Indices:
        """Where in the vector each of the inner parameters begins."""
        sizes = [parameter.numel() for parameter in self.inner]
        return np.cumsum([0, *sizes[:-1]])

    def vector(self) -> Array:
        """The parameters as they are now, copied."""
        return np.concatenate([p.detach().numpy().ravel() for p in self.parameters])

    def lie_in(self, vector: Tensor) -> bool:
        """Whether all but those of the species are the parts of a vector, as it is now."""
        if vector.numel() != self.n_inner or vector.dtype != self.inner[0].dtype:
            return False
        found = np.fromiter(map(Tensor.data_ptr, self.inner), np.int64, len(self.inner))
        return bool((found == vector.data_ptr() + self._starts * vector.element_size()).all())

    def by_parameter(self, vector: Array) -> dict[int, Tensor]:
        """Derivatives by every parameter, by its identity, from those by the vector."""
        found: dict[int, Tensor] = {}
        start = 0
        for parameter in self.parameters:
            part = from_numpy(vector[start : start + parameter.numel()]).view(parameter.shape)
            start += parameter.numel()
            known = found.get(id(parameter))
            found[id(parameter)] = part if known is None else known + part
        return found


def _ordered(block: Block) -> Iterator[Tensor]:
    """The parameters of a block in the order of `Weights`."""
    layer = block.interaction
    bases = [base for base, _ in block.atom_layers]
    residuals = [block.residual, *(residual for _, residual in block.atom_layers)]
    yield from (layer.mu, layer.sigma, layer.weights, layer.own.weight, layer.own.bias)
    yield from layer.scales
    if block.adjust is not None:
        yield block.adjust
    for linear in (residuals, bases):
        yield from (each.weight for each in linear)
        yield from (each.bias for each in linear)


def _sizes(block: Block) -> tuple[int, ...]:
    """Sizes of a block's `Weights`.

    Sensitivities, features in the middle, before and after the block, layers, norms with scales,
    and rows of `adjust`.
    """
    layer = block.interaction
    n_sensitivities, n_middle, n_in = layer.weights.shape
    n_features = len(block.residual.weight)
    return (
        n_sensitivities,
        n_middle,
        n_in,
        n_features,
        len(block.atom_layers) + 1,
        len(layer.scales),
        0 if block.adjust is None else n_features,
    )
