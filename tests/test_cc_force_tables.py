"""Tables and figure of errors of CC forces on a test set, from planted predictions."""

import json

import numpy as np
import pytest
from made_predictions import CC_FORCES, TESTED, predicted_run, predictions, with_cc_forces
from made_runs import exit_code, files_below, heldout_errors, make_run, run_metrics

from hippynn_mf.errors import UserError
from hippynn_mf.paper.cc_forces import FORCE as CC_FORCE
from hippynn_mf.paper.cc_forces import LOW_LEVELS, cc_force_names
from hippynn_mf.paper.documents import write_documents
from hippynn_mf.paper.figures import write_figures
from hippynn_mf.paper.table1 import get_experiment
from hippynn_mf.report.forces_figure import draw_forces, forces_data, forces_figure
from hippynn_mf.report.results import Selection, read_results
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
FORCE = f"cc-forces.reference.{CC_ID}.forces"


def arrays_of(name, seed):
    """Predictions of a run: CC forces with the planted error, more for later seeds."""
    arrays = with_cc_forces(predictions(name, seed), seed)
    true, atoms = arrays[FORCE], arrays["cc-forces.species"] > 0
    errors = np.random.default_rng((seed, len(name))).normal(size=true.shape)
    errors *= PLANTED[name] * (1 + seed / 10) / np.sqrt(np.mean(errors[atoms] ** 2))
    arrays[f"cc-forces.{CC_ID}.forces"] = (true + errors).astype(np.float32)
    return arrays


@pytest.fixture
def tested(tmp_path):
    """Three seeds of five models with a CC head, and of one without, tested on CC forces."""
    for seed in range(3):
        for name in PLANTED:
            predicted_run(tmp_path, name, seed, arrays_of(name, seed), **TESTED)
        arrays = with_cc_forces(predictions("SF-TZ/E", seed), seed)
        predicted_run(tmp_path, "SF-TZ/E", seed, arrays, **TESTED)
    return tmp_path


def own_error(level):
    """RMSE of a level's forces against those of CC on the planted test file."""
    arrays = with_cc_forces(predictions("SF-CC/E", 0))
    errors = arrays[f"cc-forces.reference.{level}.forces"] - arrays[FORCE]
    return np.sqrt(np.mean(errors[arrays["cc-forces.species"] > 0] ** 2))


def document(out, **options):
    written = write_documents(out, read_results(out), Selection(partial=True, **options))
    (path,) = [path for path in written.paths if path.name == "cc-forces.md"]
    return path.read_text(), json.loads(path.with_suffix(".json").read_text())["tables"]


def test_the_rows_are_the_models_with_a_cc_head_in_a_fixed_order(tested):
    text, tables = document(tested)
    assert [table["title"] for table in tables] == TITLES
    rows = [list(PLANTED)] * 3 + [WITH_HEAD["DZ"], WITH_HEAD["TZ"]]
    for table, expected in zip(tables, rows, strict=True):
        assert [row["model"] for row in table["rows"]] == expected
    assert text.startswith(f"## {TITLES[0]} (RMSE)\n")
    heading = (
        "| model | seeds | force, cc-forces CC (kcal/mol/Å) | mean prediction "
        "| energy, cc-forces CC (kcal/mol) | mean prediction |"
    )
    assert text.splitlines()[2] == heading
    assert "ublished" not in text
    assert " cc-forces: cc-forces.h5 (SHA-256 555555555555).\n" in text


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
    assert "- force, cc-forces CC: predicting zero has an RMSE of " in text


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
    (source,) = tables[place]["source"]["tests"]
    assert (source["name"], source["sha256"]) == ("cc-forces", CC_FORCES.sha256)


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
            atoms = arrays["cc-forces.species"] > 0
            errors = (arrays[f"cc-forces.{level}.forces"] - arrays[FORCE])[atoms]
            of_head.append(np.sqrt(np.mean(errors**2)))
        assert cell["reference"] == pytest.approx(np.mean(of_head))
        values = PLANTED[row["model"]] * np.array([1.0, 1.1, 1.2])
        expected = estimate_mean(values - np.array(of_head))
        assert cell["difference"]["value"] == pytest.approx(expected.value, rel=1e-4)
        assert cell["difference"]["low"] == pytest.approx(expected.low, rel=1e-4)
        line = f"| {row['model']} | 3 | {np.mean(of_head):.2f} | "
        assert line in text


def test_other_tables_do_not_speak_of_the_set(tested):
    document(tested)
    for name in ("table4", "low-level-forces"):
        for suffix in ("md", "json"):
            assert "cc-forces" not in (tested / "tables" / f"{name}.{suffix}").read_text()


