"""Numbers of a model that is extended by 100 energies, `study_extension.py`."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from doc_blocks.common import BENCHMARKS, block, sentences
from hippynn_mf.report.statistics import estimate_mean, format_mean

TITLES = {
    "parents": "the model itself, MF-DZ/EF-TZ/EF",
    "added": "`extend --label CC=E`, trunk frozen",
    "replayed": "`extend --label CC=E --replay`",
    "lighter": "`extend --label CC=E --replay --weight CC.energy=0.1`",
    "alone": "SF-CC/E, from scratch",
    "together": "MF-DZ/EF-TZ/EF-CC/E, from scratch",
}


def _study() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((BENCHMARKS / "extension.json").read_text(encoding="utf-8"))
    return found


@block
def extension_example() -> str:
    """Errors of the ways to a CC head, and their time."""
    study = _study()
    runs = study["runs"]
    titles = list(runs["added"][0]["errors"])
    lines = [
        f"| model | seeds | {' | '.join(titles)} | processor seconds |",
        f"|---|{'---|' * (len(titles) + 2)}",
    ]
    for name, text in TITLES.items():
        cells = [str(len(runs[name]))]
        for title in titles:
            values = [row["errors"][title] for row in runs[name]]
            known = [value for value in values if value is not None]
            cells.append(format_mean(estimate_mean(known)))
        cells.append(f"{np.mean([row['cpu_s'] for row in runs[name]]):.0f}")
        lines.append(f"| {text} | {' | '.join(cells)} |")
    return (
        sentences(f"""
    RMSE on the held-out structures and the test sets, in kcal/mol and kcal/mol/Å, mean over the
    seeds with the 95 % interval (of two their range); {study["n_labels"]} CC energies train and
    validate.
    """)
        + "\n\n"
        + "\n".join(lines)
    )


@block
def extension_changes() -> str:
    """What became of the parent's levels."""
    runs = _study()["runs"]
    texts = []
    ways = {
        "added": "With the frozen trunk",
        "replayed": "With replay",
        "lighter": "With replay and a tenth of the weight on the new energies",
    }
    for name, how in ways.items():
        counts: dict[str, int] = {}
        for row in runs[name]:
            for verdict, n in row["changes"].items():
                counts[verdict] = counts.get(verdict, 0) + n
        total = sum(counts.values())
        parts = ", ".join(f"{n} {verdict}" for verdict, n in sorted(counts.items()))
        texts.append(
            f"{how}, of {total} errors of the parent's levels (sets, levels, quantities and seeds) "
            f"{parts}."
        )
    return sentences(" ".join(texts))
