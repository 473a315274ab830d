"""Run every benchmark and draw the picture of docs/speed.md.

    python scripts/benchmark_all.py
    python scripts/benchmark_all.py --draw-only

half an hour on two quiet cores. Results are JSON files in `scripts/benchmarks`;
what is printed last is its table.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import matplotlib.pyplot as plt
import typer
from benchmarking import RESULTS, DeviceOption, OutOption, start
from matplotlib.axes import Axes

from hippynn_mf.files import replace_when_complete

BENCHMARKS = ("step", "inference", "memory", "ensemble")
COLOURS = {"stock": "#8c8c8c", "ours": "#0b6fa4", "blocks": "#d1603d"}
NAMES = {"stock": "hippynn", "ours": "hippynn_mf", "blocks": "hippynn_mf, in blocks"}

Results = Mapping[str, Any]


def label_of(row: Mapping[str, Any]) -> str:
    """What a bar of the first panel is."""
    units = {
        "n_features": "{} features",
        "tensor_order": "ℓ = {}",
        "threads": "{} threads",
        "kernels": "hippynn's {} kernels",
    }
    names = {"ani1x": "molecules of 14 atoms", "droplet": "a droplet of 192 atoms"}
    if row["factor"] == "base":
        return f"{row['labels']}: the paper's network"
    value = row[row["factor"]]
    return units.get(row["factor"], "{}").format(names.get(value, value))


def draw_steps(axes: Axes, results: Results) -> None:
    """Speed-up of a training step, one bar per case."""
    rows = results["rows"][::-1]
    values = [row["ours_speedup"] for row in rows]
    axes.barh([label_of(row) for row in rows], values, color=COLOURS["ours"])
    for place, value in enumerate(values):
        axes.text(value, place, f" {value:.1f}", va="center", fontsize=8)
    axes.axvline(1, color=COLOURS["stock"], lw=1)
    axes.set_xlim(0, 1.15 * max(values))
    axes.set_xlabel("training steps: times faster than hippynn")
    axes.tick_params(axis="y", labelsize=8)


def draw_dynamics(axes: Axes, results: Results) -> None:
    """Time of a step of molecular dynamics against the number of atoms."""
    rows = [row for row in results["rows"] if "blocks_ms" in row]
    n_atoms = [
        int(row["system"].removeprefix("water")) if "water" in row["system"] else 9 for row in rows
    ]
    for model in NAMES:
        axes.loglog(
            n_atoms,
            [row[f"{model}_ms"] / 1e3 for row in rows],
            "o-",
            color=COLOURS[model],
            label=NAMES[model],
        )
    axes.set_xlabel("atoms (a molecule, boxes of water)")
    axes.set_ylabel("s per step of dynamics, ASE")
    axes.legend(frameon=False, fontsize=8)


def draw_memory(axes: Axes, results: Results) -> None:
    """Peak memory of energies and forces against the number of atoms."""
    for model in NAMES:
        points = {
            row["n_atoms"]: row[f"{model}_mib"] for row in results["rows"] if row["factor"] == "box"
        }
        (largest,) = (row for row in results["rows"] if row.get("model") == model)
        points[largest["n_atoms"]] = largest["mib"]
        axes.loglog(list(points), list(points.values()), "o-", color=COLOURS[model])
        axes.annotate(
            f"{largest['n_atoms']:,}",
            (largest["n_atoms"], largest["mib"]),
            (0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    limit = 1024 * next(row["limit_gib"] for row in results["rows"] if "limit_gib" in row)
    axes.axhline(limit, color="black", lw=0.8, ls=":")
    axes.set_ylim(top=2 * limit)
    axes.set_xlabel("atoms in the box of water")
    axes.set_ylabel("peak memory, MiB")


def read(out: Path) -> dict[str, Results]:
    """The results in a folder."""
    return {name: json.loads((out / f"{name}.json").read_text()) for name in BENCHMARKS}


def summary(results: Mapping[str, Results]) -> str:
    """The table of docs/speed.md."""
    lines = ["| one thread, the paper's network | hippynn | hippynn_mf | |", "|---|---|---|---|"]

    def times(what: str, row: Mapping[str, Any]) -> None:
        lines.append(
            f"| {what} | {row['stock_ms']:.0f} ms | {row['ours_ms']:.0f} ms "
            f"| {row['ours_speedup']:.1f} times faster |"
        )

    def row_of(name: str, **wanted: Any) -> Mapping[str, Any]:
        rows = results[name]["rows"]
        return next(row for row in rows if all(row.get(k) == v for k, v in wanted.items()))

    base = row_of("step", factor="base")
    times(f"training step, 64 molecules of 9 atoms, {base['labels']}", base)
    products = base["products_ms"]
    lines.append(
        f"| its matrix products at the speed of a large one | | {products:.0f} ms "
        f"| {products / base['ours_ms']:.2f} of our step |"
    )
    for row in results["step"]["rows"]:
        if row["factor"] == "labels":
            times(f"the same, {row['labels']}", row)
    times("the same batch on two threads", row_of("step", factor="threads"))
    times("the same batch, hippynn's PyTorch kernels", row_of("step", factor="kernels"))
    times("training step, 64 molecules of 14 atoms", row_of("step", system="ani1x"))
    times("energies and forces, 64 molecules of 9 atoms", row_of("inference", factor="base"))
    times("step of dynamics, a molecule of 9 atoms", row_of("inference", system="molecule"))
    for n in (192, 3000):
        times(f"step of dynamics, {n} atoms of water", row_of("inference", system=f"water{n}"))
    for what, system in {"9": "small", "14": "ani1x"}.items():
        row = row_of("memory", factor="training", system=system)
        stock, ours = row["stock_mib"], row["ours_mib"]
        lines.append(
            f"| memory of a training step, 64 molecules of {what} atoms | {stock:.0f} MiB "
            f"| {ours:.0f} MiB | {ours / stock:.2f} of it |"
        )
    largest = {model: row_of("memory", model=model)["n_atoms"] for model in NAMES}
    for model, what in {"ours": "", "blocks": ", in blocks of atoms"}.items():
        lines.append(
            f"| largest box of water in 4 GiB{what} | {largest['stock']:,} atoms "
            f"| {largest[model]:,} atoms | {largest[model] / largest['stock']:.1f} times larger |"
        )
    return "\n".join(lines)


def draw(results: Mapping[str, Results], out: Path) -> Path:
    """Draw `speed.png` into a folder."""
    figure, axes = plt.subplots(1, 3, figsize=(14, 4.6), layout="constrained")
    draw_steps(axes[0], results["step"])
    draw_dynamics(axes[1], results["inference"])
    draw_memory(axes[2], results["memory"])
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
    with replace_when_complete(out / "speed.png") as path:
        figure.savefig(path, format="png", dpi=110)
    plt.close(figure)
    return out / "speed.png"


def main(
    device: DeviceOption = "cpu",
    draw_only: Annotated[bool, typer.Option("--draw-only", help="Measure nothing.")] = False,
    out: OutOption = RESULTS,
) -> None:
    """Measure step, inference and memory, then draw."""
    for name in () if draw_only else BENCHMARKS:
        script = Path(__file__).with_name(f"benchmark_{name}.py")
        options = ["--device", device, "--out", str(out)]
        done = subprocess.run([sys.executable, str(script), *options])
        if done.returncode:
            raise SystemExit(done.returncode)
    results = read(out)
    typer.echo(summary(results))
    typer.echo(f"Drawn: {draw(results, out)}")


if __name__ == "__main__":
    start(main)
