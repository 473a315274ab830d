"""Tables of experiments that this package does not have, as those of one's own levels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from hippynn_mf.levels import Level
from hippynn_mf.paper.table1 import beyond_table1, table1
from hippynn_mf.report.columns import (
    Column,
    RowSpec,
    TableSpec,
    heldout_energy,
    heldout_force,
    low_head_path,
)
from hippynn_mf.report.low_forces import beside_head, beside_labels
from hippynn_mf.report.results import Results
from hippynn_mf.runs.experiment import Experiment


def experiment_tables(results: Results, experiments: Sequence[Experiment]) -> list[TableSpec]:
    """Held-out errors of those experiments that are not this package's.

    - A table for each level; its models are compared with the single-fidelity model of the level's
      energies.
    - Where strategies learn the same labels, they are compared with multi-fidelity learning, at
      all levels.
    - Where errors of a model's forces at a higher level are known, they stand beside those of a
      lower level's own forces, and of the lower level's head.
    """
    known = {experiment.name for experiment in (*table1(), *beyond_table1())}
    own = {e.name: e for e in experiments if e.name not in known}
    ordered = sorted(own.values(), key=lambda e: (len(e.resolved_labels), e.name))
    return [
        *_of_levels(ordered),
        *_of_strategies(results, ordered),
        *_of_low_forces(results, ordered),
    ]


def _of_levels(experiments: Sequence[Experiment]) -> list[TableSpec]:
    levels = {level for experiment in experiments for level in experiment.resolved_labels}
    return [
        _table(
            f"Models of {level.label}: held-out errors",
            (heldout_energy(level), heldout_force(level)),
            [e.name for e in experiments if level in e.resolved_labels],
            f"SF-{level.label}/E",
        )
        for level in sorted(levels, key=lambda level: level.rank)
    ]


def _of_strategies(results: Results, experiments: Sequence[Experiment]) -> list[TableSpec]:
    tables = []
    for labels in dict.fromkeys(e.name.partition("-")[2] for e in experiments):
        reference = f"MF-{labels}"  # which may be a row of Table 1
        alike = [e for e in experiments if e.name.partition("-")[2] == labels]
        others = [e for e in alike if e.name != reference]
        if others and reference in results.labels:
            levels = others[0].resolved_labels
            columns = [c for lv in levels for c in (heldout_energy(lv), heldout_force(lv))]
            title = f"Strategies of {labels}: held-out errors"
            names = [reference, *(e.name for e in others)]
            tables.append(_table(title, tuple(columns), names, reference))
    return tables


def _of_low_forces(results: Results, experiments: Sequence[Experiment]) -> list[TableSpec]:
    names: dict[tuple[Level, Level], list[Experiment]] = {}
    for experiment in experiments:
        for low, high in combinations(experiment.resolved_labels, 2):
            names.setdefault((low, high), []).append(experiment)
    tables = []
    for (low, high), of_pair in names.items():
        force, all_names = heldout_force(high), [e.name for e in of_pair]
        with_head = [e.name for e in of_pair if low in e.maintained_levels]
        if _any_error(results, all_names, force.metric_path("rmse")):
            if _any_error(results, all_names, heldout_force(low).metric_path("rmse")):
                tables.append(beside_labels(force, high, low, all_names, "Held-out"))
            if _any_error(results, with_head, low_head_path(force, low, "rmse")):
                tables.append(beside_head(force, high, low, with_head, "Held-out"))
    return tables


def _any_error(results: Results, names: Sequence[str], path: Sequence[str]) -> bool:
    return any(results.by_seed(name, *path) for name in names)


def _table(
    title: str, columns: tuple[Column, ...], names: Sequence[str], reference: str
) -> TableSpec:
    rows = tuple(RowSpec(name, (None,) * len(columns)) for name in names)
    return TableSpec(title, columns, rows, reference)
