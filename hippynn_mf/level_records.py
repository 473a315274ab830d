"""Levels of theory as JSON: declared by users, and recorded by runs and model files.

A file for `--levels` is a list of records as in `scripts/xtb_levels.json`.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from hippynn_mf.errors import UserError, errors_about
from hippynn_mf.files import parse_json, read_text
from hippynn_mf.levels import KNOWN_LEVELS, NAME_PATTERN, Level, Levels
from hippynn_mf.schema import Strict, describe_errors

AtomicNumber = Annotated[int, Field(ge=1, le=118)]
Name = Annotated[str, Field(pattern=f"^{NAME_PATTERN}$")]


class LevelRecord(Strict):
    """A level; `self_energies_hartree` are by atomic number, see `Level`."""

    id: Name
    label: Name
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


def read_levels(path: Path, levels: Levels = KNOWN_LEVELS) -> Levels:
    """The known levels and those that a JSON file declares.

    One that is known already may be declared again. Raises UserError for a file that cannot be read
    or holds anything else, and for a level that is another than the one known by its name.
    """
    content = parse_json(read_text(path, "a JSON file of levels"), path)
    declared = levels_of_records(content, path)
    if not declared:
        raise UserError(f"{path} declares no level.")
    with errors_about(path):
        return levels.including(declared)


def levels_of_records(content: Any, source: object) -> tuple[Level, ...]:
    """The levels of records read from JSON, each id once.

    `source` is where they are from, for messages. Raises UserError for wrong records.
    """
    try:
        records = TypeAdapter(tuple[LevelRecord, ...]).validate_json(json.dumps(content))
    except ValidationError as error:
        raise UserError(
            f"{source} is not a list of levels: {describe_errors(error)}. A level has exactly "
            f"{', '.join(LevelRecord.model_fields)}."
        ) from None
    for name, count in Counter(record.id for record in records).items():
        if count > 1:
            raise UserError(f"{source}: level {name} is there {count} times. Keep one.")
    return tuple(record.level for record in records)
