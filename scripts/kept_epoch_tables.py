"""The lines of `study_kept_epoch.py` as tables, and what the documentation says of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from hippynn_mf.evaluation.schema import HELDOUT
from hippynn_mf.hyperparameters import get_hyperparameters
from hippynn_mf.report.columns import Column
from hippynn_mf.report.results import read_results
from hippynn_mf.report.statistics import estimate_mean, pair
from hippynn_mf.report.text import markdown
from hippynn_mf.runs.experiment import parse_experiment

DECAYS = {"none": 0.0, "0.99": 0.99, "0.999": 0.999}
FORCE_WEIGHTS = (4.0, 1.0, 10.0, 2.0)
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


def mean_over_data(lines: Sequence[Mapping[str, Any]], weight: float) -> float:
    """Ratio of all errors with a force weight to those with 1, every data set counting once.

    Of independent heads at the last epoch: geometric means over the splits, then over the data.
    """
    logarithms = []
    for case in CASES:
        of_weight = {
            line["split_seed"]: outcome_of(line, BASE[0], "last")
            for line in lines
            if (line["data"], line["coupling"], line["force_weight"])
            == (case, COUPLINGS[0], weight)
        }
        base = {
            line["split_seed"]: outcome_of(line, BASE[0], "last")
            for line in lines
            if (line["data"], line["coupling"], line["force_weight"]) == (case, COUPLINGS[0], 1.0)
        }
        common = of_weight.keys() & base.keys()
        logarithms.append(np.mean([score(of_weight[seed], base[seed]) for seed in common]))
    return math.exp(float(np.mean(logarithms)))


def preset_of_study() -> tuple[str, str, float, str]:
    """Average, rule, force weight and coupling of the preset `robust`."""
    robust = get_hyperparameters("robust")
    average = f"{robust.ema_decay:g}" if robust.ema_decay else "none"
    return average, robust.kept_epoch, robust.force_weight, robust.coupling


def format_tables(lines: Sequence[Mapping[str, Any]]) -> str:
    """Both tables."""
    return f"{rules_table(lines)}\n\n{weights_table(lines, 'last')}\n"


def epochs_of_preset() -> int:
    """The epochs of the presets `quick` and `robust`."""
    return get_hyperparameters("robust").max_epochs


def paired_errors(
    folders: Sequence[Path], multi: str = "MF-DZ/EF-TZ/E", single: str = "SF-TZ/EF"
) -> list[dict[str, Any]]:
    """Held-out errors of two experiments at the highest level, paired by seed, for each folder."""
    *_, level = parse_experiment(multi).resolved_labels
    rows = []
    for folder in folders:
        results = read_results(folder)
        (preset,) = {run.settings.preset for run in results.runs}
        (data,) = {run.settings.data.sha256 for run in results.runs}
        for quantity, metric in product(("energy", "force"), ("rmse", "mae")):
            column = Column.own(HELDOUT, level, quantity)
            pairs = pair(
                results.values(multi, column, metric), results.values(single, column, metric)
            )
            rows.append(
                {
                    "preset": preset,
                    "data_sha256": data,
                    "level": level.label,
                    "quantity": quantity,
                    "metric": metric,
                    "multi": {multi: pairs["ours"].to_dict()},
                    "single": {single: pairs["theirs"].to_dict()},
                }
            )
    return rows


def _values(row: Mapping[str, Any], who: str) -> np.ndarray:
    """Errors of `multi` or `single` by seed."""
    (errors,) = row[who].values()
    return np.array(list(errors.values()))


def mean_of(row: Mapping[str, Any], who: str) -> float:
    """Mean error over the seeds of `multi` or `single`."""
    return float(_values(row, who).mean())


def ratio_of(row: Mapping[str, Any]) -> str:
    """The geometric mean of both errors' ratios with its 95 % interval over the seeds."""
    return ratio(np.log(_values(row, "multi") / _values(row, "single")).tolist())


def ratios(rows: Sequence[Mapping[str, Any]]) -> str:
    """What `paired_errors` found as a table."""
    (multi,), (single,) = rows[0]["multi"], rows[0]["single"]
    table = [["preset", "error", "seeds", multi, single, "ratio"]]
    for row in rows:
        name = f"{row['level']} {row['quantity']}, {row['metric'].upper()}"
        means = [f"{mean_of(row, who):.2f}" for who in ("multi", "single")]
        n_seeds = str(len(_values(row, "multi")))
        table.append([row["preset"], name, n_seeds, *means, ratio_of(row)])
    return markdown(table)
