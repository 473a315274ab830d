"""The form in which many runs are kept in a few files.

A folder of kept results has `campaign.json`, what all of its runs share; `runs.jsonl`, a line per
run with its name, labels and seeds, what differs from the others, and its metrics; and
`ensembles.jsonl`, a line per experiment. A run is what its line and the shared part say together.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hippynn_mf.errors import UserError
from hippynn_mf.evaluation.schema import validate_metrics
from hippynn_mf.files import (
    make_folder,
    parse_json,
    read_json,
    read_text,
    replace_when_complete,
    write_json,
)
from hippynn_mf.report.runs import KeptEpoch, Run, read_run
from hippynn_mf.runs.folder import FORMAT, find_runs, no_runs_message
from hippynn_mf.runs.settings import RunSettings
from hippynn_mf.schema import describe_errors, validate_json

CAMPAIGN, RUNS, ENSEMBLES = "campaign.json", "runs.jsonl", "ensembles.jsonl"
# What every line says for itself, shared or not.
OWN = ("name", "strategy", "slug", "labels", "seed", "split_seed")


def read_runs(out: Path) -> list[Run]:
    """The runs of a folder of runs, or of one of kept results.

    Raises UserError if there are none, or for a file that is not what hippynn_mf writes.
    """
    if (out / RUNS).exists():
        return _read_kept(out)
    folders = find_runs(out)
    if not folders:
        raise UserError(f"{no_runs_message(out)} Nor is there a file {RUNS} of kept results.")
    return [read_run(folder) for folder in folders]


def _settings(content: Mapping[str, Any], source: object) -> RunSettings:
    if content.get("format") != FORMAT:
        raise UserError(
            f"{source} has format {content.get('format')!r}; this version of hippynn_mf reads "
            f"format {FORMAT}. Restore the file, or use the version that wrote it."
        )
    try:
        return RunSettings.model_validate_json(json.dumps(content.get("settings")))
    except ValidationError as error:
        raise UserError(f"{source} is damaged: {describe_errors(error)}.") from None


def _read_kept(out: Path) -> list[Run]:
    shared = read_json(out / CAMPAIGN)
    runs = []
    for number, line in enumerate(read_lines(out / RUNS), start=1):
        content = merge(shared, line)
        where = f"{out / RUNS}, line {number}"
        metrics = content.pop("metrics", None)
        if metrics is not None:
            validate_metrics(metrics, where)
        kept = content.pop("kept_epoch", None)
        settings = _settings(content, where)
        runs.append(
            Run(
                settings=settings,
                metrics=metrics,
                where=where,
                facts={k: v for k, v in content.items() if k not in ("format", "settings")},
                kept_epoch=None if kept is None else _read_kept_epoch(kept, where),
                failure=content.get("failure"),
            )
        )
    return runs


def _read_kept_epoch(content: Any, where: str) -> KeptEpoch:
    return validate_json(KeptEpoch, content, where, "use the folder of the runs")


def write_kept(target: Path, runs: Sequence[Run], ensembles: Iterable[Mapping[str, Any]]) -> None:
    """Write runs and ensembles in the form that is kept; of data files, only their names."""
    contents = [_content(run) for run in sorted(runs, key=_order)]
    shared = common_part(contents)
    shared["format"] = FORMAT
    lines = [difference(content, shared) for content in contents]
    make_folder(target)
    write_json(target / CAMPAIGN, shared)
    write_lines(target / RUNS, lines)
    write_lines(target / ENSEMBLES, ensembles)


def _order(run: Run) -> tuple[str, int, int]:
    return run.settings.slug, run.settings.split_seed, run.settings.seed


def _content(run: Run) -> dict[str, Any]:
    settings = run.settings.model_dump(mode="json")
    places: set[str] = set()
    valid = [] if settings["valid"] is None else [settings["valid"]]
    for source in (settings["data"], *valid, *settings["tests"]):
        path = source["path"]
        files = path.values() if isinstance(path, dict) else [path]
        places.update(f"{Path(file).parent}{os.sep}" for file in files)
        source["path"] = (
            {level: Path(file).name for level, file in path.items()}
            if isinstance(path, dict)
            else Path(path).name
        )
    metrics = None if run.metrics is None else {**run.metrics}
    if metrics is not None:
        metrics.pop("predictions_sha256", None)  # they stay behind
    content: dict[str, Any] = {
        "format": FORMAT,
        "settings": settings,
        **_without(run.facts, places),
        "kept_epoch": None if run.kept_epoch is None else run.kept_epoch.model_dump(mode="json"),
        "metrics": metrics,
    }
    return content if run.failure is None else content | {"failure": run.failure}


def _without(content: Any, places: set[str]) -> Any:
    """JSON without these folders in its texts, as what checks say has them."""
    if isinstance(content, Mapping):
        return {key: _without(value, places) for key, value in content.items()}
    if isinstance(content, list):
        return [_without(value, places) for value in content]
    if isinstance(content, str):
        for place in places - {f".{os.sep}"}:
            content = content.replace(place, "")
    return content


def common_part(contents: Sequence[Mapping[str, Any]], *, top: bool = True) -> dict[str, Any]:
    """What all nested dictionaries say alike; neither metrics nor what tells runs apart."""
    first, *others = contents
    shared: dict[str, Any] = {}
    for key, value in first.items():
        if key in OWN or (top and key in ("metrics", "kept_epoch")):
            continue
        values = [value, *(other.get(key, ...) for other in others)]
        if all(isinstance(each, dict) for each in values):
            shared[key] = common_part(values, top=False)
        elif all(each == value for each in values):
            shared[key] = value
    return shared


def difference(content: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    """What nested dictionaries say beyond the shared part, so that `merge` gives them again."""
    beyond: dict[str, Any] = {}
    for key, value in content.items():
        if key not in shared:
            beyond[key] = value
        elif isinstance(value, dict) and (inner := difference(value, shared[key])):
            beyond[key] = inner
    return beyond


def merge(shared: Mapping[str, Any], line: Mapping[str, Any]) -> dict[str, Any]:
    """Both nested dictionaries together."""
    merged = dict(shared)
    for key, value in line.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def read_lines(path: Path) -> list[dict[str, Any]]:
    """JSON objects, one a line; a UserError naming the line that is none."""
    contents = []
    lines = read_text(path).split("\n")
    for number, line in enumerate(lines if lines[-1] else lines[:-1], start=1):
        content = parse_json(line, f"{path}, line {number}")
        if not isinstance(content, dict):
            raise UserError(f"{path}, line {number} should hold a JSON object. Restore it.")
        contents.append(content)
    return contents


def write_lines(path: Path, contents: Iterable[Mapping[str, Any]]) -> None:
    """JSON objects, one a line, complete or not at all."""
    text = "".join(
        json.dumps(content, allow_nan=False, ensure_ascii=False) + "\n" for content in contents
    )
    with replace_when_complete(path) as partial:
        partial.write_text(text, encoding="utf-8")
