"""The adjoint pass: from derivatives by the features to those by vectors and parameters."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from torch import Tensor, from_numpy

from hippynn_mf.network.compiled.blocks import Weights
from hippynn_mf.network.compiled.forward import Geometry, Inputs, Passed, Tape
from hippynn_mf.network.compiled.geometry import Array, geometry_adjoint
from hippynn_mf.network.compiled.kernels import kernel
from hippynn_mf.network.compiled.products import add_outer, add_product, product
from hippynn_mf.network.compiled.rows import (
    add_sum,
    add_sum_by_element,
    copy,
    times_slope,
    times_slope_and_source,
)
from hippynn_mf.network.compiled.sensitivities import (
    distance_adjoint,
    parameter_adjoint,
    slope_adjoint,
)
from hippynn_mf.network.compiled.sums import sums_adjoint


class Sources(NamedTuple):
    """Where an adjoint pass starts from within one block, besides the derivatives by features.

    `s1` is by s', `u` (n_layers, n_atoms, n_middle) by what softplus is taken of, and the others
    by what they are called after.
    """

    u: Array
    A: Array
    t: Array
    s: Array
    s1: Array
    y: Array


@dataclass
class Injection:
    """What the tangents of adjoint passes leave for one last adjoint pass to start from.

    Sources are set by the first tangent, and added to by others. `gradients` are of every block.
    """

    sources: list[Sources]
    R: Array
    vectors: Array
    gradients: list[Weights]
    is_empty: bool = True

    @classmethod
    def of(cls, tape: Tape, gradients: list[Weights] | None = None) -> Injection:
        """Nothing yet, of a forward pass; `gradients` are to be added to."""
        if gradients is None:
            gradients = [weights.zeros() for weights in tape.weights]
        empty = tape.room.empty_like
        return cls(
            [Sources(*map(empty, (p.h, p.A, p.t, p.s, p.s1, p.y))) for p in tape.passed],
            np.zeros_like(tape.pairs.R),
            np.zeros_like(tape.pairs.u),
            gradients,
        )


class Adjoint(NamedTuple):
    """One block's adjoint pass; names as in `Passed`, for the derivatives by them."""

    u: Array
    z: Array
    A: Array
    t: Array
    s: Array
    y: Array


@dataclass
class AdjointTape:
    """An adjoint pass: by blocks, and by r and R."""

    r: Array
    R: Array
    blocks: list[Adjoint] = field(default_factory=list)


