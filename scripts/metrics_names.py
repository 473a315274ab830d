"""Where the numbers of a `metrics.json` of format 1 are in format 2, by `metrics_names.json`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

TABLE = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
EMBEDDED_TEST_FILE = "mini-cc-forces.h5"


def new_name(old: str, metrics: Mapping[str, Any], test_file: str) -> str | None:
    """The name in format 2 of a name of format 1, None for one that is left out.

    Names are the keys on the way to a value with dots between. `metrics` has the head that
    predicts on COMP6, `test_file` is the name of the set that was the test file. Raises KeyError
    for a name that is not in the table.
    """
    if any(_match(row["old"], old) is not None for row in TABLE["left_out"]):
        return None
    for row in TABLE["names"]:
        if (found := _match(row["old"], old)) is not None:
            if "{predicted_by}" in row["new"]:
                found["predicted_by"] = metrics["comp6"][found["reference"]]["predicted_by"]
            return str(row["new"].format(test_file=test_file, **found))
    raise KeyError(old)


def leaves(content: Mapping[str, Any], start: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of nested JSON objects with its name."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{start}{key}.")
        else:
            yield f"{start}{key}", value


def name_of_test_file(settings: Mapping[str, Any]) -> str:
    """The name of the set that was the test file of a run, from its settings of either format."""
    if "tests" in settings:
        names = [test["name"] for test in settings["tests"] if test["name"] != "comp6"]
        return str(names[0]) if names else "test_file"
    path = (settings.get("test_file") or {}).get("path", "")
    is_embedded = isinstance(path, str) and path.endswith(EMBEDDED_TEST_FILE)
    return "cc-forces" if is_embedded else "test_file"


def _match(pattern: str, name: str) -> dict[str, str] | None:
    """The parts of a name by the pattern's, None if it is another name."""
    parts = re.split(r"\{(\w+)\}", pattern)
    expression = "".join(
        re.escape(part) if place % 2 == 0 else rf"(?P<{part}>[^.]+)"
        for place, part in enumerate(parts)
    )
    found = re.fullmatch(expression, name)
    return None if found is None else found.groupdict()
