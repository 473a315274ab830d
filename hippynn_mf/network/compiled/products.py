"""Matrix products inside kernels, by the BLAS that scipy comes with.

Its functions are registered under names of our own, so that compiled code finds them in every
process that imports this module, wherever they lie there.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding
import numpy as np
from numba import types
from numba.extending import get_cython_function_address, overload

from hippynn_mf.network.compiled.geometry import Array
from hippynn_mf.network.compiled.kernels import kernel

N_ARGUMENTS = 13  # all of them addresses
PREFIX = "hippynn_mf_"


def _function(name: str) -> Any:
    """The function of `scipy.linalg.cython_blas` with this name, for kernels."""
    address = get_cython_function_address("scipy.linalg.cython_blas", name)
    llvmlite.binding.add_symbol(PREFIX + name, address)
    return types.ExternalFunction(PREFIX + name, types.void(*[types.intp] * N_ARGUMENTS))


_SINGLE, _DOUBLE = _function("sgemm"), _function("dgemm")


def _blas(like: Array, *addresses: int) -> None:
    """`gemm` for numbers of the type of `like`; in kernels only."""
    raise NotImplementedError


@overload(_blas)
def _blas_in_kernels(
    like: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any, i: Any, j: Any,
    k: Any, m: Any, n: Any,
) -> Any:  # fmt: skip
    function = _SINGLE if like.dtype == types.float32 else _DOUBLE

    def call(
        like: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any, i: Any, j: Any,
        k: Any, m: Any, n: Any,
    ) -> None:  # fmt: skip
        function(a, b, c, d, e, f, g, h, i, j, k, m, n)

    return call


@kernel
def _gemm(
    is_left_turned: bool, is_right_turned: bool, n_inner: int, left: Array, right: Array,
    kept: float, out: Array,
) -> None:  # fmt: skip
    """Out = left right + kept out, of which either may be turned: kept by rows, unlike in BLAS."""
    sizes = np.empty(6, np.int32)
    sizes[0], sizes[1], sizes[2] = out.shape[1], out.shape[0], n_inner
    sizes[3], sizes[4] = max(1, right.shape[1]), max(1, left.shape[1])
    sizes[5] = max(1, out.shape[1])
    factors = np.empty(2, out.dtype)
    factors[0], factors[1] = 1, kept
    letters = np.empty(2, np.uint8)
    letters[0] = ord("T") if is_right_turned else ord("N")
    letters[1] = ord("T") if is_left_turned else ord("N")
    size, factor, letter = sizes.ctypes.data, factors.ctypes.data, letters.ctypes.data
    _blas(
        out, letter, letter + 1, size, size + 4, size + 8, factor, right.ctypes.data, size + 12,
        left.ctypes.data, size + 16, factor + out.itemsize, out.ctypes.data, size + 20,
    )  # fmt: skip


@kernel
def add_rows_by_columns(x: Array, weight: Array, out: Array) -> None:
    """Out (n, k) += x (n, m) weightᵀ, for weight (k, m)."""
    _gemm(False, True, x.shape[1], x, weight, 1.0, out)


@kernel
def rows_by_columns(x: Array, weight: Array, out: Array) -> None:
    """Out (n, k) = x (n, m) weightᵀ, for weight (k, m)."""
    _gemm(False, True, x.shape[1], x, weight, 0.0, out)


@kernel
def add_product(x: Array, weight: Array, out: Array) -> None:
    """Out (n, k) += x (n, m) weight, for weight (m, k)."""
    _gemm(False, False, x.shape[1], x, weight, 1.0, out)


@kernel
def product(x: Array, weight: Array, out: Array) -> None:
    """Out (n, k) = x (n, m) weight, for weight (m, k)."""
    _gemm(False, False, x.shape[1], x, weight, 0.0, out)


@kernel
def add_outer(left: Array, right: Array, out: Array) -> None:
    """Out (m, k) += leftᵀ right, for left (n, m) and right (n, k)."""
    _gemm(True, False, left.shape[0], left, right, 1.0, out)
