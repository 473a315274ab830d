"""Peak memory of a training step and of energies and forces, stock hippynn and hippynn_mf.

    python scripts/benchmark_memory.py
    python scripts/benchmark_memory.py --device cuda

Every figure is the largest resident memory of a process of its own, as Linux counts it, less what
the process held before the structures and their pair list; on a GPU, the most that torch allocated.
The search for pairs is left out. The largest box of water within `--limit` GiB is found in steps of
a tenth.
"""

from __future__ import annotations

import ctypes
import gc
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from ase.neighborlist import primitive_neighbor_list
from benchmark_step import draw_batch, make_step, make_training_step, stock_loss
from benchmarking import (
    ATOMS_PER_BLOCK,
    RESULTS,
    Case,
    DeviceOption,
    OutOption,
    network_pair,
    quiet,
    row,
    start,
    water_box,
    write,
)
from scipy.spatial import cKDTree
from tqdm import tqdm

from hippynn_mf.network.compiled.room import give_back
from hippynn_mf.network.device import choose_device

MODELS = ("stock", "ours", "blocks")
BOXES = (192, 648, 3000)
GROWTH = 1.1


def pairs_of_box(positions: np.ndarray, side: float, cutoff: float) -> tuple[np.ndarray, ...]:
    """Receivers, senders and cell shifts of all pairs in a cube, both directions."""
    if side < 2 * cutoff:
        return primitive_neighbor_list(
            "ijS", [True] * 3, np.eye(3) * side, positions, cutoff, self_interaction=False
        )
    inside = positions % side
    half = cKDTree(inside, boxsize=side).query_pairs(cutoff, output_type="ndarray")
    first, second = np.concatenate([half, half[:, ::-1]]).T
    shifts = -np.rint((positions[second] - positions[first]) / side).astype(np.int64)
    return first, second, shifts


# Takes a number of atoms or steps; returns the arrays to work on, and a function that does so.
Prepare = Callable[[int], tuple[list[torch.Tensor], Callable[[], None]]]


def forces_of_box(case: Case, model: str, device: torch.device) -> Prepare:
    """Energy, forces and stress of a box of n atoms, as ASE would ask for them."""
    network = network_pair(case)["stock" if model == "stock" else "ours"]
    if model == "blocks":
        network = replace(network, atoms_per_block=ATOMS_PER_BLOCK)
    calculator = network.calculator().to(device)
    calculator.pbc.set(True)

    def prepare(n_atoms: int) -> tuple[list[torch.Tensor], Callable[[], None]]:
        box = water_box(n_atoms)
        side = float(box.cell.array[0, 0])
        pairs = pairs_of_box(box.positions, side, calculator.min_radius)
        arrays = [box.numbers[None].astype(np.int64), box.positions[None].astype(np.float32)]
        arrays += [(np.eye(3) * side).astype(np.float32)[None], *map(np.ascontiguousarray, pairs)]
        tensors = [torch.as_tensor(array, device=device) for array in arrays]
        return tensors, lambda: calculator.module(*tensors)

    return prepare


def training_step(case: Case, model: str, device: torch.device) -> Prepare:
    """Training steps on the batch of a case."""
    network = network_pair(case)[model]
    batch = draw_batch(case, network.heads, device)
    if model == "stock":
        _, step = make_step(stock_loss(network.heads), batch, device)
    else:
        _, step = make_training_step(network, batch, device)

    def steps(n_steps: int) -> None:
        for _ in range(n_steps):
            step()

    return lambda n_steps: (list(batch.values()), lambda: steps(n_steps))


def peak_of_this_process(case: Case, model: str, n: int, device: torch.device) -> float:
    """MiB of `n` training steps, or of a box of `n` atoms, with the arrays they work on."""
    with case.setting(), quiet():
        if case.system == "water":
            prepare = forces_of_box(case, model, device)
            prepare(30)[1]()  # compiles the kernels
        else:
            small = replace(case, system="small", n_features=4)
            training_step(small, model, device)(1)[1]()
            prepare = training_step(case, model, device)
        arrays, compute = prepare(n)
        size = sum(array.nbytes for array in arrays) / 2**20
        gc.collect()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device) / 2**20
            compute()
            return size + torch.cuda.max_memory_allocated(device) / 2**20 - before
        before = _reset_peak_resident()
        compute()
        return size + _resident("VmHWM") - before


