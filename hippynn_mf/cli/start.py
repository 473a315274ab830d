"""Program `hippynn-mf`: Ctrl-C leaves no traceback, also while the command line is imported."""

from __future__ import annotations

import signal


def main() -> None:
    """Run the command line. Before a command and after it, Ctrl-C ends the process as any other."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from hippynn_mf.cli.main import main as run

    run()
