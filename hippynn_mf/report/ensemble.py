"""Errors of the mean prediction of an experiment's seeds, in `OUT/runs/<slug>/ensemble.json`.

With another split seed S than 0, in `ensemble-split-S.json`. A record also says how far the levels
of theory are apart on the same test structures. It is made from the members' `predictions.npz`, and
holds a hash of their metrics: when a member is added, removed or evaluated to something else, it is
made again, or refused where predictions are gone.
Kept results have the records of all experiments in `ensembles.jsonl`.
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
from hippynn_mf.evaluation.schema import SetErrors
from hippynn_mf.files import read_json, write_json
from hippynn_mf.report.kept import ENSEMBLES
from hippynn_mf.report.results import Results
from hippynn_mf.report.runs import Run
from hippynn_mf.report.stored_predictions import (
    level_differences,
    prediction_names,
    score_arrays,
    unproved_forces,
)
from hippynn_mf.schema import Strict, validate_json

RELATIVE_TOLERANCE = 1e-6  # between a member's metrics and those of its stored predictions


class EnsembleRecord(Strict):
    """Errors of the mean prediction, and of each level's labels as predictions of the others.

    `members` maps each seed to the SHA-256 of its errors; `sets` is as in `metrics.json`, and
    `level_differences` is `<set>.<low>.<high>`.
    """

    format: Literal[2]
    name: str
    split_seed: int
    members: dict[str, str]
    sets: dict[str, dict[str, dict[str, SetErrors]]]
    level_differences: dict[str, dict[str, dict[str, SetErrors]]]

    def errors(self) -> dict[str, Any]:
        """Errors by set, head and reference."""
        return self.model_dump(exclude_unset=True)["sets"]

    def differences(self) -> dict[str, Any]:
        """Errors by set, low level and high level."""
        return self.model_dump(exclude_unset=True)["level_differences"]

    def content(self) -> dict[str, Any]:
        """The record as JSON."""
        return self.model_dump(mode="json", exclude_unset=True)


def find_ensembles(results: Results, names: Sequence[str]) -> dict[str, EnsembleRecord]:
    """Records of these experiments by name, made from predictions where they are out of date.

    An experiment is left out if it has neither a record nor the predictions of all members.
    Raises UserError if the record is of other members and predictions are missing, if the members
    were not tested on the same structures, or for several split seeds. If the results are not all
    finished runs of their folder, the file is neither written nor refused.
    """
    records = {}
    for name in names:
        if not results.by_name.get(name):
            continue
        members = results.members(name)
        path, record = _stored(results, members)
        without = [m for m in members if not _has_predictions(m)]
        if record is not None and record.members == _digests(members):
            records[name] = record
        elif not without:
            records[name] = score_ensemble(members)
            if results.is_whole:
                write_json(path, records[name].content())
        elif record is not None and results.is_whole:
            raise UserError(
                f"{path} is of seeds {', '.join(record.members)} of {name} as they were, not of "
                f"the finished runs here, seeds {', '.join(_digests(members))}, and "
                f"{without[0].where} has no predictions.npz to make it again. Bring the "
                f"predictions back ('hippynn-mf evaluate' makes them), or delete {path.name}."
            )
    return records


def split_ensembles(results: Results, names: Sequence[str]) -> dict[str, dict[int, EnsembleRecord]]:
    """Records of these experiments by name and split seed, as `find_ensembles` has them."""
    found: dict[str, dict[int, EnsembleRecord]] = {}
    for split_seed in results.split_seeds:
        for name, record in find_ensembles(results.only(split_seed=split_seed), names).items():
            found.setdefault(name, {})[split_seed] = record
    return found


def record_name(split_seed: int) -> str:
    """The name of the file of a record."""
    return "ensemble.json" if split_seed == 0 else f"ensemble-split-{split_seed}.json"


def _stored(results: Results, members: Sequence[Run]) -> tuple[Path, EnsembleRecord | None]:
    """Where the record of members is stored, and the record, None if there is none."""
    first = members[0]
    if first.folder is not None:
        path = first.folder.path.parent / record_name(first.settings.split_seed)
        content: Mapping[str, Any] | None = read_json(path) if path.exists() else None
    else:
        path = results.out / ENSEMBLES
        key = first.name, first.settings.split_seed
        kept = {(c.get("name"), c.get("split_seed")): c for c in results.kept_ensembles}
        content = kept.get(key)
    if content is None:
        return path, None
    return path, validate_json(EnsembleRecord, content, path, "delete it")


def _has_predictions(member: Run) -> bool:
    return member.folder is not None and member.folder.file("predictions.npz").exists()


def _digests(members: Sequence[Run]) -> dict[str, str]:
    """SHA-256 of every member's errors by seed."""
    digests = {}
    for member in members:
        text = json.dumps(member.sets, sort_keys=True)
        digests[str(member.seed)] = hashlib.sha256(text.encode()).hexdigest()
    return digests


def score_ensemble(members: Sequence[Run]) -> EnsembleRecord:
    """Errors of the mean prediction of the members of one experiment, from their predictions.

    Raises UserError if a member's references differ from the first's, or if its predictions do
    not give its metrics.
    """
    settings = members[0].settings
    references: dict[str, np.ndarray] = {}
    sums: dict[str, np.ndarray] = {}
    for member in members:
        arrays = member.require_folder().read_predictions()
        predicted = prediction_names(settings, arrays)
        labels_of_member = {name: array for name, array in arrays.items() if name not in predicted}
        references = references or labels_of_member
        require_same_tests(references, labels_of_member, members[0], member)
        _require_own_metrics(arrays, member)
        for name in predicted:
            sums[name] = sums.get(name, np.float64(0)) + arrays[name].astype(np.float64)
    means = references | {name: total / len(members) for name, total in sums.items()}
    unproved = unproved_forces(references, members[0].sets)
    return EnsembleRecord.model_validate(
        {
            "format": 2,
            "name": settings.name,
            "split_seed": settings.split_seed,
            "members": _digests(members),
            "sets": score_arrays(means, settings, unproved),
            "level_differences": level_differences(references, settings, unproved),
        }
    )


def require_same_tests(
    first: Mapping[str, np.ndarray],
    other: Mapping[str, np.ndarray],
    first_member: Run,
    member: Run,
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
            f"{member.where} and {first_member.where} were not tested on the same "
            f"structures and references: {', '.join(different)} of predictions.npz differ, so "
            "their predictions have no mean. Evaluate both again with 'hippynn-mf evaluate'."
        )


def _require_own_metrics(arrays: Mapping[str, np.ndarray], member: Run) -> None:
    """Raise UserError unless the stored predictions of a member give its stored metrics."""
    unproved = unproved_forces(arrays, member.sets)
    scored = dict(_numbers(score_arrays(arrays, member.settings, unproved)))
    stored = dict(_numbers(member.sets))
    wrong = sorted(
        name
        for name in scored.keys() | stored
        if name not in scored
        or name not in stored
        or not math.isclose(scored[name], stored[name], rel_tol=RELATIVE_TOLERANCE)
    )
    if wrong:
        name = wrong[0]
        raise UserError(
            f"{member.where}: predictions.npz does not give the errors of metrics.json. "
            f"{len(wrong)} differ, the first of them {name.lstrip('.')}: {scored.get(name)} from "
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
