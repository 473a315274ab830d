"""Parts of long arrays: the parameters of a block, and what the passes through it leave behind.

A whole pass is one call of compiled code, to which Python gives one array of numbers as room, and
one of all parameters. The functions here say which part of them is what, in the same way for every
pass over them. `used` (1,) is how much of an array has been given away.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hippynn_mf.network.compiled.adjoint import Adjoint, Sources
from hippynn_mf.network.compiled.blocks import Weights
from hippynn_mf.network.compiled.forward import Passed
from hippynn_mf.network.compiled.geometry import Array
from hippynn_mf.network.compiled.kernels import kernel
from hippynn_mf.network.compiled.ordering import Indices

ALIGNMENT = 16  # numbers, of which every part of a room begins at a multiple


class Counts(NamedTuple):
    """How many there are, in a batch; `components` are those of R."""

    atoms: int
    pairs: int
    elements: int
    components: int


@kernel
def counter(start: int) -> Indices:
    """How much of an array has been given away."""
    return np.full(1, start)


@kernel
def flat(numbers: Array, used: Indices, n: int, alignment: int) -> Array:
    """The next n of an array; none where there is no room, which `used` counts all the same."""
    start = used[0]
    end = start + n
    used[0] = (end + alignment - 1) // alignment * alignment
    if end > len(numbers):
        return numbers[:0]
    return numbers[start:end]


@kernel
def matrix(numbers: Array, used: Indices, n: int, m: int, alignment: int) -> Array:
    """The next n m of an array, as (n, m)."""
    part = flat(numbers, used, n * m, alignment)
    if len(part) == 0:
        return np.empty((n if n * m == 0 else 0, m), numbers.dtype)
    return part.reshape(n, m)


@kernel
def cube(numbers: Array, used: Indices, n: int, m: int, k: int, alignment: int) -> Array:
    """The next n m k of an array, as (n, m, k)."""
    part = flat(numbers, used, n * m * k, alignment)
    if len(part) == 0:
        return np.empty((n if n * m * k == 0 else 0, m, k), numbers.dtype)
    return part.reshape(n, m, k)


@kernel
def weights_of(vector: Array, used: Indices, sizes: Indices) -> Weights:
    """The parameters of a block, of a vector in the order of `ParameterLayout`.

    `sizes` are those of `ParameterLayout.sizes`.
    """
    n_sensitivities, n_middle, n_in, n_features = sizes[0], sizes[1], sizes[2], sizes[3]
    n_layers, n_scales, n_adjust = sizes[4], sizes[5], sizes[6]
    mu = flat(vector, used, n_sensitivities, 1)
    sigma = flat(vector, used, n_sensitivities, 1)
    V = matrix(vector, used, n_sensitivities * n_middle, n_in, 1)
    own_weight = matrix(vector, used, n_middle, n_in, 1)
    own_bias = flat(vector, used, n_middle, 1)
    scales = matrix(vector, used, n_scales, n_middle, 1)
    adjust = matrix(vector, used, n_adjust, n_in, 1)
    out_weights = cube(vector, used, n_layers, n_features, n_middle, 1)
    out_biases = matrix(vector, used, n_layers, n_features, 1)
    in_weights = cube(vector, used, n_layers - 1, n_middle, n_features, 1)
    in_biases = matrix(vector, used, n_layers - 1, n_middle, 1)
    return Weights(
        mu, sigma, V, own_weight, own_bias, scales, adjust, out_weights, out_biases, in_weights,
        in_biases,
    )  # fmt: skip


@kernel
def passed_of(room: Array, used: Indices, sizes: Indices, counts: Counts, n_groups: int) -> Passed:
    """Room for what the forward pass of a block leaves behind."""
    n_sensitivities, n_middle, n_features = sizes[0], sizes[1], sizes[3]
    n_layers, n_scales, n_atoms, n_pairs = sizes[4], sizes[5], counts.atoms, counts.pairs
    c = matrix(room, used, n_pairs, 2, ALIGNMENT)
    g = matrix(room, used, n_pairs, n_sensitivities, ALIGNMENT)
    s = matrix(room, used, n_pairs, n_sensitivities, ALIGNMENT)
    s1 = matrix(room, used, n_pairs, n_sensitivities, ALIGNMENT)
    y = cube(room, used, n_groups, n_sensitivities, n_middle, ALIGNMENT)
    t = matrix(room, used, n_pairs, n_middle, ALIGNMENT)
    A = cube(room, used, n_atoms, counts.components, n_middle, ALIGNMENT)
    norms = cube(room, used, n_atoms, n_scales, n_middle, ALIGNMENT)
    h = cube(room, used, n_layers, n_atoms, n_middle, ALIGNMENT)
    slope = cube(room, used, n_layers, n_atoms, n_middle, ALIGNMENT)
    z = cube(room, used, n_layers, n_atoms, n_features, ALIGNMENT)
    return Passed(c, g, s, s1, y, t, A, norms, h, slope, z)


@kernel
def sources_of(
    room: Array, used: Indices, sizes: Indices, counts: Counts, n_groups: int
) -> Sources:
    """Room for where an adjoint pass starts from within a block."""
    n_sensitivities, n_middle, n_layers = sizes[0], sizes[1], sizes[4]
    n_atoms, n_pairs = counts.atoms, counts.pairs
    u = cube(room, used, n_layers, n_atoms, n_middle, ALIGNMENT)
    A = cube(room, used, n_atoms, counts.components, n_middle, ALIGNMENT)
    t = matrix(room, used, n_pairs, n_middle, ALIGNMENT)
    s = matrix(room, used, n_pairs, n_sensitivities, ALIGNMENT)
    s1 = matrix(room, used, n_pairs, n_sensitivities, ALIGNMENT)
    y = cube(room, used, n_groups, n_sensitivities, n_middle, ALIGNMENT)
    return Sources(u, A, t, s, s1, y)


@kernel
def adjoint_of(
    room: Array, used: Indices, sizes: Indices, counts: Counts, n_groups: int
) -> Adjoint:
    """Room for the adjoint pass of a block."""
    n_sensitivities, n_middle, n_features = sizes[0], sizes[1], sizes[3]
    n_layers, n_atoms, n_pairs = sizes[4], counts.atoms, counts.pairs
    u = cube(room, used, n_layers, n_atoms, n_middle, ALIGNMENT)
    z = cube(room, used, n_layers, n_atoms, n_features, ALIGNMENT)
    A = cube(room, used, n_atoms, counts.components, n_middle, ALIGNMENT)
    t = matrix(room, used, n_pairs, n_middle, ALIGNMENT)
    s = matrix(room, used, n_pairs, n_sensitivities, ALIGNMENT)
    y = cube(room, used, n_groups, n_sensitivities, n_middle, ALIGNMENT)
    return Adjoint(u, z, A, t, s, y)


@kernel
def last_adjoint_of(
    room: Array, used: Indices, sizes: Indices, counts: Counts, sources: Sources
) -> Adjoint:
    """Room for the adjoint pass of a block that starts from sources, in the place of these."""
    n_middle, n_features, n_layers, n_atoms = sizes[1], sizes[3], sizes[4], counts.atoms
    u = cube(room, used, n_layers, n_atoms, n_middle, ALIGNMENT)
    z = cube(room, used, n_layers, n_atoms, n_features, ALIGNMENT)
    return Adjoint(u, z, sources.A, sources.t, sources.s, sources.y)
