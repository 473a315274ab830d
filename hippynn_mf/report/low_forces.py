"""Tables that ask whether a model's high-level forces are better than what a lower level has."""

from __future__ import annotations

from collections.abc import Sequence

from hippynn_mf.levels import Level
from hippynn_mf.report.columns import Column, LowHead, LowLevel, RowSpec, TableSpec


def beside_labels(
    column: Column, high: Level, low: Level, names: Sequence[str], where: str
) -> TableSpec:
    """Force errors at the `high` level beside those of the `low` level's own forces."""
    return TableSpec(
        f"Are a model's {high.label} forces nearer to {high.label} than {low.label} forces are? "
        f"{where}",
        (column,),
        _rows(names),
        LowLevel(low, f"the {low.label} forces themselves", (None,)),
    )


def beside_head(
    column: Column, high: Level, low: Level, names: Sequence[str], where: str
) -> TableSpec:
    """Force errors at the `high` level beside those that the `low` level's head has there."""
    return TableSpec(
        f"Are a model's {high.label} forces nearer to {high.label} than those of its {low.label} "
        f"head are? {where}",
        (column,),
        _rows(names),
        LowHead(low, f"its {low.label} head"),
    )


def _rows(names: Sequence[str]) -> tuple[RowSpec, ...]:
    return tuple(RowSpec(name, (None,)) for name in names)
