"""The processes of a campaign on this machine: known by a mark, and ended without asking them.

Whatever an engine starts inherits a mark in its environment, also what starts it in turn, however
far from this process it ends up: Parsl's managers are nobody's children. A small process, the
guard, ends them all when this one is gone. This file is also the guard's program, so it imports
nothing of the package.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import parent_process
from pathlib import Path

import psutil

MARK = "MULTI_FIDELITY_PROCESSES_OF"  # not HIPPYNN_, which hippynn reads as a setting
DONE = b"done"
KILL_SECONDS = 5.0  # to wait for processes that were killed; the kernel may be busy with a disk
GUARD_SECONDS = 2.0  # for which the guard looks for more
LOOK_SECONDS = 10.0  # between looks whether a process has been stopped
STOPPED_LOOKS = 4  # so many looks in a row, and it is taken for lost

_open_marks: set[str] = set()


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Inside, what this thread starts never hears Ctrl-C, which a terminal sends to all.

    What is blocked is inherited from a process's first instruction, long before a program can say
    that it ignores a signal, and by threads as well. This process still hears it in its others.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def guarded(*links: Path) -> Iterator[str]:
    """Mark the processes that are started inside; a guard ends them if this process ends first.

    The block must end them itself; what is left by an exception the guard ends, too. `links` are
    removed with their folders by the guard, in any case.
    """
    mark = uuid.uuid4().hex
    command = [sys.executable, "-P", __file__, mark, *map(str, links)]
    with interrupts_blocked():
        guard = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    before = os.environ.get(MARK)
    os.environ[MARK] = mark
    _open_marks.add(mark)
    is_over = False
    try:
        yield mark
        is_over = not _marked(mark)
    finally:
        if before is None:
            os.environ.pop(MARK, None)
        else:
            os.environ[MARK] = before
        _open_marks.discard(mark)
        # A guard that was killed has nothing to do; one that has is not waited for.
        if is_over:
            with contextlib.suppress(OSError):
                guard.communicate(DONE)
        else:
            with contextlib.suppress(OSError):
                guard.stdin.close()  # type: ignore[union-attr]
            threading.Thread(target=guard.wait, daemon=True, name="wait_for_guard").start()


def _marked(mark: str) -> list[psutil.Process]:
    """Other processes with this mark that have not ended."""
    found = []
    for process in psutil.process_iter():
        # Others' processes may not be looked at, and some end while they are.
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid == os.getpid() or process.environ().get(MARK) != mark:
                continue
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def wait_for_end(mark: str, seconds: float) -> bool:
    """Whether all processes with this mark end by themselves in this time."""
    stop = time.monotonic() + seconds
    while _marked(mark):
        if time.monotonic() > stop:
            return False
        time.sleep(0.1)
    return True


def end_marked(mark: str, seconds: float = KILL_SECONDS) -> bool:
    """Kill all processes with this mark, and those that they start meanwhile; whether none is left.

    They are killed, since one that is stopped or hangs would not end otherwise; runs are made for
    it.
    """
    stop = time.monotonic() + seconds
    while left := _marked(mark):
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        if time.monotonic() > stop:
            return False
        time.sleep(0.05)
    return True


def end_all(seconds: float) -> None:
    """Kill what all engines of this process have started."""
    for mark in list(_open_marks):
        end_marked(mark, seconds)


@contextmanager
def stopped_ended(mark: str, say: Callable[[str], None]) -> Iterator[None]:
    """Inside, kill processes with this mark that somebody has stopped for long (SIGSTOP).

    A run whose worker stands still would never end; when the worker is killed, the run continues in
    another. Looks are counted and not seconds, since this process may have been stopped as well.
    """
    over = threading.Event()

    def watch() -> None:
        looks: dict[psutil.Process, int] = {}
        while not over.wait(LOOK_SECONDS):
            stopped = [p for p in _marked(mark) if _is_stopped(p)]
            looks = {process: looks.get(process, 0) + 1 for process in stopped}
            for process in [p for p, n in looks.items() if n >= STOPPED_LOOKS]:
                say(
                    f"process {process.pid} of this campaign has been stopped for "
                    f"{LOOK_SECONDS * (STOPPED_LOOKS - 1):.0f} s; it is ended and replaced"
                )
                with contextlib.suppress(psutil.Error):
                    process.kill()

    thread = threading.Thread(target=watch, daemon=True, name="end_stopped")
    thread.start()
    try:
        yield
    finally:
        over.set()


def _is_stopped(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_STOPPED
    except psutil.Error:
        return False


def end_with_parent() -> None:
    """In a process of Python's own pool: end when the process that started it has ended."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end_with_parent").start()


def _guard(mark: str, links: list[str]) -> None:
    if sys.stdin.buffer.read() != DONE:
        stop = time.monotonic() + GUARD_SECONDS
        while time.monotonic() < stop:  # some may have been about to start
            end_marked(mark, seconds=60)
            time.sleep(0.2)
    for link in links:
        with contextlib.suppress(OSError):
            os.unlink(link)
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(link))


if __name__ == "__main__":
    _guard(sys.argv[1], sys.argv[2:])
