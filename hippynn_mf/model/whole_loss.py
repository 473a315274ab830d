"""Equation 1 in one pass: the number and the gradient of the loss nodes, from far fewer operations.

hippynn's graph takes a dozen operations for every term of the loss, and as many for its derivative.
Here all levels are done together and the derivative is written by hand. The nodes of `losses` stay
what defines the loss; sums are taken in another order, so numbers agree to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from hippynn.graphs import GraphModule
from hippynn.graphs.nodes.base import LossPredNode, LossTrueNode
from torch import Tensor
from torch.autograd.function import once_differentiable

from hippynn_mf import keys
from hippynn_mf.model.heads import Heads
from hippynn_mf.model.losses import LossWeights
from hippynn_mf.model.masked_errors import refuse_other_shape


@dataclass(frozen=True)
class Layout:
    """Which of the tensors that a loss is given is what.

    `energies`, `hierarchicalities` and `true_energies` are places of one tensor for each level,
    `forces` and `true_forces` of those levels that have forces. `species` is the place of the
    atomic numbers, by which padding is known; None without forces.
    """

    energies: tuple[int, ...]
    hierarchicalities: tuple[int, ...]
    true_energies: tuple[int, ...]
    forces: tuple[int, ...]
    true_forces: tuple[int, ...]
    species: int | None


class WholeLoss(torch.nn.Module):
    """The loss of `build_loss`, called as hippynn calls its graph: a tuple of one scalar.

    Its derivative can be taken once, as training does: it is a constant to autograd. With
    `is_compiled`, which a `WholeModel` sets, numbers on the CPU go through kernels, which take sums
    in double precision. Where that model goes past autograd, it also sets `take_slopes`, which gets
    the derivatives by the outputs that came last, and the loss is a `StepLoss`.
    """

    is_compiled = False
    take_slopes: Callable[[Mapping[int, np.ndarray]], None] | None = None

    def __init__(
        self, graph: GraphModule, heads: Heads, weights: Mapping[str, LossWeights]
    ) -> None:
        """Find the inputs of a loss graph of `build_loss`, which the weights by level id are of."""
        super().__init__()
        predicted = [getattr(n, "origin_node", None) for n in graph.input_nodes]
        is_predicted = [isinstance(n, LossPredNode) for n in graph.input_nodes]
        names = [n.db_name if isinstance(n, LossTrueNode) else None for n in graph.input_nodes]

        def place(node: Any) -> int:
            found = [k for k, n in enumerate(predicted) if is_predicted[k] and n is node]
            (only,) = found
            return only

        with_forces = [head for head in heads.values() if head.forces is not None]
        forces = [head.forces for head in heads.values() if head.forces is not None]
        self.layout = Layout(
            energies=tuple(place(head.energy.main_output) for head in heads.values()),
            hierarchicalities=tuple(place(h.energy.hierarchicality) for h in heads.values()),
            true_energies=tuple(names.index(head.level.energy_name) for head in heads.values()),
            forces=tuple(place(node.main_output) for node in forces),
            true_forces=tuple(names.index(head.level.forces_name) for head in with_forces),
            species=names.index(keys.SPECIES) if with_forces else None,
        )
        self.plain_weights: dict[str, list[float]] = {}
        for name, of_levels in {
            "energy": [weights[level_id].energy for level_id in heads],
            "hierarchicality": [weights[level_id].hierarchicality for level_id in heads],
            "force": [weights[head.level.id].forces for head in with_forces],
        }.items():
            numbers = torch.tensor(of_levels, dtype=torch.get_default_dtype())
            self.register_buffer(f"{name}_weights", numbers, persistent=False)
            self.plain_weights[name] = of_levels

    def forward(self, *values: Tensor) -> tuple[Tensor | StepLoss]:
        """The loss of the outputs of a model and the labels of a batch; NaN in a label: missing."""
        loss: Tensor
        if self.take_slopes is not None:
            take, self.take_slopes = self.take_slopes, None
            return (self._of_step(take, values),)
        if self.is_compiled and _can_be_compiled(values):
            loss = _CompiledEquation1.apply(self.layout, self.plain_weights, *values)  # type: ignore[no-untyped-call]
            return (loss,)
        weights = self.energy_weights, self.hierarchicality_weights, self.force_weights
        loss = _Equation1.apply(self.layout, weights, *values)  # type: ignore[no-untyped-call]
        return (loss,)

    def _of_step(
        self, take: Callable[[Mapping[int, np.ndarray]], None], values: Sequence[Tensor]
    ) -> StepLoss:
        if _can_be_compiled(values):
            number, slopes = _by_kernels(self.layout, self.plain_weights, values)
            return StepLoss(number, partial(take, slopes))
        layout = self.layout
        places = [*layout.energies, *layout.hierarchicalities, *layout.forces]
        leaves = {place: values[place].detach().requires_grad_() for place in places}
        (loss,) = self(*(leaves.get(place, value) for place, value in enumerate(values)))
        found = torch.autograd.grad(loss, list(leaves.values()))
        arrays = [by.contiguous().numpy() for by in found]
        return StepLoss(loss.item(), partial(take, dict(zip(leaves, arrays, strict=True))))


@dataclass(frozen=True)
class StepLoss:
    """What hippynn's step does with a loss: it takes the mean, and derivatives of that."""

    value: float
    backward: Callable[[], None]

    def mean(self) -> StepLoss:
        """Itself, of one number."""
        return self

    def item(self) -> float:
        """The number."""
        return self.value


