"""Variants of heads and losses beside those that the package offers, on MF-DZ/EF-CC/E.

    python scripts/try_head_variants.py OUT --seeds 0,1,2,3,4,5,6,7

- `linear`: the paper's independent heads, trained by this script, to compare with.
- `coupled`: the package's coupled heads (`coupling=delta`), to compare with.
- `hidden`: heads with one hidden layer between features and energies, in every order but the
  zeroth, the atomic energies.
- `ridge`: coupled heads whose correction pays `RIDGE` times the sum of its squared weights.
- `learned`: loss weights of the levels that are learned, exp(−s) L + s for every level
  (Kendall, Gal and Cipolla, arXiv:1705.07115, in the form for L itself).

It shows how a loss or a head of one's own goes into this package's training. Trained parameters and
validation errors of the best epoch are kept below OUT, and a run that is there is not trained
again. The table has the errors of `hippynn-mf train` on the same splits.
"""

from __future__ import annotations

import copy
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from hippynn.experiment import assemble_for_training
from hippynn.experiment.routines import SetupParams, setup_training
from hippynn.graphs.indextypes import IdxType
from hippynn.graphs.nodes.base import SingleNode
from torch import Tensor, nn
from tqdm import tqdm

from hippynn_mf.evaluation.test_sets import evaluate_model, heldout_set
from hippynn_mf.files import read_json, replace_when_complete, write_json
from hippynn_mf.labels import parse_labels
from hippynn_mf.levels import CC, DZ
from hippynn_mf.model.heads import Heads
from hippynn_mf.model.losses import build_loss, build_metrics
from hippynn_mf.model.model import Model, build_model
from hippynn_mf.network.stored_pairs import precompute_pairs
from hippynn_mf.report.columns import Column, comp6_delta_e, heldout_energy, heldout_force
from hippynn_mf.report.kept import write_lines
from hippynn_mf.report.statistics import estimate_mean, format_mean, paired_difference
from hippynn_mf.runs.build import build_settings
from hippynn_mf.runs.log import logged_to
from hippynn_mf.runs.phases import phase_database
from hippynn_mf.runs.preflight import load_inputs, read_tests
from hippynn_mf.runs.request import Request
from hippynn_mf.runs.settings import RunSettings
from hippynn_mf.training.initial_heads import initialize_heads
from hippynn_mf.training.loop import Training, build_controller, continue_training

EXPERIMENT = "MF-DZ/EF-CC/E"
RIDGE = 0.1
# Each variant, and what it is compared with.
VARIANTS = {
    "linear": None,
    "coupled": "linear",
    "hidden": "linear",
    "learned": "linear",
    "ridge": "coupled",
}
COUPLING = {"coupled": "delta", "ridge": "delta"}  # of variants whose heads are not independent
# Titles, each with a validation metric or a column of errors.
COLUMNS: dict[str, str | Column] = {
    "CC energy, validation": f"energy_rmse.{CC.id}",
    "CC energy, held-out": heldout_energy(CC),
    "ΔE, COMP6 CC": comp6_delta_e(CC),
    "DZ force, held-out": heldout_force(DZ),
    "CC force, unseen conformers": Column.own("cc-forces", CC, "force"),
}


class HiddenLayer(nn.Module):
    """An energy of features through one hidden layer; `weight` and `bias` are those of the last."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        width = linear.in_features
        self.first, self.last = nn.Linear(width, width), nn.Linear(width, 1, bias=True)

    def forward(self, features: Tensor) -> Tensor:
        """(n_atoms, n_features) → (n_atoms, 1)."""
        return self.last(nn.functional.softplus(self.first(features)))

    @property
    def weight(self) -> Tensor:
        """What hippynn's initialisation makes small."""
        return self.last.weight

    @property
    def bias(self) -> Tensor:
        """See `weight`."""
        return self.last.bias


