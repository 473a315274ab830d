"""Structures that several extended XYZ files share, or that one repeats, made one conformer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hippynn_mf.data.formats.extxyz import Frame
from hippynn_mf.data.matching import find_equal_rows
from hippynn_mf.errors import UserError
from hippynn_mf.units import EV_PER_HARTREE

# Two labels of one structure may differ by so much: what a repeated calculation does not reproduce.
SAME_ENERGY = 1e-3 / EV_PER_HARTREE  # 1e-3 eV
SAME_FORCE = 1e-2 / EV_PER_HARTREE  # 1e-2 eV/Å


@dataclass(frozen=True)
class Merged:
    """Conformers in the order in which they occur first.

    Attributes:
        frames: the conformers with the labels of all their structures, the first of each if
            there are two.
        n_matched: conformers that occur in several files.
        n_repeated: structures that repeat another of the same file.
    """

    frames: list[Frame]
    n_matched: int
    n_repeated: int


def merge_frames(files: Sequence[Sequence[Frame]]) -> Merged:
    """Make structures of some files with the same atoms at the same positions one conformer.

    So that no conformer trains at one level and tests at another. Labels of one structure that
    contradict each other are a UserError.
    """
    frames = [frame for file in files for frame in file]
    file_of_frame = np.repeat(np.arange(len(files)), [len(file) for file in files])
    conformers: defaultdict[int, list[int]] = defaultdict(list)
    for index, first in enumerate(_find_first(frames)):
        conformers[int(first)].append(index)
    n_files = [len(np.unique(file_of_frame[same])) for same in conformers.values()]
    return Merged(
        frames=[_unite([frames[index] for index in same]) for same in conformers.values()],
        n_matched=sum(n > 1 for n in n_files),
        n_repeated=len(frames) - sum(n_files),
    )


def _find_first(frames: Sequence[Frame]) -> np.ndarray:
    """(n,) index of the first structure that is the same as each of `frames`."""
    first = np.arange(len(frames))
    by_atoms: defaultdict[bytes, list[int]] = defaultdict(list)
    for index, frame in enumerate(frames):
        by_atoms[frame.numbers.tobytes()].append(index)
    for members in by_atoms.values():
        positions = np.stack([frames[index].positions.ravel() for index in members])
        first[members] = np.array(members)[find_equal_rows(positions)]
    return first


def _unite(same: Sequence[Frame]) -> Frame:
    """One conformer with all labels of some structures."""
    if len(same) == 1:
        return same[0]
    energies: dict[str, float] = {}
    forces: dict[str, np.ndarray] = {}
    for frame in same:
        if frame.system != same[0].system:
            raise UserError(
                f"{frame.place} repeats {same[0].place}, but one has {_list(frame.system)} and "
                f"the other {_list(same[0].system)}. Remove the wrong one."
            )
        _refuse_contradiction(same[0], frame, energies, frame.energies, SAME_ENERGY)
        _refuse_contradiction(same[0], frame, forces, frame.forces, SAME_FORCE)
        energies = {**frame.energies, **energies}
        forces = {**frame.forces, **forces}
    return replace(same[0], energies=energies, forces=forces)


def _list(system: Mapping[str, float]) -> str:
    return ", ".join(f"{name}={value:g}" for name, value in system.items()) or "no charge or spin"


def _refuse_contradiction(
    first: Frame,
    frame: Frame,
    known: Mapping[str, float | np.ndarray],
    labels: Mapping[str, float | np.ndarray],
    tolerance: float,
) -> None:
    for dataset in known.keys() & labels:
        difference = np.abs(np.asarray(known[dataset]) - labels[dataset]).max()
        if difference > tolerance:
            unit = "eV/Å" if np.ndim(labels[dataset]) else "eV"
            raise UserError(
                f"{frame.place} repeats {first.place}, but {dataset} differs by "
                f"{difference * EV_PER_HARTREE:.3g} {unit}. Remove the wrong one."
            )
