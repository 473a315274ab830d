"""The committed campaign: its tables and the README follow from its metrics."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from hippynn_mf.paper.documents import write_documents
from hippynn_mf.paper.figure3 import LEVELS, figure3_data
from hippynn_mf.potentials.potential import Potential
from hippynn_mf.report.results import read_results
from hippynn_mf.report.spread import SpreadData
from hippynn_mf.runs.experiment import table1

TOP = Path(__file__).parent.parent
RESULTS = TOP / "experiments" / "results"


def assert_same_numbers(found, expected, where=""):
    """Equal JSON, but for the last digits of numbers, which depend on the machine."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key, value in expected.items():
            assert_same_numbers(found[key], value, f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for place, value in enumerate(expected):
            assert_same_numbers(found[place], value, f"{where}.{place}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-12), where
    else:
        assert found == expected, where


@pytest.fixture(scope="module")
def again(tmp_path_factory):
    """The tables, made again from the metrics alone."""
    out = tmp_path_factory.mktemp("results")
    for path in [*RESULTS.rglob("experiment.json"), *RESULTS.rglob("metrics.json")]:
        target = out / path.relative_to(RESULTS)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    for path in RESULTS.glob("runs/*/ensemble.json"):
        shutil.copy(path, out / path.relative_to(RESULTS))
    write_documents(out, read_results(out)).require()
    return out


def test_the_shipped_model_has_the_lowest_validation_error_of_cc_energies():
    stored = json.loads((RESULTS / "validation.json").read_text())
    metric = "energy_rmse.ccsd(t)_cbs"
    means = {
        name: np.mean([of_seed[metric] for of_seed in seeds.values()])
        for name, seeds in stored.items()
        if metric in next(iter(seeds.values()))
    }
    assert len(stored) == 17
    assert {len(seeds) for seeds in stored.values()} == {8}
    shipped = Potential.load("mini-ani1x").card
    assert min(means, key=lambda name: means[name]) == shipped.training.experiment
    for member in shipped.members:
        slug = shipped.training.experiment.lower().replace("-", "_").replace("/", "_")
        run = RESULTS / "runs" / slug / f"seed-{member.seed}"
        assert member.metrics == json.loads((run / "metrics.json").read_text())


def test_every_row_of_table_1_has_the_same_seeds():
    results = read_results(RESULTS)
    seeds = [results.seeds(experiment.name) for experiment in table1()]
    assert len(seeds[0]) >= 3
    assert all(found == seeds[0] for found in seeds)
    assert results.unfinished == {}


def test_the_committed_documents_are_those_of_the_metrics(again):
    made = {path.name: path for path in (again / "tables").iterdir()}
    committed = {path.name: path for path in (RESULTS / "tables").iterdir()}
    assert made.keys() <= committed.keys()
    for name, path in made.items():
        if path.suffix == ".md":
            assert committed[name].read_text() == path.read_text(), name
        else:
            stored = json.loads(committed[name].read_text())
            assert_same_numbers(stored, json.loads(path.read_text()), name)


def test_the_committed_figure_3_is_that_of_the_metrics():
    stored = json.loads((RESULTS / "figures" / "figure3.json").read_text())
    data = figure3_data(read_results(RESULTS), LEVELS)
    assert_same_numbers(stored, data.model_dump(mode="json"))


def test_the_committed_spread_has_the_errors_of_the_mean_prediction():
    """The RMS over all bins of a panel is the RMSE that the tables call mean prediction."""
    content = (RESULTS / "figures" / "spread-mf_dz_ef_cc_e.json").read_text()
    spread = SpreadData.model_validate_json(content)
    record = json.loads((RESULTS / "runs" / "mf_dz_ef_cc_e" / "ensemble.json").read_text())
    assert [str(seed) for seed in spread.seeds] == list(record["members"])
    names = {
        ("heldout", "energy"): "energy_rmse_kcal_per_mol",
        ("comp6", "delta_e"): "delta_e_rmse_kcal_per_mol",
    }
    panels = [p for p in spread.panels if (p.part, p.kind) in names]
    assert len(panels) == 4
    for panel in panels:
        squares = sum(b.n * b.error**2 for b in panel.calibration.bins)
        stored = record["metrics"][panel.part][panel.level][names[panel.part, panel.kind]]
        assert (squares / panel.calibration.n) ** 0.5 == pytest.approx(stored, rel=1e-6)


def test_nothing_committed_names_the_machine_that_trained():
    for path in RESULTS.rglob("experiment.json"):
        settings = json.loads(path.read_text())["settings"]
        sources = [settings["data"], settings["comp6"]]
        assert not any(Path(source["path"]).is_absolute() for source in sources if source), path
