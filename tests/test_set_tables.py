"""A user's own test sets and own levels have the same tables and figures as the paper's."""

import json
from pathlib import Path

import numpy as np
import pytest
from made_predictions import CC_FORCES, predicted_run, predictions, with_cc_forces
from made_runs import (
    COMP6,
    comp6_errors,
    exit_code,
    heldout_errors,
    make_run,
    require,
    run_metrics,
    spelt_experiment,
)

from hippynn_mf.errors import UserError
from hippynn_mf.levels import Level
from hippynn_mf.paper.documents import write_documents
from hippynn_mf.paper.figures import write_figures
from hippynn_mf.report.columns import Column
from hippynn_mf.report.forces_figure import draw_forces
from hippynn_mf.report.results import Selection, read_results
from hippynn_mf.runs.sources import TestSource

LOW = Level("low", "LO", "m", "b", 1.0, ("low.energy",), "low.forces")
HIGH = Level("high", "HI", "m", "b", 2.0, ("high.energy",), "high.forces")
WATER = CC_FORCES.model_copy(update={"name": "water"})
DIMERS = TestSource(
    name="dimers", path=Path("/data/d.h5"), sha256="7" * 64, energy_cut_kcal_per_mol=50.0
)
OWN = {"more_levels": (LOW, HIGH), "tests": (WATER, DIMERS)}


@pytest.fixture
def own(tmp_path):
    """Three seeds of two experiments of own levels, tested on structures and on conformers."""
    for seed in range(3):
        factor = 1 + 0.1 * seed
        for name, error in [("SF-HI/E", 4.0), ("MF-LO/EF-HI/E", 1.0)]:
            high = {"high": heldout_errors(factor * error, factor * 5 * error)}
            sets = {"water": {"high": high}, "dimers": {}}
            sets["dimers"]["high"] = {"high": comp6_errors(factor * 7 * error, factor * error)}
            if name.startswith("MF"):
                sets["water"]["low"] = {
                    "low": heldout_errors(1.0, 2.0),
                    "high": heldout_errors(9.0, factor * 8.0),
                }
            metrics = run_metrics({"high": heldout_errors(factor * 3 * error)}, **sets)
            make_run(tmp_path, name, seed, metrics, **OWN)
    return tmp_path


def tables_of(out, name):
    return json.loads((out / "tables" / f"{name}.json").read_text())["tables"]


def test_every_set_has_a_document_with_a_table_for_each_level(own):
    written = write_documents(own, read_results(own))
    names = {path.name for path in require(written)}
    assert names == {"experiments.md", "set-water.md", "set-dimers.md"}
    low, high, beside_labels, beside_head = tables_of(own, "set-water")
    assert low["title"] == "Models of LO: errors on water"
    assert [row["model"] for row in high["rows"]] == ["SF-HI/E", "MF-LO/EF-HI/E"]
    assert [c["heading"] for c in high["columns"]] == ["energy, water HI", "force, water HI"]
    energy, force = high["rows"][1]["cells"]
    assert energy["values"] == pytest.approx({"0": 1.0, "1": 1.1, "2": 1.2})
    assert force["percent_improvement"]["value"] == pytest.approx(75)
    assert high["reference"] == "SF-HI/E"
    assert beside_labels["title"].endswith("than LO forces are? Test set water")
    (row,) = beside_head["rows"]
    assert row["cells"][0]["reference"] == pytest.approx(8.8)
    text = (own / "tables" / "set-water.md").read_text()
    assert f" water: cc-forces.h5 (SHA-256 {WATER.sha256[:12]})." in text


def test_sets_of_conformers_have_differences_of_energies(own):
    write_documents(own, read_results(own))
    table, *_ = tables_of(own, "set-dimers")
    headings = [(c["heading"], c["unit"]) for c in table["columns"]]
    assert headings == [("ΔE, dimers HI", "kcal/mol"), ("force, dimers HI", "kcal/mol/Å")]
    assert table["rows"][0]["cells"][0]["mean"]["value"] == pytest.approx(4.4)


def test_missing_seeds_of_a_set_are_refused_or_named(own):
    make_run(own, "SF-HI/E", 3, None, **OWN)
    with pytest.raises(UserError, match=r"tables/set-water\.md \(MF-LO/EF-HI/E, seed 3; SF-HI"):
        require(write_documents(own, read_results(own)))
    write_documents(own, read_results(own), Selection(partial=True))
    assert "Partial" in (own / "tables" / "set-water.md").read_text()


def test_experiments_of_the_paper_are_in_the_tables_of_ones_own_sets(tmp_path):
    for seed in range(2):
        arrays = with_cc_forces(predictions("MF-DZ/EF-CC/E", seed), seed, "water")
        predicted_run(tmp_path, "MF-DZ/EF-CC/E", seed, arrays, tests=(COMP6, WATER))
    selection = Selection(experiments=[spelt_experiment("MF-DZ/EF-CC/E")])
    write_documents(tmp_path, read_results(tmp_path), selection)
    titles = [table["title"] for table in tables_of(tmp_path, "set-water")]
    assert titles[:2] == ["Models of DZ: errors on water", "Models of CC: errors on water"]
    assert not (tmp_path / "tables" / "cc-forces.md").exists()
    beside = tables_of(tmp_path, "set-water")[2]
    low, high = (arrays[f"water.reference.{n}.forces"] for n in ("wb97x_dz", "ccsd(t)_cbs"))
    own_error = np.sqrt(np.mean((low - high)[arrays["water.species"] > 0] ** 2))
    assert beside["rows"][0]["cells"][0]["reference"] == pytest.approx(own_error)


def test_forces_on_ones_own_set_have_the_figure_of_the_papers(own, capsys):
    assert exit_code("figures", own, "--only", "forces") == 0
    made = {path.name for path in (own / "figures").iterdir()}
    expected = {"forces-water-hi", "forces-dimers-hi"}
    assert made == {f"{name}.{suffix}" for name in expected for suffix in ("png", "json")}
    data = json.loads((own / "figures" / "forces-water-hi.json").read_text())
    assert (data["set"], data["level"]) == ("water", "high")
    results = read_results(own)
    for bar in data["bars"]:
        values = results.values(bar["model"], Column.own("water", HIGH, "force"))
        assert bar["mean"]["value"] == pytest.approx(values.mean())
    (axes,) = draw_forces(results, "water", "HI").axes
    assert axes.get_xlabel() == "RMSE of HI forces, water (kcal/mol/Å)"
    with pytest.raises(UserError, match=r"on the set 'air'\. Sets: .*water, dimers"):
        draw_forces(results, "air", "HI")


def test_a_figure_of_forces_that_lacks_runs_is_refused(own):
    make_run(own, "SF-HI/E", 3, None, **OWN)
    written = write_figures(own, read_results(own), only=["forces"])
    assert set(written.lacking) == {"figures/forces-water-hi.png", "figures/forces-dimers-hi.png"}
    assert not written.paths
