"""Which epoch to keep, on validation data alone: rules, averages, force weights and coupling.

    python scripts/study_kept_epoch.py LINES.jsonl --real ani1x_1000.h5 --minutes 25
    python scripts/study_kept_epoch.py LINES.jsonl --minutes 0        # the tables alone

Every training is one line of LINES, and a training that is there is not repeated. Of each split the
validation structures are halved: A stands for the validation data of a user, by which epochs are
chosen, B measures what was chosen, with all labels that the file has. Test structures are never
looked at. All rules and averages are followed in the same training, so they are compared in pairs.

Data, by name:

- `few`: 300 training structures of the embedded data, DZ/EF-CC/E, CC energies for 60 of them and
  for 6 of half A.
- `all`: all embedded training structures, DZ/EF-CC/E.
- `real`: real ANI-1x, DZ/EF-TZ/E; B also measures TZ forces, which are never trained.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from kept_epoch_tables import (
    CASES,
    COUPLINGS,
    DECAYS,
    FORCE_WEIGHTS,
    Case,
    format_tables,
    paired_errors,
    ratios,
    read_lines,
)

from hippynn_mf import keys
from hippynn_mf.data.arrays import reference_energies, reference_forces
from hippynn_mf.data.database import build_database
from hippynn_mf.data.embedded import MINI_ANI1X
from hippynn_mf.data.loading import load_splits
from hippynn_mf.data.structures import Structures
from hippynn_mf.evaluation.errors import energy_metrics, force_metrics
from hippynn_mf.files import replace_when_complete
from hippynn_mf.hyperparameters import get_hyperparameters
from hippynn_mf.labels import Labels, join_labels, parse_labels, with_all_forces
from hippynn_mf.levels import KNOWN_LEVELS, PAPER_LEVELS, Level, Levels
from hippynn_mf.model.model import Model, build_model
from hippynn_mf.model.predicting import predict_arrays
from hippynn_mf.training.averaging import WeightAverage
from hippynn_mf.training.loop import Training, continue_training, prepare_training

FIRST_SEED = 100  # of splits and weights: none that a table shows
REAL = Path(__file__).parent / "benchmarks" / "real_pairs.json"
EVERY = 2  # epochs between two looks at the validation data
# Data and how many splits, in the order in which they are trained.
PLAN = (
    *(("few", 0), ("few", 1), ("few", 2), ("real", 0)),
    *(("all", 0), ("real", 1), ("all", 1), ("real", 2)),
)


def rules_of(levels: list[Level], metrics: list[dict[str, float]]) -> dict[str, int]:
    """The place of the epoch that each rule keeps, of the metrics of half A at every look."""
    forces = [keys.force_mae(level.id) for level in levels]
    robust = [keys.energy_mae(level.id) for level in levels] + [
        f for f in forces if f in metrics[0]
    ]
    series = {
        "best_energy": [of_epoch[keys.ENERGY_RMSE_SUM] for of_epoch in metrics],
        "best_loss": [of_epoch[keys.LOSS] for of_epoch in metrics],
        "best_robust": [sum(of_epoch[name] for name in robust) for of_epoch in metrics],
        "best_log": [sum(math.log(of_epoch[name]) for name in robust) for of_epoch in metrics],
    }
    places = {rule: int(np.argmin(values)) for rule, values in series.items()}
    return places | {"last": len(metrics) - 1}


def halves(valid: Structures, seed: int) -> tuple[Structures, Structures]:
    """Half A and half B of the validation structures."""
    order = np.random.default_rng((seed, 7)).permutation(len(valid))
    half = len(valid) // 2
    return valid[np.sort(order[:half])], valid[np.sort(order[half:])]


def with_fewer(part: Structures, level: Level, n: int | None, seed: int) -> Structures:
    """The structures with `n` energies of a level, the others NaN."""
    if n is None:
        return part
    members = np.flatnonzero(part.has_energy(level))
    lost = np.random.default_rng((seed, 8)).permutation(members)[n:]
    values = part.energies[level.id].copy()
    values[lost] = np.nan
    return replace(part, energies={**part.energies, level.id: values})


def data_of(
    case: Case, path: Path, split_seed: int, levels: Levels = KNOWN_LEVELS
) -> tuple[Labels, dict[str, Structures]]:
    """The labels that are trained, and the structures `train`, `valid` (half A) and `measured`."""
    labels = parse_labels(case.labels, levels=levels)
    is_embedded = path == MINI_ANI1X
    everything = labels if is_embedded else join_labels(labels, with_all_forces(labels))
    parts = load_splits(path, everything, common_levels=PAPER_LEVELS,
                        rows="common" if is_embedded else "all", split_seed=split_seed,
                        levels=levels)  # fmt: skip
    half_a, half_b = halves(parts["valid"], split_seed)
    *_, highest = labels
    train = parts["train"]
    if case.n_train is not None:
        chosen = np.random.default_rng((split_seed, 9)).permutation(len(train))[: case.n_train]
        train = train[np.sort(chosen)]
    return labels, {
        "train": with_fewer(train, highest, case.n_high_train, split_seed),
        "valid": with_fewer(half_a, highest, case.n_high_valid, split_seed),
        "measured": half_b,
    }


def measure(model: Model, measured: Structures, labels: Labels) -> dict[str, float]:
    """RMSE and MAE of every energy and known force on half B."""
    predicted = predict_arrays(model, measured.species, measured.positions, batch_size=1024)
    found: dict[str, float] = {}
    for level in labels:
        errors = energy_metrics(predicted[level.energy_name], reference_energies(measured, level))
        if level.id in measured.forces:
            errors |= force_metrics(predicted[level.forces_name], reference_forces(measured, level),
                                    measured.atom_mask)  # fmt: skip
        for name, value in errors.items():
            kind, metric, *_ = name.split("_")
            if metric in ("rmse", "mae") and isinstance(value, float):
                found[f"{level.label}.{kind}.{metric}"] = round(value, 4)
    return found


class Looks:
    """Looks at the validation data, of the weights and of every average of them."""

    def __init__(self, training: Training, labels: Labels, measured: Structures,
                 hyperparameters: Any) -> None:  # fmt: skip
        self.training, self.labels, self.measured = training, labels, measured
        self.model = build_model(hyperparameters, with_all_forces(labels))
        parameters = training.model.parameters
        self.averages = {
            name: WeightAverage(parameters, decay) for name, decay in DECAYS.items() if decay
        }
        self.metrics: dict[str, list[dict[str, float]]] = {name: [] for name in DECAYS}
        self.errors: dict[str, list[dict[str, float]]] = {name: [] for name in DECAYS}
        self.epochs: list[int] = []

    def after_step(self, *_: Any) -> None:
        """Move every average; a batch callback."""
        for average in self.averages.values():
            average.update()

    def after_epoch(self, epoch: int, better: bool) -> None:
        """Look after every second epoch; an epoch callback."""
        if (epoch + 1) % EVERY:
            return
        self.epochs.append(epoch + 1)
        self._look("none", self.training.tracker.epoch_metric_values[-1]["valid"])
        for name, average in self.averages.items():
            with average.in_place():
                database, evaluator = self.training.database, self.training.modules.evaluator
                batches = database.make_generator("valid", "eval", 1024)
                self._look(name, evaluator.evaluate(batches, eval_type="valid", when=epoch))

    def _look(self, name: str, metrics: Mapping[str, float]) -> None:
        self.metrics[name].append(dict(metrics))
        self.model.parameters.load_state_dict(self.training.model.parameters.state_dict())
        self.errors[name].append(measure(self.model, self.measured, self.labels))

    def outcomes(self) -> Iterator[tuple[str, str, int, dict[str, float]]]:
        """Average, rule, epoch that it keeps, and its errors on half B."""
        for name in DECAYS:
            for rule, place in rules_of(list(self.labels), self.metrics[name]).items():
                yield name, rule, self.epochs[place], self.errors[name][place]


def train_one(setting: Mapping[str, Any], path: Path) -> tuple[dict[str, Any], Looks]:
    """Train one setting; its line, and what was seen on the way."""
    case = CASES[setting["data"]]
    labels, parts = data_of(case, path, setting["split_seed"])
    hyperparameters = get_hyperparameters(
        "quick",
        {
            "force_weight": setting["force_weight"],
            "coupling": setting["coupling"],
            "max_epochs": case.max_epochs,
            "termination_patience": case.max_epochs,
        },
    )
    torch.manual_seed(setting["seed"])
    model = build_model(hyperparameters, labels)
    measured = parts.pop("measured")
    database = build_database(parts, labels, seed=setting["seed"])
    training = prepare_training(model, database, hyperparameters)
    looks = Looks(training, labels, measured, hyperparameters)
    began = time.process_time()
    continue_training(training, [looks.after_epoch], batch_callbacks=[looks.after_step])
    outcomes = [
        {"average": average, "rule": rule, "epoch": epoch, "errors": errors}
        for average, rule, epoch, errors in looks.outcomes()
    ]
    facts = {
        "max_epochs": case.max_epochs,
        "n_train": len(parts["train"]),
        "n_measured": len(measured),
        "cpu_s": round(time.process_time() - began, 1),
    }
    return {**setting, **facts, "outcomes": outcomes}, looks


def settings() -> Iterator[dict[str, Any]]:
    """Every training of the plan."""
    for data, place in PLAN:
        for weight, coupling in product(FORCE_WEIGHTS, COUPLINGS):
            seed = FIRST_SEED + place
            yield {"data": data, "split_seed": seed, "seed": seed, "force_weight": weight,
                   "coupling": coupling}  # fmt: skip


def train_plan(lines: Path, *, real: Path | None, minutes: float, curves: Path | None) -> None:
    """Train what the file does not have yet, one after another with one thread."""
    torch.set_num_threads(1)
    done = [{name: line[name] for name in next(settings())} for line in read_lines(lines)]
    spent = 60 * minutes - sum(line["cpu_s"] for line in read_lines(lines))
    paths = {"few": MINI_ANI1X, "all": MINI_ANI1X, "real": real}
    for setting in settings():
        path = paths[setting["data"]]
        if setting in done or path is None or spent <= 0:
            continue
        line, looks = train_one(setting, path)
        spent -= line["cpu_s"]
        if curves is not None:
            name = "-".join(str(value) for value in setting.values())
            content = {"epochs": looks.epochs, "metrics": looks.metrics, "errors": looks.errors}
            (curves / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        with lines.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        typer.echo(f"{setting} {line['cpu_s']} s")


def main(
    lines: Annotated[Path, typer.Argument(help="File of the study, a line for each training.")],
    real: Annotated[Path | None, typer.Option(help="Real ANI-1x; without it not trained.")] = None,
    minutes: Annotated[float, typer.Option(help="Processor time in which trainings begin.")] = 25,
    curves: Annotated[Path | None, typer.Option(help="Folder for errors at every look.")] = None,
    compare: Annotated[
        list[Path] | None,
        typer.Option(
            help="Only ratios of MF-DZ/EF-TZ/E to SF-TZ/EF in a folder of runs, written to "
            "scripts/benchmarks/real_pairs.json."
        ),
    ] = None,
) -> None:
    """Train what the plan has and the file has not, and print the tables of all lines."""
    if compare:
        rows = paired_errors(compare)
        with replace_when_complete(REAL) as partial:
            partial.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        typer.echo(ratios(rows))
        return
    train_plan(lines, real=real, minutes=minutes, curves=curves)
    typer.echo(format_tables(read_lines(lines)))


if __name__ == "__main__":
    typer.run(main)
