"""What a user should doubt: levels with few validation labels, and heads that have learned nothing.

A head is compared with the level below it on the same structures, by mean absolute errors, which a
few conformers cannot decide: with that level's own labels, and with its head. Energies of two
levels differ by atomic energies, so those of the lower one are first shifted by a sum over atoms
that is fitted to the higher labels of the set itself, to the advantage of the lower level. Where
energies are differences of conformers there is nothing to shift.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np

from hippynn_mf.data.structures import Structures
from hippynn_mf.evaluation.scoring import LabelledSet, score_set
from hippynn_mf.labels import Labels
from hippynn_mf.levels import Level

FEWEST_VALID = 30  # labels of a level, below which validation says little of it
UNITS = {"energy": "kcal/mol", "delta_e": "kcal/mol", "force": "kcal/mol/Å", "stress": "GPa"}
NAMES = {
    "energy": "energies",
    "delta_e": "energies of conformers",
    "force": "forces",
    "stress": "stress",
}
FIELDS = {
    "energy": "energy_mae_kcal_per_mol",
    "delta_e": "delta_e_mae_kcal_per_mol",
    "force": "force_mae_kcal_per_mol_per_angstrom",
    "stress": "stress_mae_gpa",
}


def few_labels(valid: Structures, labels: Labels) -> list[str]:
    """A line for every level with fewer than `FEWEST_VALID` validation energies, or forces."""
    lines = []
    for level, properties in labels.items():
        counts = {"energies": int(valid.has_energy(level).sum())}
        if properties.forces:
            counts["structures with forces"] = int(valid.has_forces(level).sum())
        if properties.stress:
            counts["structures with stress"] = int(valid.has_stress(level).sum())
        what, n = min(counts.items(), key=lambda item: item[1])
        if n < FEWEST_VALID:
            lines.append(
                f"{level.label} has {n} {what} in the validation split, fewer than "
                f"{FEWEST_VALID}: which epoch is best at this level hangs on single structures."
            )
    return lines


@dataclass(frozen=True)
class BesideLower:
    """A head and the level below it on the same labels, by mean absolute errors.

    Attributes:
        level: of the head.
        low: the level below.
        whose: `labels` of that level as predictions, or its `head`.
        quantity: `energy`, `delta_e`, `force` or `stress`.
        error: of the head, in the units of `UNITS`.
        low_error: of the level below.
    """

    level: Level
    low: Level
    whose: Literal["labels", "head"]
    quantity: str
    error: float
    low_error: float

    @property
    def is_better(self) -> bool:
        """Whether the head has learned more than the level below knows."""
        return self.error < self.low_error


def no_better(
    name: str, test: LabelledSet, predicted: Mapping[str, np.ndarray], heads: Sequence[Level]
) -> list[str]:
    """A line for every head on a set that is no better than the level below it.

    Args:
        name: of the set.
        test: its labels.
        predicted: as of `score_set`.
        heads: the levels that predict, from the lowest to the highest.
    """
    return [
        f"{name}: {NAMES[each.quantity]} of {each.level.label} are no better than those of the "
        f"{each.whose} of {each.low.label}, mean absolute error {each.error:.3g} and "
        f"{each.low_error:.3g} {UNITS[each.quantity]}."
        for each in beside_lower(test, predicted, heads)
        if not each.is_better
    ]


def beside_lower(
    test: LabelledSet, predicted: Mapping[str, np.ndarray], heads: Sequence[Level]
) -> Iterator[BesideLower]:
    """Every head with the level below it; arguments are those of `no_better`."""
    for low, high in pairwise(heads):
        sources: Mapping[Literal["labels", "head"], Mapping[str, np.ndarray]] = {
            "labels": test.labels,
            "head": predicted,
        }
        for whose, lower in sources.items():
            as_high = _as_of(lower, low, high, test)
            common = replace(test, labels=_only_with(as_high, test.labels))
            if high.id not in {level.id for level in common.references}:
                continue
            names = (high.energy_name, high.forces_name, high.stress_name)
            own = {name: predicted[name] for name in names if name in predicted}
            filled = {name: as_high.get(name, np.full_like(own[name], np.nan)) for name in own}
            of_head, of_lower = (
                score_set(values, common, [high])[high.id][high.id] for values in (own, filled)
            )
            for quantity, field in FIELDS.items():
                error, low_error = of_head.get(field), of_lower.get(field)
                if not isinstance(error, float) or not isinstance(low_error, float):
                    continue
                if np.isfinite(
                    low_error
                ):  # not of a lower level without labels of these structures
                    yield BesideLower(high, low, whose, quantity, error, low_error)


def _as_of(
    lower: Mapping[str, np.ndarray], low: Level, high: Level, test: LabelledSet
) -> dict[str, np.ndarray]:
    """Energies and forces of the lower level, where there are any, under the higher one's names."""
    found = {}
    if low.forces_name in lower:
        found[high.forces_name] = lower[low.forces_name]
    if low.stress_name in lower:
        found[high.stress_name] = lower[low.stress_name]
    if low.energy_name in lower and high.energy_name in test.labels:
        energies = lower[low.energy_name]
        if test.cut is None:
            shifted = _shifted(energies, test.labels[high.energy_name], test.species)
            if shifted is not None:
                found[high.energy_name] = shifted
        else:
            found[high.energy_name] = energies
    return found


def _shifted(energies: np.ndarray, true: np.ndarray, species: np.ndarray) -> np.ndarray | None:
    """Energies (n,) plus fitted atomic energies; None for too few labels (two for an element)."""
    elements = np.unique(species[species > 0])
    counts = np.stack([(species == element).sum(axis=1) for element in elements], axis=1)
    both = np.isfinite(energies) & np.isfinite(true)
    if both.sum() <= 2 * len(elements):
        return None
    fit, *_ = np.linalg.lstsq(counts[both].astype(float), (true - energies)[both], rcond=None)
    return np.asarray(energies + counts @ fit)


def _only_with(
    as_high: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Labels of the set, where those compared with them are missing NaN, or left out."""
    kept = {name: values for name, values in labels.items() if name not in as_high}
    # Labels of the other levels stay: conformers are cut by them.
    for name, values in as_high.items():
        if name in labels:
            kept[name] = np.where(np.isfinite(values), labels[name], np.nan)
    return kept
