"""One phase of a run: its data, the weights it starts from, and its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from hippynn_mf.data.arrays import training_arrays
from hippynn_mf.data.database import TrainingDatabase, build_database
from hippynn_mf.data.differences import with_difference
from hippynn_mf.data.structures import Structures, is_periodic
from hippynn_mf.hyperparameters import Hyperparameters
from hippynn_mf.levels import Level
from hippynn_mf.model.losses import LossWeights
from hippynn_mf.model.model import Model, build_model
from hippynn_mf.model.parameters import Parts, State
from hippynn_mf.runs.checkpoints import Checkpoints
from hippynn_mf.runs.extended_model import extended_model
from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.runs.log import EpochRecord
from hippynn_mf.runs.settings import RunSettings
from hippynn_mf.runs.teaching import with_taught_forces
from hippynn_mf.runs.weights import weights_of_level
from hippynn_mf.training.loop import (
    BatchCallback,
    EpochCallback,
    continue_training,
    prepare_training,
)
from hippynn_mf.training.reptile import TaskDatabase
from hippynn_mf.training.strategies import Phase

PHASE_STRIDE = 10**6  # between the seeds of the phases of a run, whose weights are drawn apart


def train_phase(
    folder: RunFolder,
    settings: RunSettings,
    phase: Phase,
    parts: Mapping[str, Structures],
    states: Sequence[State],
    device: torch.device,
    *,
    is_last: bool = False,
) -> Checkpoints:
    """Train one phase in its folder, from the checkpoint there; `states` are those before it.

    The checkpoints have the best parameters. Of the last phase, the training and validation
    structures are consumed.
    """
    hyperparameters = phase.hyperparameters(settings.hyperparameters)
    torch.manual_seed(settings.seed + PHASE_STRIDE * len(states))
    periodic = is_periodic(parts.values())
    put_back: Sequence[BatchCallback] = ()
    if settings.parent is not None:
        model, put_back = extended_model(folder, settings, parts["train"], periodic=periodic)
    else:
        model = build_model(hyperparameters, phase.labels, periodic=periodic)
    if phase.starts_from is not None:
        start_from(model, states[-1], phase.starts_from)
    if phase.taught is not None:
        labels = settings.experiment.resolved_labels
        parts = with_taught_forces(parts, phase.taught, labels, states, hyperparameters, device)
    database = phase_database(phase, parts, settings, consume=is_last)
    weights = loss_weights(phase, settings, hyperparameters)
    training = prepare_training(
        model, database, hyperparameters, device=device, phase=phase, weights=weights
    )
    checkpoints = Checkpoints(folder, training)
    checkpoints.restore()
    epochs: list[EpochCallback] = [EpochRecord(folder, training.tracker), checkpoints]
    continue_training(training, epochs, batch_callbacks=put_back)
    return checkpoints


def loss_weights(
    phase: Phase, settings: RunSettings, hyperparameters: Hyperparameters
) -> dict[str, LossWeights]:
    """The weights of every head of a phase, by level id; a difference has its higher level's."""
    higher = None if phase.difference is None else phase.difference.higher
    found = {}
    for level in phase.labels:
        named = (higher or level).id
        found[level.id] = LossWeights(**weights_of_level(named, settings.weights, hyperparameters))
    return found


def start_from(model: Model, state: State, level: Level) -> None:
    """Load the trunk of another model, and the head of its `level` into every head."""
    given = Parts.of(state)
    heads = dict.fromkeys(model.heads, given.heads[level.id])
    model.parameters.load_state_dict(Parts(given.network, heads).state())


def phase_database(
    phase: Phase, parts: Mapping[str, Structures], settings: RunSettings, *, consume: bool = False
) -> TrainingDatabase:
    """The structures with labels of a phase, as its database.

    Structures that it may `consume` are not good for anything afterwards, but for the test split.
    """
    chosen = {name: _phase_structures(phase, part) for name, part in parts.items()}
    consumed = [name for name in parts if name != "test"] if consume else []
    seed = settings.seed
    if not phase.as_tasks:
        return build_database(chosen, phase.labels, seed=seed, consume=consumed)
    arrays = {name: training_arrays(part, phase.labels) for name, part in chosen.items()}
    n_steps = settings.hyperparameters.meta_steps
    return TaskDatabase(arrays, labels=phase.labels, meta_steps=n_steps, seed=seed)


def _phase_structures(phase: Phase, part: Structures) -> Structures:
    if phase.difference is not None:
        part = with_difference(part, phase.difference)
    return part.labelled(phase.labels)
