"""Metrics of many runs, gathered by experiment; a missing or duplicate run is named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hippynn_mf.errors import UserError, unknown_name_message
from hippynn_mf.levels import Levels, known_levels
from hippynn_mf.paper.table1 import beyond_table1, get_experiment, strategies, table1
from hippynn_mf.report.columns import pick
from hippynn_mf.runs.experiment import Experiment
from hippynn_mf.runs.folder import RunFolder, find_runs, remedy_of_untested
from hippynn_mf.runs.settings import RunSettings


@dataclass(frozen=True)
class Result:
    """A finished run: its settings and metrics."""

    folder: RunFolder
    settings: RunSettings
    metrics: Mapping[str, Any]


@dataclass(frozen=True)
class Results:
    """The finished runs of a folder `out`, by experiment name, and the seeds of unfinished ones.

    `labels` are those of every experiment that has runs, finished or not.
    """

    out: Path
    by_name: Mapping[str, Sequence[Result]]
    unfinished: Mapping[str, Sequence[int]]
    labels: Mapping[str, Mapping[str, str]]
    is_whole: bool = True  # no finished run of the folder is left out

    def seeds(self, name: str) -> list[int]:
        """Seeds of the finished runs of an experiment, ascending."""
        return sorted(result.settings.seed for result in self.by_name.get(name, []))

    def members(self, name: str) -> list[Result]:
        """The finished runs of an experiment, by seed; a UserError if there are none."""
        if not self.by_name.get(name):
            kind = f"experiment with finished runs in {self.out}"
            raise UserError(unknown_name_message(kind, name, self.by_name))
        return sorted(self.by_name[name], key=lambda result: result.settings.seed)

    def only(self, seeds: Sequence[int]) -> Results:
        """The runs with these seeds alone."""
        by_name = {
            name: [result for result in results if result.settings.seed in seeds]
            for name, results in self.by_name.items()
        }
        unfinished = {
            name: [seed for seed in found if seed in seeds]
            for name, found in self.unfinished.items()
        }
        return replace(
            self,
            by_name={name: found for name, found in by_name.items() if found},
            unfinished={name: found for name, found in unfinished.items() if found},
            is_whole=self.is_whole and by_name == self.by_name,
        )

    def by_seed(self, name: str, *path: str) -> dict[int, float]:
        """A metric of an experiment by seed; seeds where it is null are left out."""
        results = sorted(self.by_name.get(name, []), key=lambda result: result.settings.seed)
        found = {result.settings.seed: pick(result.metrics, *path) for result in results}
        return {seed: value for seed, value in found.items() if isinstance(value, float)}


def read_results(out: Path) -> Results:
    """Read every run below `out/runs`.

    Raises UserError if there are none, if a run is there twice, or if runs that would share a
    table differ in data, split, rows or hyperparameters.
    """
    folders = find_runs(out)
    if not folders:
        raise UserError(f"No runs in {out / 'runs'}. Train some with 'hippynn-mf reproduce'.")
    by_name: dict[str, list[Result]] = {}
    unfinished: dict[str, list[int]] = {}
    labels: dict[str, Mapping[str, str]] = {}
    for folder in folders:
        settings = folder.read_settings()
        labels[settings.name] = settings.labels
        if folder.is_finished:
            result = Result(folder, settings, folder.read_metrics())
            by_name.setdefault(settings.name, []).append(result)
        else:
            unfinished.setdefault(settings.name, []).append(settings.seed)
    _refuse_duplicates(by_name)
    _refuse_mixtures([result for results in by_name.values() for result in results])
    return Results(out, by_name, unfinished, labels)


def chosen_experiments(
    results: Results, asked: Sequence[Experiment] | None
) -> Sequence[Experiment]:
    """What documents are about: the experiments asked for, or all that the folder is about.

    Those are Table 1, unless the folder has none of it but others, and every other experiment that
    has runs. Of a folder of strategies alone, they are those that have runs.
    """
    if asked is not None:
        return asked
    rows = {experiment.name: experiment for experiment in table1()}
    found = dict.fromkeys([*results.by_name, *results.unfinished])
    beside = {experiment.name for experiment in beyond_table1()}
    if found.keys() & beside and found.keys() <= {e.name for e in strategies()}:
        return [experiment for experiment in strategies() if experiment.name in found]
    others = [
        get_experiment(name, levels=Levels(known_levels())) for name in found if name not in rows
    ]
    return [*(rows.values() if rows.keys() & found or not others else ()), *others]


def _refuse_duplicates(by_name: Mapping[str, Sequence[Result]]) -> None:
    for name, results in by_name.items():
        seeds = Counter(result.settings.seed for result in results)
        for seed, count in seeds.items():
            if count > 1:
                where = [str(r.folder.path) for r in results if r.settings.seed == seed]
                raise UserError(
                    f"{name}, seed {seed} is there {count} times: {', '.join(where)}. Remove all "
                    "but one; an average would count it twice."
                )


def _refuse_mixtures(results: Sequence[Result]) -> None:
    """Numbers in one table must come from one data set and one recipe."""
    own = {"name", "strategy", "slug", "labels", "seed"}
    for result in results[1:]:
        first = results[0]
        # What strategies stand for is what their rows are compared in.
        strategies = [r.settings.experiment.strategy for r in (result, first)]
        theirs = {f"hyperparameters.{name}" for s in strategies for name in s.overrides}
        differences = [
            text
            for text in result.settings.differences(first.settings)
            if text.split(":")[0].split(".")[0] not in own and text.split(":")[0] not in theirs
        ]
        if differences:
            remedy = "Keep them in different folders."
            for one, other in ((first, result), (result, first)):
                source = other.settings.test("cc-forces")
                if one.settings.test("cc-forces") is None and source is not None:
                    remedy = f"{remedy_of_untested(one.folder, [source])} {remedy}"
            raise UserError(
                f"{result.folder.path} and {first.folder.path} cannot share a table: "
                f"{'; '.join(differences)}. {remedy}"
            )
