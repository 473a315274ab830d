import json

import matplotlib.image
import pytest
from made_predictions import predicted_run
from made_runs import exit_code, files_below, heldout_errors, make_run, require, run_metrics

from hippynn_mf.errors import UserError
from hippynn_mf.paper import FIGURES
from hippynn_mf.paper.figures import write_figures
from hippynn_mf.paper.table1 import get_experiment
from hippynn_mf.report.parity import ParityData
from hippynn_mf.report.results import Selection, read_results
from hippynn_mf.report.spread import SpreadData

SLUGS = ("mf_dz_ef_tz_e", "sf_tz_e")


def trained_run(out, name="MF-DZ/EF-TZ/E", seed=0):
    """A run folder with planted predictions and three epochs."""
    folder = predicted_run(out, name, seed)
    with folder.file("epochs.jsonl").open("w") as stream:
        for epoch in range(3):
            names = ("energy_rmse.wb97x_dz", "energy_rmse.wb97x_tz", "force_rmse.wb97x_dz")
            valid = dict.fromkeys(names, 8.0 / 2**epoch)
            stream.write(json.dumps({"epoch": epoch, "valid": valid, "best": True}) + "\n")
    return folder


def names_in(out):
    return {path.name for path in (out / "figures").iterdir()}


def both(*names):
    """Names of the images and of their numbers."""
    return {f"{name}.{suffix}" for name in names for suffix in ("png", "json")}


def test_figures_are_written_as_images_that_show_something_with_their_numbers(tmp_path, capsys):
    for seed in range(3):
        trained_run(tmp_path, seed=seed)
    trained_run(tmp_path, "SF-TZ/E")
    assert exit_code("figures", tmp_path, "--partial") == 0
    assert "6 figures in" in capsys.readouterr().out
    names = {f"{kind}-{slug}" for kind in ("parity", "learning") for slug in SLUGS}
    names |= {"figure3", "spread-mf_dz_ef_tz_e"}
    assert names_in(tmp_path) == both(*names)
    for name in names:
        pixels = matplotlib.image.imread(tmp_path / "figures" / f"{name}.png")
        assert min(pixels.shape[:2]) > 300
        assert 0.005 < (pixels[..., :3] < 0.5).any(axis=2).mean() < 0.9
    parity, spread = (
        model.model_validate_json((tmp_path / "figures" / f"{kind}-{SLUGS[0]}.json").read_text())
        for kind, model in (("parity", ParityData), ("spread", SpreadData))
    )
    assert parity.seeds == spread.seeds == [0, 1, 2]
    assert (parity.panels[0].n, spread.panels[0].calibration.n) == (5, 5)


def test_chosen_figures_are_drawn_alone(tmp_path, capsys):
    trained_run(tmp_path)
    assert exit_code("figures", tmp_path, "--only", "parity, learning") == 0
    assert names_in(tmp_path) == both("parity-mf_dz_ef_tz_e", "learning-mf_dz_ef_tz_e")
    assert "2 figures in" in capsys.readouterr().out


def test_an_unknown_figure_is_refused_before_anything_is_drawn(tmp_path, capsys):
    trained_run(tmp_path)
    before = files_below(tmp_path)
    assert exit_code("figures", tmp_path, "--only", "learning,partiy") == 2
    said = capsys.readouterr().err
    assert (
        "Unknown figure 'partiy'. Did you mean parity? Known: figure3, cc-forces, forces, " in said
    )
    assert files_below(tmp_path) == before
    assert set(FIGURES) == {"figure3", "cc-forces", "forces", "parity", "spread", "learning"}


def test_a_chosen_figure_that_cannot_be_drawn_at_all_is_an_error(tmp_path, capsys):
    trained_run(tmp_path)
    assert exit_code("figures", tmp_path, "--only", "spread") == 2
    said = capsys.readouterr().err
    assert "No spread figure of MF-DZ/EF-TZ/E: MF-DZ/EF-TZ/E lacks 3 or more seeds." in said


