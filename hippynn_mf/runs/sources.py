"""Where the data and the test sets of a run are, and how they are recognised."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field

from hippynn_mf.data.formats.comp6 import PUBLIC_KEYS, KeyMap
from hippynn_mf.data.formats.sources import DataPath, absolute_paths
from hippynn_mf.data.loading import file_hash
from hippynn_mf.errors import UserError
from hippynn_mf.evaluation.layouts import find_layout
from hippynn_mf.evaluation.schema import HELDOUT
from hippynn_mf.levels import KNOWN_LEVELS, Levels

DATA = "data"  # the training data among the sources of a run


SET_NAME = r"[a-z0-9][a-z0-9_-]*"


VALID = "valid"  # the file of validation structures, if there is one
TAKEN = (DATA, VALID, HELDOUT)  # names that no test set has


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
        return " ".join(f"--test {self.name}={level}:{path}" for level, path in self.path.items())
