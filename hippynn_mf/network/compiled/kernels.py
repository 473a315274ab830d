"""How the loops over pairs are compiled, and where they cannot be.

Compiled code is kept beside the modules, or in numba's folder of the user, for later processes.
numba takes it as long as the file of a function is what it was; kernels call those of other files,
so here it is taken as long as all files of the folder are.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

# Sums may be taken in another order. NaN and infinity keep their meaning: `nnan` and `ninf`, which
# a plain fastmath=True has, would let the compiler assume that there are none.
FAST_MATH = {"reassoc", "contract", "nsz", "arcp"}

_dispatchers: list[Any] = []
_not_cached: list[str] = []


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function at its first call, once for every type of number."""
    return _compiled(function, FAST_MATH)


def exact_kernel(function: Callable[..., Any]) -> Any:
    """As `kernel`, for functions whose sums stay in their order."""
    return _compiled(function, FAST_MATH - {"reassoc"})


def inner_kernel(function: Callable[..., Any]) -> Any:
    """As `kernel`, for what is called so often and does so little that a call would cost much."""
    return _compiled(function, FAST_MATH, is_inner=True)


def _compiled(function: Callable[..., Any], fast_math: set[str], is_inner: bool = False) -> Any:
    compile_: Any = numba.njit(
        cache=True, nogil=True, error_model="numpy", fastmath=fast_math, forceinline=is_inner
    )
    try:
        dispatcher = compile_(function)
    except RuntimeError as error:  # numba found no folder that it may write to
        _not_cached.append(str(error))
        return function
    if hasattr(dispatcher, "stats"):  # not with NUMBA_DISABLE_JIT
        cached = dispatcher._cache._cache_file
        folder = Path(function.__code__.co_filename).parent
        cached._source_stamp = (cached._source_stamp, _hash_of_sources(folder))
        cached._load_index = functools.partial(_index_of, cached._load_index)
        _dispatchers.append(dispatcher)
    return dispatcher


def _index_of(load: Callable[[], dict[Any, Any]]) -> dict[Any, Any]:
    """What is kept of a function; nothing where an earlier version has kept types that are gone."""
    try:
        return load()
    except (AttributeError, ImportError):  # before numba has compared the files
        return {}


@functools.cache
def _hash_of_sources(folder: Path) -> str:
    """Of all modules in a folder, in the order of their names."""
    found = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()


def compilations() -> int:
    """How many functions this process has compiled instead of taking them from the cache."""
    return sum(sum(each.stats.cache_misses.values()) for each in _dispatchers)


def why_unavailable() -> str | None:
    """Why kernels cannot be compiled or kept here; None where they can."""
    settings: Any = numba.config
    if settings.DISABLE_JIT:
        return "NUMBA_DISABLE_JIT is set"
    return _not_cached[0] if _not_cached else None
