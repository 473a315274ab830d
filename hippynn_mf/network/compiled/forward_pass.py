"""The forward pass through a whole network, with the adjoint pass of every force, in one call.

See `whole.py` for what is given to it.
"""

from __future__ import annotations

import numpy as np

from hippynn_mf.network.compiled.adjoint import adjoint_block
from hippynn_mf.network.compiled.arranging import Atoms, atoms_of
from hippynn_mf.network.compiled.forward import forward_block
from hippynn_mf.network.compiled.geometry import Array, geometry, geometry_adjoint
from hippynn_mf.network.compiled.heads import sum_atoms
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
    matrix,
    weights_of,
)
from hippynn_mf.network.compiled.products import rows_by_columns
from hippynn_mf.network.compiled.rows import add_to_rows, set_rows


@kernel
def forward_pass(
    net: Net,
    vector: Array,
    of_species: Array,
    integers: Indices,
    counts: Counts,
    v: Array,
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
    e = energies_of_vectors(net, vector, of_species, atoms, counts, v, room, places)
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
    room: Array,
    places: Indices,
    energies: Array,
    slopes: Array,
) -> None:
    """The atoms' energies (n_heads, n_atoms), and slopes (n_forces, n_pairs, 3) by the vectors.

    `v` (n_pairs, 3) and `slopes` are in the order of the list of pairs.
    """
    atoms = atoms_of(integers, counts)
    e = energies_of_vectors(net, vector, of_species, atoms, counts, v, room, places)
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
        forward_block(weights, inputs_of(k, net, atoms, counts, room, places), passed)
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
