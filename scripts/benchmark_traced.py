"""Training steps of `interaction=traced` beside those of `fast`, in turn in one process.

    python scripts/benchmark_traced.py
    python scripts/benchmark_traced.py --device cuda

The preset `quick` at its batch size, and the paper's network; on the CPU processor time of one
thread, on a GPU the clock. `compile_s` is the first step, by the clock: tracing, compiling and the
comparison with the graph, which raises an error unless both agree. `load` is the machine's average
load at that time.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any
from unittest import mock

import numpy as np
import torch
import typer
from benchmark_step import draw_batch
from benchmarking import (
    RESULTS,
    Case,
    DeviceOption,
    Network,
    OutOption,
    compare,
    network_pair,
    quiet,
    start,
    synchronize,
    timer,
    write,
)
from hippynn.experiment import assemble_for_training
from hippynn.experiment.assembly import TrainingModules
from hippynn.experiment.step_functions import get_step_function
from tqdm import tqdm

from hippynn_mf.data.database import TrainingDatabase
from hippynn_mf.hyperparameters import PRESETS
from hippynn_mf.keys import PAIRS, SPECIES
from hippynn_mf.model.losses import LossWeights, build_loss
from hippynn_mf.model.traced_model import trace
from hippynn_mf.model.whole_loss import WholeLoss
from hippynn_mf.network.device import choose_device
from hippynn_mf.network.stored_pairs import precompute_pairs

NAMES = ("fast", "traced")
QUICK = PRESETS["quick"]
CASES = {
    "quick": (Case(preset="quick", n_features=QUICK.n_features), QUICK.batch_size),
    "paper": (Case(), 64),
    "paper, 14 atoms": (Case(system="ani1x"), 64),
}

Tensors = list[torch.Tensor]


def prepare(
    model: Network, batch: Mapping[str, torch.Tensor], device: torch.device, name: str
) -> tuple[TrainingModules, Tensors, Tensors]:
    """Modules of a training with stored pairs and the loss in one pass; inputs and targets."""
    loss = build_loss(model.heads)
    modules, names = assemble_for_training(loss, {"loss": loss})
    arrays = {key: array.numpy(force=True) for key, array in batch.items()}
    database = TrainingDatabase(dict.fromkeys(("train", "valid", "test"), arrays), **names)
    weights = dict.fromkeys(model.heads, LossWeights())
    modules = modules._replace(loss=WholeLoss(modules.loss, model.heads, weights))
    modules = precompute_pairs(modules, database)
    n_structures, width = batch[SPECIES].shape
    if name == "traced":
        modules = trace(modules, model.heads, database, n_structures)
    modules.model.to(device).train()
    modules.loss.to(device)
    pairs = database.pairs["train"].batch_pairs(np.arange(n_structures), width).to(device)
    inputs = [(dict(batch) | {PAIRS: pairs})[name] for name in database.inputs]
    return modules, inputs, [batch[name] for name in names["targets"]]


def step_of(modules: TrainingModules, inputs: Tensors, targets: Tensors) -> Callable[[], Any]:
    """A function that takes a training step of the same weights."""
    parameters = [p for p in modules.model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=0.0, fused=True)
    step = get_step_function(optimizer)
    return lambda: step(
        optimizer, modules.model, modules.loss, [each.clone() for each in inputs], targets
    )


def measure(case: Case, n_structures: int, device: torch.device, repeats: int) -> dict[str, Any]:
    """Times of a case; UserError where it cannot be compiled, or gives other numbers."""
    with case.setting(), quiet():
        model = network_pair(case, interactions={"fast": "fast"})["fast"]
        batch = draw_batch(case, model.heads, device)
        batch = {name: array[:n_structures] for name, array in batch.items()}
        steps = {name: step_of(*prepare(model, batch, device, name)) for name in NAMES}
        started = time.monotonic()
        steps["traced"]()
        synchronize(device)
        seconds = time.monotonic() - started
        timed = {name: timer(step, device) for name, step in steps.items()}
        return {"compile_s": seconds} | compare(timed, repeats, reference="fast")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Steps as a Markdown table."""
    lines = ["| | fast, ms | traced, ms | times faster | first step, s |", "|---|---|---|---|---|"]
    lines += [
        f"| {row['case']}, {row['n_structures']} structures | {row['fast_ms']:.1f} "
        f"| {row['traced_ms']:.1f} | {row['traced_speedup']:.2f} ± "
        f"{row['traced_speedup_error']:.2f} | {row['compile_s']:.0f} |"
        for row in rows
    ]
    return "\n".join(lines)


def main(
    device: DeviceOption = "cpu",
    repeats: Annotated[int, typer.Option(min=2, help="Timed steps of each.")] = 15,
    only: Annotated[str, typer.Option(help=f"One of: {'; '.join(CASES)}.")] = "",
    out: OutOption = RESULTS,
) -> None:
    """Time training steps; write `traced.json` and print it as a Markdown table."""
    target = choose_device(device)
    rows = []
    # Nothing that has been compiled before.
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=folder),
    ):
        for name, (case, n_structures) in tqdm(CASES.items(), desc="cases"):
            if only in ("", name):
                facts = {"case": name, "n_structures": n_structures, "load": os.getloadavg()[0]}
                rows.append(facts | measure(case, n_structures, target, repeats))
    write("traced", rows, target, out)
    typer.echo(table(rows))


if __name__ == "__main__":
    start(main)
