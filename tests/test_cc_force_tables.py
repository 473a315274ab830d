"""Tables and figure of errors of CC forces on a test file, from planted predictions."""

import json

import numpy as np
import pytest
from made_predictions import TEST_FILE, predicted_run, predictions, with_test_file
from made_runs import exit_code, files_below, heldout_errors, make_run, run_metrics

from hippynn_mf.errors import UserError
from hippynn_mf.levels import CC, DZ
from hippynn_mf.paper.cc_forces import cc_force_names, cc_force_tables
from hippynn_mf.paper.cc_forces_figure import cc_forces_data, draw_cc_forces
from hippynn_mf.paper.figures import write_complete_figures
from hippynn_mf.paper.table1 import get_experiment
from hippynn_mf.paper.tables import write_complete_tables
from hippynn_mf.report import columns
from hippynn_mf.report.columns import low_level_path, pick
from hippynn_mf.report.ensemble import find_ensembles
from hippynn_mf.report.results import read_results
from hippynn_mf.report.statistics import estimate_mean

CC_ID = "ccsd(t)_cbs"
# In the order in which the rows should be, with errors of kcal/mol/Å that are planted.
PLANTED = {
    "SF-CC/E": 20.0,
    "MF-DZ/E-CC/E": 17.0,
    "MF-DZ/EF-CC/E": 6.0,
    "MF-DZ/EF-TZ/EF-CC/E": 5.0,
    "MF-TZ/EF-CC/E": 9.0,
}
TITLES = [
    "Errors at CC level on conformers with CCSD(T)/CBS forces, never trained on",
    "Are a model's CC forces nearer to CC than DZ forces are? Conformers never trained on",
    "Are a model's CC forces nearer to CC than TZ forces are? Conformers never trained on",
    "Are a model's CC forces nearer to CC than those of its DZ head are? "
    "Conformers never trained on",
    "Are a model's CC forces nearer to CC than those of its TZ head are? "
    "Conformers never trained on",
]
WITH_HEAD = {"DZ": list(PLANTED)[1:4], "TZ": list(PLANTED)[3:]}
FORCE = f"test_file.reference.{CC_ID}.forces"


def arrays_of(name, seed):
    """Predictions of a run: CC forces with the planted error, more for later seeds."""
    arrays = with_test_file(predictions(name, seed), seed)
    true, atoms = arrays[FORCE], arrays["test_file.species"] > 0
    errors = np.random.default_rng((seed, len(name))).normal(size=true.shape)
    errors *= PLANTED[name] * (1 + seed / 10) / np.sqrt(np.mean(errors[atoms] ** 2))
    arrays[f"test_file.{CC_ID}.forces"] = (true + errors).astype(np.float32)
    return arrays


@pytest.fixture
def tested(tmp_path):
    """Three seeds of five models with a CC head, and of one without, tested on CC forces."""
    for seed in range(3):
        for name in PLANTED:
            predicted_run(tmp_path, name, seed, arrays_of(name, seed), test_file=TEST_FILE)
        arrays = with_test_file(predictions("SF-TZ/E", seed), seed)
        predicted_run(tmp_path, "SF-TZ/E", seed, arrays, test_file=TEST_FILE)
    return tmp_path


def own_error(level):
    """RMSE of a level's forces against those of CC on the planted test file."""
    arrays = with_test_file(predictions("SF-CC/E", 0))
    errors = arrays[f"test_file.reference.{level}.forces"] - arrays[FORCE]
    return np.sqrt(np.mean(errors[arrays["test_file.species"] > 0] ** 2))


def document(out, **options):
    written = write_complete_tables(out, read_results(out), partial=True, **options)
    (path,) = [path for path in written.paths if path.name == "cc-forces.md"]
    return path.read_text(), json.loads(path.with_suffix(".json").read_text())["tables"]


def test_columns_point_into_the_errors_on_the_test_file():
    entry = heldout_errors(3.0, 4.0, label_rms=50.0)
    metrics = {"test_file": {CC_ID: {CC_ID: entry}}}
    energy, force = columns.test_file_energy(CC), columns.test_file_force(CC)
    assert pick(metrics, *energy.metric_path("rmse")) == 3.0
    assert pick(metrics, *energy.metric_path("mae")) == 1.5
    assert pick(metrics, *force.metric_path("rmse")) == 4.0
    assert pick(metrics, *force.label_rms_path) == 50.0
    assert (energy.unit, force.unit) == ("kcal/mol", "kcal/mol/Å")
    differences = {"test_file": {"wb97x_dz": {CC_ID: heldout_errors(3.0, 7.0)}}}
    assert pick(differences, *low_level_path(force, DZ, "rmse")) == 7.0


