"""Errors of the mean prediction of an experiment's seeds, in `OUT/runs/<slug>/ensemble.json`.

The file also says how far the levels of theory are apart on the same test structures. It is made
from the members' `predictions.npz`, and holds a hash of their metrics: when a member is added,
removed or evaluated to something else, it is made again, or refused where predictions are gone.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hippynn_mf.errors import UserError
from hippynn_mf.evaluation.schema import RunMetrics, SetErrors
from hippynn_mf.files import read_json, write_json
from hippynn_mf.report.results import Result, Results
from hippynn_mf.report.stored_predictions import (
    level_differences,
    prediction_names,
    score_arrays,
    unproved_forces,
)
from hippynn_mf.schema import Strict, validate_json

FILE = "ensemble.json"
RELATIVE_TOLERANCE = 1e-6  # between a member's metrics and those of its stored predictions


class LevelDifferences(Strict):
    """Errors of one level's labels as predictions of another's: `sets.<set>.<low>.<high>`."""

    sets: dict[str, dict[str, dict[str, SetErrors]]]


class EnsembleRecord(Strict):
    """The content of `ensemble.json`: errors of the mean prediction, and of level by level.

    `members` maps each seed to the SHA-256 of its metrics.
    """

    format: Literal[1]
    name: str
    members: dict[str, str]
    metrics: RunMetrics
    level_differences: LevelDifferences


def find_ensembles(results: Results, names: Sequence[str]) -> dict[str, EnsembleRecord]:
    """`ensemble.json` of these experiments by name, made from predictions where it is out of date.

    An experiment is left out if it has neither the file nor the predictions of all members.
    Raises UserError if the file is of other members and predictions are missing, or if the
    members were not tested on the same structures. If the results are not all finished runs of
    their folder, the file is neither written nor refused.
    """
    found = {}
    for name in names:
        members = results.by_name.get(name, [])
        if not members:
            continue
        path = results.out / "runs" / members[0].settings.slug / FILE
        record = _read(path) if path.exists() else None
        without = [m for m in members if not m.folder.file("predictions.npz").exists()]
        if record is not None and record.members == _digests(members):
            found[name] = record
        elif not without:
            found[name] = score_ensemble(members)
            if results.is_whole:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_json(path, found[name].model_dump(mode="json", exclude_unset=True))
        elif record is not None and results.is_whole:
            raise UserError(
                f"{path} is of seeds {', '.join(record.members)} as they were, not of the finished "
                f"runs here, seeds {', '.join(_digests(members))}, and {without[0].folder.path} "
                "has no predictions.npz to make it again. Bring the predictions back "
                f"('hippynn-mf evaluate' makes them), or delete {path.name}."
            )
    return found


def _read(path: Path) -> EnsembleRecord:
    return validate_json(EnsembleRecord, read_json(path), path, "delete it")


def _digests(members: Sequence[Result]) -> dict[str, str]:
    """SHA-256 of every member's metrics by seed, without the time that training took."""
    found = {}
    for member in sorted(members, key=lambda member: member.settings.seed):
        content = _errors(member.metrics)
        text = json.dumps(content, sort_keys=True)
        found[str(member.settings.seed)] = hashlib.sha256(text.encode()).hexdigest()
    return found


def score_ensemble(members: Sequence[Result]) -> EnsembleRecord:
    """Errors of the mean prediction of the members of one experiment, from their predictions.

    Raises UserError if a member's references differ from the first's, or if its predictions do
    not give its metrics.
    """
    settings = members[0].settings
    predicted = prediction_names(settings)
    references: dict[str, np.ndarray] = {}
    sums: dict[str, np.ndarray] = {}
    for member in members:
        arrays = member.folder.read_predictions()
        own = {name: array for name, array in arrays.items() if name not in predicted}
        references = references or own
        require_same_tests(references, own, members[0], member)
        _require_own_metrics(arrays, member)
        for name in predicted:
            sums[name] = sums.get(name, np.float64(0)) + arrays[name].astype(np.float64)
    means = references | {name: total / len(members) for name, total in sums.items()}
    unproved = unproved_forces(references, members[0].metrics)
    return EnsembleRecord.model_validate(
        {
            "format": 1,
            "name": settings.name,
            "members": _digests(members),
            "metrics": score_arrays(means, settings, unproved),
            "level_differences": level_differences(references, settings, unproved),
        }
    )


def require_same_tests(
    first: Mapping[str, np.ndarray],
    other: Mapping[str, np.ndarray],
    first_member: Result,
    member: Result,
) -> None:
    """Raise UserError unless two members have the same test structures and references."""
    different = sorted(
        name
        for name in first.keys() | other
        if name not in first
        or name not in other
        or not np.array_equal(first[name], other[name], equal_nan=True)
    )
    if different:
        raise UserError(
            f"{member.folder.path} and {first_member.folder.path} were not tested on the same "
            f"structures and references: {', '.join(different)} of predictions.npz differ, so "
            "their predictions have no mean. Evaluate both again with 'hippynn-mf evaluate'."
        )


def _errors(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics without what training and inference cost."""
    return {**{k: v for k, v in metrics.items() if k != "inference"}, "training": None}


def _require_own_metrics(arrays: Mapping[str, np.ndarray], member: Result) -> None:
    """Raise UserError unless the stored predictions of a member give its stored metrics."""
    unproved = unproved_forces(arrays, member.metrics)
    found = dict(_numbers(score_arrays(arrays, member.settings, unproved)))
    stored = dict(_numbers(_errors(member.metrics)))
    wrong = sorted(
        name
        for name in found.keys() | stored
        if name not in found
        or name not in stored
        or not math.isclose(found[name], stored[name], rel_tol=RELATIVE_TOLERANCE)
    )
    if wrong:
        name = wrong[0]
        raise UserError(
            f"{member.folder.path}: predictions.npz does not give the errors of metrics.json. "
            f"{len(wrong)} differ, the first of them {name.lstrip('.')}: {found.get(name)} from "
            f"the predictions, {stored.get(name)} stored. Evaluate the run again with "
            "'hippynn-mf evaluate'."
        )


def _numbers(content: object, path: str = "") -> Iterator[tuple[str, float]]:
    """Every number of nested metrics with its path."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _numbers(value, f"{path}.{key}")
    elif isinstance(content, int | float):
        yield path, content
