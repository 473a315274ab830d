"""Torsions: part of a molecule turned about a single bond, all other internal coordinates kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

TURNED_SHARE = 0.5  # of the rotors of a conformer; the others keep the angle of their minimum


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
