"""Ctrl-C and SIGTERM end a command in order, soon, and in any case."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
ORDER_SECONDS = 7.5  # for the command to end in order
KILL_SECONDS = 1.0  # for the processes of its engines to end after that


class Stopping:
    """Which signal has come, None so far. The exit code of a command is made of it."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.is_raised = False

    @property
    def exit_code(self) -> int:
        """As shells have it."""
        return 128 + (self.signal or signal.SIGINT)

    def interrupt(self, signum: int, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt for the first signal; the watch acts on those that follow."""
        self.signal = self.signal or signum
        if not self.is_raised:
            self.is_raised = True
            raise KeyboardInterrupt

    def watch(self, signals: socket.socket) -> None:
        """Leave the process at the second signal, or when it has not ended in time.

        The signals come through a socket, since the main thread may be busy outside of Python.
        """
        with contextlib.suppress(OSError):
            if not (first := signals.recv(1)):
                return
            self.signal = self.signal or first[0]
            signals.settimeout(ORDER_SECONDS)
            with contextlib.suppress(TimeoutError):
                if not signals.recv(1):  # the command has ended; its process may not
                    threading.Event().wait(ORDER_SECONDS)
        self.leave()

    def leave(self) -> None:
        """End this process and those of its engines, at once."""
        # Not imported here: there is nothing to end where it is not, and imports may hang.
        processes = sys.modules.get("hippynn_mf.campaign.processes")
        if processes is not None and hasattr(processes, "end_all"):
            thread = threading.Thread(target=processes.end_all, args=[KILL_SECONDS], daemon=True)
            thread.start()
            thread.join(KILL_SECONDS)
        with contextlib.suppress(OSError):
            os.write(2, b"\nhippynn-mf: stopped. The same command continues.\n")
        os._exit(self.exit_code)  # after which the guards end whatever is left


@contextmanager
def stoppable() -> Iterator[Stopping]:
    """Inside, both signals raise KeyboardInterrupt; a second one, or 8 s, end the process.

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
    for number in before:
        signal.signal(number, stopping.interrupt)
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(fd)
        theirs.close()
        if stopping.signal is None:
            thread.join()
            ours.close()
