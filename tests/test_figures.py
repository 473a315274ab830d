import json

import matplotlib.image
import numpy as np
import pytest
from made_runs import exit_code, make_run, make_settings
from matplotlib.figure import Figure

from hippynn_mf.figures import (
    draw_figure3,
    draw_learning_curves,
    draw_parity,
    percent_improvement,
    write_figures,
)
from hippynn_mf.files import write_npz
from hippynn_mf.levels import CC, DZ, TZ
from hippynn_mf.results import read_results
from hippynn_mf.runs import RunFolder
from hippynn_mf.tables import comp6_delta_e, comp6_force, heldout_energy, heldout_force


def energies(level, value):
    return {"heldout": {level: {"energy_rmse_kcal_per_mol": value}}, "cross": {}, "comp6": None}


def forces_metric(value):
    return {"force_rmse_kcal_per_mol_per_angstrom": value}


def axes():
    return Figure().subplots()


@pytest.fixture
def pairs(tmp_path):
    """SF-X/E and MF-DZ/EF-X/E for X = TZ, MP2, CC with known improvements."""
    for seed, single, multi in [(0, 4.0, 1.0), (1, 2.0, 1.0), (3, 5.0, None)]:
        make_run(tmp_path, "SF-TZ/E", seed, energies("wb97x_tz", single))
        if multi is not None:
            make_run(tmp_path, "MF-DZ/EF-TZ/E", seed, energies("wb97x_tz", multi))
    make_run(tmp_path, "MF-DZ/EF-TZ/E", 2, energies("wb97x_tz", 9.0))  # SF has no seed 2
    comp6 = {
        "mp2_tz": forces_metric(8.0),
        "ccsd(t)_cbs": {"delta_e_rmse_kcal_per_mol": 2.0},
    }
    better = {
        "mp2_tz": forces_metric(2.0),
        "ccsd(t)_cbs": {"delta_e_rmse_kcal_per_mol": 2.5},
    }
    make_run(tmp_path, "SF-CC/E", 0, energies("ccsd(t)_cbs", 2.0) | {"comp6": comp6})
    make_run(tmp_path, "MF-DZ/EF-CC/E", 0, energies("ccsd(t)_cbs", 1.8) | {"comp6": better})
    return read_results(tmp_path)


@pytest.mark.parametrize(
    ("high", "column", "expected"),
    [
        ("TZ", heldout_energy(TZ), [75.0, 50.0]),
        ("CC", heldout_energy(CC), [10.0]),
        ("CC", comp6_force(DZ), []),
        ("CC", comp6_delta_e(CC), [-25.0]),
        ("TZ", heldout_force(TZ), []),
        ("MP2", heldout_energy(TZ), []),
    ],
    ids=["common seeds", "one seed", "no metric", "worse", "no forces", "no runs"],
)
def test_improvement_is_taken_seed_by_seed_where_both_models_have_the_seed(
    pairs, high, column, expected
):
    _, each = percent_improvement(pairs, high, column)
    np.testing.assert_allclose(each, expected)


def test_improvement_of_the_means_is_none_without_one_of_the_models(pairs):
    mean, _ = percent_improvement(pairs, "MP2", heldout_energy(TZ))
    assert mean is None


def test_figure3_draws_mean_bars_and_a_dot_per_seed(pairs):
    drawn = axes()
    draw_figure3(drawn, pairs)
    heights = [bar.get_height() for bar in drawn.patches if 0 < bar.get_width() < 1]
    assert {round(h, 6) for h in heights if h} == {66.666667, 10.0, 75.0, -25.0}
    dots = [list(line.get_ydata()) for line in drawn.lines if line.get_marker() == "."]
    for found, expected in zip(sorted(dots), [[-25.0], [10.0], [75.0], [75.0, 50.0]], strict=True):
        np.testing.assert_allclose(found, expected)
    ticks = [label.get_text() for label in drawn.get_xticklabels()]
    assert [tick.splitlines()[0] for tick in ticks] == ["X = TZ", "X = MP2", "X = CC"]
    assert [tick.splitlines()[1] for tick in ticks] == [
        "seeds 0, 1",
        "not trained: SF-MP2/E, MF-DZ/EF-MP2/E",
        "seeds 0",
    ]


