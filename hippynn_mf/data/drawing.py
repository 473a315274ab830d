"""The splits of an open file, from its labels, its positions and a seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hippynn_mf.data.formats.ani1x import FileIndex, Rows
from hippynn_mf.data.formats.atoms import Group, read_blocks
from hippynn_mf.data.formats.hdf5 import require_array
from hippynn_mf.data.matching import Batch, find_first
from hippynn_mf.data.molecules import molecule_ids
from hippynn_mf.data.splits import SplitBy, assign_molecules, assign_splits
from hippynn_mf.labels import Labels


@dataclass(frozen=True)
class Drawn:
    """The split of every conformer of a file, and which are copies of each other.

    Attributes:
        splits: (n_file,) index into `SPLITS`.
        first: (n_file,) the first conformer that each is the same as.
    """

    splits: np.ndarray
    first: np.ndarray


def draw_splits(
    index: FileIndex,
    path: Path,
    labels: Labels,
    *,
    rows: Rows,
    split_by: SplitBy,
    seed: int,
) -> Drawn:
    """Draw the splits of a file; `labels` are all that it holds, whatever an experiment reads.

    With `rows="common"` only the common conformers are looked at, which are those of any
    experiment on the file. Raises UserError for coordinates and forces that cannot be read, and for
    too few molecules.
    """
    n = len(index.is_common)
    looked_at = index.is_common if rows == "common" else np.ones(n, bool)
    chosen = np.flatnonzero(looked_at)
    batches = list(_batches(index.groups, looked_at, path))
    first = np.arange(n)
    first[chosen] = chosen[_lowest(find_first(batches))]
    has_label = _label_table(index, path, labels, looked_at)
    if split_by == "conformer":
        splits = assign_splits(index.is_common, seed, has_label=has_label, first=first)
        return Drawn(splits, first)
    ids = np.concatenate([molecule_ids(batch) for batch in batches])
    splits = np.zeros(n, np.int64)
    splits[chosen] = assign_molecules(ids, seed, has_label=has_label[:, chosen])
    return Drawn(splits[first], first)


def _lowest(first: np.ndarray) -> np.ndarray:
    """The same copies, named by the lowest index of each conformer."""
    lowest = np.arange(len(first))
    np.minimum.at(lowest, first, np.arange(len(first)))
    return np.asarray(lowest[first])


def _batches(groups: tuple[Group, ...], looked_at: np.ndarray, path: Path) -> Iterator[Batch]:
    """The conformers of each group that are looked at."""
    for group in groups:
        local = np.flatnonzero(looked_at[group.start : group.start + group.size])
        if len(local):
            yield Batch(group.numbers, len(local), _Reader(group, local, path))


@dataclass(frozen=True)
class _Reader:
    """Positions of some conformers of a group, by ascending indices into `local`."""

    group: Group
    local: np.ndarray
    path: Path

    def __call__(self, wanted: np.ndarray) -> np.ndarray:
        dataset = require_array(self.group.member, "coordinates", self.path, self.group.shape)
        if not len(wanted):
            return np.empty((0, *self.group.shape[1:]), np.float32)
        rows = self.local[wanted]
        block = dataset[rows[0] : rows[-1] + 1]
        return np.asarray(block if len(block) == len(rows) else block[rows - rows[0]])


def _label_table(index: FileIndex, path: Path, labels: Labels, looked_at: np.ndarray) -> np.ndarray:
    """(n_labels, n_file) which conformers have the energy, and the forces, of each level."""
    table = []
    for level, properties in labels.items():
        table.append(index.labelled[level.id] & looked_at)
        if properties.forces and level.force_key is not None:
            has_forces = np.zeros(len(looked_at), bool)
            for group in index.groups:
                if not looked_at[group.start : group.start + group.size].any():
                    continue
                for start, values in read_blocks(group, level.force_key, path):
                    stop = group.start + start + len(values)
                    # Of forces with a hole no more is known here; they are refused or left out.
                    has_forces[group.start + start : stop] = np.isfinite(values[:, 0, 0])
            table.append(has_forces & looked_at)
    return np.array(table).reshape(len(table), len(looked_at))
