"""Where the time of a training step with the compiled interaction goes, by kind of kernel.

    python scripts/profile_step.py

A pass is one compiled call, into which no profiler of Python looks. Here the functions that only
call others run as the Python that they were written in, and those that they call are timed; what
calling them from Python costs is in their times, a microsecond each, and small beside them but for
the smallest network. What is left of an ordinary step is the rest: arranging the batch, vectors and
forces, the loss, Adam, and calls. Products are also counted, and compared with the machine's speed
at a large one. Results are in `scripts/benchmarks/profile.json`.
"""

from __future__ import annotations

import importlib
import pkgutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

import numba
import numpy as np
import torch
import typer
from benchmark_step import draw_batch, make_training_step
from benchmarking import RESULTS, Case, OutOption, network_pair, quiet, start, write
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from hippynn_mf.hyperparameters import PRESETS
from hippynn_mf.network import compiled
from hippynn_mf.network.compiled.products import rows_by_columns

CPU = torch.device("cpu")
QUICK = PRESETS["quick"]
PAPER = "paper, "
CASES = {
    PAPER + "DZ/E": (Case(labels="DZ/E"), 64),
    PAPER + "DZ/EF": (Case(labels="DZ/EF"), 64),
    PAPER + "DZ/EF + TZ/EF": (Case(labels="DZ/EF + TZ/EF"), 64),
    "quick, random": (Case(preset="quick", n_features=QUICK.n_features), QUICK.batch_size),
    "quick, embedded": (
        Case(system="embedded", preset="quick", n_features=QUICK.n_features),
        QUICK.batch_size,
    ),
}
# Functions that call others and do little themselves.
OPENED = (
    *("forward_pass", "energies_of_vectors", "slopes_by_vectors", "adjoint_for_forces"),
    *("gradient_pass", "tangent_of_forces", "forward_block", "adjoint_block", "tangent_block"),
)
PRODUCTS = "matrix products"
KINDS = {
    PRODUCTS: (
        "add_rows_by_columns",
        "rows_by_columns",
        "add_product",
        "product",
        "add_outer",
    ),
    "sums over pairs": ("sums_forward", "sums_adjoint", "sums_tangent"),
    "sensitivities": (
        "sensitivities",
        "distance_adjoint",
        "distance_tangent",
        "slope_adjoint",
        "parameter_adjoint",
    ),
    "softplus": ("softplus", "times_slope", "times_slope_and_source", "activated"),
    "rows of features": (
        *("copy", "set_rows", "add_to_rows", "add_sum"),
        *("by_element", "add_of_element", "add_sum_by_element"),
    ),
    "geometry and heads": (
        *("geometry", "geometry_adjoint", "geometry_tangent"),
        *("sum_atoms", "sum_atoms_adjoint", "add_levels"),
    ),
}


@dataclass
class Times:
    """Seconds by kind of kernel since the last `clear`, and multiplications of products."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    multiplications: int = 0

    def clear(self) -> None:
        """Begin again."""
        self.seconds.clear()
        self.multiplications = 0

    def timed(self, kind: str, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose time is added to its kind."""

        def call(*arguments: Any) -> Any:
            began = time.process_time()
            result = function(*arguments)
            self.seconds[kind] += time.process_time() - began
            if kind == PRODUCTS:
                left, _, out = arguments
                inner = left.shape[0] if name == "add_outer" else left.shape[1]
                self.multiplications += out.size * inner
            return result

        return call


@contextmanager
def opened(times: Times) -> Iterator[None]:
    """The passes as Python whose kernels are timed."""
    modules = [
        importlib.import_module(f"{compiled.__name__}.{found.name}")
        for found in pkgutil.iter_modules(compiled.__path__)
    ]
    kind_of = {name: kind for kind, names in KINDS.items() for name in names}
    before = []
    for module in modules:
        for name, function in list(vars(module).items()):
            if not isinstance(function, numba.core.dispatcher.Dispatcher):
                continue
            replaced: Any = None
            if name in OPENED:
                replaced = function.py_func
            elif name in kind_of:
                replaced = times.timed(kind_of[name], name, function)
            if replaced is not None:
                before.append((module, name, function))
                setattr(module, name, replaced)
    try:
        yield
    finally:
        for module, name, function in before:
            setattr(module, name, function)


def measure(case: Case, n_structures: int, repeats: int) -> dict[str, Any]:
    """Milliseconds of a step, and of the kinds of kernels in it: the shortest of several steps."""
    times = Times()
    with case.setting(), quiet():
        network = network_pair(case, interactions={"ours": "compiled"})["ours"]
        batch = draw_batch(case, network.heads, CPU)
        batch = {name: array[:n_structures] for name, array in batch.items()}
        step = make_training_step(network, batch, CPU)[1]
        whole, kinds = [], []
        step()
        with opened(times):
            step()
        for _ in range(repeats):  # in turn, so that other work disturbs both alike
            whole.append(step())
            times.clear()
            with opened(times):
                step()
            kinds.append({kind: 1e3 * times.seconds[kind] for kind in KINDS})
    least, step_ms = min(kinds, key=lambda of_step: sum(of_step.values())), min(whole)
    return {
        "step_ms": step_ms,
        "kinds_ms": least,
        "rest_ms": step_ms - sum(least.values()),
        "multiplications": times.multiplications,
    }


def multiplications_per_ms(size: int = 1500, repeats: int = 9) -> float:
    """The speed of a large product by the kernels' BLAS."""
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(2, size, size)).astype(np.float32)
    out = np.empty_like(left)
    best = float("inf")
    for _ in range(repeats):
        began = time.process_time()
        rows_by_columns(left, right, out)
        best = min(best, time.process_time() - began)
    return size**3 / best / 1e3


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Milliseconds and shares as a Markdown table, a column for each case."""
    steps = [row for row in rows if "case" in row]
    (speed,) = (row["multiplications_per_ms"] for row in rows if "case" not in row)
    lines = ["| ms | " + " | ".join(row["case"] for row in steps) + " |"]
    lines.append("|---" * (1 + len(steps)) + "|")

    def line(name: str, values: Sequence[float]) -> None:
        cells = [
            f"{value:.1f} ({100 * value / row['step_ms']:.0f} %)"
            for value, row in zip(values, steps, strict=True)
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")

    for kind in KINDS:
        line(kind, [row["kinds_ms"][kind] for row in steps])
        if kind == PRODUCTS:
            ideal = [row["multiplications"] / speed for row in steps]
            line("these at the speed of a large one", ideal)
    line("the rest: batch, vectors, loss, Adam", [row["rest_ms"] for row in steps])
    lines.append("| step | " + " | ".join(f"{row['step_ms']:.1f}" for row in steps) + " |")
    return "\n".join(lines)


def main(
    repeats: Annotated[int, typer.Option(min=2, help="Timed steps of each case.")] = 15,
    out: OutOption = RESULTS,
) -> None:
    """Profile the cases; write `profile.json` and print it as a Markdown table."""
    rows: list[dict[str, Any]] = [
        {"case": name, **measure(case, n_structures, repeats)}
        for name, (case, n_structures) in tqdm(CASES.items(), desc="cases")
    ]
    with Case().setting(), threadpool_limits(1, user_api="blas"):
        rows.append({"multiplications_per_ms": multiplications_per_ms()})
    write("profile", rows, CPU, out)
    typer.echo(table(rows))


if __name__ == "__main__":
    start(main)
