"""The order in which the kernels go through the pairs: by receiver, and by group of senders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hippynn_mf.network.compiled.kernels import kernel

Indices = npt.NDArray[np.int64]


@kernel
def count_and_place(keys: Indices, first: Indices, rows: Indices) -> None:
    """`rows` sorted by key, in their order where keys are equal; `first` row of every key."""
    first[:] = 0
    for row in range(len(keys)):
        first[keys[row] + 1] += 1
    for key in range(len(first) - 1):
        first[key + 1] += first[key]
    for row in range(len(keys)):
        rows[first[keys[row]]] = row
        first[keys[row]] += 1
    for key in range(len(first) - 1, 0, -1):
        first[key] = first[key - 1]
    first[0] = 0


@dataclass(frozen=True)
class Groups:
    """Rows by group: those of group g are rows[first[g] : first[g + 1]]."""

    first: Indices
    rows: Indices

    @classmethod
    def of(cls, keys: Indices, n_groups: int) -> Groups:
        """Groups of rows by the key (n_rows,) of each."""
        groups = cls(np.empty(n_groups + 1, np.int64), np.empty(len(keys), np.int64))
        count_and_place(keys, groups.first, groups.rows)
        return groups


@dataclass(frozen=True)
class PairOrder:
    """Directed pairs sorted by receiver, with the places of each sender and of each element.

    `given` is the place of every sorted pair in the list that it came from; `receivers` holds the
    sorted pairs of every receiving atom, which are consecutive.
    """

    given: Indices
    receivers: Groups
    senders: Groups
    elements: Groups

    @classmethod
    def of(
        cls, receivers: Indices, senders: Indices, elements: Indices, n_elements: int
    ) -> PairOrder:
        """Order of pairs between atoms, of which `elements` (n_atoms,) are the elements."""
        n_atoms = len(elements)
        by_receiver = Groups.of(receivers, n_atoms)
        sorted_senders = senders[by_receiver.rows]
        consecutive = Groups(by_receiver.first, np.arange(len(senders)))
        return cls(
            by_receiver.rows,
            consecutive,
            Groups.of(sorted_senders, n_atoms),
            Groups.of(elements[sorted_senders], n_elements),
        )
