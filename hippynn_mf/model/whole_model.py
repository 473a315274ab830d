"""A training graph whose numbers, and their derivatives, come from a few compiled calls.

hippynn's graph of a model calls some thirty nodes, and autograd as many for the derivatives. Where
all of them are known (a network with the compiled interaction, linear heads, their forces, stored
pairs) the same outputs are computed at once here. Anything else goes through the graph, which stays
what defines the numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from hippynn.experiment.assembly import TrainingModules
from hippynn.graphs import GraphModule, find_unique_relative
from hippynn.graphs.nodes.tags import Encoder, Network
from hippynn.layers.targets import HEnergy
from torch import Tensor
from torch.autograd.function import once_differentiable

from hippynn_mf.keys import CELL, PAIR_SHIFTS, PAIRS, POSITIONS, SPECIES
from hippynn_mf.model.heads import CoupledHEnergy, Heads
from hippynn_mf.model.whole_loss import WholeLoss
from hippynn_mf.network.cell_pairs import volume_shares
from hippynn_mf.network.hipnn import CompiledForward

ENERGY, HIERARCHICALITY, FORCES, STRESS = "energy", "hierarchicality", "forces", "stress"


@dataclass(frozen=True)
class Layout:
    """What the inputs and outputs of a graph are.

    `inputs` are the places of species, positions and pairs, `cells` those of cells and shifts of
    pairs, None of molecules; `outputs` kind and level of each, the level by its place among the
    heads.
    """

    inputs: tuple[int, int, int]
    outputs: list[tuple[str, int]]
    cells: tuple[int, int] | None = None

    @classmethod
    def of(cls, graph: GraphModule, heads: Heads) -> Layout | None:
        """Of a graph with stored pairs, all of whose outputs are known; else None."""
        names = [node.db_name for node in graph.input_nodes]
        known = {}
        for level, head in enumerate(heads.values()):
            known[_name(head.energy.main_output)] = (ENERGY, level)
            known[_name(head.energy.hierarchicality)] = (HIERARCHICALITY, level)
            if head.forces is not None:
                known[_name(head.forces.main_output)] = (FORCES, level)
            if head.stress is not None:
                known[_name(head.stress)] = (STRESS, level)
        outputs = [known.get(_name(node)) for node in graph.nodes_to_compute]
        has_cells = sorted(names) == sorted((*INPUTS, *OF_CELLS))
        if None in outputs or not (has_cells or sorted(names) == sorted(INPUTS)):
            return None
        species, positions, pairs = map(names.index, INPUTS)
        cells = (names.index(CELL), names.index(PAIR_SHIFTS)) if has_cells else None
        chosen = [each for each in outputs if each is not None]
        return cls((species, positions, pairs), chosen, cells)


INPUTS = (SPECIES, POSITIONS, PAIRS)
OF_CELLS = (CELL, PAIR_SHIFTS)


def _name(node: Any) -> str:
    """A name that copies of a node have too."""
    return str(node.name)


@dataclass(frozen=True)
class Parts:
    """The modules of a model, by what they do.

    Level k has the sum of the energies of the heads that row k of `sums` marks.
    """

    network: Any
    encoder: Any
    heads: list[HEnergy]
    sums: Tensor
    with_forces: list[int]
    with_stress: list[int]

    @classmethod
    def of(cls, graph: GraphModule, heads: Heads) -> Parts | None:
        """Of a single compiled network with linear heads; else None."""
        network = heads.network.torch_module
        modules = [head.energy.torch_module for head in heads.values()]
        n_networks = sum(isinstance(node, Network) for node in graph.forward_output_list)
        if n_networks != 1 or not isinstance(network, CompiledForward):
            return None
        if not all(map(_is_linear, modules)):
            return None
        places = {head.level: place for place, head in enumerate(heads.values())}
        sums = torch.eye(len(heads))
        for level, head in enumerate(heads.values()):
            if head.base is not None:
                sums[level] += sums[places[head.base]]
        return cls(
            network,
            find_unique_relative(heads.network, Encoder).torch_module,
            modules,
            sums,
            [place for place, head in enumerate(heads.values()) if head.forces is not None],
            [place for place, head in enumerate(heads.values()) if head.stress is not None],
        )

    @cached_property
    def whole_network(self) -> Any:
        """What a pass takes; parameters stay the same objects."""
        from hippynn_mf.network.compiled.blocks import blocks_of
        from hippynn_mf.network.compiled.vector import ParameterLayout
        from hippynn_mf.network.compiled.whole import Readout, WholeNetwork

        layers = [list(head.layers) for head in self.heads]
        parameters = ParameterLayout(
            blocks_of(self.network),
            [[layer.weight for layer in of_head] for of_head in layers],
            [[layer.bias for layer in of_head[1:]] for of_head in layers],
        )
        return WholeNetwork(
            parameters,
            Readout(self.sums.numpy(), self.with_forces, self.with_stress),
            self.encoder.species_map.numpy(),
            int(self.network.interaction_layers[0].int_weights.shape[2]),
            int(self.network._interaction_class.tensor_order),
        )


def _is_linear(module: Any) -> bool:
    return type(module) in (HEnergy, CoupledHEnergy) and not module.first_is_interacting


class WholeModel(GraphModule):
    """hippynn's module of a graph: same inputs, outputs and parameters, in fewer operations.

    The loss of a training does with kernels what it can as long as this does.
    """

    def __init__(
        self, graph: GraphModule, layout: Layout, parts: Parts, loss: torch.nn.Module | None = None
    ) -> None:
        super().__init__(graph.input_nodes, graph.nodes_to_compute)
        self._layout, self._parts = layout, parts
        # In lists, these are no parts of this module.
        self._vector: list[Tensor] = []
        self._losses = [loss] if isinstance(loss, WholeLoss) else []
        self._steps_at_once = False

    def take_parameters_from(self, vector: Tensor) -> None:
        """Be a function of a leaf that holds the parameters in the order `layout_of_parameters`.

        While it does, derivatives are by it instead of by the parameters.
        """
        self._vector = [vector]

    @contextmanager
    def steps_at_once(self) -> Iterator[None]:
        """Inside, for hippynn's loop, a step goes past autograd where it can.

        Outputs in training mode have no derivative then, but what the `WholeLoss` returns puts one
        where Adam takes it.
        """
        self._steps_at_once = True
        try:
            yield
        finally:
            self._steps_at_once = False
            for loss in self._losses:
                loss.take_slopes = None

    @property
    def layout_of_parameters(self) -> list[Tensor]:
        """The order in which the compiled passes take the parameters."""
        found: list[Tensor] = self._parts.whole_network.layout.unique
        return found

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs of the graph; their derivative by parameters can be taken once."""
        species, positions, pairs = (inputs[place] for place in self._layout.inputs)
        parts = self._parts
        is_compiled = (
            not positions.requires_grad
            and parts.network.why_fast(positions.device, positions.dtype) is None
        )
        for loss in self._losses:
            loss.is_compiled, loss.take_slopes = is_compiled, None
        if not is_compiled:
            outputs: tuple[Tensor, ...] = super().forward(*inputs)
            return outputs
        from hippynn_mf.network.compiled.shares import run_shares
        from hippynn_mf.network.compiled.whole import Parameters

        layout = parts.whole_network.layout
        leaves, parameters, at_once = layout.unique, None, False
        for vector in self._vector:
            if layout.lie_in(vector):
                leaves = [vector, *layout.of_species]
                at_once = self._steps_at_once and self.training and torch.is_grad_enabled()
                rows = [each.detach().numpy() for each in layout.of_species]
                parameters = Parameters(vector.detach().numpy(), np.concatenate(rows))
        if parameters is None:
            whole, n_inner = layout.vector(), layout.n_inner
            of_species = whole[n_inner:].reshape(len(layout.weights), -1)
            parameters = Parameters(whole[:n_inner], of_species)
        cells = None
        if self._layout.cells is not None:
            from hippynn_mf.network.compiled.whole import Cells

            cell, shifts = (inputs[place] for place in self._layout.cells)
            cells = Cells(shifts.contiguous().numpy(), volume_shares(cell).numpy())
        passed = run_shares(
            parts.whole_network,
            parameters,
            species.contiguous().numpy(),
            positions.contiguous().numpy(),
            pairs.contiguous().numpy(),
            cells,
        )
        outputs_of = self._layout.outputs
        for loss in self._losses if at_once else ():
            loss.take_slopes = partial(_add_gradients, passed, layout, outputs_of, leaves)
            return _outputs(passed, outputs_of)
        found: tuple[Tensor, ...] = _Outputs.apply(  # type: ignore[no-untyped-call]
            passed, layout, outputs_of, *leaves
        )
        return found


