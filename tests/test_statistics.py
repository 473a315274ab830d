import numpy as np
import pytest
from scipy import stats

from hippynn_mf.errors import UserError
from hippynn_mf.report.statistics import (
    estimate_mean,
    format_interval,
    format_mean,
    half_width,
    paired_difference,
    percent_improvement,
    percent_of_means,
)

N_REPETITIONS = 4000
# Four standard deviations of the share of 4000 intervals that contain the truth, if 95 % do.
COVERAGE_TOLERANCE = 4 * np.sqrt(0.95 * 0.05 / N_REPETITIONS)


def by_seed(values):
    return dict(enumerate(map(float, values)))


@pytest.mark.parametrize("n", [3, 8], ids=["three seeds", "eight seeds"])
def test_the_interval_of_a_mean_is_that_of_scipys_t_test(n):
    values = np.random.default_rng(n).normal(2.78, 0.05, n)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    found = estimate_mean(values)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-12)
    assert found.value == pytest.approx(values.mean())
    assert half_width(values) == pytest.approx((expected.high - expected.low) / 2, rel=1e-12)


def test_the_interval_of_1_2_3_is_2_with_the_tabulated_quantile_4_303():
    assert half_width(np.array([1.0, 2.0, 3.0])) == pytest.approx(4.303 / np.sqrt(3), rel=1e-4)
    assert format_mean(estimate_mean(np.array([1.0, 2.0, 3.0]))) == "2.00 ± 2.48"


@pytest.mark.parametrize("n", [3, 8], ids=["three seeds", "eight seeds"])
def test_95_percent_of_the_intervals_contain_the_mean_that_was_planted(n):
    rng = np.random.default_rng(10 * n)
    hits = 0
    for values in rng.normal(1.5, 0.3, (N_REPETITIONS, n)):
        found = estimate_mean(values)
        hits += found.low <= 1.5 <= found.high
    assert hits / N_REPETITIONS == pytest.approx(0.95, abs=COVERAGE_TOLERANCE)


def test_a_normal_quantile_or_a_population_deviation_would_fail_the_test_of_coverage():
    draws = np.random.default_rng(80).normal(1.5, 0.3, (N_REPETITIONS, 8))
    far = np.abs(draws.mean(axis=1) - 1.5) * np.sqrt(8)
    for width in (
        stats.norm.ppf(0.975) * draws.std(axis=1, ddof=1),
        stats.t.ppf(0.975, 7) * draws.std(axis=1, ddof=0),
    ):
        assert abs((far <= width).mean() - 0.95) > COVERAGE_TOLERANCE


def test_the_paired_difference_is_that_of_scipys_paired_t_test():
    rng = np.random.default_rng(1)
    ours, theirs = rng.normal(1.0, 0.2, 8), rng.normal(3.0, 0.4, 8)
    expected = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    found = paired_difference(by_seed(ours), by_seed(theirs))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-12)


def test_what_both_of_a_pair_share_does_not_widen_the_interval_of_their_difference():
    rng = np.random.default_rng(2)
    shared, own = rng.normal(0, 5.0, 8), rng.normal(0, 0.01, 8)
    found = paired_difference(by_seed(10 + shared + own), by_seed(12 + shared))
    assert found.value == pytest.approx(-2, abs=0.02)
    assert found.high - found.low < 0.05 < half_width(10 + shared + own)


def test_95_percent_of_the_paired_intervals_contain_what_was_planted():
    """Log-normal errors whose ratio is 0.6, with a common factor of each seed."""
    rng = np.random.default_rng(3)
    hits = {"difference": 0, "improvement": 0}
    for _ in range(N_REPETITIONS):
        shared, first, second = rng.normal(0, (0.3, 0.1, 0.1), (8, 3)).T
        theirs, ours = np.exp(shared + first), 0.6 * np.exp(shared + second)
        found = percent_improvement(by_seed(ours), by_seed(theirs))
        hits["improvement"] += found.low <= 40.0 <= found.high
        found = paired_difference(by_seed(1 + shared + first), by_seed(2 + shared + second))
        hits["difference"] += found.low <= -1.0 <= found.high
    for count in hits.values():
        assert count / N_REPETITIONS == pytest.approx(0.95, abs=COVERAGE_TOLERANCE)


