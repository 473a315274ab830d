"""The passes through a whole network, each in one call of compiled code.

A batch is a few arrays, and what a pass leaves behind is in its room, of which `places` says where
what begins: numbers as in `parts.py`. See `whole.py` for what is given to them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hippynn_mf.network.compiled.activations import Tables
from hippynn_mf.network.compiled.adjoint import adjoint_block
from hippynn_mf.network.compiled.arranging import Atoms, atoms_of
from hippynn_mf.network.compiled.blocks import Weights
from hippynn_mf.network.compiled.forward import Inputs, Passed, forward_block
from hippynn_mf.network.compiled.geometry import (
    Array,
    geometry,
    geometry_adjoint,
    geometry_tangent,
)
from hippynn_mf.network.compiled.heads import sum_atoms, sum_atoms_adjoint
from hippynn_mf.network.compiled.kernels import kernel
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
    passed_of,
    sources_of,
    weights_of,
)
from hippynn_mf.network.compiled.products import (
    add_outer,
    add_product,
    product,
    rows_by_columns,
)
from hippynn_mf.network.compiled.rows import (
    add_sum,
    add_sum_by_element,
    add_to_rows,
    copy,
    set_rows,
)
from hippynn_mf.network.compiled.tangent import tangent_block


class Net(NamedTuple):
    """What the passes need beside parameters and batch.

    `sizes` are those of `ParameterLayout`, `numbers` (n_blocks, 2) cut-offs and cusps; `sums`
    (n_heads, n_heads) and the levels `with_forces` those of `Readout`.
    """

    sizes: Indices
    numbers: Array
    sums: Array
    with_forces: Indices


@kernel
def flag(value: bool) -> bool:
    """The value, as a variable: numba compiles a function once more for a constant."""
    found = np.empty(1, np.bool_)
    found[0] = value
    return bool(found[0])


@kernel
def n_groups(k: int, counts: Counts) -> int:
    """Groups of senders with the same y: in the first block their elements."""
    return counts.elements if k == 0 else counts.atoms


@kernel
def lay_out_forward(room: Array, net: Net, counts: Counts, places: Indices) -> int:
    """Where what begins in the room of a forward pass; how much that is.

    `places` (1 + n_forces, n_blocks + 1) are, in the first row, of the blocks, and of the atoms'
    energies; in others of the blocks' adjoint passes for a level, and of r_bar and R_bar.
    """
    n_blocks, n_heads, n_pairs = len(net.sizes), len(net.sums), counts.pairs
    used = counter(0)
    flat(room, used, n_pairs, ALIGNMENT)
    matrix(room, used, n_pairs, 3, ALIGNMENT)
    matrix(room, used, n_pairs, counts.components, ALIGNMENT)
    for k in range(n_blocks):
        places[0, k] = used[0]
        passed_of(room, used, net.sizes[k], counts, n_groups(k, counts))
    places[0, n_blocks] = used[0]
    cube(room, used, n_blocks + 1, counts.atoms, n_heads, ALIGNMENT)
    for f in range(1, len(places)):
        for k in range(n_blocks):
            places[f, k] = used[0]
            adjoint_of(room, used, net.sizes[k], counts, n_groups(k, counts))
            matrix(room, used, counts.atoms, net.sizes[k, 2], ALIGNMENT)
        places[f, n_blocks] = used[0]
        flat(room, used, n_pairs, ALIGNMENT)
        matrix(room, used, n_pairs, counts.components, ALIGNMENT)
    return used[0]


@kernel
def weight_places(net: Net, vector: Array) -> Indices:
    """Where the parameters of every block begin, and after them those of the heads."""
    used = counter(0)
    found = np.empty(len(net.sizes) + 1, np.int64)
    for k in range(len(net.sizes)):
        found[k] = used[0]
        weights_of(vector, used, net.sizes[k])
    found[-1] = used[0]
    return found


@kernel
def head_of(k: int, net: Net, vector: Array, start: int) -> Array:
    """The heads' weights (n_heads, n_features) of what follows block k; heads begin at `start`."""
    n_heads = len(net.sums)
    for block in range(k):
        start += n_heads * net.sizes[block, 3]
    return matrix(vector, counter(start), n_heads, net.sizes[k, 3], 1)


