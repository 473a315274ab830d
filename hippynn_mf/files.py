"""Writing files so that a reader sees a complete file or none."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np


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
