"""The atoms and pairs of a padded batch, arranged for the kernels in one array of integers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hippynn_mf.network.compiled.kernels import kernel
from hippynn_mf.network.compiled.ordering import Indices, count_and_place
from hippynn_mf.network.compiled.parts import Counts, counter, flat


class Atoms(NamedTuple):
    """Structure and element of every atom, and the order of the pairs as in `PairOrder`.

    Pairs are sorted by receiver: `given` is the place of each in the list, and those of a receiver
    are from `receivers` (n_atoms + 1,) on. `senders` and `of_elements` say where those of a sender,
    and of a sender's element, are in `sender_rows` and `element_rows`.
    """

    structures: Indices
    elements: Indices
    given: Indices
    consecutive: Indices
    receivers: Indices
    senders: Indices
    sender_rows: Indices
    of_elements: Indices
    element_rows: Indices


def size_of_atoms(n_places: int, n_pairs: int, n_elements: int) -> int:
    """How many integers a batch of so many places takes at most."""
    return 4 * n_places + 2 + n_elements + 1 + 4 * n_pairs


@kernel
def atoms_of(integers: Indices, counts: Counts) -> Atoms:
    """The parts of an array that `arrange` has filled."""
    used, n_atoms, n_pairs = counter(0), counts.atoms, counts.pairs
    structures = flat(integers, used, n_atoms, 1)
    elements = flat(integers, used, n_atoms, 1)
    given = flat(integers, used, n_pairs, 1)
    consecutive = flat(integers, used, n_pairs, 1)
    receivers = flat(integers, used, n_atoms + 1, 1)
    senders = flat(integers, used, n_atoms + 1, 1)
    sender_rows = flat(integers, used, n_pairs, 1)
    of_elements = flat(integers, used, counts.elements + 1, 1)
    element_rows = flat(integers, used, n_pairs, 1)
    return Atoms(
        structures, elements, given, consecutive, receivers, senders, sender_rows, of_elements,
        element_rows,
    )  # fmt: skip


@kernel
def arrange(
    species: Indices, pairs: Indices, element_of: Indices, n_elements: int, integers: Indices
) -> int:
    """Fill `integers` (`size_of_atoms`); the number of atoms, -1 for an unknown atomic number.

    `species` (n, width) are atomic numbers, which `element_of` numbers from 1 on, 0: no atom.
    `pairs` (n_pairs, 2), receivers and senders, number the places of the batch.
    """
    n_atoms, width = 0, species.shape[1]
    for structure in range(len(species)):
        for place in range(width):
            number = species[structure, place]
            if number < 0 or number >= len(element_of):
                return -1
            if element_of[number] > 0:
                n_atoms += 1
    atoms = atoms_of(integers, Counts(n_atoms, len(pairs), n_elements, 1))
    atom_of_place = np.empty(species.size, np.int64)
    atom = 0
    for structure in range(len(species)):
        for place in range(width):
            element = element_of[species[structure, place]]
            if element > 0:
                atoms.structures[atom] = structure
                atoms.elements[atom] = element - 1
                atom_of_place[structure * width + place] = atom
                atom += 1
    keys = np.empty(len(pairs), np.int64)
    for p in range(len(pairs)):
        keys[p] = atom_of_place[pairs[p, 0]]
        atoms.consecutive[p] = p
    count_and_place(keys, atoms.receivers, atoms.given)
    for p in range(len(pairs)):
        keys[p] = atom_of_place[pairs[atoms.given[p], 1]]
    count_and_place(keys, atoms.senders, atoms.sender_rows)
    for p in range(len(pairs)):
        keys[p] = atoms.elements[keys[p]]
    count_and_place(keys, atoms.of_elements, atoms.element_rows)
    return n_atoms
