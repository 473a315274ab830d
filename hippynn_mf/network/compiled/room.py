"""Room for large arrays that is used again in the next step, instead of being asked for anew.

The operating system gives a process fresh memory page by page, which costs about as much as the
arithmetic on it.
"""

from __future__ import annotations

import math
import threading

import numpy as np
import numpy.typing as npt

from hippynn_mf.network.compiled.geometry import Array

PIECE = 2**22  # bytes asked for at once, at least
ALIGNMENT = 64
MOST_KEPT = 2**28  # bytes, of all pieces that are kept while nothing uses them

_lock = threading.RLock()  # a collection of garbage may delete a room while one is made
_kept: list[npt.NDArray[np.uint8]] = []


class Room:
    """Arrays that live as long as this object, and no longer."""

    def __init__(self) -> None:
        self._pieces: list[npt.NDArray[np.uint8]] = []
        self._used = 0

    def empty(self, *shape: int, dtype: npt.DTypeLike) -> Array:
        """An array without defined values."""
        n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        if not self._pieces or self._used + n_bytes > len(self._pieces[-1]):
            self._pieces.append(_piece(n_bytes))
            self._used = 0
        start = self._used
        self._used += -(-n_bytes // ALIGNMENT) * ALIGNMENT
        found: Array = np.ndarray(shape, dtype, self._pieces[-1], start)
        return found

    def empty_like(self, array: Array) -> Array:
        """An array of the same shape."""
        return self.empty(*array.shape, dtype=array.dtype)

    def __del__(self) -> None:
        """Keep the pieces."""
        with _lock:
            total = sum(map(len, _kept))
            for piece in self._pieces:
                total += len(piece)
                if total <= MOST_KEPT:
                    _kept.append(piece)


def _piece(n_bytes: int) -> npt.NDArray[np.uint8]:
    """A piece that is large enough: the last one kept that is, or a new one."""
    with _lock:  # between threads
        for place in reversed(range(len(_kept))):
            if len(_kept[place]) >= n_bytes:
                return _kept.pop(place)
    step = 2 ** max(0, n_bytes.bit_length() - 3)  # batches differ a little in size
    return np.empty(max(PIECE, -(-n_bytes // step) * step), np.uint8)
