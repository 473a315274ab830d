"""Errors of predictions on a whole test set, as `metrics.json` holds them, from arrays alone.

Single models and ensembles are scored by the same functions. An error is computed only where its
reference is there; otherwise it is null, and a reason says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hippynn_mf.evaluation.errors import (
    Metrics,
    conformer_metrics,
    energy_metrics,
    force_metrics,
    near_minimum,
)
from hippynn_mf.levels import CC, Level, get_level, highest_level

NO_ENERGIES = "the file has no energies of this level"
NO_FORCES = "the file has no forces of this level"


@dataclass(frozen=True)
class LabelledSet:
    """What predictions are compared with.

    Attributes:
        species: (n, n_atoms_max) atomic numbers, 0 where there is no atom.
        labels: `<level>.energy` (n,) in kcal/mol without self energies and `<level>.forces`
            (n, n_atoms_max, 3) in kcal/mol/Å; NaN where a label is missing.
        groups: (n,) which molecule a conformer belongs to.
        unproved: level id → why its forces are not used although they are there.
    """

    species: np.ndarray
    labels: Mapping[str, np.ndarray]
    groups: np.ndarray
    unproved: Mapping[str, str] = field(default_factory=dict)

    @property
    def atom_mask(self) -> np.ndarray:
        """(n, n_atoms_max) True where there is an atom."""
        return self.species > 0

    def levels_with(self, kind: str) -> list[Level]:
        """The levels that have `energy` or `forces`, from the lowest to the highest."""
        names = [name.rpartition(".") for name in self.labels]
        levels = [get_level(level) for level, _, label in names if label == kind]
        return sorted(levels, key=lambda level: level.rank)


def heldout_metrics(
    predicted: Mapping[str, np.ndarray], test: LabelledSet, heads: Sequence[Level]
) -> dict[str, Any]:
    """`heldout.<level>` for every head, and `cross.<head>.<reference>` for every pair.

    `predicted` maps `<level>.energy` (kcal/mol without self energies) and `<level>.forces`
    (kcal/mol/Å) to arrays. Cross energies contain the difference of the levels' atomic energies.
    """
    cross = {
        head.id: {
            reference.id: _metrics_against(predicted, head, test, reference)
            for reference in test.levels_with("energy")
        }
        for head in heads
    }
    missing = _no_energies(NO_ENERGIES) | _no_forces(NO_FORCES)
    heldout = {head.id: cross[head.id].get(head.id, missing) for head in heads}
    return {"heldout": heldout, "cross": cross}


def _metrics_against(
    predicted: Mapping[str, np.ndarray], head: Level, test: LabelledSet, reference: Level
) -> Metrics:
    energies = test.labels[reference.energy_name]
    metrics = energy_metrics(predicted[head.energy_name], energies)
    if not metrics["n_energies"]:
        metrics |= _no_energies("none of these structures has an energy of this level")
    if reference.forces_name not in test.labels:
        return metrics | _no_forces(NO_FORCES)
    if reference.id in test.unproved:
        return metrics | _no_forces(test.unproved[reference.id])
    forces = test.labels[reference.forces_name]
    metrics |= force_metrics(predicted[head.forces_name], forces, test.atom_mask)
    if not metrics["n_force_components"]:
        metrics |= _no_forces("none of these structures has forces of this level")
    return metrics


def comp6_metrics(
    predicted: Mapping[str, np.ndarray],
    test: LabelledSet,
    heads: Sequence[Level],
    energy_cut_kcal_per_mol: float,
) -> dict[str, Any]:
    """Force and conformer energy errors against every level of a COMP6 set.

    Only conformers within the energy cut of their molecule's minimum count: by the CC energies of
    molecules that have any, else by the reference's own. The prediction is that of the
    reference's own head, or of the highest of `heads`, as `predicted_by` says.
    """
    with_energies = test.levels_with("energy")
    references = {*with_energies, *test.levels_with("forces")}
    metrics: dict[str, Any] = {}
    for reference in sorted(references, key=lambda level: level.rank):
        head = reference if reference in heads else highest_level(heads)
        cutting, kept = kept_conformers(test, reference, energy_cut_kcal_per_mol)
        entry: dict[str, Any] = {
            "predicted_by": head.id,
            "cut_by": None if cutting is None else cutting.id,
            "n_conformers": int(kept.sum()),
        }
        if reference in with_energies:
            entry |= conformer_metrics(
                predicted[head.energy_name][kept],
                test.labels[reference.energy_name][kept],
                test.groups[kept],
            )
            if not entry["n_pairs"]:
                entry |= _no_conformers("no two conformers of a molecule are within the cut")
        else:
            entry |= _no_conformers(NO_ENERGIES)
        entry |= _comp6_forces(predicted[head.forces_name], test, reference, kept)
        metrics[reference.id] = entry
    return metrics


def kept_conformers(
    test: LabelledSet, reference: Level, energy_cut_kcal_per_mol: float
) -> tuple[Level | None, np.ndarray]:
    """The level by whose energies conformers are cut, and which of them (n,) are kept.

    The level is None, and all are kept, where the set has neither CC energies nor the reference's.
    """
    with_energies = test.levels_with("energy")
    cut_levels = [level for level in (CC, reference) if level in with_energies]
    if not cut_levels:
        return None, np.ones(len(test.species), bool)
    choices = [test.labels[level.energy_name] for level in cut_levels]
    cutting = cutting_energies(choices, test.groups)
    return cut_levels[0], near_minimum(cutting, test.groups, energy_cut_kcal_per_mol)


def cutting_energies(choices: Sequence[np.ndarray], groups: np.ndarray) -> np.ndarray:
    """Energies (n,) of the first of `choices`, each (n,), in which a molecule has any label."""
    chosen = choices[-1].copy()
    for energies in reversed(choices[:-1]):
        has_any = np.isin(groups, groups[np.isfinite(energies)])
        chosen[has_any] = energies[has_any]
    return chosen


def _comp6_forces(
    predicted: np.ndarray, test: LabelledSet, reference: Level, kept: np.ndarray
) -> Metrics:
    if reference.forces_name not in test.labels:
        return _no_forces(NO_FORCES)
    if reference.id in test.unproved:
        return _no_forces(test.unproved[reference.id])
    forces = test.labels[reference.forces_name]
    metrics = force_metrics(predicted[kept], forces[kept], test.atom_mask[kept])
    if not metrics["n_force_components"]:
        metrics |= _no_forces("no conformer with forces of this level is within the cut")
    return metrics


def _no_energies(reason: str) -> Metrics:
    return {
        "energy_rmse_kcal_per_mol": None,
        "energy_mae_kcal_per_mol": None,
        "energy_reason": reason,
    }


def _no_forces(reason: str) -> Metrics:
    return {
        "force_rmse_kcal_per_mol_per_angstrom": None,
        "force_mae_kcal_per_mol_per_angstrom": None,
        "force_reason": reason,
    }


def _no_conformers(reason: str) -> Metrics:
    return {
        "delta_e_rmse_kcal_per_mol": None,
        "delta_e_mae_kcal_per_mol": None,
        "delta_e_reason": reason,
    }
