"""Neighbour lists of a data set, found once and kept compact."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from hippynn.layers.pairs import OpenPairIndexer
from torch import Tensor
from tqdm import tqdm

DISTANCES_AT_ONCE = 2**20


@dataclass(frozen=True)
class NeighbourLists:
    """Directed pairs of atoms nearer than a cut-off in every structure of a data set.

    `atoms` (n_pairs, 2), receiver and sender, number the atoms within their structure, in one byte
    each up to 256 atoms; the pairs of structure k are those from `starts[k]` to `starts[k + 1]`.
    """

    atoms: Tensor
    starts: Tensor

    @classmethod
    def of(cls, species: Tensor, positions: Tensor, cutoff: float) -> NeighbourLists:
        """Lists of structures: species (n, n_atoms_max), positions (n, n_atoms_max, 3) in Å.

        The pairs, and their order, are those of hippynn's own finder for open boundaries.
        """
        n_structures, n_atoms = species.shape
        dtype = torch.uint8 if n_atoms <= 256 else torch.int16
        finder = OpenPairIndexer(cutoff)
        atoms, counts = [torch.empty(0, 2, dtype=dtype)], [torch.zeros(1, dtype=torch.int64)]
        at_once = max(1, DISTANCES_AT_ONCE // max(1, n_atoms**2))
        first_rows = range(0, n_structures, at_once)
        for first_row in tqdm(
            first_rows, desc="Neighbour lists", unit="block", delay=1, disable=None
        ):
            rows = slice(first_row, first_row + at_once)
            padded = torch.arange(species[rows].numel())  # every place counts as an atom
            _, receivers, senders, _ = finder(positions[rows], species[rows] > 0, padded, padded)
            pairs = torch.stack([receivers, senders], dim=1) % n_atoms
            atoms.append(pairs.to(dtype))
            counts.append(torch.bincount(receivers // n_atoms, minlength=len(species[rows])))
        return cls(torch.cat(atoms), torch.cat(counts).cumsum(0))

    @property
    def bytes_per_structure(self) -> float:
        """Memory of the lists, on average."""
        n_structures = len(self.starts) - 1
        return (self.atoms.nbytes + self.starts.nbytes) / max(1, n_structures)

    def batch_pairs(self, rows: Tensor, n_atoms: int) -> Tensor:
        """Pairs (n_pairs, 2) int64 of a batch of structures padded to `n_atoms`.

        They number the places of the padded batch: k * n_atoms + i is atom i of its structure k.
        """
        # NumPy, whose `repeat` takes a tenth of the time of torch's for some hundred pairs.
        chosen, starts = rows.numpy(), self.starts.numpy()
        counts = starts[chosen + 1] - starts[chosen]
        shifts = starts[chosen] - (counts.cumsum() - counts)
        place = np.arange(counts.sum()) + np.repeat(shifts, counts)
        pairs = self.atoms.numpy()[place].astype(np.int64)
        pairs += np.repeat(np.arange(len(chosen)) * n_atoms, counts)[:, None]
        return torch.from_numpy(pairs)
