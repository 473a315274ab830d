import json

import numpy as np
import pytest
from ase import units
from made_runs import make_run, run_metrics

from hippynn_mf.errors import UserError
from hippynn_mf.hyperparameters import get_hyperparameters
from hippynn_mf.paper.figures import write_figures
from hippynn_mf.report import draw_learning_curves, read_results
from hippynn_mf.report.learning import make_learning_curves
from hippynn_mf.runs.folder import find_runs

NAME = "MF-DZ/EF-TZ/E"
DZ, TZ, CC = "wb97x_dz", "wb97x_tz", "ccsd(t)_cbs"


def write_epochs(out, seed, n_epochs, factor, name=NAME):
    """A run whose errors halve (DZ) or fall to a third (TZ) with every epoch."""
    folder = make_run(out, name, seed, run_metrics())
    with folder.file("epochs.jsonl").open("w") as stream:
        for epoch in range(n_epochs):
            valid = {
                f"energy_rmse.{DZ}": factor * 8.0 / 2**epoch,
                f"energy_rmse.{TZ}": factor * 9.0 / 3**epoch,
                f"force_rmse.{DZ}": factor * 5.0 / 2**epoch,
            }
            stream.write(json.dumps({"epoch": epoch, "valid": valid}) + "\n")


@pytest.fixture
def results(tmp_path):
    for seed, n_epochs, factor in [(0, 4, 1.0), (1, 3, 10.0), (2, 5, 2.0)]:
        write_epochs(tmp_path, seed, n_epochs, factor)
    return read_results(tmp_path)


def lines_of(figure, title):
    (axes,) = [axes for axes in figure.axes if axes.get_title() == title]
    return [line.get_xydata() for line in axes.lines]


def test_every_trained_label_has_a_panel_with_a_line_per_seed_and_the_median(results):
    figure = draw_learning_curves(results, NAME)
    assert [axes.get_title() for axes in figure.axes] == ["DZ energy", "TZ energy", "DZ forces", ""]
    (remark,) = [text.get_text() for text in figure.axes[3].texts]
    assert remark == "TZ forces:\nnot trained"
    *seeds, median = lines_of(figure, "TZ energy")
    np.testing.assert_allclose(seeds[0], [(1, 9), (2, 3), (3, 1), (4, 1 / 3)])
    np.testing.assert_allclose(seeds[1], [(1, 90), (2, 30), (3, 10)])
    assert len(seeds[2]) == 5
    # as long as all seeds train
    np.testing.assert_allclose(median, [(1, 18), (2, 6), (3, 2)])
    *seeds, median = lines_of(figure, "DZ forces")
    np.testing.assert_allclose(median[:, 1], [10, 5, 2.5])
    assert len(seeds) == 3


def test_the_numbers_are_medians_and_last_values(results):
    figure, data = make_learning_curves(results.members(NAME))
    assert [(c.level, c.kind) for c in data.curves] == [
        (DZ, "energy"),
        (TZ, "energy"),
        (DZ, "forces"),
    ]
    assert data.curves[0].median == pytest.approx([16, 8, 4])
    assert data.curves[0].last == pytest.approx({"0": 1.0, "1": 20.0, "2": 1.0})
    (corner,) = [text.get_text() for text in figure.axes[0].texts]
    assert corner == "at the end 1.00"
    assert data.curves[0].kept == {}  # these epochs do not say which was the best so far


