"""What `hippynn-mf status` and `--dry-run` say of run folders."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from made_runs import TINY_OPTIONS, exit_code, files_below, make_run, make_settings, run_metrics

from hippynn_mf.campaign.lease import Owner, owned, read_campaign, refuse_owned
from hippynn_mf.campaign.plan import Probe, format_plan, plan_runs
from hippynn_mf.campaign.status import format_status, plain_status, read_status
from hippynn_mf.errors import UserError
from hippynn_mf.files import replace_when_complete
from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.runs.progress import Progress, RunWatch, format_duration, look_seconds

METRICS = run_metrics() | {"training": {"wall_s": 1.0, "n_epochs": 3}}


def add_epochs(folder, errors, wall_s=2.0, key="energy_rmse_sum"):
    for epoch, error in enumerate(errors):
        valid = {key: error, "loss": 0.0}
        folder.append_epoch({"epoch": epoch, "wall_s": wall_s, "train": valid, "valid": valid})


@pytest.fixture
def out(tmp_path):
    """Runs in every state but running: seeds 0 to 4 of one experiment."""
    finished = make_run(tmp_path, "SF-CC/E", 0, METRICS)
    add_epochs(finished, [3.0, 1.5, 2.0])
    add_epochs(make_run(tmp_path, "SF-CC/E", 1, None), [4.0])
    failed = make_run(tmp_path, "SF-CC/E", 2, None)
    failed.write_failure("planted failure")
    failed.file("log.txt").write_text("\n".join(f"line {n}" for n in range(9)))
    broken = make_run(tmp_path, "SF-CC/E", 3, None)
    broken.file("experiment.json").write_text("{")
    with owned(tmp_path, [make_settings("SF-CC/E", seed) for seed in range(5)]):
        pass
    return tmp_path


def test_the_state_of_every_run_is_read(out):
    statuses = {status.seed: status for status in read_status(out)}
    assert {seed: status.state for seed, status in statuses.items()} == {
        0: "finished", 1: "interrupted", 2: "failed", 3: "broken", 4: "waiting",
    }  # fmt: skip
    assert (statuses[0].n_epochs, statuses[0].max_epochs, statuses[0].best) == (3, 80, 1.5)
    assert (statuses[1].n_epochs, statuses[1].best, statuses[1].seconds_left) == (1, 4.0, None)
    assert statuses[2].problem == "planted failure"
    assert statuses[2].log == [f"line {n}" for n in range(4, 9)]
    assert "not valid JSON" in statuses[3].problem


def test_status_changes_nothing(out):
    before = files_below(out)
    format_status(read_status(out))
    assert files_below(out) == before


def test_a_run_whose_lock_is_held_is_running_and_its_time_left_is_estimated(out):
    folder = RunFolder.of(out, make_settings("SF-CC/E", 1))
    script = (
        "import sys; from pathlib import Path; from hippynn_mf.runs.folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).locked():\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        (status,) = [status for status in read_status(out) if status.seed == 1]
        holder.communicate("")
    assert status.state == "running"
    assert status.seconds_left == pytest.approx(79 * 2.0)


def test_the_best_is_by_the_metric_that_stops_the_run(tmp_path):
    hyperparameters = make_settings("MF-DZ/EF-CC/E").hyperparameters
    by_cc = hyperparameters.model_copy(update={"stopping_metric": "CC"})
    folder = make_run(tmp_path, "MF-DZ/EF-CC/E", 0, None, hyperparameters=by_cc)
    add_epochs(folder, [9.0, 7.0], key="energy_rmse.ccsd(t)_cbs")
    assert read_status(tmp_path)[0].best == 7.0


def test_the_table_names_failures_with_the_end_of_their_log(out):
    text = format_status(read_status(out)).splitlines()
    assert text[1].split() == ["SF-CC/E", "0", "finished", "3/80", "1.500"]
    assert "SF-CC/E, seed 2, failed: planted failure" in text
    assert "    line 8" in text
    assert "    line 3" not in text
    assert "5 runs: 1 finished, 1 interrupted, 1 failed, 1 broken, 1 waiting." in text


def test_status_as_json_and_from_the_shell(out, tmp_path, capsys):
    assert exit_code("status", out, "--json") == 0
    assert json.loads(capsys.readouterr().out) == plain_status(read_status(out))
    assert exit_code("status", tmp_path / "nothing") == 2
    assert "No runs in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 min 00 s"), (59.6, "1 min 00 s"), (11_111, "3 h 05 min")]
)
def test_durations_are_readable(seconds, text):
    assert format_duration(seconds) == text


def test_a_plan_tells_what_is_there(out):
    runs = [make_settings("SF-CC/E", seed) for seed in range(5)]
    runs[2] = make_settings("SF-CC/E", 2, rows="all")
    planned = plan_runs(runs, out)
    states = [run.state for run in planned]
    assert states == ["done", "to continue", "broken", "broken", "to do"]
    assert planned[1].detail == "1 of 80 epochs"
    assert "rows: 'common' → 'all'" in planned[2].detail
    text = format_plan(planned, None, None)
    assert text.startswith("5 runs: 1 done, 1 to continue, 2 broken, 1 to do")
    assert "seed  0" not in text


def test_a_plan_estimates_other_experiments_by_the_cost_of_their_steps(tmp_path):
    cheap, costly = make_settings("SF-CC/E"), make_settings("MF-DZ/EF-TZ/EF")
    ratio = costly.experiment.relative_cost / cheap.experiment.relative_cost
    assert ratio > 1.5
    probed = Probe(costly, "cpu", 400.0, 7200 * ratio, 1.25)
    text = format_plan(plan_runs([cheap, costly], tmp_path), probed, n_workers=2)
    assert "SF-CC/E         seed  0  to do, 2 h 00 min from the start" in text
    assert "400 structures per second" in text
    assert f"{format_duration(7200 * ratio)} per run, 1.25 GiB" in text
    short = Probe(costly, "cpu", 400.0, 25.0, 1.25)  # of seconds, which are no 0.01 hours
    assert "0 min 25 s per run" in format_plan(plan_runs([costly], tmp_path), short, 1)
    assert f"Together about {format_duration(7200 * ratio)} with 2 workers." in text


def test_a_dry_run_measures_and_trains_nothing(ani1x_file, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--out", out, "--data", ani1x_file, "--experiments", "SF-CC/E,SF-DZ/EF"]
    assert exit_code("campaign", *options, "--dry-run", "--device", "cpu", *TINY_OPTIONS) == 0
    said = capsys.readouterr().out
    assert said.startswith("4 runs: 4 to do")
    assert "20 steps of SF-DZ/EF on this device (cpu)" in said
    assert "structures per second" in said
    assert "GiB" in said
    assert not out.exists()


def test_a_campaign_owns_its_folder_until_it_ends(tmp_path):
    runs = [make_settings("SF-CC/E")]
    with owned(tmp_path, runs) as owner:
        assert owner.is_alive(tmp_path)
        assert read_campaign(tmp_path)["runs"] == [["SF-CC/E", "sf_cc_e", 0]]
        with pytest.raises(UserError, match=rf"Another campaign .*process {os.getpid()} on"):
            refuse_owned(tmp_path)
    refuse_owned(tmp_path)
    with owned(tmp_path, runs) as successor:
        assert successor.is_alive(tmp_path)
        assert not owner.is_alive(tmp_path)  # whose workers would collide with the successor's
    (tmp_path / "campaign.json").unlink()
    assert not successor.is_alive(tmp_path)


def test_an_owner_whose_process_is_over_is_not_alive(tmp_path):
    with owned(tmp_path, []) as owner, subprocess.Popen([sys.executable, "-c", "input()"]) as child:
        started = psutil.Process(child.pid).create_time()
        other = Owner(owner.id, owner.host, child.pid, started)
        assert other.is_alive(tmp_path)
        reused = Owner(owner.id, owner.host, child.pid, started - 100)
        assert not reused.is_alive(tmp_path)
        child.kill()
        child.wait()
        assert not other.is_alive(tmp_path)
        elsewhere = Owner(owner.id, "another host", child.pid, started)
        assert elsewhere.is_alive(tmp_path)  # which only that host can tell


def test_a_folder_without_a_campaign_has_none(tmp_path):
    assert read_campaign(tmp_path) is None
    (tmp_path / "campaign.json").write_text("{")
    assert read_campaign(tmp_path) is None


DAMAGED = ['{"id', "", "[]", "3", '{"id": 7}', "{}", "\ufffd"]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_takes_nothing_away_from_a_campaign(tmp_path, caplog, content):
    with owned(tmp_path, [make_settings("SF-CC/E")]) as owner:
        (tmp_path / "campaign.json").write_text(content, encoding="utf-8")
        for _ in range(3):
            assert owner.has_lost(tmp_path) is None
        assert owner.is_alive(tmp_path)
        assert len(caplog.messages) == 1
        assert "campaign.json is damaged" in caplog.text
        assert "the run goes on" in caplog.text
        with pytest.raises(UserError, match=r"Another campaign runs in .*process unknown on unkn"):
            refuse_owned(tmp_path)
    with owned(tmp_path, []) as successor:  # which writes the file anew
        assert successor.is_alive(tmp_path)
        assert "another campaign has taken over" in owner.has_lost(tmp_path)


def test_status_of_a_damaged_campaign_is_that_of_its_runs(out):
    (out / "campaign.json").write_text('{"runs": [["SF-CC/E", 3]]}')
    assert len(read_status(out)) == 4
    (out / "campaign.json").write_text("[1]")
    assert len(read_status(out)) == 4


WORKER = """
import logging, sys, time
from pathlib import Path
from hippynn_mf.campaign import lease
logging.basicConfig(stream=sys.stdout, format="%(message)s")
lease.PROCESS_SECONDS = 0.05
print("works", flush=True)
lease.end_with(lease.Owner(sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5]), 0.05),
               Path(sys.argv[1]))
