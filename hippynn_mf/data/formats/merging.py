"""Structures that several extended XYZ files share, or that one repeats, made one conformer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hippynn_mf.data.copies import SAME_ENERGY, SAME_FORCE, SAME_STRESS
from hippynn_mf.data.crystals import is_moved
from hippynn_mf.data.formats.frames import Frame
from hippynn_mf.data.matching import Batch, find_first
from hippynn_mf.data.superposition import SAME_POSITION, superpose
from hippynn_mf.errors import UserError
from hippynn_mf.keys import STRESS
from hippynn_mf.units import EV_PER_HARTREE


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
    """Make structures of some files that are one conformer (see `matching`) one structure.

    So that no conformer trains at one level and tests at another. Forces are turned into the frame
    of the structure that is kept. Labels of one structure that contradict each other are a
    UserError.
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
    """(n,) index of the first structure that is the same conformer as each of `frames`."""
    by_atoms: defaultdict[bytes, list[int]] = defaultdict(list)
    open_cell = np.zeros((3, 3))
    for index, frame in enumerate(frames):
        by_atoms[frame.numbers.tobytes()].append(index)
    batches = []
    for members in by_atoms.values():
        positions = np.stack([frames[index].positions for index in members])
        cells = [frames[index].cell for index in members]
        stacked = np.stack([open_cell if cell is None else cell for cell in cells])
        numbers = frames[members[0]].numbers
        batches.append(
            Batch(
                numbers,
                len(members),
                positions.__getitem__,
                stacked if any(cell is not None for cell in cells) else None,
            )
        )
    order = np.array([index for members in by_atoms.values() for index in members], np.int64)
    leader = order[find_first(batches)]  # of each in the order of the batches
    lowest = np.arange(len(frames))
    np.minimum.at(lowest, leader, order)
    first = np.empty(len(frames), np.int64)
    first[order] = lowest[leader]
    return first


def _unite(same: Sequence[Frame]) -> Frame:
    """One conformer with all labels of some structures."""
    if len(same) == 1:
        return same[0]
    energies: dict[str, float] = {}
    forces: dict[str, np.ndarray] = {}
    stress: dict[str, np.ndarray] = {}
    system: dict[str, float] = {}  # what one file says and another leaves out is no contradiction
    for frame in same:
        if any(system.get(name, value) != value for name, value in frame.system.items()):
            raise UserError(
                f"{frame.place} repeats {same[0].place}, but one has {_list(frame.system)} and "
                f"the other {_list(system)}. Remove the wrong one."
            )
        system |= frame.system
        turned = frame.forces if frame is same[0] else _turned(frame, same[0])
        _refuse_contradiction(same[0], frame, stress, frame.stress, SAME_STRESS)
        stress = {**frame.stress, **stress}
        _refuse_contradiction(same[0], frame, energies, frame.energies, SAME_ENERGY)
        _refuse_contradiction(same[0], frame, forces, turned, SAME_FORCE)
        energies = {**frame.energies, **energies}
        forces = {**turned, **forces}
    return replace(same[0], energies=energies, forces=forces, stress=stress, system=system)


def _list(system: Mapping[str, float]) -> str:
    return ", ".join(f"{name}={value:g}" for name, value in system.items())


def _turned(frame: Frame, first: Frame) -> dict[str, np.ndarray]:
    """The forces of a structure in the frame and the order of atoms of another that it repeats."""
    if first.cell is not None and frame.cell is not None:
        _refuse_turned_crystal(frame, first)
        return dict(frame.forces)
    if not frame.forces:
        return {}
    # Both are within the tolerance of a third, if neither is the first that was found.
    laid = superpose(
        (first.numbers, frame.numbers),
        first.positions[None],
        frame.positions[None],
        2 * SAME_POSITION,
    )
    return {name: laid.turned(values[None])[0] for name, values in frame.forces.items()}


def _refuse_turned_crystal(frame: Frame, first: Frame) -> None:
    """Raise UserError for labels of a crystal that are in another frame than those of its copy."""
    assert first.cell is not None
    assert frame.cell is not None
    same_atoms = bool((first.numbers == frame.numbers).all())
    if (frame.forces or frame.stress) and not is_moved(
        first.positions, frame.positions, first.cell, frame.cell, same_atoms
    ):
        raise UserError(
            f"{frame.place} repeats {first.place}, a periodic structure, in another cell, "
            "orientation or order of atoms, so its forces and stress cannot be joined to it. Write "
            "both alike."
        )


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
            unit = (
                ("eV/Å³" if dataset.endswith(STRESS) else "eV/Å")
                if np.ndim(labels[dataset])
                else "eV"
            )
            raise UserError(
                f"{frame.place} repeats {first.place}, but {dataset} differs by "
                f"{difference * EV_PER_HARTREE:.3g} {unit}. Remove the wrong one."
            )
