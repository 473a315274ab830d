"""Exponentials, and softplus with its slope, of whole arrays, a register of numbers at a time.

numba's own functions take one number at a time. Those here agree with torch's to rounding.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types

from hippynn_mf.network.compiled.geometry import Array
from hippynn_mf.network.compiled.kernels import exact_kernel
from hippynn_mf.network.compiled.registers import intrinsic, lanes, load, store, valid
from hippynn_mf.network.compiled.vectors import FLAGS, same_everywhere

SOFTPLUS_THRESHOLD = 20.0  # torch's: beyond it softplus(u) is u, with a slope of 1


class Constants(NamedTuple):
    """Those of one precision.

    `exp` and `log` are coefficients of polynomials, the highest power first, for e^x with
    x between ∓½ ln 2, and for ln(1 + e) / 2z in z², z = e / (2 + e) ≤ ⅓. `rounding` added to a
    number leaves the nearest integer in its last bits; `ln2` is the logarithm of 2 in two parts;
    `least` is the least exponent. `bits`, `mantissa` and `bias` are those of the format.
    """

    exp: list[float]
    log: list[float]
    rounding: float
    ln2: tuple[float, float]
    least: float
    bits: int
    mantissa: int
    bias: int


def _constants(n_exp: int, n_log: int, *others: Any) -> Constants:
    exp = [1 / math.factorial(k) for k in reversed(range(n_exp))]
    return Constants(exp, [1 / (2 * k + 1) for k in reversed(range(n_log))], *others)


SINGLE = _constants(
    8, 8, 1.5 * 2.0**23, (0.693359375, -2.1219444005469057e-4), -60.0, 32, 23, 127
)  # fmt: skip
LN2 = float.fromhex("0x1.62e42fefa0000p-1"), float.fromhex("0x1.cf79abc9e3b3ap-40")
DOUBLE = _constants(14, 18, 1.5 * 2.0**52, LN2, -500.0, 64, 52, 1023)


def constants_of(number: Any) -> Constants:
    """The constants of a type of LLVM."""
    return SINGLE if isinstance(number, ir.FloatType) else DOUBLE


def _polynomial(builder: Any, x: Any, coefficients: list[float]) -> Any:
    result = same_everywhere(x.type, coefficients[0])
    for coefficient in coefficients[1:]:
        product = builder.fmul(result, x, FLAGS)
        result = builder.fadd(product, same_everywhere(x.type, coefficient), FLAGS)
    return result


def _exponential(builder: Any, x: Any) -> Any:
    """e^x of x ≤ 0; NaN stays NaN, and nothing is below e^least.

    Beside 1 what is left then is nothing, and denormal numbers would make arithmetic slow. Sums
    are not to be reordered here: rounding is what they are for.
    """
    of = constants_of(x.type.element)

    def constant(value: float) -> Any:
        return same_everywhere(x.type, value)

    x = builder.select(builder.fcmp_ordered("<", x, constant(of.least)), constant(of.least), x)
    rounding = constant(of.rounding)
    rounded = builder.fadd(builder.fmul(x, constant(1 / math.log(2))), rounding)
    integer, rest = builder.fsub(rounded, rounding), x
    for part in of.ln2:
        rest = builder.fsub(rest, builder.fmul(integer, constant(part), FLAGS), FLAGS)
    whole = ir.VectorType(ir.IntType(of.bits), x.type.count)
    exponent = builder.add(builder.bitcast(rounded, whole), same_everywhere(whole, of.bias))
    power = builder.shl(exponent, same_everywhere(whole, of.mantissa))
    return builder.fmul(_polynomial(builder, rest, of.exp), builder.bitcast(power, x.type))


@intrinsic
def exponential(_: Any, vector: Any) -> Any:
    """e^x of every number, none of which is above 0; not below e^least."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _exponential(builder, *arguments)

    return vector(vector), code


@intrinsic
def softplus_and_slope(_: Any, vector: Any) -> Any:
    """ln(1 + e^u) and 1 / (1 + e^−u) of every number."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (u,) = arguments
        zero, one_, two_ = (same_everywhere(u.type, value) for value in (0.0, 1.0, 2.0))
        is_positive = builder.fcmp_ordered(">", u, zero)
        e = _exponential(builder, builder.select(is_positive, builder.fneg(u), u))
        z = builder.fdiv(e, builder.fadd(two_, e))
        log = _polynomial(builder, builder.fmul(z, z), constants_of(u.type.element).log)
        value = builder.fmul(builder.fmul(two_, z), log, FLAGS)
        value = builder.fadd(builder.select(is_positive, u, zero), value, FLAGS)
        inverse = builder.fdiv(one_, builder.fadd(one_, e))
        slope = builder.select(is_positive, inverse, builder.fmul(e, inverse))
        straight = same_everywhere(u.type, SOFTPLUS_THRESHOLD)
        is_straight = builder.fcmp_ordered(">", u, straight)
        value = builder.select(is_straight, u, value)
        slope = builder.select(is_straight, one_, slope)
        return context.make_tuple(builder, signature.return_type, (value, slope))

    both: Any = types.UniTuple(vector, 2)  # type: ignore[no-untyped-call]
    return both(vector), code


@exact_kernel
def exponentials(x: Array, out: Array) -> None:
    """e^x of x ≤ 0, both flat; NaN stays NaN, and nothing is below e^least."""
    for k in range(0, len(x), lanes(x)):
        mask = valid(x, len(x) - k)
        store(out, 0, k, mask, exponential(load(x, 0, k, mask)))


@exact_kernel
def softplus(u: Array, value: Array, slope: Array) -> None:
    """ln(1 + e^u) and its slope, 1 / (1 + e^−u), all of one shape and consecutive."""
    u_, value_, slope_ = u.ravel(), value.ravel(), slope.ravel()
    for k in range(0, len(u_), lanes(u_)):
        mask = valid(u_, len(u_) - k)
        of_k, slope_of_k = softplus_and_slope(load(u_, 0, k, mask))
        store(value_, 0, k, mask, of_k)
        store(slope_, 0, k, mask, slope_of_k)
