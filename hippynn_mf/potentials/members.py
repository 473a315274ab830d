"""Members of an ensemble on stacked weights, for energies and their first derivatives.

Members see the same atoms. Pairs, their layouts and tensor components are computed once; weights
are multiplied member by member in as few calls as those of one member.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from hippynn.layers.targets import HEnergy
from torch import Tensor, nn

from hippynn_mf.model.model import Model
from hippynn_mf.network.hipnn import CompiledForward
from hippynn_mf.network.interaction import WholeSystem
from hippynn_mf.network.pair_layouts import PairList, quadrupole_basis
from hippynn_mf.potentials.stacking import stack_modules


@dataclass(frozen=True)
class Geometry:
    """Atoms by their one-hot elements (n_atoms, n_elements), and their directed pairs.

    `receivers` and `senders` (n_pairs,) number atoms; `vectors` (n_pairs, 3) from one to the other
    are in Å. `tensor_order` is ℓ of the networks. Systems have `sizes` atoms, one after another,
    and no pairs with each other.
    """

    one_hot: Tensor
    receivers: Tensor
    senders: Tensor
    vectors: Tensor
    tensor_order: int
    sizes: list[int]

    @cached_property
    def whole(self) -> WholeSystem:
        """Layouts and tensor components of the pairs."""
        distances, n_atoms = self.vectors.norm(dim=1), len(self.one_hot)
        pair_list = PairList(
            self.receivers, self.senders, distances, self.vectors, n_atoms, n_atoms
        )
        return WholeSystem.of(pair_list, self.one_hot, self.tensor_order)


@dataclass(frozen=True)
class Slopes:
    """What members say of the atoms together, in kcal/mol and Å.

    Attributes:
        energies: level id → energies of the atoms (n_members, n_atoms).
        by_vector: level id → derivative of their sum by the vectors (n_members, n_pairs, 3).
    """

    energies: dict[str, Tensor]
    by_vector: dict[str, Tensor]


class Alone(nn.Module):
    """One member as it is: any network, also in blocks of atoms."""

    def __init__(self, model: Model, atoms_per_block: int | None) -> None:
        super().__init__()
        self.network: Any = copy.deepcopy(model.heads.network.torch_module)
        if atoms_per_block is not None:
            self.network.atoms_per_block = atoms_per_block
        self.heads = nn.ModuleDict(
            {k: copy.deepcopy(head.energy.torch_module) for k, head in model.heads.items()}
        )

    def features(self, geometry: Geometry, vectors: Tensor) -> list[Tensor]:
        """What every block makes of the atoms (n_atoms, n_features), the elements first."""
        pairs = geometry.receivers, geometry.senders
        # hippynn's network of ℓ = 0 takes no vectors.
        inputs = (vectors.norm(dim=1), vectors)[: 1 + (geometry.tensor_order > 0)]
        found: list[Tensor] = self.network(geometry.one_hot, *pairs, *inputs)
        return found

    def forward(self, geometry: Geometry, slopes_of: Sequence[str]) -> Slopes:
        """Energies of all levels, and slopes of some."""
        with torch.set_grad_enabled(bool(slopes_of)):
            vectors = geometry.vectors.detach().requires_grad_(bool(slopes_of))
            features = self.features(geometry, vectors)
            energies = {k: _energies_of_atoms(head, features) for k, head in self.heads.items()}
        slopes = {}
        for place, name in enumerate(slopes_of):
            more = place + 1 < len(slopes_of)
            (gradients,) = torch.autograd.grad(energies[name].sum(), vectors, retain_graph=more)
            slopes[name] = gradients.unsqueeze(0)
        return Slopes({k: e.detach().view(1, -1) for k, e in energies.items()}, slopes)


class Compiled(nn.Module):
    """One member in compiled calls; networks with the compiled interaction and linear heads.

    Parameters are those of the first call. Systems are shared among the threads that torch has.
    """

    def __init__(self, alone: Alone) -> None:
        super().__init__()
        self.alone = alone
        self.names = list(alone.heads)

    @cached_property
    def whole(self) -> tuple[Any, Any]:
        """The network as passes take it, and its parameters."""
        from hippynn_mf.network.compiled.blocks import blocks_of
        from hippynn_mf.network.compiled.vector import ParameterLayout
        from hippynn_mf.network.compiled.whole import Parameters, Readout, WholeNetwork

        heads: Any = self.alone.heads.values()
        network: Any = self.alone.network
        layers = [list(head.layers) for head in heads]
        layout = ParameterLayout(
            blocks_of(network),
            [[layer.weight for layer in of_head] for of_head in layers],
            [[layer.bias for layer in of_head[1:]] for of_head in layers],
        )
        n_elements = layers[0][0].weight.shape[1]
        readout = Readout(np.eye(len(layers)), [])
        tensor_order = int(network._interaction_class.tensor_order)
        vector, n = layout.vector(), layout.n_inner
        return (
            WholeNetwork(layout, readout, np.arange(n_elements + 1), n_elements, tensor_order),
            Parameters(vector[:n], vector[n:].reshape(len(layers), -1)),
        )

    def forward(self, geometry: Geometry, slopes_of: Sequence[str]) -> Slopes:
        """Energies of all levels, and slopes of some."""
        from hippynn_mf.network.compiled.shares import run_systems

        network, parameters = self.whole
        energies, slopes = run_systems(
            network,
            parameters,
            geometry.one_hot.to(torch.uint8).argmax(dim=1).numpy() + 1,
            torch.stack([geometry.receivers, geometry.senders], dim=1).numpy(),
            geometry.vectors.detach().contiguous().numpy(),
            geometry.sizes,
            [self.names.index(name) for name in slopes_of],
        )
        by_level, by_vector = map(torch.from_numpy, (energies, slopes))
        return Slopes(
            dict(zip(self.names, torch.split(by_level, 1), strict=True)),
            {name: by_vector[k : k + 1] for k, name in enumerate(slopes_of)},
        )

    @staticmethod
    def is_possible(alone: Alone, device: torch.device, dtype: torch.dtype) -> bool:
        """Whether a member can be computed so; the first time, it may have to be compiled."""
        network, heads = alone.network, alone.heads.values()
        if not isinstance(network, CompiledForward) or network.why_fast(device, dtype) is not None:
            return False
        return all(type(head) is HEnergy and not head.first_is_interacting for head in heads)


class Stacked(nn.Module):
    """Members on stacked weights, or one; networks of this package, without blocks of atoms."""

    def __init__(self, models: Sequence[Model]) -> None:
        super().__init__()
        self.n = len(models)
        networks = [model.heads.network.torch_module for model in models]
        self.network: Any = stack_modules(networks)
        self.heads = nn.ModuleDict(
            {
                name: stack_modules([model.heads[name].energy.torch_module for model in models])
                for name in models[0].heads
            }
        )

    def forward(self, geometry: Geometry, slopes_of: Sequence[str]) -> Slopes:
        """Energies of all levels, and slopes of some."""
        whole = geometry.whole.repeated(self.n)
        # Members share atoms but not derivatives: each has its own copy of what is differentiated.
        inputs = [whole.pairs.distances, whole.pairs.components]
        with torch.set_grad_enabled(bool(slopes_of)):
            for differentiated in inputs:
                differentiated.requires_grad_(bool(slopes_of))
            elements = geometry.one_hot.to(inputs[0].dtype).repeat(self.n, 1)
            features = self.network.through_blocks(elements, whole)
            energies = {k: _energies_of_atoms(head, features) for k, head in self.heads.items()}
        slopes = {}
        slot_of_pair = geometry.whole.pairs.receivers.slot_of_pair
        for place, name in enumerate(slopes_of):
            more = place + 1 < len(slopes_of)
            gradients = torch.autograd.grad(energies[name].sum(), inputs, retain_graph=more)
            component_slopes = gradients[1].view(self.n, -1, gradients[1].shape[1])[:, slot_of_pair]
            distance_slopes = gradients[0].view(self.n, -1)
            slopes[name] = vector_slopes(geometry.vectors, distance_slopes, component_slopes)
        return Slopes({k: e.detach().view(self.n, -1) for k, e in energies.items()}, slopes)


def _energies_of_atoms(head: Any, features: Sequence[Tensor]) -> Tensor:
    """Hippynn's `HEnergy` without what it says of molecules: a sum over the blocks."""
    used = features[1:] if head.first_is_interacting else features
    terms = [layer(block) for layer, block in zip(head.layers, used, strict=True)]
    return torch.stack(terms).sum(dim=0)


def vector_slopes(vectors: Tensor, distance_slopes: Tensor, component_slopes: Tensor) -> Tensor:
    """Derivatives by the vectors (n_pairs, 3), from those by distances and tensor components.

    `of_distances` (..., n_pairs) and `of_components` (..., n_pairs, 1, 4 or 9) give
    (..., n_pairs, 3): what autograd does through `tensor_components`, without a graph, for several
    functions at once.
    """
    distances = vectors.norm(dim=1, keepdim=True)
    unit, n_components = vectors / distances, component_slopes.shape[-1]
    radial = distance_slopes.unsqueeze(-1) * unit
    if n_components == 1:
        return radial
    unit_slopes = component_slopes[..., 1:4]
    if n_components == 9:
        product_slopes = component_slopes[..., 4:] @ quadrupole_basis(unit).t()
        symmetric = product_slopes.view(*unit_slopes.shape, 3)
        unit_slopes = unit_slopes + 2 * (symmetric * unit.unsqueeze(1)).sum(dim=-1)
    along = (unit_slopes * unit).sum(dim=-1, keepdim=True)
    return radial + (unit_slopes - along * unit) / distances
