"""What the speed is to be, and what it is."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from doc_blocks.common import BENCHMARKS, block, rows, sentences

BASE = "023c299"


def measured() -> Iterator[tuple[str, str, float, bool]]:
    """What is compared, the aim in words, the figure, and whether it is reached."""

    def at_least(what: str, aim: float, value: float) -> tuple[str, str, float, bool]:
        return what, f"at least {aim:g} times", value, value >= aim

    def at_most(what: str, aim: float, value: float) -> tuple[str, str, float, bool]:
        return what, f"at most {aim:g} of it", value, value <= aim

    steps = [row for row in rows("step") if row["factor"] in ("base", "labels", "system")]
    slowest = min(row["ours_speedup"] for row in steps)
    yield at_least(
        "training step of the paper's network, the slowest set of labels, beside hippynn",
        10,
        slowest,
    )
    cases = {row.get("case"): row for row in rows("compiled")}
    for case, words in (
        ("quick, embedded data", "of the embedded data"),
        ("quick", "of random molecules of 9 atoms"),
    ):
        what = f"training step of `quick`, batches {words}, beside {BASE}"
        yield at_least(what, 4, cases[case]["compiled_speedup"])
    base, now = rows("run")
    yield at_most(
        f"CPU time of a whole `quick` run of {base['experiment']}, beside {BASE}",
        0.3,
        now["cpu_s"] / base["cpu_s"],
    )
    by_labels = {row["labels"]: row["ours_ms"] for row in steps if row["factor"] != "system"}
    yield at_most(
        "training step on forces of two levels, beside one",
        1.4,
        by_labels["DZ/EF + TZ/EF"] / by_labels["DZ/EF"],
    )
    dynamics = {row["system"]: row for row in rows("inference") if row["factor"] != "threads"}
    for system, aim, words in (("molecule", 4, "a molecule of 9"), ("water192", 8, "water, 192")):
        what = f"step of dynamics, {words} atoms, beside hippynn"
        yield at_least(what, aim, dynamics[system]["potential_speedup"])
    pair = json.loads((BENCHMARKS / "gfn_pair.json").read_text(encoding="utf-8"))["rows"]
    errors = [row["force_rmse"] for row in pair if "seed" in row]
    what = (
        "GFN2-xTB forces that were never trained, after 300 processor seconds, "
        f"mean of {len(errors)} seeds"
    )
    yield what, "at most 5 kcal/mol/Å", statistics.mean(errors), statistics.mean(errors) <= 5
    memory: list[Mapping[str, Any]] = [r for r in rows("memory") if r["factor"] == "training"]
    yield at_most(
        "memory of a training step, beside hippynn",
        0.25,
        max(row["ours_mib"] / row["stock_mib"] for row in memory),
    )


@block
def speed_targets() -> str:
    """Aims and figures."""
    found = list(measured())
    lines = ["| | aim | measured | |", "|---|---|---|---|"]
    lines += [
        f"| {what} | {aim} | {value:.2f} | {'reached' if reached else 'not reached'} |"
        for what, aim, value, reached in found
    ]
    n_reached = sum(reached for *_, reached in found)
    text = sentences(f"""
    {n_reached} of {len(found)} are reached on the machine of the files in `scripts/benchmarks`.
    """)
    return "\n".join(lines) + f"\n\n{text}"
