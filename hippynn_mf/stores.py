"""Where large arrays of atoms are kept: in memory, or in a file mapped into it."""

from __future__ import annotations

import ctypes
import logging
import mmap
import os
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import DTypeLike

from hippynn_mf.errors import UserError

log = logging.getLogger(__name__)

# Of the memory that is free: beyond it, atoms are kept in a file. The rest is for training, for
# predictions of whole splits, and for others.
SHARE_IN_MEMORY = 1 / 3
CGROUP = Path("/sys/fs/cgroup")


def free_memory() -> int:
    """Bytes that this process may still take, of the machine and of its control group.

    Batch systems and containers limit the latter.
    """
    free = int(psutil.virtual_memory().available)
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return free  # no Linux
    for line in lines:
        if line.startswith("0::"):
            group = CGROUP / line[3:].lstrip("/")
            for folder in (group, *group.parents):
                free = min(free, _left(folder))
    return free


def _left(folder: Path) -> int:
    """Bytes that a control group may still take; without a limit more than there are."""
    try:
        limit = int((folder / "memory.max").read_text())
        used = int((folder / "memory.current").read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return limit - used + int(stat["inactive_file"])  # which is a cache of files
    except (OSError, ValueError, KeyError):  # there is none, or it says max
        return 2**63


def is_too_large(n_bytes: int, what: object) -> bool:
    """Whether so many bytes of atoms are better kept in files, which the log then says."""
    free = free_memory()
    if n_bytes <= SHARE_IN_MEMORY * free:
        return False
    log.warning(
        "%s: positions and forces take %.1f GB, more than %.0f %% of the free memory (%.1f GB). "
        "They are kept in files without a name in %s, which end with the process; the variable "
        "TMPDIR names another folder",
        what,
        n_bytes / 1e9,
        100 * SHARE_IN_MEMORY,
        free / 1e9,
        tempfile.gettempdir(),
    )
    return True


def new_store(
    shape: tuple[int, ...],
    dtype: DTypeLike,
    like: np.ndarray | None = None,
    *,
    mapped: bool = False,
) -> np.ndarray:
    """An array of zeros, in memory or `mapped` from a file: as `like`, or as it is said.

    The file has no name, so nothing of it stays, however the process ends. Raises UserError where
    there is no room for it.
    """
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if not n_bytes or not (mapped if like is None else is_mapped(like)):
        return np.zeros(shape, dtype)
    try:
        with tempfile.TemporaryFile(prefix="hippynn-mf-") as file:
            file.truncate(n_bytes)
            if hasattr(os, "posix_fallocate"):  # else writing beyond the disk kills the process
                os.posix_fallocate(file.fileno(), 0, n_bytes)
            return np.asarray(np.memmap(file, dtype, "r+", shape=shape))
    except OSError as error:
        raise UserError(
            f"{tempfile.gettempdir()}: no file of {n_bytes / 1e9:.1f} GB can be written there for "
            f"positions and forces ({error.strerror}). Name a folder with more room in the "
            "variable TMPDIR."
        ) from None


def give_back() -> None:
    """Return what was freed to the system, where the C library keeps it for itself (glibc).

    It does so with arrays of up to 32 MB, which after reading a large file are hundreds of MB.
    """
    trim = getattr(_c_library(), "malloc_trim", None)
    if trim is not None:
        trim(0)


@lru_cache(maxsize=1)
def _c_library() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows has none of this name
        return None


def is_mapped(values: np.ndarray) -> bool:
    """Whether an array is kept in a file."""
    owner: Any = values
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return isinstance(owner, mmap.mmap)


def copy_of(values: np.ndarray) -> np.ndarray:
    """A copy, kept where the array is."""
    copy = new_store(values.shape, values.dtype, values)
    copy[...] = values
    return copy
