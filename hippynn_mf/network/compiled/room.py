"""Room for large arrays that is used again in the next step, instead of being asked for anew.

The operating system gives a process fresh memory page by page, which costs about as much as the
arithmetic on it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SMALLEST, LARGEST = 2**14, 2**26  # bytes of an array worth keeping, and not too large to keep
MOST_KEPT = 2**28  # bytes, of all arrays that are kept while nothing uses them

_kept: dict[int, list[torch.UntypedStorage]] = {}


class Room:
    """Arrays that live as long as this object, and no longer."""

    def __init__(self) -> None:
        self._storages: list[torch.UntypedStorage] = []

    def empty(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """An array without defined values."""
        n_bytes = math.prod(shape) * dtype.itemsize
        if not SMALLEST <= n_bytes <= LARGEST:
            return torch.empty(shape, dtype=dtype)
        size = _rounded(n_bytes)
        same = _kept.get(size)
        storage = same.pop() if same else torch.UntypedStorage(size)  # type: ignore[no-untyped-call]
        self._storages.append(storage)
        n_elements = n_bytes // dtype.itemsize
        flat = torch.empty(0, dtype=dtype).set_(storage, 0, (n_elements,), (1,))
        return flat.view(shape)

    def empty_like(self, tensor: Tensor) -> Tensor:
        """An array of the same shape."""
        return self.empty(*tensor.shape, dtype=tensor.dtype)

    def __del__(self) -> None:
        """Keep what the arrays lay in."""
        total = sum(size * len(storages) for size, storages in _kept.items())
        for storage in self._storages:
            total += storage.nbytes()
            if total <= MOST_KEPT:
                _kept.setdefault(storage.nbytes(), []).append(storage)


def _rounded(n_bytes: int) -> int:
    """The next of four sizes between powers of two: batches differ a little in size."""
    step = 2 ** max(0, n_bytes.bit_length() - 3)
    return -(-n_bytes // step) * step
