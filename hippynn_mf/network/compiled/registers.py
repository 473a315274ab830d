"""Vectors of numbers that stay in the processor's registers: how they are loaded and stored.

Rows are those of arrays (n_rows, n_columns) of consecutive numbers; an array (n_columns,) is one.
`valid` marks the columns of a register that there are: the others are zero when loaded, and are not
stored. `one` and `two` are as many registers, all of whose columns there are.
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
AVX512 = 64


class Vector(types.Type):
    """Numbers of a type, in one register or in several of this length."""

    def __init__(self, dtype: Any, length: int, parts: int = 1) -> None:
        self.dtype, self.length, self.parts = dtype, length, parts
        super().__init__(name=f"Vector({dtype}, {length}, {parts})")


def length_of(dtype: Any, n_bytes: int) -> int:
    """How many numbers of a type take so many bytes."""
    return int(n_bytes // (dtype.bitwidth // 8))


class Mask(types.Type):
    """Which numbers of a vector count."""

    def __init__(self, length: int) -> None:
        self.length = length
        super().__init__(name=f"Mask({length})")


class Whole(types.Type):
    """All numbers of some registers count."""

    def __init__(self, length: int, parts: int) -> None:
        self.length, self.parts = length, parts
        super().__init__(name=f"Whole({length}, {parts})")


register_model(Whole)(models.OpaqueModel)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        register = ir.VectorType(manager.lookup(kind.dtype).get_value_type(), kind.length)
        is_one = kind.parts == 1
        super().__init__(manager, kind, register if is_one else ir.ArrayType(register, kind.parts))


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


def parts_of(builder: Any, vector: Any) -> list[Any]:
    """The registers of a vector."""
    if isinstance(vector.type, ir.VectorType):
        return [vector]
    return [builder.extract_value(vector, k) for k in range(vector.type.count)]


def joined(builder: Any, parts: list[Any]) -> Any:
    """The vector of some registers."""
    if len(parts) == 1:
        return parts[0]
    vector: Any = ir.Constant(ir.ArrayType(parts[0].type, len(parts)), ir.Undefined)
    for k, part in enumerate(parts):
        vector = builder.insert_value(vector, part, k)
    return vector


def _loaded(context: Any, builder: Any, address: Any, mask: Any, kind: Any) -> Any:
    """The valid numbers at an address, of one register."""
    nothing = ir.Constant(context.get_value_type(kind), None)
    if REGISTER == AVX512:  # where a mask costs nothing
        return masked(builder, "load", address, mask, nothing, nothing.type)
    with _where_full(builder, mask) as (then, otherwise):
        with then:
            whole = plain(builder, address, nothing.type)
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
    if REGISTER == AVX512:
        masked(builder, "store", address, mask, vector, ir.VoidType())
        return
    with _where_full(builder, mask) as (then, otherwise):
        with then:
            put_all(builder, address, vector)
        with otherwise:
            masked(builder, "store", address, mask, vector, ir.VoidType())


def put_all(builder: Any, address: Any, vector: Any) -> None:
    """Store all numbers of a register at an address."""
    pointer = builder.bitcast(address, vector.type.as_pointer())
    builder.store(vector, pointer, align=_size(vector.type.element))


def _where_full(builder: Any, mask: Any) -> Any:
    """Two branches, of which the first is taken where all numbers count."""
    last = builder.extract_element(mask, INT32(mask.type.count - 1))
    return builder.if_else(last, likely=True)


def plain(builder: Any, address: Any, kind: Any) -> Any:
    """The numbers at an address, all of them."""
    pointer = builder.bitcast(address, kind.as_pointer())
    return builder.load(pointer, align=_size(kind.element))


def _size(number: Any) -> int:
    """Bytes of a number, of which addresses are multiples."""
    return 4 if isinstance(number, ir.FloatType) else 8


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


@intrinsic
def valid(_: Any, array: Any, n: Any) -> Any:
    """The mask of the first n columns of a register of the array's numbers."""
    kind = Mask(length_of(array.dtype, REGISTER))

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        n = splat(builder, builder.trunc(arguments[1], INT32), kind.length)
        return builder.icmp_signed("<", indices(list(range(kind.length))), n)

    return kind(array, types.intp), code


def _whole(parts: int) -> Any:
    @intrinsic
    def whole(_: Any, array: Any) -> Any:
        """So many registers of the array's numbers."""

        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return context.get_dummy_value()

        return Whole(length_of(array.dtype, REGISTER), parts)(array), code

    return whole


one, two = _whole(1), _whole(2)


@intrinsic
def lanes(_: Any, array: Any) -> Any:
    """How many of the array's numbers a register has."""
    length = length_of(array.dtype, REGISTER)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_constant(types.intp, length)

    return types.intp(array), code


def _vector_of(array: Any, which: Any) -> Vector:
    return Vector(array.dtype, which.length, which.parts if isinstance(which, Whole) else 1)


@intrinsic
def zero(_: Any, array: Any, which: Any) -> Any:
    """A vector of zeros, for a mask or so many registers."""
    kind = _vector_of(array, which)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(context.get_value_type(kind), None)

    return kind(array, which), code


@intrinsic
def load(_: Any, array: Any, row: Any, column: Any, which: Any) -> Any:
    """The columns of a row, from one on: those that a mask says, or so many registers."""
    kind = _vector_of(array, which)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, row, column, mask = arguments
        address = address_of(context, builder, signature.args[0], array, row, column)
        if isinstance(which, Mask):
            return _loaded(context, builder, address, mask, kind)
        register = ir.VectorType(address.type.pointee, kind.length)
        starts = [INT32(part * kind.length) for part in range(kind.parts)]
        places = [builder.gep(address, [start]) for start in starts]
        return joined(builder, [plain(builder, place, register) for place in places])

    return kind(array, types.intp, types.intp, which), code


@intrinsic
def store(_: Any, array: Any, row: Any, column: Any, which: Any, vector: Any) -> Any:
    """Set the columns of a row, as `load` has them."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, row, column, mask, vector = arguments
        address = address_of(context, builder, signature.args[0], array, row, column)
        if isinstance(which, Mask):
            put(builder, address, mask, vector)
        else:
            for k, part in enumerate(parts_of(builder, vector)):
                put_all(builder, builder.gep(address, [INT32(k * part.type.count)]), part)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, which, vector), code
