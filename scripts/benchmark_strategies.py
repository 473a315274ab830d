"""What the strategies cost: training, and energies with forces of the high level.

    python scripts/benchmark_strategies.py

An epoch of every phase, its validation included, and the energies and forces of the held-out
structures, in processor time: other work on the machine hardly counts. All strategies take turns in
one process, `--rounds` times, and the least of each counts. A training is `max_epochs` epochs of
each of its phases.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from benchmarking import RESULTS, OutOption, start, write
from tqdm import tqdm

from hippynn_mf.evaluation.test_sets import measure_inference
from hippynn_mf.labels import with_all_forces
from hippynn_mf.levels import CC
from hippynn_mf.model.model import build_model
from hippynn_mf.paper.table1 import strategies
from hippynn_mf.runs.build import build_settings
from hippynn_mf.runs.log import logged_to
from hippynn_mf.runs.models import model_of
from hippynn_mf.runs.phases import phase_database
from hippynn_mf.runs.preflight import load_inputs
from hippynn_mf.runs.request import Request
from hippynn_mf.runs.settings import RunSettings
from hippynn_mf.training.loop import continue_training, prepare_training
from hippynn_mf.training.strategies import Phase

REFERENCE = "SF-CC/E"
N_EPOCHS = 2  # of which the first one also finds neighbours and compiles


def seconds_of_epoch(settings: RunSettings, phase: Phase) -> float:
    """Processor time of the last of `N_EPOCHS` epochs of a phase, from fresh weights."""
    hyperparameters = phase.hyperparameters(settings.hyperparameters)
    parts = load_inputs([settings])
    torch.manual_seed(0)
    model = build_model(hyperparameters, phase.labels)
    training = prepare_training(
        model,
        phase_database(phase, parts, settings),
        hyperparameters.model_copy(update={"max_epochs": N_EPOCHS}),
        phase=phase,
    )
    ends: list[float] = []
    continue_training(training, [lambda *_: ends.append(time.process_time())])
    return ends[-1] - ends[-2]


def measure(settings: RunSettings) -> dict[str, float]:
    """Seconds of a training, and ms of a structure's energies and forces."""
    test = load_inputs([settings])["test"]
    model = model_of(settings, with_all_forces(settings.experiment.resolved_labels))
    batch_size = settings.hyperparameters.eval_batch_size
    inference = measure_inference(model, test, batch_size=batch_size)
    epochs = settings.hyperparameters.max_epochs
    phases = settings.experiment.phases
    return {
        "training_s": epochs * sum(seconds_of_epoch(settings, phase) for phase in phases),
        "inference_ms": inference["cpu_ms_per_structure"],
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        f"| strategy | training, {REFERENCE} = 1 | CC energies and forces, {REFERENCE} = 1 |",
        "|---|---|---|",
    ]
    base = next(row for row in rows if row["experiment"] == REFERENCE)
    for row in rows:
        ratios = (row[key] / base[key] for key in ("training_s", "inference_ms"))
        lines.append(f"| {row['experiment']} | " + " | ".join(f"{r:.1f}" for r in ratios) + " |")
    return "\n".join(lines)


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, of which the least counts.")] = 3,
    out: OutOption = RESULTS,
) -> None:
    """Time every strategy that learns CC; write `strategies.json` and print a Markdown table."""
    torch.set_num_threads(1)
    chosen = [experiment for experiment in strategies() if CC in experiment.resolved_labels]
    runs = build_settings(Request(experiments=[e.name for e in chosen], device="cpu"), chosen)
    measured: dict[str, list[dict[str, float]]] = {settings.name: [] for settings in runs}
    for settings in tqdm(runs * rounds, unit="strategy"):
        with logged_to(Path(os.devnull)):
            measured[settings.name].append(measure(settings))
    rows = [
        {"experiment": name, "threads": 1}
        | {key: min(each[key] for each in found) for key in found[0]}
        for name, found in measured.items()
    ]
    write("strategies", rows, torch.device("cpu"), out)
    typer.echo(table(rows))


if __name__ == "__main__":
    start(main)
