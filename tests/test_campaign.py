import io
import os
import pickle
import sys
from collections import Counter
from concurrent.futures import BrokenExecutor, Future
from contextlib import contextmanager
from pathlib import Path

import pytest
from made_runs import NO_COMPILER, TINY, build_settings, files_below, run_metrics, write_metrics
from planted import write_ani1x

from hippynn_mf.campaign.blocks import NoWorkersError
from hippynn_mf.campaign.campaign import execute_in_worker, run_campaign
from hippynn_mf.campaign.engines import LocalPool, ParslSite
from hippynn_mf.campaign.lease import owned
from hippynn_mf.errors import UserError
from hippynn_mf.paper.table1 import get_experiment
from hippynn_mf.runs import build
from hippynn_mf.runs.execute import Outcome, run_here
from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.runs.request import Request
from hippynn_mf.runs.settings import RunSettings
from hippynn_mf.runs.train import train_run

NAMES = ("SF-CC/E", "MF-DZ/EF-CC/E", "SF-DZ/E")


class FakeEngine:
    """Finishes runs without training, the last first.

    Those named in `failing` fail; `losses` says how often the worker of an experiment is lost, and
    `n_epochs` how many epochs each attempt leaves behind.
    """

    n_threads = 1

    def __init__(self, failing=(), losses=None, n_epochs=0, error=RuntimeError, n_at_once=None):
        self.failing = failing
        self.losses = dict(losses or {})
        self.n_epochs = n_epochs
        self.error = error
        self.n_at_once = n_at_once
        self.started = []
        self.n_opened = 0

    @contextmanager
    def open(self, out):
        self.n_opened += 1
        self.is_broken = False
        yield self

    def submit(self, function, settings_json, out, owner, n_threads):
        assert function is execute_in_worker
        assert n_threads == 1
        assert owner.is_alive(Path(out))
        if self.is_broken:
            raise BrokenExecutor
        settings = RunSettings.model_validate_json(settings_json)
        self.started.append((settings.name, settings.seed))
        folder = RunFolder.of(Path(out), settings)
        folder.prepare(settings, facts={})
        future = Future()
        if self.losses.get(settings.name, 0):
            self.losses[settings.name] -= 1
            for _ in range(self.n_epochs):
                folder.append_epoch({})
            self.is_broken = issubclass(self.error, BrokenExecutor)
            future.set_exception(self.error("planted loss"))
        elif settings.name in self.failing:
            future.set_result("planted failure")
        else:
            write_metrics(folder, run_metrics())
            future.set_result(None)
        return future


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
    of_experiment = {"name", "strategy", "slug", "labels", "seed"}
    assert len({run.model_dump_json(exclude=of_experiment) for run in runs}) == 1


def test_outcomes_are_in_the_order_of_the_runs_whatever_finishes_first(ani1x_file, tmp_path):
    runs = settings_for(ani1x_file, seeds=(0, 1))
    outcomes = run_campaign(runs, tmp_path / "out", engine=FakeEngine(), progress=False)
    assert outcomes == [Outcome(run, None) for run in runs]


