"""What a table shows: its columns, each with a unit and an address in the results, and its rows.

An error is addressed by the set that it is on, the head that predicts, the level of the reference,
and the quantity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from hippynn_mf.evaluation.schema import HELDOUT
from hippynn_mf.levels import Level
from hippynn_mf.schema import Strict

Metric = Literal["rmse", "mae"]
Quantity = Literal["energy", "delta_e", "force", "stress"]

COMP6 = "comp6"
SET_NAMES = {HELDOUT: "held-out", COMP6: "COMP6"}  # as headings say; other sets by their own name
QUANTITY_NAMES: Mapping[Quantity, str] = {
    "energy": "energy",
    "delta_e": "ΔE",
    "force": "force",
    "stress": "stress",
}
UNITS: Mapping[Quantity, str] = {
    "energy": "kcal/mol",
    "delta_e": "kcal/mol",
    "force": "kcal/mol/Å",
    "stress": "GPa",
}
FIELD_UNITS: Mapping[Quantity, str] = {
    "energy": "kcal_per_mol",
    "delta_e": "kcal_per_mol",
    "force": "kcal_per_mol_per_angstrom",
    "stress": "gpa",
}
METRICS = ("rmse", "mae", "label_rms")


def set_name(name: str) -> str:
    """A set as headings call it."""
    return SET_NAMES.get(name, name)


def field_name(quantity: Quantity, metric: str) -> str:
    """The field of an entry of `metrics.json`, with its unit."""
    return f"{quantity}_{metric}_{FIELD_UNITS[quantity]}"


@dataclass(frozen=True)
class Column:
    """A column of errors: of a head, on a set, against a level."""

    set: str
    head: Level
    reference: Level
    quantity: Quantity

    is_error = True

    @classmethod
    def own(cls, name: str, level: Level, quantity: Quantity) -> Column:
        """Errors of a level's head against the level itself."""
        return cls(name, level, level, quantity)

    def at_head(self, head: Level) -> Column:
        """The same errors of another head."""
        return replace(self, head=head)

    @property
    def heading(self) -> str:
        """Quantity, set and level, and the head where it is another."""
        at_head = "" if self.head == self.reference else f" of the {self.head.label} head"
        quantity = QUANTITY_NAMES[self.quantity]
        return f"{quantity}{at_head}, {set_name(self.set)} {self.reference.label}"

    @property
    def unit(self) -> str:
        """Unit of the values."""
        return UNITS[self.quantity]

    @property
    def address(self) -> dict[str, str]:
        """Where the values are in the tidy table."""
        return {
            "set": self.set,
            "head": self.head.id,
            "reference": self.reference.id,
            "quantity": self.quantity,
        }

    def pick(self, sets: Mapping[str, Any], metric: str) -> float | None:
        """The value in errors by set, head and reference, None where there is none."""
        entry = self.entry(sets)
        return None if entry is None else entry.get(field_name(self.quantity, metric))

    def reason(self, sets: Mapping[str, Any]) -> str | None:
        """Why errors by set, head and reference have no value here, None if unknown."""
        entry = self.entry(sets)
        return None if entry is None else entry.get(f"{self.quantity}_reason")

    def entry(self, sets: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """All errors of this head against this level, None where there are none."""
        entry: Mapping[str, Any] | None
        entry = sets.get(self.set, {}).get(self.head.id, {}).get(self.reference.id)
        return entry


@dataclass(frozen=True)
class CostColumn:
    """A column of processor times, which are no errors: no mean prediction, nothing to predict."""

    quantity: Literal["training", "inference"]
    heading: str
    unit: str

    is_error = False

    @property
    def address(self) -> dict[str, str]:
        """Where the values are in the table of costs."""
        return {"quantity": self.quantity}


AnyColumn = Column | CostColumn
TRAINING = CostColumn("training", "training", "s of one core")
INFERENCE = CostColumn("inference", "energy and forces", "ms per structure")


def heldout_energy(level: Level) -> Column:
    """Energy error on the held-out structures against a level."""
    return Column.own(HELDOUT, level, "energy")


def heldout_force(level: Level) -> Column:
    """Force error on the held-out structures against a level."""
    return Column.own(HELDOUT, level, "force")


def comp6_force(level: Level) -> Column:
    """Force error on COMP6 against a level."""
    return Column.own(COMP6, level, "force")


def comp6_delta_e(level: Level) -> Column:
    """Conformer energy error on COMP6 against a level."""
    return Column.own(COMP6, level, "delta_e")


class PublishedNumber(Strict):
    """A number of the paper, with its 95 % half width where the paper gives one."""

    value: float
    half_width: float | None


@dataclass(frozen=True)
class RowSpec:
    """A row: an experiment by name, and its published number for every column."""

    name: str
    published: tuple[PublishedNumber | None, ...]

    @classmethod
    def plain(cls, name: str, n_columns: int) -> RowSpec:
        """A row without published numbers."""
        return cls(name, (None,) * n_columns)


@dataclass(frozen=True)
class LowLevel:
    """The labels of a level as a reference: how they are called, and the paper's errors of them.

    `published` has one entry per column.
    """

    level: Level
    what: str
    published: tuple[float | None, ...]


@dataclass(frozen=True)
class LowHead:
    """A lower level's head of the same run as a reference: its level, and how it is called."""

    level: Level
    what: str


@dataclass(frozen=True)
class TableSpec:
    """Which numbers a table shows, and what its rows are compared with.

    That is an experiment by its name, a lower level's labels, or a lower level's head.
    """

    title: str
    columns: tuple[AnyColumn, ...]
    rows: tuple[RowSpec, ...]
    reference: str | LowLevel | LowHead

    @property
    def names(self) -> list[str]:
        """The experiments of the rows."""
        return [row.name for row in self.rows]