def _can_be_compiled(values: Sequence[Tensor]) -> bool:
    """Whether kernels can take the numbers: all of one precision, on the CPU, one by one."""
    dtypes = {value.dtype for value in values if value.is_floating_point()}
    known = dtypes == {torch.float32} or dtypes == {torch.float64}
    return known and all(not v.is_cuda and v.is_contiguous() for v in values)


class _Equation1(torch.autograd.Function):
    """Σ_t (w_E L_E + w_F L_F + w_H L_H); all derivatives are found with the value."""

    @staticmethod
    def forward(
        ctx: Any, layout: Layout, weights: tuple[Tensor, Tensor, Tensor], *values: Tensor
    ) -> Tensor:
        energy_weights, hierarchicality_weights, force_weights = (
            of_kind.to(values[layout.energies[0]].dtype) for of_kind in weights
        )
        energies = _rows(values, layout.energies)
        true = _rows(values, layout.true_energies)
        hierarchicalities = _rows(values, layout.hierarchicalities)
        for level in range(len(energies)):
            refuse_other_shape(energies[level], true[level])
        valid = torch.isfinite(true)
        loss, of_energies = _rmse_and_mae(energies, true, valid, energy_weights)
        share = hierarchicality_weights / valid.sum(dim=1).clamp(min=1)
        of_hierarchicalities = torch.where(valid, share.unsqueeze(1), 0)
        loss = loss + torch.where(valid, hierarchicalities, 0).sum(dim=1) @ share
        of_forces = None
        if layout.species is not None:
            for place, of_true in zip(layout.forces, layout.true_forces, strict=True):
                refuse_other_shape(values[place], values[of_true])
            forces, true = _rows(values, layout.forces), _rows(values, layout.true_forces)
            is_atom = (values[layout.species] > 0).flatten().repeat_interleave(3)
            valid = torch.isfinite(true) & is_atom
            loss_of_forces, of_forces = _rmse_and_mae(forces, true, valid, force_weights)
            loss = loss + loss_of_forces
        ctx.layout, ctx.shapes = layout, [value.shape for value in values]
        ctx.derivatives = of_energies, of_hierarchicalities, of_forces
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        layout: Layout = ctx.layout
        found: list[Tensor | None] = [None] * len(ctx.shapes)
        places = (layout.energies, layout.hierarchicalities, layout.forces)
        for of_levels, derivatives in zip(places, ctx.derivatives, strict=True):
            if derivatives is None:
                continue
            for place, derivative in zip(of_levels, derivatives * outer[0], strict=True):
                found[place] = derivative.view(ctx.shapes[place])
        return None, None, *found


