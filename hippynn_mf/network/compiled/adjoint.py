"""The adjoint pass: from derivatives by the features to those by vectors and parameters."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from hippynn_mf.network.compiled.blocks import Block
from hippynn_mf.network.compiled.forward import Geometry, Passed, Sums, Tape
from hippynn_mf.network.compiled.geometry import geometry_adjoint
from hippynn_mf.network.compiled.room import Room
from hippynn_mf.network.compiled.sensitivities import (
    distance_adjoint,
    parameter_adjoint,
    slope_adjoint,
)
from hippynn_mf.network.compiled.sums import sums_adjoint


class Gradients:
    """Derivatives by parameters, by the identity of the parameter."""

    def __init__(self) -> None:
        self._found: dict[int, Tensor] = {}

    def add(self, parameter: Tensor, gradient: Tensor) -> None:
        """Add to the derivative by a parameter; takes `gradient` over if it is the first."""
        known = self._found.get(id(parameter))
        if known is None:
            self._found[id(parameter)] = gradient.view(parameter.shape)
        else:
            known += gradient.view(parameter.shape)

    def add_product(self, parameter: Tensor, left: Tensor, right: Tensor) -> None:
        """Add leftᵀ right, for left (n, n_out) and right (n, n_in)."""
        known = self._found.get(id(parameter))
        if known is None:
            self._found[id(parameter)] = torch.mm(left.t(), right).view(parameter.shape)
        else:
            known.view(left.shape[1], right.shape[1]).addmm_(left.t(), right)

    def of(self, parameter: Tensor) -> Tensor:
        """The derivative by a parameter."""
        return self._found[id(parameter)]


@dataclass(frozen=True)
class Sources:
    """Where an adjoint pass starts from within one block, besides the derivatives by features.

    `s1` is by s', the others by what they are called after.
    """

    u: Tensor
    atom_u: list[Tensor]
    A: Tensor
    t: Tensor
    s: Tensor
    s1: Tensor
    y: Tensor
    scales: Tensor

    @classmethod
    def of(cls, passed: Passed, room: Room) -> Sources:
        """Room for those of a block, to be set by the first tangent."""
        sums = passed.sums
        return cls(
            u=room.empty_like(passed.middle.value),
            atom_u=[room.empty_like(each.value) for each in passed.atom_middles],
            A=room.empty_like(sums.A),
            t=room.empty_like(sums.t),
            s=room.empty_like(sums.s),
            s1=room.empty_like(sums.s1),
            y=room.empty_like(sums.y),
            scales=torch.empty_like(sums.scales),  # becomes a gradient, which outlives the room
        )


@dataclass
class Injection:
    """What the tangents of adjoint passes leave for one last adjoint pass to start from.

    Sources are set by the first tangent, and added to by others.
    """

    sources: list[Sources]
    R: Tensor
    vectors: Tensor
    gradients: Gradients
    is_empty: bool = True

    @classmethod
    def of(cls, tape: Tape) -> Injection:
        """Nothing yet, of a forward pass."""
        pairs = tape.pairs
        return cls(
            [Sources.of(each, tape.room) for each in tape.passed],
            torch.zeros_like(pairs.R),
            torch.zeros_like(pairs.u),
            Gradients(),
        )


@dataclass(frozen=True)
class BlockAdjoint:
    """One block's adjoint pass; names as in `Passed`, for the derivatives by them."""

    u: Tensor
    atom_u: list[Tensor]
    z: list[Tensor]
    A: Tensor
    t: Tensor
    s: Tensor
    y: Tensor


@dataclass
class AdjointTape:
    """An adjoint pass: by blocks, and by r and R."""

    r: Tensor
    R: Tensor
    blocks: list[BlockAdjoint] = field(default_factory=list)


def run_adjoint(
    tape: Tape,
    by_features: list[Tensor | None],
    *,
    injection: Injection | None = None,
    gradients: Gradients | None = None,
    needs_vectors: bool = True,
) -> AdjointTape:
    """Pass back through all blocks.

    Args:
        tape: the forward pass.
        by_features: derivatives by the features after every block, None for zero.
        injection: where else to start from; it is used up.
        gradients: to which the derivatives by parameters are added, unless it is None.
        needs_vectors: whether r and R of the result are complete.
    """
    pairs = tape.pairs
    result = AdjointTape(
        torch.zeros_like(pairs.r), torch.zeros_like(pairs.R) if injection is None else injection.R
    )
    by_x: Tensor | None = None
    for k in reversed(range(len(tape.passed))):
        passed, by_z = tape.passed[k], by_features[k]
        if by_x is not None:
            by_z = by_x if by_z is None else by_x + by_z
        if by_z is None:
            by_z = torch.zeros_like(passed.z[-1])
        sources = None if injection is None else injection.sources[k]
        block = _through(passed, by_z, sources, pairs, result, gradients, tape, needs_vectors)
        result.blocks.insert(0, block)
        if passed.x is not None:
            layer = passed.block.interaction
            z, adjust = block.z[0], passed.block.adjust
            by_x = torch.addmm(z if adjust is None else z @ adjust, block.u, layer.own.weight)
            by_x.addmm_(block.y.flatten(1), layer.weights.view(-1, layer.weights.shape[2]))
    return result


