"""Which process owns a results folder: one campaign at a time, and its workers end with it.

`OUT/campaign.json` names the campaign, its process and its runs; a lock beside it, which the
operating system frees however the process ends, refuses a second one.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from hippynn_mf.errors import UserError
from hippynn_mf.files import write_json
from hippynn_mf.runs.settings import RunSettings

log = logging.getLogger(__name__)

FILE = "campaign.json"
LOCK = ".campaign.lock"
POLL_SECONDS = 1.0
CLOCK_SECONDS = 60.0


@dataclass(frozen=True)
class Owner:
    """A campaign, by its random id, and the process that runs it."""

    id: str
    host: str
    pid: int
    started: float  # of the process, seconds since the epoch: pids are used again

    @classmethod
    def of_this_process(cls) -> Owner:
        """A new campaign of this process."""
        process = psutil.Process()
        return cls(uuid.uuid4().hex, platform.node(), process.pid, process.create_time())

    def is_alive(self, out: Path) -> bool:
        """Whether the campaign still owns its results folder, as far as this machine can tell."""
        try:
            if json.loads((out / FILE).read_text(encoding="utf-8"))["id"] != self.id:
                return False  # another campaign has taken over
        except FileNotFoundError:
            return False
        except OSError:
            log.warning("%s cannot be read at the moment", out / FILE)  # file systems do that
        if platform.node() != self.host:
            return True
        try:
            process = psutil.Process(self.pid)
            is_zombie = process.status() == psutil.STATUS_ZOMBIE
            # A clock that is set moves the start of every process.
            return not is_zombie and abs(process.create_time() - self.started) < CLOCK_SECONDS
        except psutil.NoSuchProcess:
            return False


@contextmanager
def owned(out: Path, runs: Sequence[RunSettings]) -> Iterator[Owner]:
    """Own a results folder for a campaign over these runs; a UserError if another campaign does."""
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        owner = Owner.of_this_process()
        names = [[settings.name, settings.slug, settings.seed] for settings in runs]
        write_json(out / FILE, asdict(owner) | {"runs": names})
        yield owner


def refuse_owned(out: Path) -> None:
    """Raise UserError if a campaign runs in a folder; nothing is written."""
    if (out / LOCK).exists():
        with _locked(out):
            pass


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    try:
        with FileLock(out / LOCK, timeout=0):
            yield
    except Timeout:
        stored = read_campaign(out) or {"pid": "unknown", "host": "unknown"}
        raise UserError(
            f"Another campaign runs in {out} (process {stored['pid']} on {stored['host']}). Wait "
            "for it or stop it, or choose another --out."
        ) from None


def read_campaign(out: Path) -> dict[str, Any] | None:
    """What `campaign.json` says, None without one that can be read."""
    try:
        content: dict[str, Any] = json.loads((out / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content


def end_with(owner: Owner, out: Path) -> None:
    """End this process soon after the campaign has ended, or lost its folder to another.

    A worker that outlived its campaign would go on and collide with a restarted one.
    """

    def watch() -> None:
        while owner.is_alive(out):
            time.sleep(POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end_with_campaign").start()
