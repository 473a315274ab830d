"""Large JSON, read as a stream whose nesting and records have bounds.

A parser of events takes a time that grows with the square of the depth, and an object is built
whole, so both are looked at before the parser sees them.
"""

from __future__ import annotations

import re
from io import BufferedIOBase
from typing import Any

import numpy as np

from hippynn_mf.errors import UserError

MAX_DEPTH = 200  # of arrays and objects; pymatgen's structures have about ten
MAX_RECORD = 16 * 1024**2  # bytes; a record of 10,000 atoms has five million
MAX_BLANKS = 2**16  # bytes before the first record
ESCAPED = re.compile(rb"\\.", re.DOTALL)
OPENING, CLOSING = (np.frombuffer(each, np.uint8) for each in (b"[{", b"]}"))


class NotedKeys(dict[str, Any]):
    """An object of JSON that notes keys which it has already; ijson cannot take an error here."""

    def __init__(self, twice: list[str]) -> None:
        super().__init__()
        self._twice = twice

    def __setitem__(self, key: str, value: Any) -> None:
        if key in self:
            self._twice.append(key)
        super().__setitem__(key, value)


class BoundedJson:
    """A binary stream of JSON that raises UserError where it is too deep or a record too large.

    Args:
        stream: open for reading.
        name: of the file, for messages.
        outside: the depth of what is around the records, 1 for a list of them.
    """

    def __init__(self, stream: BufferedIOBase, name: object, *, outside: int) -> None:
        self._stream, self._name, self._outside = stream, name, outside
        self._depth = 0
        self._in_string = False
        self._rest = b""  # a backslash whose partner is not read yet
        self._since = 0  # bytes since the end of a record

    def read(self, size: int = -1) -> bytes:
        """Read as the stream does."""
        block = self._stream.read(size)
        self._look(block)
        return block

    def _look(self, block: bytes) -> None:
        text = ESCAPED.sub(b"", self._rest + block)
        self._rest = b""
        if text.endswith(b"\\"):
            text, self._rest = text[:-1], b"\\"
        pieces = text.split(b'"')
        outside = np.frombuffer(b"".join(pieces[int(self._in_string) :: 2]), np.uint8)
        self._in_string ^= len(pieces) % 2 == 0
        steps = np.isin(outside, OPENING).astype(np.int64) - np.isin(outside, CLOSING)
        depths = self._depth + np.cumsum(steps)
        if depths.max(initial=0) > MAX_DEPTH:
            raise UserError(
                f"{self._name} nests lists and objects more than {MAX_DEPTH} deep; no records of "
                "structures do."
            )
        # A record has ended where the depth has come back, not where it stays, as in a long text.
        has_ended = bool(((steps < 0) & (depths <= self._outside)).any())
        self._since = 0 if has_ended else self._since + len(block)
        if self._since > MAX_RECORD:
            raise UserError(
                f"{self._name} has a record of more than {MAX_RECORD // 1024**2} MiB. Write a "
                "record for every structure."
            )
        self._depth = int(depths[-1]) if len(depths) else self._depth


def first_letter(stream: BufferedIOBase, name: object) -> bytes:
    """The first byte that is not blank; the stream stands at its beginning again.

    Raises UserError for a stream without any, or with more than `MAX_BLANKS` blanks before it.
    """
    start = stream.read(MAX_BLANKS)
    stream.seek(0)
    letters = start.lstrip()
    if not letters:
        if len(start) == MAX_BLANKS:
            raise UserError(f"{name} begins with more than {MAX_BLANKS:,} blanks; it is no data.")
        raise UserError(f"{name} is empty.")
    return letters[:1]
