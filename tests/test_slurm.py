"""A campaign on a real Slurm of one node, which the test starts.

Needs root, and Debian's packages slurm-wlm and munge.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from ase.build import molecule
from ase.io import read, write
from filelock import FileLock
from made_runs import NO_COMPILER, TINY_OPTIONS
from planted import write_ani1x
from springs import Springs

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue")
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(
        any(shutil.which(name) is None for name in PROGRAMS) or os.geteuid() != 0,
        reason="needs root, and slurmctld, slurmd and munged",
    ),
]

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}
AuthType=auth/munge
CryptoType=crypto/munge
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmUser=root
SlurmctldPort={port}
SlurmdPort={node_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ReturnToService=2
NodeName={host} CPUs={n_cpus} RealMemory=4096 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""

SITE = """\
from parsl import Config
from parsl.executors import HighThroughputExecutor
from parsl.launchers import SimpleLauncher
from parsl.providers import SlurmProvider

config = Config(
    executors=[
        HighThroughputExecutor(
            label="slurm",
            address="127.0.0.1",
            max_workers_per_node=1,
            heartbeat_period=2,
            heartbeat_threshold=20,
            provider=SlurmProvider(
                partition="all",
                exclusive=False,
                cores_per_node=1,
                mem_per_node=1,
                init_blocks={n_blocks},
                min_blocks=1,
                max_blocks={n_blocks},
                walltime="00:10:00",
                worker_init="export PATH={path}:$PATH",
                launcher=SimpleLauncher(),
            ),
        )
    ],
    strategy={strategy!r},
    run_dir={run_dir!r},
    usage_tracking=0,
)
"""


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """A running Slurm; its folder, after which everything is stopped again.

    Its munged is one for the machine: a second process of tests waits for the first.
    """
    with FileLock(Path(tempfile.gettempdir()) / "hippynn-mf-tests-slurm.lock"):
        yield from running_slurm(tmp_path_factory.mktemp("slurm"))


def running_slurm(folder):
    for name in ("state", "spool"):
        (folder / name).mkdir()
    host = socket.gethostname().split(".")[0]
    file = folder / "slurm.conf"
    file.write_text(
        CONFIGURATION.format(
            host=host,
            port=free_port(),
            node_port=free_port(),
            folder=folder,
            n_cpus=os.cpu_count(),
        )
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(file))
        has_munge = Path("/run/munge/munge.socket.2").exists()
        if not has_munge:
            Path("/run/munge").mkdir(exist_ok=True)
            shutil.chown("/run/munge", "munge", "munge")
            subprocess.run(["runuser", "-u", "munge", "--", "munged"], check=True)
        daemons = [subprocess.Popen(["slurmctld", "-D"]), subprocess.Popen(["slurmd", "-D"])]
        try:
            stop = time.monotonic() + 60
            while (
                "idle"
                not in subprocess.run(
                    ["sinfo", "-h", "-o", "%t"], capture_output=True, text=True, check=False
                ).stdout
            ):
                assert time.monotonic() < stop, (folder / "slurmctld.log").read_text()
                time.sleep(0.5)
            yield folder
        finally:
            subprocess.run(["scancel", "--user", "root"], check=False)
            for daemon in reversed(daemons):
                daemon.terminate()
                daemon.wait(timeout=30)
            if not has_munge:
                subprocess.run(["pkill", "-u", "munge", "munged"], check=False)


def jobs():
    """Names of the nodes' jobs by their states."""
    done = subprocess.run(
        ["squeue", "-h", "-o", "%i %T"], capture_output=True, text=True, check=True
    )
    return dict(line.split() for line in done.stdout.splitlines())


def wait_for_no_jobs():
    stop = time.monotonic() + 30
    while any(state not in ("COMPLETING", "CANCELLED") for state in jobs().values()):
        assert time.monotonic() < stop, "jobs were left behind"
        time.sleep(0.5)


