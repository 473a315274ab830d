"""Exponentials, and softplus with its slope, of whole arrays at the speed of vector arithmetic.

numba's own functions take one number at a time. Those here agree with torch's to rounding.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hippynn_mf.network.compiled.geometry import Array
from hippynn_mf.network.compiled.kernels import exact_kernel, kernel

AT_ONCE = 128  # numbers that stay in the fastest cache, with all that is made of them
SOFTPLUS_THRESHOLD = 20.0  # torch's: beyond it softplus(u) is u, with a slope of 1


class Tables(NamedTuple):
    """Constants of one precision.

    `exp` and `log` are coefficients of polynomials, the highest power first, for e^x with
    x between ∓½ ln 2, and for ln(1 + e) / 2z in z², z = e / (2 + e) ≤ ⅓. `rounding` added to a
    number leaves the nearest integer in its last bits; `ln2` is the logarithm of 2 in two parts;
    `least` is the least exponent. `bits` is an integer of as many bits; `mantissa` and `bias` are
    those of the format.
    """

    exp: Array
    log: Array
    rounding: Array
    ln2: Array
    least: Array
    bits: npt.NDArray[np.signedinteger]
    mantissa: int
    bias: int


def tables(dtype: npt.DTypeLike) -> Tables:
    """The constants for float32 or float64."""
    is_single = np.dtype(dtype) == np.float32
    n_exp, n_log = (8, 8) if is_single else (14, 18)
    mantissa, bias = (23, 127) if is_single else (52, 1023)
    exp = [1 / math.factorial(k) for k in reversed(range(n_exp))]
    log = [1 / (2 * k + 1) for k in reversed(range(n_log))]
    high = 0.693359375 if is_single else float.fromhex("0x1.62e42fefa0000p-1")
    low = -2.1219444005469057e-4 if is_single else float.fromhex("0x1.cf79abc9e3b3ap-40")
    return Tables(
        np.array(exp, dtype),
        np.array(log, dtype),
        np.array([1.5 * 2.0**mantissa], dtype),
        np.array([1 / math.log(2), high, low], dtype),
        np.array([-60.0 if is_single else -500.0], dtype),
        np.zeros(1, np.int32 if is_single else np.int64),
        mantissa,
        bias,
    )


@exact_kernel
def exponentials(x: Array, out: Array, of: Tables) -> None:
    """e^x of x ≤ 0, both flat; NaN stays NaN, and nothing is below e^least.

    Beside 1 what is left then is nothing, and denormal numbers would make arithmetic slow.
    """
    # Not to be reordered: rounding is what the sums and differences here are for.
    rest = np.empty(AT_ONCE, x.dtype)
    rounding, least = of.rounding[0], of.least[0]
    per_ln2, high, low = of.ln2[0], of.ln2[1], of.ln2[2]
    exp = of.exp
    bits = np.empty(AT_ONCE, of.bits.dtype)
    powers = bits.view(x.dtype)
    for start in range(0, len(x), AT_ONCE):
        n = min(AT_ONCE, len(x) - start)
        values, results = x[start : start + n], out[start : start + n]
        for k in range(n):
            value = values[k]
            value = least if value < least else value
            rounded = value * per_ln2 + rounding
            powers[k] = rounded
            integer = rounded - rounding
            rest[k] = value - integer * high - integer * low
            results[k] = exp[0]
        for power in range(1, len(exp)):
            c = exp[power]
            for k in range(n):
                results[k] = results[k] * rest[k] + c
        for k in range(n):
            bits[k] = (bits[k] + of.bias) << of.mantissa
        for k in range(n):
            results[k] *= powers[k]


@kernel
def softplus(u: Array, value: Array, slope: Array, of: Tables) -> None:
    """ln(1 + e^u) and its slope, 1 / (1 + e^−u), all of one shape and consecutive."""
    u_, value_, slope_ = u.ravel(), value.ravel(), slope.ravel()
    one, two, zero = u.dtype.type(1), u.dtype.type(2), u.dtype.type(0)
    threshold = u.dtype.type(SOFTPLUS_THRESHOLD)
    for k in range(len(u_)):
        value_[k] = -abs(u_[k])
    exponentials(value_, slope_, of)
    z, square = np.empty(AT_ONCE, u.dtype), np.empty(AT_ONCE, u.dtype)
    log = of.log
    for start in range(0, len(u_), AT_ONCE):
        n = min(AT_ONCE, len(u_) - start)
        us, values, slopes = (
            u_[start : start + n],
            value_[start : start + n],
            slope_[start : start + n],
        )
        for k in range(n):
            e = slopes[k]
            z[k] = e / (two + e)
            square[k] = z[k] * z[k]
            values[k] = log[0]
        for power in range(1, len(log)):
            c = log[power]
            for k in range(n):
                values[k] = values[k] * square[k] + c
        for k in range(n):
            v, e = us[k], slopes[k]
            inverse = one / (one + e)
            found = (v if v > zero else zero) + two * z[k] * values[k]
            is_straight = v > threshold
            values[k] = v if is_straight else found
            slopes[k] = one if is_straight else (inverse if v >= zero else e * inverse)
