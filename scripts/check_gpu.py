"""What `check_gpu.sh` runs on a GPU, in eight minutes: tests, benchmarks, an epoch of a training.

Every part has a limit of its own and what earlier ones left of theirs, and what is too slow is
ended and noted; the limits add up to less than eight minutes. The file has, for every part, its
command, seconds, outcome and what it measured. Exit code 0 if all succeeded, 1 if not, 2 without a
GPU.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any
from xml.etree import ElementTree

import torch
import typer

from hippynn_mf.files import replace_when_complete

SCRIPTS = Path(__file__).parent
RESULTS = SCRIPTS / "benchmarks"
FAILED, TOO_SLOW, SUCCEEDED = "failed", "too slow", "succeeded"
LAST_LINES = 15


@dataclass(frozen=True)
class Part:
    """A command, its limit in seconds, and how to read what it measured."""

    name: str
    command: Sequence[str]
    limit_s: float
    read: Callable[[], Any]


def parts(device: str, folder: Path) -> list[Part]:
    """All parts, which write below a folder; the most telling ones first."""
    python, out = sys.executable, str(folder)
    tests, run = folder / "tests.xml", folder / "run"
    start = [python, "-c", "from hippynn_mf.cli.start import main; main()"]
    train = [*start, "train", "MF-DZ/EF-CC/E", "--set", "max_epochs=1"]
    of_device = ["--device", device]

    def benchmark(name: str, limit_s: float, *options: str) -> Part:
        script = str(SCRIPTS / f"benchmark_{name}.py")
        command = [python, script, *of_device, "--out", out, *options]
        return Part(
            name, command, limit_s, lambda: json.loads((folder / f"{name}.json").read_text())
        )

    pytest = [python, "-m", "pytest", "-m", "gpu", "-n", "0", "-q", f"--junitxml={tests}"]
    return [
        Part("tests", pytest, 110, lambda: read_tests(tests, device)),
        Part("epoch", [*train, *of_device, "--out", str(run)], 80, lambda: read_epoch(run)),
        benchmark("traced", 120, "--only", "paper, 14 atoms"),
        benchmark("inference", 60, "--repeats", "3"),
        benchmark("step", 90, "--repeats", "5"),
    ]


def read_tests(path: Path, device: str) -> dict[str, int]:
    """Counts of tests; ValueError if a GPU was there, but not all of them ran."""
    (suite,) = ElementTree.parse(path).getroot().iter("testsuite")
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    if device != "cpu" and (counts["skipped"] or not counts["tests"]):
        raise ValueError(f"not all tests ran: {counts}")
    return counts


def read_epoch(folder: Path) -> dict[str, Any]:
    """The device, interaction and seconds of the epoch of a run."""
    (facts,) = folder.rglob("experiment.json")
    (epoch,) = map(json.loads, (facts.parent / "epochs.jsonl").read_text().splitlines())
    found = json.loads(facts.read_text())
    return {
        "device_used": found["device_used"],
        "interaction_used": found["interaction_used"],
        "wall_s": epoch["wall_s"],
        "valid": epoch["valid"],
    }


def run_part(part: Part, limit_s: float) -> dict[str, Any]:
    """Run a part in a process group of its own, and end it at a limit."""
    start = time.monotonic()
    process = subprocess.Popen(
        part.command,
        cwd=SCRIPTS.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=limit_s)
        outcome = SUCCEEDED if process.returncode == 0 else FAILED
    except BaseException as error:  # also where this process is told to end
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        outcome = TOO_SLOW
    result = {"outcome": outcome, "seconds": round(time.monotonic() - start, 1)}
    result |= {"limit_s": round(limit_s, 1), "command": " ".join(map(str, part.command))}
    if outcome == SUCCEEDED:
        try:
            return result | {"measured": part.read()}
        except (OSError, ValueError, LookupError, ElementTree.ParseError) as error:
            result |= {"outcome": FAILED, "reason": f"{type(error).__name__}: {error}"}
    return result | {"last_lines": output.splitlines()[-LAST_LINES:]}


def check(chosen: Sequence[Part]) -> dict[str, Any]:
    """Run the parts one after another; results by their names.

    What a part leaves of its time is the next one's.
    """
    results = {}
    spare_s = 0.0
    for part in chosen:
        limit_s = part.limit_s + spare_s
        results[part.name] = run_part(part, limit_s)
        spare_s = max(0.0, limit_s - results[part.name]["seconds"])
        outcome, seconds = results[part.name]["outcome"], results[part.name]["seconds"]
        typer.echo(f"{part.name}: {outcome}, {seconds:.0f} s")
    return results


def machine(device: str) -> dict[str, Any]:
    """Device and versions."""
    names = ("hippynn_mf", "hippynn", "torch", "numpy")
    is_gpu = torch.device(device).type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if is_gpu else "CPU (a trial of the check)",
        "cuda": torch.version.cuda,
        "versions": {name: version(name) for name in names},
    }


def main(
    file: Annotated[Path, typer.Argument(help="The results.")] = RESULTS / "gpu_check.json",
    device: Annotated[str, typer.Option(hidden=True)] = "cuda",
) -> None:
    """Check the GPU of this machine."""
    if device != "cpu" and not torch.cuda.is_available():
        typer.echo("No GPU: torch sees no CUDA device here, so nothing was checked.", err=True)
        raise SystemExit(2)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory() as folder:
        results = machine(device) | {"parts": check(parts(device, Path(folder)))}
    file.parent.mkdir(parents=True, exist_ok=True)
    with replace_when_complete(file) as path:
        path.write_text(json.dumps(results, indent=1) + "\n")
    typer.echo(f"Written: {file}")
    raise SystemExit(any(part["outcome"] != SUCCEEDED for part in results["parts"].values()))


if __name__ == "__main__":
    typer.run(main)
