"""Speed of energies and forces: stock hippynn, and hippynn_mf on the same weights.

    python scripts/benchmark_inference.py
    python scripts/benchmark_inference.py --device cuda --repeats 50

Batches of molecules go through hippynn's `Predictor`; a single molecule and boxes of water move by
steps of molecular dynamics through ASE and hippynn's `HippynnCalculator`, ours by `FastCalculator`;
`potential` is the calculator of a model file, `MultiFidelityCalculator`, in the same precision, and
`blocks` our network in blocks of atoms. The models work in turn in one process; forces are compared
before times are taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

import numpy as np
import torch
import typer
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet
from benchmarking import (
    ATOMS_PER_BLOCK,
    MOLECULES,
    RESULTS,
    Case,
    DeviceOption,
    FullOption,
    Network,
    OutOption,
    compare,
    measure_cases,
    network_pair,
    quiet,
    random_molecules,
    start,
    timer,
    water_box,
)

from hippynn_mf.model.model import Model
from hippynn_mf.potentials.calculator import MultiFidelityCalculator
from hippynn_mf.potentials.potential import Potential

FACTORS = {
    "labels": ["DZ/EF"],
    "n_features": [20, 32, 64, 120],
    "tensor_order": [0, 1, 2],
    "system": ["small", "ani1x", "molecule", "water192", "water648", "water1536", "water3000"],
    "threads": [1, 2],
    "kernels": ["numba", "pytorch"],
}
ROUNDING = 2e-4  # of the norm of all forces: float32, and sums over two thousand neighbours
TIMESTEP = 0.01 * units.fs  # short: the forces are those of an untrained network

Timed = dict[str, Callable[[], float]]


def predictions(case: Case, models: dict[str, Network], device: torch.device) -> tuple[Timed, Any]:
    """Timed prediction of a batch by every model, and the forces of each."""
    n, sizes = MOLECULES[case.system]
    species, positions = random_molecules(n, sizes, seed=0)
    timed, forces = {}, {}
    for name, model in models.items():
        predictor = model.predictor(device)
        arrays = [torch.as_tensor(species), torch.as_tensor(positions).float()]
        values = dict(zip(model.inputs, arrays, strict=True))

        predict = partial(predictor, node_values=values, batch_size=n)
        timed[name] = timer(predict, device)
        forces[name] = predict()[model.heads["DZ"].level.forces_name].numpy()
    return timed, forces


def dynamics(case: Case, models: dict[str, Network], device: torch.device) -> tuple[Timed, Any]:
    """Timed steps of dynamics by every model, and the forces of each."""
    timed, forces = {}, {}
    calculators = {name: model.calculator().to(device) for name, model in models.items()}
    calculators["potential"] = calculator_of_file(case, models["ours"], device)
    for name, calculator in calculators.items():
        if case.system == "molecule":
            species, positions = random_molecules(1, [9], seed=0)
            atoms = Atoms(species[0], positions[0], cell=[50] * 3)
        else:
            atoms = water_box(int(case.system.removeprefix("water")))
        atoms.calc = calculator
        dynamics = VelocityVerlet(atoms, timestep=TIMESTEP)
        timed[name] = timer(partial(dynamics.run, 1), device)
        forces[name] = atoms.get_forces()
    return timed, forces


def calculator_of_file(case: Case, model: Network, device: torch.device) -> MultiFidelityCalculator:
    """The calculator that a model file with these parameters has, in single precision."""
    shipped = Potential.load("mini-ani1x").only(["DZ"])
    shipped = shipped.member(shipped.card.members[0].seed)
    card = shipped.card.model_copy(update={"hyperparameters": case.hyperparameters()})
    potential = Potential(card, (Model(*model.inputs, model.heads),))
    return MultiFidelityCalculator(potential, "DZ", dtype="float32", device=device)


def measure(case: Case, device: torch.device, repeats: int) -> dict[str, Any]:
    """Times of a case; RuntimeError if the forces of the models differ."""
    with case.setting(), quiet():
        models = network_pair(case)
        if case.system in MOLECULES:
            timed, forces = predictions(case, models, device)
        else:
            blocks = replace(models["ours"], atoms_per_block=ATOMS_PER_BLOCK)
            timed, forces = dynamics(case, models | {"blocks": blocks}, device)
        for name, found in forces.items():
            difference = np.linalg.norm(found - forces["stock"]) / np.linalg.norm(forces["stock"])
            if not difference < ROUNDING:
                raise RuntimeError(f"{case}: forces of {name} differ by {difference:.1e}")
        large = case.system in ("water1536", "water3000")
        return compare(timed, 3 if large else repeats, warm_up=1)


def main(
    device: DeviceOption = "cpu",
    repeats: Annotated[int, typer.Option(min=3, help="Timed calls; 3 of large boxes.")] = 11,
    full: FullOption = False,
    out: OutOption = RESULTS,
) -> None:
    """Time predictions and dynamics; write `inference.json` and print a Markdown table."""
    rows = measure_cases(
        "inference",
        FACTORS,
        lambda case, target: measure(case, target, repeats),
        device=device,
        full=full,
        out=out,
    )
    typer.echo("| varied | value | stock ms | ours ms | faster by | model file | in blocks |")
    typer.echo("|---|---|---|---|---|---|---|")
    for row in rows:
        value = row.get(row["factor"], "the paper's network, 64 molecules of 9 atoms")
        others = " | ".join(
            f"{row[name]:.2f}" if name in row else ""
            for name in ("potential_speedup", "blocks_speedup")
        )
        typer.echo(
            f"| {row['factor']} | {value} | {row['stock_ms']:.1f} | {row['ours_ms']:.1f} "
            f"| {row['ours_speedup']:.2f} ± {row['ours_speedup_error']:.2f} "
            f"| {others} |"
        )


if __name__ == "__main__":
    start(main)
