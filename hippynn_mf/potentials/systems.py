"""Molecules and cells as the network takes them: atoms one after another, and their pairs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from torch import Tensor
from vesin import NeighborList

from hippynn_mf.cells import heights_of
from hippynn_mf.errors import UserError, refuse_unknown_elements
from hippynn_mf.potentials.batch import Batch

OVERLAP = 0.4  # Å; the shortest bond, that of H2, is 0.74 Å
SMALL = 40  # atoms; all distances of so many are found sooner than their neighbours
FARTHEST = 1e5  # Å from the origin; the search for pairs counts boxes of the size of the cut-off

PairArrays = tuple[np.ndarray, np.ndarray, np.ndarray]  # receivers, senders, vectors


@dataclass(frozen=True)
class Systems:
    """Several systems: their atoms, and all directed pairs nearer than a cut-off.

    Attributes:
        numbers: (n_atoms,) int64 atomic numbers.
        system_of_atom: (n_atoms,) int64, ascending.
        receivers, senders: (n_pairs,) int64; a periodic cell has several images of one pair.
        vectors: (n_pairs, 3) float64 from receiver to sender in Å.
        sizes: atoms of every system.
    """

    numbers: Tensor
    system_of_atom: Tensor
    receivers: Tensor
    senders: Tensor
    vectors: Tensor
    sizes: list[int]

    @classmethod
    def of(
        cls, systems: Sequence[Atoms], cutoff: float, species: Sequence[int], *, first: int = 0
    ) -> Systems:
        """Systems from ASE, open or periodic along any axis; `cutoff` in Å.

        Messages count them from `first` on.

        Raises UserError, naming the system, for no atoms, elements other than `species`, positions
        or cells that are not finite, a periodic axis without a cell, and overlapping atoms.
        """
        return cls.from_batch(Batch.of(systems), cutoff, species, first=first)

    @classmethod
    def from_batch(
        cls, batch: Batch, cutoff: float, species: Sequence[int], *, first: int = 0
    ) -> Systems:
        """As `of`."""
        pairs = _pairs_of_small(batch, cutoff, species)
        if pairs is None:
            pairs = _pairs_one_by_one(batch, cutoff, species, first)
        receivers, senders, vectors = map(torch.as_tensor, pairs)
        return cls(
            numbers=torch.as_tensor(batch.numbers.astype(np.int64)),
            system_of_atom=torch.arange(len(batch)).repeat_interleave(torch.tensor(batch.sizes)),
            receivers=receivers,
            senders=senders,
            vectors=vectors,
            sizes=batch.sizes.tolist(),
        )

    def __len__(self) -> int:
        return len(self.sizes)


def _pairs_of_small(batch: Batch, cutoff: float, species: Sequence[int]) -> PairArrays | None:
    """Pairs of open systems of few atoms, together; None if a system is another, or wrong."""
    sizes, numbers, positions = batch.sizes, batch.numbers, batch.positions
    is_small = (
        sizes.min() > 0
        and sizes.max() <= SMALL
        and not batch.pbc.any()
        and np.isfinite(batch.cells).all()
        and np.isin(numbers, species).all()
        and np.abs(positions).max() <= FARTHEST  # which NaN is not
    )
    if not is_small:
        return None
    is_atom = np.arange(sizes.max()) < sizes[:, None]
    padded = np.full((*is_atom.shape, 3), np.nan)
    padded[is_atom] = positions
    vectors = padded[:, None] - padded[:, :, None]
    squares = np.einsum("nijk,nijk->nij", vectors, vectors)
    is_near = (squares < cutoff**2) & ~np.eye(sizes.max(), dtype=bool)
    if squares.min(where=is_near, initial=np.inf) < OVERLAP**2:
        return None
    system, receivers, senders = is_near.nonzero()
    starts = (sizes.cumsum() - sizes)[system]
    return receivers + starts, senders + starts, vectors[is_near]


def _pairs_one_by_one(
    systems: Iterable[Atoms], cutoff: float, species: Sequence[int], first: int
) -> PairArrays:
    """Pairs of any systems; UserError names the first that is wrong; `first` come before these."""
    finder = NeighborList(cutoff=cutoff, full_list=True, sorted=True, n_threads=1)
    receivers, senders, vectors, start = [], [], [], 0
    for number, atoms in enumerate(systems, first + 1):  # messages count from 1
        try:
            pairs = _pairs(atoms, finder, species)
        except UserError as error:
            raise UserError(f"structure {number} ({atoms.symbols}): {error}") from None
        receivers.append(pairs[0] + start)
        senders.append(pairs[1] + start)
        vectors.append(pairs[2])
        start += len(atoms)
    return np.concatenate(receivers), np.concatenate(senders), np.concatenate(vectors)


def _check_cell(atoms: Atoms) -> None:
    """Raise UserError if periodic axes span no cell, or images of an atom overlap."""
    if not atoms.pbc.any():
        return
    if not atoms.cell.array[atoms.pbc].any(axis=1).all():
        raise UserError("periodic along an axis without a cell vector. Set the cell, or pbc=False.")
    heights = heights_of(atoms.cell.complete().array)
    if heights[atoms.pbc].min() < OVERLAP:
        raise UserError(
            f"the cell is flat or its images overlap: it is {heights[atoms.pbc].min():.2g} Å high "
            f"along a periodic axis, less than {OVERLAP} Å."
        )


def _pairs(atoms: Atoms, finder: NeighborList, species: Sequence[int]) -> PairArrays:
    """Pairs of one system, which is checked first."""
    if not len(atoms):
        raise UserError("there are no atoms.")
    refuse_unknown_elements(atoms.numbers.tolist(), species)
    for name, values in (("positions", atoms.positions), ("cell", atoms.cell.array)):
        if not np.isfinite(values).all():
            raise UserError(f"{name} hold NaN or infinite numbers.")
    farthest = np.abs(atoms.positions).max()
    if farthest > FARTHEST:
        raise UserError(f"an atom lies {farthest:.1e} Å from the origin; it has flown apart.")
    _check_cell(atoms)
    receivers, senders, vectors, distances = finder.compute(
        atoms.positions, atoms.cell.complete().array, atoms.pbc, quantities="ijDd"
    )
    if len(distances) and distances.min() < OVERLAP:
        k = int(distances.argmin())
        raise UserError(
            f"atoms {receivers[k]} and {senders[k]} overlap: they are {distances[k]:.2f} Å apart, "
            f"less than {OVERLAP} Å. No model knows such a structure."
        )
    return receivers.astype(np.int64), senders.astype(np.int64), vectors
