"""The committed campaigns: their tables and figures follow from their metrics, whole."""

from __future__ import annotations

import functools
import importlib
import itertools
import json
import re
from pathlib import Path

import pytest

from hippynn_mf.paper.table1 import BASELINES, strategies, table1
from hippynn_mf.potentials.potential import Potential
from hippynn_mf.report.kept import CAMPAIGN, ENSEMBLES, RUNS, read_lines
from hippynn_mf.report.results import read_results
from hippynn_mf.report.spread import SpreadData

TOP = Path(__file__).parent.parent
EXPERIMENTS = TOP / "experiments"
TABLE1, STRATEGIES = EXPERIMENTS / "results", EXPERIMENTS / "strategies" / "results"
DOCUMENTS = {
    "results": {"table2", "table3", "table4", "low-level-forces", "claims"},
    "results-robust": {"table2", "table3", "table4", "low-level-forces", "cc-forces", "claims"},
    "results-periodic": {"experiments"},
    "strategies/results": {"table4", "low-level-forces", "claims", "cc-forces", "strategies"},
    "strategies/results-30": {"table4", "low-level-forces", "cc-forces", "strategies"},
    "strategies/results-xtb": {"experiments"},
    "strategies/results-xtb-30": {"experiments"},
}
N_SEEDS = {"results-robust": 4}  # of the others eight
WITHOUT_METRICS = "spread-"  # figures of predictions, which are not committed


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(TOP / "scripts")
    return importlib.import_module("make_documents")


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
        assert found == pytest.approx(expected, rel=1e-12, abs=1e-12), where
    else:
        assert found == expected, where


def test_the_script_makes_the_documents_of_every_committed_campaign(script):
    found = {str(folder.relative_to(EXPERIMENTS)) for folder in script.campaigns()}
    assert found == DOCUMENTS.keys()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_committed_tables_and_figures_are_those_of_the_metrics(script, tmp_path, name):
    """Texts whole; of figures, their numbers. Those of tables are not committed."""
    folder = EXPERIMENTS / name
    script.make_documents(folder, tmp_path)
    assert {path.stem for path in (tmp_path / "tables").iterdir()} == DOCUMENTS[name]
    for kind in ("tables", "figures"):
        made, committed = (
            {
                path.name: path
                for path in top.glob(f"{kind}/*")
                if not path.name.startswith(WITHOUT_METRICS)
                and not (kind == "tables" and path.suffix == ".json")
            }
            for top in (tmp_path, folder)
        )
        assert made.keys() == committed.keys()
        for file, path in made.items():
            if path.suffix == ".md":
                assert committed[file].read_text() == path.read_text(), file
            elif path.suffix == ".json":
                stored, found = (json.loads(p.read_text()) for p in (committed[file], path))
                assert_same_numbers(found, stored, file)


def test_the_shipped_model_has_the_lowest_validation_error_of_cc_energies():
    results = read_results(TABLE1)
    metric = "energy_rmse.ccsd(t)_cbs"
    sums: dict[str, float] = {}
    for run in results.finished:
        if metric in run.kept_epoch.valid:
            sums[run.name] = sums.get(run.name, 0.0) + run.kept_epoch.valid[metric]
    shipped = Potential.load("mini-ani1x").card
    name = shipped.training.experiment
    assert min(sums, key=lambda name: sums[name]) == name
    runs = {run.seed: run for run in results.members(name)}
    assert {member.seed for member in shipped.members} <= runs.keys()


def test_every_campaign_has_the_same_seeds_of_every_experiment():
    names = {
        "results": {e.name for e in table1()},
        "results-robust": {e.name for e in table1()},
        "results-periodic": {
            *("SF-GFN2/E", "SF-GFN2/EFS", "MF-GFN1/E-GFN2/E", "MF-GFN1/EFS-GFN2/E")
        },
        "strategies/results": {e.name for e in strategies()},
        "strategies/results-30": {"MF-DZ/EF-CC/E", "MFC-DZ/EF-CC/E"},
    }
    for folder in DOCUMENTS:
        results = read_results(EXPERIMENTS / folder)
        xtb = {"SF-GFN2/E", "MF-GFN1/EF-GFN2/E", "MFC-GFN1/EF-GFN2/E"}
        found, expected = set(results.by_name), names.get(folder, xtb)
        if expected == names["strategies/results"]:  # one may be there that is not yet trained
            assert set(BASELINES) < found <= expected
        else:
            assert found == expected
        assert {tuple(results.seeds(name)) for name in results.by_name} == {
            tuple(range(N_SEEDS.get(folder, 8)))
        }
        assert results.unfinished == {}


def test_the_committed_spread_has_the_errors_of_the_mean_prediction():
    """The RMS over all bins of a panel is the RMSE that the tables call mean prediction."""
    content = (TABLE1 / "figures" / "spread-mf_dz_ef_cc_e.json").read_text()
    spread = SpreadData.model_validate_json(content)
    records = {record["name"]: record for record in read_lines(TABLE1 / ENSEMBLES)}
    record = records[spread.name]
    assert [str(seed) for seed in spread.seeds] == list(record["members"])
    names = {
        ("heldout", "energy"): "energy_rmse_kcal_per_mol",
        ("comp6", "delta_e"): "delta_e_rmse_kcal_per_mol",
    }
    panels = [p for p in spread.panels if (p.part, p.kind) in names]
    assert len(panels) == 4
    for panel in panels:
        squares = sum(b.n * b.error**2 for b in panel.calibration.bins)
        entry = record["sets"][panel.part][panel.level][panel.level]
        stored = entry[names[panel.part, panel.kind]]
        assert (squares / panel.calibration.n) ** 0.5 == pytest.approx(stored, rel=1e-6)


def test_what_is_kept_of_kept_results_is_the_same(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(TOP / "scripts")
    script = importlib.import_module("keep_results")
    folder = EXPERIMENTS / "strategies" / "results-30"
    script.main(folder, tmp_path)
    for name in (CAMPAIGN, RUNS, ENSEMBLES):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


def test_nothing_committed_names_the_machine_that_trained():
    for folder in DOCUMENTS:
        for run in read_results(EXPERIMENTS / folder).finished:
            for source in (run.settings.data, *run.settings.tests):
                paths = source.path.values() if isinstance(source.path, dict) else [source.path]
                assert not any(path.is_absolute() or len(path.parts) > 1 for path in paths)


@functools.cache
def variant_rows():
    return read_lines(EXPERIMENTS / "strategies" / "variants" / "cc-all" / "variants.jsonl")


def test_the_variants_of_heads_have_all_seeds_and_their_table(monkeypatch):
    monkeypatch.syspath_prepend(TOP / "scripts")
    script = importlib.import_module("try_head_variants")
    runs = sorted((row["variant"], row["seed"]) for row in variant_rows())
    assert runs == sorted(itertools.product(script.VARIANTS, range(8)))
    lines = script.table(variant_rows()).splitlines()
    assert len(lines) == 2 + len(script.VARIANTS)
    hidden = [row["valid"] for row in variant_rows() if row["variant"] == "hidden"]
    failed = [valid for valid in hidden if valid["energy_rmse.ccsd(t)_cbs"] > 10]
    assert (len(failed), len(hidden)) == (5, 8)


def test_no_committed_result_says_where_files_lay():
    for folder in DOCUMENTS:
        for name in (CAMPAIGN, RUNS, ENSEMBLES):
            text = (EXPERIMENTS / folder / name).read_text(encoding="utf-8")
            assert re.search(r"/\w+/\w+/[\w./-]*\.(h5|xyz)", text) is None, (folder, name)
