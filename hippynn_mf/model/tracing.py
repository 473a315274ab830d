"""A model as one function of parameters and padded batch, traced and compiled by torch.

The `fast` network in padded batches of a few sizes (`network/padded.py`), its heads, and the forces
as derivatives of the energies. torch's AOTAutograd traces it with its own derivative by parameters,
so both derivatives of a force loss are operations of one graph, which a backend (Inductor)
compiles. Forces are not recorded first and compiled as operations (make_fx, then torch.compile, as
NequIP does): what is traced with autograd's own functions keeps their derivatives, gathers instead
of sums row by row, and is compiled faster; see docs/gpu.md.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import hippynn
import torch
from torch import Tensor, fx

from hippynn_mf.errors import UserError
from hippynn_mf.model.heads import Heads
from hippynn_mf.model.whole_model import ENERGY, FORCES, HIERARCHICALITY, Layout
from hippynn_mf.network.batched_products import rearrange
from hippynn_mf.network.padded import (
    PaddedBatch,
    PaddedSums,
    Sizes,
    SizeSteps,
    atoms_of_places,
    sizes_needed,
)

BACKEND = "inductor"  # of torch.compile
REMEDY = "Take interaction=auto or fast, the same function of the same parameters."

Outputs = tuple[Tensor, ...]


class PaddedModel(torch.nn.Module):
    """The outputs of a training as a function of a padded batch, forces by their atoms.

    Of the modules of a model, which stay the same objects.
    """

    def __init__(self, heads: Heads, outputs: Sequence[tuple[str, int]]) -> None:
        super().__init__()
        self.network = heads.network.torch_module
        self.heads = torch.nn.ModuleList(head.energy.torch_module for head in heads.values())
        places = {head.level: place for place, head in enumerate(heads.values())}
        self.bases = [None if h.base is None else places[h.base] for h in heads.values()]
        # In one order, where that of a graph differs from process to process: what has been
        # compiled before is found again.
        self.outputs = sorted(set(outputs))

    def forward(self, n_structures: int, batch: PaddedBatch) -> Outputs:
        """Energies and hierarchicalities (n_structures, 1), forces (n_atoms, 3); as `outputs`.

        The species of the batch are one-hot here.
        """
        positions = batch.positions.detach().requires_grad_(True)
        sums = PaddedSums.of(batch, positions, self.network._interaction_class.tensor_order)
        features = self.network.through_blocks(batch.species.to(positions.dtype), sums)
        found: list[Any] = []
        for head, base in zip(self.heads, self.bases, strict=True):
            lower = () if base is None else found[base][:2]
            # One structure more, for the atoms that fill up.
            found.append(head(features, batch.structure, n_structures + 1, *lower))
        outputs = []
        for kind, level in self.outputs:
            energies, _, _, hierarchicalities, *_ = found[level]
            if kind == FORCES:
                energy = energies[:n_structures].sum()
                (slope,) = torch.autograd.grad(energy, positions, create_graph=True)
                outputs.append(-slope)
            else:
                of_kind = {ENERGY: energies, HIERARCHICALITY: hierarchicalities}[kind]
                outputs.append(of_kind[:n_structures])
        return tuple(outputs)


@dataclass
class Tracer:
    """A padded model, and what has been compiled of it: one function for each size.

    Not a module: the parameters belong to the graph.
    """

    model: PaddedModel
    encoder: Any
    layout: Layout
    steps: SizeSteps
    backend: str = field(default_factory=lambda: BACKEND)
    compiled: dict[Any, Callable[..., Outputs]] = field(default_factory=dict)

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers by name, those of every module once."""
        found: dict[str, Tensor] = {}
        for prefix, module in self.model.named_modules(prefix="model"):
            own = [*module._parameters.items(), *module._buffers.items()]
            found |= {f"{prefix}.{name}": each for name, each in own if each is not None}
        return {name.removeprefix("model."): each for name, each in found.items()}

    def arguments(self) -> list[Tensor]:
        """Parameters and buffers, those which modules have in common once."""
        return list(dict.fromkeys(self.tensors().values()))

    def padded(self, inputs: Sequence[Tensor]) -> tuple[Sizes, PaddedBatch]:
        """A batch filled up, its species one-hot."""
        species, positions, pairs = (inputs[place] for place in self.layout.inputs)
        sizes = self.steps.at_least(sizes_needed(species, pairs))
        batch = PaddedBatch.of(species, positions, pairs, sizes)
        encoded, _ = self.encoder(batch.species.unsqueeze(0))
        return sizes, batch._replace(species=encoded.squeeze(0))

    def unpadded(self, outputs: Outputs, species: Tensor) -> Outputs:
        """Outputs as the graph has them: forces (n, n_atoms_max, 3), zero where no atom is."""
        n_structures, n_places = species.shape
        found = []
        by_name = dict(zip(self.model.outputs, outputs, strict=True))
        for kind, level in self.layout.outputs:
            output = by_name[kind, level]
            if kind != FORCES:
                found.append(output[:n_structures])
                continue
            places, atoms, n_found = atoms_of_places(species, len(output))
            no_atom = (species == 0).view(-1, 1)
            filling = torch.arange(len(output), device=output.device) >= n_found
            rows = rearrange(output, atoms, places, no_atom, filling.unsqueeze(1))
            found.append(rows.view(n_structures, n_places, 3))
        return tuple(found)

    def function(self, sizes: Sizes, batch: PaddedBatch) -> Callable[[PaddedBatch], Outputs]:
        """The compiled function of batches of a size, made at its first call.

        Raises UserError where it cannot be compiled.
        """
        key = sizes, batch.positions.dtype, batch.positions.device
        if key not in self.compiled:
            try:
                self.compiled[key] = self._compile(sizes, batch)
            except Exception as error:
                raise compiling_failed(error) from error
        compiled = self.compiled[key]
        return lambda padded: tuple(compiled(*self.arguments(), *padded))

    def as_function(self, sizes: Sizes) -> Callable[..., Outputs]:
        """The outputs of batches of a size, of the tensors of `arguments` and those of a batch."""
        model, arguments = self.model, self.arguments()
        order = {id(each): place for place, each in enumerate(arguments)}
        places = {name: order[id(each)] for name, each in self.tensors().items()}

        def outputs(*given: Tensor) -> Outputs:
            tensors = {name: given[place] for name, place in places.items()}
            padded = PaddedBatch(*given[len(arguments) :])
            # torch would put tensors that modules share into both, and take the second for what
            # has been in the first.
            with _without_warnings():
                found: Outputs = torch.func.functional_call(
                    model, tensors, (sizes.n_structures, padded), tie_weights=False
                )
            return found

        return outputs

    def _compile(self, sizes: Sizes, batch: PaddedBatch) -> Callable[..., Outputs]:
        from torch._dynamo import lookup_backend

        # A graph of one node, into which the backend traces: torch.compile itself would want to
        # read the Python of hippynn's modules, and does not differentiate inside.
        given = [*self.arguments(), *batch]
        graph = fx.Graph()
        inputs = [graph.placeholder(f"input_{k}") for k in range(len(given))]
        call = graph.call_function(self.as_function(sizes), tuple(inputs))
        n_outputs = len(self.model.outputs)
        graph.output(
            tuple(graph.call_function(operator.getitem, (call, k)) for k in range(n_outputs))
        )
        module = fx.GraphModule(torch.nn.Module(), graph)
        compiled: Callable[..., Outputs] = lookup_backend(self.backend)(module, given)
        return compiled


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Inside, hippynn does not look at distances, whose numbers are not known while it is traced.

    It warns of atoms too near to each other when the graph is evaluated.
    """
    before = hippynn.settings.WARN_LOW_DISTANCES
    hippynn.settings.WARN_LOW_DISTANCES = False
    try:
        yield
    finally:
        hippynn.settings.WARN_LOW_DISTANCES = before


def compiling_failed(error: Exception) -> UserError:
    """What a user is told where torch's compiler fails."""
    first, *_ = [line for line in str(error).splitlines() if line.strip()] or [""]
    return UserError(
        f"interaction=traced: torch could not compile ({type(error).__name__}: {first[:300]}). "
        + REMEDY
    )
