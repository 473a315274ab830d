"""Errors from the arrays of `predictions.npz`, without a model or a data file.

The arrays are `<set>.<level>.energy` and `<set>.<level>.forces` of the heads, the references as
`<set>.reference.<name>`, and the structures (`<set>.species`, …), where the set is `heldout` or
`comp6`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hippynn_mf.labels import parse_labels
from hippynn_mf.levels import Level
from hippynn_mf.runs import RunSettings
from hippynn_mf.scoring import LabelledSet, comp6_metrics, heldout_metrics

Arrays = Mapping[str, np.ndarray]


def prediction_names(settings: RunSettings) -> set[str]:
    """Names of the arrays that a model of these settings predicts; the others are the data's."""
    sets = ["heldout"] if settings.comp6 is None else ["heldout", "comp6"]
    heads = parse_labels(settings.labels)
    names = [name for head in heads for name in (head.energy_name, head.forces_name)]
    return {f"{part}.{name}" for part in sets for name in names}


def unproved_forces(arrays: Arrays, metrics: Mapping[str, Any]) -> dict[str, str]:
    """COMP6 forces that an evaluation did not use for their sign: level id → reason."""
    return {
        level: entry["force_reason"]
        for level, entry in (metrics["comp6"] or {}).items()
        if f"comp6.reference.{level}.forces" in arrays and "n_force_components" not in entry
    }


def score_arrays(
    arrays: Arrays, settings: RunSettings, unproved: Mapping[str, str]
) -> dict[str, Any]:
    """The content of `metrics.json`, without `training`."""
    heads = list(parse_labels(settings.labels))
    metrics = heldout_metrics(_part(arrays, "heldout"), labelled_set(arrays, "heldout"), heads)
    metrics["comp6"] = None
    if settings.comp6 is not None:
        test = labelled_set(arrays, "comp6", unproved)
        cut = settings.comp6.energy_cut_kcal_per_mol
        metrics["comp6"] = comp6_metrics(_part(arrays, "comp6"), test, heads, cut)
    return metrics


def level_differences(
    arrays: Arrays, settings: RunSettings, unproved: Mapping[str, str]
) -> dict[str, Any]:
    """Errors of each level's own labels as predictions of every other level, by the same code.

    `heldout.<low>.<high>` and `comp6.<low>.<high>` for every level `low` whose energies and forces
    are there for all structures (with proved sign).
    """
    test = labelled_set(arrays, "heldout")
    differences: dict[str, Any] = {"heldout": {}, "comp6": None}
    for low in _complete_levels(test):
        cross = heldout_metrics(test.labels, test, [low])["cross"][low.id]
        differences["heldout"][low.id] = _without(cross, low)
    if settings.comp6 is not None:
        test = labelled_set(arrays, "comp6", unproved)
        cut = settings.comp6.energy_cut_kcal_per_mol
        differences["comp6"] = {
            low.id: _without(comp6_metrics(test.labels, test, [low], cut), low)
            for low in _complete_levels(test)
            if low.id not in unproved
        }
    return differences


def _part(arrays: Arrays, part: str) -> dict[str, np.ndarray]:
    """The arrays of a set by their names in it."""
    prefix = f"{part}."
    return {name.removeprefix(prefix): v for name, v in arrays.items() if name.startswith(prefix)}


def labelled_set(
    arrays: Arrays, part: str, unproved: Mapping[str, str] | None = None
) -> LabelledSet:
    """The structures and references of a set, `heldout` or `comp6`."""
    within = _part(arrays, part)
    species = within["species"]
    groups = within.get("groups", np.zeros(len(species), np.int64))  # of COMP6 only
    return LabelledSet(species, _part(within, "reference"), groups, unproved or {})


def _complete_levels(test: LabelledSet) -> Sequence[Level]:
    """Levels with the energies and forces of all structures."""
    return [
        level
        for level in test.levels_with("forces")
        if level.energy_name in test.labels
        and np.isfinite(test.labels[level.energy_name]).all()
        and np.isfinite(test.labels[level.forces_name]).all()
    ]


def _without(entries: Mapping[str, Any], level: Level) -> dict[str, Any]:
    return {name: entry for name, entry in entries.items() if name != level.id}
