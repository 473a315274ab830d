import json

import h5py
import numpy as np
import planted
import pytest
from made_runs import TINY_OPTIONS, exit_code, files_below, run_metrics, write_metrics

from hippynn_mf.cli import main as cli
from hippynn_mf.data.embedded import MINI_COMP6_KEYS
from hippynn_mf.report.completeness import Written
from hippynn_mf.runs.execute import Outcome
from hippynn_mf.runs.folder import RunFolder

NAME = "MF-DZ/EF-CC/E"
RUN_FILES = {
    "experiment.json",
    "split.npz",
    "epochs.jsonl",
    "model.pt",
    "model-best.pt",
    "model-last.pt",
    "predictions.npz",
    "metrics.json",
    ".lock",
    "log.txt",
}
ENERGY = {"energy_rmse_kcal_per_mol", "energy_mae_kcal_per_mol"}
FORCE = {"force_rmse_kcal_per_mol_per_angstrom", "force_mae_kcal_per_mol_per_angstrom"}
DELTA_E = {"delta_e_rmse_kcal_per_mol", "delta_e_mae_kcal_per_mol"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Files, and the folder of a run that `hippynn-mf train` trained on them for two epochs."""
    folder = tmp_path_factory.mktemp("trained")
    data = planted.write_ani1x(folder / "data.h5")
    comp6 = planted.write_comp6(folder / "comp6.h5")
    out = folder / "out"
    files = ["--data", data, "--comp6", comp6, "--comp6-keys", MINI_COMP6_KEYS]
    tiny = [*TINY_OPTIONS, "--set", "max_epochs=2"]
    assert exit_code("train", NAME, "--out", out, *files, *tiny, "--seed", 3) == 0
    return folder


@pytest.fixture(scope="module")
def run(trained):
    return trained / "out" / "runs" / "mf_dz_ef_cc_e" / "seed-3"


@pytest.fixture(scope="module")
def metrics(run):
    return json.loads((run / "metrics.json").read_text())


@pytest.fixture(scope="module")
def predictions(run):
    with np.load(run / "predictions.npz", allow_pickle=False) as stored:
        return dict(stored)


def test_training_leaves_every_file_of_a_run_and_the_metrics_last(run):
    assert {path.name for path in run.iterdir()} == RUN_FILES
    times = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
    del times[".lock"]  # taken before anything is written
    log = times.pop("log.txt")
    assert max(times, key=times.get) == "metrics.json"
    assert min(times, key=times.get) == "experiment.json"
    assert log > times["experiment.json"]


def test_the_run_folder_says_what_was_done(run, trained):
    stored = json.loads((run / "experiment.json").read_text())
    assert stored["settings"]["name"] == NAME
    assert stored["settings"]["seed"] == 3
    assert stored["settings"]["rows"] == "all"
    assert stored["settings"]["hyperparameters"]["max_epochs"] == 2
    assert stored["settings"]["data"]["path"] == str(trained / "data.h5")
    assert stored["settings"]["labels"] == {"wb97x_dz": "EF", "ccsd(t)_cbs": "E"}
    assert stored["n_structures"] == {"train": 160, "valid": 20, "test": 20}
    assert stored["versions"]["hippynn"].startswith("0.1.")
    assert stored["settings"]["hyperparameters"]["interaction"] == "auto"
    log = (run / "log.txt").read_text()
    assert f"interaction {stored['interaction_used']}" in log
    assert "on cpu" in log or stored["device_used"] != "cpu"


def test_the_splits_are_disjoint_and_cover_the_file(run):
    with np.load(run / "split.npz", allow_pickle=False) as stored:
        rows = {name: stored[name] for name in stored}
    assert {name: len(part) for name, part in rows.items()} == {
        "train": 160,
        "valid": 20,
        "test": 20,
    }
    np.testing.assert_array_equal(np.sort(np.concatenate(list(rows.values()))), np.arange(200))


def test_every_epoch_is_recorded(run):
    epochs = [json.loads(line) for line in (run / "epochs.jsonl").read_text().splitlines()]
    assert [epoch["epoch"] for epoch in epochs] == [0, 1]
    names = {"energy_rmse.wb97x_dz", "force_rmse.wb97x_dz", "energy_rmse.ccsd(t)_cbs"}
    assert all(names <= set(epoch["valid"]) for epoch in epochs)


def test_metrics_have_the_documented_keys(metrics):
    keys = {"format", "sets", "training", "inference", "predictions_sha256", "warnings"}
    assert set(metrics) == keys
    heldout, comp6 = metrics["sets"]["heldout"], metrics["sets"]["comp6"]
    references = {"wb97x_dz", "wb97x_tz", "mp2_tz", "ccsd(t)_cbs"}
    for head in ("wb97x_dz", "ccsd(t)_cbs"):
        assert set(heldout[head]) == references
        assert all(set(entry) >= ENERGY | FORCE for entry in heldout[head].values())
        assert set(comp6[head]) == references - {"wb97x_tz"}
        for entry in comp6[head].values():
            assert set(entry) >= FORCE | DELTA_E | {"cut_by", "n_structures"}
        assert comp6[head]["mp2_tz"]["force_rmse_kcal_per_mol_per_angstrom"] > 0
        assert comp6[head]["ccsd(t)_cbs"]["delta_e_rmse_kcal_per_mol"] > 0
    assert metrics["training"]["n_epochs"] == 2


@pytest.mark.parametrize("level", ["wb97x_dz", "ccsd(t)_cbs"])
def test_heldout_errors_follow_from_the_predictions(metrics, predictions, level):
    errors = (
        predictions[f"heldout.{level}.energy"] - predictions[f"heldout.reference.{level}.energy"]
    )
    entry = metrics["sets"]["heldout"][level][level]
    assert entry["energy_rmse_kcal_per_mol"] == pytest.approx(np.sqrt(np.mean(errors**2)))
    assert entry["energy_mae_kcal_per_mol"] == pytest.approx(np.mean(np.abs(errors)))


def test_force_errors_follow_from_the_predictions_of_real_atoms(metrics, predictions):
    atoms = predictions["heldout.species"] > 0
    errors = (
        predictions["heldout.wb97x_dz.forces"] - predictions["heldout.reference.wb97x_dz.forces"]
    )
    entry = metrics["sets"]["heldout"]["wb97x_dz"]["wb97x_dz"]
    rmse = np.sqrt(np.mean(errors[atoms] ** 2))
    assert entry["force_rmse_kcal_per_mol_per_angstrom"] == pytest.approx(rmse)
    assert entry["n_force_components"] == 3 * atoms.sum()


def test_references_of_the_predictions_are_the_planted_truth(run, trained, predictions):
    with np.load(run / "split.npz") as stored:
        np.testing.assert_array_equal(predictions["heldout.rows"], stored["test"])
    with h5py.File(trained / "data.h5") as file:
        totals = np.concatenate([group["ccsd(t)_cbs.energy"][()] for group in file.values()])
        numbers = [group["atomic_numbers"][()] for group in file.values()]
    own = np.repeat([sum(planted.SELF_ENERGIES[z] for z in n) for n in numbers], 40)
    expected = 627.509474 * (totals - own)[predictions["heldout.rows"]]
    found = predictions["heldout.reference.ccsd(t)_cbs.energy"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_evaluating_again_gives_the_same_metrics_where_the_files_have_moved(
    trained, run, metrics, predictions
):
    moved = {name: trained / f"moved-{name}" for name in ("data.h5", "comp6.h5")}
    for name, path in moved.items():
        path.write_bytes((trained / name).read_bytes())
    before = files_below(run)
    where = ["--data", moved["data.h5"], "--comp6", moved["comp6.h5"]]
    assert exit_code("evaluate", run, *where) == 0
    after = json.loads((run / "metrics.json").read_text())
    assert after == metrics
    with np.load(run / "predictions.npz", allow_pickle=False) as stored:
        assert set(stored) == set(predictions)
        np.testing.assert_array_equal(stored["comp6.groups"], predictions["comp6.groups"])
    changed = {name for name, content in files_below(run).items() if before[name] != content}
    # what the checks of the files said, which name the files, is stored anew
    assert changed <= {"predictions.npz", "metrics.json", "experiment.json"}


def test_training_again_is_refused_nothing_and_repeats_nothing(trained, run, capsys):
    before = files_below(run)
    files = ["--data", trained / "data.h5", "--comp6", trained / "comp6.h5"]
    tiny = [*TINY_OPTIONS, "--set", "max_epochs=2", "--comp6-keys", MINI_COMP6_KEYS]
    command = ["train", "mf_dz_ef_cc_e", "--out", trained / "out", *files, *tiny, "--seed", 3]
    assert exit_code(*command, "--device", "cpu") == 0
    assert capsys.readouterr().out.startswith(f"{run}\n")
    assert files_below(run) == before


def test_tables_and_figures_are_made_of_the_trained_run(trained, capsys, metrics):
    assert exit_code("tables", trained / "out", "--partial") == 0
    heldout, comp6 = (
        metrics["sets"][name]["ccsd(t)_cbs"]["ccsd(t)_cbs"] for name in ("heldout", "comp6")
    )
    said = capsys.readouterr().out
    energy = f"{heldout['energy_rmse_kcal_per_mol']:.2f} (one seed)"
    delta_e = f"{comp6['delta_e_rmse_kcal_per_mol']:.2f} (one seed)"
    assert f"| MF-DZ/EF-CC/E | 1 | {energy} | — | — | — |" in said
    assert f"| MF-DZ/EF-CC/E | 1 | {delta_e} | — | — | — |" in said
    assert "1.52 ± 0.03" not in said  # published, for other data
    assert exit_code("figures", trained / "out", "--partial") == 0
    assert {path.name for path in (trained / "out" / "figures").iterdir()} == {
        f"{name}.{suffix}"
        for name in ("parity-mf_dz_ef_cc_e", "learning-mf_dz_ef_cc_e")
        for suffix in ("png", "json")
    }


def campaign_that_fails(runs, out, engine, announcement):
    """Stands for run_campaign: finishes the first run and fails the others."""
    assert engine.n_workers == 3
    assert announcement.startswith("Preset quick: the default of this command")
    folder = RunFolder.of(out, runs[0])
    folder.prepare(runs[0], facts={})
    write_metrics(folder, run_metrics())
    failed = [Outcome(settings, "planted failure") for settings in runs[1:]]
    return [Outcome(runs[0], None), *failed]


def test_a_run_that_fails_in_the_pool_makes_reproduce_end_with_code_2(
    ani1x_file, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("hippynn_mf.campaign.campaign.run_campaign", campaign_that_fails)
    monkeypatch.setattr(
        "hippynn_mf.paper.figures.write_figures", lambda out, *args, **kw: Written(out)
    )
    options = ["--data", ani1x_file, "--out", tmp_path / "out", "--workers", 3]
    names = ["--experiments", "SF-CC/E, MF-DZ/EF-CC/E", "--seeds", "0"]
    assert exit_code("reproduce", *options, *names, *TINY_OPTIONS) == 2
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    assert said.err.splitlines()[-1].startswith("hippynn-mf: 1 of 2 runs failed; the others are")
    assert "First failure, MF-DZ/EF-CC/E, seed 0: planted failure" in said.err
    assert "tables/experiments.md (MF-DZ/EF-CC/E, seed 0)" in said.err
    assert not list((tmp_path / "out" / "tables").glob("experiments*"))


# hippynn warns of the cut-offs, which diverge with everything else.
@pytest.mark.filterwarnings("ignore:Provided distances are underneath:UserWarning")
def test_a_training_that_diverges_ends_with_code_2_and_is_not_finished(
    ani1x_file, tmp_path, capsys
):
    tiny = [*TINY_OPTIONS, "--set", "learning_rate=1e30"]
    options = ["--data", ani1x_file, "--out", tmp_path / "out", "--device", "cpu"]
    assert exit_code("train", "SF-CC/E", *options, *tiny) == 2
    said = capsys.readouterr().err
    assert "hippynn-mf: SF-CC/E: Training diverged in epoch 1" in said
    assert said.count("diverged") == 1
    assert not list((tmp_path / "out").rglob("metrics.json"))


def test_data_info_as_json_has_the_documented_keys(tmp_path, capsys):
    missing = {"H2O": {"ccsd(t)_cbs.energy": slice(0, 7), "wb97x_tz.forces": slice(0, 3)}}
    path = planted.write_ani1x(tmp_path / "data.h5", missing=missing)
    assert exit_code("data", "info", path, "--json") == 0
    info = json.loads(capsys.readouterr().out)
    assert (info["n_structures"], info["n_groups"]) == (200, 5)
    assert info["elements"] == ["H", "C", "N", "O"]
    counts = {name: (entry["energy"], entry["forces"]) for name, entry in info["levels"].items()}
    assert counts == {
        "wb97x_dz": (200, 200),
        "wb97x_tz": (200, 197),
        "mp2_tz": (200, 0),
        "ccsd(t)_cbs": (193, 0),
    }
    assert info["overlap"]["wb97x_dz & ccsd(t)_cbs"] == 193
    assert info["overlap"]["wb97x_dz & wb97x_tz"] == 200


def test_data_info_for_people_names_the_levels_and_the_overlaps(ani1x_file, capsys):
    assert exit_code("data", "info", ani1x_file) == 0
    text = capsys.readouterr().out
    assert "200 structures in 5 groups, 2 to 5 atoms of H, C, N, O" in text
    assert "wb97x_dz & ccsd(t)_cbs: 200 in common" in text


COMMANDS = {
    "campaign": "hippynn-mf campaign --out results --experiments",
    "new": "hippynn-mf new my.toml DZ=dz.xyz CC=cc.xyz",
    "settings": "hippynn-mf settings",
    "train": "hippynn-mf train MF-DZ/EF-CC/E --seed 3",
    "extend": "hippynn-mf extend model.safetensors --train CC=more.xyz",
    "evaluate": "hippynn-mf evaluate results/runs/mf_dz_ef_cc_e/seed-0",
    "status": "hippynn-mf status results",
    "learning-curve": "hippynn-mf learning-curve MF-DZ/EF-CC/E --level CC --data my.h5",
    "tables": "hippynn-mf tables results --metric mae",
    "figures": "hippynn-mf figures results --only parity,spread",
    "report": "hippynn-mf report results",
    "graph": "hippynn-mf graph MF-DZ/EF-CC/E --preset paper --out graph.png",
    "experiments": "hippynn-mf experiments --json",
    "export": "hippynn-mf export results/runs/mf_dz_ef_cc_e/seed-* --out model.safetensors",
    "card": "hippynn-mf card mini-ani1x",
    "predict": "hippynn-mf predict mini-ani1x in.xyz --level CC --ensemble-std --out out.extxyz",
    "extract": "hippynn-mf extract mini-ani1x --level CC --out cc.safetensors",
    "torsion": "hippynn-mf torsion mini-ani1x ethane.xyz --dihedral 2,0,1,5 --out torsion.png",
    "mliap": "hippynn-mf mliap mini-ani1x --level CC --seed 0 --out cc.pkl",
    "select": "hippynn-mf select pool.xyz --model mini-ani1x --level CC --n 40 --out next.xyz",
    "sample": "hippynn-mf sample molecules.xyz --per 100 --temperature 100:1000 --out pool.xyz",
    "label": "hippynn-mf label pool.xyz --level GFN2 --with tblite:GFN2-xTB --out labelled.xyz",
    "data info": "hippynn-mf data info ani1x-release.h5 --json",
    "data convert": "hippynn-mf data convert my.xyz my.h5",
}


@pytest.mark.parametrize(("command", "example"), COMMANDS.items(), ids=list(COMMANDS))
def test_the_help_of_every_command_shows_an_example(command, example, capsys):
    assert exit_code(*command.split(), "--help") == 0
    assert f"Example: {example}" in " ".join(capsys.readouterr().out.split())


def test_these_are_all_the_commands():
    groups = {"": cli.app, "data ": cli.data_app}
    names = {
        prefix + command.callback.__name__.replace("_", "-")
        for prefix, app in groups.items()
        for command in app.registered_commands
    }
    assert names == set(COMMANDS)
