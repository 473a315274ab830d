"""Errors of a trained model on held-out structures, on COMP6, and on a further test file."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hippynn_mf.data.checks import require_force_sign
from hippynn_mf.data.database import reference_energies, reference_forces
from hippynn_mf.data.formats.ani1x import labels_in_file, read_ani1x
from hippynn_mf.data.formats.comp6 import read_comp6
from hippynn_mf.data.merging import find_shared
from hippynn_mf.data.structures import Structures, refuse_unknown_species
from hippynn_mf.errors import UserError, errors_about
from hippynn_mf.evaluation.scoring import LabelledSet, comp6_metrics, heldout_metrics
from hippynn_mf.labels import Labels
from hippynn_mf.levels import get_level, highest_level
from hippynn_mf.model.model import (
    Model,
    build_model,
    predict,
    with_all_forces,
)
from hippynn_mf.runs.settings import Comp6Source, DataSource, RunSettings

N_TIMINGS = 3
N_SHOWN = 3  # groups that a message names


def evaluate_model(
    model: Model,
    settings: RunSettings,
    test: Structures,
    *,
    device: torch.device | str = "cpu",
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Metrics and predictions of a trained model on its test structures, COMP6, and its test file.

    Returns the content of `metrics.json`, and predictions by `heldout.<name>`, `comp6.<name>` and
    `test_file.<name>` in kcal/mol (without self energies) and kcal/mol/Å, with the references
    beside them.
    """
    model = _with_all_forces(model, settings)
    batch_size = settings.hyperparameters.eval_batch_size
    predicted = predict(model, test.species, test.positions, batch_size=batch_size, device=device)
    references = heldout_set(test)
    metrics: dict[str, Any] = heldout_metrics(predicted, references, model.heads.levels)
    predictions = {f"heldout.{name}": values for name, values in predicted.items()}
    predictions |= {f"heldout.reference.{n}": v for n, v in references.labels.items()}
    predictions |= {"heldout.rows": test.rows, "heldout.species": test.species}
    metrics["comp6"] = None
    if settings.comp6 is not None:
        structures = load_comp6(settings.comp6, model.species_set)
        predicted = predict(
            model, structures.species, structures.positions, batch_size=batch_size, device=device
        )
        references = comp6_set(structures, settings.comp6)
        cut = settings.comp6.energy_cut_kcal_per_mol
        metrics["comp6"] = comp6_metrics(predicted, references, model.heads.levels, cut)
        predictions |= {f"comp6.{name}": values for name, values in predicted.items()}
        predictions |= {f"comp6.reference.{n}": v for n, v in references.labels.items()}
        predictions |= {"comp6.groups": structures.groups, "comp6.species": structures.species}
    metrics["test_file"] = None
    if settings.test_file is not None:
        structures = load_test_file(settings.test_file, model.species_set)
        predicted = predict(
            model, structures.species, structures.positions, batch_size=batch_size, device=device
        )
        references = proved_set(structures, settings.test_file.shown)
        errors = heldout_metrics(predicted, references, model.heads.levels)
        metrics["test_file"] = errors["cross"]
        predictions |= {f"test_file.{name}": values for name, values in predicted.items()}
        predictions |= {f"test_file.reference.{n}": v for n, v in references.labels.items()}
        predictions |= {"test_file.rows": structures.rows, "test_file.species": structures.species}
    return metrics, predictions


def measure_inference(
    model: Model, settings: RunSettings, structures: Structures
) -> dict[str, Any]:
    """What energies and forces of the highest level cost on the CPU, as in `metrics.json`.

    The processor time per structure is the least of `N_TIMINGS`: it depends on the machine.
    """
    level = highest_level(model.heads.levels)
    predictor = _with_all_forces(model, settings).predictor("cpu", level=level)
    species, positions = predictor.inputs
    values = {
        species: torch.as_tensor(structures.species, dtype=torch.int64),
        positions: torch.as_tensor(structures.positions, dtype=torch.get_default_dtype()),
    }
    times = []
    for _ in range(1 + N_TIMINGS):  # the first one compiles
        start = time.process_time()
        predictor(node_values=values, batch_size=settings.hyperparameters.eval_batch_size)
        times.append(time.process_time() - start)
    cost = 1e3 * min(times[1:]) / len(structures)
    return {"level": level.id, "cpu_ms_per_structure": cost}


