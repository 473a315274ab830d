"""Energies of all levels and forces of any, of every member, in one pass over the trunk.

The pairs' vectors are what energies are differentiated by: forces are sums over an atom's pairs,
and the virial is the sum of vector times derivative over a system's. So open and periodic systems
are one case, and members share the search for pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import nn

from hippynn_mf.errors import UserError, unknown_name_message
from hippynn_mf.levels import Level
from hippynn_mf.network.device import choose_device
from hippynn_mf.network.hipnn import CompiledForward
from hippynn_mf.potentials.members import Alone, Compiled, Geometry, Stacked
from hippynn_mf.potentials.potential import Potential
from hippynn_mf.potentials.systems import Systems
from hippynn_mf.units import EV_PER_HARTREE, EV_PER_KCAL_PER_MOL

# Members go together as long as their largest array, the weighted features, has so many numbers:
# stacked weights save calls, not arithmetic, and larger arrays leave the cache
# (`scripts/benchmark_ensemble.py`).
LARGEST_ARRAY = 2**20
DTypeName = Literal["float32", "float64"]
DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "float64": torch.float64}


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


class Evaluator:
    """Evaluates a potential.

    Args:
        potential: the members.
        dtype: float64 for optimisation and vibrations, float32 for speed.
        device: `cpu`, `cuda`, `cuda:N`, or `auto`.
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
        self.potential, self.dtype, self.device = potential, dtype, choose_device(str(device))
        if atoms_per_block is not None and (
            not isinstance(atoms_per_block, int) or atoms_per_block < 1
        ):
            raise UserError(
                f"atoms_per_block is a number of atoms from 1 on, not {atoms_per_block!r}."
            )
        network = potential.members[0].heads.network.torch_module
        self.cutoff = float(network.dist_hard_max)
        self.species = potential.card.species
        has_blocks = hasattr(network, "atoms_per_block")
        if atoms_per_block is not None and not has_blocks:
            raise UserError(
                "Blocks of atoms need the fast interaction; this model has interaction=stock."
            )
        self.tensor_order = potential.card.hyperparameters.tensor_order
        self.atoms_per_block = atoms_per_block
        self.has_stacked = has_blocks and atoms_per_block is None
        self.stacked: dict[tuple[int, int], nn.Module] = {}
        numbers = np.arange(len(chemical_symbols))
        self.is_known = {
            level.id: np.isin(numbers, potential.card.species_of(level.id))
            for level in potential.levels
        }

    @classmethod
    def of(
        cls,
        model: str | Path | Potential,
        *,
        dtype: DTypeName = "float64",
        device: torch.device | str = "cpu",
        atoms_per_block: int | None = None,
    ) -> Self:
        """That of a model file, the name of a shipped model, or a `Potential`.

        Raises UserError for an unknown `dtype`, and for a file that cannot be read.
        """
        if dtype not in DTYPES:
            raise UserError(unknown_name_message("dtype", dtype, DTYPES))
        potential = model if isinstance(model, Potential) else Potential.load(model)
        return cls(potential, dtype=DTYPES[dtype], device=device, atoms_per_block=atoms_per_block)

    @cached_property
    def alone(self) -> list[nn.Module]:
        """The members one by one, made when they are first needed."""
        members = [Alone(model, self.atoms_per_block) for model in self.potential.members]
        for member in members:
            self._prepared(member)
        if Compiled.is_possible(members[0], self.device, self.dtype):
            return [Compiled(member) for member in members]
        return list(members)

    @cached_property
    def is_compiled(self) -> bool:
        """Whether a member alone is compiled; the first time, it may have to be."""
        first = self.alone[0]
        network = first.alone.network if isinstance(first, Compiled) else first.network
        if not isinstance(network, CompiledForward):
            return False
        return network.why_fast(self.device, self.dtype) is None

    def _prepared(self, members: nn.Module) -> nn.Module:
        return members.requires_grad_(False).to(device=self.device, dtype=self.dtype).eval()

    def _groups(self, n_atoms: int) -> list[nn.Module]:
        """Members that go together, made when they are first needed."""
        if not self.has_stacked:
            return self.alone
        n_members, sizes = len(self.potential.members), self.potential.card.hyperparameters
        member_size = n_atoms * sizes.n_features * sizes.n_sensitivities
        size = min(n_members, max(1, LARGEST_ARRAY // member_size))
        # One compiled call is less than one stacked, but a few of them are not.
        if (n_members == 1 or size < n_members) and self.is_compiled:
            return self.alone
        groups = []
        for first in range(0, n_members, size):
            key = first, min(first + size, n_members)
            if key not in self.stacked:
                self.stacked[key] = self._prepared(Stacked(self.potential.members[slice(*key)]))
            groups.append(self.stacked[key])
        return groups

    def __call__(
        self, systems: Systems, forces_of: Sequence[Level] = (), *, virials: bool = False
    ) -> Surfaces:
        """Energies of every level, and forces (and virials) of the levels in `forces_of`.

        A level whose labels do not cover the elements of a system has no energy (NaN) of it; to ask
        for its forces is a UserError.
        """
        for level in forces_of:
            self.refuse_other_elements(systems, level)
        names = [level.id for level in forces_of]
        # Forces are derivatives, also for callers who want no gradients of their own.
        with torch.inference_mode(False), torch.enable_grad():
            with torch.no_grad():
                geometry = self.geometry(systems)
            parts = [members(geometry, names) for members in self._groups(len(systems.numbers))]
        energies = {k: torch.cat([part.energies[k] for part in parts]) for k in parts[0].energies}
        surfaces = Surfaces({}, {}, {}, {})
        for level in self.potential.levels:
            kcal_per_mol = energies[level.id].double().cpu().numpy()
            atomic_energies = kcal_per_mol * EV_PER_KCAL_PER_MOL + self._self_energies(
                systems, level
            )
            surfaces.atomic_energies[level.id] = atomic_energies
            starts = np.cumsum([0, *systems.sizes[:-1]])
            known = self.is_known[level.id][systems.numbers.numpy()]
            atomic_energies[:, ~known] = np.nan
            surfaces.energies[level.id] = np.add.reduceat(atomic_energies, starts, axis=1)
        for name in names:
            slopes_by_member = torch.cat([part.by_vector[name] for part in parts])
            slopes = slopes_by_member.double().cpu() * EV_PER_KCAL_PER_MOL
            n = len(slopes)
            forces = torch.zeros(n, len(systems.numbers), 3, dtype=torch.float64)
            forces.index_add_(1, systems.receivers, slopes).index_add_(1, systems.senders, -slopes)
            surfaces.forces[name] = forces.numpy()
            if virials:
                products = systems.vectors.unsqueeze(2) * slopes.unsqueeze(2)
                sums = torch.zeros(n, len(systems), 3, 3, dtype=torch.float64)
                system_of_pair = systems.system_of_atom[systems.receivers]
                surfaces.virials[name] = sums.index_add_(1, system_of_pair, products).numpy()
        return surfaces

    def refuse_other_elements(self, systems: Systems, level: Level) -> None:
        """Raise UserError for elements that a level was not trained on."""
        numbers = systems.numbers.numpy()
        is_known = self.is_known[level.id][numbers]
        if not is_known.all():
            known, others = self.potential.card.species_of(level.id), np.unique(numbers[~is_known])
            raise UserError(
                f"Level {level.label} ({level.id}) of this model was not trained on "
                f"{', '.join(chemical_symbols[z] for z in others)}, only on "
                f"{', '.join(chemical_symbols[z] for z in known)}. Predict these structures at "
                "another level, or train with labels that cover them."
            )

    def geometry(self, systems: Systems) -> Geometry:
        """Atoms and pairs as networks of this device and number type take them."""
        elements = torch.tensor(self.species)
        return Geometry(
            (systems.numbers.unsqueeze(1) == elements).to(self.device),
            systems.receivers.to(self.device),
            systems.senders.to(self.device),
            systems.vectors.to(device=self.device, dtype=self.dtype),
            self.tensor_order,
            systems.sizes,
        )

    def _self_energies(self, systems: Systems, level: Level) -> np.ndarray:
        """Self energies (n_atoms,) in eV."""
        return level.self_energies_of(systems.numbers.numpy()) * EV_PER_HARTREE
