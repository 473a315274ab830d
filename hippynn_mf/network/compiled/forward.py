"""The forward pass of a network, with everything that its derivatives need."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from hippynn_mf.network.compiled.blocks import Block, Interaction
from hippynn_mf.network.compiled.geometry import geometry
from hippynn_mf.network.compiled.ordering import Groups, PairOrder
from hippynn_mf.network.compiled.room import Room
from hippynn_mf.network.compiled.sensitivities import exponents, sensitivities
from hippynn_mf.network.compiled.sums import sums_forward

SOFTPLUS_THRESHOLD = 20.0
LEAST_EXPONENT = {torch.float32: -60.0, torch.float64: -500.0}


@dataclass(frozen=True)
class Geometry:
    """Pairs sorted by receiver: r (n_pairs,), unit vectors u and tensor components R."""

    order: PairOrder
    r: Tensor
    u: Tensor
    R: Tensor

    @classmethod
    def of(cls, vectors: Tensor, order: PairOrder, tensor_order: int) -> Geometry:
        """Of vectors (n_pairs, 3), or distances (n_pairs, 1) for ℓ = 0, in the order given."""
        r, u = torch.empty_like(vectors[:, 0]), torch.empty_like(vectors)
        R = vectors.new_empty(len(vectors), (tensor_order + 1) ** 2)
        geometry(vectors.numpy(), order.given, r.numpy(), u.numpy(), R.numpy())
        return cls(order, r, u, R)


@dataclass(frozen=True)
class Sums:
    """What the sums of one interaction layer leave behind; names as in `sums.py`."""

    layer: Interaction
    groups: Groups
    scales: Tensor  # (ℓ, nf_out)
    g: Tensor
    s: Tensor
    s1: Tensor
    y: Tensor
    t: Tensor
    A: Tensor
    norms: Tensor

    pairs: Geometry

    @cached_property
    def arguments(self) -> list[Any]:
        """The first arguments of `sums_adjoint` and `sums_tangent`."""
        order, groups = self.pairs.order, self.groups
        tensors = (self.s, self.pairs.R, self.y, self.scales, self.t, self.A, self.norms)
        return [order.receivers.first, groups.first, groups.rows, *(x.numpy() for x in tensors)]

    @cached_property
    def sensitivity(self) -> list[Any]:
        """r, μ, σ, cutoff and g, for the functions of `sensitivities.py`."""
        mu, sigma = self.layer.mu.detach()[0], self.layer.sigma.detach()[0]
        r, g = self.pairs.r.numpy(), self.g.numpy()
        return [r, mu.numpy(), sigma.numpy(), self.layer.cutoff, g]


@dataclass(frozen=True)
class Activation:
    """softplus(u) and its slope, sigmoid(u), of the middle of a residual layer."""

    value: Tensor
    slope: Tensor

    @classmethod
    def of(cls, u: Tensor) -> Activation:
        """Of u (n_atoms, n_features)."""
        # torch's softplus is u itself from here on, with a slope of 1.
        slope = torch.sigmoid(u).masked_fill_(u > SOFTPLUS_THRESHOLD, 1.0)
        return cls(torch.nn.functional.softplus(u, threshold=SOFTPLUS_THRESHOLD), slope)


@dataclass(frozen=True)
class Passed:
    """One block's forward pass: z are the features before each atom layer, and after the last."""

    block: Block
    x: Tensor | None  # None in the first block, whose features are the species
    sums: Sums
    middle: Activation
    atom_middles: list[Activation]
    z: list[Tensor]


@dataclass(frozen=True)
class Tape:
    """The forward pass of a network of atoms whose `elements` are (n_atoms,)."""

    pairs: Geometry
    elements: Tensor
    passed: list[Passed]
    room: Room

    def features(self) -> list[Tensor]:
        """Features (n_atoms, n_features) after every block."""
        return [each.z[-1] for each in self.passed]


def run_forward(blocks: list[Block], elements: Tensor, pairs: Geometry) -> Tape:
    """Pass through all blocks; no graph is made."""
    passed: list[Passed] = []
    room = Room()
    x = None
    for block in blocks:
        passed.append(_through(block, x, elements, pairs, room))
        x = passed[-1].z[-1]
    return Tape(pairs, elements, passed, room)


def _through(
    block: Block, x: Tensor | None, elements: Tensor, pairs: Geometry, room: Room
) -> Passed:
    layer = block.interaction
    sums, u = _sums(layer, x, len(elements), pairs, room)
    if x is None:
        u += (layer.own.weight.t() + layer.own.bias).index_select(0, elements)
    else:
        u.addmm_(x, layer.own.weight.t()).add_(layer.own.bias)
    middle = Activation.of(u)
    z = torch.addmm(block.residual.bias, middle.value, block.residual.weight.t())
    if x is None:
        z += _of_species(block).index_select(0, elements)
    else:
        z += x if block.adjust is None else x @ block.adjust.t()
    zs, middles = [z], []
    for base, residual in block.atom_layers:
        middles.append(Activation.of(torch.addmm(base.bias, z, base.weight.t())))
        z = torch.addmm(residual.bias, middles[-1].value, residual.weight.t()).add_(z)
        zs.append(z)
    return Passed(block, x, sums, middle, middles, zs)


def _of_species(block: Block) -> Tensor:
    """The residual part of the first block, a row for each element: its features are one-hot."""
    if block.adjust is not None:
        return block.adjust.t()
    weight = block.residual.weight
    return torch.eye(len(weight), dtype=weight.dtype)


def _sums(
    layer: Interaction, x: Tensor | None, n_atoms: int, pairs: Geometry, room: Room
) -> tuple[Sums, Tensor]:
    """The sums over neighbours, and their part (n_atoms, nf_out) of the layer's output."""
    n_sensitivities, nf_out, nf_in = layer.weights.shape
    order, n_pairs, n_components = pairs.order, len(pairs.r), pairs.R.shape[1]
    new = layer.weights.new_empty
    if x is None:
        y, groups = layer.weights.permute(2, 0, 1).contiguous(), order.elements
    else:
        y = room.empty(n_atoms, n_sensitivities, nf_out, dtype=x.dtype)
        torch.mm(x, layer.weights.view(-1, nf_in).t(), out=y.flatten(1))
        groups = order.senders
    scales = torch.stack(layer.scales) if layer.scales else new(0, nf_out)
    r, mu, sigma = pairs.r.numpy(), layer.mu[0].numpy(), layer.sigma[0].numpy()
    g, s, s1 = (room.empty(n_pairs, n_sensitivities, dtype=pairs.r.dtype) for _ in range(3))
    exponents(r, mu, sigma, LEAST_EXPONENT[g.dtype], g.numpy())
    g.exp_()
    sensitivities(r, mu, sigma, layer.cutoff, g.numpy(), s.numpy(), s1.numpy())
    t, A, norms, out = (
        room.empty(n_pairs, nf_out, dtype=pairs.r.dtype),
        room.empty(n_atoms, n_components, nf_out, dtype=pairs.r.dtype),
        new(n_atoms, len(scales), nf_out),
        new(n_atoms, nf_out),
    )
    sums_forward(
        order.receivers.first,
        groups.first,
        groups.rows,
        s.numpy(),
        pairs.R.numpy(),
        y.numpy(),
        scales.numpy(),
        layer.cusp,
        t.numpy(),
        A.numpy(),
        norms.numpy(),
        out.numpy(),
    )
    return Sums(layer, groups, scales, g, s, s1, y, t, A, norms, pairs), out
