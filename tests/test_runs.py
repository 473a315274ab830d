import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_runs import (
    CC_FORCES,
    COMP6,
    files_below,
    heldout_errors,
    make_run,
    make_settings,
    run_metrics,
    write_metrics,
)
from pydantic import ValidationError

from hippynn_mf.errors import UserError
from hippynn_mf.hyperparameters import get_hyperparameters
from hippynn_mf.level_records import LevelRecord
from hippynn_mf.levels import PAPER_LEVELS, Level
from hippynn_mf.paper.choice import EMBEDDED_EDITIONS
from hippynn_mf.runs.folder import RunFolder, find_runs
from hippynn_mf.runs.same_run import refuse_other_run
from hippynn_mf.runs.sources import DataSource, TestSource

OWN = Level("gfn2", "GFN2", "GFN2-xTB", "minimal", 5.0, ("gfn2.energy",), self_energies={1: -0.4})
OWN_RUN = {
    "labels": {"gfn2": "E", "ccsd(t)_cbs": "E"},
    "name": "MF-GFN2/E-CC/E",
    "slug": "mf_gfn2_e_cc_e",
    "levels": tuple(LevelRecord.of(level) for level in (OWN, *PAPER_LEVELS)),
    "tests": (TestSource(name="own", path={"gfn2": "/data/a.xyz"}, sha256="3" * 64),),
}


@pytest.mark.parametrize(
    "changes",
    [{}, {"tests": ()}, {"tests": (COMP6, CC_FORCES)}],
    ids=["COMP6", "no test", "two tests"],
)
def test_settings_come_back_from_the_run_folder_as_they_were(tmp_path, changes):
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
    assert list(settings.labels) == ["wb97x_dz", "ccsd(t)_cbs"]
    assert settings.differences(folder.read_settings()) == []
    assert json.loads(folder.file("experiment.json").read_text())["n_structures"] == {"train": 8}


def test_settings_give_back_their_experiment():
    experiment = make_settings("MF-DZ/EF-CC/E").experiment
    assert experiment.name == "MF-DZ/EF-CC/E"
    assert [level.label for level in experiment.common_levels] == ["DZ", "TZ", "MP2", "CC"]


def test_a_run_brings_its_own_levels_and_nothing_else_learns_of_them(tmp_path):
    folder = make_run(tmp_path, "MF-DZ/E-CC/E", 0, None, **OWN_RUN)
    settings = folder.read_settings()
    assert settings.known.get("GFN2") == OWN
    assert settings.known.get("gfn2").self_energies == {1: -0.4}
    assert settings.experiment.name == "MF-GFN2/E-CC/E"
    assert next(iter(settings.experiment.resolved_labels)) == OWN
    assert settings.test("own").path == {"gfn2": Path("/data/a.xyz")}
    with pytest.raises(UserError, match="Unknown level of theory 'GFN2'"):
        make_settings("MF-DZ/E-CC/E").known.get("GFN2")


