"""Memory that a training step frees stays with the process for the next step."""

from __future__ import annotations

import ctypes
import platform

# Parameters of glibc's mallopt, <malloc.h>.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_MMAP_THRESHOLD = 32 * 2**20  # that glibc accepts on 64 bits
NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc not to return freed memory to the system; returns whether it agreed.

    A step on the CPU frees and asks for the same megabytes again. By default glibc returns them, and
    the system clears every page anew: a quarter of a step of the paper's network. Another C library
    than glibc is left as it is.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    kept = library.mallopt(M_TRIM_THRESHOLD, NEVER)
    return bool(kept and library.mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD))
