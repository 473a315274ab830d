"""What was read and checked, for runs after each other in one process that read the same.

A run reads its data to be checked before anything starts, and to be trained on; its test sets once
more to be evaluated; and so do the next runs of a campaign. Small data are kept; those of millions
of conformers would take the memory that training needs, and reading them is little beside that.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from hippynn_mf.data.formats.deepmd import files_of, is_deepmd
from hippynn_mf.data.formats.sources import DataPath, split_source

MOST_BYTES = 2**26  # of all that is kept

Value = TypeVar("Value")


class Kept:
    """The latest values that were made, as long as they are small together."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.most_bytes = most_bytes
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """A copy of the value of a key, which is made if it is not kept."""
        if key in self._values:
            self._values.move_to_end(key)
            value: Value = self._values[key][0]
            return copy.deepcopy(value)
        value = make()
        size = n_bytes(value)
        if size <= self.most_bytes:
            self._values[key] = copy.deepcopy(value), size
            while sum(size for _, size in self._values.values()) > self.most_bytes:
                self._values.popitem(last=False)
        return value


def n_bytes(value: Any) -> int:
    """Bytes of all arrays in a value of mappings, sequences and objects with attributes."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, str | bytes | int | float | Path) or value is None:
        return 0
    if isinstance(value, Mapping):
        return sum(map(n_bytes, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(n_bytes, value))
    return n_bytes(getattr(value, "__dict__", None))


def stamps(sources: Iterable[DataPath]) -> tuple[tuple[str, int, int], ...]:
    """Size and time of every file, by which a change is noticed."""
    paths: list[Path] = []
    for source in sources:
        files, _ = split_source(source)
        for path in files.values() if isinstance(files, Mapping) else [files]:
            members = sorted(path.iterdir()) if path.is_dir() else [path]
            paths += files_of(path) if is_deepmd(path) else members
    found = []
    for path in paths:
        if path.exists():  # who reads it says it better
            state = path.stat()
            found.append((str(path), state.st_size, state.st_mtime_ns))
    return tuple(found)
