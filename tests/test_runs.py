import json
import subprocess
import sys

import numpy as np
import pytest
from made_runs import files_below, heldout_errors, make_run, make_settings, run_metrics

from hippynn_mf.errors import UserError
from hippynn_mf.hyperparameters import get_hyperparameters
from hippynn_mf.runs.folder import RunFolder, find_runs
from hippynn_mf.runs.settings import DataSource
from hippynn_mf.runs.train import write_results


@pytest.mark.parametrize("comp6", ["with COMP6", "without COMP6"])
def test_settings_come_back_from_the_run_folder_as_they_were(tmp_path, comp6):
    changes = {} if comp6 == "with COMP6" else {"comp6": None}
    overrides = {"species": [0, 1, 8], "scheduler": "plateau", "learning_rate": 3e-4}
    settings = make_settings(
        "MF-DZ/EF-CC/E",
        seed=3,
        hyperparameters=get_hyperparameters("quick", overrides),
        rows="all",
        **changes,
    )
    folder = RunFolder.of(tmp_path, settings)
    folder.prepare(settings, facts={"n_structures": {"train": 8}})
    assert folder.path == tmp_path / "runs" / "mf_dz_ef_cc_e" / "seed-3"
    assert folder.read_settings() == settings
    assert settings.differences(folder.read_settings()) == []
    assert json.loads(folder.file("experiment.json").read_text())["n_structures"] == {"train": 8}


def test_settings_give_back_their_experiment():
    experiment = make_settings("MF-DZ/EF-CC/E").experiment
    assert experiment.name == "MF-DZ/EF-CC/E"
    assert [level.label for level in experiment.common_levels] == ["DZ", "TZ", "MP2", "CC"]


HASH = "9" * 64
CHANGES = {
    "seed": ({"seed": 1}, ["seed: 0 → 1"]),
    "split seed": ({"split_seed": 7}, ["split_seed: 0 → 7"]),
    "rows": ({"rows": "all"}, ["rows: 'common' → 'all'"]),
    "preset": ({"preset": "paper"}, ["preset: 'quick' → 'paper'"]),
    "hyperparameters": (
        {"hyperparameters": get_hyperparameters("quick", {"batch_size": 8, "max_epochs": 9})},
        ["hyperparameters.batch_size: 32 → 8", "hyperparameters.max_epochs: 80 → 9"],
    ),
    "data": (
        {"data": DataSource(path="/data/made.h5", sha256=HASH)},
        [f"data.sha256: {'0123456789abcdef' * 4!r} → {HASH!r}"],
    ),
    "common levels": (
        {"common_levels": ["wb97x_dz"]},
        ["common_levels: ['wb97x_dz', 'wb97x_tz', 'mp2_tz', 'ccsd(t)_cbs'] → ['wb97x_dz']"],
    ),
    "one label less": ({"labels": {"wb97x_dz": "EF"}}, ["labels.ccsd(t)_cbs: 'E' → None"]),
    "other properties": (
        {"labels": {"wb97x_dz": "E", "ccsd(t)_cbs": "E"}},
        ["labels.wb97x_dz: 'EF' → 'E'"],
    ),
}


@pytest.mark.parametrize(("changes", "expected"), CHANGES.values(), ids=list(CHANGES))
def test_differences_name_what_changes_results(changes, expected):
    before = make_settings("MF-DZ/EF-CC/E")
    assert make_settings("MF-DZ/EF-CC/E", **changes).differences(before) == expected


def test_differences_name_the_cut_and_the_keys_of_comp6():
    before = make_settings("SF-CC/E")
    source = before.comp6.model_copy(
        update={"energy_cut_kcal_per_mol": 50.0, "keys": {"ccsd(t)_cbs": {"energy": "e"}}}
    )
    found = make_settings("SF-CC/E", comp6=source).differences(before)
    assert any("comp6.energy_cut_kcal_per_mol: 100.0 → 50.0" in text for text in found)
    assert any("comp6.keys" in text and "ccsd(t)_cbs" in text for text in found)
    assert len(found) == 2


def test_no_comp6_differs_from_some_comp6():
    before, after = make_settings("SF-CC/E"), make_settings("SF-CC/E", comp6=None)
    assert [text.split(":")[0] for text in after.differences(before)] == ["comp6"]
    assert [text.split(":")[0] for text in before.differences(after)] == ["comp6"]


def test_the_device_and_where_files_lie_make_no_difference():
    before = make_settings("SF-CC/E")
    elsewhere = {"path": "/mnt/elsewhere.h5"}
    after = make_settings(
        "SF-CC/E",
        device="cuda:1",
        data=before.data.model_copy(update=elsewhere),
        comp6=before.comp6.model_copy(update=elsewhere),
    )
    assert after != before
    assert after.differences(before) == []


