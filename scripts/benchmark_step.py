"""Time of a training step: stock hippynn, and hippynn_mf on the same weights and batch.

    python scripts/benchmark_step.py
    python scripts/benchmark_step.py --device cuda --repeats 200
    python scripts/benchmark_step.py --full

`stock` is hippynn's network, nodes and losses; `nodes` are our heads and masked losses over
hippynn's network; `ours` is a step of our training: the interaction that `auto` comes to, stored
pairs, the loss in one pass, and on the CPU Adam on one vector. They take steps in turn in one
process. One factor is varied at a time around the paper's network; `--full` runs every combination.
Nothing is written unless the losses agree. The last column is the time of all matrix products at
the speed of a large one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Annotated, Any

import numpy as np
import torch
import typer
from benchmarking import (
    INTERACTIONS,
    MOLECULES,
    RESULTS,
    Case,
    DeviceOption,
    FullOption,
    Network,
    OutOption,
    compare,
    label_set,
    measure_cases,
    network_pair,
    quiet,
    random_molecules,
    start,
    timer,
    water_box,
)
from hippynn.experiment import assemble_for_training
from hippynn.experiment.step_functions import get_step_function
from hippynn.graphs.nodes.loss import MAELoss, Mean, MSELoss
from torch.utils._python_dispatch import TorchDispatchMode

from hippynn_mf.data.database import TrainingDatabase, load_database
from hippynn_mf.data.embedded import MINI_ANI1X
from hippynn_mf.keys import PAIRS, POSITIONS, SPECIES
from hippynn_mf.model.heads import Heads
from hippynn_mf.model.losses import LossWeights, build_loss
from hippynn_mf.model.whole_loss import WholeLoss
from hippynn_mf.model.whole_model import WholeModel, compute_at_once
from hippynn_mf.network.stored_pairs import precompute_pairs
from hippynn_mf.training.loop import flat_adam

FACTORS = {
    "labels": [
        "DZ/E",
        "DZ/EF",
        "DZ/EF + CC/E",
        "DZ/EF + TZ/EF",
        "DZ/EF + TZ/EF + CC/E",
    ],
    "n_features": [20, 32, 64, 120],
    "tensor_order": [0, 1, 2],
    "system": ["small", "ani1x", "droplet"],
    "threads": [1, 2],
    "kernels": ["numba", "pytorch"],
}
N_EMBEDDED = 64  # structures of the embedded data, whose labels are drawn like others'
N_DROPLET = 192  # atoms of the droplet of water, one structure
ROUNDING = 1e-5  # relative difference of two float32 losses

Batch = dict[str, torch.Tensor]


def draw_batch(case: Case, heads: Heads, device: torch.device) -> Batch:
    """The structures of a case with random labels, by `db_name`."""
    if case.system == "embedded":
        arrays = load_database(MINI_ANI1X, label_set(case.labels)).splits["train"]
        chosen = np.random.default_rng(0).choice(len(arrays[SPECIES]), N_EMBEDDED, replace=False)
        species = arrays[SPECIES].numpy()[chosen].astype(np.int64)
        positions = arrays[POSITIONS].numpy()[chosen]
    elif case.system == "droplet":
        box = water_box(N_DROPLET)
        species, positions = box.numbers[None].astype(np.int64), box.positions[None]
    else:
        n, sizes = MOLECULES[case.system]
        species, positions = random_molecules(n, sizes, seed=0)
    rng = np.random.default_rng(1)
    batch = {"species": torch.as_tensor(species), "positions": torch.as_tensor(positions).float()}
    for head in heads.values():
        batch[head.level.energy_name] = torch.as_tensor(rng.normal(size=(len(species), 1))).float()
        forces = torch.as_tensor(rng.normal(size=positions.shape)).float()
        batch[head.level.forces_name] = forces * (batch["species"] > 0).unsqueeze(2)
    return {name: array.to(device) for name, array in batch.items()}


def stock_loss(heads: Heads) -> Any:
    """Equation 1 in hippynn's own loss nodes."""
    terms = []
    for head in heads.values():
        for node in (head.energy, head.forces):
            if node is not None:
                terms += [MSELoss.of_node(node) ** (1 / 2), MAELoss.of_node(node)]
        terms.append(Mean.of_node(head.energy.hierarchicality))
    return sum(terms[1:], start=terms[0])


def make_step(loss: Any, batch: Batch, device: torch.device) -> tuple[float, Callable[[], float]]:
    """The loss of a batch, and a function that takes a training step and returns its ms."""
    modules, names = assemble_for_training(loss, {"loss": loss})
    model, loss_module = modules.model.to(device), modules.loss.to(device)
    model.train()
    # Every step works on the same weights.
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0, fused=True)
    step = get_step_function(optimizer)
    inputs = [batch[name].clone() for name in names["inputs"]]
    targets = [batch[name] for name in names["targets"]]

    timed = timer(lambda: step(optimizer, model, loss_module, inputs, targets), device)
    return loss_module(*model(*inputs), *targets)[0].item(), timed


