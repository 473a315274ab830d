"""Labels of arrays of structures, as a model predicts them: for evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hippynn.graphs import Predictor

from hippynn_mf.cells import is_crystal
from hippynn_mf.data.structures import refuse_unknown_species
from hippynn_mf.errors import UserError
from hippynn_mf.levels import Level
from hippynn_mf.model.heads import Head, stress_node
from hippynn_mf.model.model import Model
from hippynn_mf.network.cell_pairs import FinalPairStressNode
from hippynn_mf.network.final_gradients import FinalGradientNode
from hippynn_mf.ragged import Ragged


def build_predictor(
    model: Model, device: torch.device | str | None = "cpu", *, level: Level | None = None
) -> Predictor:
    """Predictor (hippynn's) of every head's energy, and of forces and stress where it has them.

    With `level`, of that head alone. Its forces cannot be differentiated again. The model moves to
    the device, unless it is None.
    """
    heads = [head for head in model.heads.values() if level in (None, head.level)]
    nodes = [head.energy.main_output for head in heads]
    nodes += [_final_forces(model, head) for head in heads if head.forces is not None]
    nodes += [_final_stress(model, head) for head in heads if head.stress is not None]
    return Predictor(inputs_of(model), nodes, model_device=device)


def inputs_of(model: Model) -> list[Any]:
    """The inputs of a model: species, positions and, of a periodic one, cells."""
    return [model.species, model.positions, *([] if model.cell is None else [model.cell])]


def input_values(
    model: Model,
    species: Ragged | np.ndarray,
    positions: Ragged | np.ndarray,
    cells: np.ndarray | None,
) -> dict[Any, torch.Tensor]:
    """Structures as a predictor takes them, by input; a UserError for cells that it cannot take."""
    dtype = torch.get_default_dtype()
    values = {
        model.species: torch.as_tensor(np.asarray(species), dtype=torch.int64),
        model.positions: torch.as_tensor(np.asarray(positions), dtype=dtype),
    }
    if model.cell is not None:
        zeros = np.zeros((len(species), 3, 3))
        values[model.cell] = torch.as_tensor(zeros if cells is None else cells, dtype=dtype)
    elif cells is not None and cells.any():
        raise UserError("Structures are periodic, and the model was built without cells.")
    return values


def _final_forces(model: Model, head: Head) -> FinalGradientNode:
    """The node of a head's final forces, made once: it stays among the children of its parents."""
    name = head.level.forces_name
    for node in model.positions.children:
        if isinstance(node, FinalGradientNode) and node.db_name == name:
            return node
    return FinalGradientNode(name, (head.energy, model.positions), sign=-1, db_name=name)


def _final_stress(model: Model, head: Head) -> FinalPairStressNode:
    """The node of a head's final stress, made once."""
    assert model.cell is not None
    name = head.level.stress_name
    for node in model.cell.children:
        if isinstance(node, FinalPairStressNode) and node.db_name == name:
            return node
    node = stress_node(model.heads.network, head.energy, head.level, FinalPairStressNode)
    assert isinstance(node, FinalPairStressNode)
    return node


def predict_arrays(
    model: Model,
    species: Ragged | np.ndarray,
    positions: Ragged | np.ndarray,
    *,
    batch_size: int,
    cells: np.ndarray | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, np.ndarray]:
    """Labels of every head, by name: energies (n,) in kcal/mol, forces (n, n_atoms_max, 3).

    Energies exclude the self energies; forces, in kcal/mol/Å, are 0 for padding. The stress
    (n, 3, 3), in kcal/mol/Å³, is NaN of what is not periodic along all axes. Atoms outside the
    species of the model are a UserError: the network would take them for another element.
    """
    refuse_unknown_species(species, model.species_set)
    outputs = build_predictor(model, device)(
        node_values=input_values(model, species, positions, cells), batch_size=batch_size
    )
    heads = model.heads.values()
    has_volume = np.zeros(len(species), bool) if cells is None else is_crystal(cells)
    energies = [head.level.energy_name for head in heads]
    forces = [head.level.forces_name for head in heads if head.forces is not None]
    return {
        **{name: outputs[name].numpy()[:, 0] for name in energies},
        **{name: outputs[name].numpy() for name in forces},
        **{
            name: np.where(has_volume[:, None, None], outputs[name].numpy(), np.nan)
            for name in (head.level.stress_name for head in heads if head.stress is not None)
        },
    }
