"""Self energies of a run's levels: what its data say where a level declares none."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from hippynn_mf.data.elements import labelled_elements, symbols
from hippynn_mf.data.formats.held_elements import isolated_atoms
from hippynn_mf.data.self_energies import SelfEnergies, find_self_energies, lacking_elements
from hippynn_mf.data.structures import Structures
from hippynn_mf.labels import Labels
from hippynn_mf.runs.elements import elements_of_run, learns_differences
from hippynn_mf.runs.settings import RunSettings

log = logging.getLogger(__name__)


def self_energies_of_run(
    settings: RunSettings, train: Structures, labels: Labels | None = None
) -> dict[str, SelfEnergies]:
    """Level id → self energies, of the levels of a run's experiment, or of `labels`.

    Raises UserError for isolated atoms of the data that contradict each other.
    """
    known = elements_of_run(settings, train) if labels is None else None
    labels = settings.experiment.resolved_labels if labels is None else labels
    elements = known or {level: labelled_elements(train, level) for level in labels}
    lacking = [level for level in labels if lacking_elements(level, elements[level])]
    atoms = isolated_atoms(settings.data.data, lacking, settings.known) if lacking else {}
    coupled = learns_differences(settings)
    return find_self_energies(
        train, labels, atoms, known=known, coupled=coupled, bases=settings.bases
    )


def say_self_energies(settings: RunSettings, found: Mapping[str, SelfEnergies]) -> None:
    """One line for every level that does not declare all of its self energies."""
    for level_id, self_energies in found.items():
        if self_energies.is_declared:
            continue
        level = settings.known.get(level_id)
        log.warning("level %s (%s): self energies %s", level_id, level.label, self_energies.text())
        if self_energies.is_undetermined:
            fitted = self_energies.of("fitted")
            log.warning(
                "level %s (%s): the compositions of its training energies determine %d of the %d "
                "fitted self energies (%s); chosen is the fit of least norm. Total energies of "
                "other compositions mean nothing. Isolated atoms in the data, or self energies of "
                "the level, determine them",
                level_id,
                level.label,
                self_energies.rank,
                len(fitted),
                symbols(fitted),
            )


def plain(found: Mapping[str, SelfEnergies]) -> dict[str, Any]:
    """Self energies as `experiment.json` has them."""
    return {level_id: each.model_dump(mode="json") for level_id, each in found.items()}
