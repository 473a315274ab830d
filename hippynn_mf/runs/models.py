"""The model of a run: built from its settings, with the parameters of its folder."""

from __future__ import annotations

import torch

from hippynn_mf.errors import UserError
from hippynn_mf.files import require_file
from hippynn_mf.labels import Labels, with_all_forces
from hippynn_mf.model.model import Model, build_model
from hippynn_mf.model.parameters import State
from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.runs.settings import RunSettings


def model_of(settings: RunSettings, labels: Labels | None = None) -> Model:
    """A model with a head for every level of a run, and fresh weights.

    Args:
        settings: of the run.
        labels: the levels with the labels to predict; None for those of the experiment.
    """
    experiment = settings.experiment
    return build_model(
        settings.hyperparameters,
        experiment.resolved_labels if labels is None else labels,
        has_second_network=experiment.strategy.has_second_network,
    )


def trained_model(settings: RunSettings, folder: RunFolder) -> Model:
    """The trained model of a run, with forces of every head, to evaluate it."""
    model = model_of(settings, with_all_forces(settings.experiment.resolved_labels))
    load_best(model, folder)
    return model


def load_best(model: Model, folder: RunFolder) -> None:
    """Load the parameters of the best epoch from a run folder, without running code."""
    state = read_state(folder)
    try:
        model.parameters.load_state_dict(state)
    except Exception as error:
        raise _damaged(folder, error) from None


def read_state(folder: RunFolder) -> State:
    """The parameters in `model.pt` of a run or a phase, read without running code."""
    path = folder.file("model.pt")
    if not path.exists():
        raise UserError(f"No model in {folder.path}; the run was not trained.")
    require_file(path, "the parameters of a run")
    try:
        state: State = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise _damaged(folder, error) from None
    return state


def _damaged(folder: RunFolder, error: Exception) -> UserError:
    return UserError(
        f"{folder.file('model.pt')} is not a model of this run ({type(error).__name__}): it is "
        f"damaged, or of another network. Delete {folder.path} and train again."
    )