def model_of(settings: RunSettings, labels: Labels | None = None) -> Model:
    """A model with a head for every level of a run, and fresh weights.

    Args:
        settings: of the run.
        labels: the levels with the labels to predict; None for those of the experiment.
    """
    experiment = settings.experiment
    return build_model(
        settings.hyperparameters,
        experiment.resolved_labels if labels is None else labels,
        has_second_network=experiment.strategy.has_second_network,
    )


def load_comp6(source: Comp6Source, species: Sequence[int]) -> Structures:
    """Read the COMP6 structures of a run, and refuse what their evaluation would refuse.

    Raises UserError for a file that cannot be read, elements that `species` or a level does not
    know, or forces whose sign is proved wrong.
    """
    structures = read_comp6(source.path, source.keys)
    _refuse_unusable(structures, species, source.path)
    return structures


def load_test_file(source: DataSource, species: Sequence[int]) -> Structures:
    """Read every labelled conformer of a run's test file, with all labels that the file has.

    Raises UserError as `load_comp6`, and for a file without any label.
    """
    labels = labels_in_file(source.path)
    structures, _ = read_ani1x(source.path, labels)
    if not len(structures):
        raise UserError(
            f"{source.shown} has no label of a known level of theory, so it tests nothing. See "
            f"'hippynn-mf data info {source.shown}', or leave --test out."
        )
    _refuse_unusable(structures, species, source.shown)
    return structures


def refuse_trained_on(
    structures: Structures, parts: Mapping[str, Structures], settings: RunSettings
) -> None:
    """Raise UserError if conformers of the test file are among the run's data, of any split."""
    shared = np.zeros(len(structures), bool)
    for part in parts.values():
        shared |= find_shared(structures, part)
    if shared.any() and settings.test_file is not None:
        groups = [structures.group_names[group] for group in np.unique(structures.groups[shared])]
        more = ", …" if len(groups) > N_SHOWN else ""
        raise UserError(
            f"{settings.test_file.shown}: {int(shared.sum())} of its {len(structures)} conformers "
            f"are also in {settings.data.shown}, the same atoms at the same positions (of "
            f"{', '.join(groups[:N_SHOWN])}{more}). What a model was trained on does not test it; "
            "remove them from one of the files."
        )


def _refuse_unusable(structures: Structures, species: Sequence[int], path: Path) -> None:
    """Raise UserError for elements that `species` or a level does not know, and wrong signs."""
    with errors_about(path):
        refuse_unknown_species(structures.species, species)
        reference_labels(structures)
    for name in structures.forces.keys() & structures.energies:
        require_force_sign(structures, get_level(name), str(path))


def heldout_set(structures: Structures) -> LabelledSet:
    """The labels of held-out structures, for `heldout_metrics`."""
    return LabelledSet(structures.species, reference_labels(structures), structures.groups)


def comp6_set(structures: Structures, source: Comp6Source) -> LabelledSet:
    """The labels of COMP6 structures, for `comp6_metrics`; as `proved_set`."""
    return proved_set(structures, source.path)


def proved_set(structures: Structures, path: Path) -> LabelledSet:
    """The labels of structures read from `path`.

    Forces whose sign the file's own energies prove wrong are a UserError; forces whose sign
    cannot be proved are not used, and `unproved` says why.
    """
    unproved = {}
    for name in structures.forces:
        if name not in structures.energies:
            unproved[name] = "the sign of these forces cannot be proved without energies"
            continue
        outcome = require_force_sign(structures, get_level(name), str(path))
        if outcome.verdict == "undecided":
            unproved[name] = (
                f"the sign of these forces is not proved by the energies ({outcome.n_pairs} pairs "
                f"of conformers, slope {outcome.slope:.2f}, correlation {outcome.correlation:.2f})"
            )
    labels = reference_labels(structures)
    return LabelledSet(structures.species, labels, structures.groups, unproved)


def reference_labels(structures: Structures) -> dict[str, np.ndarray]:
    """Reference labels by name, in the units of predictions, NaN where missing."""
    found = {}
    for name in structures.energies:
        level = get_level(name)
        found[level.energy_name] = reference_energies(structures, level)
    for name in structures.forces:
        level = get_level(name)
        found[level.forces_name] = reference_forces(structures, level)
    return found


def _with_all_forces(model: Model, settings: RunSettings) -> Model:
    """The same parameters in a graph that has forces for every head; the model, if it has them."""
    if all(head.forces is not None for head in model.heads.values()):
        return model
    full = model_of(settings, with_all_forces(settings.experiment.resolved_labels))
    full.parameters.load_state_dict(model.parameters.state_dict())
    return full