def test_figures_of_chosen_seeds_are_of_these_alone(tmp_path):
    for seed in range(4):
        trained_run(tmp_path, seed=seed)
    selection = Selection(seeds=[0, 2, 3])
    write_figures(tmp_path, read_results(tmp_path), selection, only=["spread"])
    content = json.loads((tmp_path / "figures" / "spread-mf_dz_ef_tz_e.json").read_text())
    assert content["seeds"] == [0, 2, 3]


def test_a_figure3_that_lacks_runs_is_refused_and_the_other_figures_are_drawn(tmp_path, capsys):
    trained_run(tmp_path)
    trained_run(tmp_path, seed=1)
    trained_run(tmp_path, "SF-TZ/E")
    assert exit_code("figures", tmp_path) == 2
    said = capsys.readouterr()
    assert "4 figures in" in said.out
    assert "figures/figure3.png (SF-TZ/E, seed 1; SF-MP2/E, seeds 0, 1; 3 more)" in said.err
    missing = "SF-TZ/E,SF-MP2/E,MF-DZ/EF-MP2/E,SF-CC/E,MF-DZ/EF-CC/E"
    assert f"--experiments {missing} --seeds 0,1'" in said.err
    assert not (tmp_path / "figures" / "figure3.png").exists()
    assert (tmp_path / "figures" / "parity-sf_tz_e.png").exists()
    assert exit_code("figures", tmp_path, "--seeds", "0") == 2
    assert "figures/figure3.png (SF-MP2/E, seed 0; " in capsys.readouterr().err


def test_figure3_of_chosen_experiments_needs_and_has_their_levels_only(tmp_path):
    trained_run(tmp_path)
    trained_run(tmp_path, "SF-TZ/E")
    results = read_results(tmp_path)
    pair = [get_experiment(name) for name in ("SF-TZ/E", "MF-DZ/EF-TZ/E")]
    written = write_figures(tmp_path, results, Selection(experiments=pair))
    assert (tmp_path / "figures" / "figure3.png") in require(written)
    data = json.loads((tmp_path / "figures" / "figure3.json").read_text())
    assert {bar["level"] for bar in data["bars"]} == {"TZ"}
    (tmp_path / "figures" / "figure3.png").unlink()
    write_figures(tmp_path, results, Selection(experiments=pair[:1]))
    assert not (tmp_path / "figures" / "figure3.png").exists()
    with pytest.raises(UserError, match=r"figure3\.png \(SF-MP2/E, seed 0"):
        require(write_figures(tmp_path, results))


def test_figures_whose_files_are_gone_are_left_out_and_named(tmp_path, caplog):
    kept = trained_run(tmp_path)
    other = trained_run(tmp_path, "SF-TZ/E")
    other.file("predictions.npz").unlink()
    kept.file("epochs.jsonl").unlink()
    written = write_figures(tmp_path, read_results(tmp_path), Selection(partial=True))
    names = {path.name for path in written.paths}
    assert names == {"figure3.png", "parity-mf_dz_ef_tz_e.png", "learning-sf_tz_e.png"}
    parity, spread, learning = (record.message for record in caplog.records)
    lacks = "predictions.npz of every run, which is missing"
    assert parity == f"No parity figure of SF-TZ/E: SF-TZ/E lacks {lacks}: {other.path}."
    assert spread.startswith("No spread figure of MF-DZ/EF-TZ/E, SF-TZ/E: MF-DZ/EF-TZ/E lacks 3 or")
    assert learning.startswith("No learning figure of MF-DZ/EF-TZ/E: MF-DZ/EF-TZ/E lacks epochs")


def test_with_json_alone_figure3_is_drawn_all_the_same(tmp_path):
    pair = [get_experiment(name) for name in ("SF-TZ/E", "MF-DZ/EF-TZ/E")]
    for experiment in pair:
        make_run(tmp_path, experiment.name, 0, run_metrics({"wb97x_tz": heldout_errors(2.0)}))
    selection = Selection(experiments=pair)
    (path,) = require(write_figures(tmp_path, read_results(tmp_path), selection))
    assert path == tmp_path / "figures" / "figure3.png"
