"""Time of an extracted level, beside a model of that level only, and beside its parent.

    python scripts/benchmark_extract.py

Energies and forces of molecules of ethanol by one member of the shipped ensemble: CC extracted, by
way of its file; a model that was built with CC alone; and the parent with all its levels. All take
turns in one process.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from ase.build import molecule
from benchmarking import RESULTS, Case, DeviceOption, OutOption, compare, quiet, start, timer, write
from tqdm import tqdm

from hippynn_mf.model.model import build_model
from hippynn_mf.network.device import choose_device
from hippynn_mf.potentials.evaluator import DTYPES, Evaluator
from hippynn_mf.potentials.potential import Potential
from hippynn_mf.potentials.systems import Systems

N_MOLECULES = (1, 16, 64)
LEVEL = "CC"


def models(parent: Potential) -> dict[str, Potential]:
    """One member of the parent, its level extracted, and a model built with that level only."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "extracted.safetensors"
        parent.only([LEVEL]).save(file)
        extracted = Potential.load(file)
    torch.manual_seed(0)
    built = build_model(extracted.card.hyperparameters, extracted.card.labels)
    built.heads.network.torch_module.load_state_dict(
        extracted.members[0].heads.network.torch_module.state_dict()
    )
    return {
        "built": replace(extracted, members=(built,)),
        "extracted": extracted,
        "parent": parent,
    }


def measure(
    parent: Potential, dtype: str, n: int, device: torch.device, repeats: int
) -> dict[str, Any]:
    """Times of energies and forces of the level by each model, and their ratios."""
    timed = {}
    for name, potential in models(parent).items():
        evaluator = Evaluator(potential, dtype=DTYPES[dtype], device=device)
        systems = Systems.of([molecule("CH3CH2OH")] * n, evaluator.cutoff, evaluator.species)
        levels = [potential.level(LEVEL)]
        timed[name] = timer(
            lambda evaluator=evaluator, systems=systems, levels=levels: evaluator(systems, levels),
            device,
        )
    times = compare(timed, repeats, reference="built")
    return {
        "built_ms": times["built_ms"],
        "extracted_ms": times["extracted_ms"],
        "parent_ms": times["parent_ms"],
        "ratio": 1 / times["extracted_speedup"],
        "ratio_error": times["extracted_speedup_error"] / times["extracted_speedup"] ** 2,
        "parent_ratio": 1 / times["parent_speedup"],
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| molecules | numbers | built with CC alone | extracted | ratio | parent |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['n_molecules']} | {row['dtype']} | {row['built_ms']:.2f} ms "
        f"| {row['extracted_ms']:.2f} ms | {row['ratio']:.3f} ± {row['ratio_error']:.3f} "
        f"| {row['parent_ratio']:.3f} |"
        for row in rows
    ]
    return "\n".join(lines)


def main(
    device: DeviceOption = "cpu",
    repeats: Annotated[int, typer.Option(min=3, help="Timed calls.")] = 301,
    out: OutOption = RESULTS,
) -> None:
    """Time an extracted level; write `extract.json` and print it as a Markdown table."""
    target, rows = choose_device(device), []
    parent = Potential.load("mini-ani1x").member(0)
    for dtype, n in tqdm([(dtype, n) for dtype in DTYPES for n in N_MOLECULES], unit="case"):
        with Case(threads=1).setting(), quiet():
            measured = measure(parent, dtype, n, target, repeats)
        facts = {"n_molecules": n, "n_atoms": 9, "dtype": dtype, "threads": 1}
        # Of all processes on the machine; this one alone makes as much as its threads.
        rows.append({**facts, **measured, "load_average": os.getloadavg()[0]})
    write("extract", rows, target, out)
    typer.echo(table(rows))


if __name__ == "__main__":
    start(main)