def test_experiments_and_maes_can_be_chosen(tested):
    chosen = [get_experiment("MF-DZ/EF-CC/E"), get_experiment("SF-TZ/E")]
    _, tables = document(tested, experiments=chosen)
    assert [row["model"] for row in tables[0]["rows"]] == ["MF-DZ/EF-CC/E"]
    selection = Selection(metric="mae", partial=True)
    written = write_documents(tested, read_results(tested), selection)
    assert "cc-forces-mae.md" in {path.name for path in written.paths}


def test_missing_seeds_are_refused(tested):
    make_run(tested, "MF-DZ/EF-CC/E", 3, None, **TESTED)
    make_run(tested, "MF-TZ/E-CC/E", 0, None, **TESTED)  # none of its runs is finished
    results = read_results(tested)
    tables = write_documents(tested, results)
    figures = write_figures(tested, results, only=["cc-forces"])
    for written, name in ((tables, "tables/cc-forces.md"), (figures, "figures/cc-forces.png")):
        missing = [str(run) for run in written.lacking[name]]
        assert "MF-DZ/EF-CC/E, seed 3 (begun: 3)" in missing
        assert "MF-TZ/E-CC/E, seeds 0, 1, 2, 3 (begun: 0)" in missing
        assert not (tested / name).exists()
        assert "cc-forces" in written.refusal
    some = write_documents(tested, results, Selection(seeds=[1, 2]))
    assert "tables/cc-forces.md" not in some.lacking


def no_such_set(out):
    predicted_run(out, "MF-DZ/EF-CC/E", 0)


def a_set_without_cc_forces(out):
    arrays = with_cc_forces(predictions("MF-DZ/EF-CC/E", 0))
    del arrays[FORCE]
    predicted_run(out, "MF-DZ/EF-CC/E", 0, arrays, **TESTED)


def no_cc_head(out):
    predicted_run(out, "SF-TZ/E", 0, with_cc_forces(predictions("SF-TZ/E", 0)), **TESTED)


@pytest.mark.parametrize("make", [no_such_set, a_set_without_cc_forces, no_cc_head])
def test_without_errors_of_cc_forces_there_is_no_document_and_no_figure(tmp_path, capsys, make):
    make(tmp_path)
    results = read_results(tmp_path)
    assert cc_force_names(results) == []
    write_documents(tmp_path, results, Selection(partial=True))
    written = write_figures(tmp_path, results, Selection(partial=True))
    assert "figures/cc-forces.png" not in written.lacking
    assert not [name for name in files_below(tmp_path) if "cc-forces" in name]
    assert exit_code("figures", tmp_path, "--only", "cc-forces") == 2
    said = capsys.readouterr().err
    assert "No cc-forces figure can be drawn. No finished run of a model with a CC head" in said
    assert "--test cc-forces=FILE" in said


def data_of(out):
    results = read_results(out)
    return forces_data(results, CC_FORCE, cc_force_names(results), LOW_LEVELS)


def test_the_figure_shows_what_the_tables_say(tested):
    data = data_of(tested)
    assert [bar.model for bar in data.bars] == list(PLANTED)
    for bar, error in zip(data.bars, PLANTED.values(), strict=True):
        values = error * np.array([1.0, 1.1, 1.2])
        assert list(bar.values.values()) == pytest.approx(list(values), rel=1e-5)
        assert bar.mean.value == pytest.approx(estimate_mean(values).value, rel=1e-5)
    expected = {level: own_error(level) for level in ("wb97x_dz", "wb97x_tz")}
    assert data.low_levels == pytest.approx(expected)


def test_bars_dots_and_lines_are_at_the_numbers(tested):
    data = data_of(tested)
    figure = draw_forces(read_results(tested), "cc-forces", "CC")  # rows in the order of the runs
    (axes,) = figure.axes
    assert {text.get_text() for text in axes.get_yticklabels()} == set(PLANTED)
    (axes,) = forces_figure(data, read_results(tested).known).axes
    assert axes.get_xlabel() == "RMSE of CC forces, cc-forces (kcal/mol/Å)"
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
    metrics = run_metrics(**{"cc-forces": {CC_ID: {CC_ID: heldout_errors(2.0, 8.0)}}})
    make_run(tmp_path, "SF-CC/E", 0, metrics, **TESTED)
    data = data_of(tmp_path)
    assert data.low_levels == {"wb97x_dz": None, "wb97x_tz": None}
    (axes,) = forces_figure(data, read_results(tmp_path).known).axes
    assert [bar.get_width() for bar in axes.patches[1:]] == [8.0]
    with pytest.raises(UserError, match="Unknown experiment with finished runs"):
        read_results(tmp_path).members("MF-DZ/EF-CC/E")
