"""Whose energies forces belong to: those of their own level, or those of another.

Energies of two levels that were exchanged are as smooth as before, and their difference scatters as
little. But forces follow the energies they are derivatives of.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hippynn_mf.data.checks.pairs import ConformerPairs, draw_conformers, find_pairs
from hippynn_mf.data.checks.report import Accepted, Outcome, Verdict
from hippynn_mf.data.checks.slopes import MAX_PAIRS, MAX_REACH, rule_errors
from hippynn_mf.data.structures import Structures
from hippynn_mf.levels import Level

# Pairs whose energy changes differ between the levels by more than what forces tell a change to.
# Of these, right forces are nearer to the other level's energies in less than 10 of 100 in embedded
# data, exchanged ones in more than 90: a test holds it.
MIN_PAIRS = 10  # a choice
EXCHANGED = 0.8
N_CONFORMERS = 400  # that are drawn of each part of a file: whole groups, one at least


def check_owners(
    parts: Sequence[Structures], level: Level, others: Sequence[Level], accepted: Accepted
) -> list[Outcome]:
    """Outcomes for the forces of a level beside the energies of others.

    None where too few pairs of close conformers have energies that tell two levels apart.
    """
    outcomes = []
    for other in others:
        pairs = _pairs_with_both(parts, level, other)
        if not len(pairs):
            continue
        own, of_other = pairs.changes.T
        tells = np.abs(own - of_other) > rule_errors(pairs)
        n = int(tells.sum())
        if n < MIN_PAIRS:
            continue
        is_other = np.abs(of_other - pairs.estimates) < np.abs(own - pairs.estimates)
        share = float(is_other[tells].mean())
        is_exchanged = share > EXCHANGED
        mine, yours = "its own energies", f"the energies of {other.id}"
        follows, rather = (yours, mine) if is_exchanged else (mine, yours)
        text = (
            f"forces of level {level.id} follow {follows} rather than {rather} in "
            f"{share if is_exchanged else 1 - share:.0%} of {n} pairs of close conformers whose "
            "energy changes tell the levels apart."
        )
        verdict: Verdict = "passed" if share < 1 - EXCHANGED else "undecided"
        if is_exchanged:
            verdict = "accepted" if accepted.outliers else "refused"
            text += (
                " Energies of the two may be exchanged, or the forces be of the other level. "
                "Correct the keys"
            )
            text += "." if accepted.outliers else ", or train on them with --accept-outliers."
        outcomes.append(
            Outcome(
                check="owners",
                level=level.id,
                verdict=verdict,
                text=text,
                values={"n_pairs": n, f"share_{other.id}": round(share, 4)},
            )
        )
    return outcomes


def _pairs_with_both(parts: Sequence[Structures], level: Level, other: Level) -> ConformerPairs:
    """The closest pairs with energies of both levels, whose changes are (n, 2)."""
    pairs = []
    for part in parts:
        if level.id not in part.forces or not {level.id, other.id} <= part.energies.keys():
            continue
        is_open = part[~part.is_periodic] if part.is_periodic.any() else part
        energies = np.stack([is_open.energies[name.id] for name in (level, other)], axis=1)
        labelled = np.isfinite(energies).all(axis=1) & is_open.has_forces(level)
        drawn = draw_conformers(is_open.groups, labelled, N_CONFORMERS)
        if drawn:
            some = np.concatenate(drawn)
            pairs.append(find_pairs(is_open[some], level, energies[some]))
    near = ConformerPairs.join(pairs).closest(MAX_REACH, MAX_PAIRS)
    return near[near.estimates != 0]
