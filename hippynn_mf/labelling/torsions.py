"""Torsions: part of a molecule turned about a single bond, all other internal coordinates kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import networkx
import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

TURNED_SHARE = 0.5  # of the rotors of a conformer; the others keep the angle of their minimum

BOND = 1.25  # longest bond over the sum of covalent radii
SINGLE = 0.91  # shortest single bond over that sum: of C=C, C=N and N=N it is below 0.89
STRAIGHT = 170.0  # degrees, from which a neighbour turns about itself


@dataclass(frozen=True)
class Rotor:
    """A bond from atom `start` to `end`, and the atoms that turn about it."""

    start: int
    end: int
    moving: tuple[int, ...]


def turn(positions: np.ndarray, rotor: Rotor, angle: float) -> np.ndarray:
    """Positions (n_atoms, 3) in Å after a turn by `angle` in radians."""
    origin = positions[rotor.end]
    axis = origin - positions[rotor.start]
    rotation = Rotation.from_rotvec(angle * axis / np.linalg.norm(axis))
    turned = positions.copy()
    moving = list(rotor.moving)
    turned[moving] = origin + rotation.apply(positions[moving] - origin)
    return turned


def turn_at_random(
    positions: np.ndarray, rotors: Sequence[Rotor], rng: np.random.Generator
) -> np.ndarray:
    """Positions (n_atoms, 3) in Å with some of the rotors turned by any angle.

    Turning the displaced atoms turns their displacements with them, as normal modes of the
    rotated molecule would.
    """
    for rotor in rotors:
        if rng.random() < TURNED_SHARE:
            positions = turn(positions, rotor, rng.uniform(-np.pi, np.pi))
    return positions


def bonds_of(numbers: np.ndarray, positions: np.ndarray) -> networkx.Graph:
    """The bonds of a molecule, told by distances: a graph of its atoms, numbered from 0."""
    relative = relative_distances(numbers, positions)
    graph = networkx.Graph()
    graph.add_nodes_from(range(len(numbers)))
    graph.add_edges_from(zip(*np.nonzero(np.triu(relative < BOND, 1)), strict=True))
    return graph


def rotors_of(atoms: Atoms) -> tuple[Rotor, ...]:
    """The single bonds outside rings whose turn changes a geometry; the smaller side turns.

    Bonds are told by distances alone: a bond is single if it is longer than `SINGLE` times the sum
    of the covalent radii, so that amides turn and double bonds do not.
    """
    graph = bonds_of(atoms.numbers, atoms.positions)
    relative = relative_distances(atoms.numbers, atoms.positions)
    rotors = []
    for start, end in sorted(networkx.bridges(graph)):
        if relative[start, end] < SINGLE:
            continue
        ends = ((start, end), (end, start))
        if any(_is_straight(atoms.positions, graph, *pair) for pair in ends):
            continue
        graph.remove_edge(start, end)
        sides = [networkx.node_connected_component(graph, atom) for atom in (start, end)]
        graph.add_edge(start, end)
        if len(sides[0]) < len(sides[1]):
            start, end, sides = end, start, sides[::-1]
        rotors.append(Rotor(int(start), int(end), tuple(sorted(map(int, sides[1] - {end})))))
    return tuple(rotors)


def relative_distances(numbers: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Distances (n_atoms, n_atoms) over the sums of covalent radii, infinite of an atom itself."""
    relative = cdist(positions, positions) / np.add.outer(*2 * [covalent_radii[numbers]])
    np.fill_diagonal(relative, np.inf)
    return np.asarray(relative)


def _is_straight(positions: np.ndarray, graph: networkx.Graph, end: int, other: int) -> bool:
    """Whether nothing at one end of a bond is off its axis."""
    axis = positions[other] - positions[end]
    for neighbour in set(graph[end]) - {other}:
        arm = positions[neighbour] - positions[end]
        cosine = arm @ axis / np.linalg.norm(arm) / np.linalg.norm(axis)
        if np.degrees(np.arccos(np.clip(cosine, -1, 1))) < STRAIGHT:
            return False
    return True
