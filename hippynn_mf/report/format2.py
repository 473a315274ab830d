"""Run format 2 as the report needs it: settings, errors of test sets, and their computation.

This stands in for `hippynn_mf.runs.settings`, `hippynn_mf.evaluation.schema` and
`hippynn_mf.evaluation.scoring` of that format; only imports of this module change with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from hippynn_mf.data.formats.ani1x import Rows
from hippynn_mf.data.formats.sources import shown_path
from hippynn_mf.evaluation.errors import (
    Metrics,
    conformer_metrics,
    energy_metrics,
    force_metrics,
    near_minimum,
)
from hippynn_mf.evaluation.schema import Count, Error, Inference, Strict, Training, _require_whole
from hippynn_mf.hyperparameters import Hyperparameters
from hippynn_mf.level_records import LevelRecord
from hippynn_mf.levels import CC, Level, Levels
from hippynn_mf.runs.experiment import Experiment

HELDOUT = "heldout"
NO_ENERGIES = "the file has no energies of this level"
NO_FORCES = "the file has no forces of this level"


class _Source(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    path: Path | dict[str, Path]

    @property
    def file_name(self) -> str:
        """The name of the file, or of all files with their levels."""
        if isinstance(self.path, Path):
            return self.path.name
        return str(shown_path({level: Path(path.name) for level, path in self.path.items()}))


class DataSource(_Source):
    """Labelled data: a file, or one for each level by its id."""


class TestSource(_Source):
    """A set that runs are tested on; with an energy cut, conformers of molecules are compared."""

    __test__ = False  # no test of pytest's

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    keys: dict[str, dict[str, str]] | None = None
    energy_cut_kcal_per_mol: float | None = None


class RunSettings(BaseModel):
    """Everything that determines a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    strategy: str
    slug: str
    labels: dict[str, Literal["E", "EF"]]
    levels: tuple[LevelRecord, ...]
    common_levels: list[str]
    seed: int
    split_seed: int
    rows: Rows
    preset: str
    hyperparameters: Hyperparameters
    data: DataSource
    tests: tuple[TestSource, ...]
    device: str
    label_fractions: dict[str, float] = {}

    @cached_property
    def known(self) -> Levels:
        """The levels that the run knows."""
        return Levels(record.level for record in self.levels)

    @property
    def experiment(self) -> Experiment:
        """The experiment of the run."""
        return Experiment(
            row=0,
            labels={self.known.get(name): value for name, value in self.labels.items()},  # type: ignore[misc]
            common_levels=tuple(self.known.get(name) for name in self.common_levels),
            prefix=self.strategy,
        )

    def differences(self, other: RunSettings) -> list[str]:
        """What differs in a way that changes results: not the device, nor where a file lies."""
        mine, theirs = (_comparable(settings) for settings in (self, other))
        return [
            f"{key}: {theirs.get(key)!r} → {mine.get(key)!r}"
            for key in mine | theirs
            if mine.get(key) != theirs.get(key)
        ]


def _comparable(settings: RunSettings) -> dict[str, Any]:
    content = settings.model_dump(mode="json", exclude={"device", "levels"})
    content["data"].pop("path")
    content["tests"] = {
        test.pop("name"): {key: test[key] for key in test if key != "path"}
        for test in content["tests"]
    }
    return {
        f"{key}.{name}" if name else key: value
        for key, values in content.items()
        for name, value in (values if isinstance(values, dict) else {"": values}).items()
    }


class SetErrors(Strict):
    """Errors of a head on a set against a level; null has a reason. Units are in the names."""

    n_structures: Count
    cut_by: str | None = None
    energy_rmse_kcal_per_mol: Error | None = None
    energy_mae_kcal_per_mol: Error | None = None
    n_energies: Count = 0
    energy_reason: str | None = None
    delta_e_rmse_kcal_per_mol: Error | None = None
    delta_e_mae_kcal_per_mol: Error | None = None
    delta_e_label_rms_kcal_per_mol: Error | None = None
    n_pairs: Count = 0
    delta_e_reason: str | None = None
    force_rmse_kcal_per_mol_per_angstrom: Error | None
    force_mae_kcal_per_mol_per_angstrom: Error | None
    force_label_rms_kcal_per_mol_per_angstrom: Error | None = None
    n_force_components: Count = 0
    force_reason: str | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        _require_whole(
            "force",
            self.force_rmse_kcal_per_mol_per_angstrom,
            self.force_mae_kcal_per_mol_per_angstrom,
            self.n_force_components,
            self.force_reason,
        )
        return self


