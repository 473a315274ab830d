"""Neighbour lists of a data set, found once and kept compact."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from vesin import NeighborList

from hippynn_mf.cells import complete
from hippynn_mf.errors import UserError

DISTANCES_AT_ONCE = 2**20
FARTHEST_IMAGE = int(np.iinfo(np.int16).max)


@dataclass(frozen=True)
class NeighbourLists:
    """Directed pairs of atoms nearer than a cut-off in every structure of a data set.

    `atoms` (n_pairs, 2), receiver and sender, number the atoms within their structure, in one byte
    each up to 256 atoms; the pairs of structure k are those from `starts[k]` to `starts[k + 1]`.
    `images` (n_pairs, 3) are the lattice vectors between receiver and sender, beside those of the
    positions, as whole numbers; None if no structure is periodic.
    """

    atoms: Tensor
    starts: Tensor
    images: Tensor | None = None

    @classmethod
    def of(
        cls, species: Tensor, positions: Tensor, cutoff: float, cells: Tensor | None = None
    ) -> NeighbourLists:
        """Lists of structures: species (n, n_atoms_max), positions (n, n_atoms_max, 3) in Å.

        The pairs, and their order, are those of hippynn's own finder for open boundaries. `cells`
        (n, 3, 3) are those of `Structures`; a cell may be smaller than the cut-off.
        """
        if cells is not None:
            return cls._in_cells(species, positions, cutoff, cells)
        from hippynn.layers.pairs import OpenPairIndexer  # whose package loads much

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

    @classmethod
    def _in_cells(
        cls, species: Tensor, positions: Tensor, cutoff: float, cells: Tensor
    ) -> NeighbourLists:
        """As `of`, one structure after another."""
        dtype = torch.uint8 if species.shape[1] <= 256 else torch.int16
        finder = NeighborList(cutoff=cutoff, full_list=True, sorted=True, n_threads=1)
        atoms, images = [np.empty((0, 2), np.uint64)], [np.empty((0, 3), np.int32)]
        counts = [0]
        n_atoms = (species > 0).sum(dim=1).tolist()
        in_cells = zip(n_atoms, positions.double().numpy(), cells.double().numpy(), strict=True)
        for n, of_atoms, cell in tqdm(
            in_cells,
            total=len(n_atoms),
            desc="Neighbour lists",
            unit="structure",
            delay=1,
            disable=None,
        ):
            receivers, senders, of_pairs = finder.compute(
                np.ascontiguousarray(of_atoms[:n]),
                complete(cell),
                cell.any(axis=1),
                quantities="ijS",
            )
            atoms.append(np.stack([receivers, senders], axis=1))
            images.append(of_pairs)
            counts.append(len(receivers))
        found = np.concatenate(images)
        if np.abs(found).max(initial=0) > FARTHEST_IMAGE:
            raise UserError(
                f"An atom lies {np.abs(found).max()} cells away from a neighbour, more than "
                f"{FARTHEST_IMAGE}. Wrap the positions into their cells."
            )
        return cls(
            torch.from_numpy(np.concatenate(atoms).astype(np.int64)).to(dtype),
            torch.tensor(counts).cumsum(0),
            torch.from_numpy(found.astype(np.int16)),
        )

    @property
    def bytes_per_structure(self) -> float:
        """Memory of the lists, on average."""
        n_structures = len(self.starts) - 1
        n_bytes = self.atoms.nbytes + self.starts.nbytes
        if self.images is not None:
            n_bytes += self.images.nbytes
        return n_bytes / max(1, n_structures)

    def batch_shifts(self, rows: Tensor, cells: Tensor) -> Tensor:
        """What lattice vectors add to x_j − x_i, (n_pairs, 3) float64 in Å, of `batch_pairs`.

        `cells` (n_rows, 3, 3) float64 are those of the `rows`; zeros without images.
        """
        chosen, starts = rows.numpy(), self.starts.numpy()
        counts = starts[chosen + 1] - starts[chosen]
        place = _places(counts, starts[chosen])
        if self.images is None:
            return torch.zeros(len(place), 3, dtype=torch.float64)
        of_pairs = np.repeat(cells.numpy(), counts, axis=0)
        images = self.images.numpy()[place].astype(np.float64)
        return torch.from_numpy(np.einsum("pi,pij->pj", images, of_pairs))

    def batch_pairs(self, rows: Tensor, n_atoms: int) -> Tensor:
        """Pairs (n_pairs, 2) int64 of a batch of structures padded to `n_atoms`.

        They number the places of the padded batch: k * n_atoms + i is atom i of its structure k.
        """
        # NumPy, whose `repeat` takes a tenth of the time of torch's for some hundred pairs.
        chosen, starts = rows.numpy(), self.starts.numpy()
        counts = starts[chosen + 1] - starts[chosen]
        place = _places(counts, starts[chosen])
        pairs = self.atoms.numpy()[place].astype(np.int64)
        pairs += np.repeat(np.arange(len(chosen)) * n_atoms, counts)[:, None]
        return torch.from_numpy(pairs)


def _places(counts: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The numbers from each of `starts` on, as many as `counts` says, one after another."""
    shifts = starts - (counts.cumsum() - counts)
    return np.asarray(np.arange(counts.sum()) + np.repeat(shifts, counts))
