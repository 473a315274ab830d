"""Runs with several split seeds: documents of each split, and of the means over them."""

import json

import pytest
from made_predictions import predicted_run
from made_runs import exit_code, heldout_errors, make_run, require, run_metrics
from scipy import stats

from hippynn_mf.paper.documents import write_documents
from hippynn_mf.paper.figures import write_figures
from hippynn_mf.report import read_results
from hippynn_mf.report.ensemble import find_ensembles, split_ensembles
from hippynn_mf.report.results import Selection
from hippynn_mf.report.table_data import TableData
from hippynn_mf.runs.folder import RunFolder

TZ = "wb97x_tz"
# Split → energies of two seeds of SF-TZ/E; those of MF-DZ/EF-TZ/E are halves of them.
ENERGIES = {0: (1.0, 3.0), 1: (4.0, 6.0), 7: (5.0, 9.0)}
MEANS = [2.0, 5.0, 7.0]


def metrics(energy):
    return run_metrics({TZ: heldout_errors(energy, 2 * energy)})


@pytest.fixture
def out(tmp_path):
    for split, energies in ENERGIES.items():
        for seed, energy in enumerate(energies):
            make_run(tmp_path, "SF-TZ/E", seed, metrics(energy), split_seed=split)
            make_run(tmp_path, "MF-DZ/EF-TZ/E", seed, metrics(energy / 2), split_seed=split)
    return tmp_path


def written(out, **selection):
    selection = Selection(partial=True, **selection)
    paths = require(write_documents(out, read_results(out), selection))
    return [str(path.relative_to(out / "tables")) for path in paths]


def table2(out, folder="."):
    content = json.loads((out / "tables" / folder / "table2.json").read_text())
    return TableData.model_validate(content["tables"][0])


def test_every_split_has_documents_of_its_own_and_the_means_lie_above(out):
    paths = written(out)
    folders = {"", "split-0/", "split-1/", "split-7/"}
    assert {p.removesuffix("table2.md") for p in paths if p.endswith("table2.md")} == folders
    assert {p.removesuffix("claims.md") for p in paths if p.endswith("claims.md")} == folders
    for split, energies in ENERGIES.items():
        (cell, _) = table2(out, f"split-{split}").rows[0].cells
        assert cell.values == {"0": energies[0], "1": energies[1]}
        assert table2(out, f"split-{split}").source.split_seed == split


def test_a_mean_over_splits_counts_every_split_once(out):
    written(out)
    table = table2(out)
    row = table.rows[0]
    assert (row.model, row.splits, row.seeds) == ("SF-TZ/E", [0, 1, 7], [0, 1])
    cell = row.cells[0]
    assert cell.values == {"0": 2.0, "1": 5.0, "7": 7.0}
    width = stats.sem(MEANS) * stats.t.ppf(0.975, 2)
    assert cell.mean.value == pytest.approx(14 / 3)
    assert cell.mean.n == 3
    assert cell.mean.high - cell.mean.value == pytest.approx(width)
    paired = table.rows[1].cells[0]
    assert paired.difference.value == pytest.approx(-7 / 3)
    assert paired.percent_improvement.value == pytest.approx(50.0)
    assert paired.percent_improvement.low == pytest.approx(50.0)  # in every split the same
    text = (out / "tables" / "table2.md").read_text()
    assert "| SF-TZ/E | 3 × 2 | 4.67 ± " in text
    assert "Beside SF-TZ/E, split by split:" in text
    assert "95 % interval of the mean over n splits" in text
    assert "split seeds 0, 1, 7." in text
    assert "seed by seed" not in text


