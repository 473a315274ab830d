"""Errors from the arrays of `predictions.npz`, without a model or a data file.

The arrays are `<set>.<level>.energy` and `<set>.<level>.forces` of the heads, the references as
`<set>.reference.<name>`, and the structures (`<set>.species`, …), where the set is `heldout`,
`comp6` or `test_file`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hippynn_mf.evaluation.scoring import LabelledSet, comp6_metrics, heldout_metrics
from hippynn_mf.levels import Level
from hippynn_mf.runs.settings import RunSettings

Arrays = Mapping[str, np.ndarray]
Unproved = Mapping[str, Mapping[str, str]]  # set → level id → why its forces are not used


def prediction_names(settings: RunSettings) -> set[str]:
    """Names of the arrays that a model of these settings predicts; the others are the data's."""
    sets = ["heldout"]
    sets += [part for part in ("comp6", "test_file") if getattr(settings, part) is not None]
    heads = settings.experiment.resolved_labels
    names = [name for head in heads for name in (head.energy_name, head.forces_name)]
    return {f"{part}.{name}" for part in sets for name in names}


def unproved_forces(arrays: Arrays, metrics: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Forces that an evaluation did not use for their sign: set → level id → reason."""
    of_heads = metrics.get("test_file") or {}
    # What a level's forces lack is the same for every head.
    sets = {"comp6": metrics["comp6"] or {}, "test_file": next(iter(of_heads.values()), {})}
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
    metrics = heldout_metrics(_part(arrays, "heldout"), labelled_set(arrays, "heldout"), heads)
    metrics["comp6"] = None
    if settings.comp6 is not None:
        test = labelled_set(arrays, "comp6", unproved)
        cut = settings.comp6.energy_cut_kcal_per_mol
        metrics["comp6"] = comp6_metrics(_part(arrays, "comp6"), test, heads, cut)
    metrics["test_file"] = None
    if settings.test_file is not None:
        test = labelled_set(arrays, "test_file", unproved)
        errors = heldout_metrics(_part(arrays, "test_file"), test, heads)
        metrics["test_file"] = errors["cross"]
    return metrics


def level_differences(arrays: Arrays, settings: RunSettings, unproved: Unproved) -> dict[str, Any]:
    """Errors of each level's own labels as predictions of every other level, by the same code.

    `heldout.<low>.<high>`, and the same for `comp6` and `test_file`, for every level `low` whose
    energies and forces are there for all structures (with proved sign).
    """
    differences: dict[str, Any] = {"heldout": {}, "comp6": None, "test_file": None}
    for part in ("heldout", "test_file"):
        if part == "test_file" and settings.test_file is None:
            continue
        test = labelled_set(arrays, part, unproved)
        differences[part] = {
            low.id: _without(heldout_metrics(test.labels, test, [low])["cross"][low.id], low)
            for low in _complete_levels(test)
        }
    if settings.comp6 is not None:
        test = labelled_set(arrays, "comp6", unproved)
        cut = settings.comp6.energy_cut_kcal_per_mol
        differences["comp6"] = {
            low.id: _without(comp6_metrics(test.labels, test, [low], cut), low)
            for low in _complete_levels(test)
        }
    return differences


def _part(arrays: Arrays, part: str) -> dict[str, np.ndarray]:
    """The arrays of a set by their names in it."""
    prefix = f"{part}."
    return {name.removeprefix(prefix): v for name, v in arrays.items() if name.startswith(prefix)}


def labelled_set(arrays: Arrays, part: str, unproved: Unproved | None = None) -> LabelledSet:
    """The structures and references of a set, `heldout`, `comp6` or `test_file`."""
    within = _part(arrays, part)
    species = within["species"]
    groups = within.get("groups", np.zeros(len(species), np.int64))  # of COMP6 only
    of_set = (unproved or {}).get(part, {})
    return LabelledSet(species, _part(within, "reference"), groups, of_set)


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
