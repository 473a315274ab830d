"""Shortest distances against sums of covalent radii: positions in bohr are 1.89 times too long."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase.data import covalent_radii

from hippynn_mf.data.checks.crystals import nearest_in_cells
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
BLOCK = 2**19  # distances at once


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
        some = part.only({})[_spread_over(part.groups, n_each)]
        some = some[some.n_atoms > 1]
        ratios = np.full(some.species.shape, np.inf)
        periodic = some.is_periodic
        molecules = some[~periodic]
        ratios[~periodic, : molecules.species.places.width] = _nearest(molecules)
        if periodic.any():
            crystals = some[periodic]
            ratios[periodic, : crystals.species.places.width] = nearest_in_cells(crystals)
        nearest.append(ratios[some.atom_mask & np.isfinite(ratios)])
        others += _in_other_units(some, ratios)
        n_looked_at += len(some)
        close = np.flatnonzero(ratios.min(axis=1, initial=np.inf) < CLASH)
        clashes += [f"row {some.rows[i]} of {some.group_names[some.groups[i]]}" for i in close]
    if not n_looked_at:
        text = "no structure has two atoms."
        return [Outcome(check="distances", verdict="undecided", text=text)], None
    ratio = float(np.median(np.concatenate(nearest)))
    n = sum(len(part) for part in parts)
    values: dict[str, float | int | None] = {
        "nearest_over_radii": round(ratio, 4),
        "n_looked_at": n_looked_at,
        "n": n,
        "n_clashes": len(clashes),
    }
    how = (
        f"atoms are {ratio:.2f} times the sum of covalent radii from their nearest (median, "
        f"{n_looked_at} of {n} structures looked at)"
    )
    if not RATIO_RANGE[0] <= ratio <= RATIO_RANGE[1]:
        unit = name_length_unit(ratio)
        named = f"They are in {unit}" if unit and unit != "Å" else "No known unit explains it"
        text = f"positions are not in Å: {how}. {named}. Give positions in Å"
        if accepted.outliers:  # as noble gases, whose atoms are not bound
            found = Outcome(check="distances", verdict="accepted", text=f"{text}.", values=values)
            return [found], None
        text += "; if atoms are that far apart, train on them with --accept-outliers."
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
            f"{len(clashes)} of {n_looked_at} structures (of {n}) have atoms nearer than {CLASH} "
            f"times their covalent radii: {list_some(clashes)}."
        )
        if beyond and not accepted.outliers:
            text += " Remove them, or train on them with --accept-outliers."
        verdict: Verdict = (
            "noted" if not beyond else ("accepted" if accepted.outliers else "refused")
        )
        outcomes.append(Outcome(check="clashes", verdict=verdict, text=text))
    return outcomes, None


def _spread_over(groups: np.ndarray, n_each: int) -> np.ndarray:
    """Indices of at most `n_each` conformers of each group, evenly spread over it.

    `groups` (n,) is the group of each conformer, in ascending order.
    """
    _, starts, sizes = np.unique(groups, return_index=True, return_counts=True)
    n_drawn = np.minimum(sizes, n_each)
    number = np.arange(n_drawn.sum()) - np.repeat(np.cumsum(n_drawn) - n_drawn, n_drawn)
    steps = (sizes - 1) / np.maximum(n_drawn - 1, 1)
    # The last one is the last of its group, whatever rounding makes of the product.
    places = np.floor(number * np.repeat(steps, n_drawn) + 1e-9).astype(np.int64)
    return np.asarray(np.repeat(starts, n_drawn) + places)


def _nearest(structures: Structures) -> np.ndarray:
    """(n, n_atoms_max) distance to the nearest atom, as a share of the sum of covalent radii.

    Infinite for padding. Conformers of one size are worked on together, for few groups have many.
    """
    ratios = np.full(structures.species.shape, np.inf)
    n_atoms_of = structures.n_atoms
    for n_atoms in np.unique(n_atoms_of):
        members = np.flatnonzero(n_atoms_of == n_atoms)
        diagonal = np.arange(n_atoms)
        rows = max(1, BLOCK // n_atoms**2)
        for chosen in (members[start : start + rows] for start in range(0, len(members), rows)):
            squares = np.zeros((len(chosen), n_atoms, n_atoms), np.float32)
            species, positions = structures.species[chosen], structures.positions[chosen]
            for axis in range(3):
                values = positions[:, :, axis]
                apart = values[:, :, None] - values[:, None]
                squares += np.square(apart, out=apart)
            radii = covalent_radii[species].astype(np.float32)
            squares /= np.square(radii[:, :, None] + radii[:, None])
            squares[:, diagonal, diagonal] = np.inf
            ratios[chosen, :n_atoms] = np.sqrt(squares.min(axis=2))
    return ratios


def _is_other_unit(ratios: np.ndarray) -> bool:
    """Whether all conformers of a group are as if in another unit; a scan of a bond has a range."""
    medians = np.median(ratios, axis=1)
    unit = name_length_unit(float(np.median(medians)))
    is_beyond = medians.min() > RATIO_RANGE[1] or medians.max() < RATIO_RANGE[0]
    return bool(is_beyond and unit not in (None, "Å") and medians.max() < 1.5 * medians.min())


def _in_other_units(structures: Structures, ratios: np.ndarray) -> list[str]:
    """The groups whose positions are all as if in another unit, with their median ratio."""
    is_beyond = (ratios > RATIO_RANGE[1]) | (ratios < RATIO_RANGE[0])
    n_atoms_of = structures.n_atoms
    # The median of a conformer is beyond only if half of its atoms are: few groups have any such.
    is_doubtful = 2 * (is_beyond & structures.atom_mask).sum(axis=1) >= n_atoms_of
    found = []
    for group in np.unique(structures.groups[is_doubtful]):
        start, stop = np.searchsorted(structures.groups, (group, group + 1))
        of_group = ratios[start:stop, : n_atoms_of[start]]
        if _is_other_unit(of_group):
            found.append(f"{structures.group_names[group]} ({np.median(of_group):.2f})")
    return found
