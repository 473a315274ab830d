"""Compiling the kernels when they are first needed, and saying so."""

from __future__ import annotations

import functools
import logging
import time

import numpy as np
import torch

from hippynn_mf.network.compiled.adjoint import Gradients, Injection, by_vectors, run_adjoint
from hippynn_mf.network.compiled.blocks import Block, Interaction, Linear
from hippynn_mf.network.compiled.forward import Geometry, run_forward
from hippynn_mf.network.compiled.kernels import compilations, why_unavailable
from hippynn_mf.network.compiled.ordering import PairOrder
from hippynn_mf.network.compiled.tangent import run_tangent

logger = logging.getLogger(__name__)


@functools.cache
def why_not_compiled(dtype: torch.dtype) -> str | None:
    """Why the compiled interaction cannot be used in this process; None if it can.

    The first call for a dtype compiles what no earlier process has kept; the log says so.
    """
    reason = why_unavailable()
    if reason is None:
        try:
            _compile(dtype)
        except Exception as error:  # whatever numba or its compiler may raise
            reason = f"{type(error).__name__}: {error}"
    if reason is not None:
        first_line = reason.splitlines()[0]
        logger.warning("interaction=fast instead of compiled, which numba cannot: %s", first_line)
    return reason


def is_ready(dtype: torch.dtype) -> bool:
    """Whether the compiled interaction can be used; see `why_not_compiled`."""
    return why_not_compiled(dtype) is None


def _compile(dtype: torch.dtype) -> None:
    """Run every kernel once, for the types of numbers that they are used with."""
    before, start = compilations(), time.monotonic()
    pair, elements = np.array([0, 1]), torch.tensor([0, 1])
    order = PairOrder.of(pair, pair[::-1].copy(), elements.numpy(), 2)
    is_told = False
    with torch.no_grad():
        vectors = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]], dtype=dtype)
        pairs = Geometry.of(vectors, order, 2)
        if compilations() > before:
            logger.info(
                "compiling the interaction for %s, which takes about half a minute and is kept for "
                "later processes",
                dtype,
            )
            is_told = True
        tape = run_forward([_block(2, dtype), _block(2, dtype)], elements, pairs)
        features: list[torch.Tensor | None] = [torch.ones_like(x) for x in tape.features()]
        adjoint = run_adjoint(tape, features)
        by_vectors(pairs, adjoint)
        injection = Injection.of(tape)
        run_tangent(tape, adjoint, vectors, injection, needs_vectors=True)
        run_adjoint(tape, features, injection=injection, gradients=Gradients())
    if is_told:
        logger.info(
            "compiled %d kernels in %.0f s", compilations() - before, time.monotonic() - start
        )


def _block(n: int, dtype: torch.dtype) -> Block:
    def ones(*shape: int) -> torch.Tensor:
        return torch.ones(*shape, dtype=dtype)

    linear = Linear(ones(n, n), ones(n))
    layer = Interaction(
        ones(1, n), ones(1, n), 2.0, ones(n, n, n), linear, (ones(n), ones(n)), 1e-6
    )
    return Block(layer, linear, None, ((linear, linear),))
