"""Ctrl-C, SIGTERM and a closed terminal end a command in order, soon, and in any case."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

SIGNALS = tuple(getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n))
ORDER_SECONDS = 7.5  # for the command to end in order
AGAIN_SECONDS = 1.0  # between looks whether the interrupt has got lost
EXIT_SECONDS = 1.0  # for what libraries do when a process ends
KILL_SECONDS = 1.0  # for the processes of its engines to end after that


class Stopping:
    """Which signal has come, None so far. The exit code of a command is made of it."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.is_raised = False
        self.is_over = False  # the command
        self.main = threading.get_ident()

    @property
    def exit_code(self) -> int:
        """As shells have it."""
        return 128 + (self.signal or signal.SIGINT)

    def interrupt(self, signum: int, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt for the first signal; the watch acts on those that follow."""
        self.signal = self.signal or signum
        if not self.is_raised and not self.is_over:
            self.is_raised = True
            raise KeyboardInterrupt

    def watch(self, signals: socket.socket) -> None:
        """Leave the process at the second signal, or when it has not ended in time.

        The signals come through a socket, since the main thread may be busy outside of Python.
        """
        with contextlib.suppress(OSError):
            if not (first := _receive(signals)):
                return
            self.signal = self.signal or first
            stop, n_own = time.monotonic() + ORDER_SECONDS, 0
            while (left := stop - time.monotonic()) > 0:
                signals.settimeout(min(left, AGAIN_SECONDS))
                try:
                    heard = _receive(signals)
                except TimeoutError:
                    if hasattr(signal, "pthread_kill") and self.is_lost():
                        n_own += 1
                        self.is_raised = False
                        signal.pthread_kill(self.main, self.signal)
                    continue
                if not heard:  # the command has ended; its process may not
                    threading.Event().wait(EXIT_SECONDS)
                    break
                if not n_own:
                    break
                n_own -= 1
        self.leave()

    def is_lost(self) -> bool:
        """Whether the interrupt was raised, and nothing is being ended by it any more.

        Libraries swallow it by a bare `except:` around an import, and Python in what the garbage
        collector calls.
        """
        found: Any = sys._current_exceptions().get(self.main)
        error = found[1] if isinstance(found, tuple) else found  # Python 3.11
        while error is not None and not isinstance(error, KeyboardInterrupt):
            error = error.__context__
        return self.is_raised and not self.is_over and error is None

    def leave(self) -> None:
        """End this process and those of its engines, at once."""
        # Not imported here: there is nothing to end where it is not, and imports may hang.
        processes = sys.modules.get("hippynn_mf.campaign.processes")
        if processes is not None and hasattr(processes, "end_all"):
            thread = threading.Thread(target=processes.end_all, args=[KILL_SECONDS], daemon=True)
            thread.start()
            thread.join(KILL_SECONDS)
        if not self.is_over:
            with contextlib.suppress(OSError):
                os.write(2, b"\nhippynn-mf: stopped. The same command continues.\n")
        os._exit(self.exit_code)  # after which the guards end whatever is left


def _receive(signals: socket.socket) -> int:
    """The next of our signals, 0 when the command has ended; libraries may handle others."""
    while received := signals.recv(1):
        if received[0] in SIGNALS:
            return received[0]
    return 0


@contextmanager
def stoppable() -> Iterator[Stopping]:
    """Inside, signals raise KeyboardInterrupt; a second one, or 8 s, end the process.

    Signals that are ignored (nohup, jobs of scripts) stay so, and nothing is done outside of the
    main thread.
    """
    stopping = Stopping()
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {s: signal.getsignal(s) for s in SIGNALS if signal.getsignal(s) != signal.SIG_IGN}
    if not before:
        yield stopping
        return
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    fd = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=stopping.watch, args=[ours], daemon=True, name="stop")
    thread.start()
    hook = sys.unraisablehook

    def without_interrupts(problem: UnraisableHookArgs) -> None:
        if not isinstance(problem.exc_value, KeyboardInterrupt):  # it is raised again
            hook(problem)

    sys.unraisablehook = without_interrupts
    for number in before:
        signal.signal(number, stopping.interrupt)
    try:
        yield stopping
    finally:
        stopping.is_over = True
        # After the first signal the watch is there until the process ends; others change nothing.
        for number, handler in before.items() if stopping.signal is None else ():
            signal.signal(number, handler)
        signal.set_wakeup_fd(fd)
        sys.unraisablehook = hook
        theirs.close()
        if stopping.signal is None:
            thread.join()
            ours.close()


def end_process(code: int, *, in_order: bool) -> None:
    """End this process without waiting for threads, and for what libraries do unless `in_order`.

    Python would wait for threads of libraries, and its last steps outlast its own threads, so that
    nothing could limit them.
    """
    if in_order:
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # the terminal may be closed
            stream.flush()
    os._exit(code)
