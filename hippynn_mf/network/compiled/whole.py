"""Energies, hierarchicalities and forces of all heads, with the derivatives of a loss of them.

No graph is made: a loss gives its derivatives by energies, hierarchicalities and forces, and gets
those by the parameters. See docs/compiled-step.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hippynn_mf.network.compiled.adjoint import (
    AdjointTape,
    Gradients,
    Injection,
    by_vectors,
    run_adjoint,
)
from hippynn_mf.network.compiled.blocks import Block
from hippynn_mf.network.compiled.forward import Geometry, Tape, run_forward
from hippynn_mf.network.compiled.geometry import pair_vectors, pair_vectors_adjoint
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
    sums: Tensor
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
    shape: tuple[int, int]

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
        return cls(places // species.shape[1], elements, pairs, order, species.shape)


@dataclass
class WholePass:
    """What a pass leaves for the derivatives; energies and hierarchicalities (n_heads, n)."""

    atoms: Atoms
    readout: Readout
    tape: Tape
    weights: list[Tensor]  # (n_heads, n_features) of every term
    e: Tensor
    energies: Tensor
    hierarchicalities: Tensor
    adjoints: list[AdjointTape]
    forces: list[Tensor]


def run_whole(
    blocks: list[Block], readout: Readout, atoms: Atoms, positions: Tensor, tensor_order: int
) -> WholePass:
    """Energies, hierarchicalities and forces at positions (n, n_atoms_max, 3)."""
    n_pairs, elements = len(atoms.pairs), torch.from_numpy(atoms.elements)
    vectors = positions.new_empty(n_pairs, 3)
    pair_vectors(positions.reshape(-1, 3).numpy(), atoms.pairs, vectors.numpy())
    tape = run_forward(blocks, elements, Geometry.of(vectors, atoms.order, tensor_order))
    features = tape.features()
    weights = [torch.cat([head[k] for head in readout.weights]) for k in range(len(features) + 1)]
    n_heads = len(readout.weights)
    e = positions.new_empty(len(weights), len(elements), n_heads)
    torch.index_select(weights[0].t(), 0, elements, out=e[0])
    for k, x in enumerate(features):
        bias = torch.cat([head[k] for head in readout.biases])
        torch.addmm(bias, x, weights[k + 1].t(), out=e[k + 1])
    found = positions.new_empty(2, n_heads, atoms.shape[0])
    sum_atoms(e.numpy(), atoms.structures, found[0].numpy(), found[1].numpy())
    adjoints, forces = [], []
    for level in readout.with_forces:
        own = readout.sums[level : level + 1]
        starts = [(own @ each).expand(len(elements), -1).contiguous() for each in weights[1:]]
        adjoints.append(run_adjoint(tape, list(starts)))
        force = torch.empty_like(positions, memory_format=torch.contiguous_format)
        vectors_bar = by_vectors(tape.pairs, adjoints[-1])
        pair_vectors_adjoint(vectors_bar.numpy(), atoms.pairs, force.view(-1, 3).numpy())
        forces.append(force.neg_())
    energies = readout.sums @ found[0]
    return WholePass(atoms, readout, tape, weights, e, energies, found[1], adjoints, forces)


def whole_gradients(
    passed: WholePass,
    by_energies: Tensor,
    by_hierarchicalities: Tensor,
    by_forces: list[Tensor | None],
) -> Gradients:
    """Derivatives of a loss by all parameters, given those by what `run_whole` has found.

    `by_energies` and `by_hierarchicalities` are (n_heads, n), `by_forces` of every level with
    forces, None for zero.
    """
    readout, tape, atoms = passed.readout, passed.tape, passed.atoms
    e_bar = torch.empty_like(passed.e)
    by_own = readout.sums.t() @ by_energies
    sum_atoms_adjoint(
        passed.e.numpy(),
        atoms.structures,
        by_own.numpy(),
        by_hierarchicalities.contiguous().numpy(),
        e_bar.numpy(),
    )
    first = passed.weights[0]
    by_first = torch.zeros_like(first.t()).index_add_(0, tape.elements, e_bar[0])
    by_weights = [by_first.t()]
    by_weights += [torch.mm(x.t(), y).t() for x, y in zip(tape.features(), e_bar[1:], strict=True)]
    injection = None
    for level, adjoint, by_force in zip(
        readout.with_forces, passed.adjoints, by_forces, strict=True
    ):
        if by_force is None:
            continue
        if injection is None:
            injection = Injection.of(tape)
        direction = by_force.new_empty(len(atoms.pairs), 3)
        pair_vectors(by_force.reshape(-1, 3).numpy(), atoms.pairs, direction.numpy())
        changes = run_tangent(tape, adjoint, direction.neg_(), injection, needs_vectors=False)
        own = readout.sums[level].unsqueeze(1)
        for k, change in enumerate(changes):
            by_weights[k + 1] = by_weights[k + 1] + own * change.sum(0)
    gradients = Gradients() if injection is None else injection.gradients
    starts = [torch.mm(y, w) for y, w in zip(e_bar[1:], passed.weights[1:], strict=True)]
    run_adjoint(tape, list(starts), injection=injection, gradients=gradients, needs_vectors=False)
    by_biases = e_bar[1:].sum(1)
    for head, (weights, biases) in enumerate(zip(readout.weights, readout.biases, strict=True)):
        for k, weight in enumerate(weights):
            gradients.add(weight, by_weights[k][head].contiguous())
        for k, bias in enumerate(biases):
            gradients.add(bias, by_biases[k][head].reshape(1))
    return gradients
