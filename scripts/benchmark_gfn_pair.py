"""Force errors at a level whose forces were never trained, after so many seconds of one core.

    pip install -e '.[qm]'
    python scripts/benchmark_gfn_pair.py FOLDER
    python scripts/benchmark_gfn_pair.py FOLDER --seeds 2 --seconds 300

Makes 1,500 conformers with GFN1-xTB and GFN2-xTB (`generate_xtb_pair.py`), and trains MF-GFN1/EF-
GFN2/E with preset `robust` and coupled heads, one thread, on split 0, for as many epochs as
processor seconds allow: a run of seed 100 of a few epochs says how many that are. Coupled heads
were chosen on validation data of two seeds alone, 100 and 101, of which one hardly preferred them;
`study_schedules.py --pair` compares both. The errors are of held-out conformers. FOLDER keeps data
and runs; what is there is not computed again. A step of stock hippynn on the same network and batch
size is timed beside it, so that other machines can be compared. Results are in
`scripts/benchmarks/gfn_pair.json`.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from benchmark_step import draw_batch, make_step, make_training_step, stock_loss
from benchmarking import RESULTS, Case, OutOption, compare, network_pair, quiet, start, write

from hippynn_mf.evaluation.schema import HELDOUT
from hippynn_mf.hyperparameters import PRESETS
from hippynn_mf.report.results import read_results

HERE = Path(__file__).parent
EXPERIMENT, HIGH, PRESET = "MF-GFN1/EF-GFN2/E", "gfn2_xtb", "robust"
COUPLING = "delta"
N_CONFORMERS = 1500
PROBE_EPOCHS, PROBE_SEED = 6, 100
CPU = torch.device("cpu")


def run_campaign(folder: Path, data: Path, seeds: str, n_epochs: int) -> None:
    """Train the experiment with some seeds by the command line, one run after another."""
    command = [
        *(str(Path(sys.executable).with_name("hippynn-mf")), "campaign"),
        *("--experiments", EXPERIMENT),
        *("--levels", str(HERE / "xtb_levels.json"), "--data", str(data), "--rows", "all"),
        *("--preset", PRESET, "--seeds", seeds, "--workers", "1", "--engine", "pool"),
        *("--set", f"coupling={COUPLING}"),
        *("--set", f"max_epochs={n_epochs}", "--set", f"termination_patience={n_epochs}"),
        *("--out", str(folder)),
    ]
    typer.echo(" ".join(["hippynn-mf", *command[1:]]))
    done = subprocess.run(command)
    if done.returncode:
        raise SystemExit(done.returncode)


def epochs_within(seconds: float, folder: Path, data: Path) -> int:
    """How many epochs take so many processor seconds, by the median of a few."""
    run_campaign(folder, data, str(PROBE_SEED), PROBE_EPOCHS)
    (lines,) = folder.glob("runs/*/*/epochs.jsonl")
    epochs = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    return int(seconds / statistics.median(epoch["cpu_s"] for epoch in epochs[1:]))


def time_steps(repeats: int) -> dict[str, Any]:
    """A step of stock hippynn and one of ours, in turn, of the preset's network and batch size."""
    preset = PRESETS[PRESET]
    case = Case(preset=PRESET, n_features=preset.n_features)
    with case.setting(), quiet():
        models = network_pair(case)
        batch = draw_batch(case, models["stock"].heads, CPU)
        batch = {name: array[: preset.batch_size] for name, array in batch.items()}
        steps = {
            "stock": make_step(stock_loss(models["stock"].heads), batch, CPU)[1],
            "ours": make_training_step(models["ours"], batch, CPU)[1],
        }
        return compare(steps, repeats)


def errors_of(folder: Path) -> list[dict[str, Any]]:
    """Seed, processor seconds and errors at the high level of every run."""
    found = []
    for run in read_results(folder).finished:
        assert run.metrics is not None
        errors, training = run.sets[HELDOUT][HIGH][HIGH], run.metrics["training"]
        found.append(
            {
                "seed": run.seed,
                "n_epochs": training["n_epochs"],
                "cpu_s": training["cpu_s"],
                "energy_rmse": errors["energy_rmse_kcal_per_mol"],
                "force_rmse": errors["force_rmse_kcal_per_mol_per_angstrom"],
            }
        )
    return sorted(found, key=lambda line: line["seed"])


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Errors of every seed as a Markdown table."""
    lines = ["| seed | epochs | CPU s | energy RMSE, kcal/mol | force RMSE, kcal/mol/Å |"]
    lines.append("|---|---|---|---|---|")
    lines += [
        f"| {row['seed']} | {row['n_epochs']} | {row['cpu_s']:.0f} | {row['energy_rmse']:.2f} "
        f"| {row['force_rmse']:.2f} |"
        for row in rows
        if "seed" in row
    ]
    return "\n".join(lines)


def main(
    folder: Annotated[Path, typer.Argument(help="Folder of data and runs.")],
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, from 0 on.")] = 8,
    seconds: Annotated[float, typer.Option(min=1, help="Processor seconds of a training.")] = 300,
    out: OutOption = RESULTS,
) -> None:
    """Train every seed, write `gfn_pair.json` and print its table."""
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "pair.h5"
    if not data.exists():
        script = str(HERE / "generate_xtb_pair.py")
        subprocess.run([sys.executable, script, str(data), "--n", str(N_CONFORMERS)], check=True)
    n_epochs = epochs_within(seconds, folder / "probe", data)
    runs = folder / f"{n_epochs}-epochs"
    run_campaign(runs, data, ",".join(map(str, range(seeds))), n_epochs)
    rows = [*errors_of(runs), {"kind": "step"} | time_steps(repeats=11)]
    write("gfn_pair", rows, CPU, out)
    typer.echo(table(rows))


if __name__ == "__main__":
    start(main)
