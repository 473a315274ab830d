"""Compiling the kernels when they are first needed, and saying so."""

from __future__ import annotations

import functools
import logging
import time

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from hippynn_mf.network.compiled.adjoint import Injection, by_vectors, run_adjoint
from hippynn_mf.network.compiled.blocks import Block, Interaction, Linear
from hippynn_mf.network.compiled.errors import mean_of_labelled, rmse_and_mae
from hippynn_mf.network.compiled.forward import Geometry, run_forward
from hippynn_mf.network.compiled.kernels import compilations, why_unavailable
from hippynn_mf.network.compiled.ordering import PairOrder
from hippynn_mf.network.compiled.tangent import run_tangent
from hippynn_mf.network.compiled.vector import ParameterLayout
from hippynn_mf.network.compiled.whole import (
    Cells,
    Parameters,
    Readout,
    WholeNetwork,
    run_vectors,
    run_whole,
    whole_gradients,
)

logger = logging.getLogger(__name__)


@functools.cache
def why_not_compiled(dtype: torch.dtype) -> str | None:
    """Why the compiled interaction cannot be used in this process; None if it can.

    The first call for a dtype compiles what no earlier process has kept; the log says so.
    """
    reason = why_unavailable()
    if reason is None:
        # scipy's BLAS would start a thread for every core, whatever torch has been told.
        threadpool_limits(torch.get_num_threads(), user_api="blas")
        try:
            _compile(dtype)
        except Exception as error:  # whatever numba or its compiler may raise
            reason = f"{type(error).__name__}: {error}"
    return None if reason is None else f"numba cannot compile it: {reason.splitlines()[0]}"


def _compile(dtype: torch.dtype) -> None:
    """Run every kernel once, for the types of numbers that they are used with."""
    before, start = compilations(), time.monotonic()
    pair, elements = np.array([0, 1]), np.array([0, 1])
    order = PairOrder.of(pair, pair[::-1].copy(), elements, 2)
    positions = np.array([[[0, 0, 0], [1, 0, 0]]], str(dtype).removeprefix("torch."))
    vectors = positions[0] - positions[0, ::-1]
    pairs = Geometry.of(vectors, order, 2)
    is_told = compilations() > before
    if is_told:
        logger.info(
            "compiling the interaction for %s, which takes half a minute or more and is kept for "
            "later processes",
            dtype,
        )
    with torch.no_grad():
        blocks = [_block(2, dtype), _block(2, dtype)]
        _run_passes(blocks, elements, pairs, vectors)
        one = torch.ones(1, 2, dtype=dtype)
        layout = ParameterLayout(blocks, [[one, one, one]], [[one[0, :1], one[0, :1]]])
        vector = layout.vector()
        parameters = Parameters(vector[: layout.n_inner], vector[layout.n_inner :].reshape(1, 2))
        readout = Readout(np.ones((1, 1), positions.dtype), [0], [0])
        network = WholeNetwork(layout, readout, np.array([0, 1, 2]), 2, 2)
        species, both = np.array([[1, 2]]), np.array([[0, 1], [1, 0]])
        cells = Cells(np.zeros_like(vectors), np.ones(1, positions.dtype))
        whole = run_whole(network, parameters, species, positions, both, cells)
        run_vectors(network, parameters, np.array([1, 2]), both, vectors, [0])
        by = whole.energies, whole.hierarchicalities, [whole.forces[0]], [whole.stress[0]]
        whole_gradients(whole, *by)
        slope = np.empty_like(positions).reshape(-1)
        flat = positions.reshape(-1)
        for which in (species.reshape(-1), species.reshape(-1)[:0]):
            rmse_and_mae(flat, flat, which, 1.0, slope)
        mean_of_labelled(flat, flat, 1.0, slope)
    if is_told:
        logger.info(
            "compiled %d kernels in %.0f s", compilations() - before, time.monotonic() - start
        )


def _run_passes(
    blocks: list[Block], elements: np.ndarray, pairs: Geometry, vectors: np.ndarray
) -> None:
    tape = run_forward(blocks, elements, pairs)
    features: list[np.ndarray | None] = [*tape.features()]
    adjoint = run_adjoint(tape, features)
    by_vectors(pairs, adjoint)
    injection = Injection.of(tape)
    run_tangent(tape, adjoint, vectors, injection, needs_vectors=True)
    run_adjoint(tape, features, injection=injection, gradients=injection.gradients)


def _block(n: int, dtype: torch.dtype) -> Block:
    def ones(*shape: int) -> torch.Tensor:
        return torch.ones(*shape, dtype=dtype)

    linear = Linear(ones(n, n), ones(n))
    layer = Interaction(
        ones(1, n), ones(1, n), 2.0, ones(n, n, n), linear, (ones(n), ones(n)), 1e-6
    )
    return Block(layer, linear, None, ((linear, linear),))
