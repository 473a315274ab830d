"""One bar on a terminal, or a line per minute elsewhere: how many, and the time left."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

LINE_SECONDS = 60.0


class Shown:
    """Shows how many of `total` are done; the rate counts those of this command alone."""

    def __init__(self, total: int, done: int, unit: str, *, disable: bool = False) -> None:
        self.total, self.done, self.done_before, self.unit = total, done, done, unit
        self.disabled = disable
        self.started = self.last_line = time.monotonic()
        self.bar = tqdm(
            total=total,
            initial=done,
            unit=unit,
            smoothing=0,
            disable=disable or not sys.stderr.isatty(),
        )

    def add(self, n: int, n_failed: int) -> None:
        """Note that so many more are done, and how many of all have failed."""
        self.done += n
        if n_failed and not self.bar.disable:
            self.bar.set_postfix_str(f"{n_failed} failed", refresh=False)
        self.bar.update(n)
        now = time.monotonic()
        if self.bar.disable and not self.disabled and now - self.last_line >= LINE_SECONDS:
            self.last_line = now
            self._say_line(n_failed)

    def _say_line(self, n_failed: int) -> None:
        elapsed, new = time.monotonic() - self.started, self.done - self.done_before
        left = ""
        if new:
            seconds = elapsed * (self.total - self.done) / new
            left = f"; {tqdm.format_interval(seconds)} left"
        failed = f", {n_failed} failed" if n_failed else ""
        self.say(f"{self.done} of {self.total} {self.unit}s{failed}{left}")

    def say(self, message: str) -> None:
        """One line for whoever watches."""
        if not self.disabled:
            tqdm.write(message, file=sys.stderr)

    def close(self) -> None:
        """End the line of the bar."""
        self.bar.close()
