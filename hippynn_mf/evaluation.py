"""Errors of a trained model on held-out and on COMP6 structures.

A metric is computed only where its reference is in the file; otherwise it is null, and `reason`
says why.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from hippynn_mf.data.comp6 import read_comp6
from hippynn_mf.data.database import reference_energies, reference_forces
from hippynn_mf.data.signs import require_force_sign
from hippynn_mf.data.structures import Structures, refuse_unknown_species
from hippynn_mf.errors import errors_about
from hippynn_mf.labels import Labels
from hippynn_mf.levels import CC, Level, get_level, highest_level
from hippynn_mf.metrics import (
    Metrics,
    conformer_metrics,
    energy_metrics,
    force_metrics,
    near_minimum,
)
from hippynn_mf.models import (
    Model,
    build_model,
    predict,
    with_all_forces,
)
from hippynn_mf.runs import Comp6Source, RunSettings

log = logging.getLogger(__name__)

NO_ENERGIES = "the file has no energies of this level"
NO_FORCES = "the file has no forces of this level"


def evaluate_model(
    model: Model,
    settings: RunSettings,
    test: Structures,
    *,
    device: torch.device | str = "cpu",
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Metrics and predictions of a trained model on its test structures and on COMP6.

    Returns the content of `metrics.json`, and predictions by `heldout.<name>` and `comp6.<name>`
    in kcal/mol (without self energies) and kcal/mol/Å, with the references beside them.
    """
    model = _with_all_forces(model, settings)
    batch_size = settings.hyperparameters.eval_batch_size
    predicted = predict(model, test.species, test.positions, batch_size=batch_size, device=device)
    metrics: dict[str, Any] = heldout_metrics(predicted, test, model.heads.levels)
    predictions = {f"heldout.{name}": values for name, values in predicted.items()}
    predictions |= {f"heldout.reference.{n}": v for n, v in reference_labels(test).items()}
    predictions |= {"heldout.rows": test.rows, "heldout.species": test.species}
    metrics["comp6"] = None
    if settings.comp6 is not None:
        structures = load_comp6(settings.comp6, model)
        predicted = predict(
            model, structures.species, structures.positions, batch_size=batch_size, device=device
        )
        metrics["comp6"] = comp6_metrics(predicted, structures, model.heads.levels, settings.comp6)
        predictions |= {f"comp6.{name}": values for name, values in predicted.items()}
        predictions |= {f"comp6.reference.{n}": v for n, v in reference_labels(structures).items()}
        predictions |= {"comp6.groups": structures.groups, "comp6.species": structures.species}
    return metrics, predictions


def load_comp6(source: Comp6Source, model: Model) -> Structures:
    """Read the COMP6 structures of a run, and refuse what their evaluation would refuse.

    Raises UserError for a file that cannot be read, elements that the model or a level does not
    know, or forces whose sign is proved wrong.
    """
    structures = read_comp6(source.path, source.keys)
    with errors_about(source.path):
        refuse_unknown_species(structures.species, model.species_set)
        reference_labels(structures)
    for name in structures.forces.keys() & structures.energies:
        require_force_sign(structures, get_level(name), str(source.path))
    return structures


def heldout_metrics(
    predicted: Mapping[str, np.ndarray], test: Structures, levels: list[Level]
) -> dict[str, Any]:
    """`heldout.<level>` for every head, and `cross.<head>.<reference>` for every pair.

    `predicted` maps `<level>.energy` (kcal/mol without self energies) and `<level>.forces`
    (kcal/mol/Å) to arrays. Cross energies contain the difference of the levels' atomic energies.
    """
    cross = {
        head.id: {
            reference: _metrics_against(predicted, head, test, get_level(reference))
            for reference in test.energies
        }
        for head in levels
    }
    missing = _no_energies(NO_ENERGIES) | _no_forces(NO_FORCES)
    heldout = {head.id: cross[head.id].get(head.id, missing) for head in levels}
    return {"heldout": heldout, "cross": cross}


