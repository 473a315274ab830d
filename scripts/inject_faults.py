"""Faults at random moments of small campaigns: what survives them, and how long it takes.

    python scripts/inject_faults.py --n 20 --seed 0 --json scripts/benchmarks/faults.json

Every trial starts a campaign of two tiny runs, in a folder whose name no shell likes, and waits for
a moment drawn from the whole length of an undisturbed one, start-up included. Then something is
killed or stopped, everything is suspended for a while, or the disk is full. It survives if the
campaign ends by itself (a lost worker, manager or interchange, a suspension) or ends in time,
leaves nothing behind and continues by the same command (an interrupt, a killed parent, a full
disk), each time with the weights of an undisturbed campaign.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import psutil
import torch
import typer

from hippynn_mf.campaign.processes import MARK
from hippynn_mf.files import replace_when_complete

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
FINISH_SECONDS = 400.0
INTERRUPT_SECONDS = 10.0  # from Ctrl-C to the prompt
ORPHAN_SECONDS = 60.0  # from the end of the parent to that of all others
SUSPEND_SECONDS = 45.0  # longer than Parsl waits for heartbeats
RESUME_SECONDS = 0.3  # between processes that go on
# Filled at once, and enough for a campaign, of which a busy machine makes long logs.
DISK = {"small": "8m", "large": "100m"}
MAX_DRAWS = 4  # of a moment, each half of the one before, until a campaign is hit
EXPECTED = {  # fault → engines, and what a campaign does after it
    "worker killed": (("parsl", "pool"), "finishes"),
    "worker stopped": (("parsl", "pool"), "finishes"),
    "manager killed": (("parsl",), "finishes"),
    "manager stopped": (("parsl",), "finishes"),
    "interchange killed": (("parsl",), "finishes"),
    "interchange stopped": (("parsl",), "finishes"),
    "all suspended": (("parsl", "pool"), "finishes"),
    "parent killed": (("parsl", "pool"), "continues"),
    "SIGINT": (("parsl", "pool"), "continues"),
    "SIGTERM": (("parsl", "pool"), "continues"),
    "disk full": (("parsl", "pool"), "continues"),
}


@dataclass(frozen=True)
class Trial:
    """One fault. `end_s` is from the fault to the end of the campaign that was hit.

    `gone_s` is from the fault to the end of its last process; None where the campaign goes on.
    """

    engine: str
    fault: str
    moment_s: float
    hit: str  # what was done to whom
    survived: bool
    end_s: float
    gone_s: float | None
    problem: str = ""


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


def strike(campaign: Campaign, fault: str, out: Path) -> str:
    """Do it; what was done to whom. Empty if the one it is for has ended, or not begun."""
    if fault == "disk full":
        with contextlib.suppress(OSError), (out / "ballast").open("wb") as ballast:
            while True:
                ballast.write(bytes(4096))
                ballast.flush()
        return "filled the disk"
    if fault in ("SIGINT", "SIGTERM"):
        number = getattr(signal, fault)
        if fault == "SIGINT":  # as a terminal does, to all in the foreground
            os.killpg(campaign.process.pid, number)
        else:
            os.kill(campaign.process.pid, number)
        return f"sent {fault}"
    if fault == "parent killed":
        campaign.others()
        campaign.process.kill()
        return "killed the campaign"
    role, how = ("worker", "") if fault == "all suspended" else fault.split()
    stop = time.monotonic() + 60  # the moment may be before there is one
    while (process := campaign.find(role)) is None and campaign.process.poll() is None:
        if time.monotonic() > stop:
            return ""
        time.sleep(0.05)
    if process is None:
        return ""
    if fault == "all suspended":
        return suspend_all(campaign)
    with contextlib.suppress(psutil.Error):
        process.kill() if how == "killed" else process.suspend()
        return f"{how} the {role}"
    return ""


def suspend_all(campaign: Campaign) -> str:
    """Suspend all processes and let them go on one after another, as after a laptop's sleep."""
    suspended = []
    for process in (psutil.Process(campaign.process.pid), *campaign.others()):
        with contextlib.suppress(psutil.Error):
            process.suspend()
            suspended.append(process)
    time.sleep(SUSPEND_SECONDS)
    for process in suspended:
        with contextlib.suppress(psutil.Error):
            process.resume()
        time.sleep(RESUME_SECONDS)
    return f"suspended all {len(suspended)} processes"


