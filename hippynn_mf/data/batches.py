"""Batches of a database, cut to size from arrays without padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from hippynn_mf.keys import CELL, PAIR_SHIFTS, PAIRS, POSITIONS, SPECIES, split_label
from hippynn_mf.neighbours import NeighbourLists
from hippynn_mf.ragged import Cut, Ragged


def of_atoms(arrays: Mapping[str, torch.Tensor | Ragged], name: str) -> Ragged:
    """An array of a split that belongs to atoms."""
    array = arrays[name]
    assert isinstance(array, Ragged)
    return array


class Batches(Dataset[list[torch.Tensor]]):
    """Arrays indexed by whole batches, cut to the batch's largest molecule if `trimmed`.

    Of every batch, only the share of one rank of several is taken.
    """

    def __init__(
        self,
        arrays: Mapping[str, torch.Tensor | Ragged],
        names: Sequence[str],
        pairs: NeighbourLists | None,
        *,
        trimmed: bool,
        share: tuple[int, int],
    ) -> None:
        self.arrays = arrays
        self.places = of_atoms(arrays, SPECIES).places
        self.dtype = torch.from_numpy(of_atoms(arrays, POSITIONS).values[:0]).dtype
        self.names = names  # a name may be both input and target
        self.pairs = pairs
        self.trimmed = trimmed
        self.share = share

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, rows: list[int]) -> list[torch.Tensor]:
        places = self.places
        batch = np.asarray(rows, np.int64)
        if self.trimmed:
            # Atoms with similar numbers of neighbours side by side take less padding.
            batch = batch[places.sizes[batch].argsort(kind="stable")]
        rank, n_ranks = self.share
        # Every rank takes part in every step, without labels if there is no structure left for it.
        idle = rank >= len(batch)
        batch = batch[:1] if idle else batch[rank::n_ranks]
        width = int(places.sizes[batch[-1]]) if self.trimmed else places.width
        cuts: dict[int, Cut] = {}
        tensors = [self._batch_tensor(name, batch, width, cuts) for name in self.names]
        if not idle:
            return tensors
        return [
            tensor if split_label(name) is None else torch.full_like(tensor, np.nan)
            for name, tensor in zip(self.names, tensors, strict=True)
        ]

    def _batch_tensor(
        self, name: str, rows: np.ndarray, width: int, cuts: dict[int, Cut]
    ) -> torch.Tensor:
        if name == PAIRS and self.pairs is not None:
            return self.pairs.batch_pairs(rows, width)
        array = self.arrays[CELL if name == PAIR_SHIFTS else name]
        if isinstance(array, Ragged):
            places = array.places  # of several arrays
            if id(places) not in cuts:
                cuts[id(places)] = places[rows].cut(width)
            found = torch.from_numpy(array.take(cuts[id(places)]))
            # hippynn's type; one byte is enough to keep.
            return found.to(torch.int64) if name == SPECIES else found
        found = array[torch.from_numpy(rows)]
        if name == PAIR_SHIFTS and self.pairs is not None:
            found = self.pairs.batch_shifts(rows, found.numpy())
        return found.to(self.dtype) if name in (CELL, PAIR_SHIFTS) else found
