"""Prediction for many structures: anything that ASE reads, to extended XYZ.

Reading and writing are Python's work and prediction is torch's: each has a thread, so that files
cost little beside the network.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from ase import Atoms
from ase.io import iread, write
from tqdm import tqdm

from hippynn_mf.data.extxyz_keys import energy_key, forces_key
from hippynn_mf.errors import UserError, errors_about
from hippynn_mf.files import replace_when_complete
from hippynn_mf.levels import Level
from hippynn_mf.potentials.evaluator import Evaluator, Surfaces
from hippynn_mf.potentials.potential import Potential
from hippynn_mf.potentials.systems import Systems

STD = "_std"
BATCHES_AHEAD = 2

Item = TypeVar("Item")


def predict(
    potential: Potential,
    structures: Iterable[Atoms],
    levels: Sequence[str | Level],
    *,
    ensemble_std: bool = False,
    batch_size: int = 64,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Iterator[Atoms]:
    """Copies of the structures, in order, with the labels that the levels predict.

    `info["energy_<level id>"]` in eV and `arrays["forces_<level id>"]` (n_atoms, 3) in eV/Å are
    means over the members; with `ensemble_std`, the standard deviations (n − 1) over them have the
    same names and `_std` behind. Structures may be open or periodic and of any size.

    Raises UserError for unknown levels, wrong structures, and `ensemble_std` of a single member.
    """
    chosen = [potential.level(name) for name in levels]
    if ensemble_std and len(potential.members) < 2:
        raise UserError("The model has one member; a standard deviation needs at least two.")
    evaluator = Evaluator(potential, dtype=dtype, device=device)

    def prepare(first: int, batch: list[Atoms]) -> _Batch:
        systems = Systems.of(batch, evaluator.cutoff, evaluator.species, first=first)
        return _Batch(batch, systems)

    with ThreadPoolExecutor(1) as pool:
        for batch in _ahead(pool, prepare, _batches(structures, batch_size)):
            surfaces = evaluator(batch.systems, chosen)
            yield from _labelled(batch, surfaces, chosen, ensemble_std)


@dataclass(frozen=True)
class _Batch:
    structures: list[Atoms]
    systems: Systems


def _batches(structures: Iterable[Atoms], size: int) -> Iterator[tuple[int, list[Atoms]]]:
    iterator, first = iter(structures), 0
    while batch := list(itertools.islice(iterator, size)):
        yield first, batch
        first += len(batch)


def _ahead(
    pool: ThreadPoolExecutor,
    function: Callable[[int, list[Atoms]], Item],
    batches: Iterator[tuple[int, list[Atoms]]],
) -> Iterator[Item]:
    """Results in order, while the pool reads and prepares what comes next."""

    def next_one() -> Item | None:
        arguments = next(batches, None)
        return None if arguments is None else function(*arguments)

    waiting: deque[Future[Item | None]] = deque(pool.submit(next_one) for _ in range(BATCHES_AHEAD))
    while (result := waiting.popleft().result()) is not None:
        waiting.append(pool.submit(next_one))
        yield result


def _labelled(
    batch: _Batch, surfaces: Surfaces, levels: Sequence[Level], ensemble_std: bool
) -> Iterator[Atoms]:
    ends = np.cumsum(batch.systems.sizes)
    columns = {}
    for level in levels:
        columns[level] = _Means.of(surfaces, level, ensemble_std)
    for number, (structure, end) in enumerate(zip(batch.structures, ends, strict=True)):
        atoms = structure.copy()
        rows = slice(end - len(atoms), end)
        for level, means in columns.items():
            atoms.info[energy_key(level)] = float(means.energies[number])
            atoms.arrays[forces_key(level)] = means.forces[rows]
            if means.energies_std is not None and means.forces_std is not None:
                atoms.info[energy_key(level) + STD] = float(means.energies_std[number])
                atoms.arrays[forces_key(level) + STD] = means.forces_std[rows]
        yield atoms


@dataclass(frozen=True)
class _Means:
    energies: np.ndarray
    forces: np.ndarray
    energies_std: np.ndarray | None
    forces_std: np.ndarray | None

    @classmethod
    def of(cls, surfaces: Surfaces, level: Level, ensemble_std: bool) -> _Means:
        energies, forces = surfaces.energies[level.id], surfaces.forces[level.id]
        return cls(
            energies.mean(axis=0),
            forces.mean(axis=0),
            energies.std(axis=0, ddof=1) if ensemble_std else None,
            forces.std(axis=0, ddof=1) if ensemble_std else None,
        )


def read_structures(path: Path) -> Iterator[Atoms]:
    """Structures of a file in any format of ASE, one after another.

    Raises UserError if the file is missing, or ASE cannot read it.
    """
    if not path.exists():
        raise UserError(f"No file {path}. Check the path; relative paths start at {Path.cwd()}.")
    try:
        yield from iread(path)
    except Exception as error:  # of ASE's readers, each in its own way
        raise UserError(
            f"ASE cannot read it ({type(error).__name__}: {error}). It may be damaged, or of a "
            "format that 'ase info --formats' does not list."
        ) from error


def predict_file(
    potential: Potential,
    source: Path,
    target: Path,
    levels: Sequence[str | Level],
    *,
    ensemble_std: bool = False,
    batch_size: int = 64,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> int:
    """Predict a file's structures and write them as extended XYZ, complete or not at all.

    Returns their number. Arguments and errors as of `predict` and `read_structures`.
    """
    if target.suffix not in (".extxyz", ".xyz"):
        raise UserError(f"Predictions are extended XYZ; name the file *.extxyz, not {target.name}.")
    n = 0
    with (
        replace_when_complete(target) as partial,
        partial.open("w", encoding="utf-8") as stream,
        ThreadPoolExecutor(1) as writer,
        errors_about(source),
        tqdm(desc=source.name, unit="structure", delay=1) as progress,
    ):
        predicted = predict(
            potential,
            read_structures(source),
            levels,
            ensemble_std=ensemble_std,
            batch_size=batch_size,
            dtype=dtype,
            device=device,
        )
        written: Future[None] | None = None
        while batch := list(itertools.islice(predicted, batch_size)):
            if written is not None:
                written.result()
            written = writer.submit(write, stream, batch, format="extxyz")
            n += len(batch)
            progress.update(len(batch))
        if written is None:
            raise UserError("there is no structure in the file.")
        written.result()
    return n
