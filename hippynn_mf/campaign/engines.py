"""Engines of a campaign: what executes runs, in this process, in a pool, or through Parsl."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hippynn_mf.errors import UserError

if TYPE_CHECKING:
    from parsl import Config

HEARTBEAT_SECONDS = 2  # within which a local worker that was killed is noticed
LOST_AFTER_SECONDS = 30


class Engine(Protocol):
    """Opens executors, which run functions on whatever the engine stands for.

    A future that raises tells that its worker was lost; what goes wrong in a run is a result.
    """

    @property
    def n_at_once(self) -> int | None:
        """How many runs to hand over at a time, None for all."""

    @property
    def n_threads(self) -> int | None:
        """Threads of each worker, None to share the cores of its machine."""

    @contextmanager
    def open(self, out: Path) -> Iterator[Executor]:
        """An executor; when the block ends by an exception, its runs are stopped."""


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
        """The workers share the cores."""
        return max(1, available_cores() // self.n_workers)

    @contextmanager
    def open(self, out: Path) -> Iterator[Executor]:
        """A process pool."""
        before = set(multiprocessing.active_children())
        pool = ProcessPoolExecutor(self.n_workers, mp_context=multiprocessing.get_context("spawn"))
        try:
            yield pool
        except BaseException:  # also an interrupt
            for process in set(multiprocessing.active_children()) - before:
                process.terminate()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


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
        """On this machine the workers share the cores."""
        return None if self.site else max(1, available_cores() // self.n_workers)

    @contextmanager
    def open(self, out: Path) -> Iterator[Executor]:
        """Parsl's pool; the processes that it starts here end with this one."""
        require_parsl()
        from parsl import DataFlowKernel
        from parsl.concurrent import ParslPoolExecutor

        class _Watched(ParslPoolExecutor):
            """Says when a block has failed for good, after which Parsl fails every task."""

            def submit(self, *arguments: Any, **options: Any) -> Any:
                if any(getattr(e, "bad_state_is_set", False) for e in kernel.executors.values()):
                    raise BrokenExecutor("Parsl has given up its executor")
                return super().submit(*arguments, **options)  # type: ignore[no-untyped-call]

        config = self._local_config(out) if self.site is None else read_site(self.site)
        kernel = DataFlowKernel(config)
        try:
            with _guarded(kernel):
                yield _Watched(dfk=kernel)
        finally:
            kernel.cleanup()

    def _local_config(self, out: Path) -> Config:
        from parsl import Config
        from parsl.executors import HighThroughputExecutor
        from parsl.providers import LocalProvider

        scripts = Path(sys.executable).parent  # Parsl's, where no environment is activated
        executor = HighThroughputExecutor(
            label="local",
            address="127.0.0.1",
            max_workers_per_node=self.n_workers,
            cores_per_worker=1e-3,  # `n_workers` alone decides
            available_accelerators=self.gpus,
            heartbeat_period=HEARTBEAT_SECONDS,
            heartbeat_threshold=LOST_AFTER_SECONDS,
            provider=LocalProvider(  # type: ignore[no-untyped-call]
                init_blocks=1, max_blocks=1, worker_init=f'export PATH="{scripts}:$PATH"'
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


@contextmanager
def _guarded(kernel: Any) -> Iterator[None]:
    """End Parsl's interchanges when this process ends, however it ends.

    They would stay, and with them the managers that they talk to; a pipe that closes tells a small
    process of ours to end them.
    """
    executors = kernel.executors.values()
    processes = [getattr(executor, "interchange_proc", None) for executor in executors]
    pids = [str(process.pid) for process in processes if process is not None]
    script = (
        "import os, signal, sys\n"
        "if not sys.stdin.read():\n"
        "    for pid in sys.argv[1:]:\n"
        "        try: os.kill(int(pid), signal.SIGTERM)\n"
        "        except ProcessLookupError: pass\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, *pids], stdin=subprocess.PIPE, start_new_session=True
    ) as guard:
        try:
            yield
        finally:
            guard.communicate(b"done")


def available_cores() -> int:
    """Cores that this process may use, which a cluster may limit."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