def test_the_strategy_is_a_field_and_not_read_from_the_name():
    settings = make_settings("TL-DZ/EF-CC/E", name="whatever")
    assert settings.experiment.strategy.prefix == "TL"
    assert len(settings.experiment.phases) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": {"gfn2": "E"}}, "no record of level gfn2 among .*wb97x_dz"),
        ({"common_levels": ("gfn2",)}, "no record of level gfn2"),
        ({"tests": (COMP6, COMP6)}, "a test set is there twice: comp6, comp6"),
        ({"tests": (COMP6.model_copy(update={"name": "data"}),)}, "no test set is named data"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        make_settings("SF-CC/E", **changes)


HASH = "9" * 64
OTHER_CC = LevelRecord.of(PAPER_LEVELS[3]).model_copy(update={"basis": "DZ"})
CHANGES = {
    "seed": ({"seed": 1}, ["seed: 0 → 1"]),
    "split seed": ({"split_seed": 7}, ["split_seed: 0 → 7"]),
    "rows": ({"rows": "all"}, ["rows: 'common' → 'all'"]),
    "preset": ({"preset": "paper"}, ["preset: 'quick' → 'paper'"]),
    "hyperparameters": (
        {"hyperparameters": get_hyperparameters("quick", {"batch_size": 8, "max_epochs": 9})},
        ["hyperparameters.batch_size: 32 → 8", "hyperparameters.max_epochs: 80 → 9"],
    ),
    "weights": (
        {"weights": {"wb97x_dz": {"forces": 4.0}}},
        ["weights.wb97x_dz: None → {'forces': 4.0}"],
    ),
    "data": (
        {"data": DataSource(path="/data/made.h5", sha256=HASH)},
        [f"data.sha256: {EMBEDDED_EDITIONS[-1]!r} → {HASH!r}"],
    ),
    "common levels": (
        {"common_levels": ("wb97x_dz",)},
        ["common_levels: ['wb97x_dz', 'wb97x_tz', 'mp2_tz', 'ccsd(t)_cbs'] → ['wb97x_dz']"],
    ),
    "one label less": ({"labels": {"wb97x_dz": "EF"}}, ["labels.ccsd(t)_cbs: 'E' → None"]),
    "other properties": (
        {"labels": {"wb97x_dz": "E", "ccsd(t)_cbs": "E"}},
        ["labels.wb97x_dz: 'EF' → 'E'"],
    ),
    "strategy": ({"strategy": "TL"}, ["strategy: 'MF' → 'TL'"]),
    "no COMP6": ({"tests": ()}, ["tests.comp6: 'comp6.h5' → None"]),
    "one test more": (
        {"tests": (CC_FORCES, COMP6)},
        ["tests.cc-forces: None → 'cc-forces.h5'"],
    ),
    "another test of the name": (
        {"tests": (COMP6.model_copy(update={"energy_cut_kcal_per_mol": 50.0, "sha256": HASH}),)},
        [
            f"tests.comp6.sha256: {'fedcba9876543210' * 4!r} → {HASH!r}",
            "tests.comp6.energy_cut_kcal_per_mol: 100.0 → 50.0",
        ],
    ),
    "another level of the name": (
        {"levels": (*(LevelRecord.of(level) for level in PAPER_LEVELS[:3]), OTHER_CC)},
        ["levels.ccsd(t)_cbs: basis is 'DZ', not 'CBS'"],
    ),
    "one level more": ({"levels": OWN_RUN["levels"]}, []),
}


@pytest.mark.parametrize(("changes", "expected"), CHANGES.values(), ids=list(CHANGES))
def test_differences_name_what_changes_results(changes, expected):
    before = make_settings("MF-DZ/EF-CC/E")
    assert make_settings("MF-DZ/EF-CC/E", **changes).differences(before) == expected


def test_differences_name_the_keys_of_comp6():
    before = make_settings("SF-CC/E")
    source = COMP6.model_copy(update={"keys": {"ccsd(t)_cbs": {"energy": "e"}}})
    (found,) = make_settings("SF-CC/E", tests=(source,)).differences(before)
    assert found.startswith("tests.comp6.keys: {'wb97x_dz'")
    assert found.endswith("→ {'ccsd(t)_cbs': {'energy': 'e'}}")


def test_the_device_and_where_files_lie_make_no_difference():
    before = make_settings("SF-CC/E")
    elsewhere = {"path": "/mnt/elsewhere.h5"}
    after = make_settings(
        "SF-CC/E",
        device="cuda:1",
        data=before.data.model_copy(update=elsewhere),
        tests=(COMP6.model_copy(update=elsewhere),),
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
        refuse_other_run(folder, other)
    assert files_below(tmp_path) == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "experiment.json is not valid JSON"),
        ("[]", "should hold a JSON object"),
        ('{"format": 3, "settings": {}}', "run format 3; this version.*reads format 2. Choose"),
        ('{"format": 1, "settings": {}}', r"reads format 2. 'python scripts/convert_runs\.py DIR'"),
        ('{"settings": {}}', "run format None"),
        ('{"format": 2}', "experiment.json is damaged"),
        ('{"format": 2, "settings": {"name": "SF-CC/E"}}', "experiment.json is damaged: strategy"),
    ],
    ids=["half", "a list", "newer format", "older", "no format", "no settings", "lost settings"],
)
def test_a_damaged_or_newer_folder_is_a_clear_error(tmp_path, content, message):
    folder = make_run(tmp_path, "SF-CC/E", 0, None)
    folder.file("experiment.json").write_text(content)
    with pytest.raises(UserError, match=f"(?s){message}") as error:
        folder.read_settings()
    assert str(folder.path) in str(error.value)
    with pytest.raises(UserError, match=f"(?s){message}"):
        refuse_other_run(folder, make_settings("SF-CC/E"))


