"""Operations and bytes of a training step, beside what GPUs are sold with: counted, not timed.

    python scripts/count_step.py

A step of the paper's network on 256 structures of 14 atoms on average, of `interaction=fast`
(every operation by itself) and of the padded batches of `interaction=traced`. Operations of matrix
products are by the formulas of `torch.utils.flop_counter`; every other operation counts one for
each number that it reads or writes, whichever are more. Bytes are those of the arguments and
results of every operation that is not a view, as if each had to come from memory; those of the
products alone are what is left if a compiler puts everything else into them. By the vendor's peak
and bandwidth, a step takes at least the longer of the two times; a cache may serve some bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import typer
from benchmark_step import draw_batch
from benchmark_traced import NAMES, prepare, step_of
from benchmarking import RESULTS, Case, OutOption, network_pair, quiet, start
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from hippynn_mf.files import replace_when_complete
from hippynn_mf.keys import SPECIES
from hippynn_mf.model import tracing

N_STRUCTURES = 256


@dataclass(frozen=True)
class Gpu:
    """Published limits: FP32 outside tensor cores in 10¹² operations/s, memory in 10⁹ bytes/s."""

    name: str
    fp32_tera: float
    giga_bytes: float
    source: str


GPUS = (
    Gpu("H200 SXM", 67.0, 4800.0, "https://www.nvidia.com/en-us/data-center/h200/"),
    Gpu(
        "GeForce RTX 4090",
        82.6,
        1008.0,
        "https://images.nvidia.com/aem-dam/Solutions/geforce/ada/nvidia-ada-gpu-architecture.pdf",
    ),
)


class Traffic(TorchDispatchMode):
    """Counts operations that are not views, and the bytes of their arguments and results."""

    def __init__(self) -> None:
        super().__init__()
        self.n_operations = self.product_operations = self.other_operations = 0
        self.bytes = self.product_bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> torch.Tensor:
        """Count and compute."""
        result = func(*args, **(kwargs or {}))
        if func.is_view or func.overloadpacket in NO_WORK:
            return result
        read, written = list(_tensors([args, kwargs])), list(_tensors(result))
        known = {id(each) for each in read}
        distinct = read + [each for each in written if id(each) not in known]
        n_bytes = sum(each.nbytes for each in distinct)
        self.n_operations += 1
        self.bytes += n_bytes
        # torch's formulas; its own counter follows modules, which it cannot where forces are made.
        if (formula := flop_registry.get(func.overloadpacket)) is not None:
            self.product_bytes += n_bytes
            self.product_operations += formula(*args, **(kwargs or {}), out_val=result)
        else:
            self.other_operations += max((each.numel() for each in distinct), default=0)
        return result


NO_WORK = {torch.ops.aten.empty, torch.ops.aten.empty_like, torch.ops.aten.detach}


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    return (each for each in tree_leaves(values) if isinstance(each, torch.Tensor))


def count(function: Callable[[], Any]) -> dict[str, int]:
    """What a call does."""
    with Traffic() as traffic:
        function()
    return {
        "product_operations": traffic.product_operations,
        "other_operations": traffic.other_operations,
        "n_operations": traffic.n_operations,
        "bytes": traffic.bytes,
        "product_bytes": traffic.product_bytes,
    }


def count_step(case: Case, n_structures: int) -> list[dict[str, Any]]:
    """Counts of a step of every interaction."""
    # What is traced, run as it is: operations are seen one by one.
    tracing.BACKEND = "eager"
    with case.setting(), quiet():
        model = network_pair(case, interactions={"fast": "fast"})["fast"]
        batch = draw_batch(case, model.heads, torch.device("cpu"))
        batch = {
            name: torch.cat([array] * (1 + n_structures // len(array)))[:n_structures]
            for name, array in batch.items()
        }
        rows = []
        for name in NAMES:
            modules, inputs, targets = prepare(model, batch, torch.device("cpu"), name)
            step = step_of(modules, inputs, targets)
            step()  # the first one compares
            n_pairs = next(len(each) for each in inputs if each.shape[1:] == (2,))
            facts = {
                "interaction": name,
                "n_structures": n_structures,
                "n_atoms": int((batch[SPECIES] > 0).sum()),
                "n_pairs": n_pairs,
            }
            rows.append(facts | count(step))
        return rows


def shortest(counts: Mapping[str, Any], gpu: Gpu, *, is_fused: bool) -> tuple[float, str]:
    """The ms that a step takes at least, and what limits it."""
    operations = counts["product_operations"] + counts["other_operations"]
    n_bytes = counts["product_bytes"] if is_fused else counts["bytes"]
    by_limit = {
        "operations": operations / gpu.fp32_tera / 1e9,
        "memory": n_bytes / gpu.giga_bytes / 1e6,
    }
    limit = max(by_limit, key=lambda name: by_limit[name])
    return by_limit[limit], limit


def table(results: Mapping[str, Any]) -> str:
    """Counts and shortest times as Markdown."""
    rows = {row["interaction"]: row for row in results["rows"]}
    lines = ["| one step | fast | traced (padded) |", "|---|---|---|"]

    def line(what: str, text: Callable[[Mapping[str, Any]], str]) -> None:
        lines.append(f"| {what} | {text(rows['fast'])} | {text(rows['traced'])} |")

    line("operations of products, 10⁹", lambda r: f"{r['product_operations'] / 1e9:.1f}")
    line("all others, 10⁹", lambda r: f"{r['other_operations'] / 1e9:.1f}")
    line("calls of operations", lambda r: f"{r['n_operations']:,}")
    line("bytes, every operation by itself, 10⁹", lambda r: f"{r['bytes'] / 1e9:.1f}")
    line("bytes of the products alone, 10⁹", lambda r: f"{r['product_bytes'] / 1e9:.1f}")
    for gpu in (Gpu(**each) for each in results["gpus"]):
        for is_fused, what in ((False, "every operation by itself"), (True, "products alone")):

            def at_least(row: Mapping[str, Any], gpu: Gpu = gpu, fused: bool = is_fused) -> str:
                ms, limit = shortest(row, gpu, is_fused=fused)
                return f"{ms:.1f} ms, {limit}"

            line(f"[{gpu.name}]({gpu.source}), {what}: at least", at_least)
    return "\n".join(lines)


def main(out: OutOption = RESULTS) -> None:
    """Count; write `count.json` and print it as a Markdown table."""
    rows = count_step(Case(system="ani1x"), N_STRUCTURES)
    results = {"gpus": [vars(gpu) for gpu in GPUS], "rows": rows}
    out.mkdir(parents=True, exist_ok=True)
    with replace_when_complete(out / "count.json") as path:
        path.write_text(json.dumps(results, indent=1) + "\n")
    typer.echo(table(results))


if __name__ == "__main__":
    start(main)
