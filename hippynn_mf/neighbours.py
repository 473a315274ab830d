"""Neighbour lists of a data set, found once and kept compact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from vesin import NeighborList

from hippynn_mf.cells import complete
from hippynn_mf.errors import UserError
from hippynn_mf.ragged import Places, Ragged, as_ragged, blocks_by_size

DISTANCES_AT_ONCE = 2**20
FARTHEST_IMAGE = int(np.iinfo(np.int16).max)


@dataclass(frozen=True)
class NeighbourLists:
    """Directed pairs of atoms nearer than a cut-off in every structure of a data set.

    `atoms` (n_pairs, 2), receiver and sender, number the atoms within their structure, in one byte
    each up to 256 atoms; `places` say which pairs are of which structure.
    `images` (n_pairs, 3) are the lattice vectors between receiver and sender, beside those of the
    positions, as whole numbers; None if no structure is periodic.
    """

    atoms: np.ndarray
    places: Places
    images: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        species: Ragged | np.ndarray,
        positions: Ragged | np.ndarray,
        cutoff: float,
        cells: np.ndarray | None = None,
    ) -> NeighbourLists:
        """Lists of structures: species (n, n_atoms_max), positions (n, n_atoms_max, 3) in Å.

        The pairs of a structure, and their order, are those of hippynn's own finder for open
        boundaries. `cells` (n, 3, 3) are those of `Structures`; a cell may be smaller than the
        cut-off.
        """
        _, positions = as_ragged(species, positions)
        if cells is not None:
            return cls._in_cells(positions, cutoff, cells)
        from hippynn.layers.pairs import OpenPairIndexer  # whose package loads much

        places = positions.places
        dtype = np.uint8 if places.width <= 256 else np.int16
        finder = OpenPairIndexer(cutoff)
        atoms, counts = [np.empty((0, 2), dtype)], np.zeros(len(places), np.int64)
        worked_on = [np.empty(0, np.int64)]
        with _progress(len(places)) as progress:
            for chosen in blocks_by_size(places.sizes, DISTANCES_AT_ONCE):
                worked_on.append(chosen)
                block = positions[chosen]
                n_atoms = block.shape[1]
                every = torch.arange(len(chosen) * n_atoms)  # every place counts as an atom
                is_atom = torch.from_numpy(places[chosen].cut().is_atom)
                found = finder(torch.from_numpy(block), is_atom, every, every)
                _, receivers, senders, _ = (each.numpy() for each in found)
                atoms.append((np.stack([receivers, senders], axis=1) % n_atoms).astype(dtype))
                counts[chosen] = np.bincount(receivers // n_atoms, minlength=len(chosen))
                progress.update(len(chosen))
        order = np.concatenate(worked_on)
        starts = np.empty(len(places), np.int64)
        starts[order] = np.cumsum(counts[order]) - counts[order]
        return cls(np.concatenate(atoms), Places(starts, counts))

    @classmethod
    def _in_cells(cls, positions: Ragged, cutoff: float, cells: np.ndarray) -> NeighbourLists:
        """As `of`, one structure after another."""
        dtype = np.uint8 if positions.places.width <= 256 else np.int16
        finder = NeighborList(cutoff=cutoff, full_list=True, sorted=True, n_threads=1)
        atoms, images = [np.empty((0, 2), dtype)], [np.empty((0, 3), np.int16)]
        counts = []
        farthest = 0
        with _progress(len(positions)) as progress:
            for of_atoms, cell in zip(positions, cells.astype(np.float64), strict=True):
                receivers, senders, of_pairs = finder.compute(
                    of_atoms.astype(np.float64), complete(cell), cell.any(axis=1), quantities="ijS"
                )
                atoms.append(np.stack([receivers, senders], axis=1).astype(dtype))
                farthest = max(farthest, int(np.abs(of_pairs).max(initial=0)))
                images.append(of_pairs.astype(np.int16))
                counts.append(len(receivers))
                progress.update()
        if farthest > FARTHEST_IMAGE:
            raise UserError(
                f"An atom lies {farthest} cells away from a neighbour, more than "
                f"{FARTHEST_IMAGE}. Wrap the positions into their cells."
            )
        places = Places.of_sizes(np.array(counts, np.int64))
        return cls(np.concatenate(atoms), places, np.concatenate(images))

    @property
    def bytes_per_structure(self) -> float:
        """Memory of the lists, on average."""
        n_bytes = self.atoms.nbytes + self.places.starts.nbytes + self.places.sizes.nbytes
        if self.images is not None:
            n_bytes += self.images.nbytes
        return n_bytes / max(1, len(self.places))

    def batch_shifts(self, rows: np.ndarray, cells: np.ndarray) -> Tensor:
        """What lattice vectors add to x_j − x_i, (n_pairs, 3) float64 in Å, of `batch_pairs`.

        `cells` (n_rows, 3, 3) float64 are those of the `rows`; zeros without images.
        """
        chosen = self.places[rows]
        if self.images is None:
            return torch.zeros(chosen.n_atoms, 3, dtype=torch.float64)
        of_pairs = np.repeat(cells, chosen.sizes, axis=0)
        images = self.images[chosen.rows()].astype(np.float64)
        return torch.from_numpy(np.einsum("pi,pij->pj", images, of_pairs))

    def batch_pairs(self, rows: np.ndarray, n_atoms: int) -> Tensor:
        """Pairs (n_pairs, 2) int64 of a batch of structures padded to `n_atoms`.

        They number the places of the padded batch: k * n_atoms + i is atom i of its structure k.
        """
        # NumPy, whose `repeat` takes a tenth of the time of torch's for some hundred pairs.
        chosen = self.places[rows]
        pairs = self.atoms[chosen.rows()].astype(np.int64)
        pairs += np.repeat(np.arange(len(chosen)) * n_atoms, chosen.sizes)[:, None]
        return torch.from_numpy(pairs)


def _progress(n: int) -> tqdm[Any]:
    return tqdm(total=n, desc="Neighbour lists", unit="structure", delay=1, disable=None)
