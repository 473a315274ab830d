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
    joined,
    length_of,
    masked,
    parts_of,
    plain,
    put_all,
    splat,
)

FLAGS = ("contract",)  # a product and a sum may be one operation


@intrinsic
def add_scaled(_: Any, sum_: Any, array: Any, row: Any, column: Any, vector: Any) -> Any:
    """Sum + array[row, column] · vector."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sum_, array, row, column, vector = arguments
        address = address_of(context, builder, signature.args[1], array, row, column)
        vectors = parts_of(builder, vector)
        scale = splat(builder, builder.load(address), vectors[0].type.count)
        sums = [
            builder.fadd(part, builder.fmul(scale, each, FLAGS), FLAGS)
            for part, each in zip(parts_of(builder, sum_), vectors, strict=True)
        ]
        return joined(builder, sums)

    return sum_(sum_, array, types.intp, types.intp, vector), code


def same_everywhere(kind: Any, number: float) -> Any:
    """A constant vector of one number."""
    return ir.Constant(kind, [number] * kind.count)


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
        sums = _sums_of_four(builder, vectors)
        address = address_of(context, builder, signature.args[0], array, row, column)
        nothing = ir.Constant(sums.type, None)
        n = builder.trunc(n, INT32)
        with builder.if_else(builder.icmp_signed(">=", n, INT32(4)), likely=True) as (all_, some):
            with all_:
                before = builder.select(is_added, plain(builder, address, sums.type), nothing)
                put_all(builder, address, builder.fadd(sums, before))
            with some:
                mask = builder.icmp_signed("<", indices([0, 1, 2, 3]), splat(builder, n, 4))
                is_kept = builder.and_(mask, splat(builder, is_added, 4))
                before = masked(builder, "load", address, is_kept, nothing, sums.type)
                found = builder.fadd(sums, before)
                masked(builder, "store", address, mask, found, ir.VoidType())
        return context.get_dummy_value()

    signature = types.void(array, types.intp, types.intp, types.intp, types.boolean, a, b, c, d)
    return signature, code


def _sums_of_four(builder: Any, vectors: list[Any]) -> Any:
    """The sums of the numbers of each of four vectors, in one of four numbers.

    Numbers stay in their 16 bytes of a register as long as they can: to leave them takes longer.
    """
    together = 4 if isinstance(vectors[0].type.element, ir.FloatType) else 2
    while len(vectors) > 4 // together:
        vectors = [
            _sums_of_neighbours(builder, left, right, together)
            for left, right in zip(vectors[::2], vectors[1::2], strict=True)
        ]
    sums = []
    for vector in vectors:
        while vector.type.count > together:
            half = vector.type.count // 2
            low, high = (
                builder.shuffle_vector(vector, vector, indices(list(range(k, k + half))))
                for k in (0, half)
            )
            vector = builder.fadd(low, high)
        sums.append(vector)
    return builder.shuffle_vector(sums[0], sums[-1], indices([0, 1, 2, 3]))


def _sums_of_neighbours(builder: Any, left: Any, right: Any, together: int) -> Any:
    """Half as many numbers of each; those of the left come first in every `together` of them."""
    length = left.type.count
    first = [
        side + group + k
        for group in range(0, length, together)
        for side in (0, length)
        for k in range(0, together, 2)
    ]
    even, odd = (
        builder.shuffle_vector(left, right, indices([place + k for place in first]))
        for k in range(2)
    )
    return builder.fadd(even, odd)
