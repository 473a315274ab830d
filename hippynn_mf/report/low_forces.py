"""Tables that ask whether a model's high-level forces or stress beat what a lower level has."""

from __future__ import annotations

from collections.abc import Sequence

from hippynn_mf.levels import Level
from hippynn_mf.report.columns import Column, LowHead, LowLevel, RowSpec, TableSpec


def beside_labels(
    column: Column, high: Level, low: Level, names: Sequence[str], where: str
) -> TableSpec:
    """Errors of forces or stress at the `high` level beside those of the `low` level's own."""
    what = _name(column)
    reference = LowLevel(low, f"the {low.label} {what} {_self(column)}", (None,))
    return _beside(reference, f"{low.label} {what}", column, high, names, where)


def beside_head(
    column: Column, high: Level, low: Level, names: Sequence[str], where: str
) -> TableSpec:
    """Errors of forces or stress at the `high` level beside those of the `low` level's head."""
    reference = LowHead(low, f"its {low.label} head")
    than = f"{'that' if column.quantity == 'stress' else 'those'} of its {low.label} head"
    return _beside(reference, than, column, high, names, where)


def _name(column: Column) -> str:
    return "stress" if column.quantity == "stress" else "forces"


def _self(column: Column) -> str:
    return "itself" if column.quantity == "stress" else "themselves"


def _beside(
    reference: LowLevel | LowHead,
    than: str,
    column: Column,
    high: Level,
    names: Sequence[str],
    where: str,
) -> TableSpec:
    verb = "is" if column.quantity == "stress" else "are"
    title = (
        f"{verb.title()} a model's {high.label} {_name(column)} nearer to {high.label} than "
        f"{than} {verb}? {where}"
    )
    return TableSpec(title, (column,), tuple(RowSpec.plain(n, 1) for n in names), reference)
