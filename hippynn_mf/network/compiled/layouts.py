"""Where the passes through a whole network find what they need: parameters, inputs, room.

A batch is a few arrays, and what a pass leaves behind is in its room, of which `places` says where
what begins: numbers as in `parts.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hippynn_mf.network.compiled.arranging import Atoms
from hippynn_mf.network.compiled.forward import Inputs, Passed
from hippynn_mf.network.compiled.geometry import Array
from hippynn_mf.network.compiled.kernels import kernel
from hippynn_mf.network.compiled.ordering import Indices
from hippynn_mf.network.compiled.parts import (
    ALIGNMENT,
    Counts,
    adjoint_of,
    counter,
    cube,
    flat,
    matrix,
    passed_of,
    weights_of,
)


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
def lay_out_forward(room: Array, net: Net, counts: Counts, places: Indices, is_kept: bool) -> int:
    """Where what begins in the room of a forward pass; how much that is.

    `places` (1 + n_forces, n_blocks + 1) are, in the first row, of the blocks, and of the atoms'
    energies; in others of the blocks' adjoint passes for a level, and of r_bar and R_bar. Unless
    what adjoint passes leave behind `is_kept`, for a gradient, all have the same room: a block
    reads what the one behind it hands on, at the end of that one's room, before it writes there.
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
    start, end = used[0], used[0]
    for f in range(1, len(places)):
        if not is_kept:
            used[0] = start
        places[f, n_blocks] = used[0]
        flat(room, used, n_pairs, ALIGNMENT)
        matrix(room, used, n_pairs, counts.components, ALIGNMENT)
        of_block = used[0]
        for k in range(n_blocks):
            if not is_kept:
                used[0] = of_block
            places[f, k] = used[0]
            adjoint_of(room, used, net.sizes[k], counts, n_groups(k, counts))
            matrix(room, used, counts.atoms, net.sizes[k, 2], ALIGNMENT)
            end = max(end, used[0])
    return end


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
