"""Vectors of numbers that stay in the processor's registers: how they are loaded and stored.

Rows are those of arrays (n_rows, n_columns) of consecutive numbers; an array (n_columns,) is one.
`valid` marks the columns that there are: the others are zero when loaded, and are not stored. A
vector is one register; a wide one, of `valid_wide`, is two where registers are short.
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
INT32 = ir.IntType(32)


def intrinsic(function: Callable[..., Any]) -> Any:
    """numba's, whose own types do not say that the first argument is left out in calls."""
    return numba.extending.intrinsic(function)


def _bytes_per_register() -> int:
    """64 with AVX-512, otherwise 32; where registers are shorter still, two are taken for one."""
    return 64 if llvmlite.binding.get_host_cpu_features().get("avx512f") else 32


REGISTER = _bytes_per_register()
WIDE = 64


class Vector(types.Type):
    """Numbers of a type."""

    def __init__(self, dtype: Any, length: int) -> None:
        self.dtype, self.length = dtype, length
        super().__init__(name=f"Vector({dtype}, {length})")


def length_of(dtype: Any, n_bytes: int) -> int:
    """How many numbers of a type take so many bytes."""
    return int(n_bytes // (dtype.bitwidth // 8))


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


def splat(builder: Any, number: Any, length: int) -> Any:
    """A vector of one number."""
    undefined = ir.Constant(ir.VectorType(number.type, length), ir.Undefined)
    one = builder.insert_element(undefined, number, INT32(0))
    return builder.shuffle_vector(one, undefined, indices([0] * length))


def indices(places: list[int]) -> Any:
    """A constant vector of integers."""
    return ir.Constant(ir.VectorType(INT32, len(places)), places)


def address_of(context: Any, builder: Any, kind: Any, array: Any, row: Any, column: Any) -> Any:
    """Where a number of an array lies; one with a single axis has one row."""
    struct = context.make_array(kind)(context, builder, array)
    return cgutils.get_item_pointer(context, builder, kind, struct, [row, column][-kind.ndim :])


def _loaded(context: Any, builder: Any, address: Any, mask: Any, kind: Any) -> Any:
    """The valid numbers at an address, of one register or more."""
    nothing = ir.Constant(context.get_value_type(kind), None)
    if REGISTER == WIDE:  # with AVX-512, where a mask costs nothing
        return masked(builder, "load", address, mask, nothing, nothing.type)
    with _where_full(builder, mask) as (then, otherwise):
        with then:
            whole = _plain(builder, address, nothing.type)
            after_whole = builder.block
        with otherwise:
            part = masked(builder, "load", address, mask, nothing, nothing.type)
            after_part = builder.block
    found = builder.phi(nothing.type)
    found.add_incoming(whole, after_whole)
    found.add_incoming(part, after_part)
    return found


def put(builder: Any, address: Any, mask: Any, vector: Any) -> None:
    """Store the valid numbers at an address: plainly where all are, which is much faster."""
    if REGISTER == WIDE:
        masked(builder, "store", address, mask, vector, ir.VoidType())
        return
    with _where_full(builder, mask) as (then, otherwise):
        with then:
            pointer = builder.bitcast(address, vector.type.as_pointer())
            builder.store(vector, pointer, align=_size(vector.type.element))
        with otherwise:
            half = vector.type.count // 2
            if half < _length_of_register(vector.type.element):
                masked(builder, "store", address, mask, vector, ir.VoidType())
            else:
                for start in (0, half):
                    places = indices(list(range(start, start + half)))
                    put(
                        builder,
                        builder.gep(address, [INT32(start)]),
                        builder.shuffle_vector(mask, mask, places),
                        builder.shuffle_vector(vector, vector, places),
                    )


def _where_full(builder: Any, mask: Any) -> Any:
    """Two branches, of which the first is taken where all numbers count."""
    last = builder.extract_element(mask, INT32(mask.type.count - 1))
    return builder.if_else(last, likely=True)


def _plain(builder: Any, address: Any, kind: Any) -> Any:
    pointer = builder.bitcast(address, kind.as_pointer())
    return builder.load(pointer, align=_size(kind.element))


def _size(number: Any) -> int:
    """Bytes of a number, of which addresses are multiples."""
    return 4 if isinstance(number, ir.FloatType) else 8


def _length_of_register(number: Any) -> int:
    return REGISTER // _size(number)


def masked(builder: Any, name: str, address: Any, mask: Any, vector: Any, result: Any) -> Any:
    """LLVM's `masked.load` and `masked.store`, of what lies at an address of numbers."""
    kind = vector.type
    size = _size(kind.element)
    suffix = f"v{kind.count}f{8 * size}.p0"
    address = builder.bitcast(address, kind.as_pointer())
    arguments = [address, INT32(size), mask]
    arguments.insert(3 if name == "load" else 0, vector)
    function_type = ir.FunctionType(result, [each.type for each in arguments])
    function = cgutils.get_or_insert_function(
        builder.module, function_type, f"llvm.masked.{name}.{suffix}"
    )
    return builder.call(function, arguments)


def _valid(array: Any, n_bytes: int) -> Any:
    kind = Mask(length_of(array.dtype, n_bytes))

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        n = splat(builder, builder.trunc(arguments[1], INT32), kind.length)
        return builder.icmp_signed("<", indices(list(range(kind.length))), n)

    return kind(array, types.intp), code


@intrinsic
def valid(_: Any, array: Any, n: Any) -> Any:
    """The mask of the first n columns of a vector of the array's numbers."""
    return _valid(array, REGISTER)


@intrinsic
def valid_wide(_: Any, array: Any, n: Any) -> Any:
    """The mask of the first n columns of a wide vector."""
    return _valid(array, WIDE)


def _lanes(array: Any, n_bytes: int) -> Any:
    length = length_of(array.dtype, n_bytes)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_constant(types.intp, length)

    return types.intp(array), code


@intrinsic
def lanes(_: Any, array: Any) -> Any:
    """How many of the array's numbers a vector has."""
    return _lanes(array, REGISTER)


@intrinsic
def lanes_wide(_: Any, array: Any) -> Any:
    """How many of the array's numbers a wide vector has."""
    return _lanes(array, WIDE)


@intrinsic
def zero(_: Any, array: Any, mask: Any) -> Any:
    """A vector of zeros, as long as a mask."""
    kind = Vector(array.dtype, mask.length)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(context.get_value_type(kind), None)

    return kind(array, mask), code


@intrinsic
def load(_: Any, array: Any, row: Any, column: Any, mask: Any) -> Any:
    """The valid columns of a row, from one on."""
    kind = Vector(array.dtype, mask.length)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, row, column, mask = arguments
        address = address_of(context, builder, signature.args[0], array, row, column)
        return _loaded(context, builder, address, mask, kind)

    return kind(array, types.intp, types.intp, mask), code


@intrinsic
def store(_: Any, array: Any, row: Any, column: Any, mask: Any, vector: Any) -> Any:
    """Set the valid columns of a row, from one on."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, row, column, mask, vector = arguments
        address = address_of(context, builder, signature.args[0], array, row, column)
        put(builder, address, mask, vector)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, mask, vector), code
