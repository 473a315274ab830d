"""Inputs that are read once for several runs."""

import os

import numpy as np
import pytest

from hippynn_mf.data.embedded import MINI_ANI1X
from hippynn_mf.runs import preflight
from hippynn_mf.runs.build import build_settings
from hippynn_mf.runs.kept_inputs import Kept, n_bytes, stamps
from hippynn_mf.runs.request import Request


def counted(value, calls):
    def make():
        calls.append(1)
        return value

    return make


def test_a_value_is_made_once_and_handed_out_as_copies():
    kept, calls = Kept(), []
    made = {"a": np.zeros(3)}
    kept.get("key", counted(made, calls))["a"] += 1  # as a training consumes what it is given
    again = kept.get("key", counted(made, calls))
    again["a"] += 5
    assert kept.get("key", counted(made, calls))["a"].tolist() == [0, 0, 0]
    assert len(calls) == 1


def test_large_values_are_made_again_and_the_oldest_is_dropped():
    kept, calls = Kept(most_bytes=100), []
    for _ in range(2):
        kept.get("large", counted(np.zeros(13), calls))
    assert len(calls) == 2
    kept.get("a", counted(np.zeros(6), calls))
    kept.get("b", counted(np.zeros(6), calls))
    kept.get("c", counted(np.zeros(6), calls))
    kept.get("c", counted(np.zeros(6), calls))
    assert len(calls) == 5
    kept.get("a", counted(np.zeros(6), calls))
    assert len(calls) == 6


def test_what_fails_is_not_kept():
    kept = Kept()

    def fail():
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            kept.get("key", fail)


def test_bytes_are_those_of_all_arrays_inside():
    class Holder:
        def __init__(self):
            self.inside = (np.zeros(2), [{"x": np.zeros((3, 2), np.float32)}], "text", None)

    assert n_bytes(Holder()) == 16 + 24


def test_a_changed_file_has_another_stamp(tmp_path):
    path = tmp_path / "data.h5"
    path.write_bytes(b"one")
    before = stamps([path, {"DZ": path}, tmp_path])
    assert before == stamps([path, {"DZ": path}, tmp_path])
    os.utime(path, ns=(1, 1))
    assert before != stamps([path, {"DZ": path}, tmp_path])


def test_runs_that_differ_in_their_seed_share_what_is_read(monkeypatch):
    monkeypatch.setattr(preflight, "_kept", Kept())
    calls = []
    monkeypatch.setattr(preflight, "load_splits", _counting(preflight.load_splits, calls))
    one, other = build_settings(Request(experiments=["SF-DZ/E"], seeds=[0, 1], preset="quick"))
    (third,) = build_settings(Request(experiments=["SF-DZ/E"], split_seed=3, preset="quick"))
    reports = [[], [], []]
    parts = [
        preflight.load_inputs([settings], reports=found)
        for settings, found in zip((one, other, third), reports, strict=True)
    ]
    assert len(calls) == 2
    assert parts[0]["train"].positions is not parts[1]["train"].positions
    assert np.array_equal(parts[0]["train"].rows, parts[1]["train"].rows)
    assert not np.array_equal(parts[0]["train"].rows, parts[2]["train"].rows)
    assert [r.source for r in reports[0]] == [r.source for r in reports[1]]
    assert reports[0][0].source == str(MINI_ANI1X) or reports[0]


@pytest.mark.parametrize(
    "other",
    [{"accept_outliers": True}, {"accept_charged": True}, {"rows": "all"}, {"split": "molecule"}],
    ids=str,
)
def test_runs_that_differ_otherwise_read_for_themselves(monkeypatch, other):
    monkeypatch.setattr(preflight, "_kept", Kept())
    calls = []
    monkeypatch.setattr(preflight, "load_splits", _counting(preflight.load_splits, calls))
    (settings,) = build_settings(Request(experiments=["SF-DZ/E"], preset="quick"))
    for each in (settings, settings.model_copy(update=other)):
        preflight.load_inputs([each])
    assert len(calls) == 2


def _counting(function, calls):
    def counting(*arguments, **options):
        calls.append(1)
        return function(*arguments, **options)

    return counting
