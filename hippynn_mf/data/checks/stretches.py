"""Unit of energies that nothing else tells, from how they rise with stretched bonds of hydrogen.

Energies whose atomic contributions are fitted tell no unit by their size, and without forces none
by their slope. But within a group they rise with what the bonds of hydrogen to carbon, nitrogen and
oxygen store, of which length and stiffness are known; what else moves comes on top of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hippynn_mf.data.checks.bonds import (
    EXPONENT,
    LENGTHS,
    from_hydrogens,
    nearest_bonds,
    some_groups,
)
from hippynn_mf.data.checks.report import Accepted, Outcome, Verdict
from hippynn_mf.data.checks.units import FileUnits
from hippynn_mf.data.structures import Structures
from hippynn_mf.levels import Level
from hippynn_mf.units import EV_PER_HARTREE

MIN_CONFORMERS = 24  # a choice: fewer may move what these bonds do not
MIN_CORRELATION = 0.3  # embedded data have 0.7, real ANI-1x 0.5
# Right energies rise 1.2 (embedded) to 1.6 times (real ANI-1x) as much as the bonds alone; another
# unit makes that 23 times more or less at least.
RISE_RANGE = (0.25, 6.0)
N_ERRORS = 3.0  # standard errors by which the rise is beyond


def check_stretches(
    parts: Sequence[Structures], level: Level, units: FileUnits, accepted: Accepted
) -> list[Outcome]:
    """The outcome for the unit of energies of a level whose self energies are fitted."""
    stored, given = _rises(parts, level)
    n = len(stored)
    what = f"energies of level {level.id}"
    if n < MIN_CONFORMERS or not stored.any() or not given.any():
        text = f"nothing proves the unit of the {what}: {n} conformers with bonds of hydrogen."
        return [Outcome(check="stretches", level=level.id, verdict="undecided", text=text)]
    rise = float(stored @ given / (stored @ stored))
    correlation = float(stored @ given / np.sqrt((stored @ stored) * (given @ given)))
    left = given - rise * stored
    error = N_ERRORS * float(np.sqrt(left @ left / (n - 1) / (stored @ stored)))
    values: dict[str, float | int | None] = {
        "n": n, "rise": round(rise, 4), "error": round(error, 4),
        "correlation": round(correlation, 4),
    }  # fmt: skip
    how = (
        f"{what} rise {rise:.3g} ± {error:.2g} times as much as bonds of hydrogen store, "
        f"correlation {correlation:+.2f} over {n} conformers"
    )
    low, high = RISE_RANGE
    is_wrong = correlation >= MIN_CORRELATION and (rise + error < low or rise - error > high)
    verdict: Verdict = "passed" if correlation >= MIN_CORRELATION else "undecided"
    text = f"{how}."
    if is_wrong:
        verdict = "accepted" if accepted.outliers else "refused"
        text = (
            f"the {how}; {low:g} to {high:g} times is right, and another unit is 23 times away at "
            f"least. Give energies in {units.energy}, or declare the unit that they are in "
            "(--units energy=UNIT)"
        )
        text += "." if accepted.outliers else "; or train on them with --accept-outliers."
    elif verdict == "undecided":
        text = f"nothing proves the unit of the {what}: {how}."
    return [Outcome(check="stretches", level=level.id, verdict=verdict, text=text, values=values)]


def _rises(parts: Sequence[Structures], level: Level) -> tuple[np.ndarray, np.ndarray]:
    """(n,) energies stored in bonds of hydrogen, and given ones, less their medians, in eV."""
    stored, given = [np.zeros(0)], [np.zeros(0)]
    for part in parts:
        if level.id not in part.energies:
            continue
        for members in some_groups(part, part.has_energy(level)):
            energies = members.energies[level.id] * EV_PER_HARTREE
            in_bonds = stretching_energies(
                members.species[0], members.positions[:].astype(np.float64)
            )
            known = np.isfinite(in_bonds)
            if known.sum() > 1:
                stored.append(in_bonds[known] - np.median(in_bonds[known]))
                given.append(energies[known] - np.median(energies[known]))
    return np.concatenate(stored), np.concatenate(given)


def stretching_energies(numbers: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """(n,) eV in the bonds of hydrogen of conformers (n, n_atoms, 3), as of Morse potentials.

    NaN where a hydrogen atom is bound to nothing that is known.
    """
    _, apart = from_hydrogens(numbers, positions)
    _, length, rest, constant = nearest_bonds(numbers, apart)
    is_bond = (length > LENGTHS[0] * rest) & (length < LENGTHS[1] * rest)
    decay = np.exp(-EXPONENT * (length - rest))
    energies = constant / (2 * EXPONENT**2) * (1 - decay) ** 2
    return np.where(is_bond.all(axis=1), energies.sum(axis=1), np.nan)