def _reset_peak_resident() -> float:
    """Let Linux count the peak from now on; returns the resident memory in MiB."""
    give_back()  # memory that is kept or freed would hide what is asked for next
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _resident("VmRSS")


def _resident(name: str) -> float:
    """A line of Linux's account of this process, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (kib,) = (line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return int(kib) / 1024


def peak(case: Case, model: str, n: int, device: str) -> float:
    """`peak_of_this_process` in a process of its own; infinite if it was killed for memory."""
    question = json.dumps({"case": asdict(case), "model": model, "n": n, "device": device})
    child = subprocess.run(
        [sys.executable, __file__, "--child", question], capture_output=True, text=True
    )
    if child.returncode == -9:
        return float("inf")
    if child.returncode != 0:
        raise RuntimeError(f"{model}, {n}: {child.stderr[-2000:]}")
    return float(child.stdout.split()[-1])


def largest_box(case: Case, model: str, limit: float, device: str) -> dict[str, float]:
    """The largest box within `limit` MiB, found from the estimate of a smaller one."""
    probe = 12000 if model == "blocks" else 3000
    n_atoms, found = probe, peak(case, model, probe, device)
    if found < float("inf"):
        n_atoms = _whole(0.9 * probe * limit / found)
        found = peak(case, model, n_atoms, device)
    while found > limit:
        n_atoms = _whole(n_atoms / GROWTH)
        found = peak(case, model, n_atoms, device)
    best = {"n_atoms": n_atoms, "mib": found}
    while found <= limit:
        best = {"n_atoms": n_atoms, "mib": found}
        n_atoms = _whole(n_atoms * GROWTH)
        found = peak(case, model, n_atoms, device)
    return best


def _whole(n_atoms: float) -> int:
    """Atoms of whole molecules of water."""
    return 3 * max(1, round(n_atoms / 3))


def main(
    device: DeviceOption = "cpu",
    limit: Annotated[float, typer.Option(min=0.1, help="GiB of the largest box.")] = 4.0,
    out: OutOption = RESULTS,
    child: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Measure peaks; write `memory.json` and print it as a Markdown table."""
    target = choose_device(device)
    if child:
        question = json.loads(child)
        case, asked = Case(**question["case"]), choose_device(question["device"])
        typer.echo(peak_of_this_process(case, question["model"], question["n"], asked))
        return
    kernels = {} if target.type == "cpu" else {"kernels": "auto"}
    rows = []
    for system in tqdm(("small", "ani1x"), desc="training", unit="case"):
        case = Case(**({"system": system} | kernels))
        peaks = {f"{m}_mib": peak(case, m, 3, device) for m in ("stock", "ours")}
        rows.append(row("training", case, {"n_atoms": None} | peaks))
    water = Case(**({"system": "water", "labels": "DZ/EF"} | kernels))
    for n_atoms in tqdm(BOXES, desc="boxes", unit="case"):
        peaks = {f"{m}_mib": peak(water, m, n_atoms, device) for m in MODELS}
        rows.append(row("box", water, {"n_atoms": n_atoms} | peaks))
    for model in tqdm(MODELS, desc="largest", unit="model"):
        measured: dict[str, Any] = largest_box(water, model, 1024 * limit, device)
        rows.append(row("largest", water, {"model": model, "limit_gib": limit} | measured))
    write("memory", rows, target, out)
    typer.echo("| what | system | kernels | atoms | stock MiB | ours MiB | in blocks |")
    typer.echo("|---|---|---|---|---|---|---|")
    for line in rows:
        cells = [
            line.get(f"{m}_mib", line["mib"] if line.get("model") == m else None) for m in MODELS
        ]
        shown = " | ".join("" if cell is None else f"{cell:.0f}" for cell in cells)
        typer.echo(
            f"| {line['factor']} | {line['system']} | {line['kernels']} "
            f"| {line['n_atoms'] or ''} | {shown} |"
        )


if __name__ == "__main__":
    start(main)
