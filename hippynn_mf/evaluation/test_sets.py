"""Sets of structures that test a model, and its errors on them.

The held-out structures of a run, COMP6, and any number of further files are all read, refused and
scored in the same way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hippynn_mf.data.arrays import known_energies, reference_forces, reference_stress
from hippynn_mf.data.boxes import as_molecules, without_lonely_cells
from hippynn_mf.data.checks.gate import pass_gate
from hippynn_mf.data.checks.report import NOTHING, Accepted, CheckReport
from hippynn_mf.data.copies import join_agreeing
from hippynn_mf.data.formats.ani1x import labels_in_file, read_ani1x
from hippynn_mf.data.formats.comp6 import KeyMap, read_comp6
from hippynn_mf.data.formats.sources import DataPath, shown_path
from hippynn_mf.data.matching import find_shared
from hippynn_mf.data.structures import Structures, refuse_unknown_species
from hippynn_mf.errors import UserError, errors_about
from hippynn_mf.evaluation.doubts import no_better
from hippynn_mf.evaluation.schema import HELDOUT
from hippynn_mf.evaluation.scoring import ErrorsOfSet, LabelledSet, score_set
from hippynn_mf.keys import CELL
from hippynn_mf.levels import KNOWN_LEVELS, Levels, highest_level
from hippynn_mf.model.model import Model
from hippynn_mf.model.predicting import build_predictor, input_values, predict_arrays

N_TIMINGS = 3
N_SHOWN = 3  # groups that a message names


@dataclass(frozen=True)
class TestSet:
    """Structures that a model is not trained on, with their labels.

    Attributes:
        name: of the set in `metrics.json` and `predictions.npz`.
        path: where it is from, for messages.
        structures: the structures.
        labels: what predictions are compared with, and the cut by energy.
    """

    __test__ = False  # no test of pytest's

    name: str
    path: Path
    structures: Structures
    labels: LabelledSet


def heldout_set(structures: Structures, path: Path, *, levels: Levels = KNOWN_LEVELS) -> TestSet:
    """The held-out structures of the data in `path`, whose signs are proved with the others."""
    with errors_about(path):
        labels = reference_labels(structures, levels)
    labelled = LabelledSet(structures.species[:], labels, structures.groups, levels)
    return TestSet(HELDOUT, path, structures, labelled)


def read_test_set(
    name: str,
    source: DataPath,
    *,
    species: Sequence[int],
    keys: KeyMap | None = None,
    energy_cut_kcal_per_mol: float | None = None,
    levels: Levels = KNOWN_LEVELS,
    accepted: Accepted = NOTHING,
    reports: list[CheckReport] | None = None,
    cutoff: float | None = None,
) -> TestSet:
    """Read a test set: every labelled conformer of a file, with all labels that it has.

    Args:
        name: of the set.
        source: a file in the ANI-1x layout or extended XYZ, extended XYZ files by level, or (with
            `keys`) a file or folder in the COMP6 layout.
        species: atomic numbers that the model knows.
        keys: the key map of a file in the COMP6 layout.
        energy_cut_kcal_per_mol: see `LabelledSet`.
        levels: what names of levels stand for.
        accepted: what the checks let through, as of training data.
        reports: the outcomes of the checks are appended to it.
        cutoff: of the network in Å, with which periodic structures without an image within it
            become molecules.

    Raises:
        UserError: for a file that cannot be read or has no label, for elements that `species` does
            not have, for copies of a conformer whose labels contradict each other, and
            for what the checks refuse, see `check_structures`.
    """
    path = shown_path(source, levels=levels)
    if keys is not None:
        structures = read_comp6(path, keys, levels=levels)
    else:
        file_labels = labels_in_file(source, levels=levels)
        structures, _ = read_ani1x(source, file_labels, levels=levels)
    if not len(structures):
        raise UserError(
            f"{path} has no label of a known level of theory, so it tests nothing. See "
            f"'hippynn-mf data info {path}', or leave test set {name} out."
        )
    if accepted.ignore_cell:
        structures = as_molecules(structures)
    structures, n_copies = join_agreeing(structures, path)
    if cutoff is not None:
        structures = without_lonely_cells({name: structures}, cutoff, path)[name]
    with errors_about(path):
        refuse_unknown_species(structures.species, species)
        labels = reference_labels(structures, levels)
    used = [key for properties in (keys or {}).values() for key in properties.values()]
    report = pass_gate(structures, levels, source, accepted=accepted, used=used, n_copies=n_copies)
    if reports is not None:
        reports.append(report)
    labelled = LabelledSet(
        structures.species[:],
        labels,
        structures.groups,
        known=levels,
        cut=energy_cut_kcal_per_mol,
    )
    return TestSet(name, path, structures, labelled)


def refuse_trained_on(test: TestSet, parts: Mapping[str, Structures], data: Path) -> None:
    """Raise UserError if conformers of a test set are among a run's data, of any split.

    `parts` are the splits of the `data`. For every set but the held-out one, which is a split.
    """
    shared = np.zeros(len(test.structures), bool)
    for part in parts.values():
        shared |= find_shared(test.structures, part)
    if not shared.any():
        return
    names, groups = test.structures.group_names, test.structures.groups
    shown = [names[group] for group in np.unique(groups[shared])]
    more = ", …" if len(shown) > N_SHOWN else ""
    raise UserError(
        f"{test.path}: {int(shared.sum())} of its {len(shared)} conformers are also in {data}, "
        "however turned, mirrored or ordered (of "
        f"{', '.join(shown[:N_SHOWN])}{more}). What a model "
        "was trained on does not test it; remove them from one of the files."
    )


def evaluate_model(
    model_for: Callable[[Structures], Model],
    sets: Iterable[TestSet],
    *,
    batch_size: int,
    device: torch.device | str = "cpu",
    doubts: list[str] | None = None,
) -> tuple[dict[str, ErrorsOfSet], dict[str, np.ndarray]]:
    """Errors and predictions of a model with forces of every head, on every set.

    `model_for` gives it for some structures, for periodic ones with an input for cells.
    Returns the `sets` of `metrics.json`, and arrays for `predictions.npz`: for every set the
    predictions `<set>.<level>.energy` in kcal/mol (without self energies) and
    `<set>.<level>.forces` in kcal/mol/Å, of a periodic model also `.stress` in kcal/mol/Å³, the
    references `<set>.reference.<level>.…` in the same
    units, and `<set>.species`, `.rows` and `.groups` of its structures. `doubts` get a line for
    every head that is no better than the level below it.
    """
    errors: dict[str, ErrorsOfSet] = {}
    arrays: dict[str, np.ndarray] = {}
    for test in sets:
        structures, name = test.structures, test.name
        model = model_for(structures)
        predicted = predict_arrays(
            model,
            structures.species,
            structures.positions,
            cells=structures.cells,
            batch_size=batch_size,
            device=device,
        )
        errors[name] = score_set(predicted, test.labels, model.heads.levels)
        if doubts is not None:
            doubts += no_better(name, test.labels, predicted, model.heads.levels)
        arrays |= {f"{name}.{key}": values for key, values in predicted.items()}
        arrays |= {f"{name}.reference.{key}": v for key, v in test.labels.labels.items()}
        for key in ("species", "rows", "groups"):
            arrays[f"{name}.{key}"] = np.asarray(getattr(structures, key))
        if structures.cells is not None:
            arrays[f"{name}.{CELL}"] = structures.cells
    return errors, arrays


def measure_inference(model: Model, structures: Structures, *, batch_size: int) -> dict[str, Any]:
    """What energies and forces of the highest level cost on the CPU, as in `metrics.json`.

    The processor time per structure is the least of `N_TIMINGS`: it depends on the machine. The
    model has forces of every head.
    """
    level = highest_level(model.heads.levels)
    predictor = build_predictor(model, "cpu", level=level)
    values = input_values(model, structures.species, structures.positions, structures.cells)
    times = []
    for _ in range(1 + N_TIMINGS):  # the first one compiles
        start = time.process_time()
        predictor(node_values=values, batch_size=batch_size)
        times.append(time.process_time() - start)
    cost = 1e3 * min(times[1:]) / len(structures)
    return {"level": level.id, "cpu_ms_per_structure": cost}


def reference_labels(
    structures: Structures, levels: Levels = KNOWN_LEVELS
) -> dict[str, np.ndarray]:
    """Reference labels by name, in the units of predictions, NaN where missing, see `arrays`."""
    labels = {}
    for name in structures.energies:
        level = levels.get(name)
        labels[level.energy_name] = known_energies(structures, level)
    for name in structures.forces:
        level = levels.get(name)
        labels[level.forces_name] = reference_forces(structures, level)
    for name in structures.stress:
        level = levels.get(name)
        labels[level.stress_name] = reference_stress(structures, level)
    return labels