class SquaredWeights(nn.Module):
    """Sum of the squared weights of the layers of a head that see the surroundings."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.layers = head.layers[1:]

    def forward(self, _energy: Tensor) -> Tensor:
        """A scalar, of the layers alone."""
        return torch.stack([layer.weight.square().sum() for layer in self.layers]).sum()


class LearnedWeight(nn.Module):
    """exp(−s) L + s of a level's loss L, with a learned s that starts at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, loss: Tensor) -> Tensor:
        """A scalar."""
        return torch.exp(-self.log_scale) * loss + self.log_scale


class ModuleLoss(SingleNode):
    """A loss node that applies a module to one node of a loss graph."""

    _input_names = ("value",)
    _index_state = IdxType.Scalar

    def __init__(self, name: str, parent: Any, module: nn.Module) -> None:
        super().__init__(name, (parent,), module=module)


def hide(model: Model) -> None:
    """Put a hidden layer into every order of every head but the zeroth."""
    for head in model.heads.values():
        layers = head.energy.torch_module.layers
        for place in range(1, len(layers)):
            layers[place] = HiddenLayer(layers[place])


def loss_of(variant: str, heads: Heads) -> tuple[Any, list[nn.Parameter]]:
    """The loss node of a variant, and parameters of its own."""
    if variant == "ridge":
        energy = heads[CC].energy
        squares = SquaredWeights(energy.torch_module)
        penalty = ModuleLoss("ridge", energy.main_output.pred, squares)
        return build_loss(heads) + RIDGE * penalty, []
    if variant == "learned":
        weights = {level_id: LearnedWeight() for level_id in heads}
        terms = [
            ModuleLoss(
                f"weighted {level_id}", build_loss(Heads({level_id: head}, heads.network)), weight
            )
            for (level_id, head), weight in zip(heads.items(), weights.values(), strict=True)
        ]
        return sum(terms[1:], start=terms[0]), [w.log_scale for w in weights.values()]
    return build_loss(heads), []


def model_of(variant: str, settings: RunSettings) -> Model:
    """A model with forces of every level, and the heads of the variant."""
    coupling = COUPLING.get(variant, "independent")
    hyperparameters = settings.hyperparameters.model_copy(update={"coupling": coupling})
    model = build_model(hyperparameters, parse_labels({"DZ": "EF", "CC": "EF"}))
    if variant == "hidden":
        hide(model)
    return model


def settings_of(seed: int, fraction: float | None) -> RunSettings:
    """The settings of `hippynn-mf train MF-DZ/EF-CC/E` with this seed."""
    fractions = {} if fraction is None else {"CC": fraction}
    request = Request(
        experiments=[EXPERIMENT], seeds=[seed], label_fractions=fractions, device="cpu"
    )
    return build_settings(request)[0]


