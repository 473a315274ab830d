"""The benchmark scripts measure what they say, and refuse to compare different numbers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.neighborlist import primitive_neighbor_list

SCRIPTS = Path(__file__).parent.parent / "scripts"
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    """Import the scripts as they import each other."""
    monkeypatch.syspath_prepend(SCRIPTS)
    import hippynn

    monkeypatch.setattr(hippynn.settings, "WARN_LOW_DISTANCES", False)


@pytest.fixture
def case():
    """A network that takes no time."""
    from benchmarking import Case

    return Case(n_features=4, tensor_order=1, labels="DZ/EF", kernels="numba")


def test_one_factor_varies_at_a_time():
    from benchmarking import Case, cases

    factors = {"n_features": [20, 120], "threads": [1, 2], "labels": ["DZ/E"]}
    found = cases(factors, full=False)
    base = Case(labels="DZ/E")
    assert found == [
        ("base", base),
        ("n_features", Case(labels="DZ/E", n_features=20)),
        ("threads", Case(labels="DZ/E", threads=2)),
    ]
    assert len(cases(factors, full=True)) == 4


def test_ratios_are_of_neighbours():
    from benchmarking import compare

    clock = iter([1.0] * 100)
    drift = {"value": 1.0}

    def call(factor):
        def timed():
            drift["value"] *= 1.0 + 1e-3 * next(clock)
            return factor * drift["value"]

        return timed

    result = compare({"stock": call(6.0), "fast": call(2.0)}, repeats=9)
    assert result["fast_speedup"] == pytest.approx(3.0, rel=2e-3)
    assert result["fast_speedup_error"] < 1e-2


@pytest.mark.parametrize("sizes", [[9], [3, 7, 12]])
def test_random_molecules_are_bonded_and_apart(sizes):
    from benchmarking import random_molecules

    species, positions = random_molecules(7, sizes, seed=0)
    for k, n_atoms in enumerate(np.resize(sizes, 7)):
        assert (species[k, :n_atoms] > 0).all()
        assert not species[k, n_atoms:].any()
        atoms = positions[k, :n_atoms]
        distances = np.linalg.norm(atoms[:, None] - atoms[None], axis=2) + 9 * np.eye(n_atoms)
        assert distances.min() >= 1.0 - 1e-9
        assert (distances.min(axis=1) <= 1.5 + 1e-9).all()


def test_the_box_is_water_at_its_density():
    from benchmarking import water_box

    box = water_box(192)
    assert len(box) == 192
    assert (box.numbers.reshape(-1, 3) == [8, 1, 1]).all()
    grams = box.get_masses().sum() * 1.66053907e-24
    assert grams / (box.get_volume() * 1e-24) == pytest.approx(1.0, abs=0.01)
    bonds = np.linalg.norm(box.positions[1::3] - box.positions[::3], axis=1)
    np.testing.assert_allclose(bonds, bonds[0])


def test_products_are_counted():
    from benchmark_step import ProductCounter

    a, b = torch.ones(3, 4), torch.ones(4, 5, requires_grad=True)
    batch = torch.ones(2, 3, 4)
    with ProductCounter() as counter:
        (a @ b).sum().backward()  # and the gradient of b, as many
        torch.bmm(batch, torch.ones(2, 4, 7), out=torch.empty(2, 3, 7))
        torch.nn.functional.linear(a, torch.ones(6, 4), torch.ones(6))
    assert counter.operations == 2 * (2 * 3 * 4 * 5 + 2 * 3 * 4 * 7 + 3 * 4 * 6)


def test_a_step_is_timed_for_every_model(case, monkeypatch):
    import benchmark_step

    measured = benchmark_step.measure(case, CPU, 2)
    assert measured["stock_ms"] > 0
    assert measured["fast_speedup"] > 0
    assert 0 < measured["fast_products_ms"] < measured["fast_ms"]
    monkeypatch.setattr(
        benchmark_step, "build_loss", lambda heads: 2 * benchmark_step.stock_loss(heads)
    )
    with pytest.raises(RuntimeError, match="losses differ"):
        benchmark_step.measure(case, CPU, 2)


@pytest.mark.parametrize("system", ["small", "molecule", "water192"])
def test_inference_is_timed_for_every_model(case, system, monkeypatch):
    from dataclasses import replace

    import benchmark_inference

    asked = replace(case, system=system)
    measured = benchmark_inference.measure(asked, CPU, 3)
    assert measured["stock_ms"] > 0
    assert ("blocks_speedup" in measured) == (system != "small")
    monkeypatch.setattr(benchmark_inference, "ROUNDING", 0.0)
    with pytest.raises(RuntimeError, match=r"forces of .* differ"):
        benchmark_inference.measure(asked, CPU, 3)


@pytest.mark.parametrize("n_atoms", [192, 648])
def test_pairs_of_a_box(n_atoms):
    import benchmark_memory
    from benchmarking import water_box

    box = water_box(n_atoms)
    side = box.cell.array[0, 0]
    first, second, shifts = benchmark_memory.pairs_of_box(box.positions, side, 6.5)
    found = {(i, j, *s) for i, j, s in zip(first, second, map(tuple, shifts), strict=True)}
    expected = primitive_neighbor_list("ijS", [True] * 3, np.eye(3) * side, box.positions, 6.5)
    assert found == {
        (i, j, *s) for i, j, s in zip(*expected[:2], map(tuple, expected[2]), strict=True)
    }
    assert len(found) == len(first)


@pytest.mark.parametrize("system", ["small", "water"])
def test_memory_is_more_for_more(case, system):
    from dataclasses import replace

    import benchmark_memory

    asked = replace(case, system=system)
    large = 192 if system == "water" else 1
    assert benchmark_memory.peak_of_this_process(asked, "fast", large, CPU) > 0


def test_the_largest_box_is_the_last_that_fits(case, monkeypatch):
    import benchmark_memory

    asked = []

    def peak(case, model, n_atoms, device):
        asked.append(n_atoms)
        return 50 + 0.1 * n_atoms

    monkeypatch.setattr(benchmark_memory, "peak", peak)
    best = benchmark_memory.largest_box(case, "fast", 1000.0, "cpu")
    assert best["mib"] <= 1000.0
    assert 9500 / benchmark_memory.GROWTH < best["n_atoms"] <= 9500
    assert all(n % 3 == 0 for n in asked)


def test_results_are_written_with_the_machine(tmp_path, case):
    from benchmarking import row, write

    write("step", [row("base", case, {"stock_ms": 2.0})], CPU, tmp_path)
    read = json.loads((tmp_path / "step.json").read_text())
    assert read["rows"][0]["stock_ms"] == 2.0
    assert read["rows"][0]["n_features"] == 4
    assert read["versions"]["torch"] == torch.__version__
    assert read["device"]
    assert [path.name for path in tmp_path.iterdir()] == ["step.json"]


def test_the_scripts_run_nothing_at_import():
    for name in ("benchmark_step", "benchmark_inference", "benchmark_memory"):
        sys.modules.pop(name, None)
        __import__(name)
