"""Opening HDF5 files and finding their keys, with errors that say what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from hippynn_mf.data.formats.hdf5_links import refuse_links
from hippynn_mf.errors import UserError, comes_from, one_line, unknown_name_message
from hippynn_mf.files import reading, require_file

SUFFIXES = (".h5", ".hdf5")
LARGEST_FLOAT32 = float(np.finfo(np.float32).max)
LARGEST_NUMBER = 118  # of an element


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading, once it is sure that nothing in it leads outside.

    Raises UserError for a file that is missing, foreign, truncated or damaged, and as
    `refuse_links` does.
    """
    require_file(path, "an HDF5 file")
    with reading(path), path.open("rb"):  # what h5py says of rights is hard to read
        pass
    try:
        file = h5py.File(path, "r")
    except (OSError, RuntimeError, ValueError) as error:
        problem = "is truncated" if "truncated" in str(error) else "is not an HDF5 file"
        raise UserError(
            f"{path} {problem} ({one_line(error)}). Copy or download it again."
        ) from None
    with file:
        try:
            refuse_links(file, path)
            yield file
        except UserError:
            raise
        except OSError as error:
            raise UserError(f"{path} cannot be read ({one_line(error)}). Copy it again.") from None
        except (RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
            if not comes_from(error, "h5py"):
                raise
            raise UserError(f"{path} is damaged ({one_line(error)}). Copy it again.") from None


def is_hdf5(path: Path) -> bool:
    """Whether the first bytes of a file are those of HDF5."""
    try:
        return bool(h5py.is_hdf5(path))
    except (OSError, ValueError):
        return False


def require_dataset(group: h5py.Group, key: str, path: Path) -> h5py.Dataset:
    """The dataset `key` of a group; a missing one is a UserError with the nearest names."""
    dataset = group.get(key) if key in group else None
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
    if dataset.shape is None:
        mistake = "has no values"
    elif dataset.shape != shape:
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


def refuse_beyond_float32(values: np.ndarray, what: str) -> None:
    """Raise UserError for numbers that float32 does not hold: they would become infinite."""
    is_narrow = values.dtype.kind == "f" and values.dtype.itemsize <= 4
    if is_narrow or not values.size or _is_small(values):
        return
    with np.errstate(invalid="ignore"):
        bad = np.isfinite(values) & (np.abs(values.astype(np.float64)) > LARGEST_FLOAT32)
    if bad.any():
        raise UserError(
            f"{what}: {int(bad.sum())} values are beyond what single precision holds "
            f"({values[bad].ravel()[0]:.3g}). Missing labels are NaN; remove damaged structures."
        )


def _is_small(values: np.ndarray) -> bool:
    """Whether all numbers are finite and fit; of few it is soon known."""
    return bool(values.min() >= -LARGEST_FLOAT32 and values.max() <= LARGEST_FLOAT32)


def check_numbers(numbers: np.ndarray, what: str) -> np.ndarray:
    """Atomic numbers as uint8; a UserError for none, and for no element: NaN, fractions, 0, 119."""
    if not len(numbers):
        raise UserError(f"{what}: there are no atoms. Remove these structures.")
    whole = np.isfinite(numbers) & (numbers == np.round(numbers))
    if not (whole & (numbers >= 1) & (numbers <= LARGEST_NUMBER)).all():
        raise UserError(
            f"{what} {numbers.tolist()} must all be positive, and at most {LARGEST_NUMBER}; "
            "integers were expected."
        )
    return numbers.astype(np.uint8)
