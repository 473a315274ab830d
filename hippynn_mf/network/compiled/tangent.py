"""The tangent pass: the change of features and of an adjoint pass along a change of the vectors."""

from __future__ import annotations

import torch
from torch import Tensor

from hippynn_mf.network.compiled.adjoint import (
    AdjointTape,
    BlockAdjoint,
    Injection,
    Sources,
)
from hippynn_mf.network.compiled.forward import Activation, Passed, Tape
from hippynn_mf.network.compiled.geometry import geometry_adjoint_tangent, geometry_tangent
from hippynn_mf.network.compiled.room import Room
from hippynn_mf.network.compiled.sums import sums_tangent


def run_tangent(
    tape: Tape,
    adjoint: AdjointTape,
    by_vectors: Tensor,
    injection: Injection,
    *,
    needs_vectors: bool,
) -> list[Tensor]:
    """Features' derivatives along `by_vectors` (as the vectors were given), after every block.

    These are the derivatives of φ = by_vectors · (derivatives by the vectors, of `adjoint`) by what
    `adjoint` started from. `injection` gets what an adjoint pass has to start from, and to be added
    to, to give the derivatives of φ by vectors and parameters; by vectors if `needs_vectors`.
    """
    pairs = tape.pairs
    given, r, u = pairs.order.given, pairs.r.numpy(), pairs.u.numpy()
    r_dot, R_dot = torch.empty_like(pairs.r), torch.empty_like(pairs.R)
    v_dot = by_vectors.contiguous().numpy()
    geometry_tangent(given, r, u, v_dot, r_dot.numpy(), R_dot.numpy())
    if needs_vectors:
        geometry_adjoint_tangent(
            given, r, u, v_dot, adjoint.r.numpy(), adjoint.R.numpy(), injection.vectors.numpy()
        )
    found: list[Tensor] = []
    x_dot = None
    for passed, back, sources in zip(tape.passed, adjoint.blocks, injection.sources, strict=True):
        u_dot = _sums_tangent(
            passed, back, x_dot, (r_dot, R_dot), tape, sources, injection, needs_vectors
        )
        x_dot = _through(passed, back, x_dot, u_dot, sources, injection)
        found.append(x_dot)
    injection.is_empty = False
    return found


def _sums_tangent(
    passed: Passed,
    back: BlockAdjoint,
    x_dot: Tensor | None,
    pairs_dot: tuple[Tensor, Tensor],
    tape: Tape,
    sources: Sources,
    injection: Injection,
    needs_vectors: bool,
) -> Tensor:
    """The change of what the sums over neighbours give."""
    sums, weights = passed.sums, passed.block.interaction.weights
    r_dot, R_dot = pairs_dot
    room = Room()
    s_dot = sums.s1 * r_dot.unsqueeze(1)
    _set_or_add(sources.s1, back.s, r_dot.unsqueeze(1), injection)
    if x_dot is None:
        y_dot = sums.y[:0]
    else:
        y_dot = room.empty_like(sums.y)
        torch.mm(x_dot, weights.view(-1, weights.shape[2]).t(), out=y_dot.flatten(1))
    out_dot = torch.empty_like(back.u)
    tensors = (
        s_dot,
        R_dot,
        y_dot,
        room.empty_like(sums.t),
        out_dot,
        sources.A,
        sources.t,
        sources.s,
        sources.y,
    )
    sums_tangent(
        *sums.arguments,
        back.u.numpy(),
        back.A.numpy(),
        back.t.numpy(),
        *(each.numpy() for each in tensors),
        injection.R.numpy(),
        sources.scales.numpy(),
        x_dot is not None,
        needs_vectors,
        injection.is_empty,
    )
    return out_dot


def _set_or_add(source: Tensor, left: Tensor, right: Tensor, injection: Injection) -> None:
    """Set a source to left * right, or add that to it."""
    if injection.is_empty:
        torch.mul(left, right, out=source)
    else:
        source.addcmul_(left, right)


def _through(
    passed: Passed,
    back: BlockAdjoint,
    x_dot: Tensor | None,
    u_dot: Tensor,
    sources: Sources,
    injection: Injection,
) -> Tensor:
    """The change of a block's features, given that of its sums over neighbours."""
    block, layer, gradients = passed.block, passed.block.interaction, injection.gradients
    if x_dot is not None:
        u_dot.addmm_(x_dot, layer.own.weight.t())
        gradients.add_product(layer.own.weight, back.u, x_dot)
        gradients.add_product(layer.weights, back.y.flatten(1), x_dot)
        if block.adjust is not None:
            gradients.add_product(block.adjust, back.z[0], x_dot)
    h_dot = _activated(passed.middle, back.u, u_dot, sources.u, injection)
    z_dot = h_dot @ block.residual.weight.t()
    gradients.add_product(block.residual.weight, back.z[0], h_dot)
    if x_dot is not None:
        z_dot += x_dot if block.adjust is None else x_dot @ block.adjust.t()
    for q, (base, residual) in enumerate(block.atom_layers):
        gradients.add_product(base.weight, back.atom_u[q], z_dot)
        u_dot = z_dot @ base.weight.t()
        h_dot = _activated(
            passed.atom_middles[q], back.atom_u[q], u_dot, sources.atom_u[q], injection
        )
        gradients.add_product(residual.weight, back.z[q + 1], h_dot)
        z_dot = torch.addmm(z_dot, h_dot, residual.weight.t())
    return z_dot


def _activated(
    middle: Activation, by_u: Tensor, u_dot: Tensor, source: Tensor, injection: Injection
) -> Tensor:
    """The change of softplus(u); its slope's change acts on the adjoint: σ' = σ (1 − σ)."""
    # by_u is σ times the derivative by the value, and h_dot is σ u_dot.
    h_dot = middle.slope * u_dot
    _set_or_add(source, by_u, u_dot.sub_(h_dot), injection)
    return h_dot
