"""The derivative of a loss by a whole network's parameters, in one call of compiled code.

It follows a forward pass, whose room it reads; see `whole.py` for what is given to it.
"""

from __future__ import annotations

import numpy as np

from hippynn_mf.network.compiled.adjoint import adjoint_block
from hippynn_mf.network.compiled.arranging import Atoms, atoms_of
from hippynn_mf.network.compiled.blocks import Weights
from hippynn_mf.network.compiled.geometry import Array, geometry_tangent
from hippynn_mf.network.compiled.heads import sum_atoms_adjoint
from hippynn_mf.network.compiled.kernels import kernel
from hippynn_mf.network.compiled.layouts import (
    Net,
    bias_of,
    flag,
    head_of,
    inputs_of,
    n_groups,
    passed_at,
    weight_places,
)
from hippynn_mf.network.compiled.ordering import Indices
from hippynn_mf.network.compiled.parts import (
    ALIGNMENT,
    Counts,
    adjoint_of,
    counter,
    cube,
    flat,
    last_adjoint_of,
    matrix,
    sources_of,
    weights_of,
)
from hippynn_mf.network.compiled.products import add_outer, add_product, product
from hippynn_mf.network.compiled.rows import add_sum, add_sum_by_element, copy
from hippynn_mf.network.compiled.tangent import tangent_block


@kernel
def lay_out_gradient(room: Array, net: Net, counts: Counts, places: Indices) -> int:
    """Where what begins in the room of a gradient pass; how much that is.

    `places` (4, n_blocks) are of sources, of the last adjoint pass, of features' changes, and of
    what only one block's tangent needs.
    """
    n_blocks, used, end = len(net.sizes), counter(0), 0
    matrix(room, used, counts.pairs, counts.components, ALIGNMENT)
    for k in range(n_blocks):
        sizes = net.sizes[k]
        places[0, k] = used[0]
        sources = sources_of(room, used, sizes, counts, n_groups(k, counts))
        places[1, k] = used[0]
        last_adjoint_of(room, used, sizes, counts, sources)
        matrix(room, used, counts.atoms, sizes[2], ALIGNMENT)
        places[2, k] = used[0]
        matrix(room, used, counts.atoms, sizes[3], ALIGNMENT)
    for k in range(n_blocks):
        places[3, k] = used[0]
        inside = counter(used[0])
        tangent_room(room, inside, net.sizes[k], counts, n_groups(k, counts))
        end = max(end, inside[0])
    return end


@kernel
def tangent_room(
    room: Array, used: Indices, sizes: Indices, counts: Counts, n: int
) -> tuple[Array, Array, Array]:
    """Room for s_dot, y_dot and t_dot of a block with n groups."""
    s_dot = matrix(room, used, counts.pairs, sizes[0], ALIGNMENT)
    y_dot = cube(room, used, n, sizes[0], sizes[1], ALIGNMENT)
    t_dot = matrix(room, used, counts.pairs, sizes[1], ALIGNMENT)
    return s_dot, y_dot, t_dot


