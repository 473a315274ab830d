"""Arithmetic on vectors of numbers that stay in the processor's registers, for kernels.

numba's own loops leave it to the compiler which numbers are kept in registers, and what does not
fill its vectors is done one by one. Here both are said. NaN and infinity keep their meaning.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types

from hippynn_mf.network.compiled.registers import (
    INT32,
    REGISTER,
    Vector,
    address_of,
    cgutils,
    indices,
    intrinsic,
    length_of,
    masked,
    put,
    splat,
)

FLAGS = ("contract",)  # a product and a sum may be one operation


@intrinsic
def add_scaled(_: Any, sum_: Any, array: Any, row: Any, column: Any, vector: Any) -> Any:
    """Sum + array[row, column] · vector."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sum_, array, row, column, vector = arguments
        address = address_of(context, builder, signature.args[1], array, row, column)
        scale = splat(builder, builder.load(address), vector.type.count)
        return builder.fadd(sum_, builder.fmul(scale, vector, FLAGS), FLAGS)

    return sum_(sum_, array, types.intp, types.intp, vector), code


@intrinsic
def same(_: Any, array: Any, number: Any) -> Any:
    """A vector of one number."""
    kind = Vector(array.dtype, length_of(array.dtype, REGISTER))

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return splat(builder, arguments[1], kind.length)

    return kind(array, array.dtype), code


def _each(operation: Callable[..., Any]) -> Callable[..., Any]:
    """Code of `operation(builder, *vectors)`."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return operation(builder, *arguments)

    return code


@intrinsic
def add(_: Any, left: Any, right: Any) -> Any:
    """Left + right, number by number."""
    return left(left, right), _each(lambda of, x, y: of.fadd(x, y))


@intrinsic
def product(_: Any, left: Any, right: Any) -> Any:
    """Left · right, number by number."""
    return left(left, right), _each(lambda of, x, y: of.fmul(x, y, FLAGS))


@intrinsic
def ratio(_: Any, left: Any, right: Any) -> Any:
    """Left / right, number by number."""
    return left(left, right), _each(lambda of, x, y: of.fdiv(x, y))


@intrinsic
def add_product(_: Any, sum_: Any, left: Any, right: Any) -> Any:
    """Sum + left · right, number by number."""
    code = _each(lambda of, s, x, y: of.fadd(s, of.fmul(x, y, FLAGS), FLAGS))
    return sum_(sum_, left, right), code


@intrinsic
def subtract_product(_: Any, sum_: Any, left: Any, right: Any) -> Any:
    """Sum − left · right, number by number."""
    code = _each(lambda of, s, x, y: of.fsub(s, of.fmul(x, y, FLAGS), FLAGS))
    return sum_(sum_, left, right), code


@intrinsic
def root(_: Any, vector: Any) -> Any:
    """The square root of every number."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = arguments[0].type
        bits = 32 if isinstance(kind.element, ir.FloatType) else 64
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(kind, [kind]), f"llvm.sqrt.v{kind.count}f{bits}"
        )
        return builder.call(function, arguments)

    return vector(vector), code


@intrinsic
def put_sums(
    _: Any, array: Any, row: Any, column: Any, n: Any, is_added: Any, a: Any, b: Any, c: Any, d: Any
) -> Any:
    """Set the first n of four consecutive numbers, or add to them: the sums of four vectors."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, row, column, n, is_added, *vectors = arguments
        while len(vectors) > 1:
            vectors = [
                _halves(builder, left, right)
                for left, right in zip(vectors[::2], vectors[1::2], strict=True)
            ]
        (sums,) = vectors  # as many consecutive numbers are to be added for each of the four
        while sums.type.count > 4:
            length = sums.type.count
            undefined = ir.Constant(sums.type, ir.Undefined)
            even, odd = (
                builder.shuffle_vector(sums, undefined, indices(list(range(k, length, 2))))
                for k in range(2)
            )
            sums = builder.fadd(even, odd)
        mask = builder.icmp_signed(
            "<", indices([0, 1, 2, 3]), splat(builder, builder.trunc(n, INT32), 4)
        )
        address = address_of(context, builder, signature.args[0], array, row, column)
        nothing = ir.Constant(sums.type, None)
        is_kept = builder.and_(mask, splat(builder, is_added, 4))
        before = masked(builder, "load", address, is_kept, nothing, sums.type)
        put(builder, address, mask, builder.fadd(sums, before))
        return context.get_dummy_value()

    signature = types.void(array, types.intp, types.intp, types.intp, types.boolean, a, b, c, d)
    return signature, code


def _halves(builder: Any, left: Any, right: Any) -> Any:
    """Half as many numbers of each, left ones first: sums of neighbours."""
    length = left.type.count
    even, odd = (
        builder.shuffle_vector(left, right, indices(list(range(k, 2 * length, 2))))
        for k in range(2)
    )
    return builder.fadd(even, odd)
