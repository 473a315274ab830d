"""Count what becomes of wrong inputs: how many are refused clearly, how many accepted rightly.

    python scripts/fuzz_counts.py            # writes scripts/benchmarks/fuzz.json, minutes

The inputs are those of `tests/fuzz/`, of the seeds 0 and up: small valid files made wrong in their
bytes, words, values and objects. One that is accepted is read, and what was read is looked at; an
input that does anything else ends the script with its kind and seed.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

TOP = Path(__file__).parent.parent
RESULT = TOP / "scripts" / "benchmarks" / "fuzz.json"


def table(rows: list[dict[str, object]]) -> str:
    """The counts as Markdown."""
    lines = ["| input | tried | refused clearly | accepted rightly |", "|---|---|---|---|"]
    keys = ("tried", "refused", "accepted")
    lines += [f"| {r['kind']} | {' | '.join(f'{r[k]:,}' for k in keys)} |" for r in rows]
    total = [sum(int(str(r[k])) for r in rows) for k in keys]
    return "\n".join([*lines, f"| all | {' | '.join(f'{n:,}' for n in total)} |"])


def main(
    n: Annotated[int, typer.Option(help="Inputs of every kind.", min=1)] = 100,
    out: Annotated[Path, typer.Option(help="File to write.")] = RESULT,
    first: Annotated[int, typer.Option(help="The first seed.", min=0)] = 0,
) -> None:
    """Try inputs of every kind and write the counts."""
    sys.path[:0] = [str(TOP / "tests"), str(TOP / "tests" / "fuzz")]
    from kinds import KINDS

    warnings.simplefilter("ignore")
    logging.getLogger("hippynn_mf").setLevel(logging.ERROR)
    rows: list[dict[str, object]] = []
    for name, kind in KINDS.items():
        counts, slowest = {"refused": 0, "accepted": 0}, 0.0
        for seed in range(first, first + n):
            with TemporaryDirectory() as folder:
                start = time.perf_counter()
                try:
                    counts[kind.outcome(Path(folder), Random(seed))] += 1
                except Exception:
                    typer.echo(f"{name}, seed {seed}:", err=True)
                    raise
                slowest = max(slowest, time.perf_counter() - start)
        rows.append({"kind": name, "tried": n, **counts})
        typer.echo(f"{name}: {counts}, slowest {slowest:.2f} s")
    out.write_text(json.dumps({"rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
