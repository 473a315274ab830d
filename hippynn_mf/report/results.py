"""Errors of many runs as one tidy table; a missing or duplicate run is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from hippynn_mf.errors import UserError, unknown_name_message
from hippynn_mf.levels import Levels
from hippynn_mf.report.columns import (
    METRICS,
    AnyColumn,
    Column,
    Metric,
    Quantity,
    field_name,
)
from hippynn_mf.report.compatible import (
    common_levels,
    refuse_duplicates,
    refuse_mixtures,
    run_key,
)
from hippynn_mf.report.kept import ENSEMBLES, read_lines, read_runs
from hippynn_mf.report.runs import Run
from hippynn_mf.runs.experiment import Experiment

KEY = ["experiment", "seed", "split_seed"]
RUN = ["split_seed", "seed"]  # that of the runs of one experiment
Place = tuple[str, AnyColumn]  # an experiment and a column
ADDRESS = ["set", "head", "reference", "quantity", "metric"]


@dataclass(frozen=True)
class Selection:
    """What documents are made of, of all that is there.

    Attributes:
        experiments: None for all that a folder is about.
        seeds: None for all that any row has.
        split_seed: None for the mean over all splits, where runs have several.
        metric: of tables.
        partial: write of what is there, and name what is missing.
    """

    experiments: Sequence[Experiment] | None = None
    seeds: Sequence[int] | None = None
    split_seed: int | None = None
    metric: Metric = "rmse"
    partial: bool = False

    def __post_init__(self) -> None:
        if self.metric not in get_args(Metric):
            raise UserError(unknown_name_message("metric", self.metric, get_args(Metric)))

    def of(self, results: Results) -> Results:
        """The runs with the chosen seeds and split; of several splits, their means."""
        chosen = results.only(self.seeds, split_seed=self.split_seed)
        return chosen.over_splits() if len(chosen.split_seeds) > 1 else chosen


@dataclass(frozen=True)
class Results:
    """The runs of a folder `out`, finished or not, and the ensembles that are kept with them.

    `over` says what the values of an experiment are of: seeds of one split; or splits, each with
    the mean over its seeds.
    """

    out: Path
    runs: tuple[Run, ...]
    kept_ensembles: tuple[Mapping[str, Any], ...] = ()
    is_whole: bool = True  # no finished run of the folder is left out
    over: Literal["seeds", "splits"] = "seeds"

    @property
    def finished(self) -> list[Run]:
        """The runs with metrics, by split and seed."""
        runs = [run for run in self.runs if run.metrics is not None]
        return sorted(runs, key=lambda run: (run.settings.split_seed, run.seed))

    @cached_property
    def by_name(self) -> Mapping[str, Sequence[Run]]:
        """The finished runs by experiment, these in the order in which they were read."""
        return self._grouped(lambda run: run.metrics is not None)

    @cached_property
    def unfinished(self) -> Mapping[str, Sequence[int]]:
        """The seeds of the unfinished runs by experiment."""
        grouped = self._grouped(lambda run: run.metrics is None)
        return {name: [run.seed for run in runs] for name, runs in grouped.items()}

    def _grouped(self, condition: Callable[[Run], bool]) -> dict[str, list[Run]]:
        grouped: dict[str, list[Run]] = {}
        for run in self.runs:
            if condition(run):
                grouped.setdefault(run.name, []).append(run)
        for runs in grouped.values():
            runs.sort(key=lambda run: (run.settings.split_seed, run.seed))
        return grouped

    @cached_property
    def experiments(self) -> Mapping[str, Experiment]:
        """The experiments that have runs, finished or not, by name."""
        return {run.name: run.settings.experiment for run in self.runs}

    @cached_property
    def known(self) -> Levels:
        """The levels that any run knows; a UserError if two differ under one name."""
        return common_levels(self.runs)

    @property
    def split_seeds(self) -> list[int]:
        """Split seeds of the finished runs, ascending."""
        return sorted({run.settings.split_seed for run in self.finished})

    @property
    def sets(self) -> list[str]:
        """The sets that finished runs were tested on, in the order of the runs."""
        return list(dict.fromkeys(name for run in self.finished for name in run.sets))

    def quantities(self, name: str) -> tuple[Quantity, ...]:
        """What is compared on a set: energies of structures, or of pairs of conformers; forces.

        And the stress, where the set has any.
        """
        has_stress = any(
            entry.get("n_stress_components")
            for run in self.finished
            for references in run.sets.get(name, {}).values()
            for entry in references.values()
        )
        derivatives: tuple[Quantity, ...] = ("force", "stress") if has_stress else ("force",)
        for run in self.finished:
            for test in run.settings.tests:
                if test.name == name and test.energy_cut_kcal_per_mol is not None:
                    return "delta_e", *derivatives
        return "energy", *derivatives

    @cached_property
    def table(self) -> pd.DataFrame:
        """Every error of every finished run: a row for each number.

        Columns: experiment, seed, split_seed; set, head and reference (level ids), quantity
        (energy, delta_e, force, stress), metric (rmse, mae, label_rms); value in kcal/mol,
        kcal/mol/Å or GPa.
        """
        return pd.DataFrame(_rows(self.finished), columns=[*KEY, *ADDRESS, "value"])

    @cached_property
    def costs(self) -> pd.DataFrame:
        """Processor times of every finished run that measured them.

        Columns: experiment, seed, split_seed; quantity (training in seconds of one core,
        inference in milliseconds per structure); value.
        """
        rows = []
        for run in self.finished:
            metrics = run.metrics or {}
            training, inference = (metrics.get(name) or {} for name in ("training", "inference"))
            times = {
                "training": training.get("cpu_s"),
                "inference": inference.get("cpu_ms_per_structure"),
            }
            rows += [
                (*run_key(run), name, value) for name, value in times.items() if value is not None
            ]
        return pd.DataFrame(rows, columns=[*KEY, "quantity", "value"])

    @cached_property
    def _indexed(self) -> tuple[pd.Series, pd.Series]:
        errors = self.table.set_index(["experiment", *ADDRESS, *RUN])["value"]
        costs = self.costs.set_index(["experiment", "quantity", *RUN])["value"]
        return errors.sort_index(), costs.sort_index()

    def values(self, name: str, column: AnyColumn, metric: str = "rmse") -> pd.Series:
        """The values of an experiment in a column, by seed; those that are null are left out.

        Of results `over_splits`, they are means over seeds, by split seed. Of others, raises
        UserError if there are runs with several split seeds: a mean over them would mix what the
        seed changes with what the choice of structures changes.
        """
        return self._collapse(self._by_run(name, column, metric))

    def paired(
        self, ours: Place, theirs: Place, metric: str = "rmse"
    ) -> tuple[pd.Series, pd.Series]:
        """The `values` of two places, of the runs (split seed and seed) that both have.

        A mean over the seeds of a split is then of the same seeds in both, so that their difference
        does not hold that between seeds.
        """
        both = [self._by_run(*place, metric) for place in (ours, theirs)]
        common = both[0].index.intersection(both[1].index)
        first, second = (self._collapse(values.loc[common]) for values in both)
        return first, second

    def _by_run(self, name: str, column: AnyColumn, metric: str) -> pd.Series:
        """Values by (split seed, seed)."""
        errors, costs = self._indexed
        place = (name, *column.address.values())
        series, place = (errors, (*place, metric)) if isinstance(column, Column) else (costs, place)
        try:
            values = series.loc[place]
        except KeyError:
            nothing = pd.MultiIndex.from_arrays([[], []], names=RUN)
            values = pd.Series(dtype=float, index=nothing)
        return values

    def _collapse(self, values: pd.Series) -> pd.Series:
        """Values by seed of one split, or means over the seeds by split."""
        if values.empty:
            return pd.Series(dtype=float)
        if self.over == "splits":
            return values.groupby(level="split_seed").mean()
        self.require_one_split()
        return values.droplevel("split_seed")

    def require_one_split(self) -> None:
        """Raise UserError if finished runs have several split seeds."""
        if len(self.split_seeds) > 1:
            splits = ", ".join(map(str, self.split_seeds))
            raise UserError(
                f"The runs in {self.out} have split seeds {splits}, so they were trained and "
                "tested on different structures; a table is of one. Choose it with --split-seed."
            )

    def seeds(self, name: str) -> list[int]:
        """Seeds of the finished runs of an experiment, ascending."""
        return sorted({run.seed for run in self.by_name.get(name, [])})

    def splits(self, name: str) -> list[int]:
        """Split seeds of the finished runs of an experiment, ascending."""
        return sorted({run.settings.split_seed for run in self.by_name.get(name, [])})

    def members(self, name: str) -> list[Run]:
        """The finished runs of an experiment, by seed; a UserError if there are none."""
        if not self.by_name.get(name):
            kind = f"experiment with finished runs in {self.out}"
            raise UserError(unknown_name_message(kind, name, self.by_name))
        self.require_one_split()
        return list(self.by_name[name])

    def only(self, seeds: Sequence[int] | None = None, *, split_seed: int | None = None) -> Results:
        """The runs with these seeds, and with this split, alone."""
        runs = tuple(
            run
            for run in self.runs
            if (seeds is None or run.seed in seeds)
            and (split_seed is None or run.settings.split_seed == split_seed)
        )
        all_seeds = all(seeds is None or run.seed in seeds for run in self.finished)
        return replace(self, runs=runs, is_whole=self.is_whole and all_seeds, over="seeds")

    def over_splits(self) -> Results:
        """The same runs, of which every split counts once, with the mean over its seeds."""
        return replace(self, over="splits")


def read_results(out: Path) -> Results:
    """Read every run of a folder of runs, `out/runs`, or of a folder of kept results.

    Raises UserError if there are none, if a run is there twice, or if runs that would share a
    table differ in data, rows, hyperparameters or what a level is.
    """
    runs = read_runs(out)
    path = out / ENSEMBLES
    results = Results(out, tuple(runs), tuple(read_lines(path)) if path.exists() else ())
    refuse_duplicates(results.finished)
    refuse_mixtures(results.finished)
    _ = results.known  # refuses levels that differ under one name
    return results


def _rows(runs: Sequence[Run]) -> Iterator[tuple[Any, ...]]:
    fields = [
        (q, metric, field_name(q, metric)) for q, metric in product(get_args(Quantity), METRICS)
    ]
    for run in runs:
        for name, heads in run.sets.items():
            for head, references in heads.items():
                for reference, entry in references.items():
                    for quantity, metric, field in fields:
                        if (value := entry.get(field)) is not None:
                            yield (*run_key(run), name, head, reference, quantity, metric, value)
