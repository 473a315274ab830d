"""The difference of two levels as labels of its own, for Δ-learning."""

from __future__ import annotations

from dataclasses import replace

from hippynn_mf.data.structures import Structures
from hippynn_mf.levels import Difference


def with_difference(structures: Structures, difference: Difference) -> Structures:
    """The structures with the energies of a difference alone, NaN where one of both is missing."""
    higher, lower = (structures.energies[each.id] for each in (difference.higher, difference.lower))
    return replace(structures, energies={difference.level.id: higher - lower}, forces={}, stress={})
