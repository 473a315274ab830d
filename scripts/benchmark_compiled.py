"""Training steps of `interaction=compiled` beside those of `fast` and of before, in turn.

    python scripts/benchmark_compiled.py

`base` is a step of before both, at the commit 023c299: `fast`, losses node by node, torch's Adam.
The preset `quick` at its batch size, and the paper's network. Times are of the processor, not of
the clock, on one thread; `load` is the machine's average load at that time. Products are timed
with torch and with the BLAS that the kernels use. Nothing is written unless the losses agree.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import torch
import typer
from benchmark_step import ROUNDING, draw_batch, make_training_step
from benchmarking import (
    RESULTS,
    Case,
    OutOption,
    compare,
    network_pair,
    quiet,
    start,
    write,
)
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from hippynn_mf.hyperparameters import PRESETS
from hippynn_mf.network.compiled.products import rows_by_columns

CPU = torch.device("cpu")
Timer = Callable[[], float]
NAMES = ("fast", "compiled")
QUICK = PRESETS["quick"]
CASES = {
    "quick": (Case(preset="quick", n_features=QUICK.n_features), QUICK.batch_size),
    "quick, embedded data": (
        Case(system="embedded", preset="quick", n_features=QUICK.n_features),
        QUICK.batch_size,
    ),
    "paper": (Case(), 64),
    "paper, 14 atoms": (Case(system="ani1x"), 64),
    "paper, two forces": (Case(labels="DZ/EF + TZ/EF"), 64),
    "paper, energies": (Case(labels="DZ/E"), 64),
}
# n, inner and width of an atom layer's product and of one with all sensitivities, for both networks
PRODUCTS = ((288, 48, 48), (288, 48, 768), (576, 120, 120), (576, 120, 2400))
PRODUCTS_AT_ONCE = 10**7  # multiplications that are timed together


def measure(case: Case, n_structures: int, repeats: int) -> dict[str, Any]:
    """Times of a case; RuntimeError if the losses differ."""
    with case.setting(), quiet():
        models = network_pair(case, interactions=dict(zip(NAMES, NAMES, strict=True)))
        batch = draw_batch(case, models["fast"].heads, CPU)
        batch = {name: array[:n_structures] for name, array in batch.items()}
        steps = {name: make_training_step(model, batch, CPU) for name, model in models.items()}
        steps["base"] = make_training_step(models["fast"], batch, CPU, by_nodes=True)
        losses = [loss for loss, _ in steps.values()]
        if not all(math.isclose(loss, losses[0], rel_tol=ROUNDING) for loss in losses):
            raise RuntimeError(f"{case}: losses differ: {losses}")
        timed = {name: step for name, (_, step) in steps.items()}
        return compare(timed, repeats, reference="base")


def measure_product(n: int, inner: int, width: int, repeats: int) -> dict[str, Any]:
    """Processor time of x Wᵀ, for x (n, inner) and W (width, inner), by torch and in kernels."""
    x, weight = torch.rand(n, inner), torch.rand(width, inner)
    out = torch.empty(n, width)
    arrays = x.numpy(), weight.numpy(), out.numpy()
    at_once = max(1, PRODUCTS_AT_ONCE // (n * inner * width))

    def timed(function: Callable[[], Any]) -> Timer:
        def call() -> float:
            start_ns = time.process_time_ns()
            for _ in range(at_once):
                function()
            return (time.process_time_ns() - start_ns) / 1e6 / at_once

        return call

    functions = {
        "torch": timed(lambda: torch.mm(x, weight.t(), out=out)),
        "scipy": timed(lambda: rows_by_columns(*arrays)),
    }
    return compare(functions, repeats, reference="torch")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Steps as a Markdown table."""
    lines = ["| | base, ms | fast, ms | compiled, ms | times faster than base |"]
    lines.append("|---|---|---|---|---|")
    for row in rows:
        if row["kind"] == "step":
            speedup, error = row["compiled_speedup"], row["compiled_speedup_error"]
            times = " | ".join(f"{row[f'{name}_ms']:.1f}" for name in ("base", *NAMES))
            lines.append(f"| {row['case']} | {times} | {speedup:.2f} ± {error:.2f} |")
    return "\n".join(lines)


def table_of_products(rows: Sequence[Mapping[str, Any]]) -> str:
    """Products as a Markdown table."""
    lines = ["| x Wᵀ | torch, µs | scipy's BLAS, µs |", "|---|---|---|"]
    lines += [
        f"| {row['case']} | {1e3 * row['torch_ms']:.1f} | {1e3 * row['scipy_ms']:.1f} |"
        for row in rows
        if row["kind"] == "product"
    ]
    return "\n".join(lines)


def main(
    repeats: Annotated[int, typer.Option(min=2, help="Timed steps of each model.")] = 21,
    out: OutOption = RESULTS,
) -> None:
    """Time training steps and products; write `compiled.json` and print Markdown tables."""
    rows: list[dict[str, Any]] = []
    for name, (case, n_structures) in tqdm(CASES.items(), desc="cases"):
        facts = {"kind": "step", "case": name, "load": os.getloadavg()[0]}
        rows.append(facts | measure(replace(case), n_structures, repeats))
    with Case().setting(), threadpool_limits(1, user_api="blas"):
        for sizes in PRODUCTS:
            case_name = " × ".join(map(str, sizes))
            facts = {"kind": "product", "case": case_name, "load": os.getloadavg()[0]}
            rows.append(facts | measure_product(*sizes, repeats))
    write("compiled", rows, CPU, out)
    typer.echo(f"{table(rows)}\n\n{table_of_products(rows)}")


if __name__ == "__main__":
    start(main)
