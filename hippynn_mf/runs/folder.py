"""Runs: one experiment trained with one seed, and the folder that holds all of it.

`OUT/runs/<slug>/seed-<k>/`:

A run with another split seed S than 0 lies beside it, in `seed-<k>-split-<S>/`.

- `experiment.json`: every setting, with levels and the data's hashes, and versions; written first
- `split.npz`: positions in the file of the train, valid and test conformers
- `epochs.jsonl`: validation metrics after every epoch
- `checkpoint.pt`, `checkpoint-previous.pt`: the training after its last two epochs, see
  `checkpoints.py`; removed when the run is finished
- `model.pt`: parameters of the epoch that is kept (a state dict, loadable without running code)
- `model-best.pt`, `model-last.pt`: likewise of the best epoch and of the last one
- `predictions.npz`: predictions and references on the held-out structures and every test set
- `metrics.json`: errors with their units; written last, so its presence means finished
- `parent.safetensors`: of an extension, the member of the finished model that it started from
- `failure.txt`: why the last attempt ended early, if it did
- `log.txt`: everything that was logged or printed

The last phase of a strategy is in that folder; an earlier one has `epochs.jsonl`, checkpoints and
`model.pt` in a folder of its name, as `pretraining/`.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from hippynn_mf.data.checks.report import CheckReport
from hippynn_mf.data.loading import file_hash
from hippynn_mf.data.self_energies import SelfEnergies
from hippynn_mf.errors import UserError
from hippynn_mf.evaluation.schema import CONVERT, HELDOUT, Changes, plain_changes, validate_metrics
from hippynn_mf.files import (
    exists,
    json_text,
    make_folder,
    parse_json,
    read_json,
    read_npz,
    read_text,
    reading,
    replace_when_complete,
    write_json,
    writing,
)
from hippynn_mf.runs.settings import RunSettings
from hippynn_mf.schema import describe_errors

FORMAT = 2
RUNS_ARE = "Runs are folders OUT/runs/EXPERIMENT/seed-K."
FAILURE = "failure.txt"
LOCK_WAIT_SECONDS = 10.0
_SelfEnergiesByLevel = TypeAdapter(dict[str, SelfEnergies])
LOG_END = 2**20  # bytes of a log in which its last lines are looked for


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run: its files, what is in it, and whether it is finished."""

    path: Path

    @classmethod
    def of(cls, out: Path, settings: RunSettings) -> RunFolder:
        """The folder in `out` that belongs to these settings."""
        folder = out / "runs" / settings.slug
        plain = cls(folder / f"seed-{settings.seed}")
        if settings.split_seed == 0 or plain.has_split(settings.split_seed):
            return plain  # the second, of an older version
        return cls(folder / run_folder_name(settings.seed, settings.split_seed))

    def file(self, name: str) -> Path:
        """A file of the folder."""
        return self.path / name

    def has_split(self, split_seed: int) -> bool:
        """Whether the folder holds a run with this split seed, as far as that can be read."""
        try:
            stored = self._read_json("experiment.json").get("settings")
        except UserError:
            return False
        return isinstance(stored, dict) and stored.get("split_seed") == split_seed

    @property
    def is_finished(self) -> bool:
        """Whether the run has its metrics, which are written last."""
        return exists(self.file("metrics.json"))

    @property
    def n_epochs(self) -> int:
        """Epochs trained so far, in all phases."""
        n = 0
        for path in (self.file("epochs.jsonl"), *self.path.glob("*/epochs.jsonl")):
            with reading(path), suppress(FileNotFoundError):
                n += path.read_bytes().count(b"\n")
        return n

    def phase(self, name: str) -> RunFolder:
        """The folder of an earlier phase, with its epochs, checkpoints and `model.pt`."""
        return RunFolder(self.path / name)

    def phases(self, settings: RunSettings) -> list[RunFolder]:
        """The folders of all phases in their order, begun or not; the last one is this folder."""
        *earlier, _ = settings.experiment.phases
        return [*(self.phase(phase.name) for phase in earlier), self]

    def read_settings(self) -> RunSettings:
        """Settings from `experiment.json`. Raises UserError if this is no run of this version."""
        stored = self._read_json("experiment.json")
        number = stored.get("format")
        if number != FORMAT:
            remedy = (
                CONVERT if number == 1 else "Choose another folder, or the version that wrote it."
            )
            raise UserError(
                f"{self.path} has run format {number!r}; this version of hippynn_mf reads format "
                f"{FORMAT}. {remedy}"
            )
        path = self.file("experiment.json")
        settings = stored.get("settings")
        if not isinstance(settings, dict):
            raise UserError(f"{path} is damaged: settings: expected a JSON object.")
        try:
            return RunSettings.model_validate_json(json.dumps(settings))
        except ValidationError as error:
            raise UserError(f"{path} is damaged: {describe_errors(error)}") from None

    def read_self_energies(self) -> dict[str, SelfEnergies] | None:
        """Level id → self energies of the run; None of one that has not begun.

        A run of an older version has none: its levels declare them.
        """
        if not exists(self.file("experiment.json")):
            return None
        content = self._read_json("experiment.json").get("self_energies", {})
        try:
            return _SelfEnergiesByLevel.validate_json(json.dumps(content))
        except ValidationError as error:
            path = self.file("experiment.json")
            raise UserError(f"{path} is damaged: self_energies: {describe_errors(error)}") from None

    def read_elements(self) -> dict[str, tuple[int, ...]]:
        """Level id → atomic numbers that the heads of the run know; none of older versions."""
        content = self._read_json("experiment.json").get("elements", {})
        return {name: tuple(elements) for name, elements in content.items()}

    @contextmanager
    def locked(self, *, wait_s: float = LOCK_WAIT_SECONDS) -> Iterator[None]:
        """Hold the folder for this process; a UserError if another process trains in it.

        The operating system frees the lock when the process ends, however it ends. Waiting for it a
        little lets the workers of a killed campaign end first.
        """
        make_folder(self.path)
        try:
            with writing(self.file(".lock")), FileLock(self.file(".lock"), timeout=wait_s):
                yield
        except Timeout:
            raise UserError(
                f"Another process is training {self.path}. Wait for it, or choose another --out."
            ) from None

    @property
    def is_locked(self) -> bool:
        """Whether a process trains in the folder now."""
        if not self.file(".lock").exists():
            return False
        try:
            with FileLock(self.file(".lock"), timeout=0):
                return False
        except (Timeout, PermissionError):  # somebody else's, whose state only he can tell
            return True

    def remove_leftovers(self) -> None:
        """Remove what an attempt that ended early left behind; the lock must be held."""
        for path in [self.file(FAILURE), *self.path.glob(".*.partial")]:
            with writing(path):
                path.unlink(missing_ok=True)

    def write_failure(self, message: str) -> None:
        """Leave what ended the run, which the next attempt removes."""
        with replace_when_complete(self.file(FAILURE)) as partial:
            partial.write_text(message + "\n", encoding="utf-8")

    def read_failure(self) -> str | None:
        """What ended the last attempt, None if nothing did."""
        path = self.file(FAILURE)
        return read_text(path).strip() if exists(path) else None

    def prepare(self, settings: RunSettings, facts: dict[str, Any]) -> None:
        """Create the folder, and write settings and facts, which come first."""
        make_folder(self.path)
        content = {"format": FORMAT, "settings": settings.model_dump(mode="json"), **facts}
        write_json(self.file("experiment.json"), content)

    def write_results(
        self,
        errors: Mapping[str, Any],
        predictions: Mapping[str, np.ndarray],
        *,
        training: Mapping[str, Any] | None,
        inference: Mapping[str, Any] | None,
        warnings: Sequence[str] = (),
        settings: RunSettings | None = None,
        checks: Sequence[CheckReport] = (),
        changes: Changes | None = None,
    ) -> None:
        """Write predictions, settings and checks, and last the metrics, all or nothing.

        Without `settings` or `checks`, those of `experiment.json` stay. `changes` are
        those of an extension.

        Each file is complete before the first takes its place, and that of the metrics is the last:
        they name the SHA-256 of their predictions, so what a killed process has left half done is
        noticed by `read_metrics` and `read_predictions`.
        """
        with (
            replace_when_complete(self.file("metrics.json")) as metrics_file,
            ExitStack() as settings_stack,
            replace_when_complete(self.file("predictions.npz")) as predictions_file,
        ):
            with predictions_file.open("wb") as stream:
                np.savez(stream, allow_pickle=False, **predictions)
            changed: dict[str, Any] = {}
            if settings is not None:
                changed["settings"] = settings.model_dump(mode="json")
            if checks:
                changed["checks"] = [report.model_dump(mode="json") for report in checks]
            if changed:
                path = self.file("experiment.json")
                content = read_json(path) | changed
                partial = settings_stack.enter_context(replace_when_complete(path))
                partial.write_text(json_text(content), encoding="utf-8")
            metrics = {
                "format": FORMAT,
                "sets": errors,
                "training": training,
                "inference": inference,
                "predictions_sha256": file_hash(predictions_file),
                "warnings": list(warnings),
            }
            if changes is not None:
                metrics["parent"] = plain_changes(changes)
            validate_metrics(metrics, self.file("metrics.json"))
            metrics_file.write_text(json_text(metrics), encoding="utf-8")

    def read_metrics(self) -> dict[str, Any]:
        """The run's metrics, checked by `RunMetrics`; a UserError naming file and field.

        Also for errors on other sets than `experiment.json` names, which an interrupted evaluation
        leaves.
        """
        content = self._read_metrics()
        if content.get("predictions_sha256") is not None:
            named = [HELDOUT, *(source.name for source in self.read_settings().tests)]
            scored = list(content["sets"])
            if scored != named:
                raise UserError(
                    f"{self.file('metrics.json')} has errors on {', '.join(scored)}, and "
                    f"experiment.json names {', '.join(named)}: {self._interrupted}"
                )
        return content

    def read_costs(self) -> dict[str, Any]:
        """What training and inference took, as in the metrics, whatever their errors are of."""
        content = self._read_metrics()
        return {name: content.get(name) for name in ("training", "inference")}

    def _read_metrics(self) -> dict[str, Any]:
        content = self._read_json("metrics.json")
        validate_metrics(content, self.file("metrics.json"))
        return content

    @property
    def _interrupted(self) -> str:
        return (
            f"an evaluation was interrupted. 'hippynn-mf evaluate {self.path}' makes both again, "
            "without training."
        )

    def _read_json(self, name: str) -> dict[str, Any]:
        if not exists(self.file(name)):
            if not exists(self.path):
                raise UserError(f"There is no folder {self.path}. {RUNS_ARE}")
            raise UserError(f"No {name} in {self.path}; this is not a finished run. {RUNS_ARE}")
        return read_json(self.file(name))

    def read_epochs(self) -> list[dict[str, Any]]:
        """Metrics of every epoch: `{"epoch": n, "train": {...}, "valid": {...}}`."""
        path = self.file("epochs.jsonl")
        if not path.exists():
            raise UserError(f"No {path.name} in {self.path}; train the run again.")
        lines = read_text(path).split("\n")[:-1]  # the last may be cut
        records = [parse_json(line, f"{path}, line {n}") for n, line in enumerate(lines, 1)]
        for number, record in enumerate(records, 1):
            if not isinstance(record, dict) or type(record.get("epoch", 0)) is not int:
                raise UserError(
                    f"{path} is damaged: line {number} is no record of an epoch. Delete "
                    f"{self.path}."
                )
        return records

    def read_log(self, n_lines: int) -> list[str]:
        """The last lines of the run's log."""
        path = self.file("log.txt")
        if not exists(path):
            return []
        with reading(path), path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - LOG_END))
            return stream.read().decode(errors="replace").splitlines()[-n_lines:]

    def append_epoch(self, record: dict[str, Any]) -> None:
        """Add the metrics of one epoch."""
        path = self.file("epochs.jsonl")
        with writing(path), path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def write_epochs(self, records: Sequence[dict[str, Any]]) -> None:
        """Replace the metrics of all epochs."""
        with replace_when_complete(self.file("epochs.jsonl")) as partial:
            partial.write_text("".join(json.dumps(record) + "\n" for record in records))

    def read_predictions(self) -> dict[str, np.ndarray]:
        """Predictions and references on all structures that test the run, by name."""
        path = self.file("predictions.npz")
        if not path.exists():
            raise UserError(f"No {path.name} in {self.path}; run 'hippynn-mf evaluate' on it.")
        if self.is_finished:
            expected = self._read_metrics().get("predictions_sha256")
            if expected is not None and file_hash(path) != expected:
                raise UserError(f"{path} is not what metrics.json is of: {self._interrupted}")
        return read_npz(path, f"'hippynn-mf evaluate {self.path}' makes it again.")


def run_folder_name(seed: int, split_seed: int) -> str:
    """The name of the folder of a run below that of its experiment."""
    return f"seed-{seed}" if split_seed == 0 else f"seed-{seed}-split-{split_seed}"


def find_runs(out: Path) -> list[RunFolder]:
    """Every run folder below `out`, finished or not, in alphabetical order."""
    return [RunFolder(path.parent) for path in sorted(out.glob("runs/*/seed-*/experiment.json"))]


def no_runs_message(out: Path) -> str:
    """What a folder without runs is answered with."""
    return f"No runs in {out}. Train some with 'hippynn-mf campaign --out {shlex.quote(str(out))}'."
