"""Time of a training step, beside the same model written in stock hippynn nodes.

    python scripts/benchmark_step.py --repeats 30
    python scripts/benchmark_step.py --device cuda --repeats 200

Both models have the same weights and the same fully labelled batch of the embedded data, and take
steps in turn in one process. A step is hippynn's: forward, loss, backward, optimizer. Times are
medians; the ratio is the median over neighbouring steps, which a busy machine disturbs least.
Nothing is printed unless the losses agree.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import numba
import numpy as np
import torch
import typer
from hippynn import custom_kernels
from hippynn.experiment import assemble_for_training
from hippynn.experiment.step_functions import get_step_function
from hippynn.graphs.nodes.inputs import PositionsNode, SpeciesNode
from hippynn.graphs.nodes.loss import MAELoss, Mean, MSELoss
from hippynn.graphs.nodes.physics import GradientNode
from hippynn.graphs.nodes.targets import HEnergyNode
from tqdm import tqdm

from hippynn_mf.data.ani1x import read_ani1x
from hippynn_mf.data.database import POSITIONS, SPECIES, is_per_atom, training_arrays
from hippynn_mf.data.embedded import MINI_ANI1X
from hippynn_mf.errors import UserError
from hippynn_mf.hyperparameters import Hyperparameters, get_hyperparameters
from hippynn_mf.labels import Labels, parse_labels
from hippynn_mf.levels import PAPER_LEVELS
from hippynn_mf.losses import build_loss
from hippynn_mf.models import Model, build_model
from hippynn_mf.networks import NETWORKS
from hippynn_mf.training import choose_device

LABEL_SETS: Sequence[Mapping[str, str]] = (
    {"DZ": "E"},
    {"DZ": "EF"},
    {"DZ": "EF", "CC": "E"},
    {"DZ": "EF", "TZ": "EF"},
    {"DZ": "EF", "TZ": "EF", "CC": "E"},
)
N_WARM_UP = 3  # steps of each model that are not timed: the first ones compile the kernels
ROUNDING = 1e-5  # relative difference of two float32 losses

Batch = Mapping[str, torch.Tensor]
TimedStep = Callable[[], float]


def draw_batch(batch_size: int, seed: int, device: torch.device) -> Batch:
    """Random conformers with the labels of every level, cut to the largest, by `db_name`."""
    labels = parse_labels({"DZ": "EF", "TZ": "EF", "MP2": "E", "CC": "E"})
    structures, _ = read_ani1x(MINI_ANI1X, labels, common_levels=PAPER_LEVELS, rows="common")
    if batch_size > len(structures):
        raise UserError(f"{MINI_ANI1X} has {len(structures)} such structures, not {batch_size}.")
    batch = structures[np.random.default_rng(seed).permutation(len(structures))[:batch_size]]
    width = int(batch.atom_mask.sum(axis=1).max())
    return {
        name: torch.as_tensor(array[:, :width] if is_per_atom(name) else array, device=device)
        for name, array in training_arrays(batch, labels).items()
    }


def build_stock_loss(model: Model, hyperparameters: Hyperparameters, labels: Labels) -> Any:
    """Equation 1 of the same model in stock nodes, with the same weights."""
    species, positions = SpeciesNode(db_name=SPECIES), PositionsNode(db_name=POSITIONS)
    trunk = model.heads.network
    network_class = NETWORKS["stock"][hyperparameters.tensor_order]
    network = network_class("stock", (species, positions), module_kwargs=trunk.module_kwargs)
    network.torch_module.load_state_dict(trunk.torch_module.state_dict())
    terms = []
    for level, properties in labels.items():
        energy = HEnergyNode(level.energy_name, network, db_name=level.energy_name)
        energy.torch_module.load_state_dict(model.heads[level].energy.torch_module.state_dict())
        terms.append(MSELoss.of_node(energy) ** (1 / 2) + MAELoss.of_node(energy))
        terms.append(Mean.of_node(energy.hierarchicality))
        if properties.forces:
            forces = GradientNode(
                level.forces_name, (energy, positions), sign=-1, db_name=level.forces_name
            )
            terms.append(MSELoss.of_node(forces) ** (1 / 2) + MAELoss.of_node(forces))
    return sum(terms[1:], start=terms[0])


def make_step(loss: Any, batch: Batch, device: torch.device) -> tuple[float, TimedStep]:
    """The loss of a batch, and a function that takes a training step and returns its ms."""
    modules, names = assemble_for_training(loss, {"loss": loss})
    model, loss_module = modules.model.to(device), modules.loss.to(device)
    model.train()
    optimizer = torch.optim.Adam(
        model.parameters(), lr=0.0, fused=True
    )  # every step works on the same weights
    step = get_step_function(optimizer)
    inputs = [batch[name].clone() for name in names["inputs"]]
    targets = [batch[name] for name in names["targets"]]

    def timed_step() -> float:
        synchronize(device)
        start = time.perf_counter()
        step(optimizer, model, loss_module, inputs, targets)
        synchronize(device)
        return 1e3 * (time.perf_counter() - start)

    return loss_module(*model(*inputs), *targets)[0].item(), timed_step


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was asked to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def compare_steps(
    stock: TimedStep, ours: TimedStep, repeats: int
) -> tuple[float, float, float, float]:
    """Median ms of stock and of ours, and median and standard error of neighbours' ratios."""
    for _ in range(N_WARM_UP):
        stock()
        ours()
    times = [(stock(), ours()) for _ in range(repeats)]
    # Every step of ours has a stock step before and after it: a drift cancels.
    ratios = [our / their for their, our in times]
    ratios += [our / their for (_, our), (their, _) in itertools.pairwise(times)]
    lower, _, upper = statistics.quantiles(ratios, n=4)
    error = 1.2533 * (upper - lower) / 1.349 / math.sqrt(repeats)
    medians = [statistics.median(column) for column in zip(*times, strict=True)]
    return medians[0], medians[1], statistics.median(ratios), error


