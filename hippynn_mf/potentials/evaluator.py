"""Energies of all levels and forces of any, of every member, in one pass over the trunk.

The pairs' vectors are what energies are differentiated by: forces are sums over an atom's pairs,
and the virial is the sum of vector times derivative over a system's. So open and periodic systems
are one case, and members share the search for pairs.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hippynn_mf.data.structures import atomic_energy_sum
from hippynn_mf.ensembles import stack_modules
from hippynn_mf.errors import UserError
from hippynn_mf.levels import Level
from hippynn_mf.models import Model
from hippynn_mf.potentials.potential import Potential
from hippynn_mf.potentials.systems import Systems
from hippynn_mf.units import EV_PER_HARTREE, EV_PER_KCAL_PER_MOL

# Larger batches go through the members one by one: stacked weights save calls, not arithmetic
# (`scripts/benchmark_ensemble.py`), and need the memory of all members at once.
MOST_ATOMS_TOGETHER = 600


@dataclass(frozen=True)
class Surfaces:
    """What members say of systems, float64, in eV and Å.

    Attributes:
        energies: level id → (n_members, n_systems) total energies.
        atomic_energies: level id → (n_members, n_atoms), which add up to the energies.
        forces: level id → (n_members, n_atoms, 3), of the levels asked for.
        virials: level id → (n_members, n_systems, 3, 3), dE/dε of those levels.
    """

    energies: dict[str, np.ndarray]
    atomic_energies: dict[str, np.ndarray]
    forces: dict[str, np.ndarray]
    virials: dict[str, np.ndarray]


class Members(nn.Module):
    """Trunk and heads of one member, or of several on stacked weights."""

    def __init__(self, models: Sequence[Model]) -> None:
        super().__init__()
        self.n = len(models)
        heads = [model.heads for model in models]
        self.network = _stacked([each.network.torch_module for each in heads])
        self.heads = nn.ModuleDict(
            {
                name: _stacked([each[name].energy.torch_module for each in heads])
                for name in heads[0]
            }
        )

    def forward(self, one_hot: Tensor, systems: Systems, vectors: Tensor) -> dict[str, Tensor]:
        """Energy of every atom, level id → (n_members * n_atoms, 1) in kcal/mol.

        `one_hot` (n_atoms, n_elements) is repeated for every member; `vectors`
        (n_members * n_pairs, 3) are repeated already.
        """
        n_atoms, device = len(one_hot), vectors.device
        shift = torch.arange(self.n, device=device).unsqueeze(1) * n_atoms
        receivers = (systems.receivers.to(device) + shift).flatten()
        senders = (systems.senders.to(device) + shift).flatten()
        distances = vectors.norm(dim=1)
        features = self.network(one_hot.repeat(self.n, 1), receivers, senders, distances, vectors)
        one_system = torch.zeros(len(features[0]), dtype=torch.int64, device=device)
        return {
            level_id: head(features, one_system, 1)[1]  # hippynn's energies of the atoms
            for level_id, head in self.heads.items()
        }


def _stacked(modules: Sequence[nn.Module]) -> Any:
    return copy.deepcopy(modules[0]) if len(modules) == 1 else stack_modules(modules)


class Evaluator:
    """Evaluates a potential.

    Args:
        potential: the members.
        dtype: float64 for optimisation and vibrations, float32 for speed.
        device: where torch computes.
        atoms_per_block: work through the atoms in blocks, for systems that do not fit into memory.
    """

    def __init__(
        self,
        potential: Potential,
        *,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
        atoms_per_block: int | None = None,
    ) -> None:
        self.potential, self.dtype, self.device = potential, dtype, torch.device(device)
        network = potential.members[0].heads.network.torch_module
        self.cutoff = float(network.dist_hard_max)
        self.species = potential.card.species
        has_blocks = hasattr(network, "atoms_per_block")
        if atoms_per_block is not None and not has_blocks:
            raise UserError(
                "Blocks of atoms need the fast interaction; this model has interaction=stock."
            )
        groups = [[model] for model in potential.members]
        self.one_by_one = [self._prepared(Members(group)) for group in groups]
        self.together = None
        if len(groups) > 1 and has_blocks and atoms_per_block is None:
            self.together = self._prepared(Members(potential.members))
        if atoms_per_block is not None:
            for members in self.one_by_one:
                members.network.atoms_per_block = atoms_per_block

    def _prepared(self, members: Members) -> Members:
        members.requires_grad_(False)
        return members.to(device=self.device, dtype=self.dtype).eval()

    def __call__(
        self, systems: Systems, forces_of: Sequence[Level] = (), *, virials: bool = False
    ) -> Surfaces:
        """Energies of every level, and forces (and virials) of the levels in `forces_of`."""
        together = self.together if len(systems.numbers) <= MOST_ATOMS_TOGETHER else None
        parts = [
            self._evaluate(members, systems, forces_of, virials)
            for members in ([together] if together else self.one_by_one)
        ]
        joined = {
            name: {
                key: np.concatenate([getattr(part, name)[key] for part in parts]) for key in keys
            }
            for name, keys in ((name, getattr(parts[0], name)) for name in vars(parts[0]))
        }
        return Surfaces(**joined)

    def _evaluate(
        self, members: Members, systems: Systems, forces_of: Sequence[Level], virials: bool
    ) -> Surfaces:
        n, n_atoms = members.n, len(systems.numbers)
        elements = torch.tensor(self.species)
        one_hot = (systems.numbers.unsqueeze(1) == elements).to(self.device)
        vectors = systems.vectors.to(device=self.device, dtype=self.dtype).repeat(n, 1)
        vectors.requires_grad_(bool(forces_of))
        with torch.set_grad_enabled(bool(forces_of)):
            atomic = members(one_hot, systems, vectors)
        surfaces = Surfaces({}, {}, {}, {})
        for level in self.potential.levels:
            of_atoms = atomic[level.id].detach().double().cpu().view(n, n_atoms).numpy()
            total = of_atoms * EV_PER_KCAL_PER_MOL + self._self_energies(systems, level)
            surfaces.atomic_energies[level.id] = total
            starts = np.cumsum([0, *systems.sizes[:-1]])
            surfaces.energies[level.id] = np.add.reduceat(total, starts, axis=1)
        for place, level in enumerate(forces_of):
            (slopes,) = torch.autograd.grad(
                atomic[level.id].sum(), vectors, retain_graph=place + 1 < len(forces_of)
            )
            slopes = slopes.double().cpu().view(n, -1, 3) * EV_PER_KCAL_PER_MOL
            forces = torch.zeros(n, n_atoms, 3, dtype=torch.float64)
            forces.index_add_(1, systems.receivers, slopes).index_add_(1, systems.senders, -slopes)
            surfaces.forces[level.id] = forces.numpy()
            if virials:
                products = systems.vectors.unsqueeze(2) * slopes.unsqueeze(2)
                sums = torch.zeros(n, len(systems), 3, 3, dtype=torch.float64)
                of_pair = systems.system_of_atom[systems.receivers]
                surfaces.virials[level.id] = sums.index_add_(1, of_pair, products).numpy()
        return surfaces

    def _self_energies(self, systems: Systems, level: Level) -> np.ndarray:
        """Self energies (n_atoms,) in eV."""
        return atomic_energy_sum(systems.numbers.numpy()[:, None], level) * EV_PER_HARTREE