def test_a_folder_without_experiment_is_a_clear_error(tmp_path):
    with pytest.raises(UserError, match=f"No experiment.json in {tmp_path}"):
        RunFolder(tmp_path).read_settings()


def test_a_run_is_finished_when_its_metrics_are_there(tmp_path):
    folder = make_run(tmp_path, "SF-CC/E", 0, None)
    assert not folder.is_finished
    metrics = run_metrics({"ccsd(t)_cbs": heldout_errors(1.25)})
    write_metrics(folder, metrics)
    assert folder.is_finished
    assert folder.read_metrics() == metrics


NO_COSTS = {"training": None, "inference": None}


def test_metrics_are_written_after_the_predictions(tmp_path, monkeypatch):
    folder = make_run(tmp_path, "SF-CC/E", 0, None)

    def killed(*arguments, **arrays):
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", killed)
    with pytest.raises(KeyboardInterrupt):
        folder.write_results({"heldout": {}}, {"heldout.rows": np.arange(2)}, **NO_COSTS)
    assert not folder.is_finished
    assert sorted(files_below(folder.path)) == ["experiment.json"]


class Killed(BaseException):
    """Stands for the end of the process."""


def kill_after(monkeypatch, n_renames):
    """Let a process end after so many files have taken their places."""
    replace, done = os.replace, []

    def rename(*paths):
        if len(done) == n_renames:
            raise Killed
        done.append(paths)
        replace(*paths)

    monkeypatch.setattr(os, "replace", rename)


def evaluated_run(tmp_path):
    """A finished run with COMP6, and its settings with a further test set."""
    folder = make_run(tmp_path, "SF-CC/E", 0, None)
    errors = {"heldout": {}, "comp6": {}}
    folder.write_results(errors, {"heldout.rows": np.arange(2)}, **NO_COSTS)
    return folder, folder.read_settings().with_tests([CC_FORCES])


def write_again(folder, settings):
    errors = {name: {} for name in ("heldout", *settings.sources) if name != "data"}
    arrays = {"heldout.rows": np.arange(3)}
    folder.write_results(errors, arrays, settings=settings, **NO_COSTS)


@pytest.mark.parametrize("n_renames", [0, 1, 2, 3])
def test_an_evaluation_that_is_killed_leaves_no_mixture_unnoticed(tmp_path, monkeypatch, n_renames):
    folder, settings = evaluated_run(tmp_path)
    before = files_below(folder.path)
    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        kill_after(patch, n_renames)
        write_again(folder, settings)
    is_old, is_new = n_renames == 0, n_renames == 3
    if is_old:
        assert files_below(folder.path) == before
    remedy = rf"evaluation was interrupted\. 'hippynn-mf evaluate {folder.path}' makes both again"
    if is_old or is_new:
        assert len(folder.read_predictions()["heldout.rows"]) == (3 if is_new else 2)
        assert ("cc-forces" in folder.read_metrics()["sets"]) is is_new
        assert (folder.read_settings() == settings) is is_new
    else:
        with pytest.raises(UserError, match=rf"predictions\.npz is not what .*{remedy}"):
            folder.read_predictions()
    if n_renames == 1:  # errors and settings are still those of before
        assert list(folder.read_metrics()["sets"]) == ["heldout", "comp6"]
    if n_renames == 2:
        match = rf"errors on heldout, comp6, and experiment\.json names .*, cc-forces: .*{remedy}"
        with pytest.raises(UserError, match=match):
            folder.read_metrics()
    assert folder.read_costs() == NO_COSTS
    write_again(folder, settings)  # what the remedy does
    assert list(folder.read_metrics()["sets"]) == ["heldout", "comp6", "cc-forces"]
    assert len(folder.read_predictions()["heldout.rows"]) == 3


def test_metrics_that_are_not_numbers_are_never_written(tmp_path):
    folder = make_run(tmp_path, "SF-CC/E", 0, run_metrics())
    sets = run_metrics({"ccsd(t)_cbs": heldout_errors(float("nan"))})["sets"]
    with pytest.raises(UserError, match=r"energy_rmse_kcal_per_mol: .*finite.*found nan"):
        folder.write_results(sets, {"heldout.rows": np.arange(3)}, **NO_COSTS)
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
