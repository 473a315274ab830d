"""What a table shows: its columns, each with a unit and a place in `metrics.json`, and its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from hippynn_mf.levels import Level
from hippynn_mf.schema import Strict

Metric = Literal["rmse", "mae"]


@dataclass(frozen=True)
class Column:
    """A column of results; `{}` in its path stands for rmse or mae.

    What is no error has no mean prediction, and there is no error of predicting zero.
    """

    heading: str
    unit: str
    path: tuple[str, ...]
    is_error: bool = True

    def metric_path(self, metric: Metric) -> tuple[str, ...]:
        """Path of keys into `metrics.json`."""
        return tuple(part.format(metric) for part in self.path)

    @property
    def label_rms_path(self) -> tuple[str, ...]:
        """Path of the size of the labels, which is the RMSE of predicting zero."""
        return (*self.path[:-1], self.path[-1].replace("_{}_", "_label_rms_"))

    @property
    def reason_path(self) -> tuple[str, ...]:
        """Path of the reason for a null."""
        return (*self.path[:-1], self.path[-1].split("_{}_")[0] + "_reason")


def heldout_energy(level: Level) -> Column:
    """Energy error on the held-out structures against a level."""
    path = ("heldout", level.id, "energy_{}_kcal_per_mol")
    return Column(f"energy, held-out {level.label}", "kcal/mol", path)


def heldout_force(level: Level) -> Column:
    """Force error on the held-out structures against a level."""
    path = ("heldout", level.id, "force_{}_kcal_per_mol_per_angstrom")
    return Column(f"force, held-out {level.label}", "kcal/mol/Å", path)


def cross_force(head: Level, reference: Level) -> Column:
    """Force error of one level's head on the held-out structures against another level."""
    path = ("cross", head.id, reference.id, "force_{}_kcal_per_mol_per_angstrom")
    return Column(f"force of the {head.label} head, held-out {reference.label}", "kcal/mol/Å", path)


def comp6_force(level: Level) -> Column:
    """Force error on COMP6 against a level."""
    path = ("comp6", level.id, "force_{}_kcal_per_mol_per_angstrom")
    return Column(f"force, COMP6 {level.label}", "kcal/mol/Å", path)


def comp6_delta_e(level: Level) -> Column:
    """Conformer energy error on COMP6 against a level."""
    path = ("comp6", level.id, "delta_e_{}_kcal_per_mol")
    return Column(f"ΔE, COMP6 {level.label}", "kcal/mol", path)


def test_file_energy(level: Level) -> Column:
    """Energy error on the structures of the test file against a level."""
    path = ("test_file", level.id, level.id, "energy_{}_kcal_per_mol")
    return Column(f"energy, test file {level.label}", "kcal/mol", path)


def test_file_force(level: Level) -> Column:
    """Force error on the structures of the test file against a level."""
    path = ("test_file", level.id, level.id, "force_{}_kcal_per_mol_per_angstrom")
    return Column(f"force, test file {level.label}", "kcal/mol/Å", path)


def training_cost() -> Column:
    """Processor time of a training, all phases together."""
    return Column("training", "s of one core", ("training", "cpu_s"), is_error=False)


def inference_cost() -> Column:
    """Processor time of energies and forces of the highest level."""
    path = ("inference", "cpu_ms_per_structure")
    return Column("energy and forces", "ms per structure", path, is_error=False)


class PublishedNumber(Strict):
    """A number of the paper, with its 95 % half width where the paper gives one."""

    value: float
    half_width: float | None


@dataclass(frozen=True)
class RowSpec:
    """A row: an experiment by name, and its published number for every column."""

    name: str
    published: tuple[PublishedNumber | None, ...]


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
    columns: tuple[Column, ...]
    rows: tuple[RowSpec, ...]
    reference: str | LowLevel | LowHead


def low_level_path(column: Column, low: Level, metric: Metric) -> tuple[str, ...]:
    """Path into the level differences of `ensemble.json`: `low`'s own labels as the prediction."""
    part, *_, reference, _ = column.path
    return (part, low.id, reference, column.metric_path(metric)[-1])


def low_head_path(column: Column, low: Level, metric: Metric) -> tuple[str, ...]:
    """Path into `metrics.json`: errors of the head of `low` against the level of a column."""
    part, *_, reference, _ = column.path
    parts = {"heldout": "cross", "test_file": "test_file"}  # which have every head and level
    return (parts[part], low.id, reference, column.metric_path(metric)[-1])


def pick(metrics: object, *path: str) -> object:
    """The entry at a path of keys, None where it ends early."""
    for key in path:
        if not isinstance(metrics, Mapping) or key not in metrics:
            return None
        metrics = metrics[key]
    return metrics