@kernel
def bias_of(k: int, net: Net, vector: Array, start: int) -> Array:
    """The heads' biases (n_heads,), which come after all their weights."""
    n_heads = len(net.sums)
    for block in range(len(net.sizes)):
        start += n_heads * net.sizes[block, 3]
    return flat(vector, counter(start + n_heads * k), n_heads, 1)


@kernel
def passed_at(k: int, net: Net, counts: Counts, room: Array, places: Indices) -> Passed:
    """What the forward pass has left behind of block k."""
    return passed_of(room, counter(places[0, k]), net.sizes[k], counts, n_groups(k, counts))


@kernel
def inputs_of(
    k: int, net: Net, atoms: Atoms, counts: Counts, room: Array, places: Indices
) -> Inputs:
    """What the passes through block k have in common."""
    used = counter(0)
    r = flat(room, used, counts.pairs, ALIGNMENT)
    matrix(room, used, counts.pairs, 3, ALIGNMENT)
    R = matrix(room, used, counts.pairs, counts.components, ALIGNMENT)
    cutoff, cusp = net.numbers[k, 0], net.numbers[k, 1]
    if k == 0:
        nothing = np.empty((counts.atoms, 0), room.dtype)
        return Inputs(
            True, atoms.elements, nothing, atoms.consecutive, atoms.receivers, atoms.of_elements,
            atoms.element_rows, r, R, cutoff, cusp,
        )  # fmt: skip
    x = passed_at(k - 1, net, counts, room, places).z[-1]
    return Inputs(
        False, atoms.elements, x, atoms.consecutive, atoms.receivers, atoms.senders,
        atoms.sender_rows, r, R, cutoff, cusp,
    )  # fmt: skip


@kernel
def forward_pass(
    net: Net,
    vector: Array,
    of_species: Array,
    integers: Indices,
    counts: Counts,
    v: Array,
    of: Tables,
    room: Array,
    places: Indices,
    E: Array,
    H: Array,
    slopes: Array,
) -> None:
    """Energies E and hierarchicalities H (n_heads, n), and slopes (n_forces, n_pairs, 3).

    Slopes are by the vectors `v` (n_pairs, 3) of pairs, both in the order of the list of pairs;
    `of_species` (n_heads, n_elements) are the heads' energies of these.
    """
    atoms = atoms_of(integers, counts)
    e = energies_of_vectors(net, vector, of_species, atoms, counts, v, of, room, places)
    own = np.empty_like(E)
    sum_atoms(e, atoms.structures, own, H)
    add_levels(net, own, E)
    for f in range(len(net.with_forces)):
        slopes_by_vectors(net, vector, f, atoms, counts, room, places, slopes[f])


@kernel
def forward_of_vectors(
    net: Net,
    vector: Array,
    of_species: Array,
    integers: Indices,
    counts: Counts,
    v: Array,
    of: Tables,
    room: Array,
    places: Indices,
    energies: Array,
    slopes: Array,
) -> None:
    """The atoms' energies (n_heads, n_atoms), and slopes (n_forces, n_pairs, 3) by the vectors.

    `v` (n_pairs, 3) and `slopes` are in the order of the list of pairs.
    """
    atoms = atoms_of(integers, counts)
    e = energies_of_vectors(net, vector, of_species, atoms, counts, v, of, room, places)
    own = np.zeros_like(energies)
    for term in range(len(e)):
        for i in range(counts.atoms):
            for head in range(len(own)):
                own[head, i] += e[term, i, head]
    add_levels(net, own, energies)
    for f in range(len(net.with_forces)):
        slopes_by_vectors(net, vector, f, atoms, counts, room, places, slopes[f])


@kernel
def add_levels(net: Net, own: Array, energies: Array) -> None:
    """The energies (n_heads, n) of levels, of those of heads."""
    for level in range(len(own)):
        for k in range(own.shape[1]):
            total = own.dtype.type(0)
            for head in range(len(own)):
                total += net.sums[level, head] * own[head, k]
            energies[level, k] = total


