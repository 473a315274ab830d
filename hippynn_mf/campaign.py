"""Many runs: which ones there are, and an engine that executes them."""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.connection
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from hippynn_mf.errors import UserError
from hippynn_mf.levels import Level, known_levels, register_level
from hippynn_mf.runs import RunFolder, RunSettings

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `error` is None if it is finished, else what went wrong."""

    settings: RunSettings
    error: str | None


# An engine executes runs in any order and yields each outcome as soon as it is known. It may be
# called with finished runs, which it leaves as they are.
Engine = Callable[[Sequence[RunSettings], Path], Iterator[Outcome]]


def execute_run(settings: RunSettings, out: Path) -> Outcome:
    """Train and evaluate one run; a failure is an outcome, so that the other runs go on."""
    from hippynn_mf.running import train_run

    try:
        train_run(settings, out)
    except UserError as error:
        return Outcome(settings, str(error))
    except Exception as error:
        log.exception("%s, seed %d", settings.name, settings.seed)
        return Outcome(settings, f"{type(error).__name__}: {error}")
    return Outcome(settings, None)


def in_process(runs: Sequence[RunSettings], out: Path) -> Iterator[Outcome]:
    """Engine that executes runs one after another in this process."""
    for settings in runs:
        yield execute_run(settings, out)


@dataclass(frozen=True)
class LocalPool:
    """Engine of `n_workers` processes on this machine, which share its cores."""

    n_workers: int

    def __call__(self, runs: Sequence[RunSettings], out: Path) -> Iterator[Outcome]:
        """Execute the runs; if a worker is killed, all unfinished ones are reported as failed."""
        n_workers = min(self.n_workers, len(runs))
        n_threads = max(1, available_cores() // n_workers)
        children_of_others = set(multiprocessing.active_children())
        pool = ProcessPoolExecutor(
            n_workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=start_worker,
            initargs=(n_threads, known_levels()),
        )
        try:
            futures = {pool.submit(execute_run, settings, out): settings for settings in runs}
            for future in as_completed(futures):
                try:
                    yield future.result()
                except BrokenProcessPool:
                    yield Outcome(
                        futures[future], "a worker process was killed; the same command continues"
                    )
        except BaseException:  # also an interrupt, or a caller that stops listening
            for process in set(multiprocessing.active_children()) - children_of_others:
                process.terminate()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def available_cores() -> int:
    """Cores that this process may use, which a cluster may limit."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def start_worker(n_threads: int, levels: Sequence[Level]) -> None:
    """Give this process so many threads and its parent's levels, and end it with its parent."""
    for level in levels:
        if level not in known_levels():
            register_level(level)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    ignore_import_warnings()
    os.environ.setdefault("NUMBA_NUM_THREADS", str(n_threads))
    import torch

    torch.set_num_threads(n_threads)


def ignore_import_warnings() -> None:
    """Silence what importing hippynn 0.1.3 makes torch say, which no user can act on."""
    warnings.filterwarnings("ignore", message="Sparse invariant checks")
    warnings.filterwarnings("ignore", message="`torch.jit.*is deprecated")


def _exit_with_parent() -> None:
    """A worker whose parent was killed would go on and collide with a restarted campaign."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def run_campaign(
    runs: Sequence[RunSettings], out: Path, *, engine: Engine, progress: bool = True
) -> list[Outcome]:
    """Execute the runs that are not finished in `out`, with a progress bar over their epochs.

    Finished runs are left as they are; wrong input, and runs of other settings in the same
    folders, are a UserError before anything starts. The outcomes are in the order of `runs`.
    """
    names = [(settings.slug, settings.seed) for settings in runs]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"Run {name[0]}, seed {name[1]} is asked for twice.")
    folders = {RunFolder.of(out, settings).path: settings for settings in runs}
    for path, settings in folders.items():
        RunFolder(path).refuse_other(settings)
    to_do = [settings for path, settings in folders.items() if not RunFolder(path).is_finished]
    if len(to_do) < len(runs):
        log.info("%d of %d runs are finished already", len(runs) - len(to_do), len(runs))
    outcomes: dict[tuple[str, int], Outcome] = {
        (settings.slug, settings.seed): Outcome(settings, None) for settings in runs
    }
    if to_do:
        from hippynn_mf.running import check_inputs

        check_inputs(to_do)
        with _EpochBar(to_do, out, disable=not progress):
            for outcome in engine(to_do, out):
                settings = outcome.settings
                outcomes[settings.slug, settings.seed] = outcome
                if outcome.error and len(to_do) > 1:
                    message = f"failed: {settings.name}, seed {settings.seed}: {outcome.error}"
                    tqdm.write(message, file=sys.stderr)
    return [outcomes[name] for name in names]


class _EpochBar:
    """A progress bar over the epochs of runs, which it reads from their folders.

    Epochs are weighted by what a step of their experiment costs, so that the time left is right.
    """

    def __init__(self, runs: Sequence[RunSettings], out: Path, *, disable: bool) -> None:
        self.runs = [(settings, RunFolder.of(out, settings)) for settings in runs]
        total = sum(self._cost(settings) for settings in runs)
        layout = "{percentage:3.0f}% |{bar}| {elapsed} < {remaining}{postfix}"
        self.bar = tqdm(total=total, bar_format=layout, smoothing=0, disable=disable)
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._update()
        # Before now nothing ran that the rate could count; the bar ends its line only if the last
        # print is not before the start.
        self.bar.start_t = self.bar.last_print_t = time.time()
        self.bar.initial = self.bar.n
        self.thread.start()

    def __exit__(self, *exception: object) -> None:
        self.stopped.set()
        self.thread.join()
        self._update()
        self.bar.close()

    @staticmethod
    def _cost(settings: RunSettings) -> float:
        return settings.hyperparameters.max_epochs * settings.experiment.relative_cost

    def _watch(self) -> None:
        while not self.stopped.wait(POLL_SECONDS):
            self._update()

    def _update(self) -> None:
        done, n_finished = 0.0, 0
        for settings, folder in self.runs:
            finished = folder.is_finished
            n_finished += finished
            share = 1.0 if finished else folder.n_epochs / settings.hyperparameters.max_epochs
            done += share * self._cost(settings)
        self.bar.n = done
        self.bar.set_postfix_str(f"{n_finished} of {len(self.runs)} runs finished")
