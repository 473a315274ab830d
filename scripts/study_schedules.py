"""Fewer steps for the same errors: schedules, batches, warm-up and averages, on validation data.

    python scripts/study_schedules.py LINES.jsonl --real ani1x_1000.h5 --pair pair.h5 --minutes 60
    python scripts/study_schedules.py LINES.jsonl --minutes 0        # the table alone

`pair.h5` is what `generate_xtb_pair.py pair.h5 --n 1500` makes. Every training is one line of
LINES, and a training that is there is not repeated. All variants of the preset `robust` are trained
with the same seeds on the same splits, so they are compared in pairs with the preset itself (`80
epochs`). Errors are of validation structures that choose nothing (half B of `study_kept_epoch.py`)
at the last epoch, RMSE and MAE of all energies and known forces; test structures are never looked
at. Seeds begin at 100.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import numpy as np
import torch
import typer
from kept_epoch_tables import Case, ratio, read_lines, score
from study_kept_epoch import FIRST_SEED, data_of, measure
from tqdm import tqdm

from hippynn_mf.data.database import build_database
from hippynn_mf.data.embedded import MINI_ANI1X
from hippynn_mf.hyperparameters import get_hyperparameters
from hippynn_mf.labels import with_all_forces
from hippynn_mf.level_records import read_levels
from hippynn_mf.levels import KNOWN_LEVELS
from hippynn_mf.model.model import build_model
from hippynn_mf.report.text import markdown
from hippynn_mf.training.loop import Training, continue_training, prepare_training


@dataclass(frozen=True)
class Variant:
    """Changes of the preset `robust`, and epochs in which the learning rate grows to its value."""

    changes: Mapping[str, Any] = field(default_factory=dict)
    warm_up: int = 0

    def hyperparameters(self) -> Any:
        """Those of the training, which stops at its last epoch only."""
        n_epochs = self.changes.get("max_epochs", 80)
        return get_hyperparameters("robust", {**self.changes, "termination_patience": n_epochs})


HALF = MappingProxyType({"max_epochs": 40})
BASE, COUPLED = "80 epochs", "80 epochs, coupled heads"
VARIANTS = {
    BASE: Variant(),
    "80 epochs, EMA 0.99": Variant({"ema_decay": 0.99}),
    "40 epochs": Variant(HALF),
    "40 epochs, EMA 0.99": Variant({**HALF, "ema_decay": 0.99}),
    "40 epochs, rate × 2": Variant({**HALF, "learning_rate": 8e-3}),
    "40 epochs, rate × 2, warm-up 4": Variant({**HALF, "learning_rate": 8e-3}, warm_up=4),
    "40 epochs, batch 16": Variant({**HALF, "batch_size": 16}),
    "80 epochs, batch 64, rate × 1.4": Variant({"batch_size": 64, "learning_rate": 5.6e-3}),
    "20 epochs, batch 16": Variant({"max_epochs": 20, "batch_size": 16}),
    COUPLED: Variant({"coupling": "delta"}),
}
# Data by name, with the epochs of `Case` left to the variants.
CASES = {
    "embedded, MF": Case({"DZ": "EF", "CC": "E"}, 0),
    "embedded, SF": Case({"DZ": "EF"}, 0),
    "real, MF": Case({"DZ": "EF", "TZ": "E"}, 0),
    "GFN pair, MF": Case({"GFN1": "EF", "GFN2": "E"}, 0),
}
PAIR = {BASE, COUPLED}  # what is trained on the pair of `benchmark_gfn_pair.py`
LEVELS = Path(__file__).with_name("xtb_levels.json")
PLACES = range(4)  # split and seed


class WarmUp:
    """Multiplies the learning rate of every step of the first epochs; a batch callback."""

    def __init__(self, training: Training, n_epochs: int, n_batches: int) -> None:
        self.optimizer = training.controller.optimizer
        self.n_steps, self.step = n_epochs * n_batches, 0
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self._set()

    def _set(self) -> None:
        factor = (self.step + 1) / self.n_steps
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor

    def __call__(self, *_: Any) -> None:
        """Before the next step."""
        self.step += 1
        if self.step < self.n_steps:
            self._set()


def train_one(setting: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Train one setting; its line."""
    case, variant = CASES[setting["data"]], VARIANTS[setting["variant"]]
    levels = read_levels(LEVELS) if setting["data"].startswith("GFN") else KNOWN_LEVELS
    labels, parts = data_of(case, path, setting["seed"], levels)
    measured = parts.pop("measured")
    hyperparameters = variant.hyperparameters()
    torch.manual_seed(setting["seed"])
    model = build_model(hyperparameters, labels)
    database = build_database(parts, labels, seed=setting["seed"])
    training = prepare_training(model, database, hyperparameters)
    n_batches = -(-len(parts["train"]) // hyperparameters.batch_size)
    callbacks: Sequence[Callable[..., None]] = ()
    if variant.warm_up:
        callbacks = [WarmUp(training, variant.warm_up, n_batches)]
    began = time.process_time()
    continue_training(training, [], batch_callbacks=callbacks)
    cpu_s = time.process_time() - began
    full = build_model(hyperparameters, with_all_forces(labels))
    average = training.average
    with nullcontext() if average is None else average.in_place():
        full.parameters.load_state_dict(training.model.parameters.state_dict())
    return {
        **setting,
        "n_train": len(parts["train"]),
        "n_steps": n_batches * hyperparameters.max_epochs,
        "cpu_s": round(cpu_s, 1),
        "errors": measure(full, measured, labels),
    }


def settings() -> Iterator[dict[str, Any]]:
    """Every training of the plan; each place is complete before the next begins."""
    for place, data, variant in product(PLACES, CASES, VARIANTS):
        if data.startswith("GFN") and variant not in PAIR:
            continue
        if data.endswith("SF") and variant == COUPLED:
            continue
        yield {"data": data, "variant": variant, "seed": FIRST_SEED + place}


def train_plan(lines: Path, paths: Mapping[str, Path | None], minutes: float) -> None:
    """Train what the file does not have yet, one after another with one thread."""
    torch.set_num_threads(1)
    known = read_lines(lines)
    done = [{name: line[name] for name in next(settings())} for line in known]
    spent = 60 * minutes
    for setting in tqdm(list(settings()), unit="training", disable=minutes <= 0):
        path = paths[setting["data"].split(",")[0]]
        if setting in done or path is None or spent <= 0:
            continue
        line = train_one(setting, path)
        spent -= line["cpu_s"]
        with lines.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Errors and cost of every variant beside the preset's, over seeds and splits, by data."""
    by_key = {(line["data"], line["variant"], line["seed"]): line for line in lines}
    rows = [["variant", "steps", *(f"{data}: errors" for data in CASES)]]
    for variant in VARIANTS:
        cells, steps = [], []
        for data in CASES:
            pairs = [
                (line, by_key[data, BASE, seed])
                for (of_data, name, seed), line in by_key.items()
                if (of_data, name) == (data, variant) and (data, BASE, seed) in by_key
            ]
            steps += [line["n_steps"] / base["n_steps"] for line, base in pairs]
            scores = [score(line["errors"], base["errors"]) for line, base in pairs]
            cells.append(ratio(scores) if variant != BASE and scores else "1" if scores else "—")
        rows.append([variant, f"{np.mean(steps):.2f}" if steps else "—", *cells])
    return markdown(rows)


def main(
    lines: Annotated[Path, typer.Argument(help="File of the study, a line for each training.")],
    real: Annotated[Path | None, typer.Option(help="Real ANI-1x; without it not trained.")] = None,
    pair: Annotated[Path | None, typer.Option(help="GFN pair; without it not trained.")] = None,
    minutes: Annotated[float, typer.Option(help="Processor time in which trainings begin.")] = 60,
) -> None:
    """Train what the plan has and the file has not, and print the table of all lines."""
    train_plan(lines, {"embedded": MINI_ANI1X, "real": real, "GFN pair": pair}, minutes)
    typer.echo(table(read_lines(lines)))


if __name__ == "__main__":
    typer.run(main)
