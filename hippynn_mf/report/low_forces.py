"""Tables that ask whether a model's high-level forces are better than what a lower level has."""

from __future__ import annotations

from collections.abc import Sequence

from hippynn_mf.levels import Level
from hippynn_mf.report.columns import Column, LowHead, LowLevel, RowSpec, TableSpec


def beside_labels(
    column: Column, high: Level, low: Level, names: Sequence[str], where: str
) -> TableSpec:
    """Force errors at the `high` level beside those of the `low` level's own forces."""
    reference = LowLevel(low, f"the {low.label} forces themselves", (None,))
    return _beside(reference, f"{low.label} forces", column, high, names, where)


def beside_head(
    column: Column, high: Level, low: Level, names: Sequence[str], where: str
) -> TableSpec:
    """Force errors at the `high` level beside those that the `low` level's head has there."""
    reference = LowHead(low, f"its {low.label} head")
    return _beside(reference, f"those of its {low.label} head", column, high, names, where)


def _beside(
    reference: LowLevel | LowHead,
    than: str,
    column: Column,
    high: Level,
    names: Sequence[str],
    where: str,
) -> TableSpec:
    title = f"Are a model's {high.label} forces nearer to {high.label} than {than} are? {where}"
    return TableSpec(title, (column,), tuple(RowSpec.plain(n, 1) for n in names), reference)