def _outputs(passed: Any, outputs: list[tuple[str, int]]) -> tuple[Tensor, ...]:
    """What a pass gives, as the graph does."""
    found = {
        **{(ENERGY, k): row[:, None] for k, row in enumerate(passed.energies)},
        **{(HIERARCHICALITY, k): row[:, None] for k, row in enumerate(passed.hierarchicalities)},
        **{(FORCES, k): each for k, each in passed.forces.items()},
        **{(STRESS, k): each for k, each in passed.stress.items()},
    }
    return tuple(torch.from_numpy(found[output]) for output in outputs)


def _gradient(
    passed: Any, outputs: list[tuple[str, int]], by_outputs: Sequence[np.ndarray | None]
) -> np.ndarray:
    """The derivative by the vector of all parameters, of those by the outputs."""
    by = dict(zip(outputs, by_outputs, strict=True))
    by_energies = np.zeros_like(passed.energies)
    by_hierarchicalities = np.zeros_like(passed.energies)
    for kind, rows in ((ENERGY, by_energies), (HIERARCHICALITY, by_hierarchicalities)):
        for level, row in enumerate(rows):
            found = by.get((kind, level))
            if found is not None:
                row[:] = found[:, 0]
    gradient: np.ndarray = passed.gradients(
        by_energies,
        by_hierarchicalities,
        [by.get((FORCES, level)) for level in passed.forces],
        [by.get((STRESS, level)) for level in passed.stress],
    )
    return gradient