def test_the_rows_are_the_models_with_a_cc_head_in_a_fixed_order(tested):
    text, tables = document(tested)
    assert [table["title"] for table in tables] == TITLES
    rows = [list(PLANTED)] * 3 + [WITH_HEAD["DZ"], WITH_HEAD["TZ"]]
    for table, expected in zip(tables, rows, strict=True):
        assert [row["model"] for row in table["rows"]] == expected
    assert text.startswith(f"## {TITLES[0]} (RMSE)\n")
    heading = (
        "| model | seeds | force, test file CC (kcal/mol/Å) | mean prediction "
        "| energy, test file CC (kcal/mol) | mean prediction |"
    )
    assert text.splitlines()[2] == heading
    assert "ublished" not in text
    assert " Test file: cc-forces.h5 (SHA-256 555555555555).\n" in text


def test_the_errors_are_those_that_were_planted(tested):
    text, tables = document(tested)
    for row, (name, error) in zip(tables[0]["rows"], PLANTED.items(), strict=True):
        cell = row["cells"][0]
        expected = {"0": error, "1": 1.1 * error, "2": 1.2 * error}
        assert cell["values"] == pytest.approx(expected, rel=1e-5)
        assert cell["ensemble"] < cell["mean"]["value"]
        assert f"| {name} | 3 | {1.1 * error:.2f} ± " in text
    improvement = tables[0]["rows"][2]["cells"][0]["percent_improvement"]
    assert improvement["value"] == pytest.approx(100 * (1 - 6 / 20))
    assert tables[0]["reference"] == "SF-CC/E"
    size = np.sqrt(np.mean(arrays_of("SF-CC/E", 0)[FORCE][:2] ** 2))
    assert 10 < size < 30
    assert "- force, test file CC: predicting zero has an RMSE of " in text


@pytest.mark.parametrize(
    ("place", "level", "label"), [(1, "wb97x_dz", "DZ"), (2, "wb97x_tz", "TZ")]
)
def test_the_forces_of_a_low_level_stand_beside_those_of_models(tested, place, level, label):
    text, tables = document(tested)
    own = own_error(level)
    for row, error in zip(tables[place]["rows"], PLANTED.values(), strict=True):
        cell = row["cells"][0]
        assert cell["reference"] == pytest.approx(own)
        assert cell["difference"]["value"] == pytest.approx(1.1 * error - own, rel=1e-4)
    assert f"Beside the {label} forces themselves, seed by seed:" in text
    assert f"| SF-CC/E | 3 | {own:.2f} | " in text
    assert tables[place]["source"]["test_file_sha256"] == TEST_FILE.sha256


@pytest.mark.parametrize(
    ("place", "level", "label"), [(3, "wb97x_dz", "DZ"), (4, "wb97x_tz", "TZ")]
)
def test_the_forces_of_a_lower_head_stand_beside_those_of_the_cc_head(tested, place, level, label):
    text, tables = document(tested)
    assert f"Beside its {label} head, seed by seed:" in text
    for row in tables[place]["rows"]:
        (cell,) = row["cells"]
        of_head = []
        for seed in range(3):
            arrays = arrays_of(row["model"], seed)
            atoms = arrays["test_file.species"] > 0
            errors = (arrays[f"test_file.{level}.forces"] - arrays[FORCE])[atoms]
            of_head.append(np.sqrt(np.mean(errors**2)))
        assert cell["reference"] == pytest.approx(np.mean(of_head))
        values = PLANTED[row["model"]] * np.array([1.0, 1.1, 1.2])
        expected = estimate_mean(values - np.array(of_head))
        assert cell["difference"]["value"] == pytest.approx(expected.value, rel=1e-4)
        assert cell["difference"]["low"] == pytest.approx(expected.low, rel=1e-4)
        line = f"| {row['model']} | 3 | {np.mean(of_head):.2f} | "
        assert line in text


def test_other_tables_do_not_speak_of_the_test_file(tested):
    document(tested)
    for name in ("table4", "low-level-forces"):
        assert "Test file" not in (tested / "tables" / f"{name}.md").read_text()
        assert "test_file" not in (tested / "tables" / f"{name}.json").read_text()


def test_experiments_and_maes_can_be_chosen(tested):
    chosen = [get_experiment("MF-DZ/EF-CC/E"), get_experiment("SF-TZ/E")]
    _, tables = document(tested, experiments=chosen)
    assert [row["model"] for row in tables[0]["rows"]] == ["MF-DZ/EF-CC/E"]
    written = write_complete_tables(tested, read_results(tested), metric="mae", partial=True)
    assert "cc-forces-mae.md" in {path.name for path in written.paths}


def test_missing_seeds_are_refused(tested):
    make_run(tested, "MF-DZ/EF-CC/E", 3, None, test_file=TEST_FILE)
    make_run(tested, "MF-TZ/E-CC/E", 0, None, test_file=TEST_FILE)  # none of its runs is finished
    results = read_results(tested)
    tables = write_complete_tables(tested, results)
    figures = write_complete_figures(tested, results, only=["cc-forces"])
    for written, name in ((tables, "tables/cc-forces.md"), (figures, "figures/cc-forces.png")):
        missing = [str(run) for run in written.lacking[name]]
        assert "MF-DZ/EF-CC/E, seed 3 (begun: 3)" in missing
        assert "MF-TZ/E-CC/E, seeds 0, 1, 2, 3 (begun: 0)" in missing
        assert not (tested / name).exists()
        assert "cc-forces" in written.refusal
    some = write_complete_tables(tested, results, seeds=[1, 2])
    assert "tables/cc-forces.md" not in some.lacking


