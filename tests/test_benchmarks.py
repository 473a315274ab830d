"""The benchmark scripts measure what they say, and refuse to compare different numbers."""

from __future__ import annotations

import importlib
import importlib.metadata
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


@pytest.mark.parametrize("reference", ["stock", "other"])
def test_ratios_are_of_neighbours(reference):
    """The machine gets five times slower half way: medians of times would mislead."""
    from benchmarking import compare

    calls = {"n": 0}

    def call(factor):
        def timed():
            calls["n"] += 1
            return factor * (1.0 if calls["n"] <= 14 else 5.0)

        return timed

    timed = {reference: call(6.0), "fast": call(2.0)}
    result = compare(timed, repeats=9, reference=reference)
    assert result["fast_speedup"] == pytest.approx(3.0)
    assert set(result) == {f"{reference}_ms", "fast_ms", "fast_speedup", "fast_speedup_error"}


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


@pytest.mark.slow
def test_a_step_is_timed_for_every_model(case, monkeypatch):
    import benchmark_step

    measured = benchmark_step.measure(case, CPU, 2)
    assert measured["stock_ms"] > 0
    assert measured["ours_speedup"] > 0
    assert 0 < measured["products_ms"] < measured["stock_ms"]
    monkeypatch.setattr(
        benchmark_step, "stock_loss", lambda heads: 2 * benchmark_step.build_loss(heads)
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

    def other_weights(case):
        models = network_pair(case)
        with torch.no_grad():
            models["ours"].heads.network.torch_module.interaction_layers[0].int_weights.mul_(1.1)
        return models

    network_pair = benchmark_inference.network_pair
    monkeypatch.setattr(benchmark_inference, "network_pair", other_weights)
    with pytest.raises(RuntimeError, match="forces of ours differ"):
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


@pytest.mark.slow
def test_memory_grows_with_the_box(case):
    from dataclasses import replace

    import benchmark_memory

    water = replace(case, system="water")
    small, large = (benchmark_memory.peak(water, "ours", n, "cpu") for n in (192, 1536))
    assert 4 * small < large < 30 * small


@pytest.mark.slow
def test_memory_of_a_training_step(case):
    import benchmark_memory

    assert benchmark_memory.peak(case, "ours", 1, "cpu") > 0


@pytest.mark.parametrize("power", [1.0, 1.1])
@pytest.mark.parametrize("limit", [300.0, 1000.0, 4096.0])
def test_the_largest_box_is_the_last_that_fits(case, monkeypatch, limit, power):
    import benchmark_memory

    def peak(case, model, n_atoms, device):
        assert n_atoms % 3 == 0
        found = 50 + 0.1 * n_atoms**power
        return found if found < 20000 else float("inf")

    monkeypatch.setattr(benchmark_memory, "peak", peak)
    best = benchmark_memory.largest_box(case, "ours", limit, "cpu")
    assert best["mib"] == peak(case, "ours", best["n_atoms"], "cpu") <= limit
    next_size = 3 * round(best["n_atoms"] * benchmark_memory.GROWTH / 3)
    assert peak(case, "ours", next_size, "cpu") > limit


@pytest.fixture
def ensemble():
    """Three members that take no time."""
    from potentials import random_potential

    return random_potential({"DZ": "EF", "CC": "E"}, n_members=3)


def test_ensembles_are_timed_and_compared(ensemble, monkeypatch):
    import benchmark_ensemble

    measured = benchmark_ensemble.measure(ensemble, "float64", 2, CPU, 2)
    assert measured["at_once"] == 3
    assert measured["members_time"] > 0
    assert measured["one_by_one_time"] > 0
    evaluator = benchmark_ensemble.Evaluator
    others = ensemble.member(1)
    monkeypatch.setattr(
        benchmark_ensemble,
        "Evaluator",
        lambda chosen, **options: evaluator(chosen if chosen is ensemble else others, **options),
    )
    with pytest.raises(RuntimeError, match="forces of member differ"):
        benchmark_ensemble.measure(ensemble, "float64", 2, CPU, 2)


def test_an_extracted_level_is_timed_beside_a_model_of_that_level(ensemble):
    import benchmark_extract

    parent = ensemble.member(1)
    found = benchmark_extract.models(parent)
    assert [len(each.levels) for each in found.values()] == [1, 1, 2]
    names = [list(each.members[0].parameters.state_dict()) for each in found.values()]
    assert names[0] == names[1] != names[2]
    measured = benchmark_extract.measure(parent, "float32", 1, CPU, 3)
    assert measured["ratio"] > 0
    assert measured["parent_ratio"] > 0


def test_an_extracted_level_costs_what_its_own_model_does():
    rows = json.loads((SCRIPTS / "benchmarks" / "extract.json").read_text())["rows"]
    assert all(row["ratio"] <= 1.02 for row in rows)


def test_results_are_written_with_the_machine(tmp_path, case):
    from benchmarking import row, write

    write("step", [row("base", case, {"stock_ms": 2.0})], CPU, tmp_path)
    read = json.loads((tmp_path / "step.json").read_text())
    assert read["rows"][0]["stock_ms"] == 2.0
    assert read["rows"][0]["n_features"] == 4
    assert read["versions"]["torch"] == torch.__version__
    assert read["device"]
    assert [path.name for path in tmp_path.iterdir()] == ["step.json"]


@pytest.mark.parametrize(
    "name",
    [
        *("step", "inference", "memory", "ensemble", "extract"),
        pytest.param("all", marks=pytest.mark.slow),
    ],
)
def test_wrong_input_is_one_message(name, monkeypatch, capsys, tmp_path):
    import benchmarking

    script = importlib.import_module(f"benchmark_{name}")
    monkeypatch.setattr(sys, "argv", [name, "--device", "tpu", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        benchmarking.start(script.main)
    assert ended.value.code == 2
    if name != "all":  # that one leaves the message to its children
        assert capsys.readouterr().err.startswith("Error: Unknown device 'tpu'.")
    assert not list(tmp_path.iterdir())


def test_the_scripts_run_nothing_at_import():
    names = sorted(path.stem for path in SCRIPTS.glob("benchmark_*.py"))
    assert len(names) == 14
    for name in names:
        sys.modules.pop(name, None)
        __import__(name)


@pytest.mark.parametrize(
    "engine",
    [
        "ASE",
        pytest.param("LAMMPS", marks=pytest.mark.slow),
        pytest.param("OpenMM", marks=pytest.mark.slow),
        # i-PI leaves files open, and asks threads in old words.
        pytest.param("i-PI", marks=[pytest.mark.slow, pytest.mark.filterwarnings("ignore")]),
        pytest.param("TorchSim", marks=pytest.mark.slow),
    ],
)
def test_engines_are_timed(engine):
    import benchmark_engines

    try:
        version = importlib.metadata.version(benchmark_engines.PACKAGES[engine])
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{engine} is not installed")
    rows = benchmark_engines.measure(engine, 2, 1)
    assert [row["system"] for row in rows][:2] == ["molecule", "water"]
    assert all(row["steps_per_s"] > 0 for row in rows)
    lines = benchmark_engines.table(rows).splitlines()
    assert len(lines) == 3
    assert lines[2].startswith(f"| {engine} {version} | ")