def test_improvement_is_that_of_the_geometric_means():
    ours, theirs = [1.0, 2.0, 4.0], [4.0, 4.0, 8.0]
    found = percent_improvement(by_seed(ours), by_seed(theirs))
    assert found.value == pytest.approx(100 * (1 - stats.gmean(ours) / stats.gmean(theirs)))
    logs = np.log(np.array(ours) / theirs)
    interval = stats.ttest_1samp(logs, 0.0).confidence_interval(0.95)
    expected = 100 * (1 - np.exp(interval.high)), 100 * (1 - np.exp(interval.low))
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-12)
    assert (found.smallest, found.largest) == pytest.approx((50.0, 75.0))


def test_improvement_depends_on_ratios_only_and_inverts_with_them():
    rng = np.random.default_rng(4)
    ours, theirs = rng.lognormal(size=(2, 6))
    factors = rng.lognormal(size=6)
    found = percent_improvement(by_seed(ours), by_seed(theirs))
    scaled = percent_improvement(by_seed(ours * factors), by_seed(theirs * factors))
    assert scaled.model_dump() == pytest.approx(found.model_dump())
    inverse = percent_improvement(by_seed(theirs), by_seed(ours))
    assert (1 - found.value / 100) * (1 - inverse.value / 100) == pytest.approx(1)
    assert (1 - found.low / 100) * (1 - inverse.high / 100) == pytest.approx(1)


def test_only_seeds_that_both_have_are_paired():
    ours, theirs = {0: 1.0, 1: 2.0, 5: 9.0}, {5: 10.0, 1: 4.0, 7: 1.0}
    difference = paired_difference(ours, theirs)
    assert (difference.value, difference.n) == (-1.5, 2)
    assert (difference.smallest, difference.largest) == (-2.0, -1.0)
    assert percent_improvement(ours, theirs).smallest == pytest.approx(10.0)
    assert paired_difference({0: 1.0}, {1: 1.0}) is None
    assert percent_improvement({}, {1: 1.0}) is None


@pytest.mark.parametrize("values", [[0.0, 1.0], [1.0, 0.0]], ids=["ours", "theirs"])
def test_an_error_of_zero_has_no_ratio(values):
    with pytest.raises(UserError, match="exactly zero has no ratio"):
        percent_improvement({0: values[0]}, {0: values[1]})


def test_fewer_than_three_values_have_a_range_and_no_interval():
    for values in ([2.0], [3.0, 2.0]):
        found = estimate_mean(np.array(values))
        assert (found.low, found.high) == (None, None)
        assert (found.smallest, found.largest, found.n) == (2.0, max(values), len(values))
    assert estimate_mean(np.array([])) is None


def test_the_papers_formula_gives_the_papers_percentages():
    assert percent_of_means(1.49, 2.75) == pytest.approx(45.8, abs=0.05)
    assert percent_of_means(4.16, 13.52) == pytest.approx(69.2, abs=0.05)


@pytest.mark.parametrize(
    ("values", "mean", "signed", "interval"),
    [
        ([], "—", "—", "—"),
        ([2.754], "2.75 (one seed)", "+2.75 (one seed)", "2.8 (one seed)"),
        ([-3.0, 2.0], "−0.50 (−3.00 to 2.00)", "−0.50 (−3.00 to +2.00)", "−0.5 (−3.0 to 2.0)"),
        ([1.0, 1.0, 1.0], "1.00 ± 0.00", "+1.00 ± 0.00", "1.0 [1.0, 1.0]"),
        ([-1.0, -2.0, -3.0], "−2.00 ± 2.48", "−2.00 ± 2.48", "−2.0 [−4.5, 0.5]"),
    ],
    ids=["no seed", "one seed", "two seeds", "three equal seeds", "three seeds"],
)
def test_texts_tell_intervals_from_ranges(values, mean, signed, interval):
    estimate = estimate_mean(np.array(values))
    assert format_mean(estimate) == mean
    assert format_mean(estimate, signed=True) == signed
    assert format_interval(estimate) == interval


def test_the_number_of_digits_can_be_chosen():
    assert format_mean(estimate_mean(np.array([1.0, 2.0])), digits=0) == "2 (1 to 2)"
