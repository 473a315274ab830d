"""Energies, hierarchicalities and forces of all heads, with the derivatives of a loss of them.

No graph is made: a loss gives its derivatives by energies, hierarchicalities and forces, and gets
those by the parameters. See docs/compiled-step.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor, from_numpy

from hippynn_mf.network.compiled.adjoint import (
    AdjointTape,
    Injection,
    by_parameters,
    by_vectors,
    run_adjoint,
)
from hippynn_mf.network.compiled.blocks import Block
from hippynn_mf.network.compiled.forward import Geometry, Tape, run_forward
from hippynn_mf.network.compiled.geometry import Array, pair_vectors, pair_vectors_adjoint
from hippynn_mf.network.compiled.heads import sum_atoms, sum_atoms_adjoint
from hippynn_mf.network.compiled.ordering import Indices, PairOrder
from hippynn_mf.network.compiled.tangent import run_tangent


@dataclass(frozen=True)
class Readout:
    """Linear heads on the features of every block.

    `weights` (1, n_features) and `biases` (1,), None for the first, are of every term of every
    head. Level k has the energy of the heads whose column of row k in `sums` (n_heads, n_heads) is
    one, the others are zero; `with_forces` are the levels that have forces.
    """

    weights: list[list[Tensor]]
    biases: list[list[Tensor]]
    sums: Array
    with_forces: list[int]

    def parameters(self) -> list[Tensor]:
        """Every parameter, in an order that does not change."""
        return [each for of_head in (*self.weights, *self.biases) for each in of_head]


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
    weights: list[Array]  # (n_heads, n_features) of every term
    e: Array
    energies: Array
    hierarchicalities: Array
    adjoints: list[AdjointTape]
    forces: list[Array]


def run_whole(
    blocks: list[Block], readout: Readout, atoms: Atoms, positions: Array, tensor_order: int
) -> WholePass:
    """Energies, hierarchicalities and forces at positions (n, n_atoms_max, 3)."""
    dtype, elements = positions.dtype, atoms.elements
    sums = readout.sums.astype(dtype)
    vectors = np.empty((len(atoms.pairs), 3), dtype)
    pair_vectors(positions.reshape(-1, 3), atoms.pairs, vectors)
    tape = run_forward(blocks, elements, Geometry.of(vectors, atoms.order, tensor_order))
    features = tape.features()
    weights = [
        np.concatenate([head[k].detach().numpy() for head in readout.weights])
        for k in range(len(features) + 1)
    ]
    n_heads = len(readout.weights)
    e = np.empty((len(weights), len(elements), n_heads), dtype)
    e[0] = weights[0].T[elements]
    for k, x in enumerate(features):
        np.dot(x, weights[k + 1].T, out=e[k + 1])
        e[k + 1] += np.concatenate([head[k].detach().numpy() for head in readout.biases])
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
) -> dict[int, Tensor]:
    """Derivatives of a loss by all parameters, by their identity.

    `by_energies` and `by_hierarchicalities` (n_heads, n) are its derivatives by those, `by_forces`
    by the forces of every level that has them, None for zero.
    """
    readout, tape, atoms = passed.readout, passed.tape, passed.atoms
    e_bar = np.empty_like(passed.e)
    by_own = readout.sums.T.astype(by_energies.dtype) @ by_energies
    sum_atoms_adjoint(passed.e, atoms.structures, by_own, by_hierarchicalities, e_bar)
    by_first = np.zeros_like(passed.weights[0].T)
    np.add.at(by_first, tape.elements, e_bar[0])
    by_weights = [by_first.T]
    by_weights += [y.T @ x for x, y in zip(tape.features(), e_bar[1:], strict=True)]
    injection = None
    for level, adjoint, by_force in zip(
        readout.with_forces, passed.adjoints, by_forces, strict=True
    ):
        if by_force is None:
            continue
        if injection is None:
            injection = Injection.of(tape)
        direction = np.empty((len(atoms.pairs), 3), by_force.dtype)
        pair_vectors(by_force.reshape(-1, 3), atoms.pairs, direction)
        np.negative(direction, out=direction)
        changes = run_tangent(tape, adjoint, direction, injection, needs_vectors=False)
        for k, change in enumerate(changes):
            by_weights[k + 1] += np.outer(readout.sums[level], change.sum(0)).astype(change.dtype)
    gradients = (
        [weights.zeros() for weights in tape.weights] if injection is None else injection.gradients
    )
    starts: list[Array | None] = [
        y @ weights for y, weights in zip(e_bar[1:], passed.weights[1:], strict=True)
    ]
    run_adjoint(tape, starts, injection=injection, gradients=gradients, needs_vectors=False)
    found = by_parameters(tape, gradients)
    by_biases = e_bar[1:].sum(1)
    for head, (weights, biases) in enumerate(zip(readout.weights, readout.biases, strict=True)):
        for k, weight in enumerate(weights):
            _add(found, weight, by_weights[k][head])
        for k, bias in enumerate(biases):
            _add(found, bias, by_biases[k, head : head + 1])
    return found


def _add(found: dict[int, Tensor], parameter: Tensor, gradient: Array) -> None:
    """Add the derivative by a parameter, which heads may have in common."""
    tensor = from_numpy(gradient.reshape(parameter.shape))
    known = found.get(id(parameter))
    found[id(parameter)] = tensor if known is None else known + tensor