def run_adjoint(
    tape: Tape,
    by_features: list[Array | None],
    *,
    injection: Injection | None = None,
    gradients: list[Weights] | None = None,
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
    pairs, empty = tape.pairs, tape.room.empty_like
    result = AdjointTape(
        np.zeros_like(pairs.r), np.zeros_like(pairs.R) if injection is None else injection.R
    )
    by_x: Array | None = None
    for k in reversed(range(len(tape.passed))):
        passed, by_z = tape.passed[k], by_features[k]
        sources = None if injection is None else injection.sources[k]
        if sources is None:
            inner = [empty(each) for each in (passed.A, passed.t, passed.s, passed.y)]
        else:
            inner = [sources.A, sources.t, sources.s, sources.y]
        block = Adjoint(empty(passed.h), empty(passed.z), *inner)
        if by_z is None:
            block.z[-1] = 0 if by_x is None else by_x
        elif by_x is None:
            block.z[-1] = by_z
        else:
            np.add(by_x, by_z, out=block.z[-1])
        by_x = empty(tape.inputs[k].x)
        adjoint_block(
            tape.weights[k],
            tape.inputs[k],
            passed,
            block,
            passed.h[:0] if sources is None else sources.u,
            passed.s[:0] if sources is None else sources.s1,
            tape.weights[k] if gradients is None else gradients[k],
            result.r,
            result.R,
            by_x,
            sources is not None,
            gradients is not None,
            needs_vectors,
        )
        result.blocks.insert(0, block)
    return result


def by_vectors(pairs: Geometry, adjoint: AdjointTape, start: Array | None = None) -> Array:
    """Derivatives by the vectors, in the order in which these were given, added to `start`."""
    found = np.zeros_like(pairs.u) if start is None else start
    geometry_adjoint(pairs.order.given, pairs.r, pairs.u, adjoint.r, adjoint.R, found)
    return found


def by_parameters(tape: Tape, gradients: list[Weights]) -> dict[int, Tensor]:
    """Derivatives by every parameter, by its identity."""
    return {
        id(parameter): from_numpy(gradient).view(parameter.shape)
        for block, of_block in zip(tape.blocks, gradients, strict=True)
        for parameter, gradient in of_block.by_parameter(block)
    }


@kernel
def adjoint_block(
    weights: Weights,
    inputs: Inputs,
    passed: Passed,
    back: Adjoint,
    u_sources: Array,
    s1_bar: Array,
    gradients: Weights,
    r_bar: Array,
    R_bar: Array,
    by_x: Array,
    has_sources: bool,
    needs_parameters: bool,
    needs_vectors: bool,
) -> None:
    """The adjoint pass through a block, from the last of back.z on: all of `back`, and `by_x`.

    Adds to `r_bar` and `R_bar`, and to `gradients` if wanted. With `has_sources`, A, t, s and y of
    `back` hold what to start from.
    """
    x, z, u = inputs.x, back.z, back.u
    for q in range(len(z) - 1, 0, -1):
        product(z[q], weights.out_weights[q], u[q])
        if has_sources:
            times_slope_and_source(u[q], passed.slope[q], u_sources[q])
        else:
            times_slope(u[q], passed.slope[q])
        if needs_parameters:
            add_outer(z[q], passed.h[q], gradients.out_weights[q])
            add_sum(z[q], gradients.out_biases[q])
            add_outer(u[q], passed.z[q - 1], gradients.in_weights[q - 1])
            add_sum(u[q], gradients.in_biases[q - 1])
        copy(z[q], z[q - 1])
        add_product(u[q], weights.in_weights[q - 1], z[q - 1])
    product(z[0], weights.out_weights[0], u[0])
    if has_sources:
        times_slope_and_source(u[0], passed.slope[0], u_sources[0])
    else:
        times_slope(u[0], passed.slope[0])
    if needs_parameters:
        add_outer(z[0], passed.h[0], gradients.out_weights[0])
        add_sum(z[0], gradients.out_biases[0])
        add_sum(u[0], gradients.own_bias)
        if inputs.is_first:
            add_sum_by_element(u[0], inputs.elements, gradients.own_weight)
            if len(weights.adjust) > 0:
                add_sum_by_element(z[0], inputs.elements, gradients.adjust)
        else:
            add_outer(u[0], x, gradients.own_weight)
            if len(weights.adjust) > 0:
                add_outer(z[0], x, gradients.adjust)
    scales_bar = gradients.scales if needs_parameters else np.zeros_like(weights.scales)
    sums_adjoint(
        inputs.pairs, inputs.receivers, inputs.groups, inputs.rows, passed.s, inputs.R, passed.y,
        weights.scales, passed.t, passed.A, passed.norms, u[0], back.A, back.t, back.s, back.y,
        R_bar, scales_bar, needs_vectors, needs_parameters or not inputs.is_first, has_sources,
    )  # fmt: skip
    if needs_vectors:
        distance_adjoint(passed.s1, back.s, r_bar)
        if has_sources:
            slope_adjoint(
                inputs.r, weights.mu, weights.sigma, inputs.cutoff, passed.g, s1_bar, r_bar
            )
    all_y = back.y.reshape(len(back.y), back.y.shape[1] * back.y.shape[2])
    if needs_parameters:
        parameter_adjoint(
            inputs.r, weights.mu, weights.sigma, passed.c, passed.g, passed.s, passed.s1, back.s,
            s1_bar, gradients.mu, gradients.sigma,
        )  # fmt: skip
        if inputs.is_first:
            for e in range(len(all_y)):
                for k in range(all_y.shape[1]):
                    gradients.V[k, e] += all_y[e, k]
        else:
            add_outer(all_y, x, gradients.V)
    if not inputs.is_first:
        if len(weights.adjust) > 0:
            product(z[0], weights.adjust, by_x)
        else:
            copy(z[0], by_x)
        add_product(u[0], weights.own_weight, by_x)
        add_product(all_y, weights.V, by_x)
