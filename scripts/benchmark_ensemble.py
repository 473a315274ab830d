"""Time of an ensemble in one pass, beside the time of one of its members.

    python scripts/benchmark_ensemble.py

Energies and forces of the paper's and the quick network, from one molecule to a batch; `training`
is a step with a loss of all members on the same batch. Both passes take turns in one process.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from benchmarking import (
    RESULTS,
    Case,
    compare,
    label_set,
    quiet,
    random_molecules,
    row,
    start,
    timer,
    write,
)
from hippynn.graphs import GraphModule
from tqdm import tqdm

from hippynn_mf.ensembles import Ensemble, stack_heads_and_network
from hippynn_mf.hyperparameters import get_hyperparameters
from hippynn_mf.labels import parse_labels
from hippynn_mf.models import Model, build_model, predict
from hippynn_mf.training import choose_device

N_MOLECULES = (1, 4, 16, 64)
N_ATOMS = 9
ROUNDING = 2e-4  # of the norm of all values, float32

Timed = dict[str, Callable[[], float]]


def predictions(members: list[Model], n: int, device: torch.device) -> Timed:
    """Prediction by the first member, and by all; RuntimeError if they differ."""
    species, positions = random_molecules(n, [N_ATOMS], seed=0)
    all_members = Ensemble(members, device)
    predictor = members[0].predictor(device)
    values = {
        members[0].species: torch.as_tensor(species),
        members[0].positions: torch.as_tensor(positions).float(),
    }
    together = all_members.predict(species, positions, batch_size=n)
    for number, member in enumerate(members):
        alone = predict(member, species, positions, batch_size=n, device=device)
        for name, array in alone.items():
            difference = np.linalg.norm(together[name][number] - array) / np.linalg.norm(array)
            if not difference < ROUNDING:
                raise RuntimeError(f"{name} of member {number} differs by {difference:.1e}.")
    return {
        "member": timer(lambda: predictor(node_values=values), device),
        "ensemble": timer(lambda: all_members.predict(species, positions, batch_size=n), device),
    }


def training_steps(members: list[Model], n: int, device: torch.device) -> Timed:
    """A training step of the first member, and one of all."""
    species, positions = random_molecules(n, [N_ATOMS], seed=0)
    timed = {}
    for name, chosen in {"member": members[:1], "ensemble": members}.items():
        model = chosen[0]
        nodes = [head.energy.main_output for head in model.heads.values()]
        nodes += [head.forces for head in model.heads.values() if head.forces is not None]
        graph = GraphModule([model.species, model.positions], nodes).to(device)
        if len(chosen) > 1:
            stack_heads_and_network(graph, chosen)
            graph.to(device)
        weights = [p for p in graph.parameters() if p.is_floating_point()]
        optimizer = torch.optim.Adam(weights, lr=0.0, fused=True)
        inputs = (
            torch.as_tensor(species, device=device).repeat(len(chosen), 1),
            torch.as_tensor(positions, device=device).float().repeat(len(chosen), 1, 1),
        )

        def step(
            graph: Any = graph,
            optimizer: Any = optimizer,
            inputs: Any = inputs,
            m: int = len(chosen),
        ) -> None:
            optimizer.zero_grad()
            by_member = [output.view(m, -1) for output in graph(*(i.clone() for i in inputs))]
            rmse = sum(errors.square().mean(dim=1).sqrt().sum() for errors in by_member)
            mae = sum(errors.abs().mean(dim=1).sum() for errors in by_member)
            (rmse + mae).backward()
            optimizer.step()

        timed[name] = timer(step, device)
    return timed


def main(
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:n.")] = "cpu",
    repeats: Annotated[int, typer.Option(min=2, help="Timed calls.")] = 11,
    n_members: Annotated[int, typer.Option(min=2, help="Members of the ensemble.")] = 8,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Time ensembles; write `ensemble.json` and print it as a Markdown table."""
    target = choose_device(device)
    rows = []
    cases = [(preset, n) for preset in ("quick", "paper") for n in N_MOLECULES]
    for preset, n in tqdm(cases, unit="case"):
        case = Case(preset=preset, system=f"{n} x {N_ATOMS} atoms")
        with case.setting(), quiet():
            members = []
            for seed in range(n_members):
                torch.manual_seed(seed)
                labels = parse_labels(label_set(case.labels))
                members.append(build_model(get_hyperparameters(preset), labels))
            for what, prepare in {"prediction": predictions, "training": training_steps}.items():
                measured = compare(prepare(members, n, target), repeats, reference="member")
                measured = {
                    "n_members": n_members,
                    "member_ms": measured["member_ms"],
                    "ensemble_ms": measured["ensemble_ms"],
                    "members_time": 1 / measured["ensemble_speedup"],
                }
                rows.append(row(what, case, measured))
    write("ensemble", rows, target, out)
    typer.echo(f"| what | network | molecules | one ms | {n_members} ms | times one |")
    typer.echo("|---|---|---|---|---|---|")
    for each in rows:
        typer.echo(
            f"| {each['factor']} | {each['preset']} | {each['system']} | {each['member_ms']:.1f} "
            f"| {each['ensemble_ms']:.1f} | {each['members_time']:.2f} |"
        )


if __name__ == "__main__":
    start(main)