def no_test_file(out):
    predicted_run(out, "MF-DZ/EF-CC/E", 0)


def a_file_without_cc_forces(out):
    arrays = with_test_file(predictions("MF-DZ/EF-CC/E", 0))
    del arrays[FORCE]
    predicted_run(out, "MF-DZ/EF-CC/E", 0, arrays, test_file=TEST_FILE)


def no_cc_head(out):
    predicted_run(out, "SF-TZ/E", 0, with_test_file(predictions("SF-TZ/E", 0)), test_file=TEST_FILE)


@pytest.mark.parametrize("make", [no_test_file, a_file_without_cc_forces, no_cc_head])
def test_without_errors_of_cc_forces_there_is_no_document_and_no_figure(tmp_path, capsys, make):
    make(tmp_path)
    results = read_results(tmp_path)
    assert cc_force_names(results) == []
    write_complete_tables(tmp_path, results, partial=True)
    written = write_complete_figures(tmp_path, results, partial=True)
    assert "figures/cc-forces.png" not in written.lacking
    assert not [name for name in files_below(tmp_path) if "cc-forces" in name]
    assert exit_code("figures", tmp_path, "--only", "cc-forces") == 2
    said = capsys.readouterr().err
    assert "No cc-forces figure can be drawn. No finished run of a model with a CC head" in said
    assert "--test NAME=" in said


def data_of(out):
    results = read_results(out)
    specs = cc_force_tables(results)
    return cc_forces_data(specs, results, find_ensembles(results, list(PLANTED)))


def test_the_figure_shows_what_the_tables_say(tested):
    data = data_of(tested)
    assert [bar.model for bar in data.bars] == list(PLANTED)
    for bar, error in zip(data.bars, PLANTED.values(), strict=True):
        values = error * np.array([1.0, 1.1, 1.2])
        assert list(bar.values.values()) == pytest.approx(list(values), rel=1e-5)
        assert bar.mean.value == pytest.approx(estimate_mean(values).value, rel=1e-5)
    expected = {"DZ": own_error("wb97x_dz"), "TZ": own_error("wb97x_tz")}
    assert data.low_levels == pytest.approx(expected)


def test_bars_dots_and_lines_are_at_the_numbers(tested):
    data = data_of(tested)
    (axes,) = draw_cc_forces(data).axes
    assert [bar.get_width() for bar in axes.patches[1:]] == [bar.mean.value for bar in data.bars]
    assert [text.get_text() for text in axes.get_yticklabels()] == list(PLANTED)
    dots = [x for line in axes.lines if line.get_marker() == "." for x in line.get_xdata()]
    assert dots == [value for bar in data.bars for value in bar.values.values()]
    diamonds = [x for line in axes.lines if line.get_marker() == "D" for x in line.get_xdata()]
    assert diamonds == [bar.mean_prediction for bar in data.bars]
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    for label, level in (("DZ", "wb97x_dz"), ("TZ", "wb97x_tz")):
        text = f"{label} forces themselves: {own_error(level):.2f}"
        assert text in legend
        (line,) = [line for line in axes.lines if line.get_label() == text]
        np.testing.assert_allclose(line.get_xdata(), own_error(level))
    top, bottom = axes.get_ylim()[::-1]
    assert top < bottom  # the first row is above


def test_the_commands_write_both(tested, capsys):
    assert exit_code("tables", tested, "--partial") == 0
    assert f"## {TITLES[0]} (RMSE)" in capsys.readouterr().out
    assert exit_code("figures", tested, "--only", "cc-forces") == 0
    made = {path.name for path in (tested / "figures").iterdir()}
    assert made == {"cc-forces.png", "cc-forces.json"}
    stored = json.loads((tested / "figures" / "cc-forces.json").read_text())
    assert stored == data_of(tested).model_dump(mode="json")


def test_one_seed_without_predictions_has_neither_interval_nor_low_levels(tmp_path):
    metrics = run_metrics() | {"test_file": {CC_ID: {CC_ID: heldout_errors(2.0, 8.0)}}}
    make_run(tmp_path, "SF-CC/E", 0, metrics, test_file=TEST_FILE)
    data = data_of(tmp_path)
    assert data.low_levels == {"DZ": None, "TZ": None}
    (axes,) = draw_cc_forces(data).axes
    assert [bar.get_width() for bar in axes.patches[1:]] == [8.0]
    with pytest.raises(UserError, match="Unknown experiment with finished runs"):
        read_results(tmp_path).members("MF-DZ/EF-CC/E")
