"""Energies with too few digits: rounded when printed, or stored in half precision."""

from __future__ import annotations

import numpy as np

from hippynn_mf.data.checks.report import Outcome, Verdict
from hippynn_mf.data.checks.units import ENERGIES, FileUnits
from hippynn_mf.levels import Level
from hippynn_mf.units import KCAL_PER_MOL_PER_HARTREE

DIGITS = 5  # decimal places that are looked for, from none on
MIN_ENERGIES = 10  # fewer are round by chance
NOTED, REFUSED = 0.05, 0.5  # kcal/mol; what models reach, and half of chemical accuracy
EXACT = 1e-9  # relative, of a value that has been converted


def check_rounding(energies: np.ndarray, level: Level, units: FileUnits) -> list[Outcome]:
    """An outcome where all energies (n,) in hartree, NaN where missing, are multiples of a step."""
    per_hartree = ENERGIES[units.energy]
    values = energies[np.isfinite(energies)] * per_hartree
    if len(values) < MIN_ENERGIES:
        return []
    step = _step(values)
    if step is None:
        return []
    kcal = step / per_hartree * KCAL_PER_MOL_PER_HARTREE
    if kcal < NOTED:
        return []
    verdict: Verdict = "refused" if kcal >= REFUSED else "noted"
    text = (
        f"energies of level {level.id} have steps of {step:g} {units.energy}, {kcal:.2g} kcal/mol: "
        "they were rounded, or stored in half precision. Give them with all digits."
    )
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
    """The step of which all values are multiples, of a decimal or of half precision."""
    if np.abs(values).max() < np.finfo(np.float16).max:
        near = values.astype(np.float16).astype(np.float64)
        if (np.abs(near - values) <= EXACT * np.abs(values)).all():
            return float(
                np.median(np.abs(np.spacing(values.astype(np.float16)).astype(np.float64)))
            )
    for digits in range(DIGITS):
        if (np.abs(np.round(values, digits) - values) <= EXACT * np.abs(values)).all():
            return 10.0**-digits
    return None