@kernel
def gradient_pass(
    net: Net,
    vector: Array,
    integers: Indices,
    counts: Counts,
    room: Array,
    places: Indices,
    inner: Array,
    inner_places: Indices,
    by_E: Array,
    by_H: Array,
    by_slopes: Array,
    is_wanted: Indices,
    found: Array,
) -> None:
    """Add to `found` the derivatives of a loss by the vector, and after it by those of species.

    `room` and `places` are those of the forward pass, `inner` and `inner_places` of this one.
    `by_E`, `by_H` (n_heads, n) and `by_slopes` (n_forces, n_pairs, 3) are the loss's derivatives;
    slopes count where `is_wanted` (n_forces,).
    """
    n_blocks, n_heads = len(net.sizes), len(net.sums)
    atoms, starts = atoms_of(integers, counts), weight_places(net, vector)
    e = cube(room, counter(places[0, n_blocks]), n_blocks + 1, counts.atoms, n_heads, ALIGNMENT)
    by_own, by_e = np.zeros_like(by_E), np.empty_like(e)
    for level in range(n_heads):
        for head in range(n_heads):
            for structure in range(by_E.shape[1]):
                by_own[head, structure] += net.sums[level, head] * by_E[level, structure]
    sum_atoms_adjoint(e, atoms.structures, by_own, by_H, by_e)
    n_inner = len(vector)
    by_species = matrix(found, counter(n_inner), n_heads, counts.elements, 1)
    add_sum_by_element(by_e[0], atoms.elements, by_species)
    for k in range(n_blocks):
        passed = passed_at(k, net, counts, room, places)
        add_outer(by_e[k + 1], passed.z[-1], head_of(k, net, found, starts[-1]))
        add_sum(by_e[k + 1], bias_of(k, net, found, starts[-1]))
    R_source = matrix(inner, counter(0), counts.pairs, counts.components, ALIGNMENT)
    R_source[:] = 0
    n_tangents = 0
    for f in range(len(net.with_forces)):
        if is_wanted[f]:
            tangent_of_forces(
                net, vector, starts, f, atoms, counts, room, places, inner, inner_places,
                by_slopes[f], R_source, found, n_tangents == 0,
            )  # fmt: skip
            n_tangents += 1
    has_sources = n_tangents > 0
    r_bar, by_x = np.empty(0, room.dtype), np.empty((0, 0), room.dtype)
    for k in range(n_blocks - 1, -1, -1):
        sizes, passed = net.sizes[k], passed_at(k, net, counts, room, places)
        weights = weights_of(vector, counter(starts[k]), sizes)
        gradients = weights_of(found, counter(starts[k]), sizes)
        sources = sources_of(inner, counter(inner_places[0, k]), sizes, counts, n_groups(k, counts))
        used = counter(inner_places[1, k])
        back = last_adjoint_of(inner, used, sizes, counts, sources)
        head = head_of(k, net, vector, starts[-1])
        if k == n_blocks - 1:
            product(by_e[k + 1], head, back.z[-1])
        else:
            copy(by_x, back.z[-1])
            add_product(by_e[k + 1], head, back.z[-1])
        by_x = matrix(inner, used, counts.atoms, sizes[2], ALIGNMENT)
        adjoint_block(
            weights, inputs_of(k, net, atoms, counts, room, places), passed, back,
            sources.u if has_sources else sources.u[:0],
            sources.s1 if has_sources else sources.s1[:0],
            gradients, r_bar, R_source, by_x, has_sources, flag(True), flag(False),
        )  # fmt: skip


@kernel
def tangent_of_forces(
    net: Net,
    vector: Array,
    starts: Indices,
    f: int,
    atoms: Atoms,
    counts: Counts,
    room: Array,
    places: Indices,
    inner: Array,
    inner_places: Indices,
    direction: Array,
    R_source: Array,
    found: Array,
    is_first: bool,
) -> None:
    """The tangent of one level's slopes along a direction; adds to sources and to `found`."""
    used = counter(0)
    r = flat(room, used, counts.pairs, ALIGNMENT)
    u = matrix(room, used, counts.pairs, 3, ALIGNMENT)
    r_dot = np.empty_like(r)
    R_dot = np.empty((counts.pairs, counts.components), room.dtype)
    geometry_tangent(atoms.given, r, u, direction, r_dot, R_dot)
    x_dot, level = np.empty((counts.atoms, 0), room.dtype), net.with_forces[f]
    for k in range(len(net.sizes)):
        sizes, groups = net.sizes[k], n_groups(k, counts)
        passed = passed_at(k, net, counts, room, places)
        back = adjoint_of(room, counter(places[1 + f, k]), sizes, counts, groups)
        weights: Weights = weights_of(vector, counter(starts[k]), sizes)
        gradients = weights_of(found, counter(starts[k]), sizes)
        sources = sources_of(inner, counter(inner_places[0, k]), sizes, counts, groups)
        z_dot = matrix(inner, counter(inner_places[2, k]), counts.atoms, sizes[3], ALIGNMENT)
        s_dot, y_dot, t_dot = tangent_room(
            inner, counter(inner_places[3, k]), sizes, counts, groups
        )
        tangent_block(
            weights, inputs_of(k, net, atoms, counts, room, places), passed, back, x_dot, r_dot,
            R_dot, s_dot, y_dot, t_dot, sources, R_source, gradients, z_dot, is_first,
            flag(False),
        )  # fmt: skip
        change, head = np.zeros(sizes[3], room.dtype), head_of(k, net, found, starts[-1])
        add_sum(z_dot, change)
        for h in range(len(head)):
            for a in range(len(change)):
                head[h, a] += net.sums[level, h] * change[a]
        x_dot = z_dot