def main(
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:n.")] = "cpu",
    repeats: Annotated[int, typer.Option(min=2, help="Timed steps of each model.")] = 30,
    batch_size: Annotated[int, typer.Option(min=1, help="Structures in the batch.")] = 64,
    preset: Annotated[str, typer.Option(help="Network: paper or quick.")] = "paper",
    interaction: Annotated[str, typer.Option(help="Of our model: fast or stock.")] = "fast",
    seed: Annotated[int, typer.Option(help="Of the batch and of the weights.")] = 0,
) -> None:
    """Print a Markdown table of step times: stock hippynn nodes, and hippynn_mf."""
    target = choose_device(device)
    hyperparameters = get_hyperparameters(preset, {"interaction": interaction})
    batch = draw_batch(batch_size, seed, target)
    rows = []
    for plain in tqdm(LABEL_SETS, unit="label set"):
        labels = parse_labels(plain)
        torch.manual_seed(seed)
        model = build_model(hyperparameters, labels)
        with contextlib.redirect_stdout(sys.stderr):  # hippynn prints while it assembles
            stock_loss, stock = make_step(
                build_stock_loss(model, hyperparameters, labels), batch, target
            )
            our_loss, ours = make_step(build_loss(model.heads), batch, target)
        name = " + ".join(f"{level}/{properties}" for level, properties in plain.items())
        if not math.isclose(stock_loss, our_loss, rel_tol=ROUNDING):
            raise RuntimeError(f"{name}: the loss is {our_loss}, that of stock nodes {stock_loss}.")
        stock_ms, our_ms, ratio, error = compare_steps(stock, ours, repeats)
        rows.append(
            f"| {name} | {stock_ms:.2f} | {our_ms:.2f} | {ratio:.3f} ± {error:.3f} "
            f"| {stock_loss:.6g} | {our_loss:.6g} |"
        )
    where = torch.cuda.get_device_name(target) if target.type == "cuda" else "CPU"
    typer.echo(
        f"{where}, {torch.get_num_threads()} torch and {numba.get_num_threads()} numba threads, "
        f"{custom_kernels.CUSTOM_KERNELS_ACTIVE} kernels, torch {torch.__version__}; {preset} "
        f"network, {interaction} interaction in ours, {batch_size} structures of up to "
        f"{batch[SPECIES].shape[1]} atoms, {repeats} steps of each\n"
    )
    typer.echo("| labels | stock ms | ours ms | ratio | loss, stock | loss, ours |")
    typer.echo("|---|---|---|---|---|---|")
    typer.echo("\n".join(rows))


if __name__ == "__main__":
    typer.run(main)
