"""Metrics of many runs, gathered by experiment; a missing or duplicate run is named."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit

from hippynn_mf.errors import UserError
from hippynn_mf.runs import RunFolder, RunSettings, find_runs

log = logging.getLogger(__name__)

CONFIDENCE = 0.95
FEWEST_FOR_INTERVAL = 3


@dataclass(frozen=True)
class Result:
    """A finished run: its settings and metrics."""

    folder: RunFolder
    settings: RunSettings
    metrics: Mapping[str, Any]


@dataclass(frozen=True)
class Results:
    """The finished runs of a folder, by experiment name, and the names of unfinished ones."""

    by_name: Mapping[str, Sequence[Result]]
    unfinished: Sequence[str]

    def by_seed(self, name: str, *path: str) -> dict[int, float]:
        """A metric of an experiment by seed; seeds where it is null are left out."""
        results = sorted(self.by_name.get(name, []), key=lambda result: result.settings.seed)
        found = {result.settings.seed: pick(result.metrics, *path) for result in results}
        return {seed: float(value) for seed, value in found.items() if value is not None}

    def values(self, name: str, *path: str) -> np.ndarray:
        """A metric of every seed of an experiment, (n_seeds,); empty where it is null."""
        return np.array(list(self.by_seed(name, *path).values()))


def pick(metrics: Any, *path: str) -> Any:
    """The entry at a path of keys, None where it ends early."""
    for key in path:
        if not isinstance(metrics, Mapping) or key not in metrics:
            return None
        metrics = metrics[key]
    return metrics


def read_results(out: Path) -> Results:
    """Read every run below `out/runs`.

    Raises UserError if there are none, if a run is there twice, or if runs that would share a
    table differ in data, split, rows or hyperparameters.
    """
    folders = find_runs(out)
    if not folders:
        raise UserError(f"No runs in {out / 'runs'}. Train some with 'hippynn-mf reproduce'.")
    by_name: dict[str, list[Result]] = {}
    unfinished = []
    for folder in folders:
        settings = folder.read_settings()
        if folder.is_finished:
            result = Result(folder, settings, folder.read_metrics())
            by_name.setdefault(settings.name, []).append(result)
        else:
            unfinished.append(f"{settings.name}, seed {settings.seed}")
    _refuse_duplicates(by_name)
    _refuse_mixtures([result for results in by_name.values() for result in results])
    return Results(by_name, unfinished)


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
    own = {"name", "slug", "labels", "seed"}
    for result in results[1:]:
        first = results[0]
        differences = [
            text
            for text in result.settings.differences(first.settings)
            if text.split(":")[0].split(".")[0] not in own
        ]
        if differences:
            raise UserError(
                f"{result.folder.path} and {first.folder.path} cannot share a table: "
                f"{'; '.join(differences)}. Keep them in different folders."
            )


def summarize(values: np.ndarray, digits: int = 2) -> str:
    """Mean ± 95 % interval by Student's t; mean and range for fewer than three values.

    `—` for no value.
    """
    if not len(values):
        return "—"
    mean = f"{np.mean(values):.{digits}f}"
    if len(values) == 1:
        return f"{mean} (one seed)"
    if len(values) < FEWEST_FOR_INTERVAL:
        return f"{mean} ({values.min():.{digits}f} to {values.max():.{digits}f})"
    return f"{mean} ± {half_width(values):.{digits}f}"


def half_width(values: np.ndarray) -> float:
    """Half the width of the 95 % confidence interval of the mean, by Student's t."""
    n = len(values)
    quantile = stdtrit(n - 1, (1 + CONFIDENCE) / 2)  # of Student's t with n − 1 degrees of freedom
    return float(quantile * np.std(values, ddof=1) / np.sqrt(n))