def _add_gradients(
    passed: Any,
    layout: Any,
    outputs: list[tuple[str, int]],
    leaves: Sequence[Tensor],
    slopes: Mapping[int, np.ndarray],
) -> None:
    """Add a loss's derivatives by the parameters to their gradients, as autograd would.

    `slopes` are its derivatives by the outputs, by the places of these.
    """
    gradient = _gradient(passed, outputs, [slopes.get(place) for place in range(len(outputs))])
    sizes = [layout.n_inner, *(leaf.numel() for leaf in leaves[1:])]
    parts = torch.split(torch.from_numpy(gradient), sizes)
    for leaf, part in zip(leaves, parts, strict=True):
        if not leaf.requires_grad:
            continue
        if leaf.grad is None:
            leaf.grad = part.view_as(leaf).clone()
        else:
            leaf.grad += part.view_as(leaf)


class _Outputs(torch.autograd.Function):
    """The outputs of a whole pass as a function of the parameters."""

    @staticmethod
    def forward(
        ctx: Any, passed: Any, layout: Any, outputs: list[tuple[str, int]], *leaves: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.passed, ctx.layout, ctx.outputs, ctx.leaves = passed, layout, outputs, leaves
        ctx.set_materialize_grads(False)
        return _outputs(passed, outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *by_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        arrays = [None if by is None else by.contiguous().numpy() for by in by_outputs]
        gradient = _gradient(ctx.passed, ctx.outputs, arrays)
        layout = ctx.layout
        if ctx.leaves[0].numel() == layout.n_inner:
            of_species = torch.from_numpy(gradient[layout.n_inner :]).view(len(layout.weights), -1)
            inner = torch.from_numpy(gradient[: layout.n_inner])
            return None, None, None, inner, *torch.split(of_species, 1)
        gradients = layout.by_parameter(gradient)
        wanted = ctx.needs_input_grad[3:]
        return (
            None,
            None,
            None,
            *(
                gradients[id(parameter)] if needed else None
                for parameter, needed in zip(ctx.leaves, wanted, strict=True)
            ),
        )


def compute_at_once(modules: TrainingModules, heads: Heads) -> TrainingModules:
    """The modules of a training with a `WholeModel` in place of its graph, where there is one.

    A `WholeLoss` of theirs is compiled as long as the model is.
    """
    layout, parts = Layout.of(modules.model, heads), Parts.of(modules.model, heads)
    if layout is None or parts is None:
        return modules
    model = WholeModel(modules.model, layout, parts, modules.loss)
    evaluator = copy.copy(modules.evaluator)
    evaluator.model = model
    return modules._replace(model=model, evaluator=evaluator)
