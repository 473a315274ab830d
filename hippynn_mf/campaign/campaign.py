"""Many runs: which are to do, one campaign per folder, and lost workers replaced."""

from __future__ import annotations

import functools
import os
import sys
import textwrap
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from pathlib import Path

from hippynn_mf.campaign.blocks import NoWorkersError
from hippynn_mf.campaign.lease import Owner, end_with, owned, refuse_owned
from hippynn_mf.engine import Engine
from hippynn_mf.errors import UserError, describe_error, ignore_import_warnings
from hippynn_mf.runs.execute import Outcome, announce, execute_run, run_name, select_unfinished
from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.runs.progress import Progress
from hippynn_mf.runs.settings import RunKey, RunSettings
from hippynn_mf.starting import import_hippynn, share_cores

# A run whose worker is lost is given to another; so often without a new epoch, it has failed.
MAX_LOSSES = 3
MAX_REFUSALS = 3  # of an engine that breaks so often in a row before it has taken a run
# A worker that its campaign has lost sight of may go on for so long on another machine.
WORKER_WAIT_SECONDS = 300.0
MAX_REASON = 300  # characters of what an engine says about it


def run_campaign(
    runs: Sequence[RunSettings],
    out: Path,
    *,
    engine: Engine,
    progress: bool = True,
    announcement: str = "",
) -> list[Outcome]:
    """Execute the runs that are not finished in `out`, with a progress bar over their epochs.

    Finished runs are left as they are; a run that was interrupted continues. A run that fails is an
    outcome and the others go on; one whose worker is lost is given to another worker, as long as it
    makes progress. The outcomes are in the order of `runs`. An `announcement` is printed once
    nothing would be refused any more.

    Raises UserError before anything starts for wrong input, for runs of other settings in the same
    folders, and for a folder in which another campaign runs; later, if the engine has no workers
    and gets none.
    """
    refuse_owned(out)  # first, since reading large files takes minutes
    to_do = select_unfinished(runs, out)
    announce(announcement)
    errors: dict[RunKey, str | None] = {}
    if to_do:
        with owned(out, runs) as owner, Progress(to_do, out, disable=not progress) as shown:
            for outcome in _execute(to_do, out, engine, owner, shown):
                errors[outcome.settings.key] = outcome.error
                shown.ended(outcome.settings.key, finished=outcome.error is None)
                if outcome.error and len(to_do) > 1:
                    shown.say(f"failed: {run_name(outcome.settings)}: {outcome.error}")
    return [Outcome(settings, errors.get(settings.key)) for settings in runs]


def _execute(
    runs: Sequence[RunSettings], out: Path, engine: Engine, owner: Owner, shown: Progress
) -> Iterator[Outcome]:
    """Outcomes of the runs as they come; a broken executor is replaced by a new one."""
    waiting = deque(runs)
    losses = _Losses(out)
    n_refusals = 0
    while waiting:
        with engine.open(out) as executor:
            futures: dict[Future[str | None], RunSettings] = {}
            is_broken = False
            n_refusals += 1
            while futures or (waiting and not is_broken):
                while waiting and not is_broken and len(futures) != engine.n_at_once:
                    try:
                        future = _submit(executor, waiting[0], out, owner, engine.n_threads)
                        futures[future] = waiting.popleft()
                        n_refusals = 0
                    except BrokenExecutor as refusal:
                        is_broken = True
                        if n_refusals == MAX_REFUSALS:
                            reason = textwrap.shorten(describe_error(refusal), MAX_REASON)
                            raise UserError(
                                f"The engine broke {MAX_REFUSALS} times before it took a run "
                                f"({reason}). The same command continues."
                            ) from None
                for future in wait(futures, return_when=FIRST_COMPLETED).done:
                    settings = futures.pop(future)
                    error = future.exception()
                    if error is None:
                        yield Outcome(settings, future.result())
                        continue
                    if isinstance(error, NoWorkersError):
                        raise error
                    is_broken = is_broken or isinstance(error, BrokenExecutor)
                    what = textwrap.shorten(describe_error(error), MAX_REASON)
                    reason = f"its worker was lost ({what})"
                    if losses.allow_another(settings):
                        shown.say(f"{run_name(settings)}: {reason}; it continues in another")
                        waiting.append(settings)
                    else:
                        yield Outcome(settings, f"{reason}, {MAX_LOSSES} times without a new epoch")


def _submit(
    executor: Executor, settings: RunSettings, out: Path, owner: Owner, n_threads: int | None
) -> Future[str | None]:
    return executor.submit(
        execute_in_worker,
        settings.model_dump_json(),
        str(out.absolute()),
        owner,
        n_threads,
    )


class _Losses:
    """Counts how often a run lost its worker since its last new epoch."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.losses: Counter[RunKey] = Counter()
        self.n_epochs: Counter[RunKey] = Counter()

    def allow_another(self, settings: RunSettings) -> bool:
        """Note a loss; whether the run is worth another worker."""
        key, n_epochs = settings.key, RunFolder.of(self.out, settings).n_epochs
        if n_epochs > self.n_epochs[key]:
            self.losses[key] = 0
        self.n_epochs[key] = n_epochs
        self.losses[key] += 1
        return self.losses[key] < MAX_LOSSES


def execute_in_worker(
    settings_json: str, out: str, owner: Owner, n_threads: int | None
) -> str | None:
    """`execute_run` in a process, on whatever machine, that works for a campaign."""
    if not owner.is_alive(Path(out)):
        os._exit(1)  # a queue that outlived its campaign
    _start_worker(owner, out, n_threads)
    settings = RunSettings.model_validate_json(settings_json)
    return execute_run(settings, Path(out), wait_s=WORKER_WAIT_SECONDS)


@functools.cache  # once per process
def _start_worker(owner: Owner, out: str, n_threads: int | None) -> None:
    end_with(owner, Path(out))
    ignore_import_warnings()
    if n_threads is None:  # Parsl says how many workers share the cores
        n_threads = share_cores(int(os.environ.get("PARSL_WORKER_COUNT", "1")))
    if "numba" not in sys.modules:
        os.environ.setdefault("NUMBA_NUM_THREADS", str(n_threads))
    import torch

    torch.set_num_threads(n_threads)
    import_hippynn()
