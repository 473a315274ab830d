"""What stands in for pieces that are not there yet; the merge replaces every function of it.

- `read_levels`, `levels_of_records`: `hippynn_mf.level_records` will have them.
- `register`: goes with the registry of levels.
- `sources_of_tests`: `RunSettings.tests` takes the test sources as they are.
- `evaluate_on`: `evaluate_run` takes tests by name.
- `known_of`, `levels_to_send`: settings have their levels.
- `in_format_2`: metrics are written so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hippynn_mf.level_records import LevelRecord, declare_levels
from hippynn_mf.levels import KNOWN_LEVELS, Level, Levels, known_levels, register_level


def read_levels(path: Path) -> Levels:
    """The known levels, and those that a JSON file declares."""
    return KNOWN_LEVELS.including(declare_levels(path))


def levels_of_records(content: Any, source: object) -> tuple[Level, ...]:
    """Levels of records as JSON has them."""
    return tuple(LevelRecord.model_validate(record, strict=False).level for record in content)


def register(levels: Iterable[Level]) -> None:
    """Let code that has no `Levels` handed down know these."""
    for level in levels:
        if level not in known_levels():
            register_level(level)


def sources_of_tests(tests: Mapping[str, Any]) -> dict[str, Any]:
    """Values of today's fields of `RunSettings`: one COMP6 set, and one other test set."""
    from hippynn_mf.errors import UserError
    from hippynn_mf.runs.settings import Comp6Source, DataSource

    comp6 = [test for test in tests.values() if test["keys"] is not None]
    others = {name: test for name, test in tests.items() if test["keys"] is None}
    if len(others) > 1:
        others.pop("cc-forces", None)
    if len(comp6) > 1 or len(others) > 1:
        raise UserError("This version evaluates on one COMP6 set and one other test.")
    values: dict[str, Any] = {"comp6": None, "test_file": None}
    for test in comp6:
        values["comp6"] = Comp6Source(**test)
    for test in others.values():
        values["test_file"] = DataSource(path=test["path"], sha256=test["sha256"])
    return values


def evaluate_on(folder: Any, data: Any, tests: Mapping[str, Any], device: str) -> None:
    """Evaluate a run again on data and tests that may have moved."""
    from hippynn_mf.runs.train import evaluate_run

    paths = {name: test.path for name, test in tests.items()}
    comp6 = paths.pop("comp6", None)
    test_file = next(iter(paths.values()), None)
    evaluate_run(folder, data=data, comp6=comp6, test_file=test_file, device=device)


def known_of(settings: Any) -> Levels:
    """`settings.known`."""
    return Levels(known_levels())


def levels_to_send() -> Sequence[Level]:
    """The levels that a worker has to know."""
    return known_levels()


def in_format_2(metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    """Metrics as format 2 has them."""
    if metrics.get("format") == 2:
        return metrics
    sets: dict[str, Any] = {"heldout": metrics["cross"] or {}}
    for name, entry in metrics["heldout"].items():
        sets["heldout"].setdefault(name, {})[name] = entry
    for reference, entry in (metrics.get("comp6") or {}).items():
        of_head = sets.setdefault("comp6", {}).setdefault(entry["predicted_by"], {})
        of_head[reference] = entry
    if metrics.get("test_file"):
        sets["test_file"] = metrics["test_file"]
    return {"format": 2, "sets": sets, "training": metrics.get("training"), "inference": None}
