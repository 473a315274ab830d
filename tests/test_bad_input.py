"""Section 8 of the issue: wrong input gives one message and code 2, and nothing is written."""

import json
import shutil

import h5py
import numpy as np
import planted
import pytest
import torch
from made_runs import (
    TINY_OPTIONS,
    build_settings,
    exit_code,
    files_below,
    run_metrics,
    write_metrics,
)

from hippynn_mf.campaign.engines import LocalPool, ParslSite
from hippynn_mf.data.embedded import MINI_COMP6_KEYS
from hippynn_mf.data.loading import load_splits
from hippynn_mf.errors import UserError
from hippynn_mf.labels import parse_labels
from hippynn_mf.levels import CC
from hippynn_mf.model.model import build_model
from hippynn_mf.paper.table1 import get_experiment
from hippynn_mf.runs.folder import RunFolder

EVERY_GROUP = ("H2O", "CH4", "H3N", "CHN", "N2")


@pytest.fixture(autouse=True)
def no_training(monkeypatch):
    """Wrong input is refused before a training step, and before a pool of processes starts."""

    def started(*arguments, **options):
        pytest.fail("training started")

    monkeypatch.setattr("hippynn_mf.runs.phases.prepare_training", started)
    monkeypatch.setattr(ParslSite, "open", started)
    monkeypatch.setattr(LocalPool, "open", started)


@pytest.fixture
def where(tmp_path, ani1x_file, comp6_file):
    """A folder with good files: data.h5, comp6.h5, and an empty folder for results."""
    ani1x_file.rename(tmp_path / "data.h5")
    comp6_file.rename(tmp_path / "comp6.h5")
    shutil.copy(MINI_COMP6_KEYS, tmp_path / "keys.json")
    (tmp_path / "out").mkdir()
    return tmp_path


