"""Structures that several extended XYZ files share, or that one repeats, made one conformer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from hippynn_mf.data.formats.extxyz import Frame
from hippynn_mf.data.structures import Structures
from hippynn_mf.errors import UserError
from hippynn_mf.units import EV_PER_HARTREE

SAME_POSITION = 1e-6  # Å, in every coordinate
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


def find_shared(structures: Structures, others: Structures) -> np.ndarray:
    """(n,) True for each of `structures` that is also among the `others`.

    The same are structures with the same atoms, in the same order, at the same positions.
    """
    shared = np.zeros(len(structures), bool)
    by_atoms: defaultdict[bytes, list[int]] = defaultdict(list)
    for index, species in enumerate(structures.species):
        by_atoms[species[species > 0].tobytes()].append(index)
    for _, group in others.by_group():
        n_atoms = int(group.atom_mask[0].sum())
        members = np.array(by_atoms.get(group.species[0, :n_atoms].tobytes(), []), np.int64)
        if not len(members):
            continue
        both = (structures[members], group)
        positions = [each.positions[:, :n_atoms].reshape(len(each), -1) for each in both]
        first = _find_equal_rows(np.concatenate(positions, dtype=np.float64))
        shared[members] |= np.isin(first[: len(members)], first[len(members) :])
    return shared


def _find_first(frames: Sequence[Frame]) -> np.ndarray:
    """(n,) index of the first structure that is the same as each of `frames`."""
    first = np.arange(len(frames))
    by_atoms: defaultdict[bytes, list[int]] = defaultdict(list)
    for index, frame in enumerate(frames):
        by_atoms[frame.numbers.tobytes()].append(index)
    for members in by_atoms.values():
        positions = np.stack([frames[index].positions.ravel() for index in members])
        first[members] = np.array(members)[_find_equal_rows(positions)]
    return first


def _find_equal_rows(positions: np.ndarray) -> np.ndarray:
    """(n,) index of the first row that equals each row of `positions` (n, n_coordinates)."""
    # Equal rows stay near each other in a projection, in which a search is far quicker.
    directions = np.random.default_rng(0).normal(size=(positions.shape[1], 3))
    reach = SAME_POSITION * np.abs(directions).sum(axis=0).max()
    tree = cKDTree(positions @ directions)
    pairs = tree.query_pairs(reach, p=np.inf, output_type="ndarray")
    apart = np.abs(positions[pairs[:, 0]] - positions[pairs[:, 1]]).max(axis=1)
    pairs = pairs[apart <= SAME_POSITION]
    n_rows = len(positions)
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n_rows, n_rows))
    component = connected_components(graph, directed=False)[1]
    return np.unique(component, return_index=True)[1][component]


def _unite(same: Sequence[Frame]) -> Frame:
    """One conformer with all labels of some structures."""
    if len(same) == 1:
        return same[0]
    energies: dict[str, float] = {}
    forces: dict[str, np.ndarray] = {}
    for frame in same:
        _refuse_contradiction(same[0], frame, energies, frame.energies, SAME_ENERGY)
        _refuse_contradiction(same[0], frame, forces, frame.forces, SAME_FORCE)
        energies = {**frame.energies, **energies}
        forces = {**frame.forces, **forces}
    return replace(same[0], energies=energies, forces=forces)


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
