"""Training steps of `interaction=compiled` beside those of `fast`, in turn in one process.

    python scripts/benchmark_compiled.py

The preset `quick` at its batch size, and the paper's network. Times are of the processor, not of
the clock, on one thread; `load` is the machine's average load before and after. Nothing is written
unless the losses agree.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

import torch
import typer
from benchmark_step import ROUNDING, draw_batch
from benchmarking import RESULTS, Case, Network, OutOption, compare, network_pair, quiet, start
from hippynn.experiment import assemble_for_training
from hippynn.experiment.step_functions import get_step_function
from tqdm import tqdm

from hippynn_mf.data.database import TrainingDatabase
from hippynn_mf.files import write_json
from hippynn_mf.hyperparameters import PRESETS
from hippynn_mf.keys import PAIRS, SPECIES
from hippynn_mf.model.losses import LossWeights, build_loss
from hippynn_mf.model.whole_loss import WholeLoss
from hippynn_mf.model.whole_model import compute_at_once
from hippynn_mf.network.stored_pairs import precompute_pairs
from hippynn_mf.training.flat_adam import FlatAdam

Timer = Callable[[], float]
NAMES = ("fast", "compiled")
QUICK = PRESETS["quick"]
CASES = {
    "quick": (Case(preset="quick", n_features=QUICK.n_features), QUICK.batch_size),
    "paper": (Case(), 64),
    "paper, 14 atoms": (Case(system="ani1x"), 64),
    "paper, two forces": (Case(labels="DZ/EF + TZ/EF"), 64),
    "paper, energies": (Case(labels="DZ/E"), 64),
}


def timed_step(model: Network, batch: dict[str, torch.Tensor]) -> tuple[float, Timer]:
    """The loss of a batch, and a function that takes a step and returns its processor ms.

    A step is that of a training on the CPU: stored pairs, loss in one pass, flat Adam.
    """
    loss = build_loss(model.heads)
    modules, names = assemble_for_training(loss, {"loss": loss})
    arrays = {name: array.numpy() for name, array in batch.items()}
    database = TrainingDatabase(dict.fromkeys(("train", "valid", "test"), arrays), **names)
    weights = dict.fromkeys(model.heads, LossWeights())
    modules = modules._replace(loss=WholeLoss(modules.loss, model.heads, weights))
    modules = compute_at_once(precompute_pairs(modules, database), model.heads)
    modules.model.train()
    parameters = [p for p in modules.model.parameters() if p.requires_grad]
    optimizer = FlatAdam(parameters, lr=0.0)
    step = get_step_function(optimizer)
    n_structures, width = batch[SPECIES].shape
    pairs = database.pairs["train"].batch_pairs(torch.arange(n_structures), width)
    inputs = [(batch | {PAIRS: pairs})[name] for name in database.inputs]
    targets = [batch[name] for name in names["targets"]]

    def timed() -> float:
        fresh = [each.clone() for each in inputs]
        start_ns = time.process_time_ns()
        step(optimizer, modules.model, modules.loss, fresh, targets)
        return (time.process_time_ns() - start_ns) / 1e6

    fresh = [each.clone() for each in inputs]
    return modules.loss(*modules.model(*fresh), *targets)[0].item(), timed


def measure(case: Case, n_structures: int, repeats: int) -> dict[str, Any]:
    """Times of a case; RuntimeError if the losses differ."""
    with case.setting(), quiet():
        models = network_pair(case, names=NAMES)
        batch = draw_batch(case, models["fast"].heads, torch.device("cpu"))
        batch = {name: array[:n_structures] for name, array in batch.items()}
        steps = {name: timed_step(m, batch) for name, m in models.items()}
        losses = [loss for loss, _ in steps.values()]
        if not math.isclose(*losses, rel_tol=ROUNDING):
            raise RuntimeError(f"{case}: losses differ: {losses}")
        timed = {name: step for name, (_, step) in steps.items()}
        return compare(timed, repeats, reference="fast")


def main(
    repeats: Annotated[int, typer.Option(min=2, help="Timed steps of each model.")] = 21,
    out: OutOption = RESULTS,
) -> None:
    """Time training steps; write `compiled.json` and print it as a Markdown table."""
    rows: dict[str, Any] = {}
    load = [os.getloadavg()[0]]
    typer.echo("| | fast, ms | compiled, ms | times faster |\n|---|---|---|---|")
    for name, (case, n_structures) in tqdm(CASES.items(), desc="cases"):
        row = measure(replace(case), n_structures, repeats)
        rows[name] = row
        typer.echo(
            f"| {name} | {row['fast_ms']:.1f} | {row['compiled_ms']:.1f} "
            f"| {row['compiled_speedup']:.2f} ± {row['compiled_speedup_error']:.2f} |"
        )
    out.mkdir(parents=True, exist_ok=True)
    load.append(os.getloadavg()[0])
    write_json(out / "compiled.json", {"cases": rows, "load": load, "n_cores": os.cpu_count()})


if __name__ == "__main__":
    start(main)
