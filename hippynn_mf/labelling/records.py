"""What is finished of a piece of work: lines of JSON in a folder beside its output.

Every task appends to a file of its own, so that nothing waits and a kill loses the structure in
progress alone. A line's key is the hash of what it was computed from.
"""

from __future__ import annotations

import json
import logging
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hippynn_mf.errors import UserError
from hippynn_mf.files import make_folder, read_json, write_json, writing

log = logging.getLogger(__name__)

IDENTITY, LOCK, SUFFIX = "identity.json", "lock", ".jsonl"
KEY, BEGUN, ERROR = "key", "begun", "error"
Record = dict[str, Any]


class Records:
    """The records of a work folder, and how far each file has been read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found: dict[str, Record] = {}
        self.n_failed = 0
        self.begun: dict[Path, str] = {}
        self._places: dict[Path, int] = {}

    def new_file(self) -> Path:
        """Where a further task writes."""
        return self.folder / f"{uuid.uuid4().hex}{SUFFIX}"

    def read_all(self) -> None:
        """Read what earlier tasks have left; a line that a kill has cut short is none."""
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            self.read(path)

    def read(self, path: Path) -> int:
        """Read what a file has more than before; how many records that is."""
        try:
            with path.open("rb") as stream:
                stream.seek(self._places.get(path, 0))
                text = stream.read()
        except FileNotFoundError:  # the task has not begun
            return 0
        end = text.rfind(b"\n") + 1
        self._places[path] = self._places.get(path, 0) + end
        before = len(self.found)
        for line in text[:end].splitlines():
            try:
                record = json.loads(line)
                if BEGUN in record:
                    self.begun[path] = record[BEGUN]
                    continue
                self.found[record.pop(KEY)] = record
                self.n_failed += ERROR in record
            except (ValueError, KeyError, TypeError, AttributeError):
                log.warning("%s has a damaged line, which is computed again", path)
            self.begun.pop(path, None)
        return len(self.found) - before


@contextmanager
def opened(folder: Path, identity: Mapping[str, Any], command: str) -> Iterator[Records]:
    """The records of a work folder, which is made, and nobody else's meanwhile.

    Raises UserError if the same command runs already, and if the folder holds what was computed in
    another way than `identity` says.
    """
    make_folder(folder)
    try:
        with writing(folder / LOCK), FileLock(folder / LOCK, timeout=0):
            _refuse_other(folder, json.loads(json.dumps(identity)))
            records = Records(folder)
            records.read_all()
            yield records
    except Timeout:
        raise UserError(
            f"Another {command!r} writes into {folder}. Wait for it, or choose another --out."
        ) from None


def remove(folder: Path) -> None:
    """Remove a work folder; what an engine still writes there does not matter."""
    shutil.rmtree(folder, ignore_errors=True)


def _refuse_other(folder: Path, identity: Mapping[str, Any]) -> None:
    path = folder / IDENTITY
    if not path.exists():
        write_json(path, dict(identity))
        return
    before = read_json(path)
    changed = [
        f"{name} was {before.get(name)!r} and is {identity.get(name)!r}"
        for name in sorted({*before, *identity})
        if before.get(name) != identity.get(name)
    ]
    if changed:
        raise UserError(
            f"{folder} holds what was computed in another way: {'; '.join(changed)}. Ask for the "
            "same again, remove the folder, or choose another --out."
        )
