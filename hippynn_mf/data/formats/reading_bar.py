"""One progress bar for a file, however often it is gone through."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, TypeVar

from tqdm import tqdm


class _Sized(Protocol):
    """Conformers of a file, as a group of it."""

    @property
    def size(self) -> int:
        """How many there are."""


SizedT = TypeVar("SizedT", bound=_Sized)


class ReadingBar:
    """A bar over all passes through the groups of a file; seen after two seconds, on a terminal."""

    def __init__(self, path: Path, n_passes: int, *, hidden: bool = False) -> None:
        self._name, self._n_passes, self._goal, self._per_pass = path.name, n_passes, 0, 0
        self._bar = tqdm(
            total=0,
            desc=path.name,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}",
            delay=2,
            disable=hidden or None,
        )

    def __enter__(self) -> ReadingBar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def over(self, what: str, groups: Sequence[SizedT]) -> Iterator[SizedT]:
        """A pass through groups: the first is through all, others may leave some out."""
        if not self._per_pass:
            self._per_pass = sum(group.size for group in groups)
            self._bar.total = self._n_passes * self._per_pass
        self._bar.set_description_str(f"{self._name}: {what}", refresh=False)
        self._goal += self._per_pass
        for group in groups:
            yield group
            self._bar.update(group.size)
        self._bar.update(self._goal - self._bar.n)
