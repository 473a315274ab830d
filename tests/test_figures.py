import json

import matplotlib.image
import numpy as np
import pytest
from made_runs import exit_code, heldout_errors, make_run, make_settings, run_metrics
from matplotlib.figure import Figure

from hippynn_mf.errors import UserError
from hippynn_mf.experiment import get_experiment
from hippynn_mf.files import write_npz
from hippynn_mf.levels import DZ, TZ
from hippynn_mf.report.figures import draw_learning_curves, draw_parity, write_figures
from hippynn_mf.report.results import read_results
from hippynn_mf.runs import RunFolder


def axes():
    return Figure().subplots()


def trained_run(out, name="MF-DZ/EF-TZ/E", seed=0):
    """A run folder with predictions for two waters and a nitrogen, and three epochs."""
    levels = {"wb97x_dz": 1.0, "wb97x_tz": 2.0}
    species = np.array([[8, 1, 1], [8, 1, 1], [7, 7, 0]])
    rng = np.random.default_rng(0)
    arrays = {"heldout.species": species}
    metrics = run_metrics()
    for level, error in levels.items():
        true_energies = np.array([10.0, 14.0, 500.0])
        true_forces = rng.normal(size=(3, 3, 3))
        arrays[f"heldout.reference.{level}.energy"] = true_energies
        arrays[f"heldout.{level}.energy"] = true_energies + error * np.array([1, -1, 1])
        arrays[f"heldout.reference.{level}.forces"] = true_forces
        padding = np.where(species > 0, 0.0, 1e6)[..., None]
        arrays[f"heldout.{level}.forces"] = true_forces + 3 * error + padding
        metrics["heldout"][level] = heldout_errors(error, 3 * error)
    folder = make_run(out, name, seed, metrics)
    write_npz(folder.file("predictions.npz"), arrays)
    with folder.file("epochs.jsonl").open("w") as stream:
        for epoch in range(3):
            valid = {
                "energy_rmse.wb97x_dz": 8.0 / 2**epoch,
                "energy_rmse.wb97x_tz": 9.0 / 3**epoch,
                "force_rmse.wb97x_dz": 5.0 / 2**epoch,
            }
            stream.write(json.dumps({"epoch": epoch, "valid": valid}) + "\n")
    return folder


def result_of(out):
    (result,) = read_results(out).by_name["MF-DZ/EF-TZ/E"]
    return result


def test_a_parity_plot_of_energies_is_relative_to_the_mean_of_a_composition(tmp_path):
    trained_run(tmp_path)
    drawn = axes()
    draw_parity(drawn, result_of(tmp_path), TZ, "energy")
    points = drawn.lines[0]
    np.testing.assert_allclose(points.get_xdata(), [-2.0, 2.0, 0.0])
    np.testing.assert_allclose(points.get_ydata(), [0.0, 0.0, 2.0])
    assert "TZ" in drawn.get_title()
    assert "RMSE 2.00 kcal/mol" in drawn.get_title()


def test_a_parity_plot_of_forces_has_every_component_of_every_atom_and_no_padding(tmp_path):
    trained_run(tmp_path)
    drawn = axes()
    draw_parity(drawn, result_of(tmp_path), DZ, "forces")
    points = drawn.lines[0]
    np.testing.assert_allclose(points.get_ydata() - points.get_xdata(), np.full(8 * 3, 3.0))
    assert "RMSE 3.00 kcal/mol/Å" in drawn.get_title()


def test_a_parity_plot_leaves_out_references_that_are_missing(tmp_path):
    folder = trained_run(tmp_path)
    with np.load(folder.file("predictions.npz")) as stored:
        arrays = dict(stored)
    arrays["heldout.reference.wb97x_tz.energy"] = np.array([np.nan, 14.0, np.nan])
    write_npz(folder.file("predictions.npz"), arrays)
    drawn = axes()
    draw_parity(drawn, result_of(tmp_path), TZ, "energy")
    np.testing.assert_allclose(drawn.lines[0].get_xdata(), [0.0])
    np.testing.assert_allclose(drawn.lines[0].get_ydata(), [-2.0])


def test_learning_curves_have_a_line_per_level_and_seed(tmp_path):
    trained_run(tmp_path, seed=0)
    trained_run(tmp_path, seed=1)
    drawn = axes()
    draw_learning_curves(drawn, read_results(tmp_path).by_name["MF-DZ/EF-TZ/E"], "energy")
    assert len(drawn.lines) == 4
    np.testing.assert_allclose(drawn.lines[0].get_xdata(), [1, 2, 3])
    np.testing.assert_allclose(drawn.lines[0].get_ydata(), [8.0, 4.0, 2.0])
    np.testing.assert_allclose(drawn.lines[1].get_ydata(), [9.0, 3.0, 1.0])
    assert [text.get_text() for text in drawn.get_legend().get_texts()] == ["DZ", "TZ"]


