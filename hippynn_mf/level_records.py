"""Levels of theory as JSON: declared by users, and recorded by runs and model files.

A file for `--levels` is a list of declarations as in `scripts/xtb_levels.json`, or of labels alone,
from the least accurate level to the most accurate one.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from hippynn_mf import keys
from hippynn_mf.errors import UserError, errors_about
from hippynn_mf.files import parse_json, read_text
from hippynn_mf.levels import KNOWN_LEVELS, LABEL_PATTERN, NAME_PATTERN, Level, Levels
from hippynn_mf.schema import Strict, describe_errors

AtomicNumber = Annotated[int, Field(ge=1, le=118)]
Name = Annotated[str, Field(pattern=f"^{NAME_PATTERN}$")]
Label = Annotated[str, Field(pattern=f"^{LABEL_PATTERN}$")]


class LevelRecord(Strict):
    """A level; `self_energies_hartree` are by atomic number, see `Level`."""

    id: Name
    label: Label
    method: str
    basis: str
    rank: float
    energy_keys: Annotated[tuple[str, ...], Field(min_length=1)]
    force_key: str | None
    self_energies_hartree: dict[AtomicNumber, float]

    @classmethod
    def of(cls, level: Level) -> LevelRecord:
        """The record of a level."""
        values = {field.name: getattr(level, field.name) for field in fields(level)}
        self_energies = dict(values.pop("self_energies"))
        return LevelRecord(**values, self_energies_hartree=self_energies)

    @property
    def level(self) -> Level:
        """The level itself; it need not be known."""
        values = {name: getattr(self, name) for name in LevelRecord.model_fields}
        return Level(self_energies=values.pop("self_energies_hartree"), **values)

    def differences(self, other: LevelRecord) -> list[str]:
        """What differs, field by field: this value, then the other's."""
        texts = []
        for name in LevelRecord.model_fields:
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                texts.append(f"{name} is {mine!r}, not {theirs!r}")
        return texts


class Declaration(Strict):
    """A level of theory as somebody declares it: all but the label may be left out."""

    id: Name | None = Field(None, description="Name in files and metrics. (default: the label)")
    label: Label = Field(description="Short name, in names of experiments and in tables.")
    method: str | None = Field(None, description="For people. (default: the label)")
    basis: str = Field("", description="For people.")
    rank: float | None = Field(
        None,
        description="Levels are ordered by it, the most accurate last. (default: the order in "
        "which levels are declared)",
    )
    energy_keys: Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        None, description="Datasets whose sum is the energy. (default: ID.energy)"
    )
    force_key: str | None = Field(
        None,
        description="Dataset of the forces. (default: ID.forces; with energy_keys none)",
    )
    self_energies_hartree: dict[AtomicNumber, float] = Field(
        {},
        description="By atomic number, in hartree. (default: of isolated atoms in the data, else "
        "fitted to the training energies)",
    )

    def record(self, rank: float) -> LevelRecord:
        """The whole record, with this rank if the level declares none."""
        level_id = self.id or re.sub(r"[/ ]+", "_", self.label)
        given = self.energy_keys is not None
        return LevelRecord(
            id=level_id,
            label=self.label,
            method=self.label if self.method is None else self.method,
            basis=self.basis,
            rank=rank if self.rank is None else self.rank,
            energy_keys=self.energy_keys or (keys.energy(level_id),),
            force_key=self.force_key if given or self.force_key else keys.forces(level_id),
            self_energies_hartree=self.self_energies_hartree,
        )


def as_declaration(value: object) -> object:
    """A label alone declares a level of this label."""
    return {"label": value} if isinstance(value, str) else value


def read_levels(path: Path, levels: Levels = KNOWN_LEVELS) -> Levels:
    """The known levels and those that a JSON file declares.

    One that is known already may be declared again. Raises UserError for a file that cannot be read
    or holds anything else, and for a level that is another than the one known by its name.
    """
    content = parse_json(read_text(path, "a JSON file of levels"), path)
    declared = levels_of_records(content, path, levels=levels)
    if not declared:
        raise UserError(f"{path} declares no level.")
    with errors_about(path):
        return levels.including(declared)


def levels_of_records(
    content: Any, source: object, *, levels: Levels = KNOWN_LEVELS
) -> tuple[Level, ...]:
    """The levels of declarations read from JSON, each id once.

    The label alone of one of `levels` says where it stands in the order. `source` is where they are
    from, for messages. Raises UserError for wrong declarations.
    """
    if isinstance(content, list | tuple):
        content = [as_declaration(value) for value in content]
    try:
        declared = TypeAdapter(tuple[Declaration, ...]).validate_json(
            json.dumps(content), strict=True
        )
    except ValidationError as error:
        raise UserError(
            f"{source} is not a list of levels: {describe_errors(error)}. A level may have "
            f"{', '.join(Declaration.model_fields)}; it needs a label."
        ) from None
    records: list[LevelRecord] = []
    rank = -math.inf
    for each in declared:
        known = levels.find(each.label) if each.model_fields_set == {"label"} else None
        if known is not None:
            if known.rank <= rank:
                raise UserError(
                    f"{source}: {known.label} has rank {known.rank:g}, and stands after a level of "
                    f"rank {rank:g}. Name levels from the least accurate to the most accurate one, "
                    "or give them a rank."
                )
            rank = known.rank
            continue
        records.append(each.record(max(rank, 0.0) + 1))
        rank = records[-1].rank
    for name, count in Counter(record.id for record in records).items():
        if count > 1:
            raise UserError(f"{source}: level {name} is there {count} times. Keep one.")
    return tuple(record.level for record in records)
