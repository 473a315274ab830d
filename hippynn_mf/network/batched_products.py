"""Moves and products of arrays whose derivatives are moves and products of the same kind.

torch's own derivatives of the two are slow in the way that the interaction needs them, twice: a
gather adds up row by row, and a product leaves results transposed in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor


def rearrange(
    rows: Tensor,
    source: Tensor,
    target: Tensor,
    empty: Tensor | None = None,
    empty_source: Tensor | None = None,
) -> Tensor:
    """Rows moved one to one between two arrays; the `empty` rows of the result are zero.

    Row k of the result is row `source[k]`; `target` and `empty_source` are those of the way back.
    """
    moved: Tensor = _Rearrange.apply(rows, source, target, empty, empty_source)  # type: ignore[no-untyped-call]
    return moved


class _Rearrange(torch.autograd.Function):
    """The move of `rearrange`.

    The derivative is the same move backwards, a gather again: torch's own derivative of a gather
    adds up row by row, because it cannot know that no row is taken twice.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        source: Tensor,
        target: Tensor,
        empty: Tensor | None,
        empty_source: Tensor | None,
    ) -> Tensor:
        """Move the rows."""
        ctx.save_for_backward(source, target, empty, empty_source)
        moved = rows.index_select(0, source)
        return moved if empty is None else moved.masked_fill_(empty, 0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Move the gradient back."""
        source, target, empty, empty_source = ctx.saved_tensors
        moved = rearrange(gradient, target, source, empty_source, empty)
        return moved, None, None, None, None


# Atoms in order, in runs with the same number of rows per atom: (n_atoms, width) of every run.
Runs = Sequence[tuple[int, int]]


def times(rows: Tensor, matrices: Tensor, runs: Runs, *, transposed: bool = False) -> Tensor:
    """Rows (n_rows, p) times the matrix (p, q) of their atom in `matrices` (n_atoms, p, q).

    With `transposed`, rows (n_rows, q) times its transpose.
    """
    multiplied: Tensor = _Times.apply(rows, matrices, runs, transposed)  # type: ignore[no-untyped-call]
    return multiplied


def outer(left: Tensor, right: Tensor, runs: Runs) -> Tensor:
    """Outer products of rows (n_rows, p) and (n_rows, q), summed by atom: (n_atoms, p, q)."""
    summed: Tensor = _Outer.apply(left, right, runs)  # type: ignore[no-untyped-call]
    return summed


class _Times(torch.autograd.Function):
    """The product of `times`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, matrices: Tensor, runs: Runs, transposed: bool) -> Tensor:
        """Multiply run by run."""
        ctx.save_for_backward(rows, matrices)
        ctx.runs, ctx.transposed = runs, transposed
        factors = matrices.transpose(1, 2) if transposed else matrices
        result = rows.new_empty(len(rows), factors.shape[2])
        for atoms, block in _blocks(runs):
            torch.bmm(block(rows), factors[atoms], out=block(result))
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Gradients of both factors."""
        rows, matrices = ctx.saved_tensors
        row_gradient = times(gradient, matrices, ctx.runs, transposed=not ctx.transposed)
        left, right = (gradient, rows) if ctx.transposed else (rows, gradient)
        return row_gradient, outer(left, right, ctx.runs), None, None


class _Outer(torch.autograd.Function):
    """The product of `outer`."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, runs: Runs) -> Tensor:
        """Multiply run by run."""
        ctx.save_for_backward(left, right)
        ctx.runs = runs
        n_atoms = sum(n for n, _ in runs)
        result = left.new_empty(n_atoms, left.shape[1], right.shape[1])
        for atoms, block in _blocks(runs):
            torch.bmm(block(left).transpose(1, 2), block(right), out=result[atoms])
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        """Gradients of both factors."""
        left, right = ctx.saved_tensors
        left_gradient = times(right, gradient, ctx.runs, transposed=True)
        return left_gradient, times(left, gradient, ctx.runs), None


def _blocks(runs: Runs) -> Iterator[tuple[slice, Any]]:
    """Of every run, the atoms, and a function that views rows as (n_atoms, width, k)."""
    first_atom = first_row = 0
    for n_atoms, width in runs:
        rows = slice(first_row, first_row + n_atoms * width)

        def block(
            array: Tensor, rows: slice = rows, n_atoms: int = n_atoms, width: int = width
        ) -> Tensor:
            return array[rows].view(n_atoms, width, array.shape[1])

        yield slice(first_atom, first_atom + n_atoms), block
        first_atom += n_atoms
        first_row += n_atoms * width
