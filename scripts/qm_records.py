"""Finished conformers as lines of JSON, one append-only text file for each kind.

Numbers have every digit: float64 in full, positions as the shortest text that gives the same
float32. A line that a kill has cut short is dropped, and cut off before the next one is appended.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

log = logging.getLogger(__name__)


def to_line(name: str, arrays: dict[str, np.ndarray]) -> str:
    """One line of a conformer, without its end."""
    values = {key: np.asarray(value).tolist() for key, value in arrays.items()}
    positions = arrays["coordinates"]
    if not np.array_equal(positions, positions.astype("f4")):
        raise ValueError(f"The positions of {name} are no float32")
    values["coordinates"] = [[float(str(np.float32(x))) for x in row] for row in positions]
    return json.dumps({"sample": name, **values}, allow_nan=False)


def to_arrays(record: dict[str, Any]) -> dict[str, np.ndarray]:
    """Arrays of a line, as `to_line` had them."""
    arrays = {key: np.array(value) for key, value in record.items() if key != "sample"}
    arrays["coordinates"] = arrays["coordinates"].astype("f4").astype("f8")
    return arrays


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """What a file of such lines holds; nothing if there is no file."""
    if not path.exists():
        return
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    if lines[-1]:
        log.warning("%s: the last line was cut short and is left out", path)


def read_records(path: Path) -> dict[str, dict[str, Any]]:
    """Conformers of a file by name, in order; of equal names the first."""
    records: dict[str, dict[str, Any]] = {}
    for record in read_lines(path):
        records.setdefault(record["sample"], record)
    return records


def append_line(path: Path, line: str) -> None:
    """Add a line, on disk when this returns, after cutting off a last line without its end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.write(line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
