"""Program: Parsl's interchange in a session of its own, which ends with the process that starts it.

It starts with SIGINT blocked; a session of its own keeps off what else a terminal sends. In the
campaign's it would end first, and Parsl would wait for its answers. Imports nothing of the package.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import signal
import threading
import time

LOOK_SECONDS = 1.0


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    with contextlib.suppress(PermissionError):  # leads one already
        os.setsid()
    threading.Thread(target=_end_with, args=[os.getppid()], daemon=True).start()
    runpy.run_module("parsl.executors.high_throughput.interchange", run_name="__main__")
