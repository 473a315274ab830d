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
MOST_KEPT = 2**28  # bytes, of all pieces that are kept while nothing uses them, but for the last

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
        """Keep the pieces, and of others as many of the last ones as there is a place for.

        The last is kept however large it is: the next step of dynamics needs as much.
        """
        with _lock:
            _kept.extend(self._pieces)
            total = sum(map(len, _kept))
            while len(_kept) > 1 and total > MOST_KEPT:
                total -= len(_kept.pop(0))


def give_back() -> None:
    """Give the operating system all pieces that nothing uses."""
    with _lock:
        _kept.clear()


def _piece(n_bytes: int) -> npt.NDArray[np.uint8]:
    """A piece that is large enough: the last one kept that is, or a new one."""
    with _lock:  # between threads
        for place in reversed(range(len(_kept))):
            if len(_kept[place]) >= n_bytes:
                return _kept.pop(place)
    step = 2 ** max(0, n_bytes.bit_length() - 3)  # batches differ a little in size
    return np.empty(max(PIECE, -(-n_bytes // step) * step), np.uint8)
