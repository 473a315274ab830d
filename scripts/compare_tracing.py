"""Two ways to trace a training step, on a CPU: which is right, and what each costs.

    python scripts/compare_tracing.py

`recorded`: energies and forces are recorded by `make_fx`, and torch.compile is given the recorded
operations, whose derivative by parameters it makes itself, as in NequIP. With every `detach` that
is recorded, and without. `at once`: as `interaction=traced` does it. Differences are those from
autograd's own derivative, the largest of all parameters, by its norm. The network is that of the
preset `quick`, at its batch size.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
import typer
from benchmark_step import draw_batch
from benchmark_traced import CASES, prepare
from benchmarking import RESULTS, OutOption, compare, network_pair, quiet, start, timer, write
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from hippynn_mf.model.traced_model import largest_by_norm, with_gradients

Function = Callable[..., Sequence[Tensor]]
CPU = torch.device("cpu")


def without_detach(graph: fx.GraphModule) -> fx.GraphModule:
    """The same operations, of which none cuts a derivative off."""
    for node in list(graph.graph.nodes):
        if node.target == torch.ops.aten.detach.default:
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    graph.recompile()
    return graph


def first_step(
    make: Callable[[], Function], given: Sequence[Tensor]
) -> tuple[float, Callable[[], Any]]:
    """Seconds until a first step of a function is done, and the step."""
    started = time.monotonic()
    function = make()
    parameters = [each for each in given if each.requires_grad]

    def step() -> Any:
        return with_gradients(lambda: tuple(function(*given)), parameters)

    step()
    return time.monotonic() - started, step


def measure(backend: str, repeats: int) -> list[dict[str, Any]]:
    """Differences, times and sizes of both ways."""
    case, n_structures = CASES["quick"]
    with case.setting(), quiet():
        model = network_pair(case, interactions={"fast": "fast"})["fast"]
        batch = {n: a[:n_structures] for n, a in draw_batch(case, model.heads, CPU).items()}
        modules, inputs, _ = prepare(model, batch, CPU, "traced")
        tracer = replace(modules.model._tracer, backend=backend)
        sizes, padded = tracer.padded(inputs)
        given = [*tracer.arguments(), *padded]
        function = tracer.as_function(sizes)
        parameters = [each for each in given if each.requires_grad]
        outputs, expected = with_gradients(lambda: function(*given), parameters)

        def recorded() -> fx.GraphModule:
            return make_fx(function)(*given)

        def differences(step: Callable[[], Any]) -> dict[str, float]:
            found, gradients = step()
            return {
                "outputs": largest_by_norm(found, outputs),
                "gradients": largest_by_norm(gradients, expected),
            }

        ways: Mapping[str, Callable[[], Function]] = {
            "recorded, with detach": lambda: torch.compile(recorded(), backend="aot_eager"),
            "recorded": lambda: torch.compile(
                without_detach(recorded()), backend=backend, dynamic=False
            ),
            "at once": lambda: lambda *_: tracer.function(sizes, padded)(padded),
        }
        steps = {name: first_step(make, given) for name, make in ways.items()}
        rows = {
            name: {"way": name, "first_step_s": seconds, **differences(step)}
            for name, (seconds, step) in steps.items()
        }
        timed = {name: timer(step, CPU) for name, (_, step) in steps.items()}
        timed.pop("recorded, with detach")
        timed["fast"] = timer(
            lambda: with_gradients(
                lambda: modules.model.by_graph(*(each.clone() for each in inputs)),
                [p for p in modules.model.parameters() if p.requires_grad],
            ),
            CPU,
        )
        found = compare(timed, repeats, reference="fast")
    for name in timed:
        rows.setdefault(name, {"way": name})["ms"] = found[f"{name}_ms"]
    return [row | {"load": os.getloadavg()[0]} for row in rows.values()]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """As Markdown."""
    lines = [
        "| | outputs differ by | gradients differ by | first step, s | step, ms |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        if row["way"] == "fast":
            lines.append(f"| `fast` | | | | {row['ms']:.1f} |")
            continue
        costs = f"{row['first_step_s']:.0f} | {row['ms']:.1f}" if "ms" in row else "|"
        lines.append(f"| {row['way']} | {row['outputs']:.0e} | {row['gradients']:.0e} | {costs} |")
    return "\n".join(lines)


def main(repeats: int = 15, backend: str = "inductor", out: OutOption = RESULTS) -> None:
    """Compare; write `tracing.json` and print it as a Markdown table."""
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=folder),
    ):
        rows = measure(backend, repeats)
    write("tracing", rows, CPU, out)
    typer.echo(table(json.loads((out / "tracing.json").read_text())["rows"]))


if __name__ == "__main__":
    start(main)