def _metrics_against(
    predicted: Mapping[str, np.ndarray], head: Level, structures: Structures, reference: Level
) -> Metrics:
    energies = reference_energies(structures, reference)
    metrics = energy_metrics(predicted[head.energy_name], energies)
    if not metrics["n_energies"]:
        metrics |= _no_energies("none of these structures has an energy of this level")
    if reference.id not in structures.forces:
        return metrics | _no_forces(NO_FORCES)
    forces = reference_forces(structures, reference)
    metrics |= force_metrics(predicted[head.forces_name], forces, structures.atom_mask)
    if not metrics["n_force_components"]:
        metrics |= _no_forces("none of these structures has forces of this level")
    return metrics


def comp6_metrics(
    predicted: Mapping[str, np.ndarray],
    structures: Structures,
    levels: list[Level],
    source: Comp6Source,
) -> dict[str, Any]:
    """Force and conformer energy errors against every level in the file.

    Only conformers within the energy cut of their molecule's minimum count: by the CC energies of
    molecules that have any, else by the reference's own. The prediction is that of the
    reference's own head, or of the model's highest head, as `predicted_by` says.

    Forces whose sign the file's own energies prove wrong are a UserError; forces whose sign
    cannot be proved get null with the reason.
    """
    energies = {
        get_level(name): reference_energies(structures, get_level(name))
        for name in structures.energies
    }
    references = {*energies, *(get_level(name) for name in structures.forces)}
    metrics: dict[str, Any] = {}
    for reference in sorted(references, key=lambda level: level.rank):
        head = reference if reference in levels else highest_level(levels)
        entry: dict[str, Any] = {"predicted_by": head.id}
        cut_levels = [level for level in (CC, reference) if level in energies]
        if cut_levels:
            cutting = cutting_energies([energies[level] for level in cut_levels], structures.groups)
            kept = near_minimum(cutting, structures.groups, source.energy_cut_kcal_per_mol)
            entry |= {"cut_by": cut_levels[0].id, "n_conformers": int(kept.sum())}
        else:
            kept = np.ones(len(structures), bool)
            entry |= {"cut_by": None, "n_conformers": len(structures)}
        if reference in energies:
            entry |= conformer_metrics(
                predicted[head.energy_name][kept],
                energies[reference][kept],
                structures.groups[kept],
            )
            if not entry["n_pairs"]:
                entry |= _no_conformers("no two conformers of a molecule are within the cut")
        else:
            entry |= _no_conformers(NO_ENERGIES)
        entry |= _comp6_forces(predicted[head.forces_name], structures, reference, kept, source)
        metrics[reference.id] = entry
    return metrics


def cutting_energies(choices: list[np.ndarray], groups: np.ndarray) -> np.ndarray:
    """Energies (n,) of the first of `choices`, each (n,), in which a molecule has any label."""
    chosen = choices[-1].copy()
    for energies in reversed(choices[:-1]):
        has_any = np.isin(groups, groups[np.isfinite(energies)])
        chosen[has_any] = energies[has_any]
    return chosen


def _comp6_forces(
    predicted: np.ndarray,
    structures: Structures,
    reference: Level,
    kept: np.ndarray,
    source: Comp6Source,
) -> Metrics:
    if reference.id not in structures.forces:
        return _no_forces(NO_FORCES)
    if reference.id not in structures.energies:
        return _no_forces("the sign of these forces cannot be proved without energies")
    outcome = require_force_sign(structures, reference, str(source.path))
    if outcome.verdict == "undecided":
        reason = (
            f"the sign of these forces is not proved by the energies ({outcome.n_pairs} pairs of "
            f"conformers, slope {outcome.slope:.2f}, correlation {outcome.correlation:.2f})"
        )
        return _no_forces(reason)
    forces = reference_forces(structures, reference)
    metrics = force_metrics(predicted[kept], forces[kept], structures.atom_mask[kept])
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


def reference_labels(structures: Structures) -> dict[str, np.ndarray]:
    """Reference labels by name, in the units of predictions, NaN where missing."""
    found = {}
    for name in structures.energies:
        level = get_level(name)
        found[level.energy_name] = reference_energies(structures, level)
    for name in structures.forces:
        level = get_level(name)
        found[level.forces_name] = reference_forces(structures, level)
    return found


def _with_all_forces(model: Model, settings: RunSettings) -> Model:
    """The same parameters in a graph that has forces for every head."""
    labels: Labels = with_all_forces(settings.experiment.resolved_labels)
    full = build_model(settings.hyperparameters, labels)
    full.parameters.load_state_dict(model.parameters.state_dict())
    return full
