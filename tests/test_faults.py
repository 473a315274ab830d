"""Campaigns of real processes survive what kills their processes."""

import json
import os
import shutil
import subprocess
import sys
import time

import psutil
import pytest
import torch
from made_runs import NO_COMPILER, TINY_OPTIONS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="asks which process holds a file open"),
]

CLI = [sys.executable, "-c", "from hippynn_mf.cli.start import main; main()"]
N_EPOCHS = 100  # a few seconds, so that runs do not end before what a test does to them
ENVIRONMENT = os.environ | NO_COMPILER | {"OMP_NUM_THREADS": "1"}
SLUGS = ("sf_cc_e", "sf_dz_e")


def command(out, data, *options):
    names = ["--experiments", "SF-CC/E,SF-DZ/E", "--seeds", "0", "--workers", "2"]
    size = [*TINY_OPTIONS, "--set", f"max_epochs={N_EPOCHS}", "--device", "cpu"]
    return [*CLI, "campaign", "--out", str(out), "--data", str(data), *names, *size, *options]


def start(*arguments):
    return subprocess.Popen(
        command(*arguments), env=ENVIRONMENT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )  # what it says fits into the pipe


def finish(*arguments):
    done = subprocess.run(
        command(*arguments), env=ENVIRONMENT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done


def wait_until(condition, seconds):
    stop = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < stop, "waited too long"
        time.sleep(0.05)
    return found


def folder_of(out, slug):
    return out / "runs" / slug / "seed-0"


def n_epochs(out, slug):
    path = folder_of(out, slug) / "epochs.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def process_that_trains(out, slug):
    """The process that holds the lock of a run."""
    lock = str((folder_of(out, slug) / ".lock").absolute())
    for process in psutil.process_iter():
        try:
            if any(file.path == lock for file in process.open_files()):
                return process
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
    return None


def is_over(process):
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Data, and the results of a campaign that nothing happens to."""
    from planted import write_ani1x

    folder = tmp_path_factory.mktemp("undisturbed")
    data = write_ani1x(folder / "data.h5")
    finish(folder / "out", data, "--engine", "pool")
    return data, {slug: final_state(folder / "out", slug) for slug in SLUGS}


def final_state(out, slug):
    """The weights of a finished run and its epochs, without their times."""
    folder = folder_of(out, slug)
    assert (folder / "metrics.json").exists()
    assert not list(folder.glob("checkpoint*"))
    epochs = [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]
    return torch.load(folder / "model.pt", weights_only=True), [
        (epoch["epoch"], epoch["best"], epoch["valid"]) for epoch in epochs
    ]


def assert_complete(out, expected):
    """Every run is there once, and ended as if nothing had happened."""
    assert sorted(path.parent.parent.name for path in out.glob("runs/*/*/metrics.json")) == [*SLUGS]
    for slug, (weights, epochs) in expected.items():
        found_weights, found_epochs = final_state(out, slug)
        torch.testing.assert_close(found_weights, weights, rtol=1e-6, atol=1e-6)
        assert [epoch[:2] for epoch in found_epochs] == [epoch[:2] for epoch in epochs]
    assert "| SF-CC/E | 1 |" in (out / "tables" / "experiments.md").read_text()
    assert not list(out.rglob("*.partial"))


@pytest.mark.parametrize("engine", ["parsl", "pool"])
def test_a_killed_worker_is_replaced_and_its_run_continues(undisturbed, tmp_path, engine):
    data, expected = undisturbed
    with start(tmp_path, data, "--engine", engine) as campaign:
        wait_until(lambda: n_epochs(tmp_path, "sf_dz_e") >= 3 or campaign.poll(), 200)
        worker = process_that_trains(tmp_path, "sf_dz_e")
        assert worker.pid != campaign.pid
        worker.kill()
        _, said = campaign.communicate(timeout=300)
    assert campaign.returncode == 0, said
    assert b"SF-DZ/E, seed 0: its worker was lost" in said
    assert_complete(tmp_path, expected)
    assert "continuing from checkpoint" in (folder_of(tmp_path, "sf_dz_e") / "log.txt").read_text()


def test_a_block_of_parsl_that_fails_is_replaced(undisturbed, tmp_path):
    data, expected = undisturbed
    with start(tmp_path, data) as campaign:
        wait_until(lambda: n_epochs(tmp_path, "sf_dz_e") >= 3 or campaign.poll(), 200)
        manager = process_that_trains(tmp_path, "sf_dz_e").parent()
        assert "process_worker_pool" in " ".join(manager.cmdline())
        manager.kill()
        _, said = campaign.communicate(timeout=300)
    assert campaign.returncode == 0, said
    assert_complete(tmp_path, expected)


@pytest.mark.parametrize("engine", ["parsl", "pool"])
def test_a_killed_campaign_takes_its_processes_along_and_continues(undisturbed, tmp_path, engine):
    data, expected = undisturbed
    with start(tmp_path, data, "--engine", engine) as campaign:
        wait_until(lambda: min(n_epochs(tmp_path, slug) for slug in SLUGS) >= 3, 200)
        workers = [process_that_trains(tmp_path, slug) for slug in SLUGS]
        assert None not in workers
        for worker in workers:
            worker.suspend()
        second = subprocess.run(
            command(tmp_path, data), env=ENVIRONMENT, capture_output=True, text=True, check=False
        )
        for worker in workers:
            worker.resume()
        assert second.returncode == 2
        assert f"Another campaign runs in {tmp_path} (process {campaign.pid}" in second.stderr
        helpers = [
            process
            for process in psutil.Process(campaign.pid).children(recursive=True)
            if process not in workers
        ]
        campaign.kill()
    before = {slug: n_epochs(tmp_path, slug) for slug in SLUGS}
    # At once: the workers may still be there, and hold the locks of their runs.
    with start(tmp_path, data, "--engine", engine) as campaign:
        wait_until(lambda: all(is_over(worker) for worker in workers), 10)
        _, said = campaign.communicate(timeout=300)
    assert campaign.returncode == 0, said
    assert_complete(tmp_path, expected)
    for slug in SLUGS:
        log = (folder_of(tmp_path, slug) / "log.txt").read_text()
        (done,) = [line for line in log.splitlines() if "continuing from checkpoint" in line]
        assert int(done.split()[-2]) >= before[slug] - 1
    # Parsl's own processes follow when they miss each other.
    wait_until(lambda: all(is_over(process) for process in helpers), 60)


def test_a_finished_campaign_trains_nothing_again(undisturbed, tmp_path):
    data, expected = undisturbed
    finish(tmp_path, data, "--engine", "pool")
    folders = [folder_of(tmp_path, slug) for slug in SLUGS]
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for f in folders for p in f.iterdir()}
    finish(tmp_path, data, "--engine", "parsl")
    assert before == {
        p: (p.stat().st_mtime_ns, p.read_bytes()) for f in folders for p in f.iterdir()
    }
    assert_complete(tmp_path, expected)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of half a megabyte; a function makes it large."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=500k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("may not mount a file system here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_reported_and_the_campaign_continues_when_there_is_room(
    undisturbed, small_disk
):
    data, expected = undisturbed
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(400_000))
    full = subprocess.run(
        command(small_disk, data, "--engine", "pool"),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert full.returncode == 2
    assert "is full. Make room; the same command continues" in full.stderr
    assert "Traceback" not in full.stderr
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    finish(small_disk, data, "--engine", "pool")
    assert_complete(small_disk, expected)


def test_status_tells_what_a_campaign_does(undisturbed, tmp_path):
    data, _ = undisturbed
    with start(tmp_path, data, "--engine", "pool") as campaign:
        wait_until(lambda: min(n_epochs(tmp_path, slug) for slug in SLUGS) >= 3, 200)
        workers = [process_that_trains(tmp_path, slug) for slug in SLUGS]
        for worker in workers:
            worker.suspend()  # or they would finish meanwhile
        said = subprocess.run(
            [*CLI, "status", str(tmp_path), "--json"], capture_output=True, text=True, check=True
        )
        campaign.kill()
    for worker in workers:
        worker.kill()
    for entry in json.loads(said.stdout):
        assert entry["state"] == "running"
        assert 3 <= entry["n_epochs"] <= N_EPOCHS
        assert entry["seconds_left"] > 0
    wait_until(lambda: not any(process_that_trains(tmp_path, slug) for slug in SLUGS), 10)
    said = subprocess.run(
        [*CLI, "status", str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "2 runs: 2 interrupted." in said.stdout
