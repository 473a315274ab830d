"""Commands that a user may interrupt, and go on with later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer


@contextmanager
def interruptible() -> Iterator[None]:
    """End with exit code 130 and one line when the user interrupts."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("hippynn-mf: interrupted. The same command continues.", err=True)
        raise typer.Exit(130) from None
