"""Where the data and the test sets of a run are, and how they are recognised."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hippynn_mf.data.formats.comp6 import PUBLIC_KEYS, KeyMap
from hippynn_mf.data.formats.declared import KeyTable, UnitTable
from hippynn_mf.data.formats.sources import DataPath, absolute_paths, with_declared
from hippynn_mf.data.loading import file_hash
from hippynn_mf.errors import UserError
from hippynn_mf.evaluation.layouts import find_layout
from hippynn_mf.evaluation.schema import HELDOUT
from hippynn_mf.levels import KNOWN_LEVELS, Levels
from hippynn_mf.runs.parent import PARENT_DATA
from hippynn_mf.runs.request_fields import COMP6

DATA = "data"  # the training data among the sources of a run


SET_NAME = r"[a-z0-9][a-z0-9_-]*"


VALID = "valid"  # the file of validation structures, if there is one
TAKEN = (DATA, VALID, HELDOUT, PARENT_DATA)  # names that no test set has


class DataSource(BaseModel):
    """Labelled data, and the hash by which they are recognised.

    `path` is a file, a folder of files in the COMP6 layout or of DeePMD-kit, or a file for each
    level by its id. `keys` and `units` are what is declared of them, see `declared.py`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    path: Path | dict[str, Path]
    keys: dict[str, dict[str, str]] | None = None
    units: dict[str, str | dict[str, str]] = {}

    @classmethod
    def of(
        cls,
        data: DataPath,
        *,
        levels: Levels = KNOWN_LEVELS,
        keys: KeyTable | None = None,
        units: UnitTable | None = None,
    ) -> DataSource:
        """Data with their hash and absolute paths; a UserError if there is no such file.

        `keys` and `units` are declared of them; their names are checked.
        """
        with_declared(data, keys, units)
        path = absolute_paths(data, levels=levels)
        return DataSource(
            path=path,
            sha256=file_hash(path, levels=levels),
            keys=plain_keys(keys, levels),
            units=plain_units(units, levels),
        )

    @property
    def data(self) -> DataPath:
        """The files with what is declared of them, as readers take them."""
        return with_declared(self.path, self.keys, self.units)

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


def plain_keys(keys: KeyTable | None, levels: Levels) -> dict[str, dict[str, str]] | None:
    """Declared keys by the ids of levels, None if there are none; UserError for unknown levels."""
    return {levels.get(level).id: dict(names) for level, names in (keys or {}).items()} or None


def plain_units(units: UnitTable | None, levels: Levels) -> dict[str, str | dict[str, str]]:
    """Declared units by the ids of levels; UserError for unknown levels."""
    return {
        levels.get(name).id if isinstance(value, Mapping) else name: (
            dict(value) if isinstance(value, Mapping) else value
        )
        for name, value in (units or {}).items()
    }


def _shown(path: Path | Mapping[str, Path]) -> Path:
    if isinstance(path, Path):
        return path
    return Path(" ".join(f"{level}={file}" for level, file in path.items()))


class TestSource(DataSource):
    """A test set: data that are evaluated on and never trained on.

    Attributes:
        name: of the set, in metrics and predictions.
        layout: `comp6` of files in the COMP6 layout, whose groups are molecules; None for others.
        keys: level → property → key: the key map of files in the COMP6 layout, of others what is
            declared of them; None for the usual names.
        energy_cut_kcal_per_mol: conformers up to so far above their molecule's minimum count, and
            energies are differences of conformers; None for energies of all structures.
    """

    __test__: ClassVar[bool] = False  # no test of pytest's

    name: Annotated[str, Field(pattern=f"^{SET_NAME}$")]
    layout: Literal["comp6"] | None = None
    energy_cut_kcal_per_mol: float | None = Field(None, ge=0, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _keys_are_of_comp6(cls, values: Any) -> Any:
        """Runs of before there was a layout have keys of the COMP6 layout alone."""
        if isinstance(values, dict) and "layout" not in values and values.get("keys") is not None:
            return {**values, "layout": "comp6"}
        return values

    @property
    def data(self) -> DataPath:
        """The files with what is declared of them; those of the COMP6 layout as they are."""
        return self.path if self.layout is not None else super().data

    @classmethod
    def of(  # type: ignore[override]
        cls,
        name: str,
        data: DataPath,
        *,
        keys: KeyMap | None = None,
        units: UnitTable | None = None,
        energy_cut: float | None = None,
        levels: Levels = KNOWN_LEVELS,
    ) -> TestSource:
        """A test set with the hash and absolute paths of its data.

        Args:
            name: lower-case letters, digits, `_` and `-`; not one of `TAKEN`.
            data: a file in the ANI-1x layout, a file or folder in the COMP6 layout or in another
                format of training data, or a file for each level.
            keys: a key map for the COMP6 layout, by default that of the public files; for others
                names that are declared.
            units: declared of files that are not in the COMP6 layout.
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
        layout: Literal["comp6"] | None = "comp6" if name == COMP6 and keys else None
        if layout is None:  # else the reader says what is not as the key map has it
            layout = "comp6" if find_layout(path) == "comp6" else None
        if layout is not None:
            keys = PUBLIC_KEYS if keys is None else keys
            if units:
                raise UserError(
                    f"{_shown(path)}: files in the COMP6 layout are in hartree and Å. Convert what "
                    "is in other units, with 'hippynn-mf data convert LEVEL=FILE OUT.h5 --units'."
                )
        with_declared(path, keys, units)
        if layout is None and energy_cut is not None:
            raise UserError(
                f"{_shown(path)}: an energy cut is for files in the COMP6 layout, whose groups "
                "are molecules. Leave it out."
            )
        plain = None if keys is None else {level: dict(names) for level, names in keys.items()}
        return TestSource(
            name=name,
            path=path,
            sha256=sha256,
            layout=layout,
            keys=plain if layout is not None else plain_keys(keys, levels),
            units=plain_units(units, levels),
            energy_cut_kcal_per_mol=energy_cut,
        )

    @property
    def option(self) -> str:
        """What a user types to test on the set."""
        if self.layout is not None and self.energy_cut_kcal_per_mol is not None:
            return f"--comp6 {self.shown}"
        if isinstance(self.path, Path):
            return f"--test {self.name}={self.path}"
        return " ".join(f"--test {self.name}={level}:{path}" for level, path in self.path.items())
