"""The small campaigns that faults are injected into: their command, processes and weights."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import torch

from hippynn_mf.campaign.processes import MARK

CLI = [sys.executable, "-c", "from hippynn_mf.cli.start import main; main()"]
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "HIPPYNN_USE_CUSTOM_KERNELS": "false",  # faster than to compile them in every process
    "TORCHDYNAMO_DISABLE": "1",
}
TINY = {
    "tensor_order": 0,
    "n_interaction_layers": 1,
    "n_atom_layers": 1,
    "n_features": 8,
    "n_sensitivities": 8,
    "max_epochs": 8,
}
SLUGS = ("sf_cc_e", "sf_dz_e")
FOLDER = 'Läufe & "more" $1'  # spaces, quotes and what shells expand


def command(out: Path, engine: str) -> list[str]:
    """The command of every trial."""
    sizes = [text for name, value in TINY.items() for text in ("--set", f"{name}={value}")]
    names = ["--experiments", "SF-CC/E,SF-DZ/E", "--seeds", "0", "--workers", "2"]
    where = ["--out", str(out), "--engine", engine, "--device", "cpu"]
    return [*CLI, "campaign", *where, *names, *sizes]


class Campaign:
    """A campaign in a process group of its own, as a terminal starts it."""

    def __init__(self, out: Path, engine: str) -> None:
        self.log = out.parent / f"said-{time.monotonic_ns()}.txt"
        with self.log.open("w") as stream:
            self.process = subprocess.Popen(
                command(out, engine),
                env=ENVIRONMENT,
                stdout=subprocess.DEVNULL,
                stderr=stream,
                start_new_session=True,
            )
        self.seen: dict[int, psutil.Process] = {}
        self.marks: set[str | None] = set()

    def others(self) -> list[psutil.Process]:
        """Its other processes that are there, also those of before."""
        children = []
        with contextlib.suppress(psutil.Error):
            children = psutil.Process(self.process.pid).children(recursive=True)
        self.marks |= {environment(child).get(MARK) for child in children} - {None}
        marked = [p for p in psutil.process_iter() if environment(p).get(MARK) in self.marks]
        for process in (*children, *marked):
            self.seen[process.pid] = process
        return [process for process in self.seen.values() if is_there(process)]

    def find(self, role: str) -> psutil.Process | None:
        """One process in this role, if there is one."""
        by_role = {
            "worker": lambda text: "spawn_main" in text,
            "manager": lambda text: "process_worker_pool.py" in text and "python" in text,
            "interchange": lambda text: "interchange" in text,
        }
        found = [p for p in self.others() if by_role[role](command_of(p))]
        return found[0] if found else None

    def said(self) -> str:
        """What it has printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait(self, seconds: float) -> int | None:
        """Its exit code; None if it has not ended in time."""
        stop = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < stop:
            self.others()
            time.sleep(0.1)
        return self.process.poll()

    def wait_for_others(self, seconds: float) -> bool:
        """Whether its other processes end in time."""
        stop = time.monotonic() + seconds
        while self.others():
            if time.monotonic() > stop:
                return False
            time.sleep(0.05)
        return True

    def clear(self) -> None:
        """End everything, whatever became of it."""
        with contextlib.suppress(OSError):
            self.process.kill()
        self.process.wait()
        while left := self.others():
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            time.sleep(0.05)


def environment(process: psutil.Process) -> dict[str, str]:
    """The environment of a process, empty for those of others."""
    with contextlib.suppress(psutil.Error, OSError):
        return process.environ()
    return {}


def command_of(process: psutil.Process) -> str:
    """The command line of a process, empty if it has ended."""
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def is_there(process: psutil.Process) -> bool:
    """Whether a process has not ended."""
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def weights(out: Path) -> dict[str, Any] | None:
    """The weights of all runs, None if one is not finished."""
    folders = {slug: out / "runs" / slug / "seed-0" for slug in SLUGS}
    if not all((folder / "metrics.json").exists() for folder in folders.values()):
        return None
    return {s: torch.load(f / "model.pt", weights_only=True) for s, f in folders.items()}


def are_equal(found: dict[str, Any] | None, expected: dict[str, Any] | None) -> bool:
    """Whether the weights are those of an undisturbed campaign."""
    try:
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    except AssertionError:
        return False
    return found is not None
