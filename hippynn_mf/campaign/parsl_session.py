"""Parsl from start to end, with a limit to everything that it may wait for for ever."""

from __future__ import annotations

import atexit
import functools
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hippynn_mf.campaign.blocks import BlockKeeper, NoWorkersError
from hippynn_mf.campaign.interchanges import (
    ANSWER_SECONDS,
    fail_all,
    interchanges_watched,
    lost_interchange,
)
from hippynn_mf.campaign.plain_folder import plain_folder
from hippynn_mf.campaign.processes import (
    end_marked,
    guarded,
    interrupts_blocked,
    stopped_ended,
    wait_for_end,
)
from hippynn_mf.errors import UserError, describe_error

if TYPE_CHECKING:
    from parsl import Config

log = logging.getLogger(__name__)

CLOSE_SECONDS = 30.0  # for Parsl's own clean-up when all runs have ended
END_SECONDS = 2.0  # for its processes to follow
STOP_SECONDS = 3.0  # for it after an interrupt
CANCEL_SECONDS = 4.0  # for a queue to take back its jobs
MAX_STARTS = 3  # of an interchange that is lost before it has begun

is_abandoned = False  # whether threads of Parsl were left hanging: they may not let Python exit


class _LostAtStartError(Exception):
    """An interchange was lost before Parsl had started."""


@contextmanager
def parsl_pool(make_config: Callable[[], Config]) -> Iterator[Executor]:
    """Parsl's pool for a configuration; the processes that it starts here end with the block.

    Parsl is started again, from a new configuration, if its interchange is lost meanwhile. Raises
    UserError if it does not start. When an interchange is lost later, all futures fail.
    """
    with ExitStack() as stack:
        stack.enter_context(_quiet_logging())
        for n_left in reversed(range(MAX_STARTS)):
            config = make_config()
            try:
                pool = stack.enter_context(_started_pool(config))
                break
            except _LostAtStartError as lost:
                if not n_left:
                    raise UserError(
                        f"Parsl did not start, {MAX_STARTS} times: {lost}. Its log is in "
                        f"{config.run_dir}; --engine pool does without Parsl."
                    ) from None
                _say(f"Parsl is lost while it starts: {lost}; it is started again")
        yield pool


@contextmanager
def _started_pool(config: Config) -> Iterator[Executor]:
    with plain_folder(config) as links, guarded(*links) as mark:
        executors = config.executors
        kernel = None
        is_whole = False
        try:
            _prepare(config)
            with stopped_ended(mark, _say):
                kernel = _start(config, executors)
                with interchanges_watched(executors):
                    yield _make_pool(kernel)
            is_whole = not _has_given_up(executors)
        finally:
            _close(kernel, executors, mark, is_whole=is_whole)


def _say(message: str) -> None:
    log.warning("%s", message)


@contextmanager
def _quiet_logging() -> Iterator[None]:
    """Inside, a log that cannot be written, as on a full disk, prints no traceback per line."""
    before = logging.raiseExceptions
    logging.raiseExceptions = False
    try:
        yield
    finally:
        for handler in logging.getLogger("parsl").handlers:  # its threads may outlast it
            handler.handleError = _say_nothing  # type: ignore[method-assign]
        logging.raiseExceptions = before


def _say_nothing(record: logging.LogRecord) -> None:
    pass


def _prepare(config: Config) -> None:
    from parsl.executors.high_throughput.executor import DEFAULT_INTERCHANGE_LAUNCH_CMD

    program = str(Path(__file__).with_name("interchange.py"))
    executors: Any = config.executors  # of any kind
    for executor in executors:
        if hasattr(executor, "connected_managers"):
            executor.block_error_handler = BlockKeeper(
                config.strategy_period, _say, _handler_of_site(executor)
            )
        if getattr(executor, "interchange_launch_cmd", None) == DEFAULT_INTERCHANGE_LAUNCH_CMD:
            executor.interchange_launch_cmd = [sys.executable, "-P", program]


