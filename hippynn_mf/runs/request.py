"""What a user asks for: one model, from which everything that asks or tells is made.

The options of `train` and `campaign`, the keys of a run file and its JSON schema, and the settings
page of the documentation are the fields below with their descriptions; `build.py` makes the
settings of runs of a request.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Strict,
    StringConstraints,
    Tag,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from hippynn_mf.errors import UserError, errors_about
from hippynn_mf.hyperparameters import Hyperparameters
from hippynn_mf.level_records import LevelRecord
from hippynn_mf.levels import KNOWN_LEVELS, Level, Levels
from hippynn_mf.runs.interim import levels_of_records, read_levels
from hippynn_mf.runs.wrong_keys import describe_problems

ENERGY_CUT_KCAL_PER_MOL = 100.0  # the paper's, above a molecule's minimum
HELDOUT = "heldout"  # the test set that every run has


@dataclass(frozen=True)
class Flag:
    """An option of the command line that sets a field, or a part of one.

    Attributes:
        names: as it is typed, the first being the usual one.
        metavar: what its value looks like.
        help: what it sets, where that is less than the field.
        kind: what the command line reads it as.
        many: it may be repeated.
        least: the least number that it may be.
    """

    names: tuple[str, ...]
    metavar: str | None = None
    help: str | None = None
    kind: type = str
    many: bool = False
    least: float | None = None


def _in_folder(path: Path, info: ValidationInfo) -> Path:
    """Paths of a run file start at its folder."""
    folder = (info.context or {}).get("folder")
    return path if folder is None else folder / path


def _kind_of(value: object) -> str:
    if isinstance(value, Mapping):
        return "table"
    return "records" if isinstance(value, list | tuple) else "file"


def overrides_schema() -> dict[str, Any]:
    """JSON schema of changes to a preset: every hyperparameter, none of them required."""
    schema = Hyperparameters.model_json_schema()
    for entry in schema["properties"].values():
        del entry["default"]
    del schema["title"], schema["description"]
    return schema


FileName = Annotated[Path, AfterValidator(_in_folder)]
LevelName = str
# A file, or an extended XYZ file for each level.
Files = Annotated[
    Annotated[FileName, Tag("file")] | Annotated[dict[LevelName, FileName], Tag("table")],
    Discriminator(_kind_of),
]
Overrides = Annotated[dict[str, Any], WithJsonSchema(overrides_schema())]
Seed = Annotated[int, Strict(), Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, le=1)]
TestName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$")]


class _Asked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DeclaredLevel(LevelRecord):
    """A level of theory of the user's own, as in a file for --levels."""

    model_config = ConfigDict(strict=False)

    force_key: str | None = None


class TestRequest(_Asked):
    """Structures that are evaluated on and never trained on.

    With `keys` or `energy_cut_kcal_per_mol` they are in the COMP6 layout.
    """

    path: Files | None = Field(
        None,
        description="File in the ANI-1x layout or extended XYZ, a table LEVEL = FILE of extended "
        "XYZ files, or a file or folder in the COMP6 layout. (default: that of the embedded data "
        "of this name)",
    )
    keys: (
        Annotated[
            Annotated[FileName, Tag("file")]
            | Annotated[dict[LevelName, dict[str, str]], Tag("table")],
            Discriminator(_kind_of),
        ]
        | None
    ) = Field(
        None,
        description="COMP6 layout: JSON file, or table, with the keys of each level's energy and "
        "gradient or forces. (default: the public layout)",
    )
    energy_cut_kcal_per_mol: Annotated[float, Field(ge=0)] | None = Field(
        None,
        description="COMP6 layout: conformers count up to so far above their molecule's minimum, "
        f"kcal/mol. (default: {ENERGY_CUT_KCAL_PER_MOL:g})",
    )

    @property
    def is_comp6(self) -> bool:
        """Whether the structures are conformers of molecules, compared by conformer energies."""
        return self.keys is not None or self.energy_cut_kcal_per_mol is not None


