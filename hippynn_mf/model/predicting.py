"""Labels of arrays of structures, as a model predicts them: for evaluation."""

from __future__ import annotations

import numpy as np
import torch
from hippynn.graphs import Predictor

from hippynn_mf.data.structures import refuse_unknown_species
from hippynn_mf.levels import Level
from hippynn_mf.model.heads import Head
from hippynn_mf.model.model import Model
from hippynn_mf.network.final_gradients import FinalGradientNode


def build_predictor(
    model: Model, device: torch.device | str | None = "cpu", *, level: Level | None = None
) -> Predictor:
    """Predictor (hippynn's) of every head's energy, and of its forces where it has them.

    With `level`, of that head alone. Its forces cannot be differentiated again. The model moves to
    the device, unless it is None.
    """
    heads = [head for head in model.heads.values() if level in (None, head.level)]
    nodes = [head.energy.main_output for head in heads]
    nodes += [_final_forces(model, head) for head in heads if head.forces is not None]
    return Predictor([model.species, model.positions], nodes, model_device=device)


def _final_forces(model: Model, head: Head) -> FinalGradientNode:
    """The node of a head's final forces, made once: it stays among the children of its parents."""
    name = head.level.forces_name
    for node in model.positions.children:
        if isinstance(node, FinalGradientNode) and node.db_name == name:
            return node
    return FinalGradientNode(name, (head.energy, model.positions), sign=-1, db_name=name)


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
    outputs = build_predictor(model, device)(
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
