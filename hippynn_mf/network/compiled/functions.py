"""The two functions of autograd: features of pair vectors, and their derivatives by the vectors.

`Features` gives features; its backward is an adjoint pass. Where that is made to be differentiated
again, as for forces in training, it is a `VectorGradient`, whose backward is a tangent pass: it
leaves an `Injection`, from which the backward of `Features` starts when its turn comes. So any
number of trained forces costs an adjoint and a tangent each, and one more adjoint together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hippynn_mf.network.compiled.adjoint import (
    Injection,
    by_parameters,
    by_vectors,
    run_adjoint,
)
from hippynn_mf.network.compiled.blocks import Block, blocks_of
from hippynn_mf.network.compiled.forward import Geometry, Tape, run_forward
from hippynn_mf.network.compiled.ordering import Indices, PairOrder
from hippynn_mf.network.compiled.tangent import run_tangent

NO_MORE = (
    "The compiled interaction has {}; found one more. Build the model with interaction=fast, whose "
    "parameters are the same and which can be differentiated any number of times."
)


@dataclass
class Pass:
    """What the functions of one forward pass share."""

    blocks: list[Block]
    order: PairOrder
    elements: Indices
    tensor_order: int
    tape: Tape | None = None
    # of the backward pass that is under way, by the number that autograd gives it
    injection: tuple[int, Injection] | None = None
    gradients: dict[int, Tensor] | None = None

    def injected(self, task: int) -> Injection:
        """The injection of a backward pass; what an earlier one may have left is forgotten."""
        assert self.tape is not None
        if self.injection is None or self.injection[0] != task:
            self.injection = (task, Injection.of(self.tape))
        return self.injection[1]

    def take_injected(self, task: int) -> Injection | None:
        """The injection of a backward pass, if there is one, for its last adjoint."""
        found, self.injection = self.injection, None
        return found[1] if found is not None and found[0] == task else None


def features_of(
    blocks: list[Block], order: PairOrder, elements: Indices, vectors: Tensor, tensor_order: int
) -> list[Tensor]:
    """Features (n_atoms, n_features) after every block, of pairs with these vectors.

    `vectors` (n_pairs, 3), or distances (n_pairs, 1) for ℓ = 0, are in the order of the list of
    which `order` was made.
    """
    shared = Pass(blocks, order, elements, tensor_order)
    parameters = [parameter for block in blocks for parameter in block.parameters()]
    gate = _Parameters.apply(shared, *parameters)  # type: ignore[no-untyped-call]
    # Autograd tells of inner nodes only whether they are wanted.
    vectors = vectors.view_as(vectors).contiguous()
    *features, _ = _Features.apply(shared, gate, vectors)  # type: ignore[no-untyped-call]
    return features


def features_of_species(
    network: Any,
    one_hot: Tensor,
    receivers: Tensor,
    senders: Tensor,
    vectors: Tensor,
    tensor_order: int,
) -> list[Tensor]:
    """`features_of` a hippynn network, of one-hot species (n_atoms, n_elements) and pairs."""
    elements = one_hot.to(torch.uint8).argmax(dim=1).numpy()
    # Kernels are compiled for consecutive numbers alone.
    first, second = receivers.contiguous().numpy(), senders.contiguous().numpy()
    order = PairOrder.of(first, second, elements, one_hot.shape[1])
    return features_of(blocks_of(network), order, elements, vectors, tensor_order)


class _Parameters(torch.autograd.Function):
    """Stands for all parameters: autograd tells whether a derivative by any is wanted."""

    @staticmethod
    def forward(ctx: Any, shared: Pass, *parameters: Tensor) -> Tensor:
        ctx.shared, ctx.parameters = shared, parameters
        return parameters[0].new_empty(0)

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.shared.gradients = ctx.shared.gradients, None
        wanted = ctx.needs_input_grad[1:]
        return None, *(
            gradients[id(parameter)] if needed else None
            for parameter, needed in zip(ctx.parameters, wanted, strict=True)
        )


class _Features(torch.autograd.Function):
    """Features of all blocks, and an empty tensor on which `_VectorGradient` depends."""

    @staticmethod
    def forward(ctx: Any, shared: Pass, gate: Tensor, vectors: Tensor) -> tuple[Tensor, ...]:
        pairs = Geometry.of(vectors.numpy(), shared.order, shared.tensor_order)
        shared.tape = run_forward(shared.blocks, shared.elements, pairs)
        token = vectors.new_empty(0)
        ctx.shared = shared
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(token)
        # The room of the tape is used again when it has gone.
        return *(torch.from_numpy(each.copy()) for each in shared.tape.features()), token

    @staticmethod
    def backward(ctx: Any, *by_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        shared, tape = ctx.shared, ctx.shared.tape
        (token,) = ctx.saved_tensors
        needs_parameters, needs_vectors = map(_is_wanted, ctx.next_functions)
        if torch.is_grad_enabled():
            if needs_parameters:
                raise RuntimeError(
                    NO_MORE.format(
                        "second derivatives by vectors and parameters, not by two parameters"
                    )
                )
            given = [
                torch.from_numpy(np.zeros_like(x)) if g is None else g
                for g, x in zip(by_outputs, tape.features(), strict=False)
            ]
            gradient: Tensor = _VectorGradient.apply(shared, token, *given)  # type: ignore[no-untyped-call]
            return None, None, gradient
        injection = shared.take_injected(torch._C._current_graph_task_id())
        gradients = None
        if needs_parameters:
            zeros = [weights.zeros() for weights in tape.weights] if injection is None else []
            gradients = zeros if injection is None else injection.gradients
        adjoint = run_adjoint(
            tape,
            [None if each is None else each.numpy() for each in by_outputs[:-1]],
            injection=injection,
            gradients=gradients,
            needs_vectors=needs_vectors,
        )
        if gradients is not None:
            shared.gradients = by_parameters(tape, gradients)
        vectors = None
        if needs_vectors:
            start = None if injection is None else injection.vectors
            vectors = torch.from_numpy(by_vectors(tape.pairs, adjoint, start))
        return None, token.new_empty(0), vectors


def _is_wanted(node: tuple[Any, int]) -> bool:
    """Whether autograd is going to visit a node in the backward pass under way."""
    return node[0] is not None and torch._C._will_engine_execute_node(node[0])


class _VectorGradient(torch.autograd.Function):
    """Derivatives by the vectors, of derivatives by features; to be differentiated once more."""

    @staticmethod
    def forward(ctx: Any, shared: Pass, token: Tensor, *by_features: Tensor) -> Tensor:
        assert shared.tape is not None
        ctx.shared = shared
        ctx.adjoint = run_adjoint(shared.tape, [each.numpy() for each in by_features])
        return torch.from_numpy(by_vectors(shared.tape.pairs, ctx.adjoint))

    @staticmethod
    def backward(ctx: Any, by_gradient: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(NO_MORE.format("no third derivatives"))
        shared, adjoint = ctx.shared, ctx.adjoint
        injection = shared.injected(torch._C._current_graph_task_id())
        direction = by_gradient.contiguous().numpy()
        found = run_tangent(shared.tape, adjoint, direction, injection, needs_vectors=True)
        return None, by_gradient.new_empty(0), *map(torch.from_numpy, found)
