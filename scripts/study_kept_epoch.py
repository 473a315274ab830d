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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from hippynn_mf import keys
from hippynn_mf.data.arrays import reference_energies, reference_forces
from hippynn_mf.data.database import build_database
from hippynn_mf.data.embedded import MINI_ANI1X
from hippynn_mf.data.loading import load_splits
from hippynn_mf.data.structures import Structures
from hippynn_mf.evaluation.errors import energy_metrics, force_metrics
from hippynn_mf.evaluation.schema import HELDOUT
from hippynn_mf.hyperparameters import get_hyperparameters
from hippynn_mf.labels import Labels, join_labels, parse_labels, with_all_forces
from hippynn_mf.levels import PAPER_LEVELS, Level
from hippynn_mf.model.model import Model, build_model
from hippynn_mf.model.predicting import predict_arrays
from hippynn_mf.report.columns import Column
from hippynn_mf.report.results import read_results
from hippynn_mf.report.statistics import estimate_mean, pair
from hippynn_mf.report.text import markdown
from hippynn_mf.runs.experiment import parse_experiment
from hippynn_mf.training.averaging import WeightAverage
from hippynn_mf.training.loop import Training, continue_training, prepare_training

FIRST_SEED = 100  # of splits and weights: none that a table shows
EVERY = 2  # epochs between two looks at the validation data
DECAYS = {"none": 0.0, "0.99": 0.99, "0.999": 0.999}
FORCE_WEIGHTS = (4.0, 1.0, 10.0)
COUPLINGS = ("independent", "delta")


@dataclass(frozen=True)
class Case:
    """A data set of the study."""

    labels: Mapping[str, str]
    max_epochs: int
    n_train: int | None = None
    n_high_train: int | None = None
    n_high_valid: int | None = None


CASES = {
    "few": Case({"DZ": "EF", "CC": "E"}, 80, n_train=300, n_high_train=60, n_high_valid=6),
    "real": Case({"DZ": "EF", "TZ": "E"}, 40),
    "all": Case({"DZ": "EF", "CC": "E"}, 40),
}
# Data and how many splits, in the order in which they are trained.
PLAN = (("few", 0), ("few", 1), ("few", 2), ("real", 0), ("all", 0), ("real", 1), ("all", 1))


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


def data_of(case: Case, path: Path, split_seed: int) -> tuple[Labels, dict[str, Structures]]:
    """The labels that are trained, and the structures `train`, `valid` (half A) and `measured`."""
    labels = parse_labels(case.labels)
    is_embedded = path == MINI_ANI1X
    everything = labels if is_embedded else join_labels(labels, with_all_forces(labels))
    parts = load_splits(path, everything, common_levels=PAPER_LEVELS,
                        rows="common" if is_embedded else "all", split_seed=split_seed)  # fmt: skip
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


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of the study, none if there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


Errors = Mapping[str, float]
BASE = ("none", "best_energy")  # average and rule of the preset quick


def outcome_of(line: Mapping[str, Any], average: str, rule: str) -> Errors:
    """The errors of half B of one training with an average and a rule."""
    (errors,) = (
        outcome["errors"]
        for outcome in line["outcomes"]
        if (outcome["average"], outcome["rule"]) == (average, rule)
    )
    return errors  # type: ignore[no-any-return]


def score(errors: Errors, reference: Errors) -> float:
    """Mean over all errors, RMSE and MAE, of the logarithm of their ratio to those of another."""
    return float(np.mean([math.log(value / reference[name]) for name, value in errors.items()]))


def ratio(logarithms: Sequence[float]) -> str:
    """The geometric mean of ratios with the 95 % interval of their mean logarithm."""
    mean = estimate_mean(list(logarithms))
    if mean is None:
        return "—"
    if mean.n == 1:
        return f"{math.exp(mean.value):.2f} (one)"
    if mean.low is None or mean.high is None:
        low, high = mean.smallest, mean.largest
        return f"{math.exp(mean.value):.2f} ({math.exp(low):.2f} to {math.exp(high):.2f})"
    return f"{math.exp(mean.value):.2f} [{math.exp(mean.low):.2f}, {math.exp(mean.high):.2f}]"


def rules_table(lines: Sequence[Mapping[str, Any]]) -> str:
    """All rules and averages beside the preset quick's, in the same trainings."""
    cases = [name for name in CASES if any(line["data"] == name for line in lines)]
    rows = [["average", "rule", *cases]]
    for average, rule in product(DECAYS, ("best_energy", "best_loss", "best_robust", "last")):
        cells = []
        for case in cases:
            pairs = [(outcome_of(line, average, rule), outcome_of(line, *BASE))
                     for line in lines if line["data"] == case]  # fmt: skip
            cells.append(ratio([score(*pair) for pair in pairs]))
        rows.append([average, rule, *cells])
    return markdown(rows)


