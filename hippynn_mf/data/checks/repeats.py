"""Energies that are exactly those of another conformer: a column that was filled, or copied."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hippynn_mf.data.checks.report import Accepted, Outcome, Verdict, list_some
from hippynn_mf.levels import Level

MIN_EQUAL = 10  # conformers
MAX_SHARE = 0.05  # of conformers; embedded data and real ANI-1x have none
# Energies with few digits are equal by chance, and then many that differ do by one step of them.
MAX_NEAR = 0.1


def check_repeats(
    energies: np.ndarray,
    names: Sequence[str],
    groups: np.ndarray,
    level: Level,
    accepted: Accepted,
) -> list[Outcome]:
    """An outcome if many energies are exactly those of another conformer of their group.

    Args:
        energies: (n,) in hartree, NaN where missing.
        names: of the structures, for messages; copies are joined before.
        groups: (n,) which group of the file a structure is of.
        level: of the energies.
        accepted: what the user takes responsibility for.
    """
    known = np.flatnonzero(np.isfinite(energies))
    order = known[np.lexsort((energies[known], groups[known]))]
    is_same_group = groups[order[1:]] == groups[order[:-1]]
    steps = np.where(is_same_group, np.diff(energies[order]), np.nan)
    equal = np.flatnonzero(steps == 0)
    larger = steps[steps > 0]
    n_near = int((larger <= 1.5 * larger.min(initial=np.inf)).sum())
    if len(equal) < max(MIN_EQUAL, MAX_SHARE * len(known)):
        return []
    if n_near > MAX_NEAR * len(larger):
        return []
    shown = [f"{names[int(order[i])]} and {names[int(order[i + 1])]}" for i in equal[:6]]
    text = (
        f"{len(equal)} of {len(known)} energies of level {level.id} are exactly those of another "
        f"conformer of the same group: {list_some(shown)}. A column may have been filled where "
        "labels were missing, or written once for a molecule. Leave out what was not computed"
    )
    verdict: Verdict = "accepted" if accepted.outliers else "refused"
    text += "." if accepted.outliers else ", or train on it with --accept-outliers."
    values: dict[str, float | int | None] = {"n": len(known), "n_equal": len(equal)}
    return [Outcome(check="repeats", level=level.id, verdict=verdict, text=text, values=values)]
