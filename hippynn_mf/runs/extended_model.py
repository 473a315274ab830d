"""The model that an extension trains, as it is before the first step."""

from __future__ import annotations

from collections.abc import Sequence

from hippynn_mf.data.structures import Structures
from hippynn_mf.labels import without_stress
from hippynn_mf.model.model import Model
from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.runs.models import model_of
from hippynn_mf.runs.parent_files import parent_of_run
from hippynn_mf.runs.settings import RunSettings
from hippynn_mf.training.extension import extend_model, fit_new_atoms, freeze, keeper
from hippynn_mf.training.loop import BatchCallback


def extended_model(
    folder: RunFolder, settings: RunSettings, train: Structures, *, periodic: bool = False
) -> tuple[Model, Sequence[BatchCallback]]:
    """The model of an extension with what it keeps frozen, and what is to be done after a step.

    It has a head for every level of the parent, which `parent.safetensors` in the folder holds, and
    for every new one. `settings` have the self energies of the run.
    """
    parent = settings.parent
    assert parent is not None
    finished = parent_of_run(folder, settings)
    (member,) = finished.members
    labels = settings.model_labels
    model = model_of(settings, labels if periodic else without_stress(labels), periodic=periodic)
    state = member.parameters.state_dict()
    axes = extend_model(model, state, finished.card.species, settings.bases)
    fit_new_atoms(
        model,
        train,
        settings.experiment.resolved_labels,
        parent.elements,
        settings.bases,
        batch_size=settings.hyperparameters.eval_batch_size,
    )
    is_frozen = parent.trunk == "frozen"
    freeze(model, set(settings.labels), trunk=is_frozen, axes=axes)
    put_back = [keeper(model, axes, parent.species)] if is_frozen and axes else []
    return model, put_back