def refusal(capsys, *arguments):
    """The only thing that a refused command says."""
    assert exit_code(*arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    assert said.err.startswith("hippynn-mf: ")
    assert said.err.count("hippynn-mf: ") == 1
    assert said.err.endswith("\n")
    assert len(said.err.splitlines()) == 1
    return said.err


def train(where, *options):
    data = () if "--data" in options else ("--data", where / "data.h5")
    return ["train", "MF-DZ/EF-CC/E", *data, "--out", where / "out", *TINY_OPTIONS, *options]


def reproduce(where, *options):
    data = () if "--data" in options else ("--data", where / "data.h5")
    return ["reproduce", *data, "--out", where / "out", *TINY_OPTIONS, *options]


def with_comp6(where):
    return ["--comp6", where / "comp6.h5", "--comp6-keys", where / "keys.json"]


# Damage to the training file, and what the message says.


def missing_file(path):
    path.unlink()


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def not_hdf5(path):
    path.write_text("conformer,energy\n")


def a_folder(path):
    path.unlink()
    path.mkdir()


def misspelt_key(path):
    with h5py.File(path, "r+") as file:
        for group in file.values():
            group.move("wb97x_dz.forces", "wb97x_dz.force")


def no_labels_of_a_level(path):
    for group in EVERY_GROUP:
        planted.replace(path, group, "ccsd(t)_cbs.energy", np.full(40, np.nan))


def an_element_outside(path):
    planted.replace(path, "H2O", "atomic_numbers", np.array([16, 1, 1], "u1"))


def coordinates(value):
    def damage(path):
        with h5py.File(path, "r+") as file:
            file["CH4/coordinates"][7, 2, 1] = value

    return damage


def infinite_energy(path):
    with h5py.File(path, "r+") as file:
        file["N2/ccsd(t)_cbs.energy"][3] = np.inf


def gradients(path):
    with h5py.File(path, "r+") as file:
        for group in file.values():
            group["wb97x_dz.forces"][...] = -group["wb97x_dz.forces"][()]


def too_small(path):
    planted.write_ani1x(path, {"H2O": 2})


def no_groups(path):
    with h5py.File(path, "w") as file:
        file["atomic_numbers"] = np.array([8, 1, 1])


DATA = {
    "missing file": (missing_file, ["No file", "data.h5", "Check the path"]),
    "truncated": (truncated, ["data.h5 is truncated", "again"]),
    "not HDF5": (not_hdf5, ["data.h5 is not an HDF5 file"]),
    "a folder": (a_folder, ["data.h5 is a folder"]),
    "missing key": (misspelt_key, ["'wb97x_dz.forces'", "Did you mean wb97x_dz.force", "Known:"]),
    "no labels of a level": (no_labels_of_a_level, ["data.h5", "ccsd(t)_cbs"]),
    "NaN coordinates": (coordinates(np.nan), ["group CH4", "NaN or infinite coordinates"]),
    "infinite coordinates": (coordinates(np.inf), ["group CH4", "NaN or infinite coordinates"]),
    "an infinite energy": (infinite_energy, ["group N2", "infinite", "ccsd(t)_cbs"]),
    "gradients for forces": (gradients, ["data.h5", "wb97x_dz", "wrong sign", "Negate"]),
    "empty split": (too_small, ["split is empty", "2 conformers"]),
    "no groups": (no_groups, ["data.h5 has no groups"]),
}


@pytest.mark.parametrize(("damage", "words"), DATA.values(), ids=list(DATA))
@pytest.mark.parametrize("command", [train, reproduce], ids=["train", "reproduce"])
def test_wrong_data_are_refused(where, capsys, command, damage, words):
    damage(where / "data.h5")
    message = refusal(capsys, *command(where))
    assert all(word in message for word in words), message
    assert not list((where / "out").iterdir())


@pytest.mark.parametrize("rows", ["common", "all"])
def test_a_level_without_labels_is_refused_however_rows_are_chosen(where, capsys, rows):
    no_labels_of_a_level(where / "data.h5")
    message = refusal(capsys, *train(where, "--rows", rows))
    expected = {
        "common": "Of 200 conformers, 0 carry all of",
        "all": "level ccsd(t)_cbs (CC) has no energy label in the train split of 160 structures",
    }
    assert expected[rows] in message
    assert not list((where / "out").iterdir())


@pytest.mark.parametrize(
    "command",
    [
        lambda where: train(where, "--set", "species=[0,1,6,7,8]"),
        lambda where: train(where, "--preset", "quick"),
        reproduce,
    ],
    ids=["species", "quick", "reproduce"],
)
def test_an_element_outside_is_refused_where_the_data_do_not_say_which_there_are(
    where, capsys, command
):
    an_element_outside(where / "data.h5")
    message = refusal(capsys, *command(where))
    assert all(word in message for word in ["data.h5", "[16]", "[0, 1, 6, 7, 8]", "Remove"])
    assert not list((where / "out").iterdir())


# Damage to the COMP6 file.


def comp6_element_outside(path):
    with h5py.File(path, "r+") as file:
        file["planted/H2O/species"][0] = b"S"


def comp6_no_element(path):
    with h5py.File(path, "r+") as file:
        file["planted/H2O/species"][0] = b"Q"


def comp6_wrong_sign(path):
    with h5py.File(path, "r+") as file:
        for group in file["planted"].values():
            group["mp2_tz_grad"][...] = -group["mp2_tz_grad"][()]


def comp6_misspelt_key(path):
    with h5py.File(path, "r+") as file:
        for group in file["planted"].values():
            group.move("mp2_tz_grad", "mp2_tz.grad")


def comp6_nan_coordinates(path):
    with h5py.File(path, "r+") as file:
        file["planted/CH4/coordinates"][1, 1, 1] = np.nan


def comp6_other_level(path):
    with h5py.File(path, "r+") as file:
        file["planted/CH4/lot"][0] = b"mp2/cc-pvtz"


COMP6 = {
    "missing file": (missing_file, ["No file", "comp6.h5"]),
    "truncated": (truncated, ["comp6.h5 is truncated"]),
    "not HDF5": (not_hdf5, ["comp6.h5 is not an HDF5 file"]),
    "an empty folder": (a_folder, ["comp6.h5 holds no .h5 files"]),
    "the ANI-1x layout": (lambda path: planted.write_ani1x(path), ["comp6.h5", "--data"]),
    "missing key": (comp6_misspelt_key, ["'mp2_tz_grad'", "Did you mean mp2_tz.grad"]),
    "an element outside": (comp6_element_outside, ["comp6.h5", "structures"]),
    "no element": (comp6_no_element, ["comp6.h5", "unknown elements ['Q']"]),
    "NaN coordinates": (comp6_nan_coordinates, ["planted/CH4", "NaN or infinite coordinates"]),
    "forces for a gradient": (comp6_wrong_sign, ["comp6.h5", "mp2_tz", "wrong sign", "key map"]),
    "another level of theory": (comp6_other_level, ["planted/CH4", "mp2/cc-pvtz", "wb97x_dz"]),
}


@pytest.mark.parametrize(("damage", "words"), COMP6.values(), ids=list(COMP6))
@pytest.mark.parametrize("command", [train, reproduce], ids=["train", "reproduce"])
def test_wrong_comp6_data_are_refused_before_training(where, capsys, command, damage, words):
    damage(where / "comp6.h5")
    message = refusal(capsys, *command(where, *with_comp6(where)))
    assert all(word in message for word in words), message
    assert not list((where / "out").iterdir())


KEY_MAPS = {
    "unknown level": ('{"wb97x_dx": {"energy": "e"}}', ["'wb97x_dx'", "Did you mean wb97x_dz"]),
    "unknown property": ('{"DZ": {"energie": "e"}}', ["'energie'", "Did you mean energy"]),
    "gradient and forces": ('{"DZ": {"gradient": "g", "forces": "f"}}', ["both"]),
    "no JSON": ("wb97x_dz: energies", ["keys.json is not valid JSON"]),
    "a list": ("[]", ["keys.json: expected"]),
    "a number for a key": ('{"DZ": {"energy": 5}}', ["keys.json", "5"]),
    "nothing": ("{}", ["keys.json names no key of", "comp6.h5"]),
    "a level without keys": ('{"DZ": {}}', ["keys.json names no key of", "comp6.h5"]),
}


@pytest.mark.parametrize(("content", "words"), KEY_MAPS.values(), ids=list(KEY_MAPS))
def test_a_wrong_key_map_is_refused(where, capsys, content, words):
    (where / "keys.json").write_text(content)
    message = refusal(capsys, *train(where, *with_comp6(where)))
    assert all(word in message for word in words), message
    assert not list((where / "out").iterdir())


OPTIONS = {
    "unknown preset": (["--preset", "quik"], ["preset 'quik'", "Did you mean quick", "paper"]),
    "unknown hyperparameter": (["--set", "n_feature=4"], ["'n_feature'", "n_features"]),
    "bad value": (["--set", "batch_size=-1"], ["batch_size: ", "greater than 0, found -1"]),
    "bad type": (["--set", "batch_size=many"], ["batch_size: ", "integer, found 'many'"]),
    "not a number": (["--set", "learning_rate=NaN"], ["learning_rate"]),
    "infinite": (["--set", "learning_rate=Infinity"], ["learning_rate", "finite"]),
    "no value": (["--set", "batch_size"], ["NAME=VALUE", "'batch_size'"]),
    "unknown stopping metric": (
        ["--set", "stopping_metric=energy"],
        ["stopping criterion 'energy'", "sum"],
    ),
    "unknown rows": (["--rows", "comon"], ["'comon'", "Did you mean common"]),
    "unknown device": (["--device", "tpu"], ["device 'tpu'", "cpu, cuda"]),
    "device that is not here": (["--device", "cuda:99"], ["cuda:99 is not here", "--device cpu"]),
    "key map without COMP6": (["--comp6-keys", MINI_COMP6_KEYS], ["--comp6"]),
    "missing key map": (["--comp6", "comp6.h5", "--comp6-keys", "none.json"], ["none.json"]),
}


@pytest.mark.parametrize(("options", "words"), OPTIONS.values(), ids=list(OPTIONS))
@pytest.mark.parametrize("command", [train, reproduce], ids=["train", "reproduce"])
def test_a_wrong_option_is_refused(where, capsys, command, options, words):
    message = refusal(capsys, *command(where, *options))
    assert all(word in message for word in words), message
    assert not list((where / "out").iterdir())


LISTS = {
    "unknown experiment": (["--experiments", "SF-CC/E,SF-CC/F"], ["'SF-CC/F'", "SF-CC/E"]),
    "no forces": (["--experiments", "SF-CC/E,SF-CC/EF"], ["needs forces of level CC"]),
    "level of no declaration": (["--experiments", "SF-GFN2/E"], ["'GFN2'", "Known: DZ"]),
    "no experiment": (["--experiments", ""], ["--experiments expects names", "''"]),
    "nothing between commas": (["--experiments", "SF-CC/E,"], ["--experiments", "'SF-CC/E,'"]),
    "an experiment twice": (["--experiments", "SF-CC/E,sf_cc_e"], ["twice", "SF-CC/E"]),
    "words for seeds": (["--seeds", "one"], ["--seeds", "0,1,2", "'one'"]),
    "no seed": (["--seeds", ""], ["--seeds", "''"]),
    "negative seed": (["--seeds", "0,-1"], ["not negative", "0,-1"]),
    "a seed twice": (["--seeds", "0,1,0"], ["twice: seed 0"]),
    "a long text for seeds": (["--seeds", "9" * 5000], ["--seeds", "999…"]),
    "a seed beyond those of NumPy": (["--seeds", f"0,{2**32}"], ["seeds.2 = 4294967296"]),
}


@pytest.mark.parametrize(("options", "words"), LISTS.values(), ids=list(LISTS))
def test_a_wrong_list_of_experiments_or_seeds_is_refused(where, capsys, options, words):
    message = refusal(capsys, *reproduce(where, *options))
    assert all(word in message for word in words), message
    assert not list((where / "out").iterdir())


NOTHING = {
    "no experiment": ([], "Nothing is asked for: name experiments"),
    "negative seed": (["SF-CC/E", "--seed", "-1"], "Seeds are not negative; found '-1'"),
    "both ways": (["SF-CC/E", "--label", "CC=E"], "experiments and labels both say"),
    "unknown property": (["--label", "CC=F"], "Unknown value of labels.CC 'F'. Did you mean EF?"),
    "no property": (["--label", "CC"], "--label expects LEVEL=E, EF or EFS"),
    "strategy alone": (["SF-CC/E", "--strategy", "MF"], "strategy goes with labels"),
    "unknown strategy": (["--label", "CC=E", "--strategy", "MFX"], "experiment 'MFX-CC/E'"),
    "data as argument": ([__file__], "is a file, but no run file, whose name ends in .toml"),
    "test without a name": (["SF-CC/E", "--test", "a.h5"], "--test expects NAME=FILE"),
    "test with a bad name": (["SF-CC/E", "--test", "Mine=a.h5"], "'Mine' is no name"),
    "test twice": (["SF-CC/E", "--test", "a=a.h5", "--test", "a=b.h5"], "names a twice"),
    "level of a test twice": (
        ["SF-CC/E", "--test", "a=CC:a.xyz", "--test", "a=CC:b.xyz"],
        "names a twice",
    ),
    "test of no level": (["SF-CC/E", "--test", "a=CCC:a.xyz"], "Unknown level of theory 'CCC'"),
    "COMP6 twice": (["SF-CC/E", "--test", "comp6=a", "--comp6", "b"], "are the same test"),
    "the name of every run": (["SF-CC/E", "--test", "heldout=a.h5"], "choose another name"),
    "cut without COMP6": (
        ["SF-CC/E", "--data", "a.h5", "--energy-cut", "3"],
        "The test comp6 has no file; add --comp6 FILE",
    ),
}


@pytest.mark.parametrize(("arguments", "words"), NOTHING.values(), ids=list(NOTHING))
def test_a_request_that_cannot_be_meant_is_refused(where, capsys, monkeypatch, arguments, words):
    (where / "a.h5").write_bytes((where / "data.h5").read_bytes())
    monkeypatch.chdir(where)
    assert words in refusal(capsys, "train", *arguments, "--out", where / "out")
    assert not list((where / "out").iterdir())


def test_an_unknown_experiment_to_train_is_refused(where, capsys):
    message = refusal(capsys, "train", "MF-DZ/EF-CC", "--out", where / "out")
    assert "experiment 'MF-DZ/EF-CC'. Did you mean" in message
    assert not list((where / "out").iterdir())


TYPER = {
    "unknown command": ["retrain"],
    "unknown option": ["train", "SF-CC/E", "--seedz", "0"],
    "missing argument": ["evaluate"],
    "missing file argument": ["data", "info"],
    "no workers": ["reproduce", "--workers", "0"],
    "negative cut": ["train", "SF-CC/E", "--energy-cut", "-1"],
    "unknown metric": ["tables", "results", "--metric", "rms"],
    "results in a file": ["train", "SF-CC/E", "--out", __file__],
    "results nowhere": ["train", "SF-CC/E", "--out", ""],
    "data nowhere": ["train", "SF-CC/E", "--data", ""],
    "training files nowhere": ["train", "SF-CC/E", "--train", "CC=a.xyz", "--train", ""],
    "a run nowhere": ["evaluate", ""],
    "a folder nowhere": ["status", ""],
    "seeds twice": ["train", "SF-CC/E", "--seed", "1", "--seed", "2"],
    "seeds by both names": ["campaign", "--seeds", "1,2", "--seed", "3"],
    "data twice": ["train", "SF-CC/E", "--data", "a.xyz", "--data", "b.xyz"],
    "levels of a description twice": ["data", "info", "a.h5", "--levels", "a", "--levels", "b"],
    "a prediction in two places": [
        *("predict", "mini-ani1x", "a.xyz", "--level", "CC", "--out", "a.extxyz"),
        *("--out", "b.extxyz"),
    ],
}


@pytest.mark.parametrize("arguments", TYPER.values(), ids=list(TYPER))
def test_what_the_command_line_cannot_parse_is_refused_with_its_usage(
    tmp_path, monkeypatch, capsys, arguments
):
    monkeypatch.chdir(tmp_path)
    assert exit_code(*arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "Usage:" in said.err
    assert "Error" in said.err
    assert "Traceback" not in said.err
    assert not list(tmp_path.iterdir())


def prepared_run(where, **options):
    """The folder of a run of the files here with an untrained model, as if it were finished."""
    experiment = get_experiment("MF-DZ/EF-CC/E")
    overrides = {"n_features": 4, "n_atom_layers": 1}
    (settings,) = build_settings(
        [experiment], [0], data=where / "data.h5", overrides=overrides, **options
    )
    folder = RunFolder.of(where / "out", settings)
    folder.prepare(settings, facts={})
    model = build_model(settings.hyperparameters, experiment.resolved_labels)
    torch.save(model.parameters.state_dict(), folder.file("model.pt"))
    write_metrics(folder, run_metrics())
    return folder


@pytest.mark.parametrize("command", [train, reproduce], ids=["train", "reproduce"])
@pytest.mark.parametrize("finished", [True, False], ids=["finished", "unfinished"])
def test_results_of_other_settings_are_not_overwritten(where, capsys, command, finished):
    folder = prepared_run(where)
    if not finished:
        folder.file("metrics.json").unlink()
    before = files_below(where / "out")
    message = refusal(capsys, *command(where, "--label-fraction", "CC=0.5"))
    assert f"{folder.path} holds another run" in message
    assert "label_fractions" in message
    assert "Choose another --out" in message
    assert files_below(where / "out") == before


def test_a_folder_of_another_experiment_is_not_overwritten(where, capsys):
    folder = prepared_run(where)
    other = where / "out" / "runs" / "sf_cc_e" / "seed-0"
    other.parent.mkdir()
    shutil.copytree(folder.path, other)
    before = files_below(where / "out")
    command = ["train", "SF-CC/E", "--data", where / "data.h5", "--out", where / "out"]
    message = refusal(capsys, *command)
    assert "name: 'MF-DZ/EF-CC/E' → 'SF-CC/E'" in message
    assert files_below(where / "out") == before


def test_a_damaged_folder_is_not_overwritten(where, capsys):
    prepared_run(where).file("experiment.json").write_text('{"format": 1')
    before = files_below(where / "out")
    assert "experiment.json is not valid JSON" in refusal(capsys, *train(where))
    assert files_below(where / "out") == before


def changed_data(where, folder):
    planted.write_ani1x(where / "data.h5", 41)


def missing_data(where, folder):
    (where / "data.h5").unlink()


def changed_comp6(where, folder):
    planted.write_comp6(where / "comp6.h5", 7)


def no_model(where, folder):
    folder.file("model.pt").unlink()


def damaged_model(where, folder):
    folder.file("model.pt").write_bytes(b"PK")


def other_model(where, folder):
    torch.save({"network.weight": torch.zeros(3)}, folder.file("model.pt"))


def unfinished(where, folder):
    folder.file("metrics.json").unlink()


def newer(where, folder):
    stored = json.loads(folder.file("experiment.json").read_text())
    folder.file("experiment.json").write_text(json.dumps(stored | {"format": 3}))


def no_run(where, folder):
    shutil.rmtree(folder.path)


EVALUATIONS = {
    "data changed": (changed_data, [], ["data.h5 is not the file of this run", "--data"]),
    "data missing": (missing_data, [], ["No file", "data.h5"]),
    "COMP6 changed": (changed_comp6, [], ["comp6.h5 is not the file of this run", "--comp6"]),
    "no model": (no_model, [], ["No model in"]),
    "damaged model": (damaged_model, [], ["model.pt is not a model of this run"]),
    "another model": (other_model, [], ["model.pt is not a model of this run"]),
    "unfinished run": (unfinished, [], ["No metrics.json", "not a finished run"]),
    "newer format": (newer, [], ["run format 3", "reads format 2"]),
    "no run": (no_run, [], ["There is no folder", "OUT/runs/EXPERIMENT/seed-K"]),
    "unknown device": (lambda *_: None, ["--device", "tpu"], ["device 'tpu'"]),
    "other data": (lambda *_: None, ["--data", MINI_COMP6_KEYS], ["not the file of this run"]),
}


@pytest.mark.parametrize(("damage", "options", "words"), EVALUATIONS.values(), ids=[*EVALUATIONS])
def test_what_cannot_be_evaluated_again_keeps_its_results(where, capsys, damage, options, words):
    folder = prepared_run(where, comp6=where / "comp6.h5")
    damage(where, folder)
    before = files_below(where / "out")
    message = refusal(capsys, "evaluate", folder.path, *options)
    assert all(word in message for word in words), message
    assert files_below(where / "out") == before


def test_a_run_is_not_evaluated_on_comp6_that_it_cannot_be(where, capsys):
    folder = prepared_run(where)
    before = files_below(where / "out")
    truncated(where / "comp6.h5")
    assert exit_code("evaluate", folder.path, "--comp6", where / "comp6.h5") == 2
    assert "comp6.h5 is truncated" in capsys.readouterr().err
    assert files_below(where / "out") == before


def test_forces_of_coupled_cluster_that_the_data_lack_are_refused(tmp_path, ani1x_file):
    labels = parse_labels({"DZ": "EF", "CC": "EF"})
    message = (
        r"planted\.h5: the experiment needs forces of level CC, and there are none\. "
        r"Found: DZ/EF, TZ/EF, MP2/E, CC/E\. Unknown key 'ccsd\(t\)_cbs\.forces'"
    )
    with pytest.raises(UserError, match=message):
        load_splits(ani1x_file, labels, common_levels=(), rows="all", split_seed=0)
    path = planted.write_ani1x(tmp_path / "with.h5", 20, more_forces=planted.CC_FORCES)
    parts = load_splits(path, labels, common_levels=(), rows="all", split_seed=0)
    assert parts["train"].has_forces(CC).all()


@pytest.mark.parametrize("command", ["tables", "figures"])
def test_tables_and_figures_of_nothing_are_refused(where, capsys, command):
    message = refusal(capsys, command, where / "out")
    assert "No runs in" in message
    assert "hippynn-mf campaign --out" in message
    assert not list((where / "out").iterdir())


ABSENT = {"seed": (["--seeds", "7"], "seed 7"), "split": (["--split-seed", "5"], "split seed 5")}


@pytest.mark.parametrize(("options", "words"), ABSENT.values(), ids=list(ABSENT))
@pytest.mark.parametrize("command", ["tables", "figures"])
def test_tables_and_figures_of_seeds_that_no_run_has_are_refused(
    where, capsys, command, options, words
):
    prepared_run(where)
    before = files_below(where / "out")
    message = refusal(capsys, command, where / "out", "--partial", *options)
    assert f"No run has {words}. There are runs of 0." in message
    assert files_below(where / "out") == before


def test_a_page_that_is_not_named_as_html_is_refused(where, capsys):
    prepared_run(where)
    message = refusal(capsys, "report", where / "out", "--out", where / "page.pdf")
    assert "name it *.html" in message
    assert not (where / "page.pdf").exists()


READ = {
    "predict": ["predict", "mini-ani1x", "in.xyz", "--level", "CC", "--out", "in.xyz"],
    "torsion": ["torsion", "mini-ani1x", "in.png", "--dihedral", "0,1,2,3", "--out", "in.png"],
    "extract": ["extract", "in.safetensors", "--level", "CC", "--out", "in.safetensors"],
    "mliap": ["mliap", "in.pkl", "--level", "CC", "--out", "in.pkl"],
}


@pytest.mark.parametrize("arguments", READ.values(), ids=list(READ))
def test_what_is_read_is_not_replaced_by_what_is_made_of_it(where, capsys, monkeypatch, arguments):
    monkeypatch.chdir(where)
    source = where / arguments[-1]
    source.write_text("content")
    assert "is what is read" in refusal(capsys, *arguments, "--force")
    assert source.read_text() == "content"


@pytest.mark.parametrize("command", ["tables", "figures"])
def test_tables_and_figures_of_damaged_metrics_are_refused(where, capsys, command):
    prepared_run(where).file("metrics.json").write_text('{"heldout": {')
    before = files_below(where / "out")
    assert "metrics.json is not valid JSON" in refusal(capsys, command, where / "out")
    assert files_below(where / "out") == before


INFO = {
    "missing file": (missing_file, ["No file"]),
    "truncated": (truncated, ["data.h5 is truncated"]),
    "not HDF5": (not_hdf5, ["data.h5 is not an HDF5 file"]),
}


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize(("damage", "words"), INFO.values(), ids=list(INFO))
def test_a_file_that_cannot_be_described_is_refused(where, capsys, damage, words, options):
    damage(where / "data.h5")
    message = refusal(capsys, "data", "info", where / "data.h5", *options)
    assert all(word in message for word in words), message
