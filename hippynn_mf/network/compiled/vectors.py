"""Vectors of numbers that stay in the processor's registers, for kernels.

numba's own loops leave it to the compiler which numbers are kept in registers, and what does not
fill its vectors is done one by one. Here both are said. NaN and infinity keep their meaning.

Rows are those of arrays (n_rows, n_columns) of consecutive numbers; an array (n_columns,) is one.
`valid` marks the columns that there are: the others are zero when loaded, and are not stored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding
import numba.core.cgutils
import numba.extending
from llvmlite import ir
from numba import types
from numba.extending import register_model

cgutils: Any = numba.core.cgutils  # without types
models: Any = numba.extending.models
FLAGS = ("contract",)  # a product and a sum may be one operation
INT32 = ir.IntType(32)


def intrinsic(function: Callable[..., Any]) -> Any:
    """numba's, whose own types do not say that the first argument is left out in calls."""
    return numba.extending.intrinsic(function)


def _bytes_per_vector() -> int:
    """One register of processors with AVX-512, otherwise one or two."""
    return 64 if llvmlite.binding.get_host_cpu_features().get("avx512f") else 32


BYTES = _bytes_per_vector()


class Vector(types.Type):
    """As many numbers of a type as `BYTES` are."""

    def __init__(self, dtype: Any) -> None:
        self.dtype, self.length = dtype, BYTES // (dtype.bitwidth // 8)
        super().__init__(name=f"Vector({dtype}, {self.length})")


class Mask(types.Type):
    """Which numbers of a vector count."""

    def __init__(self, length: int) -> None:
        self.length = length
        super().__init__(name=f"Mask({length})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        number = manager.lookup(kind.dtype).get_value_type()
        super().__init__(manager, kind, ir.VectorType(number, kind.length))


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Mask) -> None:
        super().__init__(manager, kind, ir.VectorType(ir.IntType(1), kind.length))


def _splat(builder: Any, number: Any, length: int) -> Any:
    """A vector of one number."""
    undefined = ir.Constant(ir.VectorType(number.type, length), ir.Undefined)
    one = builder.insert_element(undefined, number, INT32(0))
    return builder.shuffle_vector(one, undefined, _indices([0] * length))


def _indices(places: list[int]) -> Any:
    return ir.Constant(ir.VectorType(INT32, len(places)), places)


def _address(context: Any, builder: Any, kind: Any, array: Any, row: Any, column: Any) -> Any:
    struct = context.make_array(kind)(context, builder, array)
    return cgutils.get_item_pointer(context, builder, kind, struct, [row, column][-kind.ndim :])


def _masked(builder: Any, name: str, address: Any, mask: Any, vector: Any, result: Any) -> Any:
    """LLVM's `masked.load` and `masked.store`, of what lies at an address of numbers."""
    kind = vector.type
    bits = kind.element
    suffix = f"v{kind.count}f{32 if isinstance(bits, ir.FloatType) else 64}.p0"
    size = INT32(4 if isinstance(bits, ir.FloatType) else 8)  # what addresses are multiples of
    address = builder.bitcast(address, kind.as_pointer())
    arguments = [address, size, mask]
    arguments.insert(3 if name == "load" else 0, vector)
    function_type = ir.FunctionType(result, [each.type for each in arguments])
    function = cgutils.get_or_insert_function(
        builder.module, function_type, f"llvm.masked.{name}.{suffix}"
    )
    return builder.call(function, arguments)


@intrinsic
def valid(_: Any, array: Any, n: Any) -> Any:
    """The mask of the first n columns of a vector of the array's numbers."""
    kind = Mask(Vector(array.dtype).length)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        n = _splat(builder, builder.trunc(arguments[1], INT32), kind.length)
        return builder.icmp_signed("<", _indices(list(range(kind.length))), n)

    return kind(array, types.intp), code


@intrinsic
def lanes(_: Any, array: Any) -> Any:
    """How many of the array's numbers a vector has."""
    length = Vector(array.dtype).length

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_constant(types.intp, length)

    return types.intp(array), code


@intrinsic
def zero(_: Any, array: Any) -> Any:
    """A vector of zeros."""
    kind = Vector(array.dtype)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(context.get_value_type(kind), None)

    return kind(array), code


@intrinsic
def load(_: Any, array: Any, row: Any, column: Any, mask: Any) -> Any:
    """The valid columns of a row, from one on."""
    kind = Vector(array.dtype)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, row, column, mask = arguments
        address = _address(context, builder, signature.args[0], array, row, column)
        nothing = ir.Constant(context.get_value_type(kind), None)
        return _masked(builder, "load", address, mask, nothing, nothing.type)

    return kind(array, types.intp, types.intp, mask), code


@intrinsic
def store(_: Any, array: Any, row: Any, column: Any, mask: Any, vector: Any) -> Any:
    """Set the valid columns of a row, from one on."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, row, column, mask, vector = arguments
        address = _address(context, builder, signature.args[0], array, row, column)
        _masked(builder, "store", address, mask, vector, ir.VoidType())
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, mask, vector), code


@intrinsic
def add_scaled(_: Any, sum_: Any, array: Any, row: Any, column: Any, vector: Any) -> Any:
    """Sum + array[row, column] · vector."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sum_, array, row, column, vector = arguments
        address = _address(context, builder, signature.args[1], array, row, column)
        scale = _splat(builder, builder.load(address), vector.type.count)
        return builder.fadd(sum_, builder.fmul(scale, vector, FLAGS), FLAGS)

    return sum_(sum_, array, types.intp, types.intp, vector), code


@intrinsic
def same(_: Any, array: Any, number: Any) -> Any:
    """A vector of one number."""
    kind = Vector(array.dtype)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _splat(builder, arguments[1], kind.length)

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
                builder.shuffle_vector(sums, undefined, _indices(list(range(k, length, 2))))
                for k in range(2)
            )
            sums = builder.fadd(even, odd)
        mask = builder.icmp_signed(
            "<", _indices([0, 1, 2, 3]), _splat(builder, builder.trunc(n, INT32), 4)
        )
        address = _address(context, builder, signature.args[0], array, row, column)
        nothing = ir.Constant(sums.type, None)
        is_kept = builder.and_(mask, _splat(builder, is_added, 4))
        before = _masked(builder, "load", address, is_kept, nothing, sums.type)
        _masked(builder, "store", address, mask, builder.fadd(sums, before), ir.VoidType())
        return context.get_dummy_value()

    signature = types.void(array, types.intp, types.intp, types.intp, types.boolean, a, b, c, d)
    return signature, code


def _halves(builder: Any, left: Any, right: Any) -> Any:
    """Half as many numbers of each, left ones first: sums of neighbours."""
    length = left.type.count
    even, odd = (
        builder.shuffle_vector(left, right, _indices(list(range(k, 2 * length, 2))))
        for k in range(2)
    )
    return builder.fadd(even, odd)