def test_differences_of_splits_are_of_the_seeds_that_both_have(out):
    # One row has a third seed in split 1, far from the others; the other in split 7.
    make_run(out, "SF-TZ/E", 2, metrics(100.0), split_seed=1)
    make_run(out, "MF-DZ/EF-TZ/E", 2, metrics(100.0), split_seed=7)
    written(out)
    rows = {row.model: row for row in table2(out).rows}
    assert rows["SF-TZ/E"].cells[0].values["1"] == pytest.approx(110 / 3)
    paired = rows["MF-DZ/EF-TZ/E"].cells[0]
    assert paired.values["7"] == pytest.approx(107 / 3)
    assert paired.difference.value == pytest.approx(-7 / 3)
    assert paired.percent_improvement.value == pytest.approx(50.0)
    findings = json.loads((out / "tables" / "claims.json").read_text())["findings"]
    of_pair = [f for f in findings if (f["better"], f["worse"]) == ("MF-DZ/EF-TZ/E", "SF-TZ/E")]
    assert of_pair
    for finding in of_pair:
        assert finding["percent_improvement"]["value"] == pytest.approx(50.0)


def test_findings_over_splits_say_so(out):
    written(out)
    findings = json.loads((out / "tables" / "claims.json").read_text())
    assert findings["over"] == "splits"
    of_tz = [f for f in findings["findings"] if f["better"] == "MF-DZ/EF-TZ/E"]
    assert of_tz[0]["verdict"] == "confirmed"
    assert of_tz[0]["percent_improvement"]["n"] == 3
    text = (out / "tables" / "claims.md").read_text()
    assert "of both RMSEs of one split" in text
    assert "not the choice of structures" not in text


def test_one_split_is_written_where_it_lies_beside_the_others(out):
    paths = written(out, split_seed=7)
    assert all(path.startswith("split-7/") for path in paths)


def test_a_folder_of_one_split_has_no_folder_for_it(tmp_path):
    make_run(tmp_path, "SF-TZ/E", 0, metrics(1.0), split_seed=3)
    paths = written(tmp_path)
    assert "table2.md" in paths
    assert not any("/" in path for path in paths)


def test_what_a_split_lacks_is_named_with_the_command_that_trains_it(out, capsys):
    settings = read_results(out).runs[0].settings.model_copy(update={"seed": 1, "split_seed": 7})
    (RunFolder.of(out, settings).file("metrics.json")).unlink()
    pair = "SF-TZ/E,MF-DZ/EF-TZ/E"
    assert exit_code("tables", out, "--experiments", pair) == 2
    error = capsys.readouterr().err
    assert f"{settings.name}, seed 1 of split 7 (begun: 1)" in error
    assert "--seeds 1 --split-seeds 7'" in error
    assert "tables/split-7/table2.md" in error
    assert (out / "tables" / "split-0" / "table2.md").exists()


def test_the_means_are_printed_and_the_others_named(out, capsys):
    assert exit_code("tables", out, "--partial") == 0
    printed = capsys.readouterr().out
    assert "split seeds 0, 1, 7" in printed
    assert "split seed 1." not in printed
    assert str(out / "tables" / "split-7") in printed


def test_figures_of_every_split_lie_apart(out):
    paths = write_figures(out, read_results(out), Selection(partial=True), only=["figure3"]).paths
    folders = [path.parent.name for path in paths]
    assert folders == ["split-0", "split-1", "split-7"]


def test_ensembles_of_splits_do_not_replace_each_other(tmp_path):
    name = "MF-DZ/EF-CC/E"
    for split in (0, 2):
        for seed in range(2):
            predicted_run(tmp_path, name, seed + split, split_seed=split)
    results = read_results(tmp_path)
    records = split_ensembles(results, [name])[name]
    assert {split: list(record.members) for split, record in records.items()} == {
        0: ["0", "1"],
        2: ["2", "3"],
    }
    for path in tmp_path.rglob("predictions.npz"):
        path.unlink()  # what is stored is enough
    again = read_results(tmp_path)
    assert split_ensembles(again, [name])[name] == records
    assert find_ensembles(again.only(split_seed=2), [name])[name] == records[2]
