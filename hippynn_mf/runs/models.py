"""The model of a run: built from its settings, with the parameters of its folder."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection

import torch

from hippynn_mf.data.structures import Structures, elements_of, is_periodic
from hippynn_mf.errors import UserError
from hippynn_mf.files import require_file
from hippynn_mf.labels import Labels, with_all_forces, without_stress
from hippynn_mf.model.model import Model, build_model
from hippynn_mf.model.parameters import State, fold
from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.runs.settings import RunSettings


def model_of(
    settings: RunSettings, labels: Labels | None = None, *, periodic: bool = False
) -> Model:
    """A model with a head for every level of a run, and fresh weights.

    Args:
        settings: of the run.
        labels: the levels with the labels to predict; None for those of the experiment, a stress
            only of a periodic model.
        periodic: whether it has an input for cells.
    """
    experiment = settings.experiment
    if labels is None:
        labels = settings.model_labels
        labels = labels if periodic else without_stress(labels)
    return build_model(
        settings.hyperparameters,
        labels,
        has_second_network=experiment.strategy.has_second_network,
        periodic=periodic,
        bases=settings.coupled,
    )


def trained_model(
    settings: RunSettings,
    folder: RunFolder,
    *,
    periodic: bool = False,
    only: Collection[str] | None = None,
) -> Model:
    """The trained model of a run, with forces of every head, to evaluate it.

    And with the stress of every head, if it is for `periodic` structures. With `only` some level
    ids, the heads of an extension that are among them.
    """
    labels = with_all_forces(settings.model_labels, stress=periodic)
    model = model_of(settings, labels, periodic=periodic)
    load_best(model, folder)
    if settings.parent is None or only is None:
        return model
    return _with_heads(model, settings, {k: v for k, v in labels.items() if k.id in only}, periodic)


def _with_heads(model: Model, settings: RunSettings, labels: Labels, periodic: bool) -> Model:
    """The same model with some of its heads, none of them coupled."""
    state = fold(model.parameters.state_dict(), model.heads.bases)
    found = build_model(settings.hyperparameters, labels, periodic=periodic)
    found.parameters.load_state_dict({k: state[k] for k in found.parameters.state_dict()})
    return found


def models_of(settings: RunSettings, folder: RunFolder) -> Callable[[Structures], Model]:
    """The trained model of a run for some structures: for periodic ones with an input for cells.

    Of an extension with the heads that know all elements of the structures: others predict nothing.
    """
    known = folder.read_elements() if settings.parent is not None else {}

    @functools.cache
    def of_kind(periodic: bool, only: frozenset[str] | None) -> Model:
        return trained_model(settings, folder, periodic=periodic, only=only)

    def model_for(structures: Structures) -> Model:
        only = None
        if settings.parent is not None:
            held = set(elements_of(structures.species)) - {0}
            only = frozenset(name for name, elements in known.items() if held <= set(elements))
        return of_kind(is_periodic([structures]), only)

    return model_for


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
