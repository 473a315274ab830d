"""Processor time of a whole run, start to metrics, at two commits, and the shares of its parts.

    python scripts/benchmark_run.py
    python scripts/benchmark_run.py --base 023c299 --repeats 3

Trains MF-DZ/EF-CC/E with preset quick on the embedded data, each commit in a git worktree of its
own and each run in a process of its own with one thread, in turn, after one epoch that fills the
caches. What is committed counts, not what is only in the working tree. Results are in
`scripts/benchmarks/run.json`; what is printed is their table.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from benchmarking import RESULTS, OutOption, start, write

HERE = Path(__file__).parent
EXPERIMENT = "MF-DZ/EF-CC/E"
THREADS = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@contextmanager
def worktree(commit: str, folder: Path) -> Iterator[Path]:
    """A commit of this repository in a folder, for a while."""
    git = ["git", "-C", str(HERE)]
    subprocess.run([*git, "worktree", "add", "--detach", "-q", str(folder), commit], check=True)
    # Its own experiments, not those of the checkout that is installed.
    (folder / "hippynn_mf" / "experiments").symlink_to(folder / "experiments")
    try:
        yield folder
    finally:
        subprocess.run([*git, "worktree", "remove", "--force", str(folder)], check=True)


def resolved(commit: str) -> str:
    """The abbreviated hash of a commit, which stays what it is while runs are measured."""
    command = ["git", "-C", str(HERE), "rev-parse", "--short", commit]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def run_once(package: Path, out: Path, options: Sequence[str]) -> dict[str, Any]:
    """Processor seconds of a run in a process of its own, by part, and what it reached."""
    shares = out / "shares.json"
    command = [sys.executable, str(HERE / "run_shares.py"), str(package), str(shares), "train"]
    command += [EXPERIMENT, "--seed", "0", "--preset", "quick", "--out", str(out)]
    command += [word for option in options for word in ("--set", option)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | dict.fromkeys(THREADS, "1")
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{package}: {done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    (metrics,) = out.glob("runs/*/seed-*/metrics.json")
    heldout = json.loads(metrics.read_text())["sets"]["heldout"]
    reached = {
        level: errors[level]["energy_rmse_kcal_per_mol"] for level, errors in heldout.items()
    }
    return {"cpu_s": cpu_s, "shares_s": json.loads(shares.read_text()), "energy_rmse": reached}


def row_of(
    name: str, commit: str, options: Sequence[str], runs: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """A row of results: the median run."""
    middle = statistics.median_low(run["cpu_s"] for run in runs)
    (median, *_) = (run for run in runs if run["cpu_s"] == middle)
    all_s = [run["cpu_s"] for run in runs]
    return {
        "what": name,
        "commit": commit,
        "experiment": EXPERIMENT,
        "set": list(options),
        "all_s": all_s,
        **median,
    }


def table(rows: list[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table, a line for every part."""
    lines = ["| CPU s | " + " | ".join(f"{r['what']} ({r['commit']})" for r in rows) + " |"]
    lines.append("|---" * (1 + len(rows)) + "|")
    parts = dict.fromkeys(part for row in rows for part in row["shares_s"])
    for part in sorted(parts, key=lambda part: -rows[0]["shares_s"].get(part, 0.0)):
        cells = [
            f"{row['shares_s'][part]:.2f} ({100 * row['shares_s'][part] / row['cpu_s']:.0f} %)"
            if part in row["shares_s"]
            else "in everything else"
            for row in rows
        ]
        lines.append(f"| {part} | " + " | ".join(cells) + " |")
    lines.append("| whole process | " + " | ".join(f"{row['cpu_s']:.1f}" for row in rows) + " |")
    return "\n".join(lines)


def main(
    base: Annotated[str, typer.Option(help="Commit to compare with.")] = "023c299",
    now: Annotated[str, typer.Option(help="Commit that is measured.")] = "HEAD",
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each.")] = 3,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE of both, as max_epochs=8.")
    ] = None,
    settings_now: Annotated[
        list[str] | None, typer.Option("--set-now", help="Of what is measured, not of the base.")
    ] = None,
    out: OutOption = RESULTS,
) -> None:
    """Time whole runs in turn; write `run.json` and print it as a Markdown table."""
    commits = {"base": resolved(base), "now": resolved(now)}
    options = {"base": settings or [], "now": [*(settings or []), *(settings_now or [])]}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in commits}
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        packages = {
            name: stack.enter_context(worktree(commit, folder / name))
            for name, commit in commits.items()
        }
        for repeat in range(-1, repeats):  # the first fills the caches
            for name, package in packages.items():
                of_run = folder / f"{name}-{repeat}"
                of_run.mkdir()
                fewer = ["max_epochs=1"] if repeat < 0 else []
                run = run_once(package, of_run, [*options[name], *fewer])
                if repeat >= 0:
                    runs[name].append(run)
    rows = [row_of(name, commits[name], options[name], runs[name]) for name in commits]
    write("run", rows, torch.device("cpu"), out)
    typer.echo(table(rows))


if __name__ == "__main__":
    start(main)
