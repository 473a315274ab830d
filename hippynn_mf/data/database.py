"""The hippynn database of an experiment, whose batches are cut to size."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hippynn.databases import Database
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler

from hippynn_mf.data.arrays import training_arrays
from hippynn_mf.data.embedded import FOLDER
from hippynn_mf.data.formats.ani1x import Rows
from hippynn_mf.data.formats.declared import KeyTable, UnitTable
from hippynn_mf.data.formats.sources import DataPath, with_declared
from hippynn_mf.data.loading import load_splits
from hippynn_mf.data.structures import (
    ROWS_AT_ONCE,
    Structures,
)
from hippynn_mf.keys import (
    CELL,
    PAIR_SHIFTS,
    PAIRS,
    POSITIONS,
    SPECIES,
    is_per_atom,
    split_label,
)
from hippynn_mf.labels import Labels, parse_labels
from hippynn_mf.levels import KNOWN_LEVELS, PAPER_LEVELS, Level, Levels
from hippynn_mf.neighbours import NeighbourLists

log = logging.getLogger(__name__)


class Batches(Dataset[list[torch.Tensor]]):
    """Arrays indexed by whole batches, cut to the batch's largest molecule if `trimmed`.

    Of every batch, only the share of one rank of several is taken.
    """

    def __init__(
        self,
        arrays: Mapping[str, torch.Tensor],
        names: Sequence[str],
        pairs: NeighbourLists | None,
        *,
        trimmed: bool,
        share: tuple[int, int],
    ) -> None:
        self.arrays = arrays
        self.names = names  # a name may be both input and target
        self.pairs = pairs
        self.share = share
        self.n_atoms = None
        if trimmed:
            blocks = torch.split(arrays[SPECIES], ROWS_AT_ONCE)
            self.n_atoms = torch.cat([(species > 0).sum(dim=1) for species in blocks])

    def __len__(self) -> int:
        return len(self.arrays[SPECIES])

    def __getitem__(self, rows: list[int]) -> list[torch.Tensor]:
        batch, width = torch.tensor(rows), self.arrays[SPECIES].shape[1]
        if self.n_atoms is not None:
            # Atoms with similar numbers of neighbours side by side take less padding.
            batch = batch[self.n_atoms[batch].argsort(stable=True)]
        rank, n_ranks = self.share
        # Every rank takes part in every step, without labels if there is no structure left for it.
        idle = rank >= len(batch)
        batch = batch[:1] if idle else batch[rank::n_ranks]
        if self.n_atoms is not None:
            width = int(self.n_atoms[batch[-1]])
        tensors = [self._batch_tensor(name, batch, width) for name in self.names]
        if not idle:
            return tensors
        return [
            tensor if split_label(name) is None else torch.full_like(tensor, np.nan)
            for name, tensor in zip(self.names, tensors, strict=True)
        ]

    def _batch_tensor(self, name: str, rows: torch.Tensor, width: int) -> torch.Tensor:
        if name == PAIRS and self.pairs is not None:
            return self.pairs.batch_pairs(rows, width)
        if name == PAIR_SHIFTS and self.pairs is not None:
            shifts = self.pairs.batch_shifts(rows, self.arrays[CELL][rows])
            return shifts.to(self.arrays[POSITIONS].dtype)
        array = self.arrays[name][rows]
        if name == CELL:
            return array.to(self.arrays[POSITIONS].dtype)
        if name == SPECIES:
            array = array.to(torch.int64)  # hippynn's type; one byte is enough to keep
        return array[:, :width] if is_per_atom(name) else array


class TrainingDatabase(Database):
    """A split hippynn database whose training batches are cut to their own largest molecule.

    In a training batch they are sorted by their number of atoms. Evaluation batches keep the order
    and the width of the file, because hippynn's evaluator joins them. The order of batches depends
    on `seed` alone: torch's global random state is also drawn on by progress bars, which open every
    loader twice.
    """

    def __init__(
        self,
        splits: Mapping[str, Mapping[str, np.ndarray]],
        *,
        seed: int = 0,
        inputs: list[str] | None = None,
        targets: list[str] | None = None,
    ) -> None:
        tensors = {
            split: {name: torch.as_tensor(array) for name, array in arrays.items()}
            for split, arrays in splits.items()
        }
        nothing_left = {name: array[:0] for name, array in tensors["train"].items()}
        super().__init__(
            nothing_left,
            inputs=inputs,
            targets=targets,
            seed=seed,
            quiet=True,
            pin_memory=torch.cuda.is_available(),
        )
        self.splits = tensors
        self.splitting_completed = True
        self.pairs: dict[str, NeighbourLists] = {}

    def store_pairs(self, cutoff: float) -> None:
        """Find all pairs nearer than `cutoff` in Å, to hand them out with the batches."""
        self.pairs = {
            split: NeighbourLists.of(arrays[SPECIES], arrays[POSITIONS], cutoff, arrays.get(CELL))
            for split, arrays in self.splits.items()
        }
        for split, lists in self.pairs.items():
            # hippynn takes a split for one with pairs if it has an array of that name.
            self.splits[split][PAIRS] = lists.starts.diff()
            if lists.images is not None:
                self.splits[split][PAIR_SHIFTS] = lists.starts.diff()
        size = self.pairs["train"].bytes_per_structure
        log.info("Neighbour lists within %g Å: %.0f bytes per structure", cutoff, size)

    def make_generator(
        self,
        split_name: str,
        evaluation_mode: str,
        batch_size: int | None = None,
        subsample: float | bool = False,
        *,
        share: tuple[int, int] = (0, 1),
    ) -> DataLoader[list[torch.Tensor]]:
        """Batches of a split, in the order of `inputs + targets`.

        Shuffled and cut to size in the mode `train`; in the mode `eval` in the order of the file,
        or a random fraction `subsample` of it. With `share` (rank, number of ranks), every rank
        that has the same `random_state` gets its part of the same batches; where a batch has fewer
        structures than there are ranks, the others get one of them without labels.
        """
        batches: Batches
        order: Iterable[Any]
        if evaluation_mode == "train":
            batches, order = self.training_batches(split_name, batch_size, share)
        else:
            arrays, pairs = self.splits[split_name], self.pairs.get(split_name)
            batches = Batches(arrays, self.var_list, pairs, trimmed=False, share=share)
            rows: Sequence[int] = range(len(batches))
            if subsample:
                n_rows = max(1, int(subsample * len(batches)))
                rows = torch.randperm(len(batches), generator=self.random_state)[:n_rows].tolist()
            order = BatchSampler(rows, batch_size or len(batches), drop_last=False)
        return DataLoader(
            batches,
            sampler=order,
            batch_size=None,
            pin_memory=self.pin_memory,
            num_workers=self.num_workers,
        )

    def training_batches(
        self, split_name: str, batch_size: int | None, share: tuple[int, int]
    ) -> tuple[Batches, Iterable[Any]]:
        """The batches of a training epoch, and what to ask them for: rows in random order."""
        arrays, pairs = self.splits[split_name], self.pairs.get(split_name)
        batches = Batches(arrays, self.var_list, pairs, trimmed=True, share=share)
        rows = RandomSampler(batches, generator=self.random_state)
        return batches, BatchSampler(rows, batch_size or len(batches), drop_last=False)


def build_database(
    parts: Mapping[str, Structures],
    labels: Labels,
    *,
    seed: int = 0,
    inputs: list[str] | None = None,
    targets: list[str] | None = None,
    consume: Collection[str] = (),
) -> TrainingDatabase:
    """Database of the train, valid and test structures with the labels of an experiment.

    `seed` fixes the order of batches; `inputs` and `targets` are hippynn's `db_info`, which its
    training loop needs. Of the splits to `consume`, the forces take the place of the structures'.
    """
    splits = {
        name: training_arrays(part, labels, consume=name in consume) for name, part in parts.items()
    }
    return TrainingDatabase(splits, seed=seed, inputs=inputs, targets=targets)


def _is_embedded(source: DataPath) -> bool:
    """Whether data are those that ship with the package."""
    return isinstance(source, Path) and source.absolute().parent == FOLDER


def load_database(
    path: DataPath,
    labels: Mapping[str, str] | Labels,
    *,
    inputs: list[str] | None = None,
    targets: list[str] | None = None,
    common_levels: Collection[Level] = PAPER_LEVELS,
    rows: Rows | None = None,
    split_seed: int = 0,
    seed: int = 0,
    levels: Levels = KNOWN_LEVELS,
    keys: KeyTable | None = None,
    units: UnitTable | None = None,
) -> TrainingDatabase:
    """A split hippynn database of data (see `sources`), in kcal/mol and Å, NaN = no label.

    `load_database(path, {"DZ": "EF", "CC": "E"}, **db_info)` with hippynn's `db_info`; arrays are
    named as in `training_arrays`, and `seed` fixes the order of batches. Species are kept in one
    byte, and are int64 in batches. `rows` are those with the energies of all `common_levels`
    (`common`, the default for the embedded data), or with any label (`all`). `levels` are those
    that labels and data may name. `keys` and `units` say what names in the files stand for, and
    units, as in `declared`:
    `keys={"DZ": {"energy": "dft_energy"}}, units={"energy": "kcal/mol"}`.
    Raises UserError as `load_splits` does.
    """
    resolved = parse_labels(labels, levels=levels)
    parts = load_splits(
        with_declared(path, keys, units),
        resolved,
        common_levels=common_levels,
        rows=rows or ("common" if _is_embedded(path) else "all"),
        split_seed=split_seed,
        levels=levels,
    )
    return build_database(parts, resolved, seed=seed, inputs=inputs, targets=targets, consume=parts)