def test_a_folder_is_prepared_again_for_the_same_settings_on_another_device(tmp_path):
    folder = make_run(tmp_path, "SF-CC/E", 0, None)
    folder.prepare(make_settings("SF-CC/E", device="cuda"), facts={})
    assert folder.read_settings().device == "cuda"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (make_settings("MF-DZ/EF-CC/E"), "name: 'SF-CC/E' → 'MF-DZ/EF-CC/E'"),
        (make_settings("SF-CC/E", split_seed=2), "split_seed: 0 → 2"),
    ],
    ids=["another experiment", "other settings"],
)
def test_a_folder_of_another_run_is_refused_and_left_as_it_is(tmp_path, other, message):
    folder = make_run(tmp_path, "SF-CC/E", 0, run_metrics())
    before = files_below(tmp_path)
    with pytest.raises(UserError, match=rf"seed-0 holds another run: .*{message}.*--out"):
        folder.prepare(other, facts={})
    assert files_below(tmp_path) == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "experiment.json is not valid JSON"),
        ("[]", "should hold a JSON object"),
        ('{"format": 2, "settings": {}}', "run format 2; this version.*reads format 1"),
        ('{"settings": {}}', "run format None"),
        ('{"format": 1}', "experiment.json is damaged"),
        ('{"format": 1, "settings": {"name": "SF-CC/E"}}', "experiment.json is damaged.*slug"),
    ],
    ids=["half a file", "a list", "newer format", "no format", "no settings", "lost settings"],
)
def test_a_damaged_or_newer_folder_is_a_clear_error(tmp_path, content, message):
    folder = make_run(tmp_path, "SF-CC/E", 0, None)
    folder.file("experiment.json").write_text(content)
    with pytest.raises(UserError, match=f"(?s){message}") as error:
        folder.read_settings()
    assert str(folder.path) in str(error.value)
    with pytest.raises(UserError, match=f"(?s){message}"):
        folder.prepare(make_settings("SF-CC/E"), facts={})


def test_a_folder_without_experiment_is_a_clear_error(tmp_path):
    with pytest.raises(UserError, match=f"No experiment.json in {tmp_path}"):
        RunFolder(tmp_path).read_settings()


def test_a_run_is_finished_when_its_metrics_are_there(tmp_path):
    folder = make_run(tmp_path, "SF-CC/E", 0, None)
    assert not folder.is_finished
    metrics = run_metrics({"ccsd(t)_cbs": heldout_errors(1.25)})
    folder.write_metrics(metrics)
    assert folder.is_finished
    assert folder.read_metrics() == metrics


def test_metrics_are_written_after_the_predictions(tmp_path, monkeypatch):
    folder = make_run(tmp_path, "SF-CC/E", 0, None)

    def killed(*arguments, **arrays):
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", killed)
    with pytest.raises(KeyboardInterrupt):
        write_results(folder, {"heldout": {}}, {"heldout.rows": np.arange(2)})
    assert not folder.is_finished


def test_metrics_that_are_not_numbers_are_never_written(tmp_path):
    folder = make_run(tmp_path, "SF-CC/E", 0, run_metrics())
    with pytest.raises(UserError, match=r"energy_rmse_kcal_per_mol: .*finite.*found nan"):
        folder.write_metrics(run_metrics({"ccsd(t)_cbs": heldout_errors(float("nan"))}))
    assert folder.read_metrics() == run_metrics()
    assert sorted(files_below(folder.path)) == ["experiment.json", "metrics.json"]


def test_epochs_are_counted_while_they_are_written(tmp_path):
    folder = make_run(tmp_path, "SF-CC/E", 0, None)
    assert folder.n_epochs == 0
    with folder.file("epochs.jsonl").open("w") as stream:
        stream.write('{"epoch": 0}\n{"epoch": 1}\n{"ep')
    assert folder.n_epochs == 2


def test_runs_are_found_by_their_settings_finished_or_not(tmp_path):
    first = make_run(tmp_path, "SF-CC/E", 1, run_metrics())
    second = make_run(tmp_path, "MF-DZ/EF-CC/E", 0, None)
    (tmp_path / "runs" / "sf_cc_e" / "seed-9").mkdir()
    assert find_runs(tmp_path) == [second, first]
    assert find_runs(tmp_path / "nowhere") == []


def test_a_folder_that_another_process_trains_in_is_refused(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from hippynn_mf.runs.folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).locked():\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="Another process is training"), locked(tmp_path):
            pass
        holder.kill()
    with locked(tmp_path):  # freed by the operating system
        pass


def locked(path):
    return RunFolder(path).locked()
