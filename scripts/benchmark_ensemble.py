"""Time of eight members in one process, beside the time of one of them.

    python scripts/benchmark_ensemble.py

Energies of every level and forces of one, of molecules of ethanol, by the shipped ensemble and by
networks of the paper's size. Members go in groups on stacked weights, as `Evaluator` chooses, or
one by one. All take turns in one process.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import torch
import typer
from ase.build import molecule
from benchmarking import RESULTS, Case, DeviceOption, OutOption, compare, quiet, start, timer, write
from tqdm import tqdm

from hippynn_mf.hyperparameters import get_hyperparameters
from hippynn_mf.model.model import build_model
from hippynn_mf.network.device import choose_device
from hippynn_mf.potentials import evaluator
from hippynn_mf.potentials.evaluator import DTYPES, Evaluator
from hippynn_mf.potentials.potential import Potential
from hippynn_mf.potentials.systems import Systems

N_MOLECULES = (1, 4, 16, 64)
ROUNDING = {"float32": 1e-4, "float64": 1e-9}  # eV and eV/Å
SHIPPED = "mini-ani1x"
THREADS = {SHIPPED: (1, 2), "paper": (1,)}


def potentials() -> dict[str, Potential]:
    """The shipped ensemble, and one of the paper's size with random parameters."""
    shipped = Potential.load(SHIPPED)
    card = shipped.card.model_copy(update={"hyperparameters": get_hyperparameters("paper")})
    members = []
    for seed in range(len(shipped.members)):
        torch.manual_seed(seed)
        members.append(build_model(card.hyperparameters, card.labels))
    return {SHIPPED: shipped, "paper": Potential(card, tuple(members))}


def measure(
    potential: Potential, dtype: str, n: int, device: torch.device, repeats: int
) -> dict[str, Any]:
    """Times of the first member, of all, and of all one by one; RuntimeError if forces differ."""
    level = potential.levels[-1]
    first = potential.member(potential.card.members[0].seed)
    evaluators = {
        name: Evaluator(members, dtype=DTYPES[dtype], device=device)
        for name, members in {"member": first, "ensemble": potential, "single": potential}.items()
    }
    one = evaluators["member"]
    systems = Systems.of([molecule("CH3CH2OH")] * n, one.cutoff, one.species)

    def evaluate(name: str) -> Any:
        largest = evaluator.LARGEST_ARRAY
        try:
            if name == "single":
                evaluator.LARGEST_ARRAY = 0
            return evaluators[name](systems, [level])
        finally:
            evaluator.LARGEST_ARRAY = largest

    forces = {name: evaluate(name).forces[level.id] for name in evaluators}
    for name in ("member", "single"):
        together = forces["ensemble"][: len(forces[name])]
        difference = np.abs(together - forces[name]).max()
        if not difference < ROUNDING[dtype]:
            raise RuntimeError(f"forces of {name} differ by {difference:.1e} eV/Å")
    timed = {name: timer(lambda name=name: evaluate(name), device) for name in evaluators}
    times = compare(timed, repeats, reference="member")
    return {
        "at_once": max(last - begin for begin, last in evaluators["ensemble"].stacked),
        "member_ms": times["member_ms"],
        "ensemble_ms": times["ensemble_ms"],
        "members_time": 1 / times["ensemble_speedup"],
        "members_time_error": times["ensemble_speedup_error"] / times["ensemble_speedup"] ** 2,
        "one_by_one_time": 1 / times["single_speedup"],
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown: cost of all members in units of one."""
    lines = [
        "| network | molecules | numbers | threads | one | eight | eight / one | one by one |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['network']} | {row['n_molecules']} | {row['dtype']} | {row['threads']} "
        f"| {row['member_ms']:.1f} ms | {row['ensemble_ms']:.1f} ms "
        f"| {row['members_time']:.1f} ± {row['members_time_error']:.1f} "
        f"| {row['one_by_one_time']:.1f} |"
        for row in rows
    ]
    return "\n".join(lines)


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table of docs/speed.md: cost of all members in units of one."""
    lines = [
        "| eight members, cost of one = 1 | " + " | ".join(map(str, N_MOLECULES)) + " |",
        "|---|" + "---|" * len(N_MOLECULES),
    ]
    by_case: dict[str, list[str]] = {}
    for row in rows:
        threads = "two threads" if row["threads"] == 2 else "one thread"
        case = f"{row['network']}, {row['dtype']}, {threads}"
        by_case.setdefault(case, []).append(f"{row['members_time']:.1f}")
    return "\n".join([*lines, *(f"| {k} | {' | '.join(v)} |" for k, v in by_case.items())])


def main(
    device: DeviceOption = "cpu",
    repeats: Annotated[int, typer.Option(min=2, help="Timed calls.")] = 31,
    out: OutOption = RESULTS,
) -> None:
    """Time ensembles; write `ensemble.json` and print it as a Markdown table."""
    target = choose_device(device)
    known = potentials()
    cases = [
        (name, dtype, threads, n)
        for name, all_threads in THREADS.items()
        for threads in (all_threads if target.type == "cpu" else all_threads[:1])
        for dtype in DTYPES
        for n in N_MOLECULES
    ]
    rows = []
    for name, dtype, threads, n in tqdm(cases, unit="case"):
        potential = known[name]
        with Case(threads=threads).setting(), quiet():
            facts = {"network": name, "n_members": len(potential.members), "n_molecules": n}
            facts |= {"n_atoms": 9, "dtype": dtype, "threads": threads}
            measured = measure(potential, dtype, n, target, repeats)
        # Of all processes on the machine; this one alone makes as much as its threads.
        rows.append({**facts, **measured, "load_average": os.getloadavg()[0]})
    write("ensemble", rows, target, out)
    typer.echo(table(rows))


if __name__ == "__main__":
    start(main)
