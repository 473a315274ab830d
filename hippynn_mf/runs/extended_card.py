"""What a model file says of an extension beside what its own run knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hippynn_mf.data.self_energies import Origin, SelfEnergies
from hippynn_mf.labels import plain_labels
from hippynn_mf.potentials.card import Card, Distances
from hippynn_mf.potentials.potential import Potential
from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.runs.parent import PARENT_FILE
from hippynn_mf.runs.settings import RunSettings


def card_of_parent(folder: RunFolder, settings: RunSettings) -> Card | None:
    """The card of what a run extends, None of another run."""
    if settings.parent is None:
        return None
    return Potential.load(folder.file(PARENT_FILE)).card


def trained_kinds(settings: RunSettings, before: Card | None) -> dict[str, Sequence[str]]:
    """Level id → labels of the heads that are what they were trained to be, nothing of others."""
    experiment = settings.experiment
    maintained = {level.id for level in experiment.maintained_levels}
    found: dict[str, Sequence[str]] = {}
    if before is not None and settings.parent is not None and settings.parent.trunk == "frozen":
        found = {level.id: level.trained for level in before.levels}
    return found | {
        level_id: kinds
        for level_id, kinds in plain_labels(experiment.resolved_labels).items()
        if level_id in maintained
    }


def self_energy_origins(
    found: Mapping[str, SelfEnergies], before: Card | None
) -> dict[str, Mapping[int, Origin]]:
    """Level id → where its self energies are from; those of the parent are as they were there."""
    earlier = {} if before is None else {e.id: e.self_energies_origin for e in before.levels}
    origins: dict[str, Mapping[int, Origin]] = {**earlier}
    for level_id, of_run in found.items():
        origins[level_id] = {**of_run.origin, **earlier.get(level_id, {})}
    return origins


def joined_distances(found: Distances | None, before: Card | None) -> Distances | None:
    """Distances in the training set, with those in the parent's."""
    earlier = None if before is None or before.seen is None else before.seen.distances
    if before is None or found is None or earlier is None:
        return found if before is None else None
    shortest = dict(earlier.shortest)
    for pair, value in found.shortest.items():
        shortest[pair] = min(value, shortest.get(pair, value))
    farthest = dict(earlier.farthest_neighbour)
    for element, value in found.farthest_neighbour.items():
        farthest[element] = max(value, farthest.get(element, value))
    return Distances(shortest=shortest, farthest_neighbour=farthest)