def attempt(
    out: Path, engine: str, fault: str, moment_s: float, expected: dict[str, Any] | None
) -> Trial | None:
    """One trial; None if the campaign had finished before the fault."""
    campaign = Campaign(out, engine)
    try:
        code = campaign.wait(moment_s)
        if code:  # nobody has done anything to it
            problem = f"exit code {code} before the fault: {campaign.said()[-300:]}"
            return Trial(engine, fault, round(moment_s, 2), "", False, 0.0, None, problem)
        if code == 0 or not (hit := strike(campaign, fault, out)):
            return None
        start, problem, gone_s = time.monotonic(), "", None
        ends = fault in ("SIGINT", "SIGTERM")
        code = campaign.wait(2 * INTERRUPT_SECONDS if ends else FINISH_SECONDS)
        end_s = time.monotonic() - start
        if code is None:
            problem = "did not end"
        elif ends and end_s > INTERRUPT_SECONDS:
            problem = f"ended after {end_s:.0f} s"
        elif EXPECTED[fault][1] == "finishes" and code != 0:
            problem = f"exit code {code}: {campaign.said()[-300:]}"
        elif "Traceback" in campaign.said():
            problem = f"a traceback: {campaign.said()[-300:]}"
        if EXPECTED[fault][1] == "continues":
            is_gone = campaign.wait_for_others(ORPHAN_SECONDS)
            gone_s = time.monotonic() - start
            problem = problem or ("" if is_gone else "processes stayed")
            (out / "ballast").unlink(missing_ok=True)
            if fault == "disk full":
                enlarge(out)
            again = Campaign(out, engine)
            try:
                if again.wait(FINISH_SECONDS) != 0:
                    problem = problem or f"does not continue: {again.said()[-300:]}"
            finally:
                again.clear()
        if not problem and not are_equal(weights(out), expected):
            problem = "other weights"
        return Trial(
            engine, fault, round(moment_s, 2), hit, not problem, round(end_s, 2),
            None if gone_s is None else round(gone_s, 2), problem,
        )  # fmt: skip
    finally:
        campaign.clear()


@contextlib.contextmanager
def results_folder(top: Path, name: str, fault: str) -> Iterator[Path]:
    """A folder for results, for a full disk on a small one of its own."""
    out = top / name / FOLDER
    out.mkdir(parents=True)
    if fault != "disk full":
        yield out
        return
    size = f"size={DISK['small']}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(out)], check=True)
    try:
        yield out
    finally:
        subprocess.run(["umount", "-l", str(out)], check=True)


def enlarge(out: Path) -> None:
    """Make room on the small disk."""
    option = f"remount,size={DISK['large']}"
    subprocess.run(["mount", "-o", option, str(out)], check=True)


def can_mount() -> bool:
    """Whether a small disk can be made here."""
    if shutil.which("mount") is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", folder]
        if subprocess.run(mount, check=False, capture_output=True).returncode:
            return False
        subprocess.run(["umount", folder], check=True)
    return True


def draw(n: int, seed: int, faults: Sequence[str]) -> list[tuple[str, str, float]]:
    """Engine, fault and moment (as a share of an undisturbed campaign): every pair in turn."""
    pairs = [(engine, fault) for fault in faults for engine in EXPECTED[fault][0]]
    random_moments = random.Random(seed)
    random_moments.shuffle(pairs)
    return [(*pairs[i % len(pairs)], random_moments.random()) for i in range(n)]


