"""The difference of two levels as labels of its own, for Δ-learning."""

from __future__ import annotations

from dataclasses import replace

from hippynn_mf.data.structures import Structures
from hippynn_mf.labels import Labels
from hippynn_mf.levels import Level


def with_difference(structures: Structures, labels: Labels, lower: Level) -> Structures:
    """The structures with the one level of `labels` alone: a level's energies minus `lower`'s.

    `labels` are of `difference_level(level, lower)`. NaN where one of both is missing.
    """
    (difference,) = labels
    level_id = difference.id.removesuffix(f"-{lower.id}")
    energies = structures.energies[level_id] - structures.energies[lower.id]
    return replace(structures, energies={difference.id: energies}, forces={})
