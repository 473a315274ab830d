"""Errors from the arrays of `predictions.npz`, without a model or a data file.

The arrays are `<set>.<level>.energy` and `<set>.<level>.forces` of the heads, the references as
`<set>.reference.<name>`, and the structures (`<set>.species`, …), where the set is `heldout`,
`comp6` or `test_file`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hippynn_mf.evaluation.scoring import LabelledSet, score_set
from hippynn_mf.levels import Level
from hippynn_mf.runs.settings import RunSettings

Arrays = Mapping[str, np.ndarray]
Unproved = Mapping[str, Mapping[str, str]]  # set → level id → why its forces are not used


def prediction_names(settings: RunSettings) -> set[str]:
    """Names of the arrays that a model of these settings predicts; the others are the data's."""
    sets = _cuts(settings)
    heads = settings.experiment.resolved_labels
    names = [name for head in heads for name in (head.energy_name, head.forces_name)]
    return {f"{part}.{name}" for part in sets for name in names}


def unproved_forces(arrays: Arrays, metrics: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Forces that an evaluation did not use for their sign: set → level id → reason."""
    # What a level's forces lack is the same for every head.
    sets = {part: next(iter(of_heads.values()), {}) for part, of_heads in metrics["sets"].items()}
    return {
        part: {
            level: entry["force_reason"]
            for level, entry in entries.items()
            if f"{part}.reference.{level}.forces" in arrays and "n_force_components" not in entry
        }
        for part, entries in sets.items()
    }


def score_arrays(arrays: Arrays, settings: RunSettings, unproved: Unproved) -> dict[str, Any]:
    """The content of `metrics.json`, without `training`."""
    heads = list(settings.experiment.resolved_labels)
    sets = {}
    for part in _cuts(settings):
        test = labelled_set(arrays, part, unproved, settings)
        sets[part] = score_set(_part(arrays, part), test, heads)
    return {"format": 2, "sets": sets}


def level_differences(arrays: Arrays, settings: RunSettings, unproved: Unproved) -> dict[str, Any]:
    """Errors of each level's own labels as predictions of every other level, by the same code.

    `sets.<set>.<low>.<high>` for every level `low` whose energies and forces are there for all
    structures (with proved sign).
    """
    differences: dict[str, Any] = {}
    for part in _cuts(settings):
        test = labelled_set(arrays, part, unproved, settings)
        differences[part] = {
            low.id: _without(score_set(test.labels, test, [low])[low.id], low)
            for low in _complete_levels(test)
        }
    return {"sets": differences}


def _cuts(settings: RunSettings) -> dict[str, float | None]:
    """The sets of a run with their energy cuts in kcal/mol."""
    return {
        "heldout": None,
        **{source.name: source.energy_cut_kcal_per_mol for source in settings.tests},
    }


def _part(arrays: Arrays, part: str) -> dict[str, np.ndarray]:
    """The arrays of a set by their names in it."""
    prefix = f"{part}."
    return {name.removeprefix(prefix): v for name, v in arrays.items() if name.startswith(prefix)}


def labelled_set(
    arrays: Arrays, part: str, unproved: Unproved | None, settings: RunSettings
) -> LabelledSet:
    """The structures and references of a set, `heldout`, `comp6` or `test_file`."""
    within = _part(arrays, part)
    species = within["species"]
    groups = within.get("groups", np.zeros(len(species), np.int64))  # of COMP6 only
    of_set = (unproved or {}).get(part, {})
    return LabelledSet(
        species,
        _part(within, "reference"),
        groups,
        settings.known,
        _cuts(settings)[part],
        of_set,
    )


def _complete_levels(test: LabelledSet) -> Sequence[Level]:
    """Levels with the energies and forces, of proved sign, of all structures."""
    return [
        level
        for level in test.levels_with("forces")
        if level.id not in test.unproved
        and level.energy_name in test.labels
        and np.isfinite(test.labels[level.energy_name]).all()
        and np.isfinite(test.labels[level.forces_name]).all()
    ]


def _without(entries: Mapping[str, Any], level: Level) -> dict[str, Any]:
    return {name: entry for name, entry in entries.items() if name != level.id}
