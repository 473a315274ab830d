"""Tables of any test set and any levels: the same questions as the paper asks of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

from hippynn_mf.evaluation.schema import HELDOUT
from hippynn_mf.levels import Level
from hippynn_mf.report.columns import COMP6, Column, RowSpec, TableSpec, set_name
from hippynn_mf.report.low_forces import beside_head, beside_labels
from hippynn_mf.report.results import Results
from hippynn_mf.runs.experiment import Experiment


def set_tables(results: Results, name: str, experiments: Iterable[Experiment]) -> list[TableSpec]:
    """Errors of experiments on a set.

    - A table for each level; its models are compared with the single-fidelity model of the level's
      energies.
    - Where strategies learn the same labels, they are compared with multi-fidelity learning, at
      all levels.
    - Where errors of a model's forces at a higher level are known, they stand beside those of a
      lower level's own forces, and of the lower level's head.
    """
    ordered = sorted(experiments, key=lambda e: (len(e.resolved_labels), e.name))
    return [
        *_level_tables(results, name, ordered),
        *_strategy_tables(results, name, ordered),
        *_low_force_tables(results, name, ordered),
    ]


def _own_columns(results: Results, name: str, levels: Iterable[Level]) -> tuple[Column, ...]:
    quantities = results.quantities(name)
    return tuple(Column.own(name, level, quantity) for level in levels for quantity in quantities)


def _errors_title(name: str) -> str:
    return "held-out errors" if name == HELDOUT else f"errors on {set_name(name)}"


def _level_tables(
    results: Results, name: str, experiments: Sequence[Experiment]
) -> list[TableSpec]:
    levels = {level for experiment in experiments for level in experiment.resolved_labels}
    tables = []
    for level in sorted(levels, key=lambda level: level.rank):
        columns = _own_columns(results, name, [level])
        names = [e.name for e in experiments if level in e.resolved_labels]
        if name == HELDOUT or any(_any_error(results, names, column) for column in columns):
            title = f"Models of {level.label}: {_errors_title(name)}"
            tables.append(_table(title, columns, names, f"SF-{level.label}/E"))
    return tables


def _strategy_tables(
    results: Results, name: str, experiments: Sequence[Experiment]
) -> list[TableSpec]:
    tables = []
    for labels in dict.fromkeys(e.name.partition("-")[2] for e in experiments):
        reference = f"MF-{labels}"  # which may be a row of Table 1
        alike = [e for e in experiments if e.name.partition("-")[2] == labels]
        others = [e for e in alike if e.name != reference]
        if others and reference in results.experiments:
            columns = _own_columns(results, name, others[0].resolved_labels)
            title = f"Strategies of {labels}: {_errors_title(name)}"
            names = [reference, *(e.name for e in others)]
            if name == HELDOUT or any(_any_error(results, names, column) for column in columns):
                tables.append(_table(title, columns, names, reference))
    return tables


def _low_force_tables(
    results: Results, name: str, experiments: Sequence[Experiment]
) -> list[TableSpec]:
    pairs: dict[tuple[Level, Level], list[Experiment]] = {}
    for experiment in experiments:
        for low, high in combinations(experiment.resolved_labels, 2):
            pairs.setdefault((low, high), []).append(experiment)
    where = {HELDOUT: "Held-out", COMP6: set_name(COMP6)}.get(name, f"Test set {name}")
    tables = []
    for (low, high), learners in pairs.items():
        names = [e.name for e in learners]
        with_head = [e.name for e in learners if low in e.maintained_levels]
        derivatives = [q for q in results.quantities(name) if q in ("force", "stress")]
        for quantity in derivatives:
            column = Column.own(name, high, quantity)
            if _any_error(results, names, column):
                if _any_error(results, names, Column.own(name, low, quantity)):
                    tables.append(beside_labels(column, high, low, names, where))
                if _any_error(results, with_head, column.at_head(low)):
                    tables.append(beside_head(column, high, low, with_head, where))
    return tables


def _any_error(results: Results, names: Sequence[str], column: Column) -> bool:
    return any(len(results.values(name, column)) for name in names)


def _table(
    title: str, columns: tuple[Column, ...], names: Sequence[str], reference: str
) -> TableSpec:
    rows = tuple(RowSpec.plain(name, len(columns)) for name in names)
    return TableSpec(title, columns, rows, reference)
