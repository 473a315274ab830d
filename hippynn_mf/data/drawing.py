"""The splits of an open file, from its labels, its positions and a seed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hippynn_mf.data.formats.ani1x import FileIndex, Rows
from hippynn_mf.data.formats.atoms import Coordinates, read_coordinates
from hippynn_mf.data.formats.groups import read_cells
from hippynn_mf.data.formats.hdf5 import require_array
from hippynn_mf.data.formats.reading_bar import ReadingBar
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
        coordinates: of the conformers that were looked at.
    """

    splits: np.ndarray
    first: np.ndarray
    coordinates: Coordinates


def draw_splits(
    index: FileIndex,
    path: Path,
    labels: Labels,
    *,
    rows: Rows,
    split_by: SplitBy,
    seed: int,
    bar: ReadingBar,
    ignore_cell: bool = False,
    mapped: bool = False,
) -> Drawn:
    """Draw the splits of a file; `labels` are all that it holds, whatever an experiment reads.

    With `rows="common"` only the common conformers are looked at, which are those of any
    experiment on the file. With `mapped`, the coordinates are kept in files. Raises UserError for
    coordinates and forces that cannot be read, and for too few molecules.
    """
    n = len(index.is_common)
    looked_at = index.is_common if rows == "common" else np.ones(n, bool)
    chosen = np.flatnonzero(looked_at)
    coordinates = read_coordinates(path, index.groups, chosen, bar=bar, mapped=mapped)
    batches = []
    for group in index.groups:
        of_group, positions = coordinates.of_group(group)
        if len(of_group):
            cells = None if ignore_cell else read_cells(group, path)
            of_cells = None if cells is None else cells[of_group - group.start]
            batches.append(Batch(group.numbers, len(of_group), positions.__getitem__, of_cells))
    first = np.arange(n)
    first[chosen] = chosen[_lowest(find_first(batches))]
    has_label = _label_table(index, path, labels, looked_at)
    if split_by == "conformer":
        splits = assign_splits(index.is_common, seed, has_label=has_label, first=first)
        return Drawn(splits, first, coordinates)
    ids = np.concatenate([molecule_ids(batch) for batch in batches])
    splits = np.zeros(n, np.int8)
    splits[chosen] = assign_molecules(ids, seed, has_label=has_label[:, chosen])
    return Drawn(splits[first], first, coordinates)


def _lowest(first: np.ndarray) -> np.ndarray:
    """The same copies, named by the lowest index of each conformer."""
    lowest = np.arange(len(first))
    np.minimum.at(lowest, first, np.arange(len(first)))
    return np.asarray(lowest[first])


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
                dataset = require_array(group.member, level.force_key, path, group.shape)
                # Of forces with a hole no more is known here; they are refused or left out.
                of_group = slice(group.start, group.start + group.size)
                has_forces[of_group] = np.isfinite(dataset[:, 0, 0])
            table.append(has_forces & looked_at)
    return np.array(table).reshape(len(table), len(looked_at))
