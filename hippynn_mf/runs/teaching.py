"""Forces that an ensemble of models says of structures, as labels for another model.

A network that learned energies alone has forces; those of several, which differ in their seeds,
scatter around what the energies say, and the error of their mean is at most the mean of their
errors (Matin et al., arXiv:2503.14293, train a student on teachers' forces). The high level's
forces are taught so to a student that has its energies, and whatever labels of lower levels there
are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from hippynn_mf.data.structures import Structures, is_periodic
from hippynn_mf.hyperparameters import Hyperparameters
from hippynn_mf.labels import Labels, with_all_forces
from hippynn_mf.levels import Level
from hippynn_mf.model.model import build_model
from hippynn_mf.model.parameters import State
from hippynn_mf.model.predicting import predict_arrays
from hippynn_mf.ragged import Ragged
from hippynn_mf.units import KCAL_PER_MOL_PER_HARTREE

SPLITS = ("train", "valid")  # whose labels a student sees


def with_taught_forces(
    parts: Mapping[str, Structures],
    level: Level,
    labels: Labels,
    teachers: Sequence[State],
    hyperparameters: Hyperparameters,
    device: torch.device,
) -> dict[str, Structures]:
    """The splits with mean forces of the teachers where there are energies of a level.

    Args:
        parts: the structures by split; those of the test split are taught nothing, NaN.
        level: whose forces are taught. Structures without its energy have none, NaN.
        labels: of the teachers.
        teachers: parameters of their models.
        hyperparameters: of the run, with the sizes of the networks.
        device: where they predict.
    """
    taught = {}
    fork = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=fork):  # the student's weights are drawn as without it
        model = build_model(
            hyperparameters, with_all_forces(labels), periodic=is_periodic(parts.values())
        )
    for name, part in parts.items():
        rows = np.flatnonzero(part.has_energy(level) & (name in SPLITS))
        forces = np.full((*part.positions.shape[:2], 3), np.nan, np.float32)
        if len(rows):
            chosen = part[rows]
            mean = np.zeros((*chosen.positions.shape[:2], 3))
            for state in teachers:
                model.parameters.load_state_dict(state)
                predicted = predict_arrays(
                    model,
                    chosen.species,
                    chosen.positions,
                    cells=chosen.cells,
                    batch_size=hyperparameters.eval_batch_size,
                    device=device,
                )
                mean += predicted[level.forces_name]
            mean /= len(teachers) * KCAL_PER_MOL_PER_HARTREE
            forces[rows, : mean.shape[1]] = mean
        taught[name] = _with_forces(part, level, forces)
    return taught


def as_if_taught(parts: Mapping[str, Structures], level: Level) -> dict[str, Structures]:
    """The splits with forces of zero where a student would have some: for what a step costs."""
    found = {}
    for name, part in parts.items():
        forces = np.zeros((*part.positions.shape[:2], 3), np.float32)
        forces[~part.has_energy(level)] = np.nan
        found[name] = _with_forces(part, level, forces)
    return found


def _with_forces(part: Structures, level: Level, forces: np.ndarray) -> Structures:
    of_atoms = Ragged.of(forces, part.n_atoms)
    return replace(part, forces={**part.forces, level.id: of_atoms})
