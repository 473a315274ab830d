"""The progress bar of a campaign, read from its run folders."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.runs.settings import RunSettings

POLL_SECONDS = 1.0


class EpochBar:
    """A progress bar over the epochs of runs, which it reads from their folders.

    Epochs are weighted by what a step of their experiment costs, so that the time left is right.
    """

    def __init__(self, runs: Sequence[RunSettings], out: Path, *, disable: bool) -> None:
        self.runs = [(settings, RunFolder.of(out, settings)) for settings in runs]
        total = sum(self._cost(settings) for settings in runs)
        layout = "{percentage:3.0f}% |{bar}| {elapsed} < {remaining}{postfix}"
        self.bar = tqdm(total=total, bar_format=layout, smoothing=0, disable=disable)
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._update()
        # Before now nothing ran that the rate could count; the bar ends its line only if the last
        # print is not before the start.
        self.bar.start_t = self.bar.last_print_t = time.time()
        self.bar.initial = self.bar.n
        self.thread.start()

    def __exit__(self, *exception: object) -> None:
        self.stopped.set()
        self.thread.join()
        self._update()
        self.bar.close()

    @staticmethod
    def _cost(settings: RunSettings) -> float:
        return settings.hyperparameters.max_epochs * settings.experiment.relative_cost

    def _watch(self) -> None:
        while not self.stopped.wait(POLL_SECONDS):
            self._update()

    def _update(self) -> None:
        done, n_finished = 0.0, 0
        for settings, folder in self.runs:
            finished = folder.is_finished
            n_finished += finished
            share = 1.0 if finished else folder.n_epochs / settings.n_epochs_planned
            done += share * self._cost(settings)
        self.bar.n = done
        self.bar.set_postfix_str(f"{n_finished} of {len(self.runs)} runs finished")
