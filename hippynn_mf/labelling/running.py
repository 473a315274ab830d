"""Items computed one by one, in tasks of several, here or by an engine; each is recorded at once.

A worker that is lost takes nothing along: its task is given out again without what is recorded. An
item that was in progress in two lost workers is tried alone in the end, so that no other is blamed
for it, and has failed if that worker is lost as well.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import textwrap
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hippynn_mf.engine import Engine
from hippynn_mf.errors import UserError, describe_error
from hippynn_mf.files import writing
from hippynn_mf.labelling.progress import Shown
from hippynn_mf.labelling.records import BEGUN, ERROR, KEY, Records
from hippynn_mf.starting import available_cores, share_cores

# Of JSON settings: what computes the record of an item. At module level, for workers look it up.
Make = Callable[[str], Callable[[Any], Mapping[str, Any]]]

MOST_IN_TASK = 100
TASKS_PER_WORKER = 32  # at least, so that none is idle for long in the end
WORKERS_OF_SITE = 128
LOOK_SECONDS = 1.0
MAX_LOSSES = 2  # in company; the next time an item is alone
MAX_BROKEN = 3  # executors in a row that have taken no task
LONGEST = 300  # characters of an error


@dataclass
class Work:
    """Items by their keys, and how each is computed.

    `settings` is JSON, of which `make` builds the function in every worker.
    """

    items: Mapping[str, Any]
    make: Make
    settings: str
    records: Records
    engine: Engine | None
    block: int | None
    shown: Shown
    losses: Counter[str] = field(default_factory=Counter)

    def run(self) -> None:
        """Compute what is not recorded; afterwards every item is. Raises UserError as engines."""
        left = [key for key in self.items if key not in self.records.found]
        if self.engine is None:
            self._run_here(left)
            return
        size = self.block or self._size(len(left))
        waiting = deque(left[k : k + size] for k in range(0, len(left), size))
        alone: list[str] = []
        n_broken = 0
        while waiting or alone:
            with self.engine.open(self.records.folder) as executor:
                took_one = self._run_with(executor, waiting, alone)
            n_broken = 0 if took_one else n_broken + 1
            if n_broken == MAX_BROKEN:
                raise UserError(
                    f"The engine broke {MAX_BROKEN} times before it took a task. The same command "
                    "continues."
                )

    def _run_here(self, left: Sequence[str]) -> None:
        path = self.records.new_file()
        for key in left:
            problem = run_task(self.make, self.settings, [(key, self.items[key])], str(path), None)
            if problem is not None:
                raise UserError(problem)
            self.shown.add(self.records.read(path), self.records.n_failed)

    def _size(self, n: int) -> int:
        workers = getattr(self.engine, "n_workers", None) or available_cores()
        if getattr(self.engine, "site", None) is not None:  # nobody knows how many
            workers = WORKERS_OF_SITE
        return min(MOST_IN_TASK, max(1, n // (TASKS_PER_WORKER * workers)))

    def _run_with(self, executor: Executor, waiting: deque[list[str]], alone: list[str]) -> bool:
        """Give out tasks until all are done or the executor is broken; whether it took any."""
        running: dict[Future[str | None], tuple[Path, list[str]]] = {}
        is_broken = took_one = False
        n_at_once = self.engine.n_at_once if self.engine else None
        while running or (not is_broken and (waiting or alone)):
            if not waiting and not running and alone:
                waiting.append([alone.pop()])
            while waiting and not is_broken and len(running) != n_at_once:
                try:
                    path = self.records.new_file()
                    future = self._submit(executor, waiting[0], path)
                    running[future] = (path, waiting.popleft())
                    took_one = True
                except BrokenExecutor:
                    is_broken = True
            done = wait(running, timeout=LOOK_SECONDS, return_when=FIRST_COMPLETED).done
            n = sum(self.records.read(path) for path, _ in running.values())
            self.shown.add(n, self.records.n_failed)
            for future in done:
                path, keys = running.pop(future)
                error = future.exception()
                if isinstance(error, UserError):
                    raise error
                if error is None:
                    if (problem := future.result()) is not None:
                        raise UserError(problem)
                    continue
                is_broken = is_broken or isinstance(error, BrokenExecutor)
                self._lost(path, keys, error, waiting, alone)
        return took_one

    def _submit(self, executor: Executor, keys: Sequence[str], path: Path) -> Future[str | None]:
        items = [(key, self.items[key]) for key in keys]
        n_threads = self.engine.n_threads if self.engine else None
        return executor.submit(
            run_task, self.make, self.settings, items, str(path.absolute()), n_threads
        )

    def _lost(
        self,
        path: Path,
        keys: Sequence[str],
        error: BaseException,
        waiting: deque[list[str]],
        alone: list[str],
    ) -> None:
        """Give out again what a lost worker has left."""
        what = textwrap.shorten(describe_error(error), LONGEST)
        suspect = self.records.begun.get(path)
        rest = [key for key in keys if key not in self.records.found and key != suspect]
        if rest:
            waiting.append(rest)
        if suspect is None:
            return
        self.losses[suspect] += 1
        if self.losses[suspect] > MAX_LOSSES:
            record = {KEY: suspect, ERROR: f"its worker was lost ({what})"}
            file = self.records.new_file()
            file.write_text(json.dumps(record) + "\n", encoding="utf-8")
            self.shown.add(self.records.read(file), self.records.n_failed)
        elif self.losses[suspect] == MAX_LOSSES:
            alone.append(suspect)
        else:
            waiting.append([suspect])
        self.shown.say(f"a worker was lost ({what}); its structures are given to another")


def run_task(
    make: Make, settings: str, items: Sequence[tuple[str, Any]], path: str, n_threads: int | None
) -> str | None:
    """Compute items and append their records to a file; why not, None if nothing went wrong.

    What goes wrong with an item is its record.
    """
    try:
        if n_threads is None and (count := os.environ.get("PARSL_WORKER_COUNT")):
            n_threads = share_cores(int(count))
        if n_threads is not None:
            _limit_threads(n_threads)
        compute = _made(make, settings)
        with writing(Path(path)), open(path, "a", encoding="utf-8") as stream:
            for key, item in items:
                stream.write(json.dumps({BEGUN: key}) + "\n")
                stream.flush()
                stream.write(json.dumps({KEY: key, **_record(compute, item)}) + "\n")
                stream.flush()
    except UserError as error:
        return str(error)
    return None


@functools.lru_cache(maxsize=4)  # of a process that works for several commands
def _made(make: Make, settings: str) -> Callable[[Any], Mapping[str, Any]]:
    return make(settings)


def _record(compute: Callable[[Any], Mapping[str, Any]], item: Any) -> Mapping[str, Any]:
    try:
        record = compute(item)
        json.dumps(record, allow_nan=False)
        return record
    except (Exception, SystemExit) as error:  # calculators raise what they like
        text = describe_error(error) if str(error) else type(error).__name__
        return {ERROR: textwrap.shorten(text, LONGEST)}


@functools.cache  # once per process
def _limit_threads(n_threads: int) -> None:
    """Before the libraries are loaded that read it; of those that are there already as well."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(n_threads)
    if "numba" not in sys.modules:
        os.environ.setdefault("NUMBA_NUM_THREADS", str(n_threads))
    from threadpoolctl import threadpool_limits

    threadpool_limits(n_threads)
