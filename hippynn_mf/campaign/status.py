"""What the runs of a folder are doing: read from their files, without touching them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from hippynn_mf.campaign.lease import read_campaign
from hippynn_mf.errors import UserError
from hippynn_mf.runs.folder import RunFolder, find_runs, no_runs_message, run_folder_name
from hippynn_mf.runs.progress import format_duration

RunState = Literal["finished", "running", "failed", "interrupted", "waiting", "broken"]

N_LOG_LINES = 5


@dataclass(frozen=True)
class RunStatus:
    """One run of a folder. `best` is the best stopping metric of its phase so far, in kcal/mol."""

    name: str
    seed: int
    state: RunState
    n_epochs: int = 0
    max_epochs: int | None = None
    best: float | None = None
    seconds_left: float | None = None  # at most, since a training may stop earlier
    problem: str | None = None
    log: list[str] = field(default_factory=list)
    split_seed: int = 0


def read_status(out: Path) -> list[RunStatus]:
    """The runs below `out`, and those of its campaign that have not begun.

    Raises UserError if there is neither.
    """
    folders = find_runs(out)
    campaign = read_campaign(out) or {"runs": []}
    begun = {folder.path for folder in folders}
    waiting = [
        RunStatus(name, seed, "waiting", split_seed=sum(split))
        for name, slug, seed, *split in campaign["runs"]  # none, of an older version
        if out / "runs" / slug / run_folder_name(seed, sum(split)) not in begun
    ]
    if not folders and not waiting:
        raise UserError(no_runs_message(out))
    return [_status_of(folder) for folder in folders] + waiting


def _status_of(folder: RunFolder) -> RunStatus:
    try:
        settings = folder.read_settings()
        begun = [f for f in folder.phases(settings) if f.file("epochs.jsonl").exists()]
        by_phase = [epochs for phase in begun if (epochs := phase.read_epochs())]
        if folder.is_finished:
            folder.read_metrics()
    except UserError as error:
        seed, split = (
            int(text) if text.isdecimal() else -1
            for text in (folder.path.name.removeprefix("seed-") + "-split-0").split("-split-")[:2]
        )
        name = folder.path.parent.name
        return RunStatus(name, seed, "broken", problem=str(error), split_seed=split)
    max_epochs = settings.n_epochs_planned
    epochs = [epoch for phase_epochs in by_phase for epoch in phase_epochs]
    known: dict[str, Any] = {
        "name": settings.name,
        "seed": settings.seed,
        "split_seed": settings.split_seed,
        "n_epochs": len(epochs),
        "max_epochs": max_epochs,
    }
    last_phase = settings.experiment.phases[-1]
    key = last_phase.hyperparameters(settings.hyperparameters).stopping_key(last_phase.labels)
    if epochs:
        known["best"] = min(epoch["valid"][key] for epoch in by_phase[-1])
    if folder.is_finished:
        return RunStatus(**known, state="finished")
    if folder.is_locked:
        if epochs:
            seconds = statistics.mean(epoch["wall_s"] for epoch in epochs)
            known["seconds_left"] = seconds * (max_epochs - len(epochs))
        return RunStatus(**known, state="running")
    failure = folder.read_failure()
    if failure is None:
        return RunStatus(**known, state="interrupted")
    return RunStatus(**known, state="failed", problem=failure, log=folder.read_log(N_LOG_LINES))


def format_status(statuses: Sequence[RunStatus]) -> str:
    """A table of the runs, then every failure with the last lines of its log."""
    width = max(len(status.name) for status in statuses)
    splits = any(s.split_seed for s in statuses)
    head = "  split" if splits else ""
    lines = [
        f"{'run':<{width}}  seed{head}  {'state':<11}  {'epochs':>10}  {'best':>8}  {'left':>8}"
    ]
    for s in statuses:
        epochs = "" if s.max_epochs is None else f"{s.n_epochs}/{s.max_epochs}"
        best = "" if s.best is None else f"{s.best:.3f}"
        left = "" if s.seconds_left is None else format_duration(s.seconds_left)
        split = f"  {s.split_seed:>5}" if splits else ""
        lines.append(
            f"{s.name:<{width}}  {s.seed:>4}{split}  {s.state:<11}  {epochs:>10}  {best:>8}  "
            f"{left:>8}"
        )
    for s in statuses:
        if s.problem is not None:
            lines += ["", f"{s.name}, seed {s.seed}, {s.state}: {s.problem}"]
            lines += [f"    {line}" for line in s.log]
    counts = {
        state: sum(s.state == state for s in statuses) for s in statuses for state in [s.state]
    }
    summary = ", ".join(f"{count} {state}" for state, count in counts.items())
    lines += ["", f"{len(statuses)} runs: {summary}."]
    lines += ["best: stopping metric (RMSE of validation energies, kcal/mol); left: at most."]
    return "\n".join(lines)


def plain_status(statuses: Sequence[RunStatus]) -> list[dict[str, Any]]:
    """The same as JSON."""
    return [asdict(status) for status in statuses]