@kernel
def energies_of_vectors(
    net: Net,
    vector: Array,
    of_species: Array,
    atoms: Atoms,
    counts: Counts,
    v: Array,
    of: Tables,
    room: Array,
    places: Indices,
) -> Array:
    """The forward pass of all blocks; the atoms' energies of every term, as in `heads.py`."""
    n_blocks, n_heads = len(net.sizes), len(net.sums)
    used = counter(0)
    r = flat(room, used, counts.pairs, ALIGNMENT)
    u = matrix(room, used, counts.pairs, 3, ALIGNMENT)
    R = matrix(room, used, counts.pairs, counts.components, ALIGNMENT)
    geometry(v, atoms.given, r, u, R)
    starts = weight_places(net, vector)
    e = cube(room, counter(places[0, n_blocks]), n_blocks + 1, counts.atoms, n_heads, ALIGNMENT)
    for i in range(counts.atoms):
        for head in range(n_heads):
            e[0, i, head] = of_species[head, atoms.elements[i]]
    for k in range(n_blocks):
        passed = passed_at(k, net, counts, room, places)
        weights = weights_of(vector, counter(starts[k]), net.sizes[k])
        forward_block(weights, inputs_of(k, net, atoms, counts, room, places), of, passed)
        rows_by_columns(passed.z[-1], head_of(k, net, vector, starts[-1]), e[k + 1])
        add_to_rows(e[k + 1], bias_of(k, net, vector, starts[-1]), e[k + 1])
    return e


@kernel
def slopes_by_vectors(
    net: Net,
    vector: Array,
    f: int,
    atoms: Atoms,
    counts: Counts,
    room: Array,
    places: Indices,
    slopes: Array,
) -> None:
    """Derivatives of the energy of level number f of those with forces, by the vectors."""
    used = counter(0)
    r = flat(room, used, counts.pairs, ALIGNMENT)
    u = matrix(room, used, counts.pairs, 3, ALIGNMENT)
    adjoint_for_forces(net, vector, weight_places(net, vector), f, atoms, counts, room, places)
    used = counter(places[1 + f, len(net.sizes)])
    r_bar = flat(room, used, counts.pairs, ALIGNMENT)
    R_bar = matrix(room, used, counts.pairs, counts.components, ALIGNMENT)
    slopes[:] = 0
    geometry_adjoint(atoms.given, r, u, r_bar, R_bar, slopes)


@kernel
def adjoint_for_forces(
    net: Net,
    vector: Array,
    starts: Indices,
    f: int,
    atoms: Atoms,
    counts: Counts,
    room: Array,
    places: Indices,
) -> None:
    """The adjoint pass from the energy of level number f of those with forces."""
    n_blocks, level = len(net.sizes), net.with_forces[f]
    used = counter(places[1 + f, n_blocks])
    r_bar = flat(room, used, counts.pairs, ALIGNMENT)
    R_bar = matrix(room, used, counts.pairs, counts.components, ALIGNMENT)
    r_bar[:] = 0
    R_bar[:] = 0
    by_x = np.empty((0, 0), room.dtype)
    for k in range(n_blocks - 1, -1, -1):
        sizes = net.sizes[k]
        used = counter(places[1 + f, k])
        back = adjoint_of(room, used, sizes, counts, n_groups(k, counts))
        head, row = head_of(k, net, vector, starts[-1]), np.zeros(sizes[3], room.dtype)
        for h in range(len(head)):
            for a in range(len(row)):
                row[a] += net.sums[level, h] * head[h, a]
        if k == n_blocks - 1:
            set_rows(row, back.z[-1])
        else:
            add_to_rows(by_x, row, back.z[-1])
        by_x = matrix(room, used, counts.atoms, sizes[2], ALIGNMENT)
        passed = passed_at(k, net, counts, room, places)
        weights = weights_of(vector, counter(starts[k]), sizes)
        adjoint_block(
            weights, inputs_of(k, net, atoms, counts, room, places), passed, back, passed.h[:0],
            passed.s[:0], weights, r_bar, R_bar, by_x, flag(False), flag(False), flag(True),
        )  # fmt: skip


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
