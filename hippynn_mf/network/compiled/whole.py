"""Energies, hierarchicalities and forces of all heads, with the derivatives of a loss of them.

No graph is made: a loss gives its derivatives by energies, hierarchicalities and forces, and gets
those by the parameters. See docs/compiled-step.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hippynn_mf.network.compiled.adjoint import (
    AdjointTape,
    Injection,
    by_vectors,
    run_adjoint,
)
from hippynn_mf.network.compiled.forward import Geometry, Tape, run_forward
from hippynn_mf.network.compiled.geometry import (
    Array,
    add_virials,
    add_virials_adjoint,
    pair_vectors,
    pair_vectors_adjoint,
)
from hippynn_mf.network.compiled.heads import sum_atoms, sum_atoms_adjoint
from hippynn_mf.network.compiled.ordering import Indices, PairOrder
from hippynn_mf.network.compiled.rows import add_sum_by_element
from hippynn_mf.network.compiled.tangent import run_tangent
from hippynn_mf.network.compiled.vector import ParameterLayout, Views


@dataclass(frozen=True)
class Readout:
    """What is made of the energies of linear heads.

    Level k has the energy of the heads whose column of row k in `sums` (n_heads, n_heads) is one,
    the others are zero; `with_forces` are the levels that have forces, `with_stress` those of them
    that have a stress.
    """

    sums: Array
    with_forces: list[int]
    with_stress: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Cells:
    """What periodic structures add: shifts of pairs (n_pairs, 3) in Å, and 1/V (n,), 0 of others.

    The shifts are what lattice vectors add to x_j − x_i.
    """

    shifts: Array
    volume_shares: Array


@dataclass(frozen=True)
class Atoms:
    """The atoms of a padded batch: structure and element of each, and its place in the padding.

    `pairs` (n_pairs, 2), receivers and senders, number places; `structure_of_pair` (n_pairs,).
    """

    structures: Indices
    elements: Indices
    pairs: Indices
    order: PairOrder
    n_structures: int
    width: int

    @property
    def structure_of_pair(self) -> Indices:
        """(n_pairs,) which structure the atoms of a pair belong to."""
        return self.pairs[:, 0] // self.width

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
        width = species.shape[1]
        return cls(places // width, elements, pairs, order, len(species), width)


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
    vectors: Array
    stress: list[Array]
    volume_shares: Array | None


def run_whole(
    layout: ParameterLayout,
    views: Views,
    readout: Readout,
    atoms: Atoms,
    positions: Array,
    tensor_order: int,
    cells: Cells | None = None,
) -> WholePass:
    """Energies, hierarchicalities, forces and stress at positions (n, n_atoms_max, 3).

    The stress (n, 3, 3) is that of the levels of `readout.with_stress`, for which `cells` are
    needed. `views` are the parameters; they must not change before the derivatives are taken.
    """
    dtype, elements = positions.dtype, atoms.elements
    sums = readout.sums.astype(dtype)
    vectors = np.empty((len(atoms.pairs), 3), dtype)
    pair_vectors(positions.reshape(-1, 3), atoms.pairs, vectors)
    if cells is not None:
        vectors += cells.shifts
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
    stress: list[Array] = []
    for level in readout.with_forces:
        starts: list[Array | None] = [sums[level] @ each for each in weights[1:]]
        adjoints.append(run_adjoint(tape, starts))
        force = np.empty(positions.shape, dtype)
        vectors_bar = by_vectors(tape.pairs, adjoints[-1])
        pair_vectors_adjoint(vectors_bar, atoms.pairs, force.reshape(-1, 3))
        forces.append(np.negative(force, out=force))
        if cells is not None and level in readout.with_stress:
            virials = np.zeros((atoms.n_structures, 3, 3), dtype)
            add_virials(vectors, vectors_bar, atoms.structure_of_pair, virials)
            stress.append(virials * cells.volume_shares[:, None, None])
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
        vectors,
        stress,
        None if cells is None else cells.volume_shares,
    )


def whole_gradients(
    passed: WholePass,
    by_energies: Array,
    by_hierarchicalities: Array,
    by_forces: list[Array | None],
    by_stress: Sequence[Array | None] = (),
) -> Array:
    """Derivatives of a loss by the vector of all parameters.

    `by_energies` and `by_hierarchicalities` (n_heads, n) are its derivatives by those, `by_forces`
    and `by_stress` by the forces and stress of every level that has them, None for zero.
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
    of_stress = dict(zip(readout.with_stress, by_stress, strict=True)) if by_stress else {}
    for level, adjoint, by_force in zip(
        readout.with_forces, passed.adjoints, by_forces, strict=True
    ):
        by_tensor = of_stress.get(level)
        if by_force is None and by_tensor is None:
            continue
        if injection is None:
            injection = Injection.of(tape, by.blocks)
        direction = np.zeros_like(passed.vectors)
        if by_force is not None:
            pair_vectors(by_force.reshape(-1, 3), atoms.pairs, direction)
            np.negative(direction, out=direction)
        if by_tensor is not None and passed.volume_shares is not None:
            by_virials = by_tensor * passed.volume_shares[:, None, None]
            add_virials_adjoint(passed.vectors, atoms.structure_of_pair, by_virials, direction)
        changes = run_tangent(tape, adjoint, direction, injection, needs_vectors=False)
        for change, head in zip(changes, by.heads[1:], strict=True):
            head += np.outer(readout.sums[level], change.sum(0)).astype(change.dtype)
    starts: list[Array | None] = [
        y @ weights for y, weights in zip(e_bar[1:], passed.weights[1:], strict=True)
    ]
    run_adjoint(tape, starts, injection=injection, gradients=by.blocks, needs_vectors=False)
    return found
