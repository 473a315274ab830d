"""Moves and products of arrays whose derivatives are moves and products of the same kind.

torch's own derivatives of the two are slow in the way that the interaction needs them, twice: a
gather adds up row by row, and a product leaves results transposed in memory.
"""

from __future__ import annotations

from typing import Any, Literal

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


Form = Literal["AB", "ABt", "AtB"]


def product(left: Tensor, right: Tensor, form: Form = "AB") -> Tensor:
    """Batched product A B, A Bᵀ or Aᵀ B of A (n, i, j) and B (n, j, k), transposed as `form` says.

    torch differentiates products by transposing results, and what is transposed in memory is copied
    and added slowly later on. These three are closed under differentiation, each comes in order.
    """
    multiplied: Tensor = _Product.apply(left, right, form)  # type: ignore[no-untyped-call]
    return multiplied


class _Product(torch.autograd.Function):
    """The product of `product`."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, form: Form) -> Tensor:
        """Multiply."""
        ctx.save_for_backward(left, right)
        ctx.form = form
        return torch.bmm(
            left.transpose(1, 2) if form == "AtB" else left,
            right.transpose(1, 2) if form == "ABt" else right,
        )

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        """Gradients of both factors."""
        left, right = ctx.saved_tensors
        if ctx.form == "AB":
            return product(gradient, right, "ABt"), product(left, gradient, "AtB"), None
        if ctx.form == "ABt":
            return product(gradient, right), product(gradient, left, "AtB"), None
        return product(right, gradient, "ABt"), product(left, gradient), None
