import json
import multiprocessing
import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from made_runs import TINY, TINY_OPTIONS, files_below, run_metrics

from hippynn_mf import levels
from hippynn_mf.campaign import LocalPool, Outcome, in_process, run_campaign, start_worker
from hippynn_mf.errors import UserError
from hippynn_mf.experiment import get_experiment
from hippynn_mf.runs import RunFolder
from hippynn_mf.settings import build_settings

NAMES = ("SF-CC/E", "MF-DZ/EF-CC/E", "SF-DZ/E")
# Tiny runs are faster without compiling kernels for each worker process.
NO_COMPILER = {"HIPPYNN_USE_CUSTOM_KERNELS": "false", "TORCHDYNAMO_DISABLE": "1"}


class FakeEngine:
    """Finishes runs without training, the last first; those named in `failing` fail."""

    def __init__(self, failing=()):
        self.failing = failing
        self.started = []

    def __call__(self, runs, out):
        for settings in reversed(runs):
            self.started.append((settings.name, settings.seed))
            if settings.name in self.failing:
                yield Outcome(settings, "planted failure")
                continue
            folder = RunFolder.of(out, settings)
            folder.prepare(settings, facts={})
            folder.write_metrics(run_metrics())
            yield Outcome(settings, None)


def settings_for(data, names=NAMES, seeds=(0,), **options):
    experiments = [get_experiment(name) for name in names]
    return build_settings(experiments, seeds, data=data, overrides=TINY, **options)


def test_settings_of_many_runs_have_the_seeds_outermost(ani1x_file):
    runs = settings_for(ani1x_file, NAMES[:2], seeds=(3, 1))
    assert [(run.name, run.seed) for run in runs] == [
        ("SF-CC/E", 3),
        ("MF-DZ/EF-CC/E", 3),
        ("SF-CC/E", 1),
        ("MF-DZ/EF-CC/E", 1),
    ]
    assert (
        len({run.model_dump_json(exclude={"name", "slug", "labels", "seed"}) for run in runs}) == 1
    )


def test_outcomes_are_in_the_order_of_the_runs_whatever_the_engine_does(ani1x_file, tmp_path):
    runs = settings_for(ani1x_file, seeds=(0, 1))
    outcomes = run_campaign(runs, tmp_path / "out", engine=FakeEngine(), progress=False)
    assert outcomes == [Outcome(run, None) for run in runs]


def test_finished_runs_are_not_given_to_the_engine_again(ani1x_file, tmp_path):
    runs = settings_for(ani1x_file)
    run_campaign(runs[1:2], tmp_path, engine=FakeEngine(), progress=False)
    before = files_below(tmp_path)
    engine = FakeEngine()
    outcomes = run_campaign(runs, tmp_path, engine=engine, progress=False)
    assert engine.started == [("SF-DZ/E", 0), ("SF-CC/E", 0)]
    assert outcomes == [Outcome(run, None) for run in runs]
    assert before.items() <= files_below(tmp_path).items()


def test_an_unfinished_run_is_executed_again(ani1x_file, tmp_path):
    (run,) = settings_for(ani1x_file, NAMES[:1])
    RunFolder.of(tmp_path, run).prepare(run, facts={})
    engine = FakeEngine()
    run_campaign([run], tmp_path, engine=engine, progress=False)
    assert engine.started == [("SF-CC/E", 0)]


def test_a_finished_campaign_needs_neither_engine_nor_data(ani1x_file, tmp_path):
    runs = settings_for(ani1x_file)
    run_campaign(runs, tmp_path / "out", engine=FakeEngine(), progress=False)
    ani1x_file.unlink()
    engine = FakeEngine()
    outcomes = run_campaign(runs, tmp_path / "out", engine=engine, progress=False)
    assert not engine.started
    assert [outcome.error for outcome in outcomes] == [None, None, None]


def test_a_failing_run_is_reported_and_the_others_go_on(ani1x_file, tmp_path, capsys):
    runs = settings_for(ani1x_file)
    engine = FakeEngine(failing=["MF-DZ/EF-CC/E"])
    outcomes = run_campaign(runs, tmp_path, engine=engine)
    assert [outcome.error for outcome in outcomes] == [None, "planted failure", None]
    assert len(engine.started) == 3
    assert "failed: MF-DZ/EF-CC/E, seed 0: planted failure" in capsys.readouterr().err


def test_the_progress_bar_counts_finished_runs_and_ends_its_line(ani1x_file, tmp_path, capsys):
    run_campaign(settings_for(ani1x_file), tmp_path, engine=FakeEngine())
    bar = capsys.readouterr().err
    assert bar.endswith("100% |██████████| 00:00 < 00:00, 3 of 3 runs finished\n")


def test_a_run_that_is_asked_for_twice_is_refused(ani1x_file, tmp_path):
    (run,) = settings_for(ani1x_file, NAMES[:1])
    engine = FakeEngine()
    with pytest.raises(UserError, match="Run sf_cc_e, seed 0 is asked for twice"):
        run_campaign([run, run], tmp_path / "out", engine=engine, progress=False)
    assert not engine.started


