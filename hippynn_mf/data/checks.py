"""Proof of the sign of forces, from the energies and positions of the same file.

Along the straight line between two conformers of one molecule the energy changes by about
−½ (F_1 + F_2)·(R_2 − R_1). The regression slope of the true change on this estimate is close to
+1 for forces and close to −1 for gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from hippynn_mf.data.structures import Structures
from hippynn_mf.errors import UserError
from hippynn_mf.levels import Level

MAX_GROUPS = 50  # spread over the file
MAX_CONFORMERS = 40  # of each group: neighbours in the file are often the same isomer
MIN_PAIRS = 10
MIN_CORRELATION = 0.8
SLOPE_RANGE = (0.5, 2.0)


@dataclass(frozen=True)
class ForceSign:
    """Outcome of the test: a verdict, and the regression it rests on."""

    verdict: Literal["forces", "gradient", "undecided"]
    slope: float
    correlation: float
    n_pairs: int


def find_force_sign(structures: Structures, level: Level) -> ForceSign:
    """Decide whether the forces of a level are −dE/dR (`forces`) or +dE/dR (`gradient`).

    Each conformer is compared with the most similar one of its group, after superposition.
    `undecided` where there are too few labelled pairs, or no clear relation.
    """
    labelled = structures.has_energy(level) & structures.has_forces(level)
    estimates: list[float] = []
    changes: list[float] = []
    for members_of_group in sample_groups(structures.groups, labelled):
        members = structures[members_of_group]
        n_atoms = int(members.atom_mask[0].sum())
        positions = members.positions[:, :n_atoms].astype(np.float64)
        forces = members.forces[level.id][:, :n_atoms].astype(np.float64)
        for first, second in _nearest_pairs(positions):
            estimate = _energy_change(positions, forces, first, second)
            estimates.append(estimate)
            changes.append(members.energies[level.id][second] - members.energies[level.id][first])
    if len(changes) < MIN_PAIRS or np.ptp(estimates) == 0 or np.ptp(changes) == 0:
        return ForceSign("undecided", np.nan, np.nan, len(changes))
    correlation = float(np.corrcoef(estimates, changes)[0, 1])
    slope = float(np.dot(estimates, changes) / np.dot(estimates, estimates))
    verdict: Literal["forces", "gradient", "undecided"] = "undecided"
    if abs(correlation) >= MIN_CORRELATION and SLOPE_RANGE[0] <= abs(slope) <= SLOPE_RANGE[1]:
        verdict = "forces" if slope > 0 else "gradient"
    return ForceSign(verdict, slope, correlation, len(changes))


def sample_groups(groups: np.ndarray, labelled: np.ndarray) -> list[np.ndarray]:
    """The labelled conformers that the proof looks at, as indices, group by group.

    `groups` (n,) is the group of each conformer, in ascending order; `labelled` is (n,) bool.
    """
    rows = np.flatnonzero(labelled)
    names, starts = np.unique(groups[rows], return_index=True)
    if not len(names):
        return []
    members = np.split(rows, starts[1:])
    chosen = np.linspace(0, len(names) - 1, min(len(names), MAX_GROUPS)).astype(int)
    return [members[number][:MAX_CONFORMERS] for number in chosen]


def require_force_sign(structures: Structures, level: Level, source: str) -> ForceSign:
    """Raise UserError if the forces of a level are proved to be gradients; return the outcome."""
    outcome = find_force_sign(structures, level)
    if outcome.verdict == "gradient":
        raise UserError(
            f"{source}: the forces of level {level.id} have the wrong sign. Energy differences "
            f"follow +dE/dR (slope {outcome.slope:+.2f}, correlation {outcome.correlation:+.2f} "
            f"over {outcome.n_pairs} pairs of conformers), but forces are −dE/dR. Negate them in "
            "the file; in a COMP6 key map, declare the key as 'gradient' instead of 'forces' or "
            "the reverse."
        )
    return outcome


def _nearest_pairs(positions: np.ndarray) -> list[tuple[int, int]]:
    """Every conformer with the one most similar to it by its interatomic distances."""
    distances = np.linalg.norm(positions[:, :, None] - positions[:, None], axis=-1)
    shapes = distances.reshape(len(positions), -1)
    if len(shapes) < 2:
        return []
    apart = np.linalg.norm(shapes[:, None] - shapes[None], axis=-1)
    np.fill_diagonal(apart, np.inf)
    pairs = {tuple(sorted((i, int(j)))) for i, j in enumerate(apart.argmin(axis=1))}
    return sorted((int(i), int(j)) for i, j in pairs)


def _energy_change(positions: np.ndarray, forces: np.ndarray, first: int, second: int) -> float:
    """Trapezoid estimate (hartree) of E(second) − E(first) after superposing the conformers."""
    one = positions[first] - positions[first].mean(axis=0)
    two = positions[second] - positions[second].mean(axis=0)
    left, _, right = np.linalg.svd(two.T @ one)
    turn = left @ right  # two @ turn ≈ one; a reflection will do, since energies are invariant
    mean_force = (forces[first] + forces[second] @ turn) / 2
    return float(-(mean_force * (two @ turn - one)).sum())