def by_vectors(pairs: Geometry, adjoint: AdjointTape, start: Tensor | None = None) -> Tensor:
    """Derivatives by the vectors, in the order in which these were given, added to `start`."""
    found = torch.zeros_like(pairs.u) if start is None else start
    geometry_adjoint(
        pairs.order.given,
        pairs.r.numpy(),
        pairs.u.numpy(),
        adjoint.r.numpy(),
        adjoint.R.numpy(),
        found.numpy(),
    )
    return found


def _through(
    passed: Passed,
    by_z: Tensor,
    sources: Sources | None,
    pairs: Geometry,
    result: AdjointTape,
    gradients: Gradients | None,
    tape: Tape,
    needs_vectors: bool,
) -> BlockAdjoint:
    block = passed.block
    zs = [by_z]
    us: list[Tensor] = []
    for q in reversed(range(len(block.atom_layers))):
        (base, residual), middle = block.atom_layers[q], passed.atom_middles[q]
        u = torch.mm(by_z, residual.weight).mul_(middle.slope)
        if sources is not None:
            u += sources.atom_u[q]
        if gradients is not None:
            gradients.add_product(residual.weight, by_z, middle.value)
            gradients.add(residual.bias, by_z.sum(0))
            gradients.add_product(base.weight, u, passed.z[q])
            gradients.add(base.bias, u.sum(0))
        by_z = torch.addmm(by_z, u, base.weight)
        us.insert(0, u)
        zs.insert(0, by_z)
    u = torch.mm(by_z, block.residual.weight).mul_(passed.middle.slope)
    if sources is not None:
        u += sources.u
    if gradients is not None:
        _own_gradients(block, passed, u, by_z, tape.elements, gradients)
    A, t, s, y = _sums_adjoint(passed.sums, u, sources, tape, result, gradients, needs_vectors)
    if gradients is not None:
        _weight_gradients(passed, y, gradients)
    return BlockAdjoint(u, us, zs, A, t, s, y)


def _own_gradients(
    block: Block, passed: Passed, u: Tensor, by_z: Tensor, elements: Tensor, gradients: Gradients
) -> None:
    """Gradients of all that acts on an atom's own features."""
    layer = block.interaction
    gradients.add_product(block.residual.weight, by_z, passed.middle.value)
    gradients.add(block.residual.bias, by_z.sum(0))
    gradients.add(layer.own.bias, u.sum(0))
    if passed.x is not None:
        gradients.add_product(layer.own.weight, u, passed.x)
        if block.adjust is not None:
            gradients.add_product(block.adjust, by_z, passed.x)
        return
    gradients.add(layer.own.weight, _by_element(u, elements, layer.own.weight))
    if block.adjust is not None:
        gradients.add(block.adjust, _by_element(by_z, elements, block.adjust))


def _by_element(rows: Tensor, elements: Tensor, weight: Tensor) -> Tensor:
    """Rows (n_atoms, n_out) summed over the atoms of an element: (n_out, n_elements)."""
    sums = rows.new_zeros(weight.shape[1], weight.shape[0])
    return sums.index_add_(0, elements, rows).t().contiguous()


def _weight_gradients(passed: Passed, y: Tensor, gradients: Gradients) -> None:
    weights = passed.block.interaction.weights
    if passed.x is None:
        # A copy: the room of y is used again.
        by_weights = y.permute(1, 2, 0).clone(memory_format=torch.contiguous_format)
        gradients.add(weights, by_weights)
    else:
        gradients.add_product(weights, y.flatten(1), passed.x)


def _sums_adjoint(
    sums: Sums,
    u: Tensor,
    sources: Sources | None,
    tape: Tape,
    result: AdjointTape,
    gradients: Gradients | None,
    needs_vectors: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Derivatives by A, t, s and y; adds to those by r and R, and by the layer's parameters."""
    layer = sums.layer
    if sources is None:
        like = (sums.A, sums.t, sums.s, sums.y)
        arrays = [*(tape.room.empty_like(each) for each in like), torch.empty_like(sums.scales)]
    else:
        arrays = [sources.A, sources.t, sources.s, sources.y, sources.scales]
    *inner, scales = arrays
    _, _, s, _ = inner
    is_first = sums.groups is tape.pairs.order.elements
    sums_adjoint(
        *sums.arguments,
        u.numpy(),
        *(each.numpy() for each in inner),
        result.R.numpy(),
        scales.numpy(),
        needs_vectors,
        gradients is not None or not is_first,
        sources is not None,
    )
    sensitivity = sums.sensitivity
    s1 = None if sources is None else sources.s1.numpy()
    if needs_vectors:
        distance_adjoint(sums.s1.numpy(), s.numpy(), result.r.numpy())
        if s1 is not None:
            slope_adjoint(*sensitivity, s1, result.r.numpy())
    if gradients is not None:
        mu, sigma = torch.empty_like(layer.mu), torch.empty_like(layer.sigma)
        none = sums.s[:0].numpy()
        parameter_adjoint(
            *sensitivity,
            sums.s.numpy(),
            sums.s1.numpy(),
            s.numpy(),
            none if s1 is None else s1,
            mu[0].numpy(),
            sigma[0].numpy(),
        )
        for parameter, gradient in zip(
            (layer.mu, layer.sigma, *layer.scales), (mu, sigma, *scales), strict=True
        ):
            gradients.add(parameter, gradient)
    return inner[0], inner[1], inner[2], inner[3]
