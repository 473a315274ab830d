"""A multi-fidelity model: the nodes from species and positions to every level's labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from hippynn.graphs import Predictor
from hippynn.graphs.nodes.inputs import PositionsNode, SpeciesNode

from hippynn_mf.data.structures import refuse_unknown_species
from hippynn_mf.hyperparameters import Hyperparameters
from hippynn_mf.keys import POSITIONS, SPECIES
from hippynn_mf.labels import Labels, Properties
from hippynn_mf.levels import Level
from hippynn_mf.model.heads import Heads, build_heads
from hippynn_mf.network.final_gradients import FinalGradientNode
from hippynn_mf.network.hipnn import NETWORKS


@dataclass(frozen=True)
class Model:
    """The nodes of a model, and its parameters under names that do not depend on a graph.

    `corrections` has the network of a level whose energy is the next lower one plus its own.
    """

    species: SpeciesNode
    positions: PositionsNode
    heads: Heads
    corrections: Mapping[str, Any] = field(default_factory=dict)

    @property
    def species_set(self) -> list[int]:
        """Atomic numbers that the model has an input for, with 0, the padding."""
        return list(self.heads.network.torch_module.species_set.tolist())

    @property
    def parameters(self) -> torch.nn.ModuleDict:
        """Trunk and heads: `state_dict` keys start with `network.` or `heads.<level id>.`.

        Those of a second network start with `corrections.<level id>.`.
        """
        heads = {level_id: head.energy.torch_module for level_id, head in self.heads.items()}
        parts = {"network": self.heads.network.torch_module, "heads": torch.nn.ModuleDict(heads)}
        if self.corrections:
            networks = {level_id: node.torch_module for level_id, node in self.corrections.items()}
            parts["corrections"] = torch.nn.ModuleDict(networks)
        return torch.nn.ModuleDict(parts)

    def predictor(
        self, device: torch.device | str | None = "cpu", *, level: Level | None = None
    ) -> Predictor:
        """Predictor (hippynn's) of every head's energy, and of its forces where it has them.

        With `level`, of that head alone. Its forces cannot be differentiated again. The model moves
        to the device, unless it is None.
        """
        heads = [head for head in self.heads.values() if level in (None, head.level)]
        nodes = [head.energy.main_output for head in heads]
        nodes += [self._final_forces[h.level] for h in heads if h.level in self._final_forces]
        return Predictor([self.species, self.positions], nodes, model_device=device)

    @cached_property
    def _final_forces(self) -> dict[Level, FinalGradientNode]:
        """Made once: a node stays among the children of its parents."""
        return {
            head.level: FinalGradientNode(
                head.level.forces_name,
                (head.energy, self.positions),
                sign=-1,
                db_name=head.level.forces_name,
            )
            for head in self.heads.values()
            if head.forces is not None
        }


def build_model(
    hyperparameters: Hyperparameters, labels: Labels, *, has_second_network: bool = False
) -> Model:
    """Build a model with fresh weights, drawn from torch's global random state.

    With `has_second_network`, the highest level's energy is that of the next lower one plus the
    energy of another network of the same size, as in Δ-learning.
    """
    species = SpeciesNode(db_name=SPECIES)
    positions = PositionsNode(db_name=POSITIONS)
    networks = NETWORKS[hyperparameters.interaction]
    network_class = networks[hyperparameters.tensor_order]
    arguments = hyperparameters.network_arguments()
    network = network_class("network", (species, positions), module_kwargs=arguments)
    coupling = hyperparameters.coupling
    if not has_second_network:
        return Model(species, positions, build_heads(network, labels, coupling=coupling))
    own = network_class("correction", (species, positions), module_kwargs=arguments)
    *_, highest = labels
    heads = build_heads(network, labels, coupling=coupling, own_networks={highest: own})
    return Model(species, positions, heads, {highest.id: own})


def predict(
    model: Model,
    species: np.ndarray,
    positions: np.ndarray,
    *,
    batch_size: int,
    device: torch.device | str = "cpu",
) -> dict[str, np.ndarray]:
    """Labels of every head, by name: energies (n,) in kcal/mol, forces (n, n_atoms_max, 3).

    Energies exclude the self energies; forces, in kcal/mol/Å, are 0 for padding. Atoms outside
    the species of the model are a UserError: the network would take them for another element.
    """
    refuse_unknown_species(species, model.species_set)
    predictor = model.predictor(device)
    outputs = predictor(
        node_values={
            model.species: torch.as_tensor(species, dtype=torch.int64),
            model.positions: torch.as_tensor(positions, dtype=torch.get_default_dtype()),
        },
        batch_size=batch_size,
    )
    heads = model.heads.values()
    energies = [head.level.energy_name for head in heads]
    forces = [head.level.forces_name for head in heads if head.forces is not None]
    return {
        **{name: outputs[name].numpy()[:, 0] for name in energies},
        **{name: outputs[name].numpy() for name in forces},
    }


def with_all_forces(labels: Labels) -> Labels:
    """The same levels with forces, for evaluation: a head predicts forces it was not trained on."""
    return dict.fromkeys(labels, Properties.EF)
