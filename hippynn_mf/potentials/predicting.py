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

from hippynn_mf.data.extxyz_keys import REFERENCE, STD, energy_key, forces_key
from hippynn_mf.errors import UserError, errors_about
from hippynn_mf.files import replace_when_complete
from hippynn_mf.levels import Level
from hippynn_mf.potentials.evaluator import Evaluator, Surfaces
from hippynn_mf.potentials.potential import Potential
from hippynn_mf.potentials.systems import Systems

BATCHES_AHEAD = 2
MOST_ATOMS = 2**12  # of a batch, unless a single structure has more

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
    atoms_per_block: int | None = None,
) -> Iterator[Atoms]:
    """Copies of the structures, in order, with the labels that the levels predict.

    `info["energy_<level id>"]` in eV and `arrays["forces_<level id>"]` (n_atoms, 3) in eV/Å are
    means over the members; with `ensemble_std`, the standard deviations (n − 1) over them have
    `std_` before these names. Labels of these levels that a structure has already, under an id or a
    label, get `REF_` before their names. Structures may be open or periodic and of any size.

    Raises UserError for unknown levels, wrong structures, and `ensemble_std` of a single member.
    """
    chosen = [potential.level(name) for name in levels]
    if not chosen or len(set(chosen)) < len(chosen):
        names = ", ".join(level.label for level in chosen)
        raise UserError(f"Expected levels to predict, each once; found: {names or 'none'}.")
    if batch_size < 1:
        raise UserError(f"A batch has at least one structure; found batch_size={batch_size}.")
    if ensemble_std and len(potential.members) < 2:
        raise UserError("The model has one member; a standard deviation needs at least two.")
    evaluator = Evaluator(potential, dtype=dtype, device=device, atoms_per_block=atoms_per_block)

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
    """Batches of at most `size` structures and `MOST_ATOMS` atoms, with the number of the first."""
    batch: list[Atoms] = []
    first = n_atoms = 0
    for atoms in structures:
        if batch and (len(batch) == size or n_atoms + len(atoms) > MOST_ATOMS):
            yield first, batch
            first, n_atoms, batch = first + len(batch), 0, []
        batch.append(atoms)
        n_atoms += len(atoms)
    if batch:
        yield first, batch


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
        atoms.calc = structure.calc  # energies and forces of the file's own
        _set_references_aside(atoms, levels)
        rows = slice(end - len(atoms), end)
        for level, means in columns.items():
            energy, forces = energy_key(level), forces_key(level)
            atoms.info[energy] = float(means.energies[number])
            atoms.arrays[forces] = means.forces[rows]
            if means.energies_std is not None and means.forces_std is not None:
                atoms.info[STD + energy] = float(means.energies_std[number])
                atoms.arrays[STD + forces] = means.forces_std[rows]
        yield atoms


def _set_references_aside(atoms: Atoms, levels: Sequence[Level]) -> None:
    """Rename labels of the levels, and forget standard deviations of another prediction."""
    for level in levels:
        for name in (level.id, level.label):
            for key, values in ((f"energy_{name}", atoms.info), (f"forces_{name}", atoms.arrays)):
                values.pop(STD + key, None)
                if key in values:
                    values[REFERENCE + key] = values.pop(key)


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
    exact = path.exists()  # else ASE's own `file.xyz@0:10` may be meant
    if not exact and not Path(str(path).rpartition("@")[0] or path).exists():
        raise UserError(f"No file {path}. Check the path; relative paths start at {Path.cwd()}.")
    try:
        for atoms in iread(path if exact else str(path), do_not_split_by_at_sign=exact):
            for key, value in atoms.info.items():
                if isinstance(value, str) and "\n" in value:
                    raise UserError(
                        f"{key}={value!r} has a line break, which extended XYZ cannot hold. "
                        "Remove it."
                    )
            yield atoms
    except UserError:
        raise
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
    atoms_per_block: int | None = None,
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
            atoms_per_block=atoms_per_block,
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
