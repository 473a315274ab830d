"""Prediction for many structures: of Python's own, or from file to file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ase import Atoms
from tqdm import tqdm

from hippynn_mf.data.formats.extxyz_keys import STD, energy_key, forces_key
from hippynn_mf.errors import UserError, errors_about
from hippynn_mf.files import replace_when_complete
from hippynn_mf.levels import Level
from hippynn_mf.potentials.batch import Batch, in_batches
from hippynn_mf.potentials.evaluator import Evaluator
from hippynn_mf.potentials.predicted_labels import PredictedLabels, add_labels
from hippynn_mf.potentials.structure_files import labelled_file
from hippynn_mf.potentials.systems import Systems


def predict(
    evaluator: Evaluator,
    structures: Iterable[Atoms],
    levels: Sequence[str | Level],
    *,
    ensemble_std: bool = False,
    batch_size: int = 64,
) -> Iterator[Atoms]:
    """Copies of the structures, in order, with the labels that the levels predict.

    `info["energy_<level id>"]` in eV and `arrays["forces_<level id>"]` (n_atoms, 3) in eV/Å are
    means over the members; with `ensemble_std`, the standard deviations (n − 1) over them have
    `std_` before these names. Labels of these levels that a structure has already, under an id or a
    label, get `REF_` before their names. Structures may be open or periodic and of any size.

    Raises UserError for unknown levels, wrong structures, and `ensemble_std` of a single member.
    """
    chosen = _checked(evaluator, levels, ensemble_std, batch_size)
    first = 0
    for originals in in_batches(structures, batch_size):
        labels = _labels(evaluator, Batch.of(originals), first, chosen, ensemble_std)
        first += len(originals)
        copies = []
        for atoms in originals:
            copies.append(atoms.copy())
            copies[-1].calc = atoms.calc  # energies and forces of the structure's own
        add_labels(copies, labels, chosen)
        yield from copies


def predict_file(
    evaluator: Evaluator,
    source: Path,
    target: Path,
    levels: Sequence[str | Level],
    *,
    ensemble_std: bool = False,
    batch_size: int = 64,
) -> int:
    """Predict a file's structures and write them as extended XYZ, complete or not at all.

    Returns their number. Arguments and errors as of `predict` and `labelled_file`.
    """
    if target.suffix not in (".extxyz", ".xyz"):
        raise UserError(f"Predictions are extended XYZ; name the file *.extxyz, not {target.name}.")
    chosen = _checked(evaluator, levels, ensemble_std, batch_size)
    n = 0
    with (
        replace_when_complete(target) as partial,
        errors_about(source),
        labelled_file(source, partial, chosen, batch_size) as (batches, take),
        tqdm(desc=source.name, unit="structure", delay=1, disable=None) as progress,
    ):
        for batch in batches:
            take(_labels(evaluator, batch, n, chosen, ensemble_std))
            n += len(batch)
            progress.update(len(batch))
        if not n:
            raise UserError("there is no structure in the file.")
    return n


def _checked(
    evaluator: Evaluator, levels: Sequence[str | Level], ensemble_std: bool, batch_size: int
) -> list[Level]:
    """The levels, if all that is asked for is possible."""
    chosen = [evaluator.potential.level(name) for name in levels]
    if not chosen or len(set(chosen)) < len(chosen):
        names = ", ".join(level.label for level in chosen)
        raise UserError(f"Expected levels to predict, each once; found: {names or 'none'}.")
    if batch_size < 1:
        raise UserError(f"A batch has at least one structure; found batch_size={batch_size}.")
    if ensemble_std and len(evaluator.potential.members) < 2:
        raise UserError("The model has one member; a standard deviation needs at least two.")
    return chosen


def _labels(
    evaluator: Evaluator,
    batch: Batch,
    first: int,
    levels: Sequence[Level],
    ensemble_std: bool,
) -> PredictedLabels:
    """Labels of a batch; messages number its structures from `first` on."""
    systems = Systems.from_batch(batch, evaluator.cutoff, evaluator.species, first=first)
    surfaces = evaluator(systems, levels)
    labels = PredictedLabels({}, {})
    for level in levels:
        for key, values, found in (
            (energy_key(level), surfaces.energies[level.id], labels.of_structures),
            (forces_key(level), surfaces.forces[level.id], labels.of_atoms),
        ):
            found[key] = values.mean(axis=0)
            if ensemble_std:
                found[STD + key] = values.std(axis=0, ddof=1)
    return labels