def train(variant: str, seed: int, fraction: float | None, folder: Path) -> None:
    """Train a variant with a seed; write its parameters and its best validation errors."""
    torch.set_num_threads(1)
    settings = settings_of(seed, fraction)
    hyperparameters, labels = settings.hyperparameters, settings.experiment.resolved_labels
    parts = load_inputs([settings])
    torch.manual_seed(seed)
    model = model_of(variant, settings)
    trained = {  # forces that are not trained on are there for the evaluation
        level_id: head if labels[head.level].forces else replace(head, forces=None)
        for level_id, head in model.heads.items()
    }
    heads = Heads(trained, model.heads.network)
    (phase,) = settings.experiment.phases
    database = phase_database(phase, parts, settings)

    folder.mkdir(parents=True, exist_ok=True)
    with logged_to(folder / "log.txt"):  # hippynn prints
        loss, own = loss_of(variant, heads)
        modules, db_info = assemble_for_training(loss, build_metrics(heads, loss))
        database.inputs, database.targets = db_info["inputs"], db_info["targets"]
        initialize_heads(heads, database)
        modules = precompute_pairs(modules, database)
        parameters = [p for p in model.parameters.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(
            [*parameters, *own], lr=hyperparameters.learning_rate, fused=True
        )
        controller = build_controller(optimizer, hyperparameters, heads.levels)
        modules, controller, tracker = setup_training(
            modules, SetupParams(controller=controller, device="cpu")
        )

    best: dict[str, Any] = {}

    def keep(_epoch: int, better: bool) -> None:
        if better:
            best["parameters"] = copy.deepcopy(model.parameters.state_dict())
            best["valid"] = dict(tracker.epoch_metric_values[-1]["valid"])

    with logged_to(folder / "log.txt"):
        continue_training(Training(model, modules, database, controller, tracker), [keep])
    with replace_when_complete(folder / "model.pt") as partial:
        torch.save(best["parameters"], partial)
    learned = {f"log_scale.{n}": float(p.detach()) for n, p in zip(heads, own, strict=False)}
    write_json(folder / "valid.json", best["valid"] | learned)


def evaluate(variant: str, seed: int, fraction: float | None, folder: Path) -> dict[str, Any]:
    """Metrics of a trained variant, as of a run."""
    settings = settings_of(seed, fraction)
    model = model_of(variant, settings)
    model.parameters.load_state_dict(torch.load(folder / "model.pt", weights_only=True))
    test = load_inputs([settings])["test"]
    heldout = heldout_set(test, settings.data.shown, levels=settings.known)
    errors, _ = evaluate_model(
        lambda _: model,
        [heldout, *read_tests(settings)],
        batch_size=settings.hyperparameters.eval_batch_size,
    )
    return {"format": 2, "sets": errors}


def main(
    out: Annotated[Path, typer.Argument(help="Folder of the variants.")],
    variants: Annotated[str, typer.Option(help="Comma-separated.")] = ",".join(VARIANTS),
    seeds: Annotated[str, typer.Option(help="Comma-separated.")] = "0,1,2,3,4,5,6,7",
    fraction: Annotated[float | None, typer.Option(help="Of the CC labels. (default: all)")] = None,
    workers: Annotated[int, typer.Option(help="Trainings at a time.", min=1)] = 2,
) -> None:
    """Train what is not there, evaluate everything, write `variants.jsonl`, print a table."""
    chosen, numbers = variants.split(","), [int(seed) for seed in seeds.split(",")]
    unknown = sorted(set(chosen) - set(VARIANTS))
    if unknown:
        raise SystemExit(f"Unknown variants {unknown}. Known: {', '.join(VARIANTS)}.")
    labels = "all" if fraction is None else f"{fraction:g}"  # of which nothing else would tell
    folders = {
        (v, seed): out / f"cc-{labels}" / v / f"seed-{seed}" for seed in numbers for v in chosen
    }
    to_do = {k: f for k, f in folders.items() if not (f / "valid.json").exists()}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = [pool.submit(train, *key, fraction, folder) for key, folder in to_do.items()]
        for future in tqdm(as_completed(futures), total=len(futures), unit="run"):
            future.result()
    rows = [
        {"variant": v, "seed": seed, "fraction": fraction, "ridge": RIDGE}
        | {"valid": read_json(folder / "valid.json")}
        | {"metrics": evaluate(v, seed, fraction, folder)}
        for (v, seed), folder in tqdm(folders.items(), unit="evaluation")
    ]
    write_lines(out / f"cc-{labels}" / "variants.jsonl", rows)
    typer.echo(table(rows))


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown: means with 95 % intervals, and paired differences."""
    names = list(dict.fromkeys(row["variant"] for row in rows))
    lines = ["| heads | " + " | ".join(COLUMNS) + " |", "|---" * (1 + len(COLUMNS)) + "|"]
    for name in names:
        other = VARIANTS[name]
        cells = []
        for column in COLUMNS.values():
            own = _by_seed(rows, name, column)
            cell = format_mean(estimate_mean(own))
            if other in names:
                difference = paired_difference(own, _by_seed(rows, other, column))
                cell += f" ({format_mean(difference, signed=True)})"
            cells.append(cell)
        title = f"{name} (less {other})" if other in names else name
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _by_seed(rows: list[dict[str, Any]], variant: str, column: str | Column) -> dict[int, float]:
    found = {}
    for row in rows:
        if isinstance(column, Column):
            value = column.pick(row["metrics"].get("sets", {}), "rmse")
        else:
            value = row["valid"].get(column)
        if row["variant"] == variant and value is not None:
            found[row["seed"]] = value
    return found


if __name__ == "__main__":
    typer.run(main)