time.sleep(60)
"""


def worker_of(owner, out):
    values = [out, owner.id, owner.host, owner.pid, owner.started]
    command = [sys.executable, "-c", WORKER, *map(str, values)]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert worker.stdout.readline() == "works\n"
    return worker


def write_at_once(path, text):
    with replace_when_complete(path) as partial:
        partial.write_text(text)


def test_a_worker_goes_on_where_the_file_is_damaged_and_ends_with_the_reason(tmp_path):
    with owned(tmp_path, []) as owner:
        path = tmp_path / "campaign.json"
        whole = path.read_text()
        worker = worker_of(owner, tmp_path)
        write_at_once(path, whole[:20])
        assert "campaign.json is damaged" in worker.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            worker.wait(0.5)
        write_at_once(path, whole.replace(owner.id, "another"))
        said, _ = worker.communicate(timeout=30)
        assert worker.returncode == 1
        assert said == (
            f"the campaign of this run is over: another campaign has taken over {tmp_path}\n"
        )


def test_a_worker_ends_with_the_process_of_its_campaign(tmp_path):
    with owned(tmp_path, []) as owner, subprocess.Popen([sys.executable, "-c", "input()"]) as child:
        started = psutil.Process(child.pid).create_time()
        worker = worker_of(Owner(owner.id, owner.host, child.pid, started), tmp_path)
        child.kill()
        child.wait()
        said, _ = worker.communicate(timeout=30)
    assert worker.returncode == 1
    assert said == f"the campaign of this run is over: its process {child.pid} has ended\n"


MANAGER = """
import subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-c", *sys.argv[1:]])
time.sleep(60)
"""


@pytest.mark.skipif(os.name != "posix", reason="on Windows a process keeps its parent's number")
def test_a_worker_ends_with_the_process_that_has_started_it(tmp_path):
    with owned(tmp_path, []) as owner:
        values = [tmp_path, owner.id, owner.host, owner.pid, owner.started]
        command = [sys.executable, "-c", MANAGER, WORKER, *map(str, values)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as manager:
            assert manager.stdout.readline() == "works\n"
            time.sleep(0.5)
            manager.kill()
            said = manager.stdout.read()  # until the worker has ended as well
        assert said == f"process {manager.pid}, which has started this worker, has ended\n"


def test_files_are_looked_at_seldom_and_more_seldom_for_many_runs():
    assert Owner.this_process(1).file_seconds >= 10
    assert Owner.this_process(100).file_seconds > Owner.this_process(1).file_seconds
    assert look_seconds(1) >= 10
    assert look_seconds(100) > look_seconds(1)


# How far runs are.


class Counted:
    """Counts what `pathlib` is asked of a file."""

    def __init__(self, monkeypatch):
        self.stats = []
        stat = Path.stat

        def counted(path, **options):
            self.stats.append(path)
            return stat(path, **options)

        monkeypatch.setattr(Path, "stat", counted)


def test_a_look_at_a_run_is_one_stat(tmp_path, monkeypatch):
    folder = make_run(tmp_path, "SF-CC/E", 0, None)
    watch = RunWatch(make_settings("SF-CC/E"), tmp_path)
    add_epochs(folder, [3.0, 2.0])
    counted = Counted(monkeypatch)
    watch.look()
    assert watch.share == 2 / 80
    assert counted.stats == [folder.file("epochs.jsonl")]
    watch.look()
    assert watch.share == 2 / 80
    assert len(counted.stats) == 2


def test_phases_are_looked_at_in_turns(tmp_path):
    settings = make_settings("TL-DZ/EF-CC/E")
    folder = make_run(tmp_path, "TL-DZ/EF-CC/E", 0, None)
    first, last = folder.phases(settings)
    watch = RunWatch(settings, tmp_path)
    first.path.mkdir()
    add_epochs(first, [1.0] * 3)
    watch.look()
    assert watch.share == 3 / 160
    add_epochs(last, [1.0])
    for _ in range(3):
        watch.look()
    assert watch.share == 4 / 160
    add_epochs(last, [1.0])
    watch.look()
    assert watch.share == 5 / 160
    watch.end(finished=True)
    assert watch.share == 1


def test_progress_knows_what_is_there_already(tmp_path, capsys):
    add_epochs(make_run(tmp_path, "SF-CC/E", 0, None), [1.0] * 20)
    with Progress([make_settings("SF-CC/E", seed) for seed in (0, 1)], tmp_path) as shown:
        shown.ended(("sf_cc_e", 1, 0), finished=False)
    assert capsys.readouterr().err.startswith("12 % trained, 0 of 2 runs finished, after 0 min 00")


def test_a_line_per_minute_without_a_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("hippynn_mf.runs.progress.SHOW_SECONDS", 0.01)
    monkeypatch.setattr("hippynn_mf.runs.progress.LINE_SECONDS", 0.2)
    monkeypatch.setattr("hippynn_mf.runs.progress.look_seconds", lambda n: 0.05)
    folder = make_run(tmp_path, "SF-CC/E", 0, None)
    with Progress([make_settings("SF-CC/E")], tmp_path):
        add_epochs(folder, [1.0] * 8)
        time.sleep(0.5)
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 4
    assert lines[0].startswith("10 % trained, 0 of 1 runs finished, after 0 min 00 s; ")
    assert lines[0].endswith(" left at most")
