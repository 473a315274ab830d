"""Cost of files: `hippynn-mf predict`, from file to file, against the bare graph of the same model.

    python scripts/benchmark_predict.py

The bare graph is hippynn's `Predictor` over the same network, on arrays that are in memory already:
one level's energies and forces, nothing read or written. `fraction` is its time divided by that of
`predict_file`, which reads extended XYZ, finds neighbours, predicts and writes extended XYZ. Both
work in turn in one process; energies are compared first.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import ase.io
import numpy as np
import torch
import typer
from ase import Atoms
from benchmarking import RESULTS, Case, compare, quiet, random_molecules, start, timer, write
from tqdm import tqdm

from hippynn_mf.data.structures import atomic_energy_sum
from hippynn_mf.hyperparameters import get_hyperparameters
from hippynn_mf.labels import parse_labels
from hippynn_mf.models import build_model
from hippynn_mf.potentials.evaluator import Evaluator
from hippynn_mf.potentials.potential import Potential
from hippynn_mf.potentials.predicting import predict_file
from hippynn_mf.training import choose_device
from hippynn_mf.units import EV_PER_HARTREE, EV_PER_KCAL_PER_MOL

LABELS = {"DZ": "EF"}
BATCH_SIZE = 64
CASES = [
    ("base", {"preset": "paper", "sizes": [9], "threads": 1}),
    ("sizes", {"preset": "paper", "sizes": [6, 9, 11, 12, 13, 14, 14, 15, 16, 18, 20, 20]}),
    ("network", {"preset": "quick", "sizes": [9], "threads": 1}),
]
ROUNDING = 1e-3  # eV, of float32


def potential(preset: str) -> Potential:
    """The shipped model's first member with one level; of the paper's size with random weights."""
    shipped = Potential.load("mini-ani1x").only(["DZ"])
    shipped = shipped.member(shipped.card.members[0].seed)
    hyperparameters = get_hyperparameters(preset)
    if hyperparameters == shipped.card.hyperparameters:
        return shipped
    torch.manual_seed(0)
    card = shipped.card.model_copy(update={"hyperparameters": hyperparameters})
    return Potential(card, (build_model(hyperparameters, parse_labels(LABELS)),))


def measure(
    preset: str, sizes: list[int], threads: int, n: int, repeats: int, folder: Path
) -> dict[str, Any]:
    """Times of one case; RuntimeError if the energies differ."""
    with Case(threads=threads).setting(), quiet():
        model = potential(preset)
        species, positions = random_molecules(n, sizes, seed=0)
        systems = [Atoms(z[z > 0], x[z > 0]) for z, x in zip(species, positions, strict=True)]
        source, target = folder / "in.extxyz", folder / "out.extxyz"
        ase.io.write(source, systems, format="extxyz")
        evaluator = Evaluator(model, dtype=torch.float32)
        member = model.members[0]
        predictor = member.predictor("cpu")
        arrays = {
            member.species: torch.as_tensor(species),
            member.positions: torch.as_tensor(positions).float(),
        }
        bare = partial(predictor, node_values=arrays, batch_size=BATCH_SIZE)
        whole = partial(predict_file, evaluator, source, target, ["DZ"], batch_size=BATCH_SIZE)
        whole()
        level = model.levels[0]
        own = atomic_energy_sum(species, level) * EV_PER_HARTREE
        expected = bare()[level.energy_name].numpy()[:, 0] * EV_PER_KCAL_PER_MOL + own
        found = [atoms.info["energy_wb97x_dz"] for atoms in ase.io.read(target, ":")]
        if np.abs(found - expected).max() > ROUNDING:
            raise RuntimeError(f"{preset}: energies differ by {np.abs(found - expected).max()} eV")
        timed: dict[str, Callable[[], float]] = {
            name: timer(function, torch.device("cpu"))
            for name, function in (("bare", bare), ("file", whole))
        }
        result = compare(timed, repeats, warm_up=1, reference="bare")
    return {
        "n_structures": n,
        "bare_structures_per_s": 1e3 * n / result["bare_ms"],
        "file_structures_per_s": 1e3 * n / result["file_ms"],
        "fraction": result["file_speedup"],
        "fraction_error": result["file_speedup_error"],
    }


def main(
    repeats: Annotated[int, typer.Option(min=3, help="Timed calls.")] = 7,
    n: Annotated[int, typer.Option(min=1, help="Structures of a file.")] = 1280,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Time predictions from file to file; write `predict.json` and print a Markdown table."""
    rows = []
    for factor, case in tqdm(CASES, unit="case"):
        case = {"threads": 1, **case}
        with tempfile.TemporaryDirectory() as folder:
            measured = measure(**case, n=n, repeats=repeats, folder=Path(folder))
        rows.append({"factor": factor, **case, **measured})
    write("predict", rows, choose_device("cpu"), out)
    typer.echo(table(rows))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| network | atoms | threads | bare graph, 1/s | file to file, 1/s | fraction |",
        "|---|---|---|---|---|---|",
    ]
    for each in rows:
        least, most = min(each["sizes"]), max(each["sizes"])
        sizes = str(least) if least == most else f"{least} to {most}"
        lines.append(
            f"| {each['preset']} | {sizes} | {each['threads']} "
            f"| {each['bare_structures_per_s']:.0f} "
            f"| {each['file_structures_per_s']:.0f} | {each['fraction']:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    start(main)
