"""Convert run folders of format 1 (hippynn_mf 0.1.0) to format 2, in place.

    python scripts/convert_runs.py DIR

Every run below DIR is converted as a whole: its metrics take their place last, so a conversion
that was interrupted is done by the same command. Numbers are moved, not computed: on COMP6 there
are those of the head that format 1 compared with each level; 'hippynn-mf evaluate' adds the others.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from metrics_names import leaves, name_of_test_file, new_name
from tqdm import tqdm

from hippynn_mf.errors import UserError
from hippynn_mf.evaluation.schema import validate_metrics
from hippynn_mf.files import json_text, read_json, replace_when_complete
from hippynn_mf.level_records import LevelRecord
from hippynn_mf.levels import KNOWN_LEVELS, Levels
from hippynn_mf.runs.folder import FORMAT, RunFolder
from hippynn_mf.runs.settings import RunSettings

# Counts of labels, of which the largest is the least number of structures there can be.
COUNTS = ("n_energies",)


def convert_run(folder: RunFolder) -> bool:
    """Convert one run; whether there was anything to do."""
    experiment = read_json(folder.file("experiment.json"))
    metrics_file, arrays_file = folder.file("metrics.json"), folder.file("predictions.npz")
    metrics = read_json(metrics_file) if metrics_file.exists() else None
    has_old_metrics = metrics is not None and metrics.get("format") != FORMAT
    if experiment.get("format") == FORMAT and not has_old_metrics:
        return False
    test_file = name_of_test_file(experiment["settings"])
    with ExitStack() as files:  # which are renamed from the last to the first
        if metrics is not None:
            partial_metrics = files.enter_context(replace_when_complete(metrics_file))
        if experiment.get("format") != FORMAT:
            converted = convert_experiment(experiment, folder.path)
            partial = files.enter_context(replace_when_complete(folder.file("experiment.json")))
            partial.write_text(json_text(converted), encoding="utf-8")
        arrays, digest = None, None
        if arrays_file.exists():
            with np.load(arrays_file, allow_pickle=False) as stored:
                arrays = convert_arrays(dict(stored), test_file)
            partial = files.enter_context(replace_when_complete(arrays_file))
            with partial.open("wb") as stream:
                np.savez(stream, allow_pickle=False, **arrays)
            digest = hashlib.sha256(partial.read_bytes()).hexdigest()
        if metrics is not None:
            n_heldout = experiment.get("n_structures", {}).get("test")
            content = convert_metrics(metrics, test_file, n_heldout=n_heldout, arrays=arrays)
            content["predictions_sha256"] = digest
            validate_metrics(content, metrics_file)
            partial_metrics.write_text(json_text(content), encoding="utf-8")
    folder.read_settings()
    return True


def convert_experiment(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The content of `experiment.json`: settings with levels by id and test sets as a list."""
    old = dict(content["settings"])
    recorded = [LevelRecord.model_validate_json(json.dumps(r)) for r in content.get("levels", [])]
    levels = _all_levels(recorded, path)
    comp6, test_file = old.pop("comp6"), old.pop("test_file", None)
    tests = [] if comp6 is None else [{"name": "comp6", **comp6}]
    if test_file is not None:
        tests.append({"name": name_of_test_file(content["settings"]), **test_file})
    settings = old | {
        "strategy": old["name"].partition("-")[0],  # which format 1 has nowhere else
        "labels": {levels.get(name).id: value for name, value in old["labels"].items()},
        "levels": [LevelRecord.of(level).model_dump(mode="json") for level in levels],
        "tests": tests,
    }
    checked = RunSettings.model_validate_json(json.dumps(settings))
    others = {k: v for k, v in content.items() if k not in ("trained_labels", "levels")}
    return others | {"format": FORMAT, "settings": checked.model_dump(mode="json")}


def _all_levels(recorded: list[LevelRecord], path: Path) -> Levels:
    """The paper's levels and those that a run recorded; another level of a name is refused."""
    own = []
    known = {level.id: LevelRecord.of(level) for level in KNOWN_LEVELS}
    for record in recorded:
        if record.id not in known:
            own.append(record.level)
            continue
        same = known[record.id]
        if record.force_key is None:  # from before files with its forces were known
            same = same.model_copy(update={"force_key": None})
        if differences := record.differences(same):
            raise UserError(f"{path}: level {record.id}: {'; '.join(differences)}.")
    return KNOWN_LEVELS.including(own)


def convert_arrays(arrays: Mapping[str, np.ndarray], test_file: str) -> dict[str, np.ndarray]:
    """The arrays of `predictions.npz` by their new names, with rows and groups of every set.

    A group of the ANI-1x layout has one formula, so structures are grouped by it where format 1
    did not store their groups; of COMP6, all conformers of the file are there.
    """
    renamed = {}
    for name, values in arrays.items():
        part, _, rest = name.partition(".")
        renamed[f"{test_file if part == 'test_file' else part}.{rest}"] = values
    for part in {name.partition(".")[0] for name in renamed}:
        species = renamed[f"{part}.species"]
        renamed.setdefault(f"{part}.rows", np.arange(len(species)))
        if f"{part}.groups" not in renamed:
            _, groups = np.unique(np.sort(species, axis=1), axis=0, return_inverse=True)
            renamed[f"{part}.groups"] = groups.reshape(-1)
    return renamed


def convert_metrics(
    old: Mapping[str, Any],
    test_file: str,
    *,
    n_heldout: int | None = None,
    arrays: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
    """The content of `metrics.json`.

    The numbers of structures of sets without a cut are those of the arrays, or (without) that of
    the held-out structures, and the largest number of energies of a test file.
    """
    if old.get("format") == FORMAT:
        return dict(old)
    new: dict[str, Any] = {"format": FORMAT, "sets": {"heldout": {}}}
    for name, value in leaves({key: value for key, value in old.items() if value is not None}):
        wanted = new_name(name, old, test_file)
        if name.partition(".")[0] in ("training", "inference"):
            wanted = name
        if wanted is None or not _is_of_set(name, old):
            continue
        *way, last = wanted.split(".")
        place = new
        for key in way:
            place = place.setdefault(key, {})
        place[last] = value
    for part, by_head in new["sets"].items():
        entries = [entry for by_reference in by_head.values() for entry in by_reference.values()]
        if arrays is not None:
            n_structures = len(arrays[f"{part}.species"])
        elif part == "heldout" and n_heldout is not None:
            n_structures = n_heldout
        else:
            n_structures = max((e.get(name, 0) for e in entries for name in COUNTS), default=0)
        for by_reference in by_head.values():
            for reference, entry in by_reference.items():
                by_reference[reference] = {"n_structures": n_structures, **entry}
    return {"training": None, "inference": None, **new}


def _is_of_set(name: str, old: Mapping[str, Any]) -> bool:
    """Whether a value belongs to a reference of its set: an own level may be none of the data."""
    part, *rest = name.split(".")
    return part != "heldout" or rest[0] in old["cross"].get(rest[0], {})


def main() -> None:
    """Convert every run of a folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder that holds runs/")
    folder = parser.parse_args().folder
    paths = sorted(path.parent for path in folder.rglob("seed-*/experiment.json"))
    if not paths:
        sys.exit(f"No runs below {folder}.")
    n_converted = 0
    try:
        for path in tqdm(paths, desc="runs", unit="run", delay=2):
            n_converted += convert_run(RunFolder(path))
    except UserError as error:
        sys.exit(str(error))
    sys.stdout.write(f"{n_converted} of {len(paths)} runs converted to format {FORMAT}\n")


if __name__ == "__main__":
    main()