def run_trials(top: Path, n: int, seed: int, faults: Sequence[str]) -> Iterator[Trial]:
    """All trials, one after another."""
    undisturbed: dict[str, tuple[float, dict[str, Any] | None]] = {}
    for i, (engine, fault, share) in enumerate(draw(n, seed, faults)):
        if engine not in undisturbed:
            out = top / f"undisturbed {engine}" / FOLDER
            out.mkdir(parents=True)
            campaign, start = Campaign(out, engine), time.monotonic()
            if campaign.wait(FINISH_SECONDS) != 0:
                raise RuntimeError(f"Undisturbed, it fails as well: {campaign.said()}")
            undisturbed[engine] = time.monotonic() - start, weights(out)
        seconds, expected = undisturbed[engine]
        for n_draws in range(MAX_DRAWS):
            with results_folder(top, f"{i}-{n_draws} {engine}", fault) as out:
                trial = attempt(out, engine, fault, share * seconds / 2**n_draws, expected)
            if trial is not None:
                yield trial
                break
        else:
            raise RuntimeError(f"{fault!r} of {engine} has hit no campaign in {MAX_DRAWS} moments.")


def write(path: Path, seed: int, rows: Sequence[dict[str, Any]]) -> None:
    """Write what has been tried so far."""
    versions = {name: version(name) for name in ("parsl", "psutil", "torch")}
    facts = {"python": platform.python_version(), "versions": versions, "seed": seed}
    with replace_when_complete(path) as partial:
        partial.write_text(json.dumps(facts | {"rows": rows}, indent=1) + "\n")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Faults by kind and engine: injected, survived, and the longest times."""
    lines = [
        "| engine | fault | injected | survived | longest to the end of the campaign "
        "| longest to the end of its last process |",
        "|---|---|---|---|---|---|",
    ]
    for fault, (engines, _) in EXPECTED.items():
        for engine in engines:
            of_kind = [r for r in rows if (r["engine"], r["fault"]) == (engine, fault)]
            if not of_kind:
                continue
            ends = max(row["end_s"] for row in of_kind)
            gone = [row["gone_s"] for row in of_kind if row["gone_s"] is not None]
            lines.append(
                f"| {engine} | {fault} | {len(of_kind)} | {sum(r['survived'] for r in of_kind)} "
                f"| {ends:.0f} s | {f'{max(gone):.0f} s' if gone else 'it goes on'} |"
            )
    survived = sum(row["survived"] for row in rows)
    lines += ["", f"{len(rows)} faults injected, {survived} survived."]
    return "\n".join(lines)


def main(
    n: Annotated[int, typer.Option(help="Faults to inject.", min=1)] = 15,
    seed: Annotated[int, typer.Option(help="Of kinds, moments and their order.")] = 0,
    minutes: Annotated[float, typer.Option(help="No more are injected after so long.")] = 600.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="File to write.")] = None,
    fault: Annotated[list[str] | None, typer.Option(help="Only these kinds.")] = None,
) -> None:
    """Inject faults into campaigns, and say what became of them."""
    faults = list(fault or EXPECTED)
    if unknown := [name for name in faults if name not in EXPECTED]:
        raise typer.BadParameter(f"No fault {unknown[0]!r}; known: {', '.join(EXPECTED)}.")
    if "disk full" in faults and not can_mount():
        typer.echo("No disk is filled: no file system can be mounted here.", err=True)
        faults.remove("disk full")
    rows: list[dict[str, Any]] = []
    stop = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory() as top:
        for trial in run_trials(Path(top), n, seed, faults):
            rows.append(asdict(trial))
            typer.echo(f"{trial}", err=True)
            if json_file is not None:
                write(json_file, seed, rows)
            if time.monotonic() > stop:
                break
    typer.echo(table(rows))
    raise typer.Exit(0 if all(row["survived"] for row in rows) else 1)


if __name__ == "__main__":
    typer.run(main)
