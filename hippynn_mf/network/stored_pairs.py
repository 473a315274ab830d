"""Training graphs that take their pairs from the database instead of finding them in each step."""

from __future__ import annotations

import copy
from typing import Any

import torch
from hippynn.experiment.assembly import TrainingModules
from hippynn.graphs import GraphModule, find_unique_relative, replace_node
from hippynn.graphs.gops import copy_subgraph
from hippynn.graphs.indextypes import IdxType
from hippynn.graphs.nodes.base import AutoNoKw, InputNode, MultiNode
from hippynn.graphs.nodes.pairs import OpenPairIndexer
from hippynn.graphs.nodes.tags import AtomIndexer, Encoder, PairIndexer
from torch import Tensor

from hippynn_mf.data.batches import of_atoms
from hippynn_mf.data.database import TrainingDatabase
from hippynn_mf.data.structures import refuse_unknown_species
from hippynn_mf.errors import UserError
from hippynn_mf.keys import CELL, PAIR_SHIFTS, PAIRS, SPECIES
from hippynn_mf.network.cell_pairs import CellPairIndexer, pair_geometry


class PairGeometry(torch.nn.Module):
    """Distances and vectors of given pairs."""

    def forward(
        self,
        coordinates: Tensor,
        real_atoms: Tensor,
        inv_real_atoms: Tensor,
        pairs: Tensor,
        shifts: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See `pair_geometry`; pairs and shifts of `NeighbourLists`."""
        return pair_geometry(coordinates, real_atoms, inv_real_atoms, pairs, shifts)


class StoredPairs(AutoNoKw, PairIndexer, MultiNode):
    """Pairs that come from the database."""

    _input_names = "coordinates", "real_atoms", "inv_real_atoms", "pairs"
    _auto_module_class = PairGeometry

    def __init__(self, name: str, parents: tuple[Any, ...], dist_hard_max: float) -> None:
        self.dist_hard_max = dist_hard_max
        super().__init__(name, parents)


class StoredCellPairs(StoredPairs):
    """Pairs of atoms and images that come from the database."""

    _input_names = (*StoredPairs._input_names, "shifts")  # type: ignore[assignment]


def precompute_pairs(modules: TrainingModules, database: TrainingDatabase) -> TrainingModules:
    """Find the pairs of a database once; returns modules that take them from its batches.

    `modules` are those of hippynn's `assemble_for_training`; they stay usable, and share their
    parameters with the result. `database` is one of `load_database`; its inputs become those of the
    returned modules. Losses and their gradients are the same numbers. A checkpoint of the returned
    modules is loaded like any other, and given a database by this function again; its `state_dict`
    also fits the modules from before. Predictions are made from the nodes of the model, which
    find pairs themselves.

    Raises UserError for any other database, for graphs with hippynn's periodic or several pair
    finders, for cells that the graph has no input for, and for elements that the network does not
    know.
    """
    if not isinstance(database, TrainingDatabase):
        raise UserError(
            f"Pairs cannot be stored in a {type(database).__name__}; make the database with "
            "hippynn_mf.load_database, or train without precompute_pairs."
        )
    outputs, nodes = copy_subgraph(modules.model.nodes_to_compute, [])
    finders = [node for node in nodes if isinstance(node, PairIndexer)]
    known_kinds = (OpenPairIndexer, CellPairIndexer, StoredPairs, StoredCellPairs)
    if len(finders) != 1 or type(finders[0]) not in known_kinds:
        kinds = ", ".join(type(finder).__name__ for finder in finders) or "none"
        raise UserError(
            f"Pairs can be stored for one OpenPairIndexer or CellPairIndexer; this graph has: "
            f"{kinds}. Train without precompute_pairs; hippynn has a function of the same name for "
            "periodic systems."
        )
    (finder,) = finders
    known = find_unique_relative(finder, Encoder, "species of the pairs").species_set.tolist()
    for arrays in database.splits.values():
        refuse_unknown_species(of_atoms(arrays, SPECIES), known)
        if CELL in arrays and isinstance(finders[0], OpenPairIndexer):
            raise UserError(
                "The data are periodic, and the network has no cells. Build it with cells "
                "(`build_model(..., periodic=True)`), or train on molecules."
            )
    database.store_pairs(finder.dist_hard_max)

    stored = (PAIRS, PAIR_SHIFTS)
    inputs = [node for node in nodes if isinstance(node, InputNode) and node.db_name not in stored]
    has_cells = any(lists.images is not None for lists in database.pairs.values())
    needed = stored if has_cells else stored[:1]
    pairs = [InputNode(db_name=name, index_state=IdxType.NotFound) for name in needed]
    indexer = find_unique_relative(finder, AtomIndexer, "pairs from the database")
    parents = (finder.parents[0], indexer.real_atoms, indexer.inv_real_atoms, *pairs)
    node_class = StoredCellPairs if has_cells else StoredPairs
    replace_node(finder, node_class("stored_pairs", parents, finder.dist_hard_max), True)
    model = GraphModule([*inputs, *pairs], outputs)

    names = [node.db_name for node in model.input_nodes]
    evaluator = copy.copy(modules.evaluator)
    evaluator.model, evaluator.n_inputs = model, len(names)
    # Its targets are in the order of its loss, whatever order the database has.
    evaluator.db_info = {**evaluator.db_info, "inputs": names}
    database.inputs = list(names)
    return modules._replace(model=model, evaluator=evaluator)