def test_other_settings_in_a_folder_are_refused_before_anything_starts(ani1x_file, tmp_path):
    runs = settings_for(ani1x_file)
    run_campaign(runs[2:], tmp_path, engine=FakeEngine(), progress=False)
    before = files_below(tmp_path)
    engine = FakeEngine()
    with pytest.raises(UserError, match=r"sf_dz_e/seed-0 holds another run: split_seed: 0 → 1"):
        run_campaign(settings_for(ani1x_file, split_seed=1), tmp_path, engine=engine)
    assert not engine.started
    assert files_below(tmp_path) == before


def test_data_that_one_of_the_runs_cannot_use_are_refused_before_anything_starts(tmp_path):
    from planted import write_ani1x

    missing = {
        name: {"ccsd(t)_cbs.energy": slice(None)} for name in ("H2O", "CH4", "H3N", "CHN", "N2")
    }
    data = write_ani1x(tmp_path / "no-cc.h5", missing=missing)
    engine = FakeEngine()
    with pytest.raises(UserError, match=r"level ccsd\(t\)_cbs \(CC\) has no energy label"):
        run_campaign(settings_for(data, rows="all"), tmp_path / "out", engine=engine)
    assert not engine.started
    run_campaign(settings_for(data, ["SF-DZ/E"], rows="all"), tmp_path / "out", engine=engine)
    assert engine.started == [("SF-DZ/E", 0)]


def test_an_unexpected_error_in_a_run_is_an_outcome_too(ani1x_file, tmp_path, monkeypatch, caplog):
    def broken(settings, out):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr("hippynn_mf.running.train_run", broken)
    runs = settings_for(ani1x_file)
    outcomes = run_campaign(runs, tmp_path / "out", engine=in_process, progress=False)
    assert [outcome.error for outcome in outcomes] == ["ZeroDivisionError: planted"] * 3
    assert "SF-CC/E, seed 0" in caplog.text  # with its traceback


def test_a_local_pool_trains_runs_and_reports_those_that_fail(ani1x_file, tmp_path, monkeypatch):
    for name, value in NO_COMPILER.items():
        monkeypatch.setenv(name, value)
    runs = settings_for(ani1x_file, NAMES[:1], seeds=(0, 1))
    overrides = runs[0].hyperparameters.model_copy(update={"learning_rate": 1e30})
    runs[0] = runs[0].model_copy(update={"hyperparameters": overrides})
    first, second = run_campaign(runs, tmp_path, engine=LocalPool(2), progress=False)
    assert "Training diverged in epoch 1" in first.error
    assert second.error is None
    assert not RunFolder.of(tmp_path, runs[0]).is_finished
    metrics = RunFolder.of(tmp_path, runs[1]).read_metrics()
    assert metrics["heldout"]["ccsd(t)_cbs"]["energy_rmse_kcal_per_mol"] > 0


def wait_until(condition, seconds):
    stop = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < stop, "waited too long"
        time.sleep(0.05)


def descendants(pid):
    """Process ids of the children of a process, and of theirs."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads children from /proc")
def test_a_killed_campaign_takes_its_workers_along_and_continues(ani1x_file, tmp_path):
    out = tmp_path / "out"
    options = ["--out", str(out), "--data", str(ani1x_file), "--workers", "1", "--seeds", "0"]
    names = ["--experiments", "SF-CC/E,SF-DZ/E", *TINY_OPTIONS, "--set", "max_epochs=25"]
    command = [sys.executable, "-c", "from hippynn_mf.cli import main; main()", "reproduce"]
    command += [*options, *names]
    environment = os.environ | NO_COMPILER
    done, going = (out / "runs" / slug / "seed-0" for slug in ("sf_cc_e", "sf_dz_e"))

    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as campaign:
        wait_until(lambda: (going / "epochs.jsonl").exists() or campaign.poll() is not None, 120)
        workers = descendants(campaign.pid)
        campaign.kill()
    assert workers
    wait_until(lambda: not any(is_running(pid) for pid in workers), 10)
    assert (done / "metrics.json").exists()
    assert not (going / "metrics.json").exists()
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in done.iterdir()}

    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert before == {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in done.iterdir()}
    epochs = [
        json.loads(line)["epoch"] for line in (going / "epochs.jsonl").read_text().splitlines()
    ]
    assert epochs == list(range(25))  # from the start, not appended to the killed run's
    assert (going / "metrics.json").exists()
    assert "| SF-CC/E | 1 |" in (out / "tables" / "table4.md").read_text()
    assert (out / "figures" / "figure3.png").exists()
    assert not [path for path in out.rglob("*") if path.name.endswith(".partial")]


def test_workers_know_the_levels_of_their_parent(monkeypatch):
    monkeypatch.setattr("hippynn_mf.levels._REGISTRY", dict(levels._REGISTRY))
    own = levels.Level(
        "hf_tz", "HF", "HF", "cc-pVTZ", 15.0, ("hf_tz.energy",), self_energies={1: -0.5}
    )
    levels.register_level(own)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        1, mp_context=context, initializer=start_worker, initargs=(1, levels.known_levels())
    ) as pool:
        found = pool.submit(levels.get_level, "HF").result()
    assert found == own
    assert found.self_energies == own.self_energies
