"""What determines a run, as `experiment.json` stores it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from hippynn_mf.data.formats.ani1x import Rows
from hippynn_mf.data.formats.sources import DataPath, absolute_paths, shown_path
from hippynn_mf.data.loading import file_hash
from hippynn_mf.hyperparameters import Hyperparameters
from hippynn_mf.labels import parse_labels
from hippynn_mf.levels import Levels, get_level, known_levels
from hippynn_mf.runs.experiment import Experiment

SOURCES = ("data", "comp6", "test_file")  # the settings that name files

RunKey = tuple[str, int]


class Source(BaseModel):
    """Data, and the hash by which they are recognised."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str


class DataSource(Source):
    """Labelled data: a file, or an extended XYZ file for each level by its id."""

    path: Path | dict[str, Path]

    @classmethod
    def of(cls, data: DataPath) -> DataSource:
        """Data with their hash and absolute paths; a UserError if there is no such file."""
        return cls(path=absolute_paths(data), sha256=file_hash(data))

    @property
    def shown(self) -> Path:
        """The file, or all files with their levels, for messages."""
        return shown_path(self.path)

    @property
    def name(self) -> str:
        """The name of the file, or of all files with their levels."""
        if isinstance(self.path, Path):
            return self.path.name
        return str(shown_path({level: Path(path.name) for level, path in self.path.items()}))


class Comp6Source(Source):
    """COMP6 data: the file or folder, the key map, and the energy cut in kcal/mol."""

    path: Path
    keys: dict[str, dict[str, str]]
    energy_cut_kcal_per_mol: float


class RunSettings(BaseModel):
    """Everything that determines a run, as stored in `experiment.json`.

    `test_file` is evaluated on and never trained on; None also for runs of before there was one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    slug: str
    labels: dict[str, Literal["E", "EF"]]
    common_levels: list[str]
    seed: int
    split_seed: int
    rows: Rows
    preset: str
    hyperparameters: Hyperparameters
    data: DataSource
    comp6: Comp6Source | None
    test_file: DataSource | None = None
    device: str
    # Level id → fraction of its training and validation labels that is kept, see `keep_labels`.
    label_fractions: dict[str, float] = {}

    @property
    def key(self) -> RunKey:
        """What tells the run from others of its campaign."""
        return self.slug, self.seed

    @property
    def experiment(self) -> Experiment:
        """The experiment of the run; its row and published numbers are not part of a run."""
        levels = tuple(get_level(name) for name in self.common_levels)
        prefix, _, _ = self.name.partition("-")
        labels = parse_labels(self.labels, levels=Levels(known_levels()))
        return Experiment(labels=labels, common_levels=levels, prefix=prefix)

    @property
    def n_epochs_planned(self) -> int:
        """Epochs of all phases, of which a training may do less."""
        return len(self.experiment.phases) * self.hyperparameters.max_epochs

    def differences(self, other: RunSettings) -> list[str]:
        """What differs in a way that changes results: not the device, nor where a file lies."""
        mine, theirs = (s.model_dump(mode="json", exclude={"device"}) for s in (self, other))
        for settings in (mine, theirs):
            for source in SOURCES:
                if settings[source]:
                    settings[source].pop("path")
        found = []
        for key in mine:
            if mine[key] == theirs[key]:
                continue
            if isinstance(mine[key], dict) and isinstance(theirs[key], dict):
                pairs = {n: (theirs[key].get(n), mine[key].get(n)) for n in theirs[key] | mine[key]}
                found += [f"{key}.{n}: {a!r} → {b!r}" for n, (a, b) in pairs.items() if a != b]
            else:
                found.append(f"{key}: {theirs[key]!r} → {mine[key]!r}")
        return found

    def with_source(self, name: str, path: DataPath) -> RunSettings:
        """The same settings with the file of a source, one of `SOURCES`, at another place."""
        source = getattr(self, name).model_copy(update={"path": absolute_paths(path)})
        return self.model_copy(update={name: source})
