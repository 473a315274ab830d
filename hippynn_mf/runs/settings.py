"""What determines a run, as `experiment.json` stores it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hippynn_mf.data.formats.ani1x import Rows
from hippynn_mf.data.formats.comp6 import PUBLIC_KEYS, KeyMap
from hippynn_mf.data.formats.sources import DataPath, absolute_paths
from hippynn_mf.data.loading import file_hash
from hippynn_mf.data.splits import SplitBy
from hippynn_mf.errors import UserError
from hippynn_mf.evaluation.layouts import find_layout
from hippynn_mf.evaluation.schema import HELDOUT
from hippynn_mf.hyperparameters import Hyperparameters
from hippynn_mf.labels import Properties
from hippynn_mf.level_records import LevelRecord
from hippynn_mf.levels import KNOWN_LEVELS, NAME_PATTERN, Levels
from hippynn_mf.runs.experiment import Experiment

DATA = "data"  # the training data among the sources of a run
VALID = "valid"  # the file of validation structures, if there is one
SET_NAME = r"[a-z0-9][a-z0-9_-]*"
TAKEN = (DATA, VALID, HELDOUT)  # names that no test set has

RunKey = tuple[str, int, int]


class DataSource(BaseModel):
    """Labelled data, and the hash by which they are recognised.

    `path` is a file, a folder of files in the COMP6 layout, or an extended XYZ file for each level
    by its id.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    path: Path | dict[str, Path]

    @classmethod
    def of(cls, data: DataPath, *, levels: Levels = KNOWN_LEVELS) -> DataSource:
        """Data with their hash and absolute paths; a UserError if there is no such file."""
        path = absolute_paths(data, levels=levels)
        return DataSource(path=path, sha256=file_hash(path, levels=levels))

    @property
    def shown(self) -> Path:
        """The file, or all files with the ids of their levels, for messages."""
        return _shown(self.path)

    @property
    def file_name(self) -> str:
        """The name of the file, or of all files with the ids of their levels."""
        if isinstance(self.path, Path):
            return self.path.name
        return str(_shown({level: Path(path.name) for level, path in self.path.items()}))

    def at(self, path: DataPath, *, levels: Levels = KNOWN_LEVELS) -> Self:
        """The same data at another place."""
        return self.model_copy(update={"path": absolute_paths(path, levels=levels)})


def _shown(path: Path | Mapping[str, Path]) -> Path:
    if isinstance(path, Path):
        return path
    return Path(" ".join(f"{level}={file}" for level, file in path.items()))


class TestSource(DataSource):
    """A test set: data that are evaluated on and never trained on.

    Attributes:
        name: of the set, in metrics and predictions.
        keys: key map of files in the COMP6 layout, level → property → key; None for others.
        energy_cut_kcal_per_mol: conformers up to so far above their molecule's minimum count, and
            energies are differences of conformers; None for energies of all structures.
    """

    __test__: ClassVar[bool] = False  # no test of pytest's

    name: Annotated[str, Field(pattern=f"^{SET_NAME}$")]
    keys: dict[str, dict[str, str]] | None = None
    energy_cut_kcal_per_mol: float | None = Field(None, ge=0, allow_inf_nan=False)

    @classmethod
    def of(  # type: ignore[override]
        cls,
        name: str,
        data: DataPath,
        *,
        keys: KeyMap | None = None,
        energy_cut: float | None = None,
        levels: Levels = KNOWN_LEVELS,
    ) -> TestSource:
        """A test set with the hash and absolute paths of its data.

        Args:
            name: lower-case letters, digits, `_` and `-`; not one of `TAKEN`.
            data: a file in the ANI-1x layout, a file or folder in the COMP6 layout, extended XYZ,
                or an extended XYZ file for each level.
            keys: a key map for the COMP6 layout, by default that of the public files.
            energy_cut: in kcal/mol, for the COMP6 layout, whose groups are molecules.
            levels: what names of levels stand for.

        Raises:
            UserError: for a wrong name, no such file, a file in none of the layouts, and a key map
                or a cut for another layout than COMP6's.
        """
        if not re.fullmatch(SET_NAME, name) or name in TAKEN:
            raise UserError(
                f"A test set is named by lower-case letters, digits, _ and -, and not "
                f"{' or '.join(TAKEN)}; found {name!r}."
            )
        path = absolute_paths(data, levels=levels)
        sha256 = file_hash(path, levels=levels)
        if keys is None:  # else the reader says what is not as the key map has it
            layout = find_layout(path)
            keys = PUBLIC_KEYS if layout == "comp6" else None
        if keys is None and energy_cut is not None:
            raise UserError(
                f"{_shown(path)}: an energy cut is for files in the COMP6 layout, whose groups "
                "are molecules. Leave it out."
            )
        plain = None if keys is None else {level: dict(names) for level, names in keys.items()}
        return TestSource(
            name=name, path=path, sha256=sha256, keys=plain, energy_cut_kcal_per_mol=energy_cut
        )

    @property
    def option(self) -> str:
        """What a user types to test on the set."""
        if self.keys is not None and self.energy_cut_kcal_per_mol is not None:
            return f"--comp6 {self.shown}"
        if isinstance(self.path, Path):
            return f"--test {self.name}={self.path}"
        files = " ".join(f"{level}:{path}" for level, path in self.path.items())
        return f"--test {self.name}={files}"


