"""Errors over a whole set, with their units in their names."""

from __future__ import annotations

import numpy as np

from hippynn_mf.units import EV_PER_KCAL_PER_MOL, GPA_PER_EV_PER_ANGSTROM3

Metrics = dict[str, float | int | str | None]


def energy_metrics(predicted: np.ndarray, true: np.ndarray) -> Metrics:
    """RMSE and MAE of energies (n,) in kcal/mol over the labelled structures (NaN: no label)."""
    errors = (predicted - true)[np.isfinite(true)]
    return {
        "energy_rmse_kcal_per_mol": rmse(errors),
        "energy_mae_kcal_per_mol": mae(errors),
        "n_energies": len(errors),
    }


def force_metrics(predicted: np.ndarray, true: np.ndarray, atom_mask: np.ndarray) -> Metrics:
    """RMSE and MAE of force components (n, n_atoms_max, 3) in kcal/mol/Å, pooled over all atoms.

    The RMS of the labels themselves is the error of predicting no force at all.
    `atom_mask` (n, n_atoms_max) says where there are atoms; conformers with NaN have no label.
    """
    labelled = atom_mask & np.isfinite(true).all(axis=2)
    errors = (predicted - true)[labelled]
    return {
        "force_rmse_kcal_per_mol_per_angstrom": rmse(errors),
        "force_mae_kcal_per_mol_per_angstrom": mae(errors),
        "force_label_rms_kcal_per_mol_per_angstrom": rmse(true[labelled]),
        "n_force_components": errors.size,
    }


def stress_metrics(predicted: np.ndarray, true: np.ndarray) -> Metrics:
    """RMSE and MAE of stress components (n, 3, 3) in kcal/mol/Å³, all nine, in GPa and eV/Å³.

    The RMS of the labels themselves is the error of predicting none. NaN is no label.
    """
    labelled = np.isfinite(true).all(axis=(1, 2))
    errors = (predicted - true)[labelled] * EV_PER_KCAL_PER_MOL
    labels = true[labelled] * EV_PER_KCAL_PER_MOL
    found: Metrics = {"n_stress_components": errors.size}
    for unit, factor in (("gpa", GPA_PER_EV_PER_ANGSTROM3), ("ev_per_angstrom3", 1.0)):
        found |= {
            f"stress_rmse_{unit}": rmse(factor * errors),
            f"stress_mae_{unit}": mae(factor * errors),
            f"stress_label_rms_{unit}": rmse(factor * labels),
        }
    return found


def conformer_metrics(predicted: np.ndarray, true: np.ndarray, groups: np.ndarray) -> Metrics:
    """RMSE and MAE of energy differences between all pairs of conformers of a molecule.

    Energies (n,) in kcal/mol; `groups` (n,) says which molecule a conformer belongs to. All pairs
    of all molecules are pooled. The RMS of the true differences is the error of predicting that
    all conformers of a molecule have one energy.
    """
    labelled = np.isfinite(true)
    differences = pair_differences((predicted - true)[labelled], groups[labelled])
    labels = pair_differences(true[labelled], groups[labelled])
    return {
        "delta_e_rmse_kcal_per_mol": rmse(differences),
        "delta_e_mae_kcal_per_mol": mae(differences),
        "delta_e_label_rms_kcal_per_mol": rmse(labels),
        "n_pairs": len(differences),
    }


def pair_differences(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Differences of the values (n,) of all pairs within a group, all groups in one array."""
    differences = [values[:0]]
    for group in np.unique(groups):
        members = values[groups == group]
        first, second = np.triu_indices(len(members), 1)
        differences.append(members[first] - members[second])
    return np.concatenate(differences)


def near_minimum(energies: np.ndarray, groups: np.ndarray, cut: float) -> np.ndarray:
    """Which conformers (n,) lie within `cut` of the lowest energy of their molecule.

    A conformer without an energy (NaN) does not.
    """
    kept = np.zeros(len(energies), bool)
    for group in np.unique(groups):
        members = (groups == group) & np.isfinite(energies)
        if members.any():
            kept |= members & (energies <= energies[members].min() + cut)
    return kept


def rmse(errors: np.ndarray) -> float | None:
    """Root mean square, None for no errors."""
    return float(np.sqrt(np.mean(np.square(errors, dtype=np.float64)))) if errors.size else None


def mae(errors: np.ndarray) -> float | None:
    """Mean absolute value, None for no errors."""
    return float(np.mean(np.abs(errors), dtype=np.float64)) if errors.size else None
