import itertools
from math import sqrt

import numpy as np
import pytest

from hippynn_mf.data.formats.comp6 import read_comp6
from hippynn_mf.evaluation.errors import (
    conformer_metrics,
    energy_metrics,
    force_metrics,
    mae,
    near_minimum,
    rmse,
)
from hippynn_mf.levels import DZ

NAN = np.nan


@pytest.mark.parametrize(
    ("errors", "root_mean_square", "mean_absolute"),
    [
        ([0.0, 0.0], 0.0, 0.0),
        ([-2.0], 2.0, 2.0),
        ([1.0, -1.0, 1.0, -1.0], 1.0, 1.0),
        ([3.0, -4.0], sqrt(12.5), 3.5),
        ([0.0, 0.0, 0.0, 6.0], 3.0, 1.5),
        ([[3.0, 0.0], [0.0, -4.0]], 2.5, 1.75),
        ([], None, None),
    ],
    ids=["perfect", "one", "signs", "two", "outlier", "two axes", "nothing"],
)
def test_the_errors_of_a_table(errors, root_mean_square, mean_absolute):
    assert rmse(np.array(errors)) == pytest.approx(root_mean_square)
    assert mae(np.array(errors)) == pytest.approx(mean_absolute)


def test_errors_in_float32_are_summed_in_float64():
    errors = np.full(3, 1e25, np.float32)
    assert rmse(errors) == pytest.approx(1e25, rel=1e-6)
    assert mae(errors) == pytest.approx(1e25, rel=1e-6)


@pytest.mark.parametrize(
    ("predicted", "true", "expected"),
    [
        ([1.0, 2.0, 3.0], [0.0, 4.0, 3.0], (sqrt(5 / 3), 1.0, 3)),
        ([1.0, 2.0, 3.0, 99.0], [0.0, 4.0, 3.0, NAN], (sqrt(5 / 3), 1.0, 3)),
        ([7.0], [5.0], (2.0, 2.0, 1)),
        ([7.0, 8.0], [NAN, NAN], (None, None, 0)),
        ([], [], (None, None, 0)),
    ],
    ids=["complete", "one missing", "single", "all missing", "empty"],
)
def test_energy_errors_count_the_labelled_structures(predicted, true, expected):
    assert energy_metrics(np.array(predicted), np.array(true)) == pytest.approx(
        dict(
            zip(
                ("energy_rmse_kcal_per_mol", "energy_mae_kcal_per_mol", "n_energies"),
                expected,
                strict=True,
            )
        )
    )


def test_a_prediction_that_is_not_a_number_is_not_hidden():
    assert np.isnan(energy_metrics(np.array([1.0, NAN]), np.zeros(2))["energy_rmse_kcal_per_mol"])


def force_table():
    """Three molecules of 2, 1 and 2 atoms; the last has no forces; padding would count 100."""
    mask = np.array([[True, True], [True, False], [True, True]])
    true = np.zeros((3, 2, 3))
    predicted = np.array(
        [
            [[1.0, 0.0, 0.0], [0.0, -2.0, 0.0]],
            [[0.0, 0.0, 2.0], [100.0, 100.0, 100.0]],
            [[50.0, 50.0, 50.0], [50.0, 50.0, 50.0]],
        ]
    )
    true[2] = NAN
    return predicted, true, mask


def test_force_errors_pool_the_components_of_labelled_atoms():
    assert force_metrics(*force_table()) == pytest.approx(
        {
            "force_rmse_kcal_per_mol_per_angstrom": 1.0,  # (1 + 4 + 4) / 9
            "force_mae_kcal_per_mol_per_angstrom": 5 / 9,
            "force_label_rms_kcal_per_mol_per_angstrom": 0.0,
            "n_force_components": 9,
        }
    )


def test_no_forces_have_no_error():
    predicted, true, mask = force_table()
    for metrics in (
        force_metrics(predicted, np.full_like(true, NAN), mask),
        force_metrics(predicted[:0], true[:0], mask[:0]),
    ):
        assert list(metrics.values()) == [None, None, None, 0]


DELTA_NAMES = ("delta_e_rmse_kcal_per_mol", "delta_e_mae_kcal_per_mol", "n_pairs")


@pytest.mark.parametrize(
    ("errors", "groups", "expected"),
    [
        ([0.0, 3.0], [0, 0], (3.0, 3.0, 1)),
        ([0.0, 3.0], [0, 1], (None, None, 0)),
        ([0.0, 3.0, 1.0, 1.0, 5.0], [0, 0, 1, 1, 1], (sqrt(41 / 4), 11 / 4, 4)),
        ([1.0, 0.0, 1.0, 3.0, 5.0], [1, 0, 1, 0, 1], (sqrt(41 / 4), 11 / 4, 4)),
        ([0.0, 3.0, NAN], [0, 0, 0], (3.0, 3.0, 1)),
        ([0.0, NAN, 3.0], [0, 0, 1], (None, None, 0)),
        ([7.0, 7.0, -1.0, -1.0], [0, 0, 1, 1], (0.0, 0.0, 2)),
        ([], [], (None, None, 0)),
    ],
    ids=[
        "one pair",
        "two molecules",
        "pooled",
        "interleaved",
        "one missing",
        "pair missing",
        "offsets",
        "empty",
    ],
)
def test_conformer_errors_are_those_of_pairs_within_molecules(errors, groups, expected):
    errors = np.array(errors)
    true = np.where(np.isnan(errors), NAN, 10.0 * np.arange(len(errors)))
    metrics = conformer_metrics(np.nan_to_num(true + errors), true, np.array(groups, int))
    del metrics["delta_e_label_rms_kcal_per_mol"]
    assert metrics == pytest.approx(dict(zip(DELTA_NAMES, expected, strict=True)))


