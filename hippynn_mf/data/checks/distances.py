"""Shortest distances against sums of covalent radii: positions in bohr are 1.89 times too long."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase.data import covalent_radii

from hippynn_mf.data.checks.report import Accepted, Outcome, Verdict, list_some
from hippynn_mf.data.checks.units import name_length_unit
from hippynn_mf.data.structures import Structures

# Median over all atoms of the distance to the nearest one, as a share of the sum of their covalent
# radii. Embedded data have 0.86 to 1.00, real ANI-1x 0.99.
RATIO_RANGE = (0.7, 1.45)
# Two atoms nearer than this share: an H–H distance of 0.25 Å, a C–C distance of 0.6 Å.
# A choice, not measured; embedded data and 1,000 conformers of ANI-1x have none.
CLASH = 0.4
MAX_CLASH_SHARE = 0.01
MAX_CONFORMERS = 50  # of a group, spread over it, whose distances are looked at
MAX_TOTAL = 5000  # of a file; of groups without number, `LEAST_CONFORMERS` of each
LEAST_CONFORMERS = 4
BLOCK = 2**21  # distances at once


def check_distances(
    parts: Sequence[Structures], accepted: Accepted
) -> tuple[list[Outcome], str | None]:
    """Outcomes for the unit of positions and for clashes, and the unit they are in if not Å."""
    nearest: list[np.ndarray] = []
    others: list[str] = []  # groups whose positions are all in another unit
    n_looked_at = 0
    clashes: list[str] = []
    n_groups = sum(len(np.unique(part.groups)) for part in parts)
    n_each = max(LEAST_CONFORMERS, min(MAX_CONFORMERS, MAX_TOTAL // max(n_groups, 1)))
    for part in parts:
        for name, members in part.by_group():
            n_atoms = int(members.atom_mask[0].sum())
            if n_atoms < 2:
                continue
            spread = np.unique(
                np.linspace(0, len(members) - 1, min(len(members), n_each)).astype(int)
            )
            ratios = _nearest(members.positions[spread, :n_atoms], members.species[0, :n_atoms])
            nearest.append(ratios.ravel())
            if _is_other_unit(ratios):
                others.append(f"{name} ({np.median(ratios):.2f})")
            n_looked_at += len(spread)
            close = np.flatnonzero(ratios.min(axis=1) < CLASH)
            clashes += [f"row {members.rows[spread[i]]} of {name}" for i in close]
    if not nearest:
        text = "no structure has two atoms."
        return [Outcome(check="distances", verdict="undecided", text=text)], None
    ratio = float(np.median(np.concatenate(nearest)))
    values: dict[str, float | int | None] = {
        "nearest_over_radii": round(ratio, 4),
        "n_structures": n_looked_at,
        "n_clashes": len(clashes),
    }
    how = f"atoms are {ratio:.2f} times the sum of covalent radii from their nearest (median)"
    if not RATIO_RANGE[0] <= ratio <= RATIO_RANGE[1]:
        unit = name_length_unit(ratio)
        named = f"They are in {unit}" if unit and unit != "Å" else "No known unit explains it"
        text = f"positions are not in Å: {how}. {named}. Give positions in Å."
        refused = Outcome(check="distances", verdict="refused", text=text, values=values)
        return [refused], unit if unit != "Å" else None
    if others:
        text = (
            f"positions of some groups are not in Å: {list_some(others)}; in all, {how}. Give all "
            "positions in Å, or train on them with --accept-outliers."
        )
        verdict_of_groups: Verdict = "accepted" if accepted.outliers else "refused"
        found = Outcome(check="distances", verdict=verdict_of_groups, text=text, values=values)
        return [found], None
    outcomes = [Outcome(check="distances", verdict="passed", text=f"{how}.", values=values)]
    if clashes:
        share = len(clashes) / n_looked_at
        beyond = share > MAX_CLASH_SHARE
        text = (
            f"{len(clashes)} of {n_looked_at} structures have atoms nearer than {CLASH} times "
            f"their covalent radii: {list_some(clashes)}."
        )
        if beyond and not accepted.outliers:
            text += " Remove them, or train on them with --accept-outliers."
        verdict: Verdict = (
            "noted" if not beyond else ("accepted" if accepted.outliers else "refused")
        )
        outcomes.append(Outcome(check="clashes", verdict=verdict, text=text))
    return outcomes, None


def _is_other_unit(ratios: np.ndarray) -> bool:
    """Whether all conformers of a group are as if in another unit; a scan of a bond has a range."""
    medians = np.median(ratios, axis=1)
    unit = name_length_unit(float(np.median(medians)))
    is_beyond = medians.min() > RATIO_RANGE[1] or medians.max() < RATIO_RANGE[0]
    return bool(is_beyond and unit not in (None, "Å") and medians.max() < 1.5 * medians.min())


def _nearest(positions: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """(n, n_atoms) distance to the nearest atom, as a share of the sum of covalent radii."""
    radii = covalent_radii[numbers]
    sums = radii[:, None] + radii[None]
    n_atoms = len(numbers)
    rows = max(1, BLOCK // n_atoms**2)
    found = []
    for start in range(0, len(positions), rows):
        block = positions[start : start + rows].astype(np.float64)
        apart = np.linalg.norm(block[:, :, None] - block[:, None], axis=-1) / sums
        apart[:, np.arange(n_atoms), np.arange(n_atoms)] = np.inf
        found.append(apart.min(axis=2))
    return np.concatenate(found)
