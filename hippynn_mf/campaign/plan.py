"""What a campaign would do: its runs, and a short probe of what one costs on this device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hippynn_mf.errors import UserError
from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.runs.progress import format_duration
from hippynn_mf.runs.same_run import refuse_other_run
from hippynn_mf.runs.settings import RunSettings

N_STEPS = 20


@dataclass(frozen=True)
class PlannedRun:
    """A run of a campaign, and what is there of it."""

    settings: RunSettings
    state: Literal["to do", "to continue", "done", "broken"]
    detail: str = ""


@dataclass(frozen=True)
class Probe:
    """What a run of one experiment costs on this device, from `N_STEPS` training steps."""

    settings: RunSettings
    device: str
    structures_per_s: float
    seconds_per_run: float  # of all epochs, since nobody knows where a training stops earlier
    memory_gib: float  # most memory of the process; on a GPU, of the device

    def seconds_of(self, settings: RunSettings) -> float:
        """Estimate for another experiment, by the measured relative costs of a step."""
        costs = settings.experiment.relative_cost / self.settings.experiment.relative_cost
        return self.seconds_per_run * costs


def plan_runs(runs: Sequence[RunSettings], out: Path) -> list[PlannedRun]:
    """What is there of each run in `out`; nothing is changed."""
    return [_plan_run(settings, RunFolder.of(out, settings)) for settings in runs]


def _plan_run(settings: RunSettings, folder: RunFolder) -> PlannedRun:
    try:
        refuse_other_run(folder, settings)
        if folder.is_finished:
            folder.read_metrics()
            return PlannedRun(settings, "done")
        if folder.n_epochs:
            epochs = f"{folder.n_epochs} of {settings.n_epochs_planned} epochs"
            return PlannedRun(settings, "to continue", epochs)
    except UserError as error:
        return PlannedRun(settings, "broken", str(error))
    return PlannedRun(settings, "to do")


def format_plan(planned: Sequence[PlannedRun], probed: Probe | None, n_workers: int | None) -> str:
    """The plan as text: counts, every run that is not done, and the time that the rest takes."""
    counts = Counter(run.state for run in planned)
    lines = [f"{len(planned)} runs: " + ", ".join(f"{n} {state}" for state, n in counts.items())]
    width = max(len(run.settings.name) for run in planned)
    for run in planned:
        if run.state == "done":
            continue
        settings = run.settings
        of_split = f"  split seed {settings.split_seed}" if settings.split_seed else ""
        line = f"{settings.name:<{width}}  seed {settings.seed:>2}{of_split}  {run.state}"
        if probed is not None and run.state != "broken":
            line += f", {format_duration(probed.seconds_of(settings))} from the start"
        lines.append(line + (f": {run.detail}" if run.detail else ""))
    if probed is None:
        return "\n".join(lines)
    lines += [
        "",
        f"{N_STEPS} steps of {probed.settings.name} on this device ({probed.device}): "
        f"{probed.structures_per_s:.0f} structures per second, "
        f"{format_duration(probed.seconds_per_run)} per run, {probed.memory_gib:.2f} GiB.",
        "Times are for all epochs and without the evaluation; a training may stop earlier.",
    ]
    if n_workers is not None:
        unfinished = [run.settings for run in planned if run.state in ("to do", "to continue")]
        seconds = [probed.seconds_of(settings) for settings in unfinished]
        total = max(sum(seconds) / n_workers, *seconds, 0)
        lines.append(f"Together about {format_duration(total)} with {n_workers} workers.")
    return "\n".join(lines)
