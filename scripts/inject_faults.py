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

import json
import platform
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from fault_campaigns import FOLDER, Campaign, are_equal, weights
from fault_kinds import EXPECTED, can_mount, enlarge, results_folder, strike

from hippynn_mf.files import replace_when_complete

FINISH_SECONDS = 400.0
INTERRUPT_SECONDS = 10.0  # from Ctrl-C to the prompt
ORPHAN_SECONDS = 60.0  # from the end of the parent to that of all others
MAX_DRAWS = 4  # of a moment, each half of the one before, until a campaign is hit


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
