"""Cost of files: `hippynn-mf predict`, from file to file, against the bare graph of the same model.

    python scripts/benchmark_predict.py

The bare graph is hippynn's `Predictor` over the same network, on arrays that are in memory already:
one level's energies and forces, nothing read or written. `fraction` is its time divided by that of
`predict_file`, which reads extended XYZ, finds neighbours, predicts and writes extended XYZ. The
graph has one thread in both. A large file is read and written on a second core meanwhile, by a
process whose start is in the time; a small one on the same core (`LARGE_FILE` of
`hippynn_mf.potentials.structure_files`). Both work in turn, the graph on the structures that a
large file repeats; energies are compared first. Where Linux tells it, the time is left out for
which other work of the machine kept this process from a core.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import ase.io
import numpy as np
import torch
import typer
from ase import Atoms
from benchmarking import RESULTS, Case, OutOption, compare, quiet, random_molecules, start, write
from tqdm import tqdm

from hippynn_mf.data.structures import atomic_energy_sum
from hippynn_mf.hyperparameters import get_hyperparameters
from hippynn_mf.labels import parse_labels
from hippynn_mf.model.model import build_model
from hippynn_mf.model.predicting import build_predictor
from hippynn_mf.network.device import choose_device
from hippynn_mf.potentials.evaluator import Evaluator
from hippynn_mf.potentials.potential import Potential
from hippynn_mf.potentials.predicting import predict_file
from hippynn_mf.units import EV_PER_HARTREE, EV_PER_KCAL_PER_MOL

LABELS = {"DZ": "EF"}
BATCH_SIZE = 64
ANI_1X = [6, 9, 11, 12, 13, 14, 14, 15, 16, 18, 20, 20]  # sizes about its mean of 14 atoms
SMALL = 1280  # structures that are different
CASES = [
    ("base", {"preset": "paper", "sizes": [9], "n": 8960}),
    ("sizes", {"preset": "paper", "sizes": ANI_1X, "n": 5760}),
    ("network", {"preset": "quick", "sizes": [9], "n": 20480}),
    ("file", {"preset": "paper", "sizes": [9], "n": SMALL}),
    ("file", {"preset": "paper", "sizes": ANI_1X, "n": SMALL}),
    ("file", {"preset": "quick", "sizes": [9], "n": SMALL}),
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
    preset: str, sizes: Sequence[int], n: int, repeats: int, folder: Path
) -> dict[str, Any]:
    """Times of one case; RuntimeError if the energies differ."""
    with Case().setting(), quiet():
        model = potential(preset)
        species, positions = random_molecules(SMALL, sizes, seed=0)
        systems = [Atoms(z[z > 0], x[z > 0]) for z, x in zip(species, positions, strict=True)]
        source, target = folder / "in.extxyz", folder / "out.extxyz"
        evaluator = Evaluator(model, dtype=torch.float32)
        member = model.members[0]
        predictor = build_predictor(member, "cpu")
        arrays = {
            member.species: torch.as_tensor(species),
            member.positions: torch.as_tensor(positions).float(),
        }
        bare = partial(predictor, node_values=arrays, batch_size=BATCH_SIZE)
        whole = partial(predict_file, evaluator, source, target, ["DZ"], batch_size=BATCH_SIZE)
        ase.io.write(source, systems, format="extxyz")
        whole()
        level = model.levels[0]
        own = atomic_energy_sum(species, level) * EV_PER_HARTREE
        expected = bare()[level.energy_name].numpy()[:, 0] * EV_PER_KCAL_PER_MOL + own
        found = [atoms.info["energy_wb97x_dz"] for atoms in ase.io.read(target, ":")]
        if np.abs(found - expected).max() > ROUNDING:
            raise RuntimeError(f"{preset}: energies differ by {np.abs(found - expected).max()} eV")
        ase.io.write(source, (systems[k % SMALL] for k in range(n)), format="extxyz")
        timed = {"bare": timer(bare), "file": timer(whole)}
        result = compare(timed, repeats, warm_up=0, reference="bare")
    longer = n / SMALL
    return {
        "bare_structures_per_s": 1e3 * SMALL / result["bare_ms"],
        "file_structures_per_s": 1e3 * n / result["file_ms"],
        "fraction": longer * result["file_speedup"],
        "fraction_error": longer * result["file_speedup_error"],
    }


def timer(function: Callable[[], Any]) -> Callable[[], float]:
    """A function that calls another and returns its ms, less those of waiting for a core."""

    def timed() -> float:
        begun, waited = time.perf_counter(), seconds_in_queue()
        function()
        return 1e3 * (time.perf_counter() - begun - (seconds_in_queue() - waited))

    return timed


def seconds_in_queue() -> float:
    """For how long this thread was ready to run and had no core; 0 where that is not told."""
    told = Path("/proc/thread-self/schedstat")
    return 1e-9 * int(told.read_text().split()[1]) if told.exists() else 0.0


def main(
    repeats: Annotated[int, typer.Option(min=3, help="Timed calls.")] = 5,
    out: OutOption = RESULTS,
) -> None:
    """Time predictions from file to file; write `predict.json` and print a Markdown table."""
    rows = []
    for factor, case in tqdm(CASES, unit="case"):
        with tempfile.TemporaryDirectory() as folder:
            measured = measure(**case, repeats=repeats, folder=Path(folder))
        rows.append({"factor": factor, **case, **measured})
    write("predict", rows, choose_device("cpu"), out)
    typer.echo(table(rows))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| network | atoms | structures | bare graph, 1/s | file to file, 1/s | fraction |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        least, most = min(row["sizes"]), max(row["sizes"])
        sizes = str(least) if least == most else f"{least} to {most}"
        lines.append(
            f"| {row['preset']} | {sizes} | {row['n']} "
            f"| {row['bare_structures_per_s']:.0f} "
            f"| {row['file_structures_per_s']:.0f} | {row['fraction']:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    start(main)
