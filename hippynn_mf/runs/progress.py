"""How far runs are: one bar on a terminal, a line per minute in a file or a pipe."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.runs.settings import RunKey, RunSettings

# Between looks at the files of the runs, which may be on a file system that many share.
LOOK_SECONDS = 10.0
LOOK_SECONDS_PER_RUN = 0.2
SHOW_SECONDS = 1.0  # between renewals of the bar, for which no file is looked at
LINE_SECONDS = 60.0  # between lines where there is no terminal


def look_seconds(n_runs: int) -> float:
    """Seconds between two looks at the files of so many runs."""
    return LOOK_SECONDS + LOOK_SECONDS_PER_RUN * n_runs


class Progress:
    """Shows how far runs are, from their folders; whoever executes them says which have ended.

    Epochs are weighted by what a step of their experiment costs, so that the time left is right.
    """

    def __init__(self, runs: Sequence[RunSettings], out: Path, *, disable: bool = False) -> None:
        self.disabled = disable or not runs
        self.watches = {settings.key: RunWatch(settings, out) for settings in runs}
        self.total = sum(watch.cost for watch in self.watches.values())
        self.n_finished = 0
        self.on_terminal = sys.stderr.isatty()
        layout = "{percentage:3.0f}% |{bar}| {elapsed} < {remaining}{postfix}"
        self.bar = tqdm(
            total=self.total,
            bar_format=layout,
            smoothing=0,
            disable=self.disabled or not self.on_terminal,
        )
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Progress:
        self.started = time.monotonic()
        if not self.disabled:
            for watch in self.watches.values():  # what is there already, of runs that go on
                watch.start()
            self.done_before = self._done()
            self._show()
            # Before now nothing ran that the rate could count; the bar ends its line only if the
            # last print is not before the start.
            self.bar.start_t = self.bar.last_print_t = time.time()
            self.bar.initial = self.bar.n
            self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.disabled:
            return
        self.stopped.set()
        self.thread.join()
        self._show()
        if not self.on_terminal:
            self._say_line()
        self.bar.close()

    def ended(self, key: RunKey, *, finished: bool) -> None:
        """Note that a run has ended; its files are not looked at any more."""
        self.watches[key].end(finished=finished)
        self.n_finished += finished

    def say(self, message: str) -> None:
        """One line for whoever watches."""
        tqdm.write(message, file=sys.stderr)

    def _watch(self) -> None:
        last_look = last_line = time.monotonic()
        while not self.stopped.wait(SHOW_SECONDS):
            now = time.monotonic()
            going_on = [watch for watch in self.watches.values() if not watch.has_ended]
            if now - last_look >= look_seconds(len(going_on)):
                last_look = now
                for watch in going_on:
                    watch.look()
            if self.on_terminal:
                self._show()
            elif now - last_line >= LINE_SECONDS:
                last_line = now
                self._say_line()

    def _done(self) -> float:
        return sum(watch.cost * watch.share for watch in self.watches.values())

    def _show(self) -> None:
        self.bar.n = self._done()
        self.bar.set_postfix_str(f"{self.n_finished} of {len(self.watches)} runs finished")

    def _say_line(self) -> None:
        elapsed, done = time.monotonic() - self.started, self._done()
        line = (
            f"{100 * done / self.total:.0f} % trained, {self.n_finished} of {len(self.watches)} "
            f"runs finished, after {format_duration(elapsed)}"
        )
        if self.done_before < done < self.total:
            rest = elapsed * (self.total - done) / (done - self.done_before)
            line += f"; {format_duration(rest)} left at most"
        print(line, file=sys.stderr, flush=True)  # noqa: T201


class RunWatch:
    """The epochs of one run, counted with one look at one file at a time.

    Of a strategy with several phases the file of one phase is looked at; one that stays as it was
    gives turns to that of the next.
    """

    def __init__(self, settings: RunSettings, out: Path) -> None:
        self.cost = settings.hyperparameters.max_epochs * settings.experiment.relative_cost
        self.n_planned = settings.n_epochs_planned
        folders = RunFolder.of(out, settings).phases(settings)
        self.paths = [folder.file("epochs.jsonl") for folder in folders]
        self.sizes = [0] * len(self.paths)
        self.n_epochs = [0] * len(self.paths)
        self.phase = 0
        self.looks_ahead = False
        self.has_ended = self.is_finished = False

    @property
    def share(self) -> float:
        """How much of the run is done, from 0 to 1."""
        return 1.0 if self.is_finished else min(1.0, sum(self.n_epochs) / self.n_planned)

    def start(self) -> None:
        """Count what every phase has."""
        for phase in range(len(self.paths)):
            if self._count(phase):
                self.phase = phase

    def end(self, *, finished: bool) -> None:
        """The run has ended."""
        self.has_ended, self.is_finished = True, finished

    def look(self) -> None:
        """Look at one file."""
        phase = self.phase + (self.looks_ahead and self.phase + 1 < len(self.paths))
        has_grown = self._count(phase)
        if has_grown:
            self.phase = phase
        self.looks_ahead = not has_grown and phase == self.phase

    def _count(self, phase: int) -> bool:
        """Count the epochs in the file of a phase, if it has changed."""
        try:
            size = self.paths[phase].stat().st_size
            if size == self.sizes[phase]:
                return False
            self.n_epochs[phase] = self.paths[phase].read_bytes().count(b"\n")
        except OSError:  # not begun, or out of sight for a moment
            return False
        self.sizes[phase] = size
        return True


def format_duration(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds, as 3 h 05 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