SetsErrors = dict[str, dict[str, dict[str, SetErrors]]]


class RunMetrics(Strict):
    """The content of `metrics.json`: `sets.<set>.<head>.<reference>`."""

    format: Literal[2]
    sets: SetsErrors
    training: Training | None = None
    inference: Inference | None = None


@dataclass(frozen=True)
class LabelledSet:
    """What predictions are compared with.

    Attributes:
        species: (n, n_atoms_max) atomic numbers, 0 where there is no atom.
        labels: `<level>.energy` (n,) in kcal/mol without self energies and `<level>.forces`
            (n, n_atoms_max, 3) in kcal/mol/Å; NaN where a label is missing.
        groups: (n,) which molecule a conformer belongs to.
        known: the levels that labels may be of.
        cut: conformers so far above the minimum of their molecule count, kcal/mol; None for sets
            that are no conformers.
        unproved: level id → why its forces are not used although they are there.
    """

    species: np.ndarray
    labels: Mapping[str, np.ndarray]
    groups: np.ndarray
    known: Levels
    cut: float | None = None
    unproved: Mapping[str, str] = field(default_factory=dict)

    @property
    def atom_mask(self) -> np.ndarray:
        """(n, n_atoms_max) True where there is an atom."""
        return self.species > 0

    def levels_with(self, kind: str) -> list[Level]:
        """The levels that have `energy` or `forces`, from the lowest to the highest."""
        names = [name.rpartition(".") for name in self.labels]
        levels = [self.known.get(level) for level, _, label in names if label == kind]
        return sorted(levels, key=lambda level: level.rank)

    def kept(self, reference: Level) -> tuple[Level | None, np.ndarray]:
        """The level by whose energies conformers are cut, and which of them (n,) count."""
        everything = np.ones(len(self.species), bool)
        if self.cut is None:
            return None, everything
        with_energies = self.levels_with("energy")
        cutting = [level for level in (CC, reference) if level in with_energies]
        if not cutting:
            return None, everything
        *first, last = (self.labels[level.energy_name] for level in cutting)
        chosen = last.copy()
        for energies in reversed(first):
            has_any = np.isin(self.groups, self.groups[np.isfinite(energies)])
            chosen[has_any] = energies[has_any]
        return cutting[0], near_minimum(chosen, self.groups, self.cut)


def score_set(
    predicted: Mapping[str, np.ndarray], test: LabelledSet, heads: Sequence[Level]
) -> dict[str, dict[str, Metrics]]:
    """Errors of every head against every level of a set."""
    references = {*test.levels_with("energy"), *test.levels_with("forces")}
    ordered = sorted(references, key=lambda level: level.rank)
    return {
        head.id: {reference.id: _errors(predicted, head, test, reference) for reference in ordered}
        for head in heads
    }


def _errors(
    predicted: Mapping[str, np.ndarray], head: Level, test: LabelledSet, reference: Level
) -> Metrics:
    cutting, kept = test.kept(reference)
    entry: Metrics = {"n_structures": int(kept.sum())}
    if test.cut is not None:
        entry["cut_by"] = None if cutting is None else cutting.id
    quantity = "energy" if test.cut is None else "delta_e"
    if reference.energy_name not in test.labels:
        entry |= _nothing(quantity, "kcal_per_mol", NO_ENERGIES)
    else:
        ours = predicted[head.energy_name][kept]
        theirs = test.labels[reference.energy_name][kept]
        if test.cut is None:
            found, n = energy_metrics(ours, theirs), "n_energies"
            reason = "none of these structures has an energy of this level"
        else:
            found, n = conformer_metrics(ours, theirs, test.groups[kept]), "n_pairs"
            reason = "no two conformers of a molecule are within the cut"
        entry |= found if found[n] else found | _nothing(quantity, "kcal_per_mol", reason)
    unit = "kcal_per_mol_per_angstrom"
    if reference.forces_name not in test.labels:
        return entry | _nothing("force", unit, NO_FORCES)
    if reference.id in test.unproved:
        return entry | _nothing("force", unit, test.unproved[reference.id])
    found = force_metrics(
        predicted[head.forces_name][kept],
        test.labels[reference.forces_name][kept],
        test.atom_mask[kept],
    )
    if not found["n_force_components"]:
        found |= _nothing("force", unit, "no structure that counts has forces of this level")
    return entry | found


def _nothing(quantity: str, unit: str, reason: str) -> Metrics:
    return {
        f"{quantity}_rmse_{unit}": None,
        f"{quantity}_mae_{unit}": None,
        f"{quantity}_reason": reason,
    }
