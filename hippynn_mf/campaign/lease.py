"""Which process owns a results folder: one campaign at a time, and its workers end with it.

`OUT/campaign.json` names the campaign, its process and its runs; a lock beside it, which the
operating system frees however the process ends, refuses a second one.
"""

from __future__ import annotations

import errno
import functools
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
from hippynn_mf.files import make_folder, parse_json, read_text, write_json, writing
from hippynn_mf.runs.settings import RunSettings

log = logging.getLogger(__name__)

FILE = "campaign.json"
LOCK = ".campaign.lock"
PROCESS_SECONDS = 1.0  # between looks of a worker at the process of its campaign
FILE_SECONDS = 10.0  # and at the file, which may be on a file system that many share
FILE_SECONDS_PER_RUN = 0.2  # more for each run of the campaign, for so many workers there may be
CLOCK_SECONDS = 60.0


@dataclass(frozen=True)
class Owner:
    """A campaign, by its random id, and the process that runs it.

    Its workers look at `campaign.json` every `file_seconds`.
    """

    id: str
    host: str
    pid: int
    started: float  # of the process, seconds since the epoch: pids are used again
    file_seconds: float = FILE_SECONDS

    @classmethod
    def this_process(cls, n_runs: int = 0) -> Owner:
        """A new campaign of this process over so many runs."""
        process = psutil.Process()
        seconds = FILE_SECONDS + FILE_SECONDS_PER_RUN * n_runs
        started = process.create_time()
        return cls(uuid.uuid4().hex, platform.node(), process.pid, started, seconds)

    def is_alive(self, out: Path) -> bool:
        """Whether the campaign still owns its results folder, as far as this machine can tell."""
        return self.process_has_ended() is None and self.has_lost(out) is None

    def process_has_ended(self) -> str | None:
        """Why the campaign is over, if its process was on this machine and has ended."""
        if platform.node() != self.host:
            return None
        try:
            process = psutil.Process(self.pid)
            is_zombie = process.status() == psutil.STATUS_ZOMBIE
            # A clock that is set moves the start of every process.
            if not is_zombie and abs(process.create_time() - self.started) < CLOCK_SECONDS:
                return None
        except psutil.NoSuchProcess:
            pass
        return f"its process {self.pid} has ended"

    def has_lost(self, out: Path) -> str | None:
        """Why the campaign does not own its folder any more, None if it does.

        A file that cannot be read, or is damaged, takes nothing away from a campaign: the next one
        writes it anew, with another id.
        """
        path = out / FILE
        try:
            content = parse_json(read_text(path), path)
        except OSError as error:  # file systems do that
            if error.errno == errno.ENOENT:
                return f"{path} is gone"
            _warn_once(f"{path} cannot be read at the moment ({error.strerror})")
            return None
        except UserError as error:
            _warn_once(f"{path} is damaged ({error}); the run goes on")
            return None
        if not isinstance(content, dict) or not isinstance(content.get("id"), str):
            _warn_once(f"{path} is damaged (there is no id); the run goes on")
            return None
        return None if content["id"] == self.id else f"another campaign has taken over {out}"


@functools.cache
def _warn_once(message: str) -> None:
    log.warning("%s", message)


@contextmanager
def owned(out: Path, runs: Sequence[RunSettings]) -> Iterator[Owner]:
    """Own a results folder for a campaign over these runs; a UserError if another campaign does."""
    make_folder(out)
    with _locked(out):
        owner = Owner.this_process(len(runs))
        names = [_named(settings) for settings in runs]
        write_json(out / FILE, asdict(owner) | {"runs": names})
        yield owner


def _named(settings: RunSettings) -> list[str | int]:
    split = [settings.split_seed] if settings.split_seed else []
    return [settings.name, settings.slug, settings.seed, *split]


def refuse_owned(out: Path) -> None:
    """Raise UserError if a campaign runs in a folder; nothing is written."""
    if (out / LOCK).exists():
        with _locked(out):
            pass


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    try:
        with writing(out / LOCK), FileLock(out / LOCK, timeout=0):
            yield
    except Timeout:
        stored = read_campaign(out) or {}
        raise UserError(
            f"Another campaign runs in {out} (process {stored.get('pid', 'unknown')} on "
            f"{stored.get('host', 'unknown')}). Wait "
            "for it or stop it, or choose another --out."
        ) from None


def read_campaign(out: Path) -> dict[str, Any] | None:
    """What `campaign.json` says, None without one that can be read.

    `runs` is a list of name, slug and seed, and a split seed other than 0.
    """
    try:
        content = parse_json(read_text(out / FILE), out / FILE)
    except (OSError, UserError):
        return None
    if not isinstance(content, dict):
        return None
    runs = content.get("runs")
    is_whole = isinstance(runs, list) and all(
        isinstance(run, list)
        and [type(part) for part in run] in ([str, str, int], [str, str, int, int])
        for run in runs
    )
    return content if is_whole else content | {"runs": []}


def end_with(owner: Owner, out: Path) -> None:
    """End this process soon after the campaign has ended, or lost its folder to another.

    A worker that outlived its campaign, or what has started it, would go on and collide with
    another that is given its run. Why it ends is the last line of the log of its run.
    """
    parent = os.getppid()

    def watch() -> None:
        last_look = time.monotonic()
        while (reason := owner.process_has_ended()) is None:
            if os.getppid() != parent:
                log.warning("process %d, which has started this worker, has ended", parent)
                os._exit(1)
            if time.monotonic() - last_look >= owner.file_seconds:
                last_look = time.monotonic()
                if reason := owner.has_lost(out):
                    break
            time.sleep(PROCESS_SECONDS)
        log.warning("the campaign of this run is over: %s", reason)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end_with_campaign").start()