def _by_kernels(
    layout: Layout, weights: Mapping[str, Sequence[float]], values: Sequence[Tensor]
) -> tuple[float, dict[int, np.ndarray]]:
    """The loss, and its derivatives by the place of what they are by."""
    from hippynn_mf.network.compiled.errors import mean_of_labelled, rmse_and_mae

    arrays = [value.detach().numpy() for value in values]
    nothing = np.empty(0, np.int64)
    species = nothing if layout.species is None else arrays[layout.species].reshape(-1)
    slopes: dict[int, np.ndarray] = {}

    def given(place: int, of_true: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        refuse_other_shape(values[place], values[of_true])
        slopes[place] = np.empty_like(arrays[place])
        return (
            arrays[place].reshape(-1),
            arrays[of_true].reshape(-1),
            slopes[place].reshape(-1),
        )

    loss = 0.0
    for place, of_true, weight in zip(
        layout.energies, layout.true_energies, weights["energy"], strict=True
    ):
        predicted, true, slope = given(place, of_true)
        loss += rmse_and_mae(predicted, true, nothing, float(weight), slope)
    for place, of_true, weight in zip(
        layout.hierarchicalities, layout.true_energies, weights["hierarchicality"], strict=True
    ):
        predicted, true, slope = given(place, of_true)
        loss += mean_of_labelled(predicted, true, float(weight), slope)
    for place, of_true, weight in zip(
        layout.forces, layout.true_forces, weights["force"], strict=True
    ):
        predicted, true, slope = given(place, of_true)
        loss += rmse_and_mae(predicted, true, species, float(weight), slope)
    return loss, slopes


class _CompiledEquation1(torch.autograd.Function):
    """As `_Equation1`, by kernels, level by level."""

    @staticmethod
    def forward(
        ctx: Any, layout: Layout, weights: Mapping[str, Sequence[float]], *values: Tensor
    ) -> Tensor:
        loss, ctx.slopes = _by_kernels(layout, weights, values)
        ctx.n_values = len(values)
        return values[layout.energies[0]].new_tensor(loss)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        scale = outer[0].item()
        found: list[Tensor | None] = [None] * ctx.n_values
        for place, slope in ctx.slopes.items():
            found[place] = torch.from_numpy(
                slope if scale == 1 else slope * slope.dtype.type(scale)
            )
        return None, None, *found


def _rows(values: Sequence[Tensor], places: Sequence[int]) -> Tensor:
    """Tensors at these places, one in every row."""
    if len(places) == 1:
        return values[places[0]].reshape(1, -1)
    return torch.stack([values[place].flatten() for place in places])


def _rmse_and_mae(
    predicted: Tensor, true: Tensor, valid: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Weighted sum over the rows of RMSE + MAE of valid labels, and its derivative (rows, n).

    As `MaskedRMSE` and `MaskedMAE`: zero with zero derivative where there is no label or no error;
    NaN in a prediction is NaN.
    """
    # No derivative is taken through this, so what is missing need not be masked before as well.
    errors = torch.where(valid, predicted - true, 0)
    n_valid = valid.sum(dim=1).clamp(min=1)
    mean_square = errors.square().sum(dim=1) / n_valid
    rmse = mean_square.sqrt()
    loss = (rmse + errors.abs().sum(dim=1) / n_valid) @ weights
    share = weights / n_valid
    of_square = torch.where(mean_square == 0, 0, share / rmse)
    derivative = errors * of_square.unsqueeze(1) + errors.sign() * share.unsqueeze(1)
    return loss, derivative
