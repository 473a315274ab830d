"""Parsl's interchanges, watched: without one, Parsl waits for the results of its tasks for ever."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, InvalidStateError
from contextlib import contextmanager, suppress
from typing import Any

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0  # between looks at the interchange
ANSWER_SECONDS = 10.0  # in which the interchange, a process on this machine, must answer


def lost_interchange(executors: Any) -> str | None:
    """Why an interchange does not work any more, None if all do."""
    for executor in executors:
        process = getattr(executor, "interchange_proc", None)
        if process is not None and process.poll() is not None:
            code = process.returncode
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            return f"its interchange (process {process.pid}) has ended by {how}"
        client = getattr(executor, "command_client", None)
        if client is not None and not client.ok:
            return f"its interchange has not answered for {ANSWER_SECONDS:.0f} s"
    return None


@contextmanager
def interchanges_watched(executors: Any) -> Iterator[None]:
    """Inside, fail all tasks when an interchange is lost: Parsl would wait for it for ever."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(LOOK_SECONDS):
            if (reason := lost_interchange(executors)) is not None:
                log.warning("Parsl is lost: %s; it is started again", reason)
                fail_all(executors, f"Parsl is lost: {reason}")
                return

    threading.Thread(target=watch, daemon=True, name="watch_interchanges").start()
    try:
        yield
    finally:
        over.set()


def fail_all(executors: Any, reason: str) -> None:
    """Fail every task, as with an executor that is broken."""
    for executor in executors:
        if not getattr(executor, "bad_state_is_set", True):
            # It stops short where Parsl's own thread finishes a task at the same time.
            with suppress(InvalidStateError, RuntimeError):
                executor.set_bad_state_and_fail_all(BrokenExecutor(reason))
            for task in list(getattr(executor, "tasks", {}).values()):
                with suppress(InvalidStateError):
                    task.set_exception(BrokenExecutor(reason))
