"""A training graph whose steps are traced and compiled by torch, once they agree with the graph."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Sequence

import torch
from hippynn.experiment.assembly import TrainingModules
from hippynn.graphs import GraphModule, find_unique_relative
from hippynn.graphs.nodes.tags import Encoder, Network
from hippynn.layers.targets import HEnergy
from torch import Tensor

from hippynn_mf.data.batches import of_atoms
from hippynn_mf.data.database import TrainingDatabase
from hippynn_mf.errors import UserError
from hippynn_mf.keys import SPECIES
from hippynn_mf.model.heads import CoupledHEnergy, Heads
from hippynn_mf.model.tracing import REMEDY, Outputs, PaddedModel, Tracer, compiling_failed
from hippynn_mf.model.whole_model import Layout
from hippynn_mf.network.padded import Sizes, SizeSteps

log = logging.getLogger(__name__)

# Largest difference from the graph: of an output, by its largest number; of the gradient by a
# parameter, in norm. Several hundred roundings each.
OUTPUTS_AGREE = {torch.float32: 1e-4, torch.float64: 1e-10}
GRADIENTS_AGREE = {torch.float32: 1e-3, torch.float64: 1e-9}


class TracedModel(GraphModule):
    """hippynn's module of a graph: same inputs, outputs and parameters, traced in training steps.

    In evaluation mode, without gradients, and for derivatives by positions it is the graph. The
    derivative of its outputs by parameters can be taken once.
    """

    def __init__(self, graph: GraphModule, tracer: Tracer) -> None:
        super().__init__(graph.input_nodes, graph.nodes_to_compute)
        self._tracer = tracer
        self._compared: set[Sizes] = set()

    def forward(self, *inputs: Tensor) -> Outputs:
        """The outputs of the graph."""
        species, positions, _ = (inputs[place] for place in self._tracer.layout.inputs)
        if not (self.training and torch.is_grad_enabled()) or positions.requires_grad:
            return self.by_graph(*inputs)
        sizes, batch = self._tracer.padded(inputs)

        def run() -> Outputs:
            function = self._tracer.function(sizes, batch)
            return self._tracer.unpadded(function(batch), species)

        if sizes not in self._compared and self._compare(sizes, inputs, run):
            self._compared.add(sizes)
        return run()

    def by_graph(self, *inputs: Tensor) -> Outputs:
        """The outputs of the graph, by the graph."""
        outputs: Outputs = super().forward(*inputs)
        return outputs

    def _compare(self, sizes: Sizes, inputs: Sequence[Tensor], run: Callable[[], Outputs]) -> bool:
        """Compile, and compare with the graph; UserError unless outputs and gradients agree.

        False where the graph itself gives no numbers, as that of a diverged training.
        """
        parameters = [p for p in self._tracer.model.parameters() if p.requires_grad]

        def run_by_graph() -> Outputs:
            return self.by_graph(*(each.clone() for each in inputs))

        start = time.monotonic()
        try:
            outputs, gradients = with_gradients(run, parameters)
        except UserError:
            raise
        except Exception as error:  # of the derivative, which is compiled when it is first needed
            raise compiling_failed(error) from error
        seconds = time.monotonic() - start
        expected, expected_gradients = with_gradients(run_by_graph, parameters)
        if not all(bool(torch.isfinite(each).all()) for each in expected):
            return False
        dtype = expected[0].dtype
        of_outputs = max(map(_by_largest, outputs, expected))
        of_gradients = largest_by_norm(gradients, expected_gradients)
        for what, found, allowed in (
            ("outputs", of_outputs, OUTPUTS_AGREE[dtype]),
            ("gradients", of_gradients, GRADIENTS_AGREE[dtype]),
        ):
            if not found <= allowed:  # NaN is not
                raise UserError(
                    f"interaction=traced: {what} of the compiled step differ from those of "
                    f"interaction=fast by {found:.1e}, and {allowed:.0e} is allowed, on the first "
                    f"batch of {sizes}. {REMEDY}"
                )
        log.info(
            "interaction=traced: compiled in %.0f s for %d structures, %d atoms with %d neighbours "
            "(filled up); agrees with interaction=fast: outputs to %.0e, gradients to %.0e",
            seconds,
            *sizes,
            of_outputs,
            of_gradients,
        )
        return True


def with_gradients(
    run: Callable[[], Outputs], parameters: Sequence[Tensor]
) -> tuple[Outputs, list[Tensor]]:
    """Outputs, and the derivatives of a fixed combination of them; zero where there is none."""
    outputs = run()
    generator = torch.Generator().manual_seed(0)
    # Not of their sum: that of the forces is zero.
    by_outputs = [torch.randn(o.shape, generator=generator, dtype=o.dtype) for o in outputs]
    by_outputs = [each.to(o.device) for each, o in zip(by_outputs, outputs, strict=True)]
    gradients = torch.autograd.grad(outputs, parameters, by_outputs, allow_unused=True)
    return outputs, [
        torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)
    ]


def _by_largest(found: Tensor, expected: Tensor) -> float:
    """Largest difference of two tensors by the largest number of the second."""
    with torch.no_grad():
        largest = float(expected.abs().max()) if expected.numel() else 0.0
        difference = float((found - expected).abs().max()) if expected.numel() else 0.0
    return difference / largest if largest else difference


def largest_by_norm(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Largest difference in norm, by that of its tensor or a hundredth of the largest."""
    norms = [float(torch.linalg.norm(each.detach())) for each in expected]
    floor = 1e-2 * max(norms, default=0.0)
    differences = [
        float(torch.linalg.norm((one - other).detach())) / (max(norm, floor) or 1.0)
        for one, other, norm in zip(found, expected, norms, strict=True)
    ]
    return max(differences, default=0.0)


def trace(
    modules: TrainingModules, heads: Heads, database: TrainingDatabase, batch_size: int
) -> TrainingModules:
    """The modules of a training with a `TracedModel` in place of its graph.

    `modules` are those of `precompute_pairs` for the database. Raises UserError for what is not
    traced.
    """
    layout = Layout.of(modules.model, heads)
    reason = "pairs are not stored" if layout is None else None
    if layout is not None and layout.cells is not None:
        reason = "the structures are periodic"
    reason = reason or _why_not_traced(modules.model, heads)
    if layout is None or reason is not None:
        raise UserError(f"interaction=traced is not possible here: {reason}. {REMEDY}")
    steps = SizeSteps.of(
        of_atoms(database.splits["train"], SPECIES).places.sizes,
        database.pairs["train"],
        batch_size,
    )
    encoder = find_unique_relative(heads.network, Encoder).torch_module
    tracer = Tracer(PaddedModel(heads, layout.outputs), encoder, layout, steps)
    model = TracedModel(modules.model, tracer)
    evaluator = copy.copy(modules.evaluator)
    evaluator.model = model
    return modules._replace(model=model, evaluator=evaluator)


def _why_not_traced(graph: GraphModule, heads: Heads) -> str | None:
    n_networks = sum(isinstance(node, Network) for node in graph.forward_output_list)
    if n_networks != 1:
        return f"this model has {n_networks} networks"
    if not hasattr(heads.network.torch_module, "through_blocks"):
        return "the network is not one of hippynn_mf"
    kinds = {type(head.energy.torch_module) for head in heads.values()}
    if unknown := kinds - {HEnergy, CoupledHEnergy}:
        return f"heads of type {unknown.pop().__name__}"
    return None
