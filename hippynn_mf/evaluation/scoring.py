"""Errors of predictions on a whole test set, as `metrics.json` holds them, from arrays alone.

Single models and ensembles, and sets of every kind, are scored by the same function. An error is
computed only where its reference is there; otherwise it is null, and a reason says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hippynn_mf.evaluation.errors import (
    Metrics,
    conformer_metrics,
    energy_metrics,
    force_metrics,
    near_minimum,
    stress_metrics,
)
from hippynn_mf.levels import CC, Level, Levels

NO_ENERGIES = "the file has no energies of this level"
NO_FORCES = "the file has no forces of this level"

ErrorsOfSet = dict[str, dict[str, Metrics]]  # head id → reference id → entry


@dataclass(frozen=True)
class LabelledSet:
    """What predictions are compared with.

    Attributes:
        species: (n, n_atoms_max) atomic numbers, 0 where there is no atom.
        labels: `<level>.energy` (n,) in kcal/mol without self energies and `<level>.forces`
            (n, n_atoms_max, 3) in kcal/mol/Å, `<level>.stress` (n, 3, 3) in kcal/mol/Å³; NaN where
            a label is missing.
        groups: (n,) which molecule a conformer belongs to.
        known: what the names of `labels` stand for.
        cut: conformers up to so far (kcal/mol) above the minimum of their molecule count, and
            energies are differences of conformers; None for energies of all structures.
        unproved: level id → why an evaluation of an earlier version did not use its forces.
    """

    species: np.ndarray
    labels: Mapping[str, np.ndarray]
    groups: np.ndarray
    known: Levels
    cut: float | None = None
    unproved: Mapping[str, str] = field(default_factory=dict)

    @property
    def atom_mask(self) -> np.ndarray:
        """(n, n_atoms_max) True where there is an atom."""
        return self.species > 0

    @property
    def references(self) -> list[Level]:
        """The levels that have any label, from the lowest to the highest."""
        names = {name.rpartition(".")[0] for name in self.labels}
        return sorted(map(self.known.get, names), key=lambda level: level.rank)

    def levels_with(self, kind: str) -> list[Level]:
        """The levels that have `energy` or `forces`, from the lowest to the highest."""
        return [level for level in self.references if f"{level.id}.{kind}" in self.labels]

    def kept(self, reference: Level) -> tuple[Level | None, np.ndarray]:
        """The level by whose energies conformers are cut, and which of them (n,) count.

        Those within the cut of their molecule's minimum do: by the CC energies of molecules that
        have any, else by the reference's own. The level is None, and all count, where there is no
        cut, or the set has neither.
        """
        with_energies = self.levels_with("energy")
        cut_levels = [level for level in (CC, reference) if level in with_energies]
        if self.cut is None or not cut_levels:
            return None, np.ones(len(self.species), bool)
        choices = [self.labels[level.energy_name] for level in cut_levels]
        return cut_levels[0], near_minimum(
            cutting_energies(choices, self.groups), self.groups, self.cut
        )


def score_set(
    predicted: Mapping[str, np.ndarray], test: LabelledSet, heads: Sequence[Level]
) -> ErrorsOfSet:
    """Errors of every head against every level of a set, `<head>.<reference>`.

    Args:
        predicted: `<level>.energy` (n,) in kcal/mol without self energies and `<level>.forces`
            (n, n_atoms_max, 3) in kcal/mol/Å of every head, and `<level>.stress` (n, 3, 3) in
            kcal/mol/Å³ of periodic models. Energy errors across levels contain the difference of
            their atomic energies.
        test: what they are compared with.
        heads: the levels that predict.
    """
    errors: ErrorsOfSet = {head.id: {} for head in heads}
    for reference in test.references:
        cutting, kept = test.kept(reference)
        about: Metrics = {"n_structures": int(kept.sum())}
        if test.cut is not None:
            about["cut_by"] = None if cutting is None else cutting.id
        score_energies = _energies if test.cut is None else _differences
        for head in heads:
            errors[head.id][reference.id] = {
                **about,
                **score_energies(predicted[head.energy_name], test, reference, kept),
                **_forces(predicted[head.forces_name], test, reference, kept),
                **_stress(predicted.get(head.stress_name), test, reference, kept),
            }
    return errors


def cutting_energies(choices: Sequence[np.ndarray], groups: np.ndarray) -> np.ndarray:
    """Energies (n,) of the first of `choices`, each (n,), in which a molecule has any label."""
    chosen = choices[-1].copy()
    for energies in reversed(choices[:-1]):
        has_any = np.isin(groups, groups[np.isfinite(energies)])
        chosen[has_any] = energies[has_any]
    return chosen


def _energies(
    predicted: np.ndarray, test: LabelledSet, reference: Level, kept: np.ndarray
) -> Metrics:
    if reference.energy_name not in test.labels:
        return _none("energy", NO_ENERGIES)
    metrics = energy_metrics(predicted[kept], test.labels[reference.energy_name][kept])
    if not metrics["n_energies"]:
        metrics |= _none("energy", "none of these structures has an energy of this level")
    return metrics


def _differences(
    predicted: np.ndarray, test: LabelledSet, reference: Level, kept: np.ndarray
) -> Metrics:
    if reference.energy_name not in test.labels:
        return _none("delta_e", NO_ENERGIES)
    true = test.labels[reference.energy_name][kept]
    metrics = conformer_metrics(predicted[kept], true, test.groups[kept])
    if not metrics["n_pairs"]:
        metrics |= _none("delta_e", "no two conformers of a molecule are within the cut")
    return metrics


def _forces(
    predicted: np.ndarray, test: LabelledSet, reference: Level, kept: np.ndarray
) -> Metrics:
    if reference.forces_name not in test.labels:
        return _none("force", NO_FORCES)
    if reference.id in test.unproved:
        return _none("force", test.unproved[reference.id])
    true = test.labels[reference.forces_name][kept]
    metrics = force_metrics(predicted[kept], true, test.atom_mask[kept])
    if not metrics["n_force_components"]:
        structures = "none of these structures" if test.cut is None else "no structure that counts"
        metrics |= _none("force", f"{structures} has forces of this level")
    return metrics


def _stress(
    predicted: np.ndarray | None, test: LabelledSet, reference: Level, kept: np.ndarray
) -> Metrics:
    """Errors of the stress, where the set has that of the reference and the model predicts it."""
    if predicted is None or reference.stress_name not in test.labels:
        return {}
    metrics = stress_metrics(predicted[kept], test.labels[reference.stress_name][kept])
    return metrics if metrics["n_stress_components"] else {}


UNITS = {"energy": "kcal_per_mol", "delta_e": "kcal_per_mol", "force": "kcal_per_mol_per_angstrom"}


def _none(quantity: str, reason: str) -> Metrics:
    """No errors of a quantity, and why."""
    unit = UNITS[quantity]
    return {
        f"{quantity}_rmse_{unit}": None,
        f"{quantity}_mae_{unit}": None,
        f"{quantity}_reason": reason,
    }
