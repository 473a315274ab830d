"""Tiny models and batches of the planted molecules, and losses evaluated by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hippynn.experiment import assemble_for_training
from hippynn.experiment.metric_tracker import MetricTracker
from planted import MOLECULES, conformers, numbers_of

from hippynn_mf.data.database import TrainingDatabase, load_database
from hippynn_mf.data.splits import assign_splits, split_rows
from hippynn_mf.data.structures import Structures
from hippynn_mf.hyperparameters import Hyperparameters
from hippynn_mf.labels import parse_labels
from hippynn_mf.model.model import Model, build_model
from hippynn_mf.model.predicting import build_predictor
from hippynn_mf.training.loop import Training, continue_training, prepare_training

TINY = {"n_features": 4, "n_sensitivities": 4, "n_atom_layers": 1}

Arrays = dict[str, torch.Tensor]


def tiny_model(labels: Mapping[str, str], *, seed: int = 0, **hyperparameters: Any) -> Model:
    torch.manual_seed(seed)
    return build_model(Hyperparameters(**(TINY | hyperparameters)), parse_labels(labels))


def split_structures(
    structures: Structures, is_common: np.ndarray, seed: int
) -> dict[str, Structures]:
    """The kept conformers of each split."""
    members = split_rows(structures.rows, assign_splits(is_common, seed))
    return {name: structures[indices] for name, indices in members.items()}


def short_training(path: Path, interaction: str) -> Training:
    """A training of three epochs on a file of planted molecules, not yet begun."""
    hyperparameters = Hyperparameters(
        **TINY, interaction=interaction, max_epochs=3, batch_size=8, learning_rate=4e-3
    )
    model = tiny_model({"DZ": "EF", "CC": "E"}, interaction=interaction)
    database = load_database(path, {"DZ": "EF", "CC": "E"})
    return prepare_training(model, database, hyperparameters)


def train_model(
    model: Model, database: TrainingDatabase, hyperparameters: Hyperparameters
) -> MetricTracker:
    """Train a model with hippynn's loop; the best parameters are in the tracker's `best_model`."""
    training = prepare_training(model, database, hyperparameters)
    continue_training(training, [])
    return training.tracker


def structures(n: int = 2, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """`n` conformers of every planted molecule: species and positions, padded with zeros."""
    width = max(len(molecule[0]) for molecule in MOLECULES.values())
    species = np.zeros((n * len(MOLECULES), width), np.int64)
    positions = np.zeros((n * len(MOLECULES), width, 3))
    for place, molecule in enumerate(MOLECULES.values()):
        rows, n_atoms = slice(place * n, (place + 1) * n), len(molecule[0])
        species[rows, :n_atoms] = numbers_of(molecule[0])
        positions[rows, :n_atoms] = conformers(molecule, n, seed=1000 * seed + place)
    return torch.as_tensor(species), torch.as_tensor(positions, dtype=torch.get_default_dtype())


def outputs(model: Model, species: torch.Tensor, positions: torch.Tensor) -> Arrays:
    """Every energy and force of a model by its name in a database."""
    predictor = build_predictor(model)
    values = predictor(species=species, positions=positions.clone())
    return {name: values[name] for name in predictor.out_dbnames}


def lose_labels(model: Model, batch: Arrays, missing: str) -> None:
    """Make labels of a batch NaN: `some`, those of `a level` (TZ), `all forces` or `everything`."""
    for head in model.heads.values():
        for name in (head.level.energy_name, head.level.forces_name):
            is_missing = {
                "a level": head.level.label == "TZ",
                "all forces": name == head.level.forces_name,
                "everything": True,
            }
            if name in batch and missing == "some":
                batch[name][1::3] = torch.nan
            elif name in batch and is_missing[missing]:
                batch[name][:] = torch.nan


def labelled_batch(model: Model, n: int = 2, *, seed: int = 0) -> Arrays:
    """A batch with random labels for all that a model predicts; 0 for the forces of padding."""
    species, positions = structures(n, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    batch = {"species": species, "positions": positions}
    for head in model.heads.values():
        energies = torch.randn(len(species), 1, generator=generator)
        batch[head.level.energy_name] = energies
        if head.forces is not None:
            forces = torch.randn(*species.shape, 3, generator=generator)
            batch[head.level.forces_name] = forces * (species > 0)[..., None]
    return batch


def evaluate(loss: Any, model: Model, batch: Arrays) -> tuple[torch.Tensor, Arrays]:
    """A loss node's value, and its gradient with respect to every parameter by name.

    Both are computed by the modules that hippynn assembles for training.
    """
    modules, names = assemble_for_training(loss, {"loss": loss})
    predictions = modules.model(*(batch[name].clone() for name in names["inputs"]))
    value = modules.loss(*predictions, *(batch[name] for name in names["targets"]))[0]
    parameters = dict(model.parameters.named_parameters())
    gradients = torch.autograd.grad(value, parameters.values(), allow_unused=True)
    return value.detach(), dict(zip(parameters, gradients, strict=True))