def weights_table(lines: Sequence[Mapping[str, Any]], rule: str) -> str:
    """Force weights and couplings beside weight 1 and independent heads, on the same splits."""
    rows: list[list[str]] = [["data", "force weight", "coupling", "splits", "all"]]
    kinds = ("low energy", "low force", "high energy", "high force")
    rows[0] += [f"{kind}, {metric}" for kind, metric in product(kinds, ("rmse", "mae"))]
    for case, weight, coupling in product(CASES, sorted(FORCE_WEIGHTS), COUPLINGS):
        of_case = [line for line in lines if line["data"] == case]
        base = {line["split_seed"]: outcome_of(line, BASE[0], rule) for line in of_case
                if (line["force_weight"], line["coupling"]) == (1.0, "independent")}  # fmt: skip
        pairs = [
            (outcome_of(line, BASE[0], rule), base[line["split_seed"]])
            for line in of_case
            if (line["force_weight"], line["coupling"]) == (weight, coupling)
            and line["split_seed"] in base
        ]
        if not pairs:
            continue
        low, high = CASES[case].labels
        cells = []
        for kind, metric in product(kinds, ("rmse", "mae")):
            level = low if kind.startswith("low") else high
            name = f"{level}.{kind.split()[1]}.{metric}"
            logarithms = [math.log(own[name] / other[name]) for own, other in pairs if name in own]
            mean = np.mean(logarithms) if logarithms else None
            cells.append("—" if mean is None else f"{math.exp(mean):.2f}")
        own_scores = [score(*pair) for pair in pairs]
        rows.append([case, f"{weight:g}", coupling, str(len(pairs)), ratio(own_scores), *cells])
    return markdown(rows)


def mean_score(
    lines: Sequence[Mapping[str, Any]], ours: tuple[str, str], theirs: tuple[str, str]
) -> float:
    """Geometric mean over all trainings of the ratio of all errors of two averages and rules."""
    scores = [score(outcome_of(line, *ours), outcome_of(line, *theirs)) for line in lines]
    return math.exp(float(np.mean(scores)))


def weight_ratios(lines: Sequence[Mapping[str, Any]], case: str, weight: float) -> dict[str, float]:
    """Geometric mean ratios of errors with a force weight to those with 1, RMSE and MAE together.

    Of independent heads at the last epoch, by `low energy`, `low force` and so on.
    """
    low, _ = CASES[case].labels
    found: dict[str, list[float]] = {}
    chosen = [line for line in lines if (line["data"], line["coupling"]) == (case, COUPLINGS[0])]
    for line in chosen:
        for other in chosen:
            if (line["force_weight"], other["force_weight"]) != (weight, 1.0):
                continue
            if line["split_seed"] == other["split_seed"]:
                theirs = outcome_of(other, BASE[0], "last")
                for name, value in outcome_of(line, BASE[0], "last").items():
                    level, kind, _ = name.split(".")
                    place = f"{'low' if level == low else 'high'} {kind}"
                    found.setdefault(place, []).append(math.log(value / theirs[name]))
    return {place: math.exp(float(np.mean(values))) for place, values in found.items()}


def n_splits(lines: Sequence[Mapping[str, Any]], case: str) -> int:
    """Splits on which independent heads were trained with weights 1 and 4."""
    splits = [
        {line["split_seed"] for line in lines
         if (line["data"], line["coupling"], line["force_weight"]) == (case, COUPLINGS[0], weight)}
        for weight in (1.0, 4.0)
    ]  # fmt: skip
    return len(splits[0] & splits[1])


def preset_of_study() -> tuple[str, str, float, str]:
    """Average, rule, force weight and coupling of the preset `robust`."""
    robust = get_hyperparameters("robust")
    average = f"{robust.ema_decay:g}" if robust.ema_decay else "none"
    return average, robust.kept_epoch, robust.force_weight, robust.coupling


def format_tables(lines: Sequence[Mapping[str, Any]]) -> str:
    """Both tables."""
    return f"{rules_table(lines)}\n\n{weights_table(lines, 'last')}\n"


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


def epochs_of_preset() -> int:
    """The epochs of the presets `quick` and `robust`."""
    return get_hyperparameters("robust").max_epochs


def ratios(folders: Sequence[Path], multi: str = "MF-DZ/EF-TZ/E", single: str = "SF-TZ/EF") -> str:
    """Held-out errors of an experiment over those of another, paired by seed, for each folder."""
    *_, level = parse_experiment(multi).resolved_labels
    rows = [["folder", "error", "seeds", f"{multi} / {single}"]]
    for folder in folders:
        results = read_results(folder)
        for quantity, metric in product(("energy", "force"), ("rmse", "mae")):
            column = Column.own(HELDOUT, level, quantity)
            pairs = pair(
                results.values(multi, column, metric), results.values(single, column, metric)
            )
            logarithms = np.log(pairs["ours"] / pairs["theirs"]).tolist()
            name = f"{level.label} {quantity}, {metric.upper()}"
            rows.append([folder.name, name, str(len(pairs)), ratio(logarithms)])
    return markdown(rows)


def main(
    lines: Annotated[Path, typer.Argument(help="File of the study, a line for each training.")],
    real: Annotated[Path | None, typer.Option(help="Real ANI-1x; without it not trained.")] = None,
    minutes: Annotated[float, typer.Option(help="Processor time in which trainings begin.")] = 25,
    curves: Annotated[Path | None, typer.Option(help="Folder for errors at every look.")] = None,
    compare: Annotated[
        list[Path] | None,
        typer.Option(help="Only ratios of MF-DZ/EF-TZ/E to SF-TZ/EF in a folder of runs."),
    ] = None,
) -> None:
    """Train what the plan has and the file has not, and print the tables of all lines."""
    if compare:
        typer.echo(ratios(compare))
        return
    train_plan(lines, real=real, minutes=minutes, curves=curves)
    typer.echo(format_tables(read_lines(lines)))


if __name__ == "__main__":
    typer.run(main)
