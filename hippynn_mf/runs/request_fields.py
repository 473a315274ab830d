"""What the fields of a request are made of: options, files, levels, and tests."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Strict,
    Tag,
    ValidationInfo,
    WithJsonSchema,
)

from hippynn_mf.hyperparameters import Hyperparameters
from hippynn_mf.level_records import Declaration, as_declaration
from hippynn_mf.schema import StrictKeys

ENERGY_CUT_KCAL_PER_MOL = 100.0  # the paper's, above a molecule's minimum
COMP6 = "comp6"
LARGEST_SEED = 2**32 - 1  # of NumPy's generators; torch's take more
TEST_NAME = "[a-z0-9][a-z0-9_-]*"


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
        folder: whether a path is a folder, None if it may be either.
    """

    names: tuple[str, ...]
    metavar: str | None = None
    help: str | None = None
    kind: type = str
    many: bool = False
    least: float | None = None
    folder: bool | None = None


def _in_folder(path: Path, info: ValidationInfo) -> Path:
    """Paths of a run file start at its folder."""
    folder = (info.context or {}).get("folder")
    return path if folder is None else folder / path


def _refuse_empty(value: object) -> object:
    """A path of no characters would be the folder itself."""
    if value == "":
        raise ValueError("a path was expected, which is not empty")
    return value


def _named_well(name: str) -> str:
    """Names of tests are those of files and of keys."""
    if not re.fullmatch(TEST_NAME, name):
        raise ValueError("small letters, digits, - and _ make a name, as my-test")
    return name


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


FileName = Annotated[Path, BeforeValidator(_refuse_empty), AfterValidator(_in_folder)]
LevelName = str
# A file or folder, or a file for each level.
Files = Annotated[
    Annotated[FileName, Tag("file")] | Annotated[dict[LevelName, FileName], Tag("table")],
    Discriminator(_kind_of),
]
Overrides = Annotated[dict[str, Any], WithJsonSchema(overrides_schema())]
Seed = Annotated[int, Strict(), Field(ge=0, le=LARGEST_SEED)]
Fraction = Annotated[float, Field(gt=0, le=1)]
TestName = Annotated[
    str,
    AfterValidator(_named_well),
    WithJsonSchema({"type": "string", "pattern": f"^{TEST_NAME}$"}),
]


class DeclaredLevel(Declaration):
    """A level of theory of the user's own, as in a file for --levels."""

    model_config = ConfigDict(strict=False)


# A file of levels, or the levels themselves, in tables or by their labels alone.
DeclaredLevels = Annotated[
    Annotated[FileName, Tag("file")]
    | Annotated[
        tuple[
            Annotated[
                DeclaredLevel,
                BeforeValidator(as_declaration, json_schema_input_type=str | DeclaredLevel),
            ],
            ...,
        ],
        Tag("records"),
    ],
    Discriminator(_kind_of),
]


class RequestedTest(StrictKeys):
    """Structures that are evaluated on and never trained on."""

    path: Files | None = Field(
        None,
        description="A file or folder of any format that is read, a table LEVEL = FILE of files of "
        "one level each, or a file or folder in the COMP6 layout. (default: that of the embedded "
        "data of this name)",
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
        description="JSON file, or table, with the keys of each level's energy and gradient or "
        "forces. (default: those of the data; of the COMP6 layout the public ones)",
    )
    units: dict[str, str | dict[str, str]] = Field(
        {},
        description="Units of the file, as of the data; not of the COMP6 layout. (default: those "
        "of the data)",
    )
    energy_cut_kcal_per_mol: Annotated[float, Field(ge=0)] | None = Field(
        None,
        description="COMP6 layout: conformers count up to so far above their molecule's minimum, "
        "kcal/mol, and energies are differences of conformers. (default: none, energies of all "
        f"structures; of the test comp6 {ENERGY_CUT_KCAL_PER_MOL:g})",
    )


def _as_test(value: object) -> object:
    """A test of nothing but a file may be written as that file."""
    return {"path": value} if isinstance(value, str | Path) else value


def _with_cut(value: object) -> object:
    """The test comp6 is in the COMP6 layout, whatever is said of it."""
    if not isinstance(value, Mapping) or COMP6 not in value:
        return value
    test = _as_test(value[COMP6])
    if isinstance(test, RequestedTest):
        test = test.model_dump(exclude_unset=True)
    if isinstance(test, dict):
        test = {"energy_cut_kcal_per_mol": ENERGY_CUT_KCAL_PER_MOL} | test
    return {**value, COMP6: test}


# Tests by their names.
Tests = Annotated[
    dict[
        TestName,
        Annotated[
            RequestedTest, BeforeValidator(_as_test, json_schema_input_type=str | RequestedTest)
        ],
    ],
    BeforeValidator(_with_cut),
]
