"""Errors from the arrays of `predictions.npz`, without a model or a data file.

The arrays are `<set>.<level>.energy` and `<set>.<level>.forces` of the heads, the references as
`<set>.reference.<level>.energy` and `.forces`, and the structures (`<set>.species`, …), where the
sets are `heldout` and the names of the tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hippynn_mf.evaluation.schema import HELDOUT
from hippynn_mf.evaluation.scoring import LabelledSet, score_set
from hippynn_mf.keys import STRESS
from hippynn_mf.labels import Labels
from hippynn_mf.levels import Level
from hippynn_mf.runs.settings import RunSettings

Arrays = Mapping[str, np.ndarray]
Unproved = Mapping[str, Mapping[str, str]]  # set → level id → why its forces are not used


def heads_of(settings: RunSettings) -> Labels:
    """The levels that a model of these settings has heads for, by rank, with their labels."""
    return settings.model_labels


def set_names(settings: RunSettings) -> list[str]:
    """The sets that a run of these settings is tested on."""
    return [HELDOUT, *(test.name for test in settings.tests)]


def prediction_names(settings: RunSettings, arrays: Arrays) -> set[str]:
    """Names of the arrays that a model of these settings predicts; the others are the data's.

    The stress is among them where the arrays have it.
    """
    heads = [(part, h) for part in set_names(settings) for h in _heads_on(part, settings, arrays)]
    of_stress = {f"{part}.{head.stress_name}" for part, head in heads}
    always = {f"{part}.{n}" for part, h in heads for n in (h.energy_name, h.forces_name)}
    return always | (of_stress & arrays.keys())


def _heads_on(part: str, settings: RunSettings, arrays: Arrays) -> list[Level]:
    """The levels that predict a set: of an extension those that know all of its elements."""
    heads = list(heads_of(settings))
    if settings.parent is None:
        return heads
    return [head for head in heads if f"{part}.{head.energy_name}" in arrays]


def unproved_forces(arrays: Arrays, sets: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Forces that an evaluation did not use for their sign: set → level id → reason.

    `sets` are the errors of the evaluation by set, head and reference.
    """
    return {
        part: {
            level: entry["force_reason"]
            # What a level's forces lack is the same for every head.
            for level, entry in next(iter(heads.values()), {}).items()
            if f"{part}.reference.{level}.forces" in arrays and not entry.get("n_force_components")
        }
        for part, heads in sets.items()
    }


def labelled_set(
    arrays: Arrays, part: str, settings: RunSettings, unproved: Unproved | None = None
) -> LabelledSet:
    """The structures and references of a set."""
    within = part_of(arrays, part)
    species = within["species"]
    source = settings.test(part)
    return LabelledSet(
        species=species,
        labels=part_of(within, "reference"),
        groups=within.get("groups", np.zeros(len(species), np.int64)),
        known=settings.known,
        cut=None if source is None else source.energy_cut_kcal_per_mol,
        unproved=(unproved or {}).get(part, {}),
    )


def part_of(arrays: Arrays, part: str) -> dict[str, np.ndarray]:
    """The arrays of a set by their names in it."""
    prefix = f"{part}."
    return {name.removeprefix(prefix): v for name, v in arrays.items() if name.startswith(prefix)}


def score_arrays(arrays: Arrays, settings: RunSettings, unproved: Unproved) -> dict[str, Any]:
    """Errors by set, head and reference."""
    return {
        part: score_set(
            part_of(arrays, part),
            labelled_set(arrays, part, settings, unproved),
            _heads_on(part, settings, arrays),
        )
        for part in set_names(settings)
    }


def level_differences(arrays: Arrays, settings: RunSettings, unproved: Unproved) -> dict[str, Any]:
    """Errors of each level's own labels as predictions of every other level, by the same code.

    They are `<set>.<low>.<high>`, for every level `low` whose energies and forces are there for
    all structures of the set (with proved sign).
    """
    differences: dict[str, Any] = {}
    for part in set_names(settings):
        test = labelled_set(arrays, part, settings, unproved)
        complete = _complete_levels(test)
        differences[part] = {
            low: {high: entry for high, entry in entries.items() if high != low}
            for low, entries in score_set(_without_holes(test), test, complete).items()
        }
    return differences


def _without_holes(test: LabelledSet) -> Arrays:
    """The labels as predictions, without a stress that is missing where another level has one."""
    stress = {name: v for name, v in test.labels.items() if name.endswith(f".{STRESS}")}
    wanted = np.zeros(len(test.species), bool)
    for values in stress.values():
        wanted |= np.isfinite(values).all(axis=(1, 2))
    partial = {name for name, values in stress.items() if not np.isfinite(values[wanted]).all()}
    return {name: values for name, values in test.labels.items() if name not in partial}


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
