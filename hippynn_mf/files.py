"""Files that a reader sees complete or not at all, and JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hippynn_mf.errors import UserError


@contextmanager
def replace_when_complete(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds.

    A failing block leaves `path` as it was and removes the temporary file.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays, complete or not at all; `numpy.load` reads them without pickle."""
    with replace_when_complete(path) as partial, partial.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; a missing or damaged file is a UserError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"No {path.name} in {path.parent}.") from None
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}).") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} should hold a JSON object.")
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON, complete or not at all; NaN is not JSON and raises ValueError."""
    with replace_when_complete(path) as partial:
        partial.write_text(json_text(content))


def json_text(content: dict[str, Any]) -> str:
    """JSON as it is written; NaN is not JSON and raises ValueError."""
    return json.dumps(content, indent=2, allow_nan=False) + os.linesep
