"""Forces of a molecule alone neither push nor turn it as a whole.

So forces sum to zero, and so do their torques. Forces of another conformer, of other atoms, in
another frame or with axes swapped do not balance, whatever the elements and however few there are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hippynn_mf.data.checks.energies import judge_outliers
from hippynn_mf.data.checks.report import Accepted, Outcome, Verdict
from hippynn_mf.data.structures import Structures
from hippynn_mf.levels import Level
from hippynn_mf.ragged import Ragged
from hippynn_mf.units import EV_PER_HARTREE

# Net force and torque as a share of what they would be if nothing cancelled. Embedded data have a
# median of 0.0005 (torque) and less than 0.03 throughout, real ANI-1x 0.0001 and 0.003; forces of
# another conformer 0.02 to 0.13.
MAX_MEDIAN = 0.015
MAX_SHARE = 0.1  # of a single structure; more stands out
# eV/Å of every component: what grids, convergence and printed digits leave. Near a minimum it is as
# large as what forces sum to, and says nothing of their order.
NOISE = 0.01
MIN_STRUCTURES = 10  # a choice: of fewer it is said
AT_ONCE = 3_000  # structures, whose terms fit into the cache of a processor


def check_balance(parts: Sequence[Structures], level: Level, accepted: Accepted) -> list[Outcome]:
    """Outcomes for the net forces and torques of a level; none without forces of two atoms."""
    names: dict[int, str] = {}
    n_before = 0
    found, are_noise = [np.zeros(0, np.float32)], [np.zeros(0, bool)]
    for part in parts:
        if level.id not in part.forces:
            continue
        rows = np.flatnonzero(part.has_forces(level) & (part.n_atoms > 1))
        for start in range(0, len(rows), AT_ONCE):
            some = part[rows[start : start + AT_ONCE]]
            shares, is_noise = imbalance(some, level)
            found.append(shares.astype(np.float32))
            are_noise.append(is_noise)
            for i in np.flatnonzero(shares > MAX_SHARE).tolist():
                names[n_before + i] = f"row {some.rows[i]} of {some.group_names[some.groups[i]]}"
            n_before += len(some)
    shares = np.concatenate(found)
    found.clear()
    if not len(shares):
        return []
    median = float(np.median(shares))
    judged = np.where(np.concatenate(are_noise), np.float32(0), shares)
    far = np.flatnonzero(judged > MAX_SHARE)
    values: dict[str, float | int | None] = {"n": len(shares), "imbalance": round(median, 6)}
    how = f"net force or torque is {median:.2g} of what it is without cancelling (median)"
    enough = len(shares) >= MIN_STRUCTURES
    if np.median(judged) > MAX_MEDIAN:
        text = (
            f"forces of level {level.id} do not balance: {how}, and more than {MAX_MEDIAN:g} is "
            "not of these structures. Atoms, axes or structures may be in another order, or forces "
            "and positions in different frames. Correct them"
        )
        verdict: Verdict = "noted"
        if enough:
            verdict = "accepted" if accepted.outliers else "refused"
        text += ", or train on them with --accept-outliers." if verdict == "refused" else "."
        return [Outcome(check="balance", level=level.id, verdict=verdict, text=text, values=values)]
    text = f"forces of level {level.id} balance: {how}."
    outcomes = [
        Outcome(check="balance", level=level.id, verdict="passed", text=text, values=values)
    ]
    if len(far) and enough:
        shown = [f"{names[int(i)]} ({shares[i]:.2f})" for i in far[np.argsort(-shares[far])][:6]]
        what = f"forces of level {level.id}, which do not balance,"
        outcomes.append(judge_outliers(what, level, len(far), len(shares), shown, accepted))
    return outcomes


def imbalance(structures: Structures, level: Level) -> tuple[np.ndarray, np.ndarray]:
    """(n,) the larger of net force and net torque, as shares of sums of their sizes.

    And (n,) whether both are no more than noise of the single forces sums to.
    """
    sizes_of = structures.n_atoms
    starts = np.cumsum(sizes_of) - sizes_of
    positions, forces = _flat(structures.positions), _flat(structures.forces[level.id])
    forces *= EV_PER_HARTREE
    centres = np.add.reduceat(positions, starts, axis=1) / sizes_of
    positions -= np.repeat(centres, sizes_of, axis=1)
    terms = np.empty((9, forces.shape[1]))
    terms[:3] = forces
    for axis, (i, j) in enumerate(((1, 2), (2, 0), (0, 1)), 3):
        np.multiply(positions[i], forces[j], out=terms[axis])
        terms[axis] -= positions[j] * forces[i]
    sizes, squared_arms, turning = terms[6:]
    sizes[:] = np.sqrt(np.einsum("xa,xa->a", forces, forces)) + NOISE
    np.einsum("xa,xa->a", positions, positions, out=squared_arms)
    np.multiply(np.sqrt(squared_arms), sizes, out=turning)
    totals = np.add.reduceat(terms, starts, axis=1)
    net = np.linalg.norm(totals[:3], axis=0)
    torque = np.linalg.norm(totals[3:6], axis=0)
    torque[structures.is_periodic] = 0.0  # of which a crystal has none
    # Two standard deviations of a sum of independent components.
    is_noise = net <= 2 * NOISE * np.sqrt(sizes_of)
    is_noise &= torque <= 2 * NOISE * np.sqrt(totals[7])
    shares = np.maximum(net / totals[6], torque / np.maximum(totals[8], 1e-12))
    return shares, is_noise


def _flat(array: Ragged) -> np.ndarray:
    """(3, n_atoms) float64, structure after structure."""
    return array.values.take(array.places.rows(), axis=0).T.astype(np.float64, order="C")
