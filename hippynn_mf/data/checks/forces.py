"""Units and sign of forces: what energy differences and what bonds say, as one outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hippynn_mf.data.checks.bonds import Stiffness, find_bonds, stiffness_of, wrong_groups
from hippynn_mf.data.checks.report import NOTHING, Accepted, Outcome, Verdict, list_some
from hippynn_mf.data.checks.slopes import (
    MIN_CORRELATION,
    MIN_PAIRS,
    SLOPE_RANGE,
    ForceSlope,
    find_slope,
)
from hippynn_mf.data.checks.units import FileUnits, name_force_unit
from hippynn_mf.data.structures import Structures
from hippynn_mf.levels import Level

# Times too stiff or too weak, beyond which energies that agree with the forces are wrong as well.
# What is nearer may be another model of atoms, whose energies prove its forces.
ABSURD = 4.0
NEGATE = (
    "Negate them in the file; in a COMP6 key map, declare the key as 'gradient' instead of "
    "'forces' or the reverse."
)


@dataclass(frozen=True)
class _Found:
    what: str
    units: FileUnits
    slope: ForceSlope | None
    bonds: Stiffness | None


def check_forces(
    parts: Sequence[Structures],
    level: Level,
    units: FileUnits,
    *,
    has_energies: bool = True,
    accepted: Accepted = NOTHING,
) -> Outcome:
    """Whether the forces of a level are −dE/dR in the units of the file.

    Energy differences are asked first: they refuse alone, for energies and forces that contradict
    each other are wrong whatever bonds say. What they leave undecided the bonds decide. Forces that
    agree with energies but not with bonds are undecided, unless they are absurd; of a single group
    likewise. Soft bonds exist, as in alkoxides and where a proton is passed on, so what bonds
    refuse can be accepted.
    """
    slope = find_slope(parts, level) if has_energies else None
    # Positions in another unit are refused, and have no known bonds.
    bonds = None if units.found_length else find_bonds(parts, level)
    outcome = judge_forces(slope, None if bonds is None else stiffness_of(bonds), level, units)
    if outcome.verdict == "refused":
        contradict = slope is not None and slope.verdict in ("gradient", "unit")
        return outcome if contradict else _unless_accepted(outcome, accepted)
    wrong = wrong_groups(bonds) if bonds is not None else {}
    if bonds is None or (slope and slope.verdict == "forces" and outcome.verdict != "passed"):
        return outcome  # of another model of atoms
    if has_energies:
        wrong = {
            name: found
            for name, found in wrong.items()
            if _is_absurd(found) or find_slope(_of_group(parts, name), level).verdict != "forces"
        }
    if not wrong:
        return outcome
    shown = list_some([f"{name} ({found.ratio:+.2f})" for name, found in wrong.items()])
    text = (
        f"the forces of level {level.id} are wrong in {len(wrong)} of {len(bonds.names)} groups, "
        f"by how stiff their bonds of hydrogen are (right is 1): {shown}. Another unit, sign or "
        "order there; correct it."
    )
    refused = outcome.model_copy(update={"verdict": "refused", "text": text})
    return _unless_accepted(refused, accepted)


def _of_group(parts: Sequence[Structures], name: str) -> list[Structures]:
    """The structures of a group in all parts that have any."""
    found = []
    for part in parts:
        if name in part.group_names:
            chosen = part[part.groups == part.group_names.index(name)]
            found += [chosen] if len(chosen) else []
    return found


def _unless_accepted(refused: Outcome, accepted: Accepted) -> Outcome:
    """What bonds refuse, with the way round it; or as accepted."""
    if accepted.outliers:
        return refused.model_copy(update={"verdict": "accepted"})
    text = f"{refused.text} If bonds are that soft in these molecules, use --accept-outliers."
    return refused.model_copy(update={"text": text})


def judge_forces(
    slope: ForceSlope | None, bonds: Stiffness | None, level: Level, units: FileUnits
) -> Outcome:
    """The outcome of what was found; None is what was not looked at."""
    verdict, text = _judge(_Found(f"the forces of level {level.id}", units, slope, bonds))
    return Outcome(
        check="forces", level=level.id, verdict=verdict, text=text, values=_values(slope, bonds)
    )


def _judge(found: _Found) -> tuple[Verdict, str]:
    by_slope = found.slope.verdict if found.slope else "undecided"
    by_bonds = found.bonds.verdict if found.bonds else "undecided"
    if by_slope in ("gradient", "unit"):
        return "refused", _refuse_by_slope(found)
    if by_slope == "undecided":
        if by_bonds == "undecided":
            return "undecided", (
                f"nothing proves sign and unit of {found.what} ({_reasons(found)}); they are used."
            )
        if by_bonds == "forces":
            return "passed", f"{found.what} have the right sign and unit ({found.bonds})."
        return "refused", _refuse_by_bonds(found)
    how = _describe(found.slope) if found.slope else ""
    if by_bonds in ("undecided", "forces"):
        beside = f"; {found.bonds}" if by_bonds == "forces" else ""
        return "passed", f"{found.what} follow its energies ({how}{beside})."
    if found.bonds and _is_absurd(found.bonds):
        return "refused", _refuse_by_bonds(found)
    return "undecided", (
        f"{found.what} follow its energies ({how}), but not what is known of bonds "
        f"({found.bonds}); they are used. Look at units and at the molecules."
    )


def _is_absurd(bonds: Stiffness) -> bool:
    return bonds.verdict == "unit" and not 1 / ABSURD <= bonds.ratio <= ABSURD


def _refuse_by_slope(found: _Found) -> str:
    if found.slope is None:
        return ""
    slope, how = found.slope.slope, _describe(found.slope)
    if found.slope.verdict == "gradient":
        text = (
            f"{found.what} have the wrong sign. Energy differences follow +dE/dR ({how}), but "
            f"forces are −dE/dR. {NEGATE}"
        )
    else:
        text = f"{found.what} are not −dE/dR in {found.units.force}: {how}."
    if not SLOPE_RANGE[0] <= abs(slope) <= SLOPE_RANGE[1]:
        named = name_force_unit(abs(slope), found.units)
        text += f" {named} Give forces in {found.units.force}."
    return text


def _refuse_by_bonds(found: _Found) -> str:
    if found.bonds is None:
        return ""
    if found.bonds.verdict == "unrelated":
        return (
            f"{found.what} are not those of these structures: {found.bonds}. Rows may be shuffled "
            "or shifted, or positions and forces turned differently. Correct them."
        )
    # Of the forces alone, whatever the energies are in.
    own = FileUnits(found.units.energy)
    named = name_force_unit(1 / abs(found.bonds.ratio), own)
    if found.bonds.verdict == "unit":
        return (
            f"{found.what} are not in {own.force}: {found.bonds}. {named} Give forces in "
            f"{own.force}."
        )
    text = f"{found.what} have the wrong sign: {found.bonds}. {NEGATE}"
    if named != name_force_unit(1.0, own):
        text += f" {named} Give forces in {own.force}."
    return text


def _describe(slope: ForceSlope) -> str:
    return (
        f"slope {slope.slope:+.3g} ± {slope.error:.2g} ± {slope.bias:.2g} by curvature, "
        f"correlation {slope.correlation:+.2f} over {slope.n_pairs} pairs of conformers up to "
        f"{slope.reach:.2g} Å apart"
    )


def _reasons(found: _Found) -> str:
    reasons = ["without energies there is no slope" if not found.slope else _no_slope(found.slope)]
    if found.bonds is not None:
        if np.isnan(found.bonds.ratio):
            reasons.append(f"{found.bonds.n_bonds} bonds of hydrogen are too few")
        else:
            reasons.append(str(found.bonds))
    return "; ".join(reasons)


def _no_slope(slope: ForceSlope) -> str:
    if np.isnan(slope.slope):
        return f"{slope.n_pairs} pairs of close conformers, {MIN_PAIRS} are needed"
    if not abs(slope.correlation) >= MIN_CORRELATION:
        return f"{_describe(slope)}; a correlation of {MIN_CORRELATION} is clear"
    return f"{_describe(slope)}; the interval holds right and wrong units alike"


def _values(slope: ForceSlope | None, bonds: Stiffness | None) -> dict[str, float | int | None]:
    values: dict[str, float | int | None] = {}
    if slope is not None:
        values |= {
            "slope": _rounded(slope.slope),
            "slope_error": _rounded(slope.error),
            "slope_bias": _rounded(slope.bias),
            "correlation": _rounded(slope.correlation),
            "n_pairs": slope.n_pairs,
            "reach_angstrom": round(slope.reach, 4),
        }
    if bonds is not None:
        values |= {
            "bond_stiffness": _rounded(bonds.ratio),
            "bond_stiffness_error": _rounded(bonds.error),
            "bond_correlation": _rounded(bonds.correlation),
            "n_bonds": bonds.n_bonds,
        }
    return values


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 4)
