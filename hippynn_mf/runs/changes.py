"""How the errors of a finished model's levels have changed in a run that extends it."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain

import numpy as np
import torch

from hippynn_mf.data.structures import Structures, composition, elements_of, is_periodic
from hippynn_mf.evaluation.schema import Changes
from hippynn_mf.evaluation.test_sets import TestSet, evaluate_model, heldout_set
from hippynn_mf.evaluation.worsening import changes_of_set
from hippynn_mf.labels import parse_labels, with_all_forces
from hippynn_mf.model.model import Model, build_model
from hippynn_mf.potentials.potential import Potential
from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.runs.models import models_of
from hippynn_mf.runs.parent_files import parent_of_run
from hippynn_mf.runs.settings import RunSettings


def changes_since_parent(
    folder: RunFolder,
    settings: RunSettings,
    heldout: Structures,
    tests: Iterable[TestSet],
    device: torch.device,
) -> Changes | None:
    """Set → level → quantity → change of the error, of an extension; None of another run.

    Parent and extension predict the same structures; those with elements that the parent does not
    know are left out. `settings` have the self energies of the run.
    """
    if settings.parent is None:
        return None
    finished = parent_of_run(folder, settings)
    levels = [settings.known.get(name) for name in settings.parent.levels]
    model_for = models_of(settings, folder)
    batch_size = settings.hyperparameters.eval_batch_size
    found: Changes = {}
    first = heldout_set(heldout, settings.data.shown, levels=settings.known)
    for test in chain([first], tests):
        foreign = sorted(set(elements_of(test.structures.species)) - {0, *settings.parent.species})
        is_known = np.asarray(~composition(test.structures.species, foreign).any(axis=1))
        test = _only(test, is_known)
        if not len(test.structures):
            continue
        _, now = evaluate_model(model_for, [test], batch_size=batch_size, device=device)
        parent_for = functools.partial(_parent_for, finished)
        _, before = evaluate_model(parent_for, [test], batch_size=batch_size, device=device)
        predictions = [
            {name.removeprefix(f"{test.name}."): values for name, values in each.items()}
            for each in (before, now)
        ]
        if of_set := changes_of_set(predictions[0], predictions[1], test.labels, levels):
            found[test.name] = of_set
    return found


def _only(test: TestSet, chosen: np.ndarray) -> TestSet:
    """A set of some of the structures."""
    if chosen.all():
        return test
    structures = test.structures[chosen]
    species = structures.species[:]
    values = {name: each[chosen] for name, each in test.labels.labels.items()}
    for name in values:
        if name.endswith(".forces"):  # of the width of the largest that is left
            values[name] = values[name][:, : species.shape[1]]
    groups = test.labels.groups[chosen]
    labels = replace(test.labels, species=species, labels=values, groups=groups)
    return replace(test, structures=structures, labels=labels)


def _parent_for(finished: Potential, structures: Structures) -> Model:
    """The parent with forces of every head, with an input for cells where structures have any."""
    periodic = is_periodic([structures])
    (member,) = finished.members
    levels = parse_labels(finished.card.labels)
    labels = with_all_forces(levels, stress=periodic)
    with torch.random.fork_rng(devices=[]):
        model = build_model(finished.card.architecture, labels, periodic=periodic)
    model.parameters.load_state_dict(member.parameters.state_dict())
    return model