def test_the_epoch_that_each_seed_kept_is_marked(tmp_path):
    for seed, kept in [(0, 1), (1, 3)]:
        write_epochs(tmp_path, seed, 4, 1.0)
        path = tmp_path / "runs" / "mf_dz_ef_tz_e" / f"seed-{seed}" / "epochs.jsonl"
        epochs = [json.loads(line) for line in path.read_text().splitlines()]
        lines = [json.dumps(epoch | {"best": epoch["epoch"] <= kept}) for epoch in epochs]
        path.write_text("\n".join(lines) + "\n")
    figure, data = make_learning_curves(read_results(tmp_path).members(NAME))
    assert {tuple(curve.kept.items()) for curve in data.curves} == {(("0", 2), ("1", 4))}
    (axes,) = [axes for axes in figure.axes if axes.get_title() == "TZ energy"]
    (rings,) = [line for line in axes.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(rings.get_xydata(), [(2, 3), (4, 1 / 3)])


def test_the_kept_epoch_of_a_strategy_is_one_of_its_last_phase(tmp_path):
    write_phases(tmp_path, 0, 3, 2)
    path = tmp_path / "runs" / "tl_dz_ef_cc_e" / "seed-0" / "epochs.jsonl"
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    lines = [json.dumps(first | {"best": True}), json.dumps(second | {"best": False})]
    path.write_text("\n".join(lines) + "\n")
    _, data = make_learning_curves(read_results(tmp_path).members("TL-DZ/EF-CC/E"))
    curves = {(curve.level, curve.kind): curve for curve in data.curves}
    assert curves[CC, "energy"].kept == {"0": 4}
    assert curves[DZ, "energy"].kept == {}  # not trained any more


def test_a_model_of_energies_alone_has_no_row_of_forces(tmp_path):
    write_epochs(tmp_path, 0, 2, 1.0, "SF-TZ/E")
    figure = draw_learning_curves(read_results(tmp_path), "SF-TZ/E")
    assert [axes.get_title() for axes in figure.axes] == ["TZ energy"]
    assert figure.get_suptitle() == "SF-TZ/E, seed 0"


def test_a_run_without_its_epochs_is_refused(results):
    results.members(NAME)[1].folder.file("epochs.jsonl").unlink()
    with pytest.raises(UserError, match=r"No epochs\.jsonl in .*seed-1"):
        draw_learning_curves(results, NAME)


def write_phases(out, seed, n_first, n_last):
    """A run of two phases: DZ energies 1, 2, … in the first one, CC energies 10, 20, … after it."""
    folder = make_run(out, "TL-DZ/EF-CC/E", seed, run_metrics())
    folder.phase("pretraining").path.mkdir()
    phases = [(folder.phase("pretraining"), DZ, n_first, 1.0), (folder, CC, n_last, 10.0)]
    for of_phase, level, n_epochs, factor in phases:
        for epoch in range(n_epochs):
            valid = {f"energy_rmse.{level}": factor * (epoch + 1), f"force_rmse.{level}": 1.0}
            of_phase.append_epoch({"epoch": epoch, "valid": valid})


def test_a_phase_begins_for_all_seeds_when_the_last_one_has_ended_the_phase_before(tmp_path):
    write_phases(tmp_path, 0, 2, 3)
    write_phases(tmp_path, 1, 4, 2)
    figure, data = make_learning_curves(read_results(tmp_path).members("TL-DZ/EF-CC/E"))
    first, second, median = lines_of(figure, "CC energy")
    np.testing.assert_allclose(first, [(5, 10), (6, 20), (7, 30)])
    np.testing.assert_allclose(second, [(5, 10), (6, 20)])
    np.testing.assert_allclose(median, second)
    curves = {(c.level, c.kind): c for c in data.curves}
    assert curves[DZ, "energy"].epochs == [1, 2]
    assert curves[DZ, "energy"].last == {"0": 2.0, "1": 4.0}
    assert curves[CC, "energy"].epochs == [5, 6]


def test_a_label_of_both_phases_has_a_gap_where_a_seed_waits_for_the_others(tmp_path):
    for seed, n_first in [(0, 1), (1, 3)]:
        folder = make_run(tmp_path, "META-DZ/EF-CC/E", seed, run_metrics())
        folder.phase("meta-learning").path.mkdir()
        for of_phase, n_epochs in [(folder.phase("meta-learning"), n_first), (folder, 2)]:
            for epoch in range(n_epochs):
                kinds = ("energy", "force")
                names = [f"{kind}_rmse.{level}" for kind in kinds for level in (DZ, CC)]
                of_phase.append_epoch({"epoch": epoch, "valid": dict.fromkeys(names, 2.0)})
    figure, _ = make_learning_curves(read_results(tmp_path).members("META-DZ/EF-CC/E"))
    first, second, median = lines_of(figure, "CC energy")
    np.testing.assert_array_equal(first[:, 0], [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(first[:, 1], [2, np.nan, np.nan, 2, 2])
    assert np.isfinite(second).all()
    np.testing.assert_array_equal(median, first)


def test_one_experiment_without_epochs_does_not_stop_the_figures_of_others(tmp_path, caplog):
    write_phases(tmp_path, 0, 2, 3)
    (folder,) = find_runs(tmp_path)
    folder.phase("pretraining").file("epochs.jsonl").unlink()
    write_epochs(tmp_path, 0, 2, 1.0)
    written = write_figures(tmp_path, read_results(tmp_path), only=["learning"])
    assert [path.name for path in written.paths] == ["learning-mf_dz_ef_tz_e.png"]
    assert "pretraining" in caplog.text


def test_a_phase_without_its_epochs_is_refused(tmp_path):
    write_phases(tmp_path, 0, 2, 3)
    members = read_results(tmp_path).members("TL-DZ/EF-CC/E")
    members[0].folder.phase("pretraining").file("epochs.jsonl").unlink()
    with pytest.raises(UserError, match=r"No epochs\.jsonl in .*seed-0.pretraining"):
        make_learning_curves(members)


def test_the_ring_is_at_the_epoch_in_the_model_not_at_the_best_where_the_last_is_kept(tmp_path):
    hyperparameters = get_hyperparameters("quick", {"kept_epoch": "last"})
    folder = make_run(tmp_path, "SF-DZ/E", 0, run_metrics(), hyperparameters=hyperparameters)
    with folder.file("epochs.jsonl").open("w") as stream:
        for epoch, error in enumerate([3.0, 1.0, 2.0]):
            valid = {f"energy_rmse.{DZ}": error}
            record = {"epoch": epoch, "best": epoch <= 1, "valid": valid}
            stream.write(json.dumps(record) + "\n")
    figure, data = make_learning_curves(read_results(tmp_path).members("SF-DZ/E"))
    assert data.curves[0].kept == {"0": 3}
    assert [3.0, 2.0] in [line.get_xydata()[0].tolist() for line in figure.axes[0].lines]


def test_a_trained_stress_has_a_row_in_gpa(tmp_path):
    folder = make_run(tmp_path, "SF-TZ/EFS", 0, run_metrics())
    names = ("energy_rmse", "force_rmse", "stress_rmse")
    valid = {f"{name}.{TZ}": 2.0 for name in names}
    folder.file("epochs.jsonl").write_text(json.dumps({"epoch": 0, "valid": valid}) + "\n")
    figure = draw_learning_curves(read_results(tmp_path), "SF-TZ/EFS")
    assert [axes.get_title() for axes in figure.axes] == ["TZ energy", "TZ forces", "TZ stress"]
    gpa = units.kcal / units.mol / units.GPa
    assert lines_of(figure, "TZ stress")[0][0, 1] == pytest.approx(2.0 * gpa)
    assert figure.axes[2].get_ylabel() == "validation RMSE (GPa)"
