"""Prove that every number of runs of format 1 is found in runs of format 2, in every digit.

    python scripts/compare_editions.py OLD NEW

OLD and NEW hold `runs/<slug>/seed-<k>/` of the same commands, before and after. Where each number
went is in `metrics_names.json`; times are left out. What is missing or differs is listed, and the
exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metrics_names import leaves, name_of_test_file, new_name


def compare_metrics(
    old: Mapping[str, Any], new: Mapping[str, Any], test_file: str
) -> tuple[int, list[str]]:
    """How many values of the old metrics are the same in the new ones, and what is not."""
    new_values, problems = dict(leaves(new)), []
    n_equal = 0
    for name, value in leaves(old):
        if value is None and name in ("comp6", "test_file", "training", "inference"):
            continue  # no such set, or not measured
        try:
            wanted = new_name(name, old, test_file)
        except KeyError:
            problems.append(f"{name} = {value!r}: not in the table of names")
            continue
        if wanted is None:
            continue
        if wanted not in new_values:
            problems.append(f"{name} = {value!r}: no {wanted}")
        elif type(new_values[wanted]) is not type(value) or new_values[wanted] != value:
            problems.append(f"{name} = {value!r}: {wanted} = {new_values[wanted]!r}")
        else:
            n_equal += 1
    return n_equal, problems


def compare_folders(old: Path, new: Path) -> tuple[int, list[str]]:
    """The same for all runs of a folder; a run that one of both lacks is a problem."""
    runs = {path.parent.relative_to(old) for path in old.glob("runs/*/seed-*/metrics.json")}
    others = {path.parent.relative_to(new) for path in new.glob("runs/*/seed-*/metrics.json")}
    problems = [f"{run}: not in {new}" for run in sorted(runs - others)]
    problems += [f"{run}: not in {old}" for run in sorted(others - runs)]
    if not runs:
        problems.append(f"no runs in {old}")
    total = 0
    for run in sorted(runs & others):
        before, after = (_read(folder / run / "metrics.json") for folder in (old, new))
        test_file = name_of_test_file(_read(new / run / "experiment.json")["settings"])
        n_equal, run_problems = compare_metrics(before, after, test_file)
        total += n_equal
        problems += [f"{run}: {problem}" for problem in run_problems]
    return total, problems


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def main() -> None:
    """Compare two folders of runs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("old", type=Path, help="folder with runs/ of format 1")
    parser.add_argument("new", type=Path, help="folder with runs/ of format 2")
    arguments = parser.parse_args()
    n_equal, problems = compare_folders(arguments.old, arguments.new)
    sys.stdout.write("".join(f"{problem}\n" for problem in problems))
    sys.stdout.write(f"{n_equal} values are equal, {len(problems)} are not\n")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
