"""Parsl's folder by a path that needs no quotes, of which Parsl makes commands."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hippynn_mf.errors import UserError

if TYPE_CHECKING:
    from parsl import Config

# What Parsl puts into commands without quotes, and into templates without escapes.
PLAIN_PATH = re.compile(r"[A-Za-z0-9_./+@,:=-]+")


@contextmanager
def plain_folder(config: Config) -> Iterator[list[Path]]:
    """Let Parsl know its folder by a path that it need not quote: through a link if it must.

    Yields the links. A path that other machines would have to know is refused.
    """
    given = Path(config.run_dir).absolute()
    if PLAIN_PATH.fullmatch(str(given)):
        yield []
        return
    from parsl.providers import LocalProvider

    providers = [getattr(executor, "provider", None) for executor in config.executors]
    if any(not isinstance(provider, LocalProvider | None) for provider in providers):
        raise UserError(
            f"Parsl's run_dir is {str(given)!r}, which Parsl does not quote in the jobs that it "
            "submits. Give an absolute `run_dir` of letters, digits and _./+@,:=- in the site file."
        )
    given.mkdir(parents=True, exist_ok=True)
    link = Path(tempfile.mkdtemp(prefix="hippynn-mf-", dir=_plain_temporary_folder())) / "parsl"
    link.symlink_to(given, target_is_directory=True)
    config.run_dir = str(link)
    try:
        yield [link]
    finally:
        with suppress(OSError):  # the guard has removed it
            link.unlink()
        with suppress(OSError):
            link.parent.rmdir()


def _plain_temporary_folder() -> str:
    for folder in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
        if PLAIN_PATH.fullmatch(folder) and os.access(folder, os.W_OK):
            return folder
    raise UserError(
        f"Parsl needs a folder whose path has no spaces or other special characters; neither --out "
        f"nor the temporary folder, {tempfile.gettempdir()!r}, is one. Set TMPDIR to one, or "
        "choose --engine pool."
    )
