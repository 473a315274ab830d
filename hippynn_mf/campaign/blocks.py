"""Blocks of Parsl's workers: requested again when they are gone and runs wait; never without end.

Parsl's strategies look at blocks only, and 'none' requests each once. A manager that was suspended
together with the campaign, as by a laptop that sleeps, is taken for lost and ends in good order:
its block has "completed", and nothing would ever start another.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from concurrent.futures import InvalidStateError
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hippynn_mf.errors import UserError

if TYPE_CHECKING:
    from parsl.jobs.states import JobStatus

GONE_LOOKS = 2  # without any block: a strategy of Parsl's that requests some does so at the first
START_SECONDS = 600.0  # of a block that runs, for its first manager to connect
CANCEL_SECONDS = 300.0  # for a block to end that has been cancelled
MAX_FAILURES = 3  # in a row, for each block that is requested at the start
MAX_REASON = 300  # characters of what a block has said


class NoWorkersError(UserError):
    """An engine has no workers and gets none; its campaign cannot go on."""


class BlockKeeper:
    """Parsl's `block_error_handler` of one executor, which Parsl calls every `look_s` seconds.

    Where runs wait, no manager is connected, and no block is in a queue or starts, blocks are
    requested again, as many as at the start, within the provider's limits. Blocks that end before
    they have taken a run are counted; after `MAX_FAILURES` in a row all runs fail with a
    NoWorkersError. Looks are counted and not seconds, since this process may be suspended as well.
    """

    def __init__(
        self,
        look_s: float,
        say: Callable[[str], None],
        handler: Callable[..., None] | None = None,  # that is called first
    ) -> None:
        self.look_s = look_s
        self.say = say
        self.handler = handler
        self.n_looks = 0  # in a row that found no manager
        self.worked: set[str] = set()  # blocks that have taken a run
        self.forgiven: set[str] = set()  # that had ended when another took a run

    def __call__(self, executor: Any, status: dict[str, JobStatus]) -> None:
        """Look at the blocks, with their states, of an executor that has managers."""
        from parsl.jobs.states import JobState

        if self.handler is not None:
            self.handler(executor, status)
        if executor.bad_state_is_set or not executor.outstanding():
            self.n_looks = 0
            return
        alive = {block for block, job in status.items() if not job.terminal}
        ended = status.keys() - alive
        managers = [m for m in executor.connected_managers() if m["block_id"] in alive]
        if takers := {manager["block_id"] for manager in managers if manager["tasks"]}:
            self.worked |= takers
            self.forgiven = set(ended)
        if managers:
            self.n_looks = 0
            return
        failed = [
            block
            for block in sorted(ended - self.worked - self.forgiven, key=int)
            if status[block].state != JobState.SCALED_IN
        ]
        n_at_start = max(1, executor.provider.init_blocks)
        if len(failed) >= MAX_FAILURES * n_at_start:
            _give_up(
                executor,
                f"{len(failed)} blocks of workers in a row ended before they took a run "
                f"({_describe(status[failed[-1]])})",
            )
            return
        if any(status[block].state != JobState.RUNNING for block in alive):
            self.n_looks = 0  # in a queue, however long that takes
            return
        self.n_looks += 1
        n_allowed = GONE_LOOKS + self._n_looks_in(self._seconds_allowed(executor, alive))
        if self.n_looks < n_allowed:
            return
        if alive:
            if self.n_looks > n_allowed + self._n_looks_in(CANCEL_SECONDS):
                _give_up(executor, f"{len(alive)} blocks without a manager cannot be cancelled")
            else:
                executor.provider.cancel([executor.blocks_to_job_id[block] for block in alive])
            return
        n_blocks = min(n_at_start, max(1, executor.provider.max_blocks))
        self.say(
            f"Parsl has no worker ({executor.label}) while runs wait; {n_blocks} "
            f"block{'s' if n_blocks > 1 else ''} of workers requested again"
        )
        self.n_looks = 0
        executor.scale_out_facade(n_blocks)

    def _n_looks_in(self, seconds: float) -> int:
        return round(seconds / self.look_s)

    @staticmethod
    def _seconds_allowed(executor: Any, alive: set[str]) -> float:
        """For blocks that run to connect, or to end by themselves and be known to have ended."""
        if not alive:
            return 0.0
        if alive - set(executor.connected_blocks()):
            return START_SECONDS
        # So long they wait for the interchange that does not know them any more.
        seconds: float = executor.heartbeat_threshold + executor.provider.status_polling_interval
        return seconds


def _describe(job: JobStatus) -> str:
    """Why a block has ended, as far as it is known."""
    with suppress(OSError):  # a queue may not have written it
        for text in (job.stderr_summary, job.stdout_summary):
            if text and text.strip():
                return textwrap.shorten(text.strip().splitlines()[-1], MAX_REASON)
    return f"exit code {job.exit_code}" if job.exit_code else textwrap.shorten(str(job), MAX_REASON)


def _give_up(executor: Any, reason: str) -> None:
    logs = Path(executor.run_dir).resolve()
    error = NoWorkersError(
        f"Parsl gets no workers: {reason}. The logs of its blocks are in {logs}; when the reason "
        "is mended, the same command continues."
    )
    # First, since Parsl hides what the exception is.
    for task in list(executor.tasks.values()):
        with suppress(InvalidStateError):
            task.set_exception(error)
    with suppress(InvalidStateError, RuntimeError):  # all have ended
        executor.set_bad_state_and_fail_all(error)
