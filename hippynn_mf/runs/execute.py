"""Runs executed one after another in this process, and what every way to execute them shares."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hippynn_mf.errors import UserError, describe_error
from hippynn_mf.runs.folder import LOCK_WAIT_SECONDS, RunFolder
from hippynn_mf.runs.progress import Progress
from hippynn_mf.runs.same_run import refuse_other_run
from hippynn_mf.runs.settings import RunKey, RunSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `error` is None if it is finished, else what went wrong."""

    settings: RunSettings
    error: str | None


def run_here(
    runs: Sequence[RunSettings], out: Path, *, progress: bool = True, announcement: str = ""
) -> list[Outcome]:
    """Execute the runs that are not finished in `out`, one after another in this process.

    An `announcement` is printed once nothing would be refused any more. The outcomes are in the
    order of `runs`. Raises UserError before anything starts for wrong input, and for runs of other
    settings in the same folders.
    """
    to_do = select_unfinished(runs, out)
    announce(announcement)
    errors: dict[RunKey, str | None] = {}
    with Progress(to_do, out, disable=not progress) as shown:
        for settings in to_do:
            error = errors[settings.key] = execute_run(settings, out)
            shown.ended(settings.key, finished=error is None)
    return [Outcome(settings, errors.get(settings.key)) for settings in runs]


def announce(text: str) -> None:
    """One line on the terminal, none for no text."""
    if text:
        print(text, file=sys.stderr, flush=True)  # noqa: T201


def select_unfinished(runs: Sequence[RunSettings], out: Path) -> list[RunSettings]:
    """The runs that are not finished in `out`, after everything that would be refused."""
    for (slug, seed, _), count in Counter(settings.key for settings in runs).items():
        if count > 1:
            raise UserError(f"Run {slug}, seed {seed} is asked for twice.")
    for settings in runs:
        refuse_other_run(RunFolder.of(out, settings), settings)
    to_do = [settings for settings in runs if not RunFolder.of(out, settings).is_finished]
    if len(to_do) < len(runs):
        log.info("%d of %d runs are finished already", len(runs) - len(to_do), len(runs))
    if to_do:
        from hippynn_mf.runs.preflight import check_inputs

        check_inputs(to_do)
    return to_do


def execute_run(
    settings: RunSettings, out: Path, *, wait_s: float = LOCK_WAIT_SECONDS
) -> str | None:
    """Train and evaluate one run in this process; what went wrong, None if nothing did."""
    from hippynn_mf.runs.train import train_run

    try:
        train_run(settings, out, wait_s=wait_s)
    except Exception as error:
        if not isinstance(error, UserError):
            log.exception("%s", run_name(settings))
        return describe_error(error)
    return None


def run_name(settings: RunSettings) -> str:
    """A run in messages: its experiment and its seed, and that of its split if it is not 0."""
    of_split = f", split seed {settings.split_seed}" if settings.split_seed else ""
    return f"{settings.name}, seed {settings.seed}{of_split}"
