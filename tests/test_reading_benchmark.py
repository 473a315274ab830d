"""The benchmark of reading measures what it says."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from hippynn_mf.errors import UserError

TOP = Path(__file__).parent.parent


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(TOP / "scripts")
    return importlib.import_module("benchmark_reading")


def test_the_committed_figures_are_within_the_limits(benchmark):
    """30 s of one core and 2.5 GB for the CC subset among a million conformers."""
    results = json.loads((benchmark.RESULTS / "reading.json").read_text())
    (row,) = (
        row
        for row in results["rows"]
        if (row["n_conformers"], row["rows"]) == (1_000_000, "common")
    )
    assert row["n_kept"] == 489_571
    assert row["database_cpu_s"] <= 30
    assert row["peak_mib"] * 2**20 <= 2.5e9


def test_copies_and_checks_take_a_third_of_reading_a_million_conformers_at_most(benchmark):
    results = json.loads((benchmark.RESULTS / "reading.json").read_text())
    shares = {
        row["rows"]: benchmark.share_of_checks(row)
        for row in results["rows"]
        if row["n_conformers"] == 1_000_000
    }
    assert shares.keys() == {"common", "all"}
    assert max(shares.values()) <= 1 / 3


@pytest.mark.slow
def test_files_are_made_once_and_measured(benchmark, tmp_path, monkeypatch, capsys):
    folder, out = tmp_path / "files", tmp_path / "out"
    monkeypatch.setattr(benchmark, "ROWS", ["common"])  # every process imports everything
    benchmark.main(folder, sizes="1000", repeats=1, out=out)
    (row,) = json.loads((out / "reading.json").read_text())["rows"]
    assert (row["n_conformers"], row["rows"], row["n_kept"]) == (1000, "common", 490)
    assert row["database_cpu_s"] > row["plain_cpu_s"] > 0
    assert row["splits_s"] > 0
    stages = [row[f"{name}_cpu_s"] for name in ("reading", "matching", "checks")]
    assert min(stages) > 0
    assert sum(stages) <= row["database_cpu_s"]
    assert 0 < row["arrays_mib"] < row["libraries_mib"] <= row["peak_mib"]
    assert benchmark.table([row]) in capsys.readouterr().out
    (path,) = folder.iterdir()
    written = path.stat().st_mtime_ns
    assert benchmark.make_missing(folder, [1000]) == {1000: path}
    assert path.stat().st_mtime_ns == written


def test_sizes_that_are_no_numbers_are_refused(benchmark, tmp_path):
    with pytest.raises(UserError, match=r"--sizes 'many': expected numbers, as in 10000,100000"):
        benchmark.main(tmp_path, sizes="many")
