"""Levels of theory as JSON, so that runs and model files say what their levels are."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated

from pydantic import Field

from hippynn_mf.levels import NAME_PATTERN, Level
from hippynn_mf.metrics_schema import Strict

AtomicNumber = Annotated[int, Field(ge=1, le=118)]
Name = Annotated[str, Field(pattern=f"^{NAME_PATTERN}$")]


class LevelRecord(Strict):
    """A level; `self_energies_hartree` are by atomic number, see `Level`."""

    id: Name
    label: Name
    method: str
    basis: str
    rank: float
    energy_keys: tuple[str, ...]
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
        """The level itself; it need not be registered."""
        values = {name: getattr(self, name) for name in LevelRecord.model_fields}
        return Level(self_energies=values.pop("self_energies_hartree"), **values)
