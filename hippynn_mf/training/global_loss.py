"""Losses over the batches of several processes (ranks) together.

A root mean square is no mean of root mean squares. The loss of a batch that is spread over ranks
is computed from sums over all ranks, L = f(S) with S = Σ_r s_r, by every rank alike. Its gradient
is Σ_r f'(S) ds_r/dθ, of which a rank knows the term with its own s_r. Data-parallel training
averages the gradients of the ranks, so every rank has to provide that term times their number.
"""

from __future__ import annotations

from typing import Any

import torch
from hippynn.graphs import GraphModule
from hippynn.graphs.nodes.base import InputNode
from torch import Tensor, distributed

from hippynn_mf.errors import UserError
from hippynn_mf.model.masked_errors import MaskedAverage


class _SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over all ranks; the backward pass does not communicate."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        total = local.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * distributed.get_world_size()


def sum_over_ranks(local: Tensor) -> Tensor:
    """Sum of a tensor over all ranks, whose gradients are to be averaged over the ranks."""
    if not distributed.is_initialized():
        return local
    total: Tensor = _SumOverRanks.apply(local)  # type: ignore[no-untyped-call]
    return total


class GlobalLoss(torch.nn.Module):
    """A loss graph of hippynn, over the batches of all ranks instead of the rank's own.

    Takes what the graph takes, and returns the same scalars (float64) on every rank. The sums of
    all its errors go through one collective, in the order of `names`.

    Raises UserError for a graph in which a batch enters other than through masked errors: the
    value for all ranks does not follow from those of the ranks.
    """

    def __init__(self, loss: GraphModule) -> None:
        super().__init__()
        errors = [n for n in loss.forward_output_list if isinstance(n.torch_module, MaskedAverage)]
        # The order of nodes differs between processes. A name tells the error and its label; two
        # errors of one name have the same sums.
        self.errors = sorted(errors, key=lambda node: node.name)
        self.names = [node.name for node in self.errors]
        arguments = [parent for node in self.errors for parent in node.parents]
        self.arguments = GraphModule(loss.input_nodes, arguments)
        self.outputs = loss.nodes_to_compute
        self.combination = _nodes_after(self.errors, loss)
        self.operations = torch.nn.ModuleList(node.torch_module for node in self.combination)

    def sums(self, *values: Tensor) -> Tensor:
        """Sums and counts of this rank's batch, (n_errors, 2) float64; batches can be added up."""
        arguments = iter(self.arguments(*values))
        pairs = [
            node.torch_module.sum_and_count(next(arguments), next(arguments))
            for node in self.errors
        ]
        # Counts of force components in a whole data set are beyond the integers of float32.
        return torch.stack([torch.stack([part.double() for part in pair]) for pair in pairs])

    def from_sums(self, sums: Tensor) -> tuple[Tensor, ...]:
        """The losses, given the sums of this rank. A collective: every rank must call it."""
        totals = sum_over_ranks(sums)
        known = {
            node: node.torch_module.from_sum(*total)
            for node, total in zip(self.errors, totals, strict=True)
        }
        for node, operation in zip(self.combination, self.operations, strict=True):
            known[node] = operation(*(known[parent] for parent in node.parents))
        return tuple(known[node] for node in self.outputs)

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        """The losses of all ranks' batches. A collective: every rank must call it."""
        return self.from_sums(self.sums(*values))


def _nodes_after(errors: list[Any], loss: GraphModule) -> list[Any]:
    """The nodes between errors and losses, in an order in which they can be computed."""
    needed, waiting = set(), [node for node in loss.nodes_to_compute if node not in errors]
    while waiting:
        node = waiting.pop()
        if isinstance(node, InputNode):
            raise UserError(
                f"This loss cannot be summed over devices: {node.name} enters other than through "
                "a masked error. Build it of hippynn_mf.model.losses.MaskedRMSELoss and its like, "
                "or train on one device."
            )
        needed.add(node)
        waiting += [parent for parent in node.parents if parent not in (*errors, *needed)]
    return [node for node in loss.forward_output_list if node in needed]
