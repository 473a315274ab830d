"""The hippynn database of an experiment, whose batches are cut to size."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hippynn.databases import Database
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from hippynn_mf.data.arrays import training_arrays
from hippynn_mf.data.batches import Batches, of_atoms
from hippynn_mf.data.embedded import FOLDER
from hippynn_mf.data.formats.ani1x import Rows
from hippynn_mf.data.formats.declared import KeyTable, UnitTable
from hippynn_mf.data.formats.sources import DataPath, with_declared
from hippynn_mf.data.loading import load_splits
from hippynn_mf.data.structures import Structures
from hippynn_mf.errors import UserError
from hippynn_mf.keys import (
    CELL,
    PAIR_SHIFTS,
    PAIRS,
    POSITIONS,
    SPECIES,
    is_per_atom,
)
from hippynn_mf.labels import Labels, parse_labels
from hippynn_mf.levels import KNOWN_LEVELS, PAPER_LEVELS, Level, Levels
from hippynn_mf.neighbours import NeighbourLists
from hippynn_mf.ragged import Ragged, as_ragged

log = logging.getLogger(__name__)


def _without_padding(
    arrays: Mapping[str, np.ndarray | Ragged],
) -> dict[str, torch.Tensor | Ragged]:
    """The arrays of a split, without padding where they belong to atoms."""
    names = [SPECIES, *(name for name in arrays if is_per_atom(name) and name != SPECIES)]
    ragged = dict(zip(names, as_ragged(*(arrays[name] for name in names)), strict=True))
    return {
        name: ragged[name] if name in ragged else torch.as_tensor(array)
        for name, array in arrays.items()
    }


class TrainingDatabase(Database):
    """A split hippynn database whose training batches are cut to their own largest molecule.

    Arrays of atoms are `Ragged` in its `splits`; padded ones may be given. In a training batch
    structures are sorted by their number of atoms. Evaluation batches keep the order and the width
    of the split, because hippynn's evaluator joins them. The order of batches depends
    on `seed` alone: torch's global random state is also drawn on by progress bars, which open every
    loader twice.
    """

    def __init__(
        self,
        splits: Mapping[str, Mapping[str, np.ndarray | Ragged]],
        *,
        seed: int = 0,
        inputs: list[str] | None = None,
        targets: list[str] | None = None,
    ) -> None:
        nothing_left = {name: array[:0] for name, array in splits["train"].items()}
        super().__init__(
            nothing_left,
            inputs=inputs,
            targets=targets,
            seed=seed,
            quiet=True,
            pin_memory=torch.cuda.is_available(),
        )
        self.splits: dict[str, dict[str, torch.Tensor | Ragged]] = {
            split: _without_padding(arrays) for split, arrays in splits.items()
        }
        self.splitting_completed = True
        self.pairs: dict[str, NeighbourLists] = {}

    def padded(self, split: str) -> dict[str, torch.Tensor]:
        """The arrays of a split as tensors, padded to its largest structure, as hippynn's own."""
        return {
            name: torch.from_numpy(array[:]) if isinstance(array, Ragged) else array
            for name, array in self.splits[split].items()
        }

    def send_to_device(self, device: torch.device | None = None) -> None:
        """Not here: batches are cut on the CPU, and training moves them; raises UserError."""
        raise UserError(
            "The arrays of this database stay in the CPU's memory, from which batches are cut. "
            "Leave send_to_device out; training moves every batch to the device."
        )

    def store_pairs(self, cutoff: float) -> None:
        """Find all pairs nearer than `cutoff` in Å, to hand them out with the batches."""
        for split, arrays in self.splits.items():
            cells = arrays.get(CELL)
            self.pairs[split] = lists = NeighbourLists.of(
                of_atoms(arrays, SPECIES),
                of_atoms(arrays, POSITIONS),
                cutoff,
                cells.numpy() if isinstance(cells, torch.Tensor) else None,
            )
            # hippynn takes a split for one with pairs if it has an array of that name.
            counts = torch.from_numpy(lists.places.sizes)
            arrays[PAIRS] = counts
            if lists.images is not None:
                arrays[PAIR_SHIFTS] = counts
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
