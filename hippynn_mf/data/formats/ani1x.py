"""Reader of files in the layout of `ani1x-release.h5`.

Every group holds conformers of one formula: `atomic_numbers` (n_atoms,), `coordinates`
(n_conformers, n_atoms, 3) in Å, and labels per conformer, NaN where missing. Files are read twice:
energies decide which conformers are kept, then only what belongs to those is read.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import h5py
import numpy as np

from hippynn_mf.data.formats.atoms import Part, read_parts
from hippynn_mf.data.formats.groups import Group, read_forces
from hippynn_mf.data.formats.hdf5 import refuse_infinite
from hippynn_mf.data.formats.layout import has_level, list_groups, read_energies
from hippynn_mf.data.formats.reading_bar import ReadingBar
from hippynn_mf.data.formats.sources import DataPath, has_frames, open_data, shown_path
from hippynn_mf.data.structures import Structures
from hippynn_mf.errors import UserError, unknown_name_message
from hippynn_mf.labels import Labels, Properties, join_labels
from hippynn_mf.levels import KNOWN_LEVELS, Level, Levels
from hippynn_mf.stores import is_too_large

log = logging.getLogger(__name__)

Rows = Literal["common", "all"]
BYTES_OF_ATOM, BYTES_OF_FORCE = 13, 12  # a position and an element; a force


@dataclass(frozen=True)
class FileIndex:
    """What the energies of a file say: its groups, and which conformers are kept.

    Attributes:
        groups: the groups of the file, in its order.
        rows: (n,) ascending positions in the file of the conformers that are kept.
        is_common: (n_file,) whether a conformer of the file is common.
        energies: level id → (n,) float64 in hartree, NaN where the label is missing.
        labelled: level id → (n_file,) whether a conformer of the file has an energy.
    """

    groups: tuple[Group, ...]
    rows: np.ndarray
    is_common: np.ndarray
    energies: Mapping[str, np.ndarray]
    labelled: Mapping[str, np.ndarray]

    @property
    def group_of_row(self) -> np.ndarray:
        """(n,) index of the group of each conformer that is kept."""
        starts = [group.start for group in self.groups]
        return np.searchsorted(starts, self.rows, side="right") - 1

    def bytes_of_atoms(self, rows: Rows, labels: Labels) -> int:
        """Bytes of positions and elements that are read, and of the forces of `labels`."""
        widths = np.array([len(group.numbers) for group in self.groups])
        n_atoms = n_read = int(widths[self.group_of_row].sum())
        if rows == "all":
            n_read = int(widths @ np.array([group.size for group in self.groups]))
        n_levels = sum(wanted.forces for wanted in labels.values())
        return BYTES_OF_ATOM * n_read + BYTES_OF_FORCE * n_levels * n_atoms

    def part(
        self, members: np.ndarray | slice, labels: Labels, *, forces: Labels | None = None
    ) -> Part:
        """Some of the conformers, given by their index into `rows`, with these labels.

        Forces and stress are those of `forces`, without it of `labels`.
        """
        derivatives = labels if forces is None else forces
        return Part(
            rows=self.rows[members],
            energies={level.id: self.energies[level.id][members] for level in labels},
            force_levels=[level for level, wanted in derivatives.items() if wanted.forces],
            stress_levels=[level for level, wanted in derivatives.items() if wanted.stress],
        )


def read_ani1x(
    path: DataPath,
    labels: Labels,
    *,
    references: Labels | None = None,
    common_levels: Collection[Level] = (),
    rows: Rows = "all",
    drop_damaged: bool = False,
    levels: Levels = KNOWN_LEVELS,
) -> tuple[Structures, np.ndarray]:
    """Read the labelled conformers of a file.

    Args:
        path: the HDF5 file, or extended XYZ, which becomes one in memory.
        labels: the labels of the experiment.
        references: further labels to read for the same conformers, for evaluation.
        common_levels: levels that define the common conformers: those with all their energies.
        rows: `common` keeps the common conformers, `all` those with any label of the experiment.
        drop_damaged: leave out infinite labels, and conformers whose coordinates are not finite,
            instead of refusing the file; for looking at what is wrong with it.
        levels: those that extended XYZ may name.

    Returns:
        The kept conformers, and for every conformer of the file whether it is common, (n_file,).

    Raises:
        UserError: for a file, key, shape or value that cannot be right, naming it. Coordinates and
            forces are looked at in groups of which a conformer is kept.
    """
    wanted = join_labels(labels, references or {})
    name = shown_path(path, levels=levels)
    with (
        open_data(path, levels=levels) as file,
        ReadingBar(name, 3, hidden=has_frames(path)) as bar,
    ):
        index = index_ani1x(
            file,
            name,
            labels,
            references=references,
            common_levels=common_levels,
            rows=rows,
            drop_damaged=drop_damaged,
            bar=bar,
        )
        part = index.part(slice(None), wanted)
        mapped = is_too_large(index.bytes_of_atoms("common", wanted), name)
        read = read_parts(
            name, index.groups, {"all": part}, bar=bar, drop_damaged=drop_damaged, mapped=mapped
        )
    return read["all"], index.is_common


def index_ani1x(
    file: h5py.File,
    path: Path,
    labels: Labels,
    *,
    references: Labels | None = None,
    common_levels: Collection[Level] = (),
    rows: Rows = "all",
    drop_damaged: bool = False,
    bar: ReadingBar | None = None,
) -> FileIndex:
    """Find the conformers that `read_ani1x` keeps, from the energies of an open file.

    Forces are read only where a conformer has no energy of the experiment. The `bar` is that of the
    reading that this is a pass of. Raises UserError as `read_ani1x` does, for groups, energies and
    shapes of coordinates.
    """
    if rows not in get_args(Rows):
        raise UserError(unknown_name_message("choice of rows", rows, get_args(Rows)))
    wanted = join_labels(labels, references or {})
    for level, properties in wanted.items():
        if properties.forces and level.force_key is None:
            raise UserError(
                f"Level {level.id} ({level.label}) has no forces in this layout; "
                "ask for its energies only."
            )
    kept_labels = None if rows == "common" else labels
    groups = list_groups(file, path)
    n = sum(group.size for group in groups)
    # Whole arrays from the start: pieces, joined at the end, would be there twice.
    kept, is_common = np.zeros(n, bool), np.zeros(n, bool)
    energies = {level.id: np.empty(n) for level in wanted}
    for group in (bar or ReadingBar(path, 1, hidden=True)).over("labels", groups):
        labels_of_group, chosen, common = _read_labels(
            group, path, wanted, common_levels, kept_labels, drop_damaged
        )
        of_group = slice(group.start, group.start + group.size)
        for level_id, values in energies.items():
            values[of_group] = labels_of_group[level_id]
        kept[of_group], is_common[of_group] = chosen, common
    labelled = {name: np.isfinite(values) for name, values in energies.items()}
    if not kept.all():
        for name in energies:
            energies[name] = energies[name][kept]
    index = FileIndex(
        groups=tuple(groups),
        rows=np.flatnonzero(kept),
        is_common=is_common,
        energies=energies,
        labelled=labelled,
    )
    log.info("%s: %d of %d conformers kept", path, len(index.rows), len(index.is_common))
    return index


def _read_labels(
    group: Group,
    path: Path,
    wanted: Labels,
    common_levels: Collection[Level],
    kept_labels: Labels | None,
    drop_damaged: bool,
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Energies of a group, which conformers are kept, and which are common.

    Kept are the common ones, or those with any of `kept_labels`.
    """
    common = np.ones(group.size, bool)
    keys = set(group.member) if kept_labels is not None else set()
    if kept_labels is not None and not all(has_level(keys, level) for level in common_levels):
        common_levels, common = (), np.zeros(group.size, bool)  # a level nobody asked for
    energies: dict[str, np.ndarray] = {}
    for level in dict.fromkeys([*wanted, *common_levels]):
        values = read_energies(group, level, path)
        if not drop_damaged:
            refuse_infinite(values, f"the energies of {level.id}", path, group.name)
        energies[level.id] = np.where(np.isinf(values), np.nan, values)
    for level in common_levels:
        common &= np.isfinite(energies[level.id])
    if kept_labels is None:
        return energies, common, common

    kept = np.zeros(group.size, bool)
    for level in kept_labels:
        kept |= np.isfinite(energies[level.id])
    for level, properties in kept_labels.items():
        if properties.forces and not kept.all():
            for start, values in read_forces(group, level, path, drop_damaged):
                kept[start : start + len(values)] |= np.isfinite(values).all(axis=(1, 2))
    return energies, kept, common


def labels_in_file(path: DataPath, *, levels: Levels = KNOWN_LEVELS) -> Labels:
    """Those of `levels` whose keys the file has, with forces, and stress, where it has them.

    Only the first group is looked at: every group of a file has every key.
    """
    with open_data(path, levels=levels) as file:
        first = next((item for item in file.values() if isinstance(item, h5py.Group)), ())
        keys = set(first)
    found = {}
    for level in levels:
        if has_level(keys, level):
            properties = Properties.EF if level.force_key in keys else Properties.E
            if properties.forces and level.stress_name in keys:
                properties = Properties.EFS
            found[level] = properties
    return found
