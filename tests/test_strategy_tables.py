"""Tables of strategies: which rows they have, what they are compared with, and what they cost."""

from __future__ import annotations

import json

import pytest
from made_runs import comp6_errors, exit_code, heldout_errors, make_run, make_settings, run_metrics

from hippynn_mf import UserError
from hippynn_mf.cli.options import parse_experiments
from hippynn_mf.paper.documents import write_documents
from hippynn_mf.paper.strategies import strategy_tables
from hippynn_mf.paper.table1 import BASELINES, beyond_table1, strategies, table1
from hippynn_mf.report.results import Selection, read_results

CC, DZ = "ccsd(t)_cbs", "wb97x_dz"
COUPLED = make_settings("MF-DZ/EF-CC/E").hyperparameters.model_copy(update={"coupling": "delta"})


def add_runs(out, name, *, energy, force=5.0, low=2.0, cost=60.0, inference=0.5, seeds=3):
    """Runs whose errors and costs grow by a tenth with each seed."""
    for seed in range(seeds):
        factor = 1 + 0.1 * seed
        heldout = {CC: heldout_errors(factor * energy)} if "CC" in name else {}
        if "DZ" in name:
            heldout[DZ] = heldout_errors(factor * low, factor * force)
        metrics = run_metrics(heldout, {CC: comp6_errors(None, factor * 3 * energy)})
        metrics["training"] = {"wall_s": 1.0, "n_epochs": 1, "cpu_s": factor * cost}
        metrics["inference"] = {"level": CC, "cpu_ms_per_structure": factor * inference}
        changes = {"hyperparameters": COUPLED} if name.startswith("MFC") else {}
        make_run(out, name, seed, metrics, **changes)


@pytest.fixture
def folder(tmp_path):
    add_runs(tmp_path, "SF-CC/E", energy=2.0, cost=30.0)
    add_runs(tmp_path, "MF-DZ/EF-CC/E", energy=1.0)
    add_runs(tmp_path, "TL-DZ/EF-CC/E", energy=0.8, low=4.0, cost=90.0)
    add_runs(tmp_path, "MFC-DZ/EF-CC/E", energy=1.5)
    return tmp_path


def rows_of(text, title):
    """First column → cells of the first table below a title."""
    lines = text.split(f"## {title} (RMSE)\n\n")[1].split("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in cells if not row[0].startswith("---")}


def write(folder):
    write_documents(folder, read_results(folder), Selection(experiments=strategies()))
    return (folder / "tables" / "strategies.md").read_text()


def test_rows_are_the_strategies_in_their_order_with_the_errors_of_their_runs(folder):
    rows = rows_of(write(folder), "Strategies at the high level")
    order = ["SF-CC/E", "MF-DZ/EF-CC/E", "MFC-DZ/EF-CC/E", "TL-DZ/EF-CC/E"]
    assert list(rows) == ["model", *order]
    assert rows["model"][1] == "energy, held-out CC (kcal/mol)"
    # 0.8, 0.88, 0.96: mean 0.88, s 0.08, t 4.303: ± 0.199
    assert rows["TL-DZ/EF-CC/E"][1] == "0.88 ± 0.20"
    assert rows["TL-DZ/EF-CC/E"][3] == "2.64 ± 0.60"


def test_they_are_compared_with_the_papers_method_seed_by_seed(folder):
    write(folder)
    content = json.loads((folder / "tables" / "strategies.json").read_text())
    table = content["tables"][0]
    assert table["reference"] == "MF-DZ/EF-CC/E"
    improvements = {row["model"]: row["cells"][0]["percent_improvement"] for row in table["rows"]}
    assert improvements["MF-DZ/EF-CC/E"] is None
    assert improvements["TL-DZ/EF-CC/E"]["value"] == pytest.approx(20)
    assert improvements["SF-CC/E"]["value"] == pytest.approx(-100)


def test_models_of_the_low_level_stand_in_their_own_table(folder):
    add_runs(folder, "SF-DZ/EF", energy=0.0, low=1.0)
    rows = rows_of(write(folder), "Strategies at the low level")
    assert list(rows)[1:] == ["SF-DZ/EF", "MF-DZ/EF-CC/E", "MFC-DZ/EF-CC/E", "TL-DZ/EF-CC/E"]
    assert rows["TL-DZ/EF-CC/E"][1].startswith("4.40 ±")


def test_costs_are_processor_times_without_ensembles_or_labels(folder):
    text = write(folder)
    rows = rows_of(text, "What the strategies cost")
    assert rows["model"] == [
        "seeds",
        "training (s of one core)",
        "energy and forces (ms per structure)",
    ]
    assert rows["SF-CC/E"][1].startswith("33.00 ±")
    assert rows["TL-DZ/EF-CC/E"][1].startswith("99.00 ±")
    assert "training: predicting zero" not in text


def test_there_is_no_document_without_such_runs(tmp_path):
    add_runs(tmp_path, "MF-DZ/EF-CC/E", energy=1.0)
    assert strategy_tables(read_results(tmp_path)) == []


def test_seeds_that_a_strategy_lacks_are_named(folder):
    add_runs(folder, "META-DZ/EF-CC/E", energy=1.0, seeds=2)
    selection = Selection(experiments=strategies())
    written = write_documents(folder, read_results(folder), selection)
    (missing,) = written.lacking["tables/strategies.md"]
    assert str(missing) == "META-DZ/EF-CC/E, seed 2"


def test_a_folder_of_strategies_alone_is_about_them(folder, capsys):
    assert exit_code("tables", folder) == 0
    text = capsys.readouterr().out
    assert "## Strategies at the high level" in text
    assert not (folder / "tables" / "table2.md").exists()
    add_runs(folder, "SF-TZ/E", energy=1.0)
    assert exit_code("tables", folder) == 2


def test_groups_of_experiments_have_names(folder, capsys):
    assert [e.name for e in parse_experiments(["strategies"])] == [
        *BASELINES,
        *(e.name for e in beyond_table1()),
    ]
    assert len(parse_experiments(["table1"])) == 17
    both = parse_experiments(["SF-TZ/E", "strategies"])
    assert both[0].name == "SF-TZ/E"
    names = [e.name for e in parse_experiments(["table1", "strategies", "SF-CC/E"])]
    assert sorted(names) == sorted(e.name for e in (*table1(), *beyond_table1()))
    with pytest.raises(UserError, match="Unknown experiment 'strategy'"):
        parse_experiments(["strategy"])
    names = "MF-DZ/EF-CC/E,TL-DZ/EF-CC/E"
    assert exit_code("tables", folder, "--experiments", names, "--partial") == 0
    assert "## Strategies at the high level" in capsys.readouterr().out