def test_finished_runs_are_not_given_to_the_engine_again(ani1x_file, tmp_path):
    runs = settings_for(ani1x_file)
    run_campaign(runs[1:2], tmp_path, engine=FakeEngine(), progress=False)
    before = files_below(tmp_path / "runs")
    engine = FakeEngine()
    outcomes = run_campaign(runs, tmp_path, engine=engine, progress=False)
    assert engine.started == [("SF-CC/E", 0), ("SF-DZ/E", 0)]
    assert outcomes == [Outcome(run, None) for run in runs]
    assert before.items() <= files_below(tmp_path / "runs").items()


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


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def test_the_progress_bar_counts_finished_runs_and_ends_its_line(ani1x_file, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    run_campaign(settings_for(ani1x_file), tmp_path, engine=FakeEngine())
    bar = sys.stderr.getvalue()
    assert bar.endswith("100% |██████████| 00:00 < 00:00, 3 of 3 runs finished\n")


def test_without_a_terminal_progress_is_a_line(ani1x_file, tmp_path, capsys):
    run_campaign(settings_for(ani1x_file), tmp_path, engine=FakeEngine())
    said = capsys.readouterr().err
    assert said == "100 % trained, 3 of 3 runs finished, after 0 min 00 s\n"


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
    with pytest.raises(
        UserError, match=r"sf_dz_e/seed-0 holds another run: rows: 'all' → 'common'"
    ):
        run_campaign(settings_for(ani1x_file, rows="common"), tmp_path, engine=engine)
    assert not engine.started
    assert files_below(tmp_path) == before


def test_a_file_that_changes_while_a_campaign_runs_is_refused(ani1x_file, tmp_path):
    runs = settings_for(ani1x_file, NAMES[:1])
    content = ani1x_file.read_bytes()
    write_ani1x(ani1x_file, 41)
    with pytest.raises(UserError, match=r"has changed since the campaign began: its SHA-256"):
        train_run(runs[0], tmp_path)
    assert not RunFolder.of(tmp_path, runs[0]).path.exists()
    ani1x_file.write_bytes(content)
    assert train_run(runs[0], tmp_path).is_finished


def test_a_file_that_has_changed_since_a_campaign_began_is_refused(ani1x_file, tmp_path):
    runs = settings_for(ani1x_file)
    run_campaign(runs[:1], tmp_path, engine=FakeEngine(), progress=False)
    write_ani1x(ani1x_file, 41)
    engine = FakeEngine()
    with pytest.raises(UserError, match=r"has changed since .*sf_cc_e/seed-0 began: its SHA-256"):
        run_campaign(settings_for(ani1x_file), tmp_path, engine=engine, progress=False)
    assert not engine.started


def test_data_that_one_of_the_runs_cannot_use_are_refused_before_anything_starts(tmp_path):
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


@pytest.mark.parametrize("error", [RuntimeError, BrokenExecutor])
@pytest.mark.parametrize("n_at_once", [None, 2])
def test_a_run_whose_worker_is_lost_is_given_to_another(
    ani1x_file, tmp_path, capsys, error, n_at_once
):
    runs = settings_for(ani1x_file)
    engine = FakeEngine(losses={"SF-CC/E": 1}, error=error, n_at_once=n_at_once)
    outcomes = run_campaign(runs, tmp_path, engine=engine)
    assert [outcome.error for outcome in outcomes] == [None, None, None]
    assert Counter(engine.started) == {(n, 0): 1 + (n == "SF-CC/E") for n in NAMES}
    assert engine.n_opened == (2 if error is BrokenExecutor else 1)
    said = capsys.readouterr().err
    assert f"SF-CC/E, seed 0: its worker was lost ({error.__name__}: planted loss)" in said


def test_a_run_that_loses_every_worker_without_an_epoch_fails(ani1x_file, tmp_path):
    engine = FakeEngine(losses={"SF-CC/E": 99})
    runs = settings_for(ani1x_file)
    outcomes = run_campaign(runs, tmp_path, engine=engine, progress=False)
    assert outcomes[0].error.endswith("3 times without a new epoch")
    assert [outcome.error for outcome in outcomes[1:]] == [None, None]
    assert engine.started.count(("SF-CC/E", 0)) == 3


def test_a_run_that_makes_progress_may_lose_any_number_of_workers(ani1x_file, tmp_path):
    engine = FakeEngine(losses={"SF-CC/E": 9}, n_epochs=1)
    runs = settings_for(ani1x_file, NAMES[:1])
    (outcome,) = run_campaign(runs, tmp_path, engine=engine, progress=False)
    assert outcome.error is None
    assert engine.started.count(("SF-CC/E", 0)) == 10


def test_an_engine_that_is_always_broken_is_said(ani1x_file, tmp_path):
    class Broken(FakeEngine):
        def submit(self, *arguments):
            raise BrokenExecutor("planted refusal")

    engine = Broken()
    with pytest.raises(UserError, match=r"broke 3 times before it took a run .*planted refusal"):
        run_campaign(settings_for(ani1x_file), tmp_path, engine=engine, progress=False)
    assert engine.n_opened == 3


def test_a_campaign_whose_engine_gets_no_workers_ends_by_one_message(ani1x_file, tmp_path, capsys):
    engine = FakeEngine(losses={"SF-DZ/E": 1, "SF-CC/E": 1}, error=NoWorkersError)
    with pytest.raises(UserError, match="planted loss"):
        run_campaign(settings_for(ani1x_file), tmp_path, engine=engine, progress=False)
    assert engine.n_opened == 1
    assert "its worker was lost" not in capsys.readouterr().err
    outcomes = run_campaign(settings_for(ani1x_file), tmp_path, engine=FakeEngine())
    assert [outcome.error for outcome in outcomes] == [None, None, None]


def test_no_more_runs_are_handed_over_than_the_engine_takes(ani1x_file, tmp_path):
    class Counting(FakeEngine):
        pending = 0

        def submit(self, *arguments):
            future = super().submit(*arguments)
            self.pending += 1
            assert self.pending <= self.n_at_once
            future.result = lambda timeout=None: self.done()
            return future

        def done(self):
            self.pending -= 1

    engine = Counting(n_at_once=1)
    run_campaign(settings_for(ani1x_file), tmp_path, engine=engine, progress=False)
    assert len(engine.started) == 3


def test_a_second_campaign_in_the_same_folder_is_refused(ani1x_file, tmp_path):
    runs = settings_for(ani1x_file)

    class Second(FakeEngine):
        def submit(self, *arguments):
            with pytest.raises(
                UserError, match=rf"Another campaign runs in .*process {os.getpid()} on"
            ):
                run_campaign(runs, tmp_path, engine=FakeEngine(), progress=False)
            return super().submit(*arguments)

    outcomes = run_campaign(runs, tmp_path, engine=Second(), progress=False)
    assert [outcome.error for outcome in outcomes] == [None, None, None]
    (tmp_path / "runs" / "sf_cc_e" / "seed-0" / "metrics.json").unlink()
    run_campaign(runs, tmp_path, engine=FakeEngine(), progress=False)  # the lock is free again


def test_an_unexpected_error_in_a_run_is_an_outcome_too(ani1x_file, tmp_path, monkeypatch, caplog):
    def broken(settings, out, **options):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr("hippynn_mf.runs.train.train_run", broken)
    outcomes = run_here(settings_for(ani1x_file), tmp_path / "out", progress=False)
    assert [outcome.error for outcome in outcomes] == ["ZeroDivisionError: planted"] * 3
    assert "SF-CC/E, seed 0" in caplog.text  # with its traceback


@pytest.mark.parametrize("engine", [LocalPool(2), ParslSite(n_workers=2)], ids=["pool", "parsl"])
def test_an_engine_trains_runs_and_reports_those_that_fail(
    ani1x_file, tmp_path, monkeypatch, engine
):
    for name, value in NO_COMPILER.items():
        monkeypatch.setenv(name, value)
    runs = settings_for(ani1x_file, NAMES[:1], seeds=(0, 1))
    overrides = runs[0].hyperparameters.model_copy(update={"learning_rate": 1e30})
    runs[0] = runs[0].model_copy(update={"hyperparameters": overrides})
    first, second = run_campaign(runs, tmp_path, engine=engine, progress=False)
    assert "Training diverged in epoch 1" in first.error
    assert "diverged" in RunFolder.of(tmp_path, runs[0]).read_failure()
    assert second.error is None
    assert not RunFolder.of(tmp_path, runs[0]).is_finished
    metrics = RunFolder.of(tmp_path, runs[1]).read_metrics()
    assert metrics["sets"]["heldout"]["ccsd(t)_cbs"]["ccsd(t)_cbs"]["energy_rmse_kcal_per_mol"] > 0


def test_workers_get_levels_of_ones_own_with_the_settings(ani1x_file, tmp_path, monkeypatch):
    record = {
        "id": "own",
        "label": "OWN",
        "method": "HF",
        "basis": "cc-pVTZ",
        "rank": 15.0,
        "energy_keys": ["hf_tz.energy"],
        "self_energies_hartree": {"1": -0.5, "6": -37, "7": -54, "8": -74},
    }
    request = Request(
        experiments=["SF-OWN/E"], data=ani1x_file, levels=[record], hyperparameters=TINY
    )
    (settings,) = build.build_settings(request)
    executed = []
    monkeypatch.setattr("hippynn_mf.campaign.campaign._start_worker", lambda *_: None)
    monkeypatch.setattr(
        "hippynn_mf.campaign.campaign.execute_run", lambda run, *_, **options: executed.append(run)
    )
    with owned(tmp_path, [settings]) as owner:
        sent = pickle.loads(pickle.dumps((settings.model_dump_json(), owner)))
        execute_in_worker(sent[0], str(tmp_path), sent[1], 1)
    (run,) = executed
    assert run == settings
    assert run.known.get("OWN").self_energies[1] == -0.5
    assert list(run.experiment.resolved_labels) == [run.known.get("OWN")]
