"""What determines a run, as `experiment.json` stores it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hippynn_mf.data.checks.report import Accepted
from hippynn_mf.data.formats.ani1x import Rows
from hippynn_mf.data.formats.sources import DataPath
from hippynn_mf.data.self_energies import SelfEnergies
from hippynn_mf.data.splits import SplitBy
from hippynn_mf.errors import UserError
from hippynn_mf.hyperparameters import Hyperparameters
from hippynn_mf.labels import Labels, Properties, join_labels
from hippynn_mf.level_records import LevelRecord
from hippynn_mf.levels import NAME_PATTERN, Level, Levels
from hippynn_mf.runs.experiment import Experiment
from hippynn_mf.runs.parent import PARENT_DATA, Parent
from hippynn_mf.runs.sources import DATA, TAKEN, VALID, DataSource, TestSource
from hippynn_mf.runs.weights import WeightsById

SLUG = NAME_PATTERN  # a folder's name: neither a separator nor a dot, so nothing leads outside

RunKey = tuple[str, int, int]


class RunSettings(BaseModel):
    """Everything that determines a run, as stored in `experiment.json`.

    Attributes:
        name, slug: of its experiment.
        strategy: how its levels are learned, see `strategies.py`.
        labels: level id → what is trained on.
        levels: records of every level that the run knows.
        common_levels: ids of the levels whose energies common structures have.
        seed, split_seed, rows, preset, hyperparameters, device: as the command line's.
        data: what is trained on.
        tests: what is evaluated on and never trained on, beside the held-out structures.
        label_fractions: level id → fraction of its training and validation labels that is kept,
            see `keep_labels`.
        accept_outliers, accept_charged: what the checks of the files let through.
        ignore_cell: periodic structures are read as molecules.
        weights: level id → term → weight in the loss, in place of the hyperparameters'.
        split: what is drawn for test and validation, see `splits.py`.
        valid: the file whose structures validate, None where a part of the data does.
        parent: the finished model that the run extends; None of other runs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    strategy: str
    slug: Annotated[str, Field(pattern=rf"^{SLUG}$")]
    labels: dict[str, Literal["E", "EF", "EFS"]]
    levels: tuple[LevelRecord, ...]
    common_levels: tuple[str, ...]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    split_seed: Annotated[int, Field(ge=0, lt=2**32)]
    rows: Rows
    preset: str
    hyperparameters: Hyperparameters
    data: DataSource
    tests: tuple[TestSource, ...] = ()
    device: str
    label_fractions: dict[str, float] = {}
    accept_outliers: bool = False
    accept_charged: bool = False
    ignore_cell: bool = False
    weights: WeightsById = {}
    split: SplitBy = "conformer"
    valid: DataSource | None = None
    parent: Parent | None = None

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        ids = [record.id for record in self.levels]
        sets = [source.name for source in self.tests]
        for what, names in (("level", ids), ("test set", sets)):
            if len(set(names)) < len(names):
                raise ValueError(f"a {what} is there twice: {', '.join(names)}")
        if taken := sorted(set(sets) & set(TAKEN)):
            raise ValueError(f"no test set is named {', '.join(taken)}")
        used = {*self.labels, *self.common_levels, *self.label_fractions, *self.weights}
        if unknown := sorted(used - set(ids)):
            raise ValueError(f"no record of level {', '.join(unknown)} among {', '.join(ids)}")
        return self

    @property
    def key(self) -> RunKey:
        """What tells the run from others of its campaign."""
        return self.slug, self.seed, self.split_seed

    @property
    def accepted(self) -> Accepted:
        """What the checks of the files let through."""
        return Accepted(
            outliers=self.accept_outliers,
            charged=self.accept_charged,
            ignore_cell=self.ignore_cell,
        )

    @property
    def known(self) -> Levels:
        """The levels that the run knows."""
        return Levels(record.level for record in self.levels)

    @property
    def experiment(self) -> Experiment:
        """The experiment of the run."""
        known = self.known
        return Experiment(
            labels={known.get(name): Properties(value) for name, value in self.labels.items()},
            common_levels=tuple(map(known.get, self.common_levels)),
            prefix=self.strategy,
        )

    @property
    def model_labels(self) -> Labels:
        """Every level that the model has a head for, with its labels.

        Of an extension also the parent's levels that are not trained, as energies.
        """
        trained = self.experiment.resolved_labels
        if self.parent is None:
            return trained
        others = dict.fromkeys(map(self.known.get, self.parent.levels), Properties.E)
        return join_labels(trained, others)

    @property
    def bases(self) -> dict[Level, Level]:
        """New level of an extension → the parent's level that it begins as."""
        found = {} if self.parent is None else self.parent.bases
        return {self.known.get(name): self.known.get(base) for name, base in found.items()}

    @property
    def coupled(self) -> dict[Level, Level]:
        """Those of `bases` that are a correction of the other, which are above it."""
        return {level: base for level, base in self.bases.items() if base.rank < level.rank}

    @property
    def parent_run(self) -> RunSettings | None:
        """The settings of the run that is extended; None where its data are not known."""
        if self.parent is None or self.parent.run is None:
            return None
        return RunSettings.model_validate_json(json.dumps(self.parent.run))

    @property
    def n_epochs_planned(self) -> int:
        """Epochs of all phases, of which a training may do less."""
        return len(self.experiment.phases) * self.hyperparameters.max_epochs

    @property
    def sources(self) -> dict[str, DataSource]:
        """The training data as `data`, those of validation as `valid`, and test sets by name."""
        valid = {} if self.valid is None else {VALID: self.valid}
        run = self.parent_run
        is_other = run is not None and run.data.path != self.data.path
        parent = {PARENT_DATA: run.data} if run is not None and is_other else {}
        tests = {source.name: source for source in self.tests}
        return {DATA: self.data, **valid, **parent, **tests}

    def test(self, name: str) -> TestSource | None:
        """The test set of this name, None without one."""
        return next((source for source in self.tests if source.name == name), None)

    def differences(self, other: RunSettings) -> list[str]:
        """What differs in a way that changes results: not the device, nor where a file lies.

        A level that only one of both knows is no difference, another level of the same name is.
        """
        mine, theirs = _values(self), _values(other)
        for name in (self.sources.keys() ^ other.sources.keys()) - {
            VALID,
            PARENT_DATA,
        }:  # is one difference
            for values, settings in ((mine, self), (theirs, other)):
                for key in [key for key in values if key.startswith(f"tests.{name}.")]:
                    del values[key]
                source = settings.test(name)
                values[f"tests.{name}"] = None if source is None else source.file_name
        texts = [
            f"{key}: {theirs.get(key)!r} → {mine.get(key)!r}"
            for key in dict.fromkeys([*mine, *theirs])
            if mine.get(key) != theirs.get(key)
        ]
        known = {record.id: record for record in other.levels}
        for record in self.levels:
            level_texts = record.differences(known.get(record.id, record))
            texts += [f"levels.{record.id}: {text}" for text in level_texts]
        return texts

    def with_self_energies(self, found: Mapping[str, SelfEnergies]) -> RunSettings:
        """The same settings with the self energies of a run in its levels, beside the declared."""
        levels = tuple(
            record.model_copy(
                update={
                    "self_energies_hartree": {
                        **found[record.id].hartree,
                        **record.self_energies_hartree,
                    }
                }
            )
            if record.id in found
            else record
            for record in self.levels
        )
        return self.model_copy(update={"levels": levels})

    def with_sources(self, paths: Mapping[str, DataPath]) -> RunSettings:
        """The same settings with the files of some `sources` at other places.

        Raises UserError for a name that is none of a source.
        """
        if unknown := sorted(set(paths) - set(self.sources)):
            raise UserError(
                f"{self.name}, seed {self.seed}, has no test set {', '.join(unknown)}. Its files "
                f"are {', '.join(self.sources)}."
            )
        known = self.known
        at = {name: self.sources[name].at(path, levels=known) for name, path in paths.items()}
        tests = tuple(at.get(source.name, source) for source in self.tests)
        moved: dict[str, Any] = {
            "data": at.get(DATA, self.data),
            "valid": at.get(VALID, self.valid),
        }
        run = self.parent_run
        if self.parent is not None and run is not None:
            data = at.get(PARENT_DATA, moved["data"] if PARENT_DATA not in self.sources else None)
            run = run if data is None else run.model_copy(update={"data": data})
            parent = self.parent.model_copy(update={"run": run.model_dump(mode="json")})
            moved["parent"] = parent
        return self.model_copy(update={**moved, "tests": tests})

    def with_tests(self, more: Iterable[TestSource]) -> RunSettings:
        """The same settings with further test sets; a UserError for a name that is taken."""
        tests = (*self.tests, *more)
        names = [source.name for source in tests]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise UserError(
                f"A test set is there twice: {', '.join(repeated)}. Choose other names."
            )
        return self.model_copy(update={"tests": tests})


def _values(settings: RunSettings) -> dict[str, Any]:
    """What determines the results, by names as `data.sha256` and `tests.comp6.keys`."""
    values: dict[str, Any] = {}
    content = settings.model_dump(mode="json", exclude={"device", "levels", "tests"})
    if settings.parent is not None:
        content["parent"] = settings.parent.values()
    parts = {key: value for key, value in content.items() if isinstance(value, dict)}
    for source in settings.tests:
        parts[f"tests.{source.name}"] = source.model_dump(mode="json", exclude={"name"})
    for source_name in (DATA, VALID, *(name for name in parts if name.startswith("tests."))):
        if source_name in parts:
            parts[source_name].pop("path")
    for key, value in content.items():
        if key not in parts:
            values[key] = value
    for key, part in parts.items():
        values |= {f"{key}.{name}": value for name, value in part.items()}
    return values