def _as_test(value: object) -> object:
    """A test of nothing but a file may be written as that file."""
    return {"path": value} if isinstance(value, str | Path) else value


class Request(_Asked):
    """Everything that can be asked of `train` and `campaign`, with its defaults."""

    experiments: Annotated[tuple[str, ...], Flag(("--experiments",), metavar="NAME,...")] = Field(
        (),
        description="What to train, as MF-DZ/EF-CC/E: a strategy, and levels with their labels, E "
        "for energies and EF for energies and forces. Also the groups table1 and strategies.",
    )
    labels: Annotated[
        dict[LevelName, Literal["E", "EF"]], Flag(("--label",), metavar="LEVEL=E|EF", many=True)
    ] = Field(
        {},
        description="Instead of experiments: the labels to train on, by level: E, or EF for "
        "energies and forces.",
    )
    strategy: Annotated[str | None, Flag(("--strategy",))] = Field(
        None,
        description="With labels: how several levels are learned, as MF, MFC, DELTA, TL or META. "
        "(default: SF for one level, MF for several)",
    )
    data: Annotated[
        Files | None,
        Flag(
            ("--data",),
            metavar="FILE",
            help="File in the ANI-1x layout, or extended XYZ (.xyz). (default: the embedded data)",
        ),
        Flag(
            ("--train",),
            metavar="LEVEL=FILE...",
            many=True,
            help="Instead of --data: extended XYZ files of one level each, DZ=a.xyz CC=b.xyz.",
        ),
    ] = Field(
        None,
        description="Training data: a file in the ANI-1x layout or extended XYZ, or a table LEVEL "
        "= FILE of extended XYZ files. (default: the embedded data, with its tests)",
    )
    levels: Annotated[
        Annotated[
            Annotated[FileName, Tag("file")]
            | Annotated[tuple[DeclaredLevel, ...], Tag("records")],
            Discriminator(_kind_of),
        ]
        | None,
        Flag(("--levels",), metavar="FILE", help="JSON file that declares levels of your own, as "
             "scripts/xtb_levels.json."),
    ] = Field(
        None,
        description="Levels of theory of your own: a JSON file as scripts/xtb_levels.json, or the "
        "same records. Self energies are in hartree. (default: those of the paper)",
    )  # fmt: skip
    tests: Annotated[
        dict[TestName, Annotated[TestRequest, BeforeValidator(_as_test)]],
        Flag(("--test",), metavar="NAME=FILE", many=True, help="Structures that are never trained "
             "on, for further errors; NAME=LEVEL:FILE for a file of one level; repeatable."),
        Flag(("--comp6",), metavar="FILE", kind=Path, help="File or folder in the COMP6 layout, "
             "the test comp6. (default: embedded, with its data)"),
        Flag(("--comp6-keys",), metavar="FILE", help="JSON key map of --comp6. (default: the "
             "public layout)", kind=Path),
        Flag(("--energy-cut",), kind=float, least=0, help="Conformers of --comp6 up to so far "
             f"above their minimum, kcal/mol. (default: {ENERGY_CUT_KCAL_PER_MOL:g})"),
    ] = Field(
        {},
        description="Structures that are evaluated on and never trained on, by names of your own. "
        "(default: with the embedded data comp6 and cc-forces)",
    )  # fmt: skip
    preset: Annotated[Literal["quick", "paper"], Flag(("--preset",))] = Field(
        "quick", description="Hyperparameters to start from: quick, or paper for large data."
    )
    hyperparameters: Annotated[Overrides, Flag(("--set",), metavar="NAME=VALUE", many=True)] = (
        Field(
            {},
            description="Changes to the preset, as n_features=32, or species=[0,1,6,8] for other "
            "elements than H, C, N, O. 'hippynn-mf settings' lists all; repeatable.",
        )
    )
    rows: Annotated[Literal["common", "all"], Flag(("--rows",))] = Field(
        "common",
        description="common: structures with the energies of all four levels, with levels of your "
        "own of all in the data; all: with any label.",
    )
    split_seed: Annotated[Seed, Flag(("--split-seed",), kind=int, least=0)] = Field(
        0, description="Chooses test and validation structures."
    )
    label_fractions: Annotated[
        dict[LevelName, Fraction], Flag(("--label-fraction",), metavar="LEVEL=FRACTION", many=True)
    ] = Field(
        {},
        description="Train and validate on a fraction of a level's labels, as CC=0.3; repeatable. "
        "(default: all labels)",
    )
    seeds: Annotated[tuple[Seed, ...], Flag(("--seeds", "--seed"), metavar="K,...")] = Field(
        (0,), description="A run for each: they change weights and batch order."
    )
    device: Annotated[str, Flag(("--device",))] = Field(
        "auto", description="auto, cpu, cuda or cuda:N."
    )
    out: Annotated[FileName, Flag(("--out",), kind=Path)] = Field(
        Path("results"), description="Folder of runs, tables and figures."
    )

    @model_validator(mode="after")
    def _check_together(self) -> Request:
        for what, names in (("seed", list(map(str, self.seeds))), ("experiment", self.experiments)):
            repeated = sorted({name for name in names if names.count(name) > 1})
            if repeated:
                raise ValueError(f"Asked for twice: {what} {', '.join(repeated)}.")
        if not self.seeds:
            raise ValueError("seeds is empty; name at least one, as [0].")
        if self.experiments and self.labels:
            raise ValueError("experiments and labels both say what to train. Leave one out.")
        if self.strategy is not None and not self.labels:
            raise ValueError("strategy goes with labels; a name of an experiment has its own.")
        if HELDOUT in self.tests:
            raise ValueError(f"{HELDOUT} is the test set of every run; choose another name.")
        return self

    @classmethod
    def of(cls, values: Mapping[str, Any], *, folder: Path | None = None) -> Request:
        """A request from values as a run file has them; its paths start at `folder`.

        Raises UserError naming table and key, and the nearest known ones.
        """
        try:
            return cls.model_validate(dict(values), context={"folder": folder})
        except ValidationError as error:
            raise UserError(describe_problems(error, cls)) from None

    @property
    def known(self) -> Levels:
        """The levels of the paper, and those that this request declares."""
        if self.levels is None:
            return KNOWN_LEVELS
        if isinstance(self.levels, Path):
            return read_levels(self.levels)
        content = [record.model_dump(mode="json") for record in self.levels]
        with errors_about("[[levels]]"):
            return KNOWN_LEVELS.including(levels_of_records(content, "[[levels]]"))

    @property
    def experiment_names(self) -> tuple[str, ...]:
        """The names of what is asked for; one made of `labels`, if that is how it was said."""
        if not self.labels:
            return self.experiments
        prefix = self.strategy or ("SF" if len(self.labels) == 1 else "MF")
        return ("-".join([prefix, *(f"{name}/{value}" for name, value in self.labels.items())]),)

    def level_names(self) -> Iterator[tuple[str, str]]:
        """Every name of a level that is a key, and the table where it stands."""
        tables: dict[str, object] = {
            "labels": self.labels,
            "data": self.data,
            "label_fractions": self.label_fractions,
        }
        for name, test in self.tests.items():
            tables[f"tests.{name}.path"] = test.path
            tables[f"tests.{name}.keys"] = test.keys
        for place, table in tables.items():
            for level in table if isinstance(table, Mapping) else ():
                yield place, level

    def check_levels(self, levels: Levels) -> None:
        """Raise UserError for a key that is no level, or the same as another of its table."""
        seen: dict[tuple[str, Level], str] = {}
        for place, name in self.level_names():
            with errors_about(f"[{place}]"):
                level = levels.get(name)
                if (place, level) in seen:
                    raise UserError(f"level {level.id} is there twice, as {seen[place, level]} and "
                                    f"as {name}. Every level has one entry.")  # fmt: skip
            seen[place, level] = name