def make_training_step(
    network: Network,
    batch: Batch,
    device: torch.device,
    *,
    by_nodes: bool = False,
) -> tuple[float, Callable[[], float]]:
    """As `make_step`, of one of our trainings.

    `by_nodes` is as trainings were before: the loss node by node, hippynn's graph, torch's Adam.
    """
    heads = network.heads
    for head in heads.values():
        head.energy.torch_module.layers[0].requires_grad_(False)  # fitted before a training
    loss = build_loss(heads)
    modules, names = assemble_for_training(loss, {"loss": loss})
    arrays = {name: array.numpy(force=True) for name, array in batch.items()}
    database = TrainingDatabase(dict.fromkeys(("train", "valid", "test"), arrays), **names)
    modules = precompute_pairs(modules, database)
    if not by_nodes:
        weights = dict.fromkeys(heads, LossWeights())
        modules = modules._replace(loss=WholeLoss(modules.loss, heads, weights))
        modules = compute_at_once(modules, heads)
    model, loss_module = modules.model.to(device), modules.loss.to(device)
    model.train()
    # Every step works on the same weights.
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer: torch.optim.Optimizer
    if device.type == "cpu" and not by_nodes:
        optimizer = flat_adam(modules.model, parameters, 0.0)
    else:
        optimizer = torch.optim.Adam(parameters, lr=0.0, fused=True)
    step = get_step_function(optimizer)
    n_structures, width = batch[SPECIES].shape
    pairs = database.pairs["train"].batch_pairs(np.arange(n_structures), width).to(device)
    inputs = [(batch | {PAIRS: pairs})[name].clone() for name in database.inputs]
    targets = [batch[name] for name in names["targets"]]

    def take_step() -> None:
        with model.steps_at_once() if isinstance(model, WholeModel) else nullcontext():
            step(optimizer, model, loss_module, inputs, targets)

    return loss_module(*model(*inputs), *targets)[0].item(), timer(take_step, device)


class ProductCounter(TorchDispatchMode):
    """Counts the operations of matrix products, additions and multiplications."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> torch.Tensor:
        """Count and compute."""
        aten, packet = torch.ops.aten, func.overloadpacket
        factors = {aten.mm: 0, aten.bmm: 0, aten.addmm: 1, aten.baddbmm: 1}.get(packet)
        if factors is not None:
            left, right = args[factors : factors + 2]
            self.operations += 2 * left.numel() * right.shape[-1]
        return func(*args, **(kwargs or {}))


def peak_speed(device: torch.device, size: int = 1500, repeats: int = 9) -> float:
    """Operations per ms of a large product, the best of several."""
    matrix = torch.randn(size, size, device=device)
    timed = timer(lambda: matrix @ matrix, device)
    return 2 * size**3 / min(timed() for _ in range(repeats))


def measure(case: Case, device: torch.device, repeats: int) -> dict[str, Any]:
    """Times of a case; RuntimeError if the losses of the models differ."""
    with case.setting(), quiet():
        models = network_pair(case, interactions={**INTERACTIONS, "fast": "fast"})
        stock, fast = models["stock"].heads, models["fast"].heads
        batch = draw_batch(case, stock, device)
        steps = {
            "stock": make_step(stock_loss(stock), batch, device),
            "ours": make_training_step(models["ours"], batch, device),
        }
        if device.type == "cpu" and case.kernels == "numba":
            steps["nodes"] = make_step(build_loss(stock), batch, device)
        values = {name: value for name, (value, _) in steps.items()}
        if not all(math.isclose(v, values["stock"], rel_tol=ROUNDING) for v in values.values()):
            raise RuntimeError(f"{case}: losses differ: {values}")
        measured = compare({name: step for name, (_, step) in steps.items()}, repeats)
        # The same products, which only torch's own can be counted of.
        _, counted = make_step(build_loss(fast), batch, device)
        with ProductCounter() as counter:
            counted()
        measured["products_ms"] = counter.operations / peak_speed(device)
        return measured


def main(
    device: DeviceOption = "cpu",
    repeats: Annotated[int, typer.Option(min=2, help="Timed steps of each model.")] = 11,
    full: FullOption = False,
    out: OutOption = RESULTS,
) -> None:
    """Time training steps; write `step.json` and print it as a Markdown table."""
    rows = measure_cases(
        "step",
        FACTORS,
        lambda case, target: measure(case, target, repeats),
        device=device,
        full=full,
        out=out,
    )
    typer.echo("| varied | value | stock ms | ours ms | speed-up | our nodes alone | products ms |")
    typer.echo("|---|---|---|---|---|---|---|")
    for row in rows:
        value = row.get(row["factor"], "the paper's network, 64 molecules of 9 atoms")
        nodes = row.get("nodes_speedup")
        typer.echo(
            f"| {row['factor']} | {value} | {row['stock_ms']:.1f} | {row['ours_ms']:.1f} "
            f"| {row['ours_speedup']:.2f} ± {row['ours_speedup_error']:.2f} "
            f"| {'' if nodes is None else f'{1 / nodes:.3f} of stock'} "
            f"| {row['products_ms']:.1f} |"
        )


if __name__ == "__main__":
    start(main)
