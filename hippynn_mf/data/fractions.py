"""Fewer labels of a level, as if the others had never been computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from hippynn_mf.data.structures import Structures
from hippynn_mf.errors import UserError
from hippynn_mf.labels import Labels
from hippynn_mf.levels import KNOWN_LEVELS, Level, Levels

STREAM = 2  # of the split seed; `assign_splits` draws from 0 and 1


def resolve_fractions(
    fractions: Mapping[str, float], labels: Labels, *, levels: Levels = KNOWN_LEVELS
) -> dict[Level, float]:
    """Fractions by level; a UserError for a level without labels, or no fraction in (0, 1]."""
    resolved = {}
    for name, fraction in fractions.items():
        level = levels.get(name)
        if level not in labels:
            raise UserError(
                f"A fraction of the labels of {level.label} is asked for, which the experiment "
                f"does not train on. It trains on: {', '.join(each.label for each in labels)}."
            )
        if level in resolved:
            raise UserError(f"A fraction of the labels of {level.label} is asked for twice.")
        if not 0 < fraction <= 1:
            raise UserError(
                f"The fraction of {level.label} labels to keep is {fraction}; expected more than 0 "
                "and at most 1."
            )
        resolved[level] = fraction
    return resolved


def keep_labels(
    structures: Structures, labels: Labels, fractions: Mapping[Level, float], split_seed: int
) -> Structures:
    """The structures with a fraction of the labels of some levels; the rest of these are NaN.

    Which conformers keep them depends on `split_seed` and their position in the file alone, and a
    larger fraction keeps those of a smaller one. Conformers that are left without any of `labels`
    are left out.

    Args:
        structures: of the training or the validation split.
        labels: the labels of the experiment.
        fractions: level → fraction of its labels to keep, rounded, and at least one.
        split_seed: as of `assign_splits`.
    """
    if not fractions:
        return structures
    order = np.random.default_rng((split_seed, STREAM)).random(int(structures.rows.max()) + 1)
    energies, forces = dict(structures.energies), dict(structures.forces)
    stress = dict(structures.stress)
    for level, fraction in fractions.items():
        labelled = structures.has_energy(level)
        if level.id in forces:
            labelled = labelled | structures.has_forces(level)
        members = np.flatnonzero(labelled)
        members = members[np.argsort(order[structures.rows[members]], kind="stable")]
        lost = members[max(1, round(fraction * len(members))) :]
        energies[level.id] = energies[level.id].copy()
        energies[level.id][lost] = np.nan
        if level.id in stress:
            stress[level.id] = stress[level.id].copy()
            stress[level.id][lost] = np.nan
        if level.id in forces:
            forces[level.id] = forces[level.id].replaced(dict.fromkeys(lost.tolist(), np.nan))
    kept = replace(structures, energies=energies, forces=forces, stress=stress)
    return kept.labelled(labels)
