"""The tangent pass: the change of features and of an adjoint pass along a change of the vectors."""

from __future__ import annotations

import numpy as np

from hippynn_mf.network.compiled.adjoint import Adjoint, AdjointTape, Injection, Sources
from hippynn_mf.network.compiled.blocks import Weights
from hippynn_mf.network.compiled.forward import Inputs, Passed, Tape
from hippynn_mf.network.compiled.geometry import (
    Array,
    geometry_adjoint_tangent,
    geometry_tangent,
)
from hippynn_mf.network.compiled.kernels import kernel
from hippynn_mf.network.compiled.products import add_outer, add_rows_by_columns, rows_by_columns
from hippynn_mf.network.compiled.room import Room
from hippynn_mf.network.compiled.rows import activated, copy
from hippynn_mf.network.compiled.sensitivities import distance_tangent
from hippynn_mf.network.compiled.sums import sums_tangent


def run_tangent(
    tape: Tape,
    adjoint: AdjointTape,
    by_vectors: Array,
    injection: Injection,
    *,
    needs_vectors: bool,
) -> list[Array]:
    """Features' derivatives along `by_vectors` (as the vectors were given), after every block.

    These are the derivatives of φ = by_vectors · (derivatives by the vectors, of `adjoint`) by what
    `adjoint` started from. `injection` gets what an adjoint pass has to start from, and to be added
    to, to give the derivatives of φ by vectors and parameters; by vectors if `needs_vectors`.
    """
    pairs, room = tape.pairs, Room()
    given, r, u = pairs.order.given, pairs.r, pairs.u
    r_dot, R_dot = np.empty_like(r), np.empty_like(pairs.R)
    geometry_tangent(given, r, u, by_vectors, r_dot, R_dot)
    if needs_vectors:
        geometry_adjoint_tangent(given, r, u, by_vectors, adjoint.r, adjoint.R, injection.vectors)
    found: list[Array] = []
    x_dot = tape.inputs[0].x
    for k, passed in enumerate(tape.passed):
        inputs = tape.inputs[k]
        z_dot = np.empty_like(passed.z[0])
        tangent_block(
            tape.weights[k],
            inputs,
            passed,
            adjoint.blocks[k],
            x_dot,
            r_dot,
            R_dot,
            room.empty_like(passed.s),
            passed.y[:0] if inputs.is_first else room.empty_like(passed.y),
            room.empty_like(passed.t),
            injection.sources[k],
            injection.R,
            injection.gradients[k],
            z_dot,
            injection.is_empty,
            needs_vectors,
        )
        found.append(z_dot)
        x_dot = z_dot
    injection.is_empty = False
    return found


@kernel
def tangent_block(
    weights: Weights,
    inputs: Inputs,
    passed: Passed,
    back: Adjoint,
    x_dot: Array,
    r_dot: Array,
    R_dot: Array,
    s_dot: Array,
    y_dot: Array,
    t_dot: Array,
    sources: Sources,
    R_source: Array,
    gradients: Weights,
    z_dot: Array,
    is_first: bool,
    needs_vectors: bool,
) -> None:
    """The change `z_dot` of a block's features; adds to sources and gradients.

    `s_dot`, `y_dot` and `t_dot` are room. Sources are set instead if `is_first`.
    """
    n_layers, n_atoms, n_middle = passed.h.shape
    distance_tangent(passed.s1, back.s, r_dot, s_dot, sources.s1, is_first)
    if not inputs.is_first:
        rows_by_columns(x_dot, weights.V, y_dot.reshape(len(y_dot), y_dot.shape[1] * n_middle))
    u_dot = np.empty((n_atoms, n_middle), z_dot.dtype)
    h_dot = np.empty_like(u_dot)
    sums_tangent(
        inputs.pairs, inputs.receivers, inputs.groups, inputs.rows, passed.s, inputs.R, passed.y,
        weights.scales, passed.t, passed.A, passed.norms, back.u[0], back.A, back.t, s_dot, R_dot,
        y_dot, t_dot, u_dot, sources.A, sources.t, sources.s, sources.y, R_source, gradients.scales,
        not inputs.is_first, needs_vectors, is_first,
    )  # fmt: skip
    if not inputs.is_first:
        add_rows_by_columns(x_dot, weights.own_weight, u_dot)
        add_outer(back.u[0], x_dot, gradients.own_weight)
        all_y = back.y.reshape(len(back.y), back.y.shape[1] * n_middle)
        add_outer(all_y, x_dot, gradients.V)
        if len(weights.adjust) > 0:
            add_outer(back.z[0], x_dot, gradients.adjust)
            rows_by_columns(x_dot, weights.adjust, z_dot)
        else:
            copy(x_dot, z_dot)
    else:
        z_dot[:] = 0
    activated(u_dot, passed.slope[0], back.u[0], sources.u[0], h_dot, is_first)
    add_rows_by_columns(h_dot, weights.out_weights[0], z_dot)
    add_outer(back.z[0], h_dot, gradients.out_weights[0])
    for q in range(1, n_layers):
        add_outer(back.u[q], z_dot, gradients.in_weights[q - 1])
        rows_by_columns(z_dot, weights.in_weights[q - 1], u_dot)
        activated(u_dot, passed.slope[q], back.u[q], sources.u[q], h_dot, is_first)
        add_outer(back.z[q], h_dot, gradients.out_weights[q])
        add_rows_by_columns(h_dot, weights.out_weights[q], z_dot)
