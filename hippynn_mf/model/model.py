"""A multi-fidelity model: the nodes from species and positions to every level's labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numba
import torch
from hippynn.graphs.nodes.indexers import acquire_encoding_padding
from hippynn.graphs.nodes.inputs import CellNode, PositionsNode, SpeciesNode

from hippynn_mf.hyperparameters import Hyperparameters
from hippynn_mf.keys import CELL, POSITIONS, SPECIES
from hippynn_mf.labels import Labels
from hippynn_mf.levels import Level
from hippynn_mf.model.heads import Heads, build_heads
from hippynn_mf.network.cell_pairs import CellPairIndexer
from hippynn_mf.network.hipnn import NETWORKS


@dataclass(frozen=True)
class Model:
    """The nodes of a model, and its parameters under names that do not depend on a graph.

    `corrections` has the network of a level whose energy is the next lower one plus its own;
    `cell` is the input of periodic structures, None of a model for molecules.
    """

    species: SpeciesNode
    positions: PositionsNode
    heads: Heads
    corrections: Mapping[str, Any] = field(default_factory=dict)
    cell: CellNode | None = None

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


def build_model(
    hyperparameters: Hyperparameters,
    labels: Labels,
    *,
    has_second_network: bool = False,
    periodic: bool = False,
    bases: Mapping[Level, Level] | None = None,
) -> Model:
    """Build a model with fresh weights, drawn from torch's global random state.

    With `has_second_network`, the highest level's energy is that of the next lower one plus the
    energy of another network of the same size, as in Δ-learning. With `periodic`, it has an input
    for cells, and structures may be molecules or crystals. `bases` are those of `build_heads`.
    numba gets no more threads than torch has.
    """
    limit_numba()
    species = SpeciesNode(db_name=SPECIES)
    positions = PositionsNode(db_name=POSITIONS)
    networks = NETWORKS[hyperparameters.interaction]
    network_class = networks[hyperparameters.tensor_order]
    arguments = hyperparameters.network_arguments()
    cell = CellNode(db_name=CELL) if periodic else None
    parents = (species, positions)
    if cell is not None:
        parents = _pairs_in_cells(species, positions, cell, hyperparameters)
    network = network_class("network", parents, module_kwargs=arguments)
    coupling = hyperparameters.coupling
    if not has_second_network:
        heads = build_heads(network, labels, coupling=coupling, bases=bases)
        return Model(species, positions, heads, cell=cell)
    correction = network_class("correction", parents, module_kwargs=arguments)
    *_, highest = labels
    heads = build_heads(network, labels, coupling=coupling, own_networks={highest: correction})
    return Model(species, positions, heads, {highest.id: correction}, cell)


def _pairs_in_cells(
    species: SpeciesNode, positions: PositionsNode, cell: CellNode, hyperparameters: Hyperparameters
) -> tuple[Any, Any]:
    """What a network with cells is made of: its atoms, and their pairs."""
    encoder, indexer = acquire_encoding_padding(species, torch.tensor(hyperparameters.species))
    places = (encoder.nonblank, indexer.real_atoms, indexer.inv_real_atoms)
    finder = CellPairIndexer(
        "pairs_in_cells", (positions, *places, cell), hyperparameters.dist_hard_max
    )
    return indexer, finder


def limit_numba() -> None:
    """Let this thread's numba use no more threads than torch does.

    For scripts and other programs, which set torch's; numba would start one for every core.
    """
    n_threads = torch.get_num_threads()  # before numba, which sets it where both use OpenMP
    numba.set_num_threads(min(numba.get_num_threads(), n_threads))
    torch.set_num_threads(n_threads)


def trunk_of_state(state: Mapping[str, torch.Tensor]) -> tuple[tuple[int, ...] | None, int]:
    """What a state dict of `Model.parameters` says of its trunk, before any is built.

    The shape (n_sensitivities, n_features, n_species) of the first interaction layer, None without
    one, and how many interaction and atom layers there are.
    """
    first = state.get("network.blocks.0.0.base_layer.int_weights")
    layers = {tuple(name.split(".")[2:4]) for name in state if name.startswith("network.blocks.")}
    return None if first is None else tuple(first.shape), len(layers)
