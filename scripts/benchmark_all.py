"""Run every benchmark and draw the picture of the README.

    python scripts/benchmark_all.py
    python scripts/benchmark_all.py --draw-only

Twenty minutes on two quiet cores. Results are JSON files in `scripts/benchmarks`.
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
from benchmarking import RESULTS
from matplotlib.axes import Axes

from hippynn_mf.files import replace_when_complete

BENCHMARKS = ("step", "inference", "memory", "ensemble")
COLOURS = {"stock": "#8c8c8c", "fast": "#0b6fa4", "blocks": "#d1603d"}
NAMES = {"stock": "hippynn", "fast": "hippynn_mf", "blocks": "hippynn_mf, in blocks"}

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
    values = [row["fast_speedup"] for row in rows]
    axes.barh([label_of(row) for row in rows], values, color=COLOURS["fast"])
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


def draw(out: Path) -> Path:
    """Draw `speed.png` from the results in a folder."""
    drawn = ("step", "inference", "memory")
    results = {name: json.loads((out / f"{name}.json").read_text()) for name in drawn}
    figure, axes = plt.subplots(1, 3, figsize=(14, 4.6), layout="constrained")
    draw_steps(axes[0], results["step"])
    draw_dynamics(axes[1], results["inference"])
    draw_memory(axes[2], results["memory"])
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
    with replace_when_complete(out / "speed.png") as path:
        figure.savefig(path, format="png", dpi=110)
    plt.close(figure)
    return out / "speed.png"


def main(
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:n.")] = "cpu",
    draw_only: Annotated[bool, typer.Option("--draw-only", help="Measure nothing.")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Measure step, inference and memory, then draw."""
    for name in () if draw_only else BENCHMARKS:
        script = Path(__file__).with_name(f"benchmark_{name}.py")
        options = ["--device", device, "--out", str(out)]
        subprocess.run([sys.executable, str(script), *options], check=True)
    typer.echo(f"Drawn: {draw(out)}")


if __name__ == "__main__":
    typer.run(main)