def parse_test(text: str, *, levels: Levels = KNOWN_LEVELS) -> TestSource:
    """The test set that NAME=FILE stands for, or NAME=LEVEL:FILE for extended XYZ of one level.

    Raises UserError for another form, an unknown level, and as `TestSource.of`.
    """
    name, separator, path = text.partition("=")
    if not separator or not name or not path:
        raise UserError(
            "--test expects NAME=FILE, or NAME=LEVEL:FILE for extended XYZ with the labels of one "
            f"level; found {text!r}."
        )
    of_level = re.fullmatch(rf"({NAME_PATTERN}):(.+)", path)
    if of_level is None or Path(path).exists():
        return TestSource.of(name, Path(path), levels=levels)
    return TestSource.of(name, {of_level[1]: Path(of_level[2])}, levels=levels)


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
        split: what is drawn for test and validation, see `splits.py`.
        valid: the file whose structures validate, None where a part of the data does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    strategy: str
    slug: str
    labels: dict[str, Literal["E", "EF"]]
    levels: tuple[LevelRecord, ...]
    common_levels: tuple[str, ...]
    seed: int
    split_seed: int
    rows: Rows
    preset: str
    hyperparameters: Hyperparameters
    data: DataSource
    tests: tuple[TestSource, ...] = ()
    device: str
    label_fractions: dict[str, float] = {}
    split: SplitBy = "conformer"
    valid: DataSource | None = None

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        ids = [record.id for record in self.levels]
        sets = [source.name for source in self.tests]
        for what, names in (("level", ids), ("test set", sets)):
            if len(set(names)) < len(names):
                raise ValueError(f"a {what} is there twice: {', '.join(names)}")
        if taken := sorted(set(sets) & set(TAKEN)):
            raise ValueError(f"no test set is named {', '.join(taken)}")
        used = {*self.labels, *self.common_levels, *self.label_fractions}
        if unknown := sorted(used - set(ids)):
            raise ValueError(f"no record of level {', '.join(unknown)} among {', '.join(ids)}")
        return self

    @property
    def key(self) -> RunKey:
        """What tells the run from others of its campaign."""
        return self.slug, self.seed, self.split_seed

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
    def n_epochs_planned(self) -> int:
        """Epochs of all phases, of which a training may do less."""
        return len(self.experiment.phases) * self.hyperparameters.max_epochs

    @property
    def sources(self) -> dict[str, DataSource]:
        """The training data as `data`, those of validation as `valid`, and test sets by name."""
        valid = {} if self.valid is None else {VALID: self.valid}
        return {DATA: self.data, **valid, **{source.name: source for source in self.tests}}

    def test(self, name: str) -> TestSource | None:
        """The test set of this name, None without one."""
        return next((source for source in self.tests if source.name == name), None)

    def differences(self, other: RunSettings) -> list[str]:
        """What differs in a way that changes results: not the device, nor where a file lies.

        A level that only one of both knows is no difference, another level of the same name is.
        """
        mine, theirs = _values(self), _values(other)
        for name in (self.sources.keys() ^ other.sources.keys()) - {VALID}:  # is one difference
            for values, settings in ((mine, self), (theirs, other)):
                for key in [key for key in values if key.startswith(f"tests.{name}.")]:
                    del values[key]
                source = settings.test(name)
                values[f"tests.{name}"] = None if source is None else source.file_name
        found = [
            f"{key}: {theirs.get(key)!r} → {mine.get(key)!r}"
            for key in dict.fromkeys([*mine, *theirs])
            if mine.get(key) != theirs.get(key)
        ]
        known = {record.id: record for record in other.levels}
        for record in self.levels:
            of_level = record.differences(known.get(record.id, record))
            found += [f"levels.{record.id}: {text}" for text in of_level]
        return found

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
        moved = {"data": at.get(DATA, self.data), "valid": at.get(VALID, self.valid)}
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
