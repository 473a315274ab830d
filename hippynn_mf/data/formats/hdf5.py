"""Opening HDF5 files and finding their keys, with errors that say what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from hippynn_mf.errors import UserError, unknown_name_message


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading; a missing, foreign or truncated file is a UserError."""
    if not path.exists():
        raise UserError(f"No file {path}. Check the path; relative paths start at {Path.cwd()}.")
    if path.is_dir():
        raise UserError(f"{path} is a folder; an HDF5 file was expected.")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        problem = "is truncated" if "truncated" in str(error) else "is not an HDF5 file"
        raise UserError(f"{path} {problem} ({error}). Copy or download it again.") from None
    with file:
        try:
            yield file
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error}). Copy it again.") from None


def require_dataset(group: h5py.Group, key: str, path: Path) -> h5py.Dataset:
    """The dataset `key` of a group; a missing one is a UserError with the nearest names."""
    dataset = group.get(key)
    if not isinstance(dataset, h5py.Dataset):
        message = unknown_name_message("key", key, sorted(group))
        raise UserError(f"{path}, group {group.name}: {message}")
    return dataset


def require_array(group: h5py.Group, key: str, path: Path, shape: tuple[int, ...]) -> h5py.Dataset:
    """The dataset `key` of a group, if it holds numbers in the expected shape."""
    return check_array(require_dataset(group, key, path), path, shape)


def check_array(dataset: h5py.Dataset, path: Path, shape: tuple[int, ...]) -> h5py.Dataset:
    """The dataset itself; a UserError if it does not hold numbers in the expected shape."""
    mistake = None
    if dataset.shape != shape:
        mistake = f"has shape {dataset.shape}, expected {shape}"
    elif dataset.dtype.kind not in "iuf":
        mistake = f"holds {dataset.dtype}, numbers were expected"
    if mistake:
        group, _, key = dataset.name.rpartition("/")
        raise UserError(f"{path}, group {group}: {key} {mistake}.")
    return dataset


def read_array(group: h5py.Group, key: str, path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """A numeric dataset of the expected shape, as a whole."""
    return np.asarray(require_array(group, key, path, shape)[()])


def refuse_infinite(values: np.ndarray, what: str, path: Path, group: str) -> None:
    """Raise UserError if there is an infinity: NaN means missing, an infinity means nothing."""
    bad = np.isinf(values)
    if bad.any():
        raise UserError(
            f"{path}, group {group}: {int(bad.sum())} infinite values in {what}. Mark missing "
            "labels as NaN and remove damaged conformers."
        )