def _handler_of_site(executor: Any) -> Callable[..., None] | None:
    """What a site file says about blocks that end; None if that is Parsl's default.

    By the default a single block that fails would end all others of its executor.
    """
    from parsl.jobs.error_handlers import simple_error_handler

    handler: Callable[..., None] = executor.block_error_handler
    return None if handler is simple_error_handler else handler


def _start(config: Config, executors: Any) -> Any:
    """A started kernel. It starts in a thread, so that an interrupt need not wait for it."""
    from parsl import DataFlowKernel

    results: list[Any] = []
    problems: list[BaseException] = []

    def start() -> None:
        # Parsl's own threads, which start managers later, inherit it.
        with interrupts_blocked():
            try:
                results.append(DataFlowKernel(config))
            except BaseException as error:  # told below
                problems.append(error)

    thread = threading.Thread(target=start, daemon=True, name="start_parsl")
    thread.start()
    is_starting = True
    while is_starting:
        thread.join(0.1)
        is_starting = thread.is_alive()
        # Without an interchange it waits for two minutes, or fails by whatever it does with it.
        if (is_starting or problems) and (reason := lost_interchange(executors)) is not None:
            raise _LostAtStartError(reason)
    if problems:
        raise UserError(
            f"Parsl did not start ({describe_error(problems[0])}). Its log is in "
            f"{config.run_dir}; --engine pool does without Parsl."
        ) from None
    (kernel,) = results
    atexit.unregister(kernel.atexit_cleanup)  # it only warns
    for executor in executors:
        if (client := getattr(executor, "command_client", None)) is not None:
            client.run = functools.partial(client.run, timeout_s=ANSWER_SECONDS)
    return kernel


def _has_given_up(executors: Any) -> bool:
    return any(getattr(executor, "bad_state_is_set", False) for executor in executors)


def _make_pool(kernel: Any) -> Executor:
    from parsl.concurrent import ParslPoolExecutor

    class _Watched(ParslPoolExecutor):
        """Says when a block has failed for good, after which Parsl fails every task."""

        def submit(self, *arguments: Any, **options: Any) -> Any:
            for executor in kernel.executors.values():
                if _has_given_up([executor]):
                    problem = getattr(executor, "executor_exception", None)
                    if isinstance(problem, NoWorkersError):
                        raise problem
                    raise BrokenExecutor(f"Parsl has given up its executor: {problem}")
            return super().submit(*arguments, **options)  # type: ignore[no-untyped-call]

    return _Watched(dfk=kernel)


def _close(kernel: Any, executors: Any, mark: str, *, is_whole: bool) -> None:
    """End Parsl: in good order if all is well, else take back its jobs and kill its processes."""
    global is_abandoned
    is_over = False
    try:
        if is_whole:
            is_over = _within(CLOSE_SECONDS, kernel.cleanup) and wait_for_end(mark, END_SECONDS)
    finally:  # also after another interrupt
        if not is_over:
            _within(CANCEL_SECONDS, functools.partial(_cancel_jobs, executors))
            fail_all(executors, "the campaign has ended")  # so that Parsl asks nobody
            end_marked(mark)
            if kernel is None or kernel.cleanup_called or not _within(STOP_SECONDS, kernel.cleanup):
                is_abandoned = True


def _cancel_jobs(executors: Any) -> None:
    for executor in executors:
        jobs = list(getattr(executor, "job_ids_to_block", {}))
        if jobs:
            executor.provider.cancel(jobs)


def _within(seconds: float, function: Callable[[], object]) -> bool:
    """Whether a function ends in this time, in a thread that is left to itself otherwise."""

    def call() -> None:
        try:
            with interrupts_blocked():  # it starts commands that take back jobs
                function()
        except Exception:  # Parsl's own problems while it ends
            log.info("while Parsl ended", exc_info=True)

    thread = threading.Thread(target=call, daemon=True, name="end_parsl")
    thread.start()
    stop = time.monotonic() + seconds
    while thread.is_alive() and time.monotonic() < stop:
        thread.join(0.1)  # in pieces: an interrupt does not wait
    return not thread.is_alive()