def test_learning_curves_of_forces_have_only_the_levels_that_train_on_them(tmp_path):
    trained_run(tmp_path)
    drawn = axes()
    draw_learning_curves(drawn, [result_of(tmp_path)], "forces")
    (line,) = drawn.lines
    np.testing.assert_allclose(line.get_ydata(), [5.0, 2.5, 1.25])


def test_figures_are_written_as_images_that_show_something(tmp_path, capsys):
    trained_run(tmp_path)
    trained_run(tmp_path, "SF-TZ/E")
    assert exit_code("figures", tmp_path, "--partial") == 0
    assert "5 figures in" in capsys.readouterr().out
    slugs = ("mf_dz_ef_tz_e", "sf_tz_e")
    names = {f"{kind}-{slug}.png" for kind in ("parity", "learning") for slug in slugs}
    written = {path.name for path in (tmp_path / "figures").iterdir()}
    assert written == names | {"figure3.png", "figure3.json"}
    for name in names | {"figure3.png"}:
        pixels = matplotlib.image.imread(tmp_path / "figures" / name)
        assert min(pixels.shape[:2]) > 300
        assert 0.005 < (pixels[..., :3] < 0.5).any(axis=2).mean() < 0.9


def test_energies_only_models_have_figures_too(tmp_path):
    settings = make_settings("SF-TZ/E")
    folder = trained_run(tmp_path)
    alone = RunFolder.of(tmp_path, settings)
    alone.prepare(settings, facts={})
    for name in ("predictions.npz", "epochs.jsonl"):
        alone.file(name).write_bytes(folder.file(name).read_bytes())
    alone.write_metrics(run_metrics({"wb97x_tz": heldout_errors(2.0)}))
    paths = write_figures(tmp_path, read_results(tmp_path), partial=True)
    assert {path.name for path in paths} >= {"parity-sf_tz_e.png", "learning-sf_tz_e.png"}


def test_a_figure3_that_lacks_runs_is_refused_and_the_other_figures_are_drawn(tmp_path, capsys):
    trained_run(tmp_path)
    trained_run(tmp_path, seed=1)
    trained_run(tmp_path, "SF-TZ/E")
    assert exit_code("figures", tmp_path) == 2
    said = capsys.readouterr()
    assert "4 figures in" in said.out
    assert "figures/figure3.png (SF-TZ/E, seed 1; SF-MP2/E, seeds 0, 1; " in said.err
    assert "MF-DZ/EF-CC/E, seeds 0, 1)" in said.err
    assert not (tmp_path / "figures" / "figure3.png").exists()
    assert (tmp_path / "figures" / "parity-sf_tz_e.png").exists()
    assert exit_code("figures", tmp_path, "--seeds", "0") == 2
    assert "figures/figure3.png (SF-MP2/E, seed 0; " in capsys.readouterr().err


def test_figure3_of_chosen_experiments_needs_and_has_their_levels_only(tmp_path):
    trained_run(tmp_path)
    trained_run(tmp_path, "SF-TZ/E")
    results = read_results(tmp_path)
    pair = [get_experiment(name) for name in ("SF-TZ/E", "MF-DZ/EF-TZ/E")]
    assert (tmp_path / "figures" / "figure3.png") in write_figures(
        tmp_path, results, experiments=pair
    )
    data = json.loads((tmp_path / "figures" / "figure3.json").read_text())
    assert {bar["level"] for bar in data["bars"]} == {"TZ"}
    (tmp_path / "figures" / "figure3.png").unlink()
    write_figures(tmp_path, results, experiments=pair[:1])
    assert not (tmp_path / "figures" / "figure3.png").exists()
    with pytest.raises(UserError, match=r"figure3\.png \(SF-MP2/E, seed 0"):
        write_figures(tmp_path, results)


def test_figures_whose_files_are_gone_are_left_out_and_named(tmp_path, caplog):
    kept = trained_run(tmp_path)
    trained_run(tmp_path, "SF-TZ/E").file("predictions.npz").unlink()
    kept.file("epochs.jsonl").unlink()
    names = {path.name for path in write_figures(tmp_path, read_results(tmp_path), partial=True)}
    assert names == {"figure3.png", "parity-mf_dz_ef_tz_e.png", "learning-sf_tz_e.png"}
    parity, learning = (record.message for record in caplog.records)
    assert parity.startswith("no parity plots of SF-TZ/E: they need predictions.npz of every run")
    assert learning.startswith("no learning plots of MF-DZ/EF-TZ/E: they need epochs.jsonl")
    assert learning.endswith(str(kept.file("epochs.jsonl")))


def test_with_json_alone_figure3_is_drawn_all_the_same(tmp_path):
    pair = [get_experiment(name) for name in ("SF-TZ/E", "MF-DZ/EF-TZ/E")]
    for experiment in pair:
        make_run(tmp_path, experiment.name, 0, run_metrics({"wb97x_tz": heldout_errors(2.0)}))
    (path,) = write_figures(tmp_path, read_results(tmp_path), experiments=pair)
    assert path == tmp_path / "figures" / "figure3.png"
