"""Reader of files in the layout of `ani1x-release.h5`.

Every group holds conformers of one formula: `atomic_numbers` (n_atoms,), `coordinates`
(n_conformers, n_atoms, 3) in Å, and labels per conformer, NaN where missing.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Literal, get_args

import h5py
import numpy as np
from tqdm import tqdm

from hippynn_mf.data.hdf5 import open_hdf5, read_array, refuse_infinite, require_dataset
from hippynn_mf.data.structures import Block, Structures, pad_blocks
from hippynn_mf.errors import UserError, unknown_name_message
from hippynn_mf.labels import Labels, Properties, join_labels
from hippynn_mf.levels import Level, known_levels

log = logging.getLogger(__name__)

Rows = Literal["common", "all"]


def read_ani1x(
    path: Path,
    labels: Labels,
    *,
    references: Labels | None = None,
    common_levels: Collection[Level] = (),
    rows: Rows = "all",
    drop_damaged: bool = False,
) -> tuple[Structures, np.ndarray]:
    """Read the labelled conformers of a file in one pass, group by group.

    Args:
        path: the HDF5 file.
        labels: the labels of the experiment.
        references: further labels to read for the same conformers, for evaluation.
        common_levels: levels that define the common conformers: those with all their energies.
        rows: `common` keeps the common conformers, `all` those with any label of the experiment.
        drop_damaged: leave out infinite labels, and conformers whose coordinates are not finite,
            instead of refusing the file; for looking at what is wrong with it.

    Returns:
        The kept conformers, and for every conformer of the file whether it is common, (n_file,).

    Raises:
        UserError: for a file, key, shape or value that cannot be right, naming it.
    """
    path = Path(path)
    if rows not in get_args(Rows):
        raise UserError(unknown_name_message("choice of rows", rows, get_args(Rows)))
    wanted = join_labels(labels, references or {})
    for level, properties in wanted.items():
        if properties.forces and level.force_key is None:
            raise UserError(
                f"Level {level.id} ({level.label}) has no forces in this layout; "
                "ask for its energies only."
            )
    blocks: list[Block] = []
    is_common: list[np.ndarray] = []
    with open_hdf5(path) as file:
        names = [name for name in file if isinstance(file[name], h5py.Group)]
        if not names:
            raise UserError(
                f"{path} has no groups; a file in the ANI-1x layout has one group per formula. "
                f"Found: {', '.join(file) or 'nothing'}."
            )
        for name in tqdm(names, desc=f"reading {path.name}", unit="group", delay=2, leave=False):
            kept_labels = None if rows == "common" else labels
            block, common = _read_group(
                file[name], path, wanted, common_levels, kept_labels, drop_damaged
            )
            blocks.append(block)
            is_common.append(common)
    structures = pad_blocks(blocks)
    common_in_file = np.concatenate(is_common)
    log.info("%s: %d of %d conformers kept", path, len(structures), len(common_in_file))
    return structures, common_in_file


def _read_group(
    group: h5py.Group,
    path: Path,
    wanted: Labels,
    common_levels: Collection[Level],
    kept_labels: Labels | None,
    drop_damaged: bool,
) -> tuple[Block, np.ndarray]:
    """Read one group; keep its common conformers, or those with any of `kept_labels`."""
    where = group.name.lstrip("/")
    numbers_shape = require_dataset(group, "atomic_numbers", path).shape
    numbers = read_array(group, "atomic_numbers", path, numbers_shape).astype(np.int64).reshape(-1)
    if (numbers < 1).any():
        raise UserError(
            f"{path}, group {where}: atomic_numbers {numbers.tolist()} must all be positive."
        )
    n_conformers = len(require_dataset(group, "coordinates", path))
    shape = (n_conformers, len(numbers), 3)

    energies: dict[str, np.ndarray] = {}
    forces: dict[str, np.ndarray] = {}
    if kept_labels is not None and not all(has_level(group, level) for level in common_levels):
        common_levels, common = (), np.zeros(n_conformers, bool)  # a level nobody asked for
    else:
        common = np.ones(n_conformers, bool)
    for level in dict.fromkeys([*wanted, *common_levels]):
        parts = [read_array(group, key, path, (n_conformers,)) for key in level.energy_keys]
        values = np.sum([part.astype(np.float64) for part in parts], axis=0)
        if not drop_damaged:
            refuse_infinite(values, f"the energies of {level.id}", path, where)
        energies[level.id] = np.where(np.isinf(values), np.nan, values)
    for level, properties in wanted.items():
        if properties.forces and level.force_key is not None:
            values = read_array(group, level.force_key, path, shape)
            if not drop_damaged:
                refuse_infinite(values, level.force_key, path, where)
            values = values.astype(np.float32, copy=False)
            has_hole = ~np.isfinite(values).all(axis=(1, 2))
            values[has_hole] = np.nan  # forces with a hole are no forces
            forces[level.id] = values

    for level in common_levels:
        common &= np.isfinite(energies[level.id])
    kept = common
    if kept_labels is not None:
        kept = np.zeros(n_conformers, bool)
        for level, properties in kept_labels.items():
            kept |= np.isfinite(energies[level.id])
            if properties.forces:
                kept |= np.isfinite(forces[level.id]).all(axis=(1, 2))

    positions = read_array(group, "coordinates", path, shape)
    damaged = kept & ~np.isfinite(positions).all(axis=(1, 2))
    if damaged.any() and not drop_damaged:
        raise UserError(
            f"{path}, group {where}: NaN or infinite coordinates in {int(damaged.sum())} "
            "conformers. Remove them."
        )
    kept = kept & ~damaged
    block = Block(
        name=where,
        numbers=numbers,
        kept=kept,
        positions=positions[kept],
        energies={level.id: energies[level.id][kept] for level in wanted},
        forces={level_id: values[kept] for level_id, values in forces.items()},
    )
    return block, common


def has_level(group: h5py.Group, level: Level) -> bool:
    """Whether a group has the keys of a level's energy."""
    return all(key in group for key in level.energy_keys)


def labels_in_file(path: Path) -> Labels:
    """The registered levels whose keys the file has, with forces where it has them.

    Only the first group is looked at: every group of a file has every key.
    """
    with open_hdf5(Path(path)) as file:
        groups = [item for item in file.values() if isinstance(item, h5py.Group)]
        keys = set(groups[0]) if groups else set()
    return {
        level: Properties.EF if level.force_key in keys else Properties.E
        for level in known_levels()
        if keys >= set(level.energy_keys)
    }
