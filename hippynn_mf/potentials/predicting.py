"""Prediction for many structures: of Python's own, or from file to file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from tqdm import tqdm

from hippynn_mf.data.formats.extxyz_keys import STD, energy_key, forces_key, stress_key
from hippynn_mf.errors import UserError, errors_about
from hippynn_mf.files import replace_when_complete
from hippynn_mf.levels import Level, highest_level
from hippynn_mf.potentials.batch import Batch, in_batches, neutral
from hippynn_mf.potentials.evaluator import Evaluator
from hippynn_mf.potentials.outside import Outside, find_outside
from hippynn_mf.potentials.predicted_labels import (
    OUTSIDE,
    OUTSIDE_BY,
    PredictedLabels,
    add_labels,
)
from hippynn_mf.potentials.structure_files import labelled_file
from hippynn_mf.potentials.systems import Systems


@dataclass(frozen=True)
class Request:
    """What is predicted: levels, the one whose energies and forces are the structures' own."""

    levels: Sequence[Level]
    main: Level
    ensemble_std: bool


def predict(
    evaluator: Evaluator,
    structures: Iterable[Atoms],
    levels: Sequence[str | Level],
    *,
    main: str | Level | None = None,
    ensemble_std: bool = False,
    batch_size: int = 64,
    outside: Outside | None = None,
) -> Iterator[Atoms]:
    """Copies of the structures, in order, with the labels that the levels predict.

    ASE's `get_potential_energy()` and `get_forces()` are those of the level `main`, by default the
    highest of the levels. Of every level, `info["energy_<level id>"]` in eV,
    `arrays["forces_<level id>"]` (n_atoms, 3) in eV/Å and, of what is periodic along all axes,
    `info["stress_<level id>"]` (3, 3) in eV/Å³ are means over the members; with
    `ensemble_std`, the standard deviations (n − 1) over them have `std_` before these names, and
    those of the main level are also `energy_std`, `forces_std` and `stress_std`. Results and labels
    of these levels that a structure has already, under an id or a label, get `REF_` before their
    names; a `REF_` that is there stays. Where the model file tells, `info["outside"]` is whether a
    structure lies outside what the model has seen, `info["outside_by"]` why; `outside` counts them.
    Structures may be open or periodic and of any size.

    Raises UserError for unknown levels, wrong or charged structures, and `ensemble_std` of a single
    member.
    """
    asked = _checked(evaluator, levels, main, ensemble_std, batch_size)
    first = 0
    for originals in in_batches(neutral(structures), batch_size):
        labels = _labels(evaluator, Batch.of(originals), first, asked, outside or Outside())
        first += len(originals)
        copies = []
        for atoms in originals:
            copies.append(atoms.copy())
            copies[-1].calc = atoms.calc  # energies and forces of the structure's own
        add_labels(copies, labels, asked.levels, asked.main)
        yield from copies


def predict_file(
    evaluator: Evaluator,
    source: Path,
    target: Path,
    levels: Sequence[str | Level],
    *,
    main: str | Level | None = None,
    ensemble_std: bool = False,
    batch_size: int = 64,
) -> Outside:
    """Predict a file's structures and write them as extended XYZ, complete or not at all.

    Returns their number, and how many lie outside what the model has seen. Arguments and errors as
    of `predict` and `labelled_file`.
    """
    if target.suffix not in (".extxyz", ".xyz"):
        raise UserError(f"Predictions are extended XYZ; name the file *.extxyz, not {target.name}.")
    asked = _checked(evaluator, levels, main, ensemble_std, batch_size)
    outside = Outside()
    with (
        replace_when_complete(target) as partial,
        errors_about(source),
        labelled_file(source, partial, asked.levels, asked.main, batch_size) as (batches, take),
        tqdm(desc=source.name, unit="structure", delay=1, disable=None) as progress,
    ):
        for batch in batches:
            take(_labels(evaluator, batch, outside.n, asked, outside))
            progress.update(len(batch))
        if not outside.n:
            raise UserError("there is no structure in the file.")
    return outside


def _checked(
    evaluator: Evaluator,
    levels: Sequence[str | Level],
    main: str | Level | None,
    ensemble_std: bool,
    batch_size: int,
) -> Request:
    """What is asked for, if all of it is possible."""
    chosen = [evaluator.potential.level(name) for name in levels]
    names = ", ".join(level.label for level in chosen) or "none"
    if not chosen or len(set(chosen)) < len(chosen):
        raise UserError(f"Expected levels to predict, each once; found: {names}.")
    first = highest_level(chosen) if main is None else evaluator.potential.level(main)
    if first not in chosen:
        raise UserError(
            f"The main level is one of those that are predicted, {names}; found {first.label}."
        )
    if batch_size < 1:
        raise UserError(f"A batch has at least one structure; found batch_size={batch_size}.")
    if ensemble_std and len(evaluator.potential.members) < 2:
        raise UserError("The model has one member; a standard deviation needs at least two.")
    return Request(chosen, first, ensemble_std)


def _labels(
    evaluator: Evaluator, batch: Batch, first: int, asked: Request, outside: Outside
) -> PredictedLabels:
    """Labels of a batch, counted in `outside`; messages number its structures from `first` on."""
    systems = Systems.from_batch(batch, evaluator.cutoff, evaluator.species, first=first)
    volumes = batch.volumes
    has_crystals = bool(np.isfinite(volumes).any())
    surfaces = evaluator(systems, asked.levels, virials=has_crystals)
    reasons = find_outside(evaluator.potential, systems, surfaces, asked.levels)
    outside.add(len(batch), reasons)
    labels = PredictedLabels({}, {}, [_mark(found) for found in reasons or ()])
    for level in asked.levels:
        for key, values, found in (
            (energy_key(level), surfaces.energies[level.id], labels.of_structures),
            (forces_key(level), surfaces.forces[level.id], labels.of_atoms),
        ):
            found[key] = values.mean(axis=0)
            if asked.ensemble_std:
                found[STD + key] = values.std(axis=0, ddof=1)
        if has_crystals:
            stress = surfaces.virials[level.id] / volumes[:, None, None]
            labels.of_cells[stress_key(level)] = stress.mean(axis=0)
            if asked.ensemble_std:
                labels.of_cells[STD + stress_key(level)] = stress.std(axis=0, ddof=1)
    return labels


def _mark(reasons: Sequence[str]) -> dict[str, Any]:
    """What is said in `info` of a structure that lies outside, or inside."""
    by = {OUTSIDE_BY: ",".join(reasons)} if reasons else {}
    return {OUTSIDE: bool(reasons), **by}
