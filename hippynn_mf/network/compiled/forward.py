"""The forward pass of a network, with everything that its derivatives need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hippynn_mf.network.compiled.activations import softplus
from hippynn_mf.network.compiled.blocks import Block, Weights
from hippynn_mf.network.compiled.geometry import Array, geometry
from hippynn_mf.network.compiled.kernels import kernel
from hippynn_mf.network.compiled.ordering import Groups, Indices, PairOrder
from hippynn_mf.network.compiled.products import add_rows_by_columns, rows_by_columns
from hippynn_mf.network.compiled.room import Room
from hippynn_mf.network.compiled.rows import add_of_element, add_to_rows, by_element, set_rows
from hippynn_mf.network.compiled.sensitivities import sensitivities
from hippynn_mf.network.compiled.sums import sums_forward


@dataclass(frozen=True)
class Geometry:
    """Pairs sorted by receiver: r (n_pairs,), unit vectors u and tensor components R."""

    order: PairOrder
    r: Array
    u: Array
    R: Array

    @classmethod
    def of(cls, vectors: Array, order: PairOrder, tensor_order: int) -> Geometry:
        """Of vectors (n_pairs, 3) in the order given; or distances (n_pairs, 1) for ℓ = 0."""
        r, u = np.empty(len(vectors), vectors.dtype), np.empty_like(vectors)
        R = np.empty((len(vectors), (tensor_order + 1) ** 2), vectors.dtype)
        geometry(vectors, order.given, r, u, R)
        return cls(order, r, u, R)


class Inputs(NamedTuple):
    """What the passes through one block have in common.

    The features `x` (n_atoms, nf_in) before the block have no columns in the first one, where they
    are the species. `receivers` and `groups` are of `sums.py`, the latter with `rows`.
    """

    is_first: bool
    elements: Indices
    x: Array
    pairs: Indices
    receivers: Indices
    groups: Indices
    rows: Indices
    r: Array
    R: Array
    cutoff: float
    cusp: float


class Passed(NamedTuple):
    """What the forward pass of a block leaves behind; `c` to `norms` as in the kernels.

    h and slope (n_layers, n_atoms, n_middle) are softplus(u) and its slope, of the interaction
    layer and then of the atom layers; z are the features after each of these.
    """

    c: Array
    g: Array
    s: Array
    s1: Array
    y: Array
    t: Array
    A: Array
    norms: Array
    h: Array
    slope: Array
    z: Array


@dataclass(frozen=True)
class Tape:
    """The forward pass of a network; lists are by block."""

    blocks: list[Block]
    pairs: Geometry
    weights: list[Weights]
    inputs: list[Inputs]
    passed: list[Passed]
    room: Room

    @property
    def elements(self) -> Indices:
        """Elements (n_atoms,)."""
        return self.inputs[0].elements

    def features(self) -> list[Array]:
        """Features (n_atoms, n_features) after every block, as long as the tape is there."""
        return [each.z[-1] for each in self.passed]


def run_forward(
    blocks: list[Block], elements: Indices, pairs: Geometry, weights: list[Weights] | None = None
) -> Tape:
    """Pass through all blocks; `weights` are their parameters, which are copied without them."""
    if weights is None:
        weights = [Weights.of(block) for block in blocks]
    tape = Tape(blocks, pairs, weights, [], [], Room())
    dtype = pairs.r.dtype
    x = np.empty((len(elements), 0), dtype)
    for k, (block, of_block) in enumerate(zip(blocks, weights, strict=True)):
        groups = pairs.order.senders if k else pairs.order.elements
        inputs = Inputs(
            k == 0,
            elements,
            x,
            pairs.order.receivers.rows,
            pairs.order.receivers.first,
            groups.first,
            groups.rows,
            pairs.r,
            pairs.R,
            block.interaction.cutoff,
            block.interaction.cusp,
        )
        passed = _passed(of_block, groups, inputs, tape.room, dtype)
        forward_block(of_block, inputs, passed)
        tape.inputs.append(inputs)
        tape.passed.append(passed)
        x = passed.z[-1]
    return tape


def _passed(
    weights: Weights, groups: Groups, inputs: Inputs, room: Room, dtype: npt.DTypeLike
) -> Passed:
    """Room for what a block leaves behind."""
    n_pairs, n_sensitivities = len(inputs.r), len(weights.mu)
    n_layers, n_features, n_middle = weights.out_weights.shape
    n_atoms, n_groups = len(inputs.elements), len(groups.first) - 1
    shapes = (
        (n_pairs, 2),
        (n_pairs, n_sensitivities),
        (n_pairs, n_sensitivities),
        (n_pairs, n_sensitivities),
        (n_groups, n_sensitivities, n_middle),
        (n_pairs, n_middle),
        (n_atoms, inputs.R.shape[1], n_middle),
        (n_atoms, len(weights.scales), n_middle),
        (n_layers, n_atoms, n_middle),
        (n_layers, n_atoms, n_middle),
        (n_layers, n_atoms, n_features),
    )
    return Passed(*(room.empty(*shape, dtype=dtype) for shape in shapes))


@kernel
def forward_block(weights: Weights, inputs: Inputs, passed: Passed) -> None:
    """The forward pass of a block: all of `passed`."""
    x, y, z, h, slope = inputs.x, passed.y, passed.z, passed.h, passed.slope
    n_layers, n_atoms, n_middle = h.shape
    all_y = y.reshape(len(y), y.shape[1] * n_middle)
    if inputs.is_first:
        for e in range(len(all_y)):
            for k in range(all_y.shape[1]):
                all_y[e, k] = weights.V[k, e]
    else:
        rows_by_columns(x, weights.V, all_y)
    sensitivities(
        inputs.r, weights.mu, weights.sigma, inputs.cutoff, passed.c, passed.g, passed.s, passed.s1,
    )  # fmt: skip
    u = np.empty((n_atoms, n_middle), z.dtype)
    sums_forward(
        inputs.pairs, inputs.receivers, inputs.groups, inputs.rows, passed.s, inputs.R, y,
        weights.scales, inputs.cusp, passed.t, passed.A, passed.norms, u,
    )  # fmt: skip
    if inputs.is_first:
        add_of_element(by_element(weights.own_weight), inputs.elements, u)
        set_rows(weights.out_biases[0], z[0])
        if len(weights.adjust) > 0:
            add_of_element(by_element(weights.adjust), inputs.elements, z[0])
        else:
            for i in range(n_atoms):
                z[0, i, inputs.elements[i]] += 1
    else:
        add_rows_by_columns(x, weights.own_weight, u)
        if len(weights.adjust) > 0:
            set_rows(weights.out_biases[0], z[0])
            add_rows_by_columns(x, weights.adjust, z[0])
        else:
            add_to_rows(x, weights.out_biases[0], z[0])
    add_to_rows(u, weights.own_bias, u)
    softplus(u, h[0], slope[0])
    add_rows_by_columns(h[0], weights.out_weights[0], z[0])
    for q in range(1, n_layers):
        set_rows(weights.in_biases[q - 1], u)
        add_rows_by_columns(z[q - 1], weights.in_weights[q - 1], u)
        softplus(u, h[q], slope[q])
        add_to_rows(z[q - 1], weights.out_biases[q], z[q])
        add_rows_by_columns(h[q], weights.out_weights[q], z[q])
