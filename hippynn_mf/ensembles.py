"""Several members of an ensemble in one pass, on weights stacked member by member.

The structures are repeated for every member, and each layer multiplies the rows of a member with
its weights. There is no more arithmetic than in one pass per member, but as few calls as in a
single one: that pays where calls cost more than arithmetic, as for single molecules on a CPU.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from hippynn.graphs import GraphModule
from hippynn.layers.hiplayers import InteractLayer
from torch import Tensor, nn

from hippynn_mf.data.structures import refuse_unknown_species
from hippynn_mf.errors import UserError
from hippynn_mf.interaction import by_member
from hippynn_mf.models import Model


class StackedLinear(nn.Module):
    """Linear layers of several members: rows (n_members * n, in) to (n_members * n, out)."""

    def __init__(self, members: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = _stacked([member.weight.t() for member in members])
        has_bias = members[0].bias is not None
        self.bias = _stacked([member.bias for member in members]) if has_bias else None

    def forward(self, rows: Tensor) -> Tensor:
        """Rows of every member times its weights."""
        if self.bias is None:
            return by_member(rows, self.weight)
        members = rows.view(len(self.weight), -1, rows.shape[1])
        return torch.baddbmm(self.bias.unsqueeze(1), members, self.weight).flatten(0, 1)


class StackedRows(nn.Module):
    """Any modules of several members that work row by row, one after the other."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(copy.deepcopy(member) for member in members)

    def forward(self, rows: Tensor) -> Tensor:
        """Rows of every member through its module."""
        parts = rows.view(len(self.members), -1, *rows.shape[1:])
        return torch.cat([member(part) for member, part in zip(self.members, parts, strict=True)])


def stack_modules(members: Sequence[nn.Module]) -> nn.Module:
    """One module that does for every member's rows what that member does.

    Of networks of this package and heads of hippynn; the members are not changed.
    """
    first = members[0]
    if isinstance(first, nn.Linear):
        return StackedLinear([m for m in members if isinstance(m, nn.Linear)])
    stacked = copy.deepcopy(first)
    for name in first._modules:
        children = [member._modules[name] for member in members]
        if isinstance(first, InteractLayer) and name == "sensitivity":
            stacked._modules[name] = StackedRows([c for c in children if c is not None])
        else:
            stacked._modules[name] = stack_modules([c for c in children if c is not None])
    for name, parameter in first._parameters.items():
        if parameter is not None:
            stacked._parameters[name] = _stacked([m.get_parameter(name) for m in members])
    return stacked


def _stacked(tensors: Sequence[Tensor]) -> nn.Parameter:
    return nn.Parameter(torch.stack([t.detach().to(tensors[0].device) for t in tensors]))


def stack_heads_and_network(graph: GraphModule, members: Sequence[Model]) -> None:
    """Let a graph of the first member work on structures repeated for every member.

    The graph has modules of its own afterwards.
    """
    first = members[0]
    nodes = {first.heads.network: [member.heads.network for member in members]}
    nodes |= {first.heads[k].energy: [m.heads[k].energy for m in members] for k in first.heads}
    for node, name in graph.names_dict.items():
        if node in nodes:
            graph.moddict[name] = stack_modules([each.torch_module for each in nodes[node]])
        elif name in graph.moddict:
            graph.moddict[name] = copy.deepcopy(graph.moddict[name])


def _architecture(model: Model) -> dict[str, Any]:
    """All that members must share: everything but the values of their parameters."""
    network = model.heads.network.torch_module
    shapes = {name: tuple(p.shape) for name, p in model.parameters.named_parameters()}
    return {
        "levels and forces": [(k, h.forces is not None) for k, h in model.heads.items()],
        "sizes": shapes,
        "species": model.species_set,
        "cut-off": network.dist_hard_max,
        "modules": repr(model.parameters),
        "constants": {
            (name, key): value
            for name, module in network.named_modules()
            for key, value in vars(module).items()
            if isinstance(value, (bool, int, float, str)) and key != "training"
        },
    }


class Ensemble:
    """Members that predict together.

    Raises UserError unless they differ in the values of their parameters only, and have the fast
    interaction. The members are copied.
    """

    def __init__(self, members: Sequence[Model], device: torch.device | str = "cpu") -> None:
        if not members:
            raise UserError("An ensemble needs at least one model.")
        self.members = list(members)
        expected = _architecture(members[0])
        for number, member in enumerate(members):
            for what, found in _architecture(member).items():
                if found != expected[what]:
                    raise UserError(
                        f"Model {number} of the ensemble has other {what} than model 0. Members "
                        "differ in the values of their parameters only."
                    )
        first = self.members[0]
        network = first.heads.network.torch_module
        if not hasattr(network, "atoms_per_block"):
            raise UserError("An ensemble needs the fast interaction: load with interaction=fast.")
        if network.atoms_per_block is not None:
            raise UserError("An ensemble cannot work in blocks of atoms: set atoms_per_block=None.")
        self.predictor = first.predictor(device=None)
        stack_heads_and_network(self.predictor.graph, self.members)
        self.predictor.model_device = torch.device(device)

    def predict(
        self, species: np.ndarray, positions: np.ndarray, *, batch_size: int
    ) -> dict[str, np.ndarray]:
        """Labels of every head and member, by name.

        Energies (n_members, n) in kcal/mol without self energies, forces
        (n_members, n, n_atoms_max, 3) in kcal/mol/Å, 0 for padding. Atoms outside the species of
        the members are a UserError.
        """
        if not len(species):
            raise UserError("There is no structure to predict.")
        first = self.members[0]
        refuse_unknown_species(species, first.species_set)
        names = [head.level.energy_name for head in first.heads.values()]
        names += [h.level.forces_name for h in first.heads.values() if h.forces is not None]
        parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
        for start in range(0, len(species), batch_size):
            rows = slice(start, start + batch_size)
            outputs = self._predict_batch(species[rows], positions[rows])
            for name, array in outputs.items():
                parts[name].append(array)
        return {name: np.concatenate(arrays, axis=1) for name, arrays in parts.items()}

    def _predict_batch(self, species: np.ndarray, positions: np.ndarray) -> dict[str, np.ndarray]:
        n_members, model = len(self.members), self.members[0]
        dtype = torch.get_default_dtype()
        values = {
            model.species: torch.as_tensor(species, dtype=torch.int64).repeat(n_members, 1),
            model.positions: torch.as_tensor(positions, dtype=dtype).repeat(n_members, 1, 1),
        }
        outputs = self.predictor(node_values=values)
        arrays = {}
        for name in self.predictor.out_dbnames:
            array = outputs[name].numpy()
            shape = array.shape[1:] if array.ndim > 2 else ()  # an energy has an axis of one
            arrays[name] = array.reshape(n_members, len(species), *shape)
        return arrays
