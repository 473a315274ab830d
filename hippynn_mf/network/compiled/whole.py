"""Energies, hierarchicalities and forces of all heads, with the derivatives of a loss of them.

No graph is made: a loss gives its derivatives by energies, hierarchicalities and forces, and gets
those by the parameters. See docs/compiled-step.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hippynn_mf.network.compiled.arranging import arrange, size_of_atoms
from hippynn_mf.network.compiled.forward_pass import forward_of_vectors, forward_pass
from hippynn_mf.network.compiled.geometry import (
    Array,
    add_virials,
    add_virials_adjoint,
    pair_vectors,
    pair_vectors_adjoint,
)
from hippynn_mf.network.compiled.gradient_pass import gradient_pass, lay_out_gradient
from hippynn_mf.network.compiled.layouts import Net, lay_out_forward
from hippynn_mf.network.compiled.ordering import Indices
from hippynn_mf.network.compiled.parts import Counts
from hippynn_mf.network.compiled.room import Room
from hippynn_mf.network.compiled.vector import ParameterLayout


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
class WholeNetwork:
    """What a pass needs beside a batch.

    `element_of` numbers the elements from 1 on by their atomic number, 0 for none.
    """

    layout: ParameterLayout
    readout: Readout
    element_of: Indices
    n_elements: int
    tensor_order: int
    _nets: dict[np.dtype[Any], Net] = field(default_factory=dict)

    def net(self, dtype: np.dtype[Any]) -> Net:
        """What kernels take of it."""
        if dtype not in self._nets:
            self._nets[dtype] = Net(
                self.layout.sizes,
                self.layout.numbers,
                self.readout.sums.astype(dtype),
                np.array(self.readout.with_forces, np.int64),
            )
        return self._nets[dtype]


@dataclass(frozen=True)
class Parameters:
    """All parameters as they are now: those of `ParameterLayout.inner`, and those of the species.

    The latter are (n_heads, n_elements).
    """

    vector: Array
    of_species: Array


@dataclass(frozen=True)
class WholePass:
    """What a pass leaves for the derivatives.

    Energies and hierarchicalities are (n_heads, n), forces (n_forces, n, n_atoms_max, 3) in the
    order of `with_forces`, the stress (n_stress, n, 3, 3) in that of `with_stress`; `vectors`
    (n_pairs, 3) are those of the pairs.
    """

    network: WholeNetwork
    parameters: Parameters
    integers: Indices
    counts: Counts
    pairs: Indices
    room: Room
    numbers: Array  # of the room
    places: Indices
    energies: Array
    hierarchicalities: Array
    forces: Array
    stress: Array
    vectors: Array
    cells: Cells | None

    @property
    def structure_of_pair(self) -> Indices:
        """(n_pairs,) which structure the atoms of a pair belong to."""
        return np.asarray(self.pairs[:, 0] // self.forces.shape[2])


NOTHING: dict[np.dtype[Any], Array] = {
    np.dtype(kind): np.empty(0, kind) for kind in (np.float32, np.float64)
}


def run_whole(
    network: WholeNetwork,
    parameters: Parameters,
    species: Indices,
    positions: Array,
    pairs: Indices,
    cells: Cells | None = None,
) -> WholePass:
    """Energies, hierarchicalities, forces and stress at positions (n, n_atoms_max, 3).

    A stress needs `cells`; without them it is 0. `species` (n, n_atoms_max) are atomic numbers, 0
    for padding; `pairs` (n_pairs, 2), receivers and senders, number the places of the batch.
    Parameters must not change before the derivatives are taken.
    """
    dtype = positions.dtype
    net = network.net(dtype)
    n_forces = len(net.with_forces)
    integers, counts = _arranged(network, species, pairs)
    room, numbers, places = _room(net, counts, dtype, True)
    energies, hierarchicalities = np.empty((2, len(net.sums), len(species)), dtype)
    vectors = np.empty((len(pairs), 3), dtype)
    pair_vectors(positions.reshape(-1, 3), pairs, vectors)
    if cells is not None:
        vectors += cells.shifts
    slopes = np.empty((n_forces, len(pairs), 3), dtype)
    forward_pass(
        net,
        parameters.vector,
        parameters.of_species,
        integers,
        counts,
        vectors,
        numbers,
        places,
        energies,
        hierarchicalities,
        slopes,
    )
    forces = np.empty((n_forces, species.size, 3), dtype)
    for slope, force in zip(slopes, forces, strict=True):
        pair_vectors_adjoint(slope, pairs, force)
    np.negative(forces, out=forces)
    with_stress = network.readout.with_stress
    stress = np.zeros((len(with_stress), len(species), 3, 3), dtype)
    if cells is not None:
        structures = pairs[:, 0] // species.shape[1]
        for level, tensors in zip(with_stress, stress, strict=True):
            slope = slopes[network.readout.with_forces.index(level)]
            add_virials(vectors, slope, structures, tensors)
        stress *= cells.volume_shares[:, None, None]
    return WholePass(
        network,
        parameters,
        integers,
        counts,
        pairs,
        room,
        numbers,
        places,
        energies,
        hierarchicalities,
        forces.reshape(n_forces, *positions.shape),
        stress,
        vectors,
        cells,
    )


def _arranged(network: WholeNetwork, species: Indices, pairs: Indices) -> tuple[Indices, Counts]:
    """Atoms and pairs of a batch as kernels take them, and how many there are."""
    n_elements = network.n_elements
    integers = np.empty(size_of_atoms(species.size, len(pairs), n_elements), np.int64)
    n_atoms = arrange(species, pairs, network.element_of, n_elements, integers)
    if n_atoms < 0:
        raise IndexError("An atomic number of a batch is none that the network has an input for.")
    return integers, Counts(n_atoms, len(pairs), n_elements, (network.tensor_order + 1) ** 2)


def _room(
    net: Net, counts: Counts, dtype: np.dtype[Any], is_kept: bool
) -> tuple[Room, Array, Indices]:
    """Room for a forward pass, its numbers, and what begins where; kept for a gradient, or not."""
    room, places = Room(), np.empty((1 + len(net.with_forces), len(net.sizes) + 1), np.int64)
    size = lay_out_forward(NOTHING[dtype], net, counts, places, is_kept)
    return room, room.empty(size, dtype=dtype), places


def run_vectors(
    network: WholeNetwork,
    parameters: Parameters,
    elements: Indices,
    pairs: Indices,
    vectors: Array,
    slopes_of: Sequence[int],
) -> tuple[Array, Array]:
    """The atoms' energies (n_heads, n_atoms), and slopes of some levels by pair vectors.

    `elements` (n_atoms,) are numbered as `element_of` says; `pairs` (n_pairs, 2), receivers and
    senders, number the atoms; the slopes (len(slopes_of), n_pairs, 3) are those of the sum of all
    energies of a level, by `vectors` (n_pairs, 3).
    """
    dtype = vectors.dtype
    net = network.net(dtype)._replace(with_forces=np.array(slopes_of, np.int64))
    integers, counts = _arranged(network, elements.reshape(1, -1), pairs)
    room, numbers, places = _room(net, counts, dtype, False)
    energies = np.empty((len(net.sums), len(elements)), dtype)
    slopes = np.empty((len(slopes_of), len(pairs), 3), dtype)
    forward_of_vectors(
        net,
        parameters.vector,
        parameters.of_species,
        integers,
        counts,
        vectors,
        numbers,
        places,
        energies,
        slopes,
    )
    del room  # which the numbers lie in
    return energies, slopes


def whole_gradients(
    passed: WholePass,
    by_energies: Array,
    by_hierarchicalities: Array,
    by_forces: Sequence[Array | None],
    by_stress: Sequence[Array | None] = (),
) -> Array:
    """Derivatives of a loss by the vector of all parameters.

    `by_energies` and `by_hierarchicalities` (n_heads, n) are its derivatives by those, `by_forces`
    and `by_stress` by the forces and stress of every level that has them, None for zero.
    """
    dtype = passed.energies.dtype
    net = passed.network.net(dtype)
    room, places = Room(), np.empty((4, len(net.sizes)), np.int64)
    size = lay_out_gradient(NOTHING[dtype], net, passed.counts, places)
    found = np.zeros(passed.network.layout.size, dtype)
    slopes = np.zeros((len(passed.forces), len(passed.pairs), 3), dtype)
    is_wanted = np.zeros(len(slopes), np.int64)
    for f, by_force in enumerate(by_forces):
        if by_force is not None:
            is_wanted[f] = 1
            pair_vectors(by_force.reshape(-1, 3), passed.pairs, slopes[f])
            np.negative(slopes[f], out=slopes[f])
    readout, cells = passed.network.readout, passed.cells
    if cells is not None and by_stress:
        for level, by_tensor in zip(readout.with_stress, by_stress, strict=True):
            if by_tensor is not None:
                f = readout.with_forces.index(level)
                is_wanted[f] = 1
                by_virials = by_tensor * cells.volume_shares[:, None, None]
                structures = passed.structure_of_pair
                add_virials_adjoint(passed.vectors, structures, by_virials, slopes[f])
    gradient_pass(
        net,
        passed.parameters.vector,
        passed.integers,
        passed.counts,
        passed.numbers,
        passed.places,
        room.empty(size, dtype=dtype),
        places,
        by_energies,
        by_hierarchicalities,
        slopes,
        is_wanted,
        found,
    )
    return found
