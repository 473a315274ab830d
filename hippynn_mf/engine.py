"""What an engine is: it opens executors that run functions, wherever that may be."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol


class Engine(Protocol):
    """Opens executors, which run functions on whatever the engine stands for.

    A future that raises tells that its worker was lost, or, by a UserError, that there are no
    workers and will be none; what goes wrong in a task is a result.
    """

    @property
    def n_at_once(self) -> int | None:
        """How many tasks to hand over at a time, None for all."""

    @property
    def n_threads(self) -> int | None:
        """Threads of each worker, None to share the cores of its machine."""

    @contextmanager
    def open(self, out: Path) -> Iterator[Executor]:
        """An executor; when the block ends by an exception, its tasks are stopped."""
