import numpy as np
import pytest
from made_predictions import GROUPS, predicted_run, predictions, references
from scipy.stats import spearmanr

from hippynn_mf.errors import UserError
from hippynn_mf.report import draw_spread, read_results
from hippynn_mf.report.spread import calibrate, make_spread

NAME = "MF-DZ/EF-CC/E"
DZ, CC = "wb97x_dz", "ccsd(t)_cbs"
SEEDS = range(4)


@pytest.fixture
def results(tmp_path):
    for seed in SEEDS:
        predicted_run(tmp_path, NAME, seed)
    return read_results(tmp_path)


def stack(name):
    return np.stack([predictions(NAME, seed)[name].astype(float) for seed in SEEDS])


def points_of(figure, title):
    (axes,) = [axes for axes in figure.axes if axes.get_title() == title]
    (points,) = [line for line in axes.lines if line.get_marker() == "."]
    return points.get_xdata(), points.get_ydata()


def rms(values, axis=None):
    return np.sqrt(np.mean(np.square(values), axis=axis))


def test_energies_have_the_error_of_the_mean_over_the_deviation_of_the_seeds(results):
    predicted = stack(f"heldout.{CC}.energy")
    true = references()[f"heldout.reference.{CC}.energy"]
    spreads, errors = points_of(draw_spread(results, NAME), "CC energy, held-out")
    np.testing.assert_allclose(errors, abs(predicted.mean(axis=0) - true))
    np.testing.assert_allclose(spreads, predicted.std(axis=0, ddof=1))


def test_forces_are_rms_values_over_the_components_of_a_structure(results):
    predicted = stack(f"comp6.{DZ}.forces")
    true = references()[f"comp6.reference.{DZ}.forces"]
    atoms = references()["comp6.species"] > 0
    spreads, errors = points_of(draw_spread(results, NAME), "DZ forces, COMP6")
    assert len(errors) == 6  # the seventh is beyond the energy cut
    for i in range(6):
        error = (predicted.mean(axis=0) - true)[i][atoms[i]]
        assert errors[i] == pytest.approx(rms(error))
        deviations = predicted[:, i][:, atoms[i]].std(axis=0, ddof=1)
        assert spreads[i] == pytest.approx(rms(deviations))


def test_conformer_energies_are_compared_pair_by_pair(results):
    predicted = stack(f"comp6.{CC}.energy")
    true = references()[f"comp6.reference.{CC}.energy"]
    pairs = [(i, j) for i in range(6) for j in range(i + 1, 6) if GROUPS[i] == GROUPS[j]]
    first, second = np.transpose(pairs)
    differences = predicted[:, first] - predicted[:, second]
    spreads, errors = points_of(draw_spread(results, NAME), "CC ΔE, COMP6")
    wrong = differences.mean(axis=0) - (true[first] - true[second])
    np.testing.assert_allclose(errors, abs(wrong), rtol=1e-5)
    np.testing.assert_allclose(spreads, differences.std(axis=0, ddof=1), rtol=1e-5)


def test_an_ensemble_whose_error_is_its_spread_is_calibrated():
    spreads = np.geomspace(0.01, 10, 500)
    signs = np.where(np.arange(500) % 2, 0.5, np.sqrt(2 - 0.25))  # RMS of neighbours: 1
    found = calibrate(spreads * signs, spreads)
    assert found.n == 500
    assert found.ratio == pytest.approx(1, abs=0.02)
    assert found.slope == pytest.approx(1, abs=0.01)
    assert found.spearman == pytest.approx(spearmanr(spreads * signs, spreads).statistic)
    assert 0.9 < found.spearman < 1
    assert len(found.bins) == 10
    assert {b.n for b in found.bins} == {50}
    for b in found.bins:
        assert b.error == pytest.approx(b.spread, rel=0.03)


def test_a_truth_drawn_as_the_members_are_has_the_ratio_of_the_docstring():
    rng = np.random.default_rng(1)
    scale = rng.uniform(0.1, 3, 20_000)
    members, truth = scale * rng.normal(size=(8, 20_000)), scale * rng.normal(size=20_000)
    found = calibrate(abs(members.mean(axis=0) - truth), members.std(axis=0, ddof=1))
    assert found.ratio == pytest.approx(np.sqrt(1 + 1 / 8), rel=0.02)


def test_a_spread_that_is_too_small_is_seen_in_the_ratio_alone():
    spreads = np.geomspace(0.1, 10, 100)
    found = calibrate(3 * spreads, spreads)
    assert (found.ratio, found.slope, found.spearman) == pytest.approx((3, 1, 1))


def test_a_spread_that_says_nothing_has_no_rank_correlation_and_no_slope():
    rng = np.random.default_rng(0)
    found = calibrate(rng.uniform(1, 2, 2000), rng.uniform(1, 2, 2000))
    assert abs(found.spearman) < 0.05
    assert abs(found.slope) < 0.1
    opposite = calibrate(np.linspace(2, 1, 100), np.linspace(1, 2, 100))
    assert opposite.spearman == pytest.approx(-1)
    assert opposite.slope < -0.5


def test_bins_are_of_neighbouring_spreads_in_equal_numbers():
    spreads, errors = np.arange(60.0)[::-1], np.arange(60.0)[::-1] ** 2
    found = calibrate(errors, spreads)
    assert [b.n for b in found.bins] == [20, 20, 20]
    parts = np.split(np.arange(60.0), 3)
    assert [b.spread for b in found.bins] == pytest.approx([rms(p) for p in parts])
    assert [b.error for b in found.bins] == pytest.approx([rms(p**2) for p in parts])


def test_members_that_agree_have_no_numbers_instead_of_wrong_ones(tmp_path):
    for seed in range(3):
        predicted_run(tmp_path, NAME, seed, predictions(NAME, 0))
    figure, data = make_spread(read_results(tmp_path).members(NAME))
    calibration = data.panels[0].calibration
    assert (calibration.ratio, calibration.spearman, calibration.slope) == (None, None, None)
    assert calibration.bins[0].spread == 0
    assert calibration.bins[0].error > 0
    corner = [text.get_text() for text in figure.axes[0].texts]
    assert corner == ["error/spread —\nSpearman —\n5 structures"]


def test_few_structures_have_one_bin_and_no_slope(results):
    for panel in make_spread(results.members(NAME))[1].panels:
        if panel.calibration is None:
            assert panel.reason == "the file has no forces of this level"
        else:
            assert len(panel.calibration.bins) == 1
            assert panel.calibration.slope is None


def test_two_seeds_are_too_few(results):
    with pytest.raises(UserError, match="has 2 finished runs here; a spread needs 3 or more"):
        draw_spread(results.only([0, 1]), NAME)