def test_figure3_bars_stand_at_their_level_and_have_the_color_of_their_metric(pairs):
    drawn = axes()
    draw_figure3(drawn, pairs)
    bars = {round(bar.get_height(), 6): bar for bar in drawn.patches if bar.get_height()}
    middles = {h: bars[h].get_x() + bars[h].get_width() / 2 for h in (66.666667, 10.0, 75.0, -25.0)}
    assert abs(middles[66.666667] - 0) < 0.5  # TZ energy
    assert all(abs(middles[h] - 2) < 0.5 for h in (10.0, 75.0, -25.0))  # CC
    assert bars[66.666667].get_facecolor() == bars[10.0].get_facecolor()  # both energies
    assert len({bars[h].get_facecolor() for h in (10.0, 75.0, -25.0)}) == 3


def test_figure3_shows_transfer_learning_as_a_labelled_band_from_15_to_20_percent(pairs):
    drawn = axes()
    draw_figure3(drawn, pairs)
    (band,) = [p for p in drawn.patches if "transfer learning" in str(p.get_label())]
    assert (band.get_y(), band.get_y() + band.get_height()) == (15.0, 20.0)
    legend = [text.get_text() for text in drawn.get_legend().get_texts()]
    assert "transfer learning in the paper's text: 15–20 %" in legend
    assert {"energy", "force, COMP6 MP2", "ΔE, COMP6 CC"} < set(legend)


def trained_run(out, name="MF-DZ/EF-TZ/E", seed=0):
    """A run folder with predictions for two waters and a nitrogen, and three epochs."""
    levels = {"wb97x_dz": 1.0, "wb97x_tz": 2.0}
    species = np.array([[8, 1, 1], [8, 1, 1], [7, 7, 0]])
    rng = np.random.default_rng(0)
    arrays = {"heldout.species": species}
    metrics = {"heldout": {}, "cross": {}, "comp6": None}
    for level, error in levels.items():
        true_energies = np.array([10.0, 14.0, 500.0])
        true_forces = rng.normal(size=(3, 3, 3))
        arrays[f"heldout.reference.{level}.energy"] = true_energies
        arrays[f"heldout.{level}.energy"] = true_energies + error * np.array([1, -1, 1])
        arrays[f"heldout.reference.{level}.forces"] = true_forces
        padding = np.where(species > 0, 0.0, 1e6)[..., None]
        arrays[f"heldout.{level}.forces"] = true_forces + 3 * error + padding
        metrics["heldout"][level] = {
            "energy_rmse_kcal_per_mol": error,
            "force_rmse_kcal_per_mol_per_angstrom": 3 * error,
        }
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
    assert exit_code("figures", tmp_path) == 0
    assert "3 figures" in capsys.readouterr().out
    names = ["figure3.png", "learning-mf_dz_ef_tz_e.png", "parity-mf_dz_ef_tz_e.png"]
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == names
    for name in names:
        pixels = matplotlib.image.imread(tmp_path / "figures" / name)
        assert min(pixels.shape[:2]) > 300
        assert 0.005 < (pixels[..., :3] < 0.5).any(axis=2).mean() < 0.9


def test_energies_only_models_have_figures_too(tmp_path):
    settings = make_settings("SF-TZ/E")
    folder = trained_run(tmp_path)
    metrics = folder.read_metrics()
    metrics["heldout"] = {"wb97x_tz": {"energy_rmse_kcal_per_mol": 2.0}}
    alone = RunFolder.of(tmp_path, settings)
    alone.prepare(settings, facts={})
    for name in ("predictions.npz", "epochs.jsonl"):
        alone.file(name).write_bytes(folder.file(name).read_bytes())
    alone.write_metrics(metrics)
    paths = write_figures(tmp_path, read_results(tmp_path))
    assert {path.name for path in paths} >= {"parity-sf_tz_e.png", "learning-sf_tz_e.png"}
