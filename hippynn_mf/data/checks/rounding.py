"""Energies with too few digits: rounded when printed, or stored in half or single precision."""

from __future__ import annotations

import numpy as np

from hippynn_mf.data.checks.report import NOTHING, Accepted, Outcome, Verdict
from hippynn_mf.data.checks.units import FileUnits
from hippynn_mf.levels import Level
from hippynn_mf.units import ENERGY_UNITS, KCAL_PER_MOL_PER_HARTREE

DIGITS = 5  # decimal places that are looked for, from none on
MIN_ENERGIES = 10  # fewer are round by chance
NOTED, REFUSED = 0.05, 0.5  # kcal/mol; what models reach, and half of chemical accuracy
EXACT = 1e-9  # relative, of a value that has been converted


def check_rounding(
    energies: np.ndarray, level: Level, units: FileUnits, accepted: Accepted = NOTHING
) -> list[Outcome]:
    """An outcome where all energies (n,) in hartree, NaN where missing, are multiples of a step."""
    per_hartree = ENERGY_UNITS[units.energy]
    values = energies[np.isfinite(energies)] * per_hartree
    if len(values) < MIN_ENERGIES:
        return []
    step = _step(values)
    if step is None:
        return []
    kcal = step / per_hartree * KCAL_PER_MOL_PER_HARTREE
    if kcal < NOTED:
        return []
    verdict: Verdict = "noted"
    if kcal >= REFUSED:
        verdict = "accepted" if accepted.outliers else "refused"
    text = (
        f"energies of level {level.id} have steps of {step:.3g} {units.energy}, {kcal:.2g} "
        "kcal/mol: they were rounded, or stored in half or single precision. Give them with all "
        "digits"
    )
    text += ", or train on them with --accept-outliers." if verdict == "refused" else "."
    return [
        Outcome(
            check="digits",
            level=level.id,
            verdict=verdict,
            text=text,
            values={"step_kcal_per_mol": round(kcal, 4)},
        )
    ]


def _step(values: np.ndarray) -> float | None:
    """The largest step of which all values are multiples, of a decimal or of binary digits."""
    allowed = EXACT * np.abs(values)
    steps = []
    for kind in (np.float16, np.float32):
        if np.abs(values).max() < np.finfo(kind).max:
            near = values.astype(kind)
            if (np.abs(near.astype(np.float64) - values) <= allowed).all():
                steps.append(float(np.median(np.abs(np.spacing(near).astype(np.float64)))))
    for digits in range(DIGITS):
        if (np.abs(np.round(values, digits) - values) <= allowed).all():
            steps.append(10.0**-digits)
    return max(steps, default=None)
