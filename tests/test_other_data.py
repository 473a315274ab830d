"""Tables of a user's own data under the paper's names: without the paper's numbers."""

import json
from pathlib import Path

import pytest
from made_runs import (
    comp6_errors,
    exit_code,
    heldout_errors,
    make_run,
    make_settings,
    require,
    run_metrics,
)

from hippynn_mf.data.embedded import MINI_ANI1X
from hippynn_mf.data.loading import file_hash
from hippynn_mf.paper.choice import EMBEDDED_EDITIONS, are_of_paper
from hippynn_mf.paper.documents import write_documents
from hippynn_mf.paper.figures import shared_figures
from hippynn_mf.report import read_results
from hippynn_mf.report.results import Selection
from hippynn_mf.runs.sources import DataSource

OTHER = DataSource(path=Path("/data/my.h5"), sha256="ab" * 32)
DZ, CC = "wb97x_dz", "ccsd(t)_cbs"


def errors(energy, force=9.0):
    heldout = {DZ: heldout_errors(energy, force), CC: heldout_errors(energy)}
    return run_metrics(heldout, {CC: comp6_errors(delta_e=2 * energy)})


def make_campaign(out, data, facts=None, **changes):
    for seed in range(3):
        for name, energy in [("SF-CC/E", 4.0), ("MF-DZ/EF-CC/E", 2.0)]:
            make_run(out, name, seed, errors(energy + seed), facts, data=data, **changes)
    return read_results(out)


@pytest.fixture
def other(tmp_path):
    return make_campaign(tmp_path, OTHER)


def test_the_newest_edition_is_the_file_that_ships():
    """With a new edition, add its hash at the end: the tables of older ones stay the paper's."""
    assert file_hash(MINI_ANI1X) == EMBEDDED_EDITIONS[-1]


def test_levels_called_as_the_papers_do_not_make_data_the_papers(other):
    assert not are_of_paper(other)
    paths = require(write_documents(other.out, other))  # complete, without all of Table 1
    assert [path.name for path in paths] == ["experiments.md"]
    text = paths[0].read_text()
    assert "ublished" not in text
    assert "paper" not in text
    assert "## Models of CC: held-out errors (RMSE)" in text
    assert "| MF-DZ/EF-CC/E | 3 | −2.00 ± 0.00 |" in text  # beside SF-CC/E
    assert "ΔE, COMP6 CC (kcal/mol)" in text
    assert "data: my.h5 (SHA-256 abababababab)" in text
    tables = json.loads(paths[0].with_suffix(".json").read_text())["tables"]
    cells = [cell for table in tables for row in table["rows"] for cell in row["cells"]]
    assert all(cell["published"] is None for cell in cells)


def test_they_have_neither_figure_3_nor_findings_of_the_paper(other, capsys):
    selection = Selection(partial=True)
    assert shared_figures(other, selection, "figure3") == []
    assert shared_figures(other, selection, "cc-forces") == []
    assert exit_code("tables", other.out, "--partial") == 0
    assert not (other.out / "tables" / "claims.md").exists()
    assert exit_code("report", other.out) == 0
    html = (other.out / "report.html").read_text()
    assert ">Experiments</h2>" in html
    assert "Table 4" not in html
    assert "ublished" not in html


def test_embedded_data_are_shown_beside_the_papers_numbers(tmp_path):
    results = make_campaign(tmp_path, make_settings("SF-CC/E").data)
    assert are_of_paper(results)
    paths = write_documents(tmp_path, results, Selection(partial=True)).paths
    assert "table4.md" in [path.name for path in paths]
    assert "experiments.md" not in [path.name for path in paths]


@pytest.mark.parametrize(
    ("rows", "counts", "expected"),
    [
        ("common", {"train": 391_571, "valid": 49_000, "test": 49_000}, True),
        ("all", {"train": 3_956_005, "valid": 500_000, "test": 500_000}, True),
        ("all", {"train": 391_571, "valid": 49_000, "test": 49_000}, False),  # a part of it
        ("common", {"train": 391_570, "valid": 49_000, "test": 49_000}, True),  # one is a copy
        ("common", {"train": 391_572, "valid": 49_000, "test": 49_000}, False),
        ("common", {"train": 390_571, "valid": 49_000, "test": 49_000}, False),
        ("common", {}, False),
    ],
)
def test_ani1x_is_known_by_its_numbers_of_structures(tmp_path, rows, counts, expected):
    facts = {"n_structures": counts}
    assert are_of_paper(make_campaign(tmp_path, OTHER, facts, rows=rows)) is expected
