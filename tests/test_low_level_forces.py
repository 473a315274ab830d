import json

import numpy as np
import pytest
from made_predictions import predicted_run, references
from made_runs import comp6_errors, heldout_errors, make_run, require, run_metrics

from hippynn_mf.paper.documents import write_documents
from hippynn_mf.paper.table1 import get_experiment, table1
from hippynn_mf.paper.tables import low_level_tables
from hippynn_mf.report.results import Selection, read_results

TITLES = {
    "dz": "What a second level costs the forces of the first: DZ forces, held-out",
    "tz": "Are a model's TZ forces nearer to TZ than DZ forces are? Held-out",
    "mp2": "Are a model's MP2 forces nearer to MP2 than DZ forces are? COMP6",
    "cc": "Are a model's CC conformer energies nearer to CC than those of DZ are? COMP6",
}


def documents(out, *names):
    chosen = [get_experiment(name) for name in names]
    written = write_documents(out, read_results(out), Selection(experiments=chosen))
    (path,) = [path for path in require(written) if path.name == "low-level-forces.md"]
    tables = json.loads(path.with_suffix(".json").read_text())["tables"]
    return path.read_text(), {table["title"]: table for table in tables}


def test_the_documents_titles_are_those_of_four_questions():
    assert [spec.title for spec in low_level_tables(table1())] == list(TITLES.values())


def test_dz_forces_of_models_with_a_second_level_stand_beside_those_of_dz_alone(tmp_path):
    for seed, alone, both in [(0, 3.0, 4.0), (1, 3.2, 4.4), (2, 3.1, 4.0)]:
        held = {"wb97x_dz": heldout_errors(1.0, alone)}
        make_run(tmp_path, "SF-DZ/EF", seed, run_metrics(held))
        held = {"wb97x_dz": heldout_errors(1.0, both)}
        make_run(tmp_path, "MF-DZ/EF-CC/E", seed, run_metrics(held))
    text, tables = documents(tmp_path, "SF-DZ/EF", "MF-DZ/EF-CC/E")
    assert "| SF-DZ/EF | 3 | 3.10 ± 0.25 | — | 3.17 |" in text
    assert "| MF-DZ/EF-CC/E | 3 | 4.13 ± 0.57 | — | 3.76 |" in text
    assert "Beside SF-DZ/EF, seed by seed:" in text
    rows = tables[TITLES["dz"]]["rows"]
    assert rows[1]["cells"][0]["difference"]["value"] == pytest.approx(3.1 / 3)
    published = rows[1]["cells"][0]["published_percent_improvement"]
    assert published == pytest.approx(100 * (1 - 3.76 / 3.17))  # worse: negative
    assert "(+" not in text
    assert "+1.03 ±" in text


def test_mp2_forces_stand_beside_the_dz_forces_of_the_same_structures(tmp_path):
    for seed in range(3):
        for name in ("SF-MP2/E", "MF-DZ/EF-MP2/E"):
            predicted_run(tmp_path, name, seed)
    text, tables = documents(tmp_path, "SF-MP2/E", "MF-DZ/EF-MP2/E")
    truth = references()
    atoms = (truth["comp6.species"] > 0) & (np.arange(7) < 6)[:, None]  # within the cut
    errors = truth["comp6.reference.wb97x_dz.forces"] - truth["comp6.reference.mp2_tz.forces"]
    own = np.sqrt(np.mean(errors[atoms] ** 2))
    table = tables[TITLES["mp2"]]
    assert table["columns"][0]["published_reference"] == 5.9
    for row in table["rows"]:
        cell = row["cells"][0]
        assert cell["reference"] == pytest.approx(own)
        mean = np.mean(list(cell["values"].values()))
        assert cell["difference"]["value"] == pytest.approx(mean - own)
        assert cell["difference"]["n"] == 3
    assert "Beside the DZ forces themselves, seed by seed:" in text
    assert f"| SF-MP2/E | 3 | {own:.2f} | 5.90 | " in text
    published = table["rows"][1]["cells"][0]["published_percent_improvement"]
    assert published == pytest.approx(100 * (1 - 3.42 / 5.9))
    size = table["columns"][0]["label_rms"]
    forces = truth["comp6.reference.mp2_tz.forces"][atoms]
    assert size == pytest.approx(np.sqrt(np.mean(forces**2)))
    assert f"predicting zero has an RMSE of {size:.2f} kcal/mol/Å" in text


def test_tz_forces_and_cc_conformer_energies_have_the_same_comparison(tmp_path):
    for seed in range(2):
        predicted_run(tmp_path, "SF-TZ/EF", seed)
        predicted_run(tmp_path, "SF-CC/E", seed)
    text, tables = documents(tmp_path, "SF-TZ/EF", "SF-CC/E")
    truth = references()
    atoms = truth["heldout.species"] > 0
    errors = truth["heldout.reference.wb97x_dz.forces"] - truth["heldout.reference.wb97x_tz.forces"]
    cell = tables[TITLES["tz"]]["rows"][0]["cells"][0]
    assert cell["reference"] == pytest.approx(np.sqrt(np.mean(errors[atoms] ** 2)))
    errors = truth["comp6.reference.wb97x_dz.energy"] - truth["comp6.reference.ccsd(t)_cbs.energy"]
    pairs = [errors[i] - errors[j] for i, j in [(0, 1), (0, 2), (1, 2), (3, 4), (3, 5), (4, 5)]]
    cell = tables[TITLES["cc"]]["rows"][0]["cells"][0]
    assert cell["reference"] == pytest.approx(np.sqrt(np.mean(np.square(pairs))))
    assert "Beside the DZ energies themselves, seed by seed:" in text


def test_without_predictions_nothing_stands_beside_the_low_level(tmp_path):
    held, far = {"mp2_tz": heldout_errors(1.0)}, {"mp2_tz": comp6_errors(3.0)}
    make_run(tmp_path, "SF-MP2/E", 0, run_metrics(held, far))
    text, tables = documents(tmp_path, "SF-MP2/E")
    assert "Nothing here could be compared with the DZ forces themselves." in text
    assert tables[TITLES["mp2"]]["rows"][0]["cells"][0]["reference"] is None
