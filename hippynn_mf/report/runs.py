"""One run as the report sees it, from its folder or from a line of kept results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict

from hippynn_mf.errors import UserError
from hippynn_mf.files import read_json
from hippynn_mf.hyperparameters import KeptEpoch as KeepRule
from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.runs.kept import kept_number
from hippynn_mf.runs.settings import RunSettings
from hippynn_mf.schema import validate_json


class KeptEpoch(BaseModel):
    """The epoch whose parameters a run kept: its validation errors.

    `number` counts from 1 in the last phase, which had `of` epochs; None where it is not known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int | None
    of: int | None
    valid: dict[str, float]


@dataclass(frozen=True)
class Run:
    """A run, finished if it has metrics.

    Attributes:
        settings: what determines it.
        metrics: content of `metrics.json`, None for an unfinished run.
        where: its folder or line, for messages.
        folder: None for a run that is kept as a line.
        facts: versions, numbers of structures and so on, as `experiment.json` has them.
        kept_epoch: None where it is not known.
        failure: why its last attempt ended early.
    """

    settings: RunSettings
    metrics: Mapping[str, Any] | None
    where: str
    folder: RunFolder | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    kept_epoch: KeptEpoch | None = None
    failure: str | None = None

    @property
    def name(self) -> str:
        """The experiment."""
        return self.settings.name

    @property
    def seed(self) -> int:
        """The seed of weights and batches."""
        return self.settings.seed

    @property
    def sets(self) -> Mapping[str, Any]:
        """Errors by set, head and reference."""
        return {} if self.metrics is None else self.metrics["sets"]

    def phase_folders(self) -> list[RunFolder]:
        """The folders of all phases in their order, the last one the run's own; empty if kept."""
        return [] if self.folder is None else self.folder.phases(self.settings)

    def require_folder(self) -> RunFolder:
        """The run folder; a UserError for a run that is kept as a line."""
        if self.folder is None:
            raise UserError(
                f"{self.where} has the metrics of {self.name}, seed {self.seed}, and not its "
                "folder with predictions and epochs. Use the folder that the runs were trained in."
            )
        return self.folder


def read_run(folder: RunFolder) -> Run:
    """A run from its folder."""
    content = read_json(folder.file("experiment.json"))
    settings = folder.read_settings()
    return Run(
        settings=settings,
        metrics=folder.read_metrics() if folder.is_finished else None,
        where=str(folder.path),
        folder=folder,
        facts={key: value for key, value in content.items() if key not in ("format", "settings")},
        kept_epoch=_kept_epoch(folder, settings.hyperparameters.kept_epoch),
        failure=folder.read_failure(),
    )


def _kept_epoch(folder: RunFolder, rule: KeepRule) -> KeptEpoch | None:
    if not folder.file("epochs.jsonl").exists():
        return None
    epochs = folder.read_epochs()
    number = kept_number(epochs, rule)
    if number is None:
        return None
    return validate_json(
        KeptEpoch,
        {"number": number, "of": len(epochs), "valid": epochs[number - 1].get("valid")},
        folder.file("epochs.jsonl"),
        "train the run again",
    )
