"""Moves and products of arrays whose derivatives are moves and products of the same kind.

torch's own derivatives of the two are slow in the way that the interaction needs them, twice: a
gather adds up row by row, and a product leaves results transposed in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def rearrange(
    rows: Tensor,
    source: Tensor,
    target: Tensor,
    empty: Tensor | None,
    empty_source: Tensor | None,
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


class _Product(torch.autograd.Function):
    """Batched product A B.

    torch differentiates products by transposing results, and what is transposed in memory is copied
    and added slowly later on. The three products A B, A Bᵀ and Aᵀ B are closed under
    differentiation, and each result comes in order.
    """

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor) -> Tensor:
        """Multiply."""
        ctx.save_for_backward(left, right)
        return torch.bmm(left, right)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of both factors."""
        left, right = ctx.saved_tensors
        return product_with_transposed(gradient, right), product_of_transposed(left, gradient)


class _ProductWithTransposed(torch.autograd.Function):
    """Batched product A Bᵀ."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor) -> Tensor:
        """Multiply."""
        ctx.save_for_backward(left, right)
        return torch.bmm(left, right.transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of both factors."""
        left, right = ctx.saved_tensors
        return product(gradient, right), product_of_transposed(gradient, left)


class _ProductOfTransposed(torch.autograd.Function):
    """Batched product Aᵀ B."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor) -> Tensor:
        """Multiply."""
        ctx.save_for_backward(left, right)
        return torch.bmm(left.transpose(1, 2), right)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of both factors."""
        left, right = ctx.saved_tensors
        return product_with_transposed(right, gradient), product(left, gradient)


# `Function.apply` has no annotations: tensors in, a tensor out.
_TensorProduct = Callable[[Tensor, Tensor], Tensor]
product: _TensorProduct = _Product.apply
product_with_transposed: _TensorProduct = _ProductWithTransposed.apply
product_of_transposed: _TensorProduct = _ProductOfTransposed.apply
