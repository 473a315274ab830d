"""No level of a run predicts atoms whose atomic energy its labels do not tell."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from hippynn_mf.data.elements import Elements, fitted_elements, labelled_elements, symbols
from hippynn_mf.data.structures import Structures, composition, elements_of
from hippynn_mf.errors import UserError
from hippynn_mf.evaluation.test_sets import TestSet
from hippynn_mf.levels import Level
from hippynn_mf.runs.parent import Parent
from hippynn_mf.runs.settings import RunSettings

log = logging.getLogger(__name__)


def elements_of_run(settings: RunSettings, train: Structures) -> Elements:
    """Level → atomic numbers that a run's heads know, of its training structures."""
    labels = settings.experiment.resolved_labels
    if settings.parent is not None:
        return _elements_of_extension(settings, settings.parent, train)
    return fitted_elements(train, labels, coupled=learns_differences(settings))


def _elements_of_extension(settings: RunSettings, parent: Parent, train: Structures) -> Elements:
    """Those of the parent's heads with those of new labels; a new level has its base's, too."""
    trained = set(settings.experiment.resolved_labels)
    found: dict[Level, frozenset[int]] = {}
    for level in settings.model_labels:
        base = settings.bases.get(level)
        first = level if base is None else base
        before = found[first] if first in found else parent.elements[first.id]
        own = labelled_elements(train, level) if level in trained else frozenset()
        found[level] = frozenset(before) | own
    return found


def learns_differences(settings: RunSettings) -> bool:
    """Whether what is learned of a level is its difference from the level below."""
    strategy = settings.experiment.strategy
    return settings.hyperparameters.coupling == "delta" or strategy.has_second_network


def check_elements(settings: RunSettings, parts: Mapping[str, Structures], path: Path) -> Elements:
    """The elements that each level of a run knows.

    Raises UserError where the run's structures hold others: the fit gives them the atomic energy 0,
    with which energies are wrong by electronvolts. Of coupled heads that have the lower level's
    atomic energy it is said.
    """
    labels = settings.experiment.resolved_labels
    every = elements_of_run(settings, parts["train"])
    known = {level: elements for level, elements in every.items() if level in labels}
    for name, part in parts.items():
        held = part.labelled(labels)
        for level, elements in known.items():
            if lacking := set(elements_of(held.species)) - {0} - elements:
                raise UserError(_refusal(settings, path, name, held, level.id, lacking))
    lower = dict(zip(list(labels)[1:], labels, strict=False))
    if settings.parent is not None:
        lower, known = settings.bases, dict(every)
    for level, below in lower.items():
        inherited = known[level] - labelled_elements(parts["train"], level)
        if inherited and known[level] >= known[below]:
            log.warning(
                "%s, %s: level %s has no label for %s; its atomic energy is that of %s there",
                path,
                settings.name,
                level.label,
                symbols(inherited),
                below.label,
            )
    return known


def refuse_other_elements(settings: RunSettings, known: Elements, test: TestSet) -> None:
    """Raise UserError if a test set holds elements that a level of the run does not know."""
    labels = settings.experiment.resolved_labels
    for level, elements in known.items():
        if level not in labels:
            continue  # it predicts none of these structures
        if lacking := set(elements_of(test.structures.species)) - {0} - elements:
            n = int(composition(test.structures.species, sorted(lacking)).any(axis=1).sum())
            raise UserError(
                f"{test.path}: {n} structures hold {symbols(lacking)}, and {settings.name} has no "
                f"label of {level.label} ({level.id}) for {symbols(lacking)} in training, so it "
                "predicts nothing there. Leave them out of the test set, or supply training labels."
            )


def _refusal(
    settings: RunSettings,
    path: Path,
    split: str,
    part: Structures,
    level_id: str,
    lacking: set[int],
) -> str:
    """Why atoms of some elements cannot be predicted at a level, and what helps."""
    level = settings.known.get(level_id)
    n = int(composition(part.species, sorted(lacking)).any(axis=1).sum())
    remedies = [
        f"supply {level.label} labels with {symbols(lacking)}",
        "leave these structures out",
    ]
    where = f"of the {split} split"
    if settings.valid is not None and split == "valid":
        path, where = settings.valid.shown, "of this file"
    elif split != "train":
        remedies.append("choose another --split-seed")
    elif next(iter(settings.labels)) != level.id:
        remedies.append("couple the heads (--set coupling=delta, or MFC)")
    return (
        f"{path}: {settings.name} has no energy of level {level.label} ({level.id}) for the "
        f"element {symbols(lacking)} in its training structures, and {n} structures "
        f"{where} hold it: its atomic energy would be 0. Either {'; or '.join(remedies)}."
    )
