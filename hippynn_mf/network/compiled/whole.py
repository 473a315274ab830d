"""Energies, hierarchicalities and forces of all heads, with the derivatives of a loss of them.

No graph is made: a loss gives its derivatives by energies, hierarchicalities and forces, and gets
those by the parameters. See docs/compiled-step.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hippynn_mf.network.compiled.adjoint import (
    AdjointTape,
    Injection,
    by_vectors,
    run_adjoint,
)
from hippynn_mf.network.compiled.forward import Geometry, Tape, run_forward
from hippynn_mf.network.compiled.geometry import Array, pair_vectors, pair_vectors_adjoint
from hippynn_mf.network.compiled.heads import sum_atoms, sum_atoms_adjoint
from hippynn_mf.network.compiled.ordering import Indices, PairOrder
from hippynn_mf.network.compiled.rows import add_sum_by_element
from hippynn_mf.network.compiled.tangent import run_tangent
from hippynn_mf.network.compiled.vector import ParameterLayout, Views


@dataclass(frozen=True)
class Readout:
    """What is made of the energies of linear heads.

    Level k has the energy of the heads whose column of row k in `sums` (n_heads, n_heads) is one,
    the others are zero; `with_forces` are the levels that have forces.
    """

    sums: Array
    with_forces: list[int]


@dataclass(frozen=True)
class Atoms:
    """The atoms of a padded batch: structure and element of each, and its place in the padding.

    `pairs` (n_pairs, 2), receivers and senders, number places.
    """

    structures: Indices
    elements: Indices
    pairs: Indices
    order: PairOrder
    n_structures: int

    @classmethod
    def of(cls, species: Indices, pairs: Indices, elements_of: Indices, n_elements: int) -> Atoms:
        """Of atomic numbers (n, n_atoms_max), which `elements_of` numbers from 1 on, 0: no atom."""
        elements = elements_of[species.ravel()]
        places = np.flatnonzero(elements)
        elements = elements[places] - 1
        atom_of_place = np.empty(species.size, np.int64)
        atom_of_place[places] = np.arange(len(places))
        receivers, senders = atom_of_place[pairs[:, 0]], atom_of_place[pairs[:, 1]]
        order = PairOrder.of(receivers, senders, elements, n_elements)
        return cls(places // species.shape[1], elements, pairs, order, len(species))


@dataclass
class WholePass:
    """What a pass leaves for the derivatives; energies and hierarchicalities (n_heads, n)."""

    atoms: Atoms
    readout: Readout
    tape: Tape
    layout: ParameterLayout
    weights: list[Array]  # (n_heads, n_features) of every term
    e: Array
    energies: Array
    hierarchicalities: Array
    adjoints: list[AdjointTape]
    forces: list[Array]


def run_whole(
    layout: ParameterLayout,
    views: Views,
    readout: Readout,
    atoms: Atoms,
    positions: Array,
    tensor_order: int,
) -> WholePass:
    """Energies, hierarchicalities and forces at positions (n, n_atoms_max, 3).

    `views` are the parameters; they must not change before the derivatives are taken.
    """
    dtype, elements = positions.dtype, atoms.elements
    sums = readout.sums.astype(dtype)
    vectors = np.empty((len(atoms.pairs), 3), dtype)
    pair_vectors(positions.reshape(-1, 3), atoms.pairs, vectors)
    pairs = Geometry.of(vectors, atoms.order, tensor_order)
    tape = run_forward(layout.blocks, elements, pairs, views.blocks)
    features, weights = tape.features(), views.heads
    n_heads = len(sums)
    e = np.empty((len(weights), len(elements), n_heads), dtype)
    e[0] = weights[0].T[elements]
    for k, x in enumerate(features):
        np.dot(x, weights[k + 1].T, out=e[k + 1])
        e[k + 1] += views.biases[k]
    own, hierarchicalities = np.empty((2, n_heads, atoms.n_structures), dtype)
    sum_atoms(e, atoms.structures, own, hierarchicalities)
    adjoints, forces = [], []
    for level in readout.with_forces:
        starts: list[Array | None] = [sums[level] @ each for each in weights[1:]]
        adjoints.append(run_adjoint(tape, starts))
        force = np.empty(positions.shape, dtype)
        vectors_bar = by_vectors(tape.pairs, adjoints[-1])
        pair_vectors_adjoint(vectors_bar, atoms.pairs, force.reshape(-1, 3))
        forces.append(np.negative(force, out=force))
    return WholePass(
        atoms,
        readout,
        tape,
        layout,
        weights,
        e,
        sums @ own,
        hierarchicalities,
        adjoints,
        forces,
    )


def whole_gradients(
    passed: WholePass,
    by_energies: Array,
    by_hierarchicalities: Array,
    by_forces: list[Array | None],
) -> Array:
    """Derivatives of a loss by the vector of all parameters.

    `by_energies` and `by_hierarchicalities` (n_heads, n) are its derivatives by those, `by_forces`
    by the forces of every level that has them, None for zero.
    """
    readout, tape, atoms = passed.readout, passed.tape, passed.atoms
    found = np.zeros(passed.layout.size, passed.e.dtype)
    by = passed.layout.views(found)
    e_bar = np.empty_like(passed.e)
    by_own = readout.sums.T.astype(by_energies.dtype) @ by_energies
    sum_atoms_adjoint(passed.e, atoms.structures, by_own, by_hierarchicalities, e_bar)
    add_sum_by_element(e_bar[0], tape.elements, by.heads[0])
    for y, x, head, bias in zip(e_bar[1:], tape.features(), by.heads[1:], by.biases, strict=True):
        np.dot(y.T, x, out=head)
        y.sum(0, out=bias)
    injection = None
    for level, adjoint, by_force in zip(
        readout.with_forces, passed.adjoints, by_forces, strict=True
    ):
        if by_force is None:
            continue
        if injection is None:
            injection = Injection.of(tape, by.blocks)
        direction = np.empty((len(atoms.pairs), 3), by_force.dtype)
        pair_vectors(by_force.reshape(-1, 3), atoms.pairs, direction)
        np.negative(direction, out=direction)
        changes = run_tangent(tape, adjoint, direction, injection, needs_vectors=False)
        for change, head in zip(changes, by.heads[1:], strict=True):
            head += np.outer(readout.sums[level], change.sum(0)).astype(change.dtype)
    starts: list[Array | None] = [
        y @ weights for y, weights in zip(e_bar[1:], passed.weights[1:], strict=True)
    ]
    run_adjoint(tape, starts, injection=injection, gradients=by.blocks, needs_vectors=False)
    return found
