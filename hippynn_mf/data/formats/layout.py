"""The groups of an open file in the ANI-1x layout, and the energies of a level in them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import h5py
import numpy as np

from hippynn_mf.data.formats.groups import Group
from hippynn_mf.data.formats.hdf5 import check_array, check_numbers, read_array, require_dataset
from hippynn_mf.errors import UserError
from hippynn_mf.levels import Level


def list_groups(file: h5py.File, path: Path) -> list[Group]:
    """The groups of a file with their atoms and numbers of conformers.

    Raises UserError for a file without groups, and for atoms or coordinates that cannot be right.
    """
    members = [item for item in file.values() if isinstance(item, h5py.Group)]
    if not members:
        raise UserError(
            f"{path} has no groups; a file in the ANI-1x layout has one group per formula. "
            f"Found: {', '.join(file) or 'nothing'}."
        )
    groups: list[Group] = []
    start = 0
    for member in members:
        name = member.name.lstrip("/")
        dataset = require_dataset(member, "atomic_numbers", path)
        numbers = np.ravel(check_array(dataset, path, dataset.shape)[()])
        numbers = check_numbers(numbers, f"{path}, group {name}: atomic_numbers")
        coordinates = require_dataset(member, "coordinates", path)
        size = coordinates.shape[0] if coordinates.shape else 0
        groups.append(Group(name, member, numbers, start, size))
        check_array(coordinates, path, groups[-1].shape)
        start += size
    return groups


def has_level(keys: Collection[str], level: Level) -> bool:
    """Whether a group with these keys has the energies of a level."""
    return level.energy_name in keys or all(key in keys for key in level.energy_keys)


def energy_datasets(keys: Collection[str], level: Level) -> tuple[tuple[str, ...], ...]:
    """Where a group with these keys has the energy of a level: the sums that are tried in turn.

    A level that is a sum of several keys, as MP2, may also be there as a whole: `mp2_tz.energy`.
    """
    whole = (level.energy_name,)
    if whole == level.energy_keys or level.energy_name not in keys:
        return (level.energy_keys,)
    has_parts = all(key in keys for key in level.energy_keys)
    return (whole, level.energy_keys) if has_parts else (whole,)


def read_energies(group: Group, level: Level, path: Path) -> np.ndarray:
    """Energies of a level (n,) float64 in hartree, NaN where missing.

    Raises UserError if the group lacks their keys, or one has no numbers in the right shape.
    """
    energies = np.full(group.size, np.nan)
    for names in energy_datasets(group.member, level):
        parts = [read_array(group.member, name, path, (group.size,)) for name in names]
        values = np.sum([part.astype(np.float64) for part in parts], axis=0)
        energies = np.where(np.isnan(energies), values, energies)
    return energies
