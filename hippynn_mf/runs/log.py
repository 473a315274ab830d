"""What a training leaves in its run folder while it goes on: metrics of every epoch, and a log."""

from __future__ import annotations

import contextlib
import logging
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import hippynn
from hippynn.experiment.metric_tracker import MetricTracker

from hippynn_mf.errors import UserError
from hippynn_mf.files import writing
from hippynn_mf.runs.folder import RunFolder


class EpochRecord:
    """Appends the metrics of every epoch to `epochs.jsonl`."""

    def __init__(self, folder: RunFolder, tracker: MetricTracker) -> None:
        self.folder = folder
        self.tracker = tracker
        self.cpu_s = time.process_time()

    def __call__(self, epoch: int, better: bool) -> None:
        """Append the metrics; a UserError if one is not finite: the training diverged."""
        metrics = self.tracker.epoch_metric_values[-1]
        if not all(math.isfinite(value) for value in metrics["valid"].values()):
            raise UserError(
                f"Training diverged in epoch {epoch + 1}: a validation metric is not finite. "
                "Lower learning_rate, or look for absurd labels with 'hippynn-mf data info'."
            )
        before, self.cpu_s = self.cpu_s, time.process_time()
        record = {
            "epoch": epoch,
            "best": better,
            "wall_s": self.tracker.epoch_times[-1],
            "cpu_s": self.cpu_s - before,  # other work on the machine does not count
            **metrics,
        }
        self.folder.append_epoch(record)


class _LogHandler(logging.StreamHandler[TextIO]):
    """Writes to a run's log, of which a full disk leaves out lines without more ado.

    It ends the training as well, when weights or epochs are written, with a message of its own.
    """

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Pass over what the system refuses; anything else is printed as logging does."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


@contextlib.contextmanager
def logged_to(path: Path) -> Iterator[None]:
    """Send the package's log, warnings and hippynn's prints to a file; no hippynn progress bars."""
    bars, hippynn.settings.PROGRESS = hippynn.settings.PROGRESS, None
    with writing(path):
        log_file = path.open("a", encoding="utf-8")
    with log_file as stream:
        handler = _LogHandler(stream)
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
        package, raised = logging.getLogger("hippynn_mf"), logging.getLogger("py.warnings")
        level, propagates = package.level, raised.propagate
        for logger in (package, raised):
            logger.addHandler(handler)
        package.setLevel(logging.INFO)
        raised.propagate = False  # a warning on the terminal would break the progress bar
        logging.captureWarnings(True)
        try:
            with contextlib.redirect_stdout(stream):
                yield
        finally:
            logging.captureWarnings(False)
            package.setLevel(level)
            raised.propagate = propagates
            for logger in (package, raised):
                logger.removeHandler(handler)
            hippynn.settings.PROGRESS = bars
