"""Tables of experiments that this package does not have, as those of one's own levels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from hippynn_mf.experiment import Experiment, beyond_table1, table1
from hippynn_mf.levels import Level
from hippynn_mf.report.columns import (
    Column,
    RowSpec,
    TableSpec,
    heldout_energy,
    heldout_force,
)
from hippynn_mf.report.low_forces import beside_head, beside_labels
from hippynn_mf.report.results import Results


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
    return [*_of_levels(ordered), *_of_strategies(ordered), *_of_low_forces(results, ordered)]


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


def _of_strategies(experiments: Sequence[Experiment]) -> list[TableSpec]:
    alike: dict[str, list[Experiment]] = {}
    for experiment in experiments:
        _, _, labels = experiment.name.partition("-")
        alike.setdefault(labels, []).append(experiment)
    tables = []
    for labels, group in alike.items():
        names, reference = [experiment.name for experiment in group], f"MF-{labels}"
        if len(names) > 1 and reference in names:
            levels = group[0].resolved_labels
            columns = [c for lv in levels for c in (heldout_energy(lv), heldout_force(lv))]
            title = f"Strategies of {labels}: held-out errors"
            tables.append(_table(title, tuple(columns), names, reference))
    return tables


def _of_low_forces(results: Results, experiments: Sequence[Experiment]) -> list[TableSpec]:
    names: dict[tuple[Level, Level], list[str]] = {}
    for experiment in experiments:
        with_forces = [level for level in experiment.resolved_labels if level.force_key]
        for low, high in combinations(with_forces, 2):
            names.setdefault((low, high), []).append(experiment.name)
    tables = []
    for (low, high), of_pair in names.items():
        force = heldout_force(high)
        if any(results.by_seed(name, *force.metric_path("rmse")) for name in of_pair):
            for beside in (beside_labels, beside_head):
                tables.append(beside(force, high, low, of_pair, "Held-out"))
    return tables


def _table(
    title: str, columns: tuple[Column, ...], names: Sequence[str], reference: str
) -> TableSpec:
    rows = tuple(RowSpec(name, (None,) * len(columns)) for name in names)
    return TableSpec(title, columns, rows, reference)