def test_a_campaign_of_four_runs_goes_through_slurm(slurm, tmp_path):
    site, out = tmp_path / "site.py", tmp_path / "out"
    n_blocks = min(2, os.cpu_count())
    site.write_text(
        SITE.format(
            n_blocks=n_blocks,
            strategy="simple",
            path=Path(sys.executable).parent,
            run_dir=str(tmp_path / "parsl"),
        )
    )
    data = write_ani1x(tmp_path / "data.h5")
    command = [sys.executable, "-c", "from hippynn_mf.cli.main import main; main()", "campaign"]
    command += ["--site", str(site), "--out", str(out), "--data", str(data), "--seeds", "0,1"]
    command += ["--experiments", "SF-CC/E,MF-DZ/EF-CC/E", *TINY_OPTIONS, "--set", "max_epochs=3"]
    seen, said = {}, tmp_path / "said.txt"
    stop = time.monotonic() + 200
    with (
        said.open("w") as stream,
        subprocess.Popen(command, env=os.environ | NO_COMPILER, stderr=stream) as campaign,
    ):
        while campaign.poll() is None:
            seen |= jobs()
            time.sleep(0.5)
            if time.monotonic() > stop:
                campaign.kill()
    assert campaign.returncode == 0, said.read_text()
    assert set(seen.values()) & {"RUNNING", "COMPLETING"}, seen
    assert len(seen) == n_blocks
    metrics = sorted(out.glob("runs/*/*/metrics.json"))
    assert [str(path.parent.relative_to(out / "runs")) for path in metrics] == [
        "mf_dz_ef_cc_e/seed-0",
        "mf_dz_ef_cc_e/seed-1",
        "sf_cc_e/seed-0",
        "sf_cc_e/seed-1",
    ]
    for path in metrics:
        assert json.loads(path.read_text())["training"]["n_epochs"] == 3
    assert "| MF-DZ/EF-CC/E | 2 |" in (out / "tables" / "experiments.md").read_text()

    wait_for_no_jobs()


def test_labels_are_computed_through_slurm(slurm, tmp_path):
    structures = [molecule(name) for name in ("H2O", "CH4", "NH3") for _ in range(4)]
    for seed, atoms in enumerate(structures):
        atoms.rattle(0.03, seed=seed)
    write(tmp_path / "pool.xyz", structures, format="extxyz")
    site = tmp_path / "site.py"
    site.write_text(
        SITE.format(
            n_blocks=1,
            path=Path(sys.executable).parent,
            strategy="none",
            run_dir=str(tmp_path / "parsl"),
        )
    )
    springs = Path(__file__).with_name("springs.py")
    command = [
        *(Path(sys.executable).with_name("hippynn-mf"), "label", tmp_path / "pool.xyz"),
        *("--level", "LOW", "--with", f"{springs}:factory", "--out", tmp_path / "out.xyz"),
        *("--site", site, "--block", "2"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "12 structures with LOW/EF" in done.stdout
    for atoms, given in zip(read(tmp_path / "out.xyz", ":"), structures, strict=True):
        given.calc = Springs()
        assert atoms.info["energy_LOW"] == pytest.approx(given.get_potential_energy(), abs=1e-6)
    wait_for_no_jobs()


@pytest.mark.parametrize("strategy", ["none", "simple"])
def test_a_job_that_is_taken_away_is_requested_again(slurm, tmp_path, strategy):
    # As at the end of its walltime, for which Slurm would need minutes.
    site, out = tmp_path / "site.py", tmp_path / "out"
    path, run_dir = Path(sys.executable).parent, str(tmp_path / "parsl")
    site.write_text(SITE.format(n_blocks=1, strategy=strategy, path=path, run_dir=run_dir))
    data = write_ani1x(tmp_path / "data.h5")
    command = [sys.executable, "-c", "from hippynn_mf.cli.main import main; main()", "campaign"]
    command += ["--site", str(site), "--out", str(out), "--data", str(data), "--seeds", "0"]
    command += ["--experiments", "SF-CC/E", *TINY_OPTIONS, "--set", "max_epochs=400"]
    seen, said, is_taken = {}, tmp_path / "said.txt", False
    earlier = jobs()  # of another test, which Slurm may still be about to end
    stop = time.monotonic() + 300
    with (
        said.open("w") as stream,
        subprocess.Popen(command, env=os.environ | NO_COMPILER, stderr=stream) as campaign,
    ):
        while campaign.poll() is None:
            there = {job: state for job, state in jobs().items() if job not in earlier}
            seen |= there
            if not is_taken and there and list(out.glob("runs/*/*/epochs.jsonl")):
                subprocess.run(["scancel", *there], check=True)
                is_taken = True
            time.sleep(0.5)
            if time.monotonic() > stop:
                campaign.kill()
    assert campaign.returncode == 0, said.read_text()
    assert len(seen) == 2
    (metrics,) = out.glob("runs/*/*/metrics.json")
    assert json.loads(metrics.read_text())["training"]["n_epochs"] == 400
    assert "its worker was lost (ManagerLost" in said.read_text()
