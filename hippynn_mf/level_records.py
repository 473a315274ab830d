"""Levels of theory as JSON, so that runs and model files say what their levels are."""

from __future__ import annotations

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
        return LevelRecord(
            id=level.id,
            label=level.label,
            method=level.method,
            basis=level.basis,
            rank=level.rank,
            energy_keys=level.energy_keys,
            force_key=level.force_key,
            self_energies_hartree=dict(level.self_energies),
        )

    @property
    def level(self) -> Level:
        """The level itself; it need not be registered."""
        return Level(
            id=self.id,
            label=self.label,
            method=self.method,
            basis=self.basis,
            rank=self.rank,
            energy_keys=self.energy_keys,
            force_key=self.force_key,
            self_energies=self.self_energies_hartree,
        )
