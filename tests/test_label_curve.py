"""Errors against the number of labels: power laws, what they expect, and the command."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from made_runs import NO_COMPILER, TINY_OPTIONS, exit_code
from planted import write_ani1x

from hippynn_mf.evaluation.schema import HELDOUT
from hippynn_mf.levels import CC
from hippynn_mf.report.columns import Column
from hippynn_mf.report.label_curve import (
    Expected,
    LabelCurve,
    Point,
    expect,
    label_curve,
    power_laws,
)
from hippynn_mf.report.label_curve_figure import draw_label_curves
from hippynn_mf.report.statistics import estimate_mean

NUMBERS = [50, 100, 200, 400]


def powers(exponents, n_labels=NUMBERS, start=30.0):
    """Errors of exact power laws, a row for every seed."""
    rows = {s: [start * n**-b for n in n_labels] for s, b in enumerate(exponents)}
    return pd.DataFrame.from_dict(rows, orient="index", columns=n_labels)


class Fraction:
    """The runs of one fraction, as far as a curve reads them."""

    def __init__(self, fraction, n_labels, by_seed):
        self.fraction, self._n, self.results = fraction, n_labels, self
        self.by_seed = pd.Series(by_seed, dtype=float)

    def n_labels(self, name, level):
        return self._n

    def values(self, name, column):
        return self.by_seed


def curve_of(table):
    parts = [Fraction(n / max(table), int(n), table[n]) for n in reversed(table.columns)]
    return label_curve(parts, "MF-DZ/EF-CC/E", CC, Column.own(HELDOUT, CC, "energy"))


def test_a_power_law_is_found_and_carried_on():
    fits = power_laws(powers([0.3, 0.5]))
    np.testing.assert_allclose(fits["b"], [0.3, 0.5], rtol=1e-10)
    np.testing.assert_allclose(np.exp(fits["a"]), 30.0, rtol=1e-10)
    expected = expect(powers([0.5, 0.5, 0.5]), 1600)
    assert expected.value == pytest.approx(30.0 / 40)
    assert (expected.low, expected.high) == pytest.approx((0.75, 0.75))


def test_the_interval_is_that_of_the_mean_over_the_seeds():
    exponents = [0.3, 0.4, 0.6]
    expected = expect(powers(exponents), 800)
    logs = estimate_mean([np.log(30.0) - b * np.log(800) for b in exponents])
    assert expected.low == pytest.approx(np.exp(logs.low))
    assert expected.high == pytest.approx(np.exp(logs.high))
    assert expect(powers(exponents[:2]), 800).low is None  # two seeds have a range only


def test_an_error_that_levels_off_widens_the_interval():
    """A power law misses a floor; without the smallest number it misses less."""
    table = powers([0.5, 0.52, 0.48]) + 2.0
    expected = expect(table, 1600)
    true = 30.0 / 40 + 2.0
    assert expected.value < true  # of all numbers
    assert expected.low < expected.value < expected.high
    narrow = estimate_mean(power_laws(table)["a"] - power_laws(table)["b"] * np.log(1600))
    assert expected.high > np.exp(narrow.high)


def test_fewer_than_three_numbers_of_labels_expect_nothing():
    curve = curve_of(powers([0.5, 0.6, 0.4], n_labels=[50, 100]))
    assert (curve.exponent, curve.expected, curve.backtest) == (None, [], None)
    (line,) = curve.lines("CC")
    assert line.startswith("MF-DZ/EF-CC/E, energy, held-out CC: 100 labels of CC give ")
    assert line.endswith("kcal/mol.")


def test_a_curve_is_ascending_and_says_what_more_labels_would_give():
    curve = curve_of(powers([0.5, 0.5, 0.5]))
    assert [point.n_labels for point in curve.points] == NUMBERS
    assert curve.exponent.value == pytest.approx(0.5)
    assert [each.n_labels for each in curve.expected] == [800, 1600]
    assert curve.backtest.n_labels == 400
    assert curve.backtest.value == pytest.approx(curve.last.mean.value)
    assert "400 labels of CC give 1.5 ± " in curve.lines("CC")[0]
    assert "1600 would give 0.75 to 0.75" in curve.lines("CC")[0]


def test_no_gain_is_said():
    lines = curve_of(powers([-0.1, 0.0, 0.1])).lines("CC")
    assert any("no gain from more labels is seen" in line for line in lines)
    assert not any("no gain" in line for line in curve_of(powers([0.4, 0.5, 0.6])).lines("CC"))


@pytest.mark.parametrize(("low", "high", "text"), [(1.0, 2.0, "held."), (2.0, 3.0, "not hold.")])
def test_whether_the_expectation_held_is_said(low, high, text):
    mean = estimate_mean([1.4, 1.5, 1.6])
    curve = LabelCurve(
        experiment="SF-CC/E",
        column="energy",
        unit="kcal/mol",
        points=[Point(fraction=1.0, n_labels=90, mean=mean, by_seed={})],
        exponent=None,
        expected=[],
        backtest=Expected(n_labels=90, value=1.5, low=low, high=high),
    )
    assert curve.lines("CC")[-1].endswith(text)


def test_the_figure_shows_every_seed_and_what_is_expected():
    curves = [curve_of(powers([0.4, 0.5, 0.6])), curve_of(powers([0.2, 0.3], start=10.0))]
    curves[1] = curves[1].model_copy(update={"experiment": "SF-CC/E"})
    (axes,) = draw_label_curves(curves, CC).axes
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["MF-DZ/EF-CC/E", "SF-CC/E"]
    dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert [list(line.get_xdata()) for line in dashed] == [[400, 800, 1600]] * 2
    assert len(axes.collections) >= 3  # error bars, and a band where seeds are enough


@pytest.fixture
def data(tmp_path):
    return write_ani1x(tmp_path / "data.h5")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["SF-DZ/E", "--level", "CC"], "does not train on CC, but on DZ"),
        (["SF-CC/E", "--level", "QQ"], "Unknown level"),
        (["SF-CC/E", "--level", "CC", "--fractions", "0.5,2"], "2 is no fraction of labels"),
        (["SF-CC/E", "--level", "CC", "--fractions", "a,1"], "a is no fraction of labels"),
        (["SF-CC/E", "--level", "CC", "--fractions", "1,1.0"], "is there twice"),
        (["SF-CC/E", "--level", "CC", "--label-fraction", "CC=0.5"], "Leave one out"),
        (["SF-CC/E", "--level", "CC", "--split-seeds", "0,1"], "is of one split"),
        (["--level", "CC"], "Nothing is asked for"),
    ],
)
def test_what_makes_no_curve_is_refused_before_anything_trains(data, tmp_path, capsys, words, text):
    out = tmp_path / "out"
    command = ["learning-curve", *words, "--data", str(data), "--out", str(out)]
    assert exit_code(*command) == 2
    assert text in " ".join(capsys.readouterr().err.split())
    assert not out.exists()


@pytest.mark.slow
def test_the_command_trains_nested_fractions_and_continues(data, tmp_path, capsys, monkeypatch):
    for name, value in NO_COMPILER.items():
        monkeypatch.setenv(name, value)
    out = tmp_path / "out"
    command = [
        *("learning-curve", "MF-DZ/EF-CC/E", "--level", "CC", "--fractions", "0.3,0.6,1"),
        *("--seeds", "0,1,2", "--engine", "pool", "--workers", "1", *TINY_OPTIONS),
        *("--data", str(data), "--out", str(out)),
    ]
    assert exit_code(*command) == 0
    printed = capsys.readouterr().out
    content = json.loads((out / "learning-curve.json").read_text())
    (curve,) = (c for c in content["curves"] if c["column"] == "energy, held-out CC")
    numbers = [point["n_labels"] for point in curve["points"]]
    assert numbers == sorted(set(numbers))
    kept = {}
    for fraction in ("0.3", "0.6", "1"):
        folder = out / f"fraction-{fraction}" / "runs" / "mf_dz_ef_cc_e" / "seed-0"
        settings = json.loads((folder / "experiment.json").read_text())
        assert settings["settings"]["label_fractions"] == {CC.id: float(fraction)}
        kept[fraction] = settings["n_labels"][CC.id]
    assert list(kept.values()) == numbers
    assert f"{numbers[-1]} labels of CC give" in printed
    assert "energies of CC on held-out beside the labels of DZ: better in" in printed
    assert (out / "learning-curve.png").stat().st_size > 10_000
    before = (out / "learning-curve.json").read_text()
    assert exit_code(*command) == 0  # nothing is left to train
    assert (out / "learning-curve.json").read_text() == before
