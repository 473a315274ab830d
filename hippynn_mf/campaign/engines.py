"""Engines of a campaign: what executes runs, in this process, in a pool, or through Parsl."""

from __future__ import annotations

import importlib.util
import logging
import multiprocessing
import os
import runpy
import shlex
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from hippynn_mf.campaign.processes import (
    end_marked,
    end_with_parent,
    guarded,
    interrupts_blocked,
    stopped_ended,
    wait_for_end,
)
from hippynn_mf.errors import UserError
from hippynn_mf.starting import share_cores

if TYPE_CHECKING:
    from parsl import Config

log = logging.getLogger(__name__)

END_SECONDS = 10.0  # for the idle workers of a pool to end
HEARTBEAT_SECONDS = 2  # within which a local worker that was killed is noticed
LOST_AFTER_SECONDS = 30


@dataclass(frozen=True)
class LocalPool:
    """Engine of `n_workers` processes of Python's own pool on this machine."""

    n_workers: int

    @property
    def n_at_once(self) -> int:
        """As many as there are workers: a worker that is killed takes all others along."""
        return self.n_workers

    @property
    def n_threads(self) -> int:
        """The workers share the cores, or have what OMP_NUM_THREADS says."""
        return share_cores(self.n_workers)

    @contextmanager
    def open(self, out: Path) -> Iterator[Executor]:
        """A process pool."""
        if os.name == "posix":  # before there is a mark, since it lives as long as this process
            resource_tracker.ensure_running()
        with guarded() as mark:
            pool = _QuietPool(
                self.n_workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_begin_worker,
            )
            is_whole = False
            try:
                with stopped_ended(mark, lambda message: log.warning("%s", message)):
                    yield pool
                is_whole = True
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
                # What does not end by itself is killed, also after another interrupt; a broken pool
                # would wait for ever for a worker that somebody has stopped.
                try:
                    is_whole = is_whole and wait_for_end(mark, END_SECONDS)
                finally:
                    if not is_whole:
                        end_marked(mark)


def _begin_worker() -> None:
    """End with the campaign, also before the first run; own nothing that a kill would leave."""
    end_with_parent()
    tqdm.set_lock(threading.RLock())  # else a semaphore of the system, for bars nobody sees


class _QuietPool(ProcessPoolExecutor):
    """Workers do not hear Ctrl-C, which the terminal sends to all: the campaign ends them."""

    def submit(self, *arguments: Any, **options: Any) -> Any:
        with interrupts_blocked():  # workers are started here
            future = super().submit(*arguments, **options)
        # CPython tells the thread that watches workers of a task before it starts a worker for it:
        # without another word, a worker that is killed before the next task is not missed.
        with self._shutdown_lock:
            self._executor_manager_thread_wakeup.wakeup()
        return future


@dataclass(frozen=True)
class ParslSite:
    """Engine of the machines of a Parsl configuration.

    `site` is a file that defines `config`; None for `n_workers` processes on this machine, with one
    of `gpus`, as CUDA_VISIBLE_DEVICES names them, each if there are any.
    """

    site: Path | None = None
    n_workers: int = 1
    gpus: tuple[str, ...] = ()

    @property
    def n_at_once(self) -> None:
        """Parsl keeps a queue, and asks for as many machines as it fills."""

    @property
    def n_threads(self) -> int | None:
        """On this machine the workers share the cores, or have what OMP_NUM_THREADS says."""
        return None if self.site else share_cores(self.n_workers)

    @contextmanager
    def open(self, out: Path) -> Iterator[Executor]:
        """Parsl's pool; the processes that it starts here end with this one."""
        require_parsl()
        from hippynn_mf.campaign.parsl_session import parsl_pool

        with parsl_pool(lambda: self._config(out)) as pool:
            yield pool

    def _config(self, out: Path) -> Config:
        return self._local_config(out) if self.site is None else read_site(self.site)

    def _local_config(self, out: Path) -> Config:
        from parsl import Config
        from parsl.executors import HighThroughputExecutor
        from parsl.providers import LocalProvider

        # Parsl's, where no environment is activated
        scripts = shlex.quote(str(Path(sys.executable).parent))
        executor = HighThroughputExecutor(
            label="local",
            address="127.0.0.1",
            max_workers_per_node=self.n_workers,
            cores_per_worker=1e-3,  # `n_workers` alone decides
            available_accelerators=self.gpus,
            heartbeat_period=HEARTBEAT_SECONDS,
            heartbeat_threshold=LOST_AFTER_SECONDS,
            provider=LocalProvider(  # type: ignore[no-untyped-call]
                init_blocks=1, max_blocks=1, worker_init=f'export PATH={scripts}:"$PATH"'
            ),
        )
        return Config([executor], run_dir=str(out / "parsl"), strategy="none", usage_tracking=0)


def require_parsl() -> None:
    """Raise UserError where Parsl is not installed, as on Windows, for which it is not made."""
    if importlib.util.find_spec("parsl") is None:
        raise UserError("Parsl is not installed here; install it, or choose --engine pool.")


def read_site(path: Path) -> Config:
    """The Parsl configuration that a Python file defines as `config`.

    Raises UserError if there is none, or if the file fails.
    """
    require_parsl()
    from parsl import Config

    if not path.is_file():
        raise UserError(f"No file {path}. Examples of sites are under scripts/sites/.")
    try:
        config = runpy.run_path(str(path)).get("config")
    except Exception as error:
        raise UserError(f"{path} failed: {type(error).__name__}: {error}") from None
    if not isinstance(config, Config):
        raise UserError(
            f"{path} should define `config`, a parsl.Config; found {type(config).__name__}. "
            "Examples are under scripts/sites/."
        )
    return config