def test_size_of_the_labels_is_the_error_of_predicting_zero():
    true, groups = np.array([1.0, 5.0, NAN, 2.0, 2.0]), np.array([0, 0, 0, 1, 1])
    conformers = conformer_metrics(np.zeros(5), true, groups)
    assert conformers["delta_e_label_rms_kcal_per_mol"] == sqrt(16 / 2)
    assert conformers["delta_e_label_rms_kcal_per_mol"] == conformers["delta_e_rmse_kcal_per_mol"]
    labels = np.arange(12.0).reshape(2, 2, 3)
    found = force_metrics(np.zeros((2, 2, 3)), labels, np.array([[True, True], [True, False]]))
    expected = np.sqrt(np.mean(np.arange(9.0) ** 2))
    assert found["force_label_rms_kcal_per_mol_per_angstrom"] == pytest.approx(expected)


def random_molecules(seed):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 6, 60)
    return rng.normal(size=60), rng.normal(size=60), groups


@pytest.mark.parametrize("seed", range(3))
def test_conformer_errors_equal_the_explicit_loop_over_all_pairs(seed):
    predicted, true, groups = random_molecules(seed)
    true[::7] = NAN
    differences = [
        (predicted[i] - predicted[j]) - (true[i] - true[j])
        for i, j in itertools.combinations(range(60), 2)
        if groups[i] == groups[j] and np.isfinite(true[i] + true[j])
    ]
    metrics = conformer_metrics(predicted, true, groups)
    assert metrics["n_pairs"] == len(differences)
    assert metrics["delta_e_rmse_kcal_per_mol"] == pytest.approx(
        np.linalg.norm(differences) / sqrt(len(differences))
    )
    assert metrics["delta_e_mae_kcal_per_mol"] == pytest.approx(np.mean(np.abs(differences)))


@pytest.mark.parametrize("seed", range(3))
def test_a_constant_error_of_each_molecule_does_not_count(seed):
    predicted, true, groups = random_molecules(seed)
    offsets = np.random.default_rng(seed).normal(scale=100, size=6)
    assert conformer_metrics(predicted + offsets[groups], true, groups) == pytest.approx(
        conformer_metrics(predicted, true, groups)
    )


def test_conformer_errors_do_not_depend_on_the_order_of_the_file():
    predicted, true, groups = random_molecules(0)
    order = np.random.default_rng(1).permutation(60)
    assert conformer_metrics(predicted[order], true[order], groups[order]) == pytest.approx(
        conformer_metrics(predicted, true, groups)
    )


@pytest.mark.parametrize(
    ("energies", "groups", "kept"),
    [
        ([0.0, 5.0, 10.0, 10.5], [0, 0, 0, 0], [True, True, True, False]),
        ([-50.0, -39.0, 20.0, 29.0], [0, 0, 1, 1], [True, False, True, True]),
        ([29.0, -39.0, 20.0, -50.0], [1, 0, 1, 0], [True, False, True, True]),
        ([NAN, 0.0, 3.0], [0, 0, 0], [False, True, True]),
        ([NAN, NAN, 3.0], [0, 0, 1], [False, False, True]),
        ([], [], []),
    ],
    ids=["the cut itself", "each molecule", "interleaved", "missing", "none", "empty"],
)
def test_conformers_near_the_minimum_of_their_molecule_are_kept(energies, groups, kept):
    found = near_minimum(np.array(energies), np.array(groups, int), 10.0)
    assert found.tolist() == kept


def test_the_cut_follows_the_planted_energies_of_each_molecule(comp6_file):
    structures = read_comp6(comp6_file)
    energies = structures.energies[DZ.id].copy()
    energies[structures.rows % 6 == 2] = NAN
    cut = 0.02  # hartree
    kept = near_minimum(energies, structures.groups, cut)
    assert 5 < kept.sum() < 25
    for group in range(5):
        members = np.flatnonzero(structures.groups == group)
        own = energies[members]
        lowest = min(value for value in own if not np.isnan(value))
        assert kept[members].tolist() == [bool(value - lowest <= cut) for value in own]
    assert near_minimum(energies, structures.groups, 0.0).sum() == 5
    np.testing.assert_array_equal(
        near_minimum(energies, structures.groups, np.inf), np.isfinite(energies)
    )
