import numpy as np
import pytest
from made_runs import comp6_errors, heldout_errors, make_run, run_metrics
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from hippynn_mf.levels import CC, MP2, TZ
from hippynn_mf.paper.figure3 import LEVELS, draw_figure3, figure3_data
from hippynn_mf.report.results import read_results
from hippynn_mf.report.statistics import percent_improvement

PUBLISHED = {  # tables 2 to 4: 100·(1 − MF / SF)
    ("TZ", "energy"): 100 * (1 - 1.49 / 2.75),
    ("TZ", "force, held-out TZ"): 100 * (1 - 4.16 / 13.52),
    ("MP2", "energy"): 100 * (1 - 1.72 / 2.95),
    ("MP2", "force, COMP6 MP2"): 100 * (1 - 3.42 / 8.59),
    ("CC", "energy"): 100 * (1 - 1.52 / 2.78),
    ("CC", "ΔE, COMP6 CC"): 100 * (1 - 1.60 / 2.65),
}
SINGLE = {0: 4.0, 1: 2.0, 2: 3.0}
MULTI = {0: 1.0, 1: 1.0, 2: 1.2}


def energy(level, value):
    return {level: heldout_errors(value)}


@pytest.fixture
def results(tmp_path):
    """Three pairs at TZ, none at MP2, one at CC that is worse in ΔE."""
    for seed in range(3):
        make_run(tmp_path, "SF-TZ/E", seed, run_metrics(energy("wb97x_tz", SINGLE[seed])))
        make_run(tmp_path, "MF-DZ/EF-TZ/E", seed, run_metrics(energy("wb97x_tz", MULTI[seed])))
    make_run(tmp_path, "SF-TZ/E", 7, run_metrics(energy("wb97x_tz", 9.0)))
    for name, value, force, delta_e in [
        ("SF-CC/E", 2.0, 8.0, 2.0),
        ("MF-DZ/EF-CC/E", 1.8, 2.0, 2.5),
    ]:
        far = {"mp2_tz": comp6_errors(force), "ccsd(t)_cbs": comp6_errors(None, delta_e)}
        others = {"ccsd(t)_cbs": {"wb97x_tz": heldout_errors(9.0, force / 2)}}
        held = energy("ccsd(t)_cbs", value)
        metrics = run_metrics(held, cross=others)
        metrics["sets"]["comp6"] = {"ccsd(t)_cbs": far}
        make_run(tmp_path, name, 0, metrics)
    return read_results(tmp_path)


@pytest.fixture
def bars(results):
    return {(bar.level, bar.metric): bar for bar in figure3_data(results).bars}


def test_a_bar_is_the_statistic_of_the_tables_over_the_seeds_that_both_have(bars):
    bar = bars["TZ", "energy"]
    assert bar.percent_improvement == percent_improvement(MULTI, SINGLE)
    assert bar.values_percent == pytest.approx({"0": 75.0, "1": 50.0, "2": 60.0})


def test_bars_come_from_the_high_levels_head_and_may_be_negative(bars):
    values = {
        metric: bars["CC", metric].percent_improvement.value
        for metric in ("energy", "force, held-out TZ", "force, COMP6 MP2", "ΔE, COMP6 CC")
    }
    assert values == pytest.approx(
        {
            "energy": 10.0,
            "force, held-out TZ": 75.0,
            "force, COMP6 MP2": 75.0,
            "ΔE, COMP6 CC": -25.0,
        }
    )


def test_a_pair_or_a_metric_that_is_missing_has_no_bar(bars):
    missing = {key for key, bar in bars.items() if bar.percent_improvement is None}
    assert {metric for level, metric in missing if level == "MP2"} == {m for _, m in bars}
    assert ("TZ", "ΔE, COMP6 CC") in missing
    assert not any(level == "CC" for level, _ in missing)


def test_the_published_improvements_are_those_of_tables_2_to_4(bars):
    found = {key: bar.published_percent_improvement for key, bar in bars.items()}
    assert {key: value for key, value in found.items() if value is not None} == pytest.approx(
        PUBLISHED
    )


def drawn(results, levels=LEVELS):
    axes = Figure().subplots()
    draw_figure3(axes, figure3_data(results, levels))
    return axes


def test_bars_have_their_interval_and_a_dot_per_seed(results):
    axes = drawn(results)
    expected = percent_improvement(MULTI, SINGLE)
    intervals = [c for c in axes.collections if isinstance(c, LineCollection)]
    (segment,) = [s for interval in intervals for s in interval.get_segments()]
    np.testing.assert_allclose(sorted(segment[:, 1]), [expected.low, expected.high])
    dots = [y for line in axes.lines if line.get_marker() == "." for y in line.get_ydata()]
    assert sorted(dots) == pytest.approx([-25.0, 10.0, 50.0, 60.0, 75.0, 75.0, 75.0])


def test_ticks_name_the_seeds_of_the_pairs(results):
    ticks = [label.get_text() for label in drawn(results).get_xticklabels()]
    assert ticks == ["X = TZ\nseeds 0, 1, 2", "X = MP2\nno pair of runs", "X = CC\nseeds 0"]


def test_levels_can_be_chosen(results):
    axes = drawn(results, (CC, MP2))
    assert [label.get_text()[:6] for label in axes.get_xticklabels()] == ["X = CC", "X = MP"]
    assert {bar.level for bar in figure3_data(results, (TZ,)).bars} == {"TZ"}
