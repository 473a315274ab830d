"""Total energies of every structure against self energies, and their spread without composition.

Both are per bond, of which a molecule of n atoms has at least n − 1, and need no forces: they find
a file whose energies and forces are in the same wrong unit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hippynn_mf.data.checks.fits import (
    MIN_STRUCTURES,
    fit_composition,
    robust_spread,
    sample,
    sample_text,
    sums_over_atoms,
)
from hippynn_mf.data.checks.report import Accepted, Outcome, Verdict, list_some
from hippynn_mf.data.checks.units import FileUnits, name_energy_unit
from hippynn_mf.levels import Level
from hippynn_mf.ragged import blocks_of
from hippynn_mf.units import EV_PER_HARTREE, KCAL_PER_MOL_PER_HARTREE

# eV per bond above or below the self energies. The strongest bonds have 11, with the authors' self
# energies and a large basis 17 (N2); total energies in another unit are beyond by hundreds.
MAX_PER_BOND = 25.0
# eV per bond that structures spread by (robust) when atomic contributions are fitted, which finds a
# wrong unit that the self energies share. Embedded data have 0.05 to 0.31, real ANI-1x 0.17; in
# eV read as hartree 27 times as much.
MAX_SPREAD_PER_BOND = 1.0
# Below it the set may be one molecule at low temperature, or in hartree read as eV: it is said.
MIN_SPREAD_PER_BOND = 0.001
# The same where no self energy tells the unit: eV read as kcal/mol, or hartree as eV, have 0.002 to
# 0.013, molecules of many kinds 0.05 and more.
MIN_SPREAD_UNPROVED = 0.03
MAX_SHARE = 0.001  # of structures beyond a bound; more are refused
# Robust standard deviations of the energy without composition, of one level by itself. Hot samples
# and close contacts have heavy tails (real ANI-1x: 11).
MAX_RATIO = 25.0


def check_energies(
    energies: np.ndarray,
    names: Sequence[str],
    counts: np.ndarray,
    own: np.ndarray,
    level: Level,
    units: FileUnits,
    accepted: Accepted,
) -> tuple[list[Outcome], str | None]:
    """Outcomes for the energies of a level, and the unit they are in if it is not the file's.

    Args:
        energies: (n,) in hartree as the format says; NaN where missing.
        names: of the structures, for messages.
        counts: (n, n_elements) of the elements.
        own: (n,) sums of self energies, hartree; NaN for an element without one, of which energies
            are compared by composition alone.
        level: of the energies.
        units: of the file.
        accepted: what the user takes responsibility for.
    """
    places = np.flatnonzero(np.isfinite(energies))
    n = len(places)
    known = slice(None) if n == len(energies) else places  # of all of them nothing is copied
    if not n:
        text = f"level {level.id} has no energies."
        return [Outcome(check="energies", level=level.id, verdict="undecided", text=text)], None
    total, composition, free = energies[known], counts[known], own[known]
    bonds = np.maximum(composition.sum(axis=1, dtype=np.int32) - 1, 1)
    has_own = np.isfinite(free)
    n_without = int((~has_own).sum())
    per_bond = total - free
    per_bond *= EV_PER_HARTREE
    per_bond /= bonds
    is_beyond = np.abs(per_bond) > MAX_PER_BOND  # which NaN is not
    values: dict[str, float | int | None] = {"n": n}
    if n_without:
        values["n_without_self_energies"] = n_without
    if has_own.any():
        median = float(np.median(per_bond[has_own] if n_without else per_bond))
        values["per_bond_ev"] = round(median, 4)
        if abs(median) > MAX_PER_BOND:
            return _refuse_total(level, total[has_own], free[has_own], median, units, values)

    outcomes: list[Outcome] = []
    # Atomic contributions are fitted, so those that are known need not be subtracted before.
    left = total - (0.0 if n_without else free)
    left *= EV_PER_HARTREE
    composed = np.zeros(composition.shape[1])
    if n >= MIN_STRUCTURES + composition.shape[1]:
        del per_bond
        composed = fit_composition(composition, left)
        for rows in blocks_of(n):
            left[rows] -= sums_over_atoms(composition[rows], composed)
        some = sample(n)
        spread = robust_spread(left[some] / bonds[some])
        values["spread_per_bond_ev"] = round(spread, 5)
        if spread > MAX_SPREAD_PER_BOND:
            text = (
                f"the energies of level {level.id} ({level.label}) are no energies in "
                f"{units.energy}: beyond their composition they spread by {spread:.3g} eV per "
                f"bond; {MAX_SPREAD_PER_BOND:g} is the most that molecules do. Give total "
                f"energies in {units.energy}, and self energies in hartree"
            )
            verdict: Verdict = "accepted" if accepted.outliers else "refused"
            text += (
                "."
                if accepted.outliers
                else "; if bonds are broken that often, train on them with --accept-outliers."
            )
            found = Outcome(
                check="energies", level=level.id, verdict=verdict, text=text, values=values
            )
            return [found], None
        centre, width = np.median(left), max(robust_spread(left), 1e-3)
        ratios = left - centre
        np.abs(ratios, out=ratios)
        ratios /= width
        far = np.flatnonzero((ratios > MAX_RATIO) | is_beyond)
    else:
        spread = None
        ratios = np.abs(np.nan_to_num(per_bond)) / MAX_PER_BOND
        far = np.flatnonzero(ratios > 1)
    text = f"{n} energies of level {level.id}"
    if has_own.any():
        text += f", {median:+.2f} eV per bond (median)"
    if spread is not None:
        text += f", spread {spread:.3g} eV per bond without composition{sample_text(n)}"
    least = MIN_SPREAD_PER_BOND if has_own.any() else MIN_SPREAD_UNPROVED
    is_narrow = spread is not None and spread < least
    if is_narrow:
        text += (
            ", which is little: right for one molecule at low temperature, else look at the unit"
        )
    if n_without:
        text += (
            f"; {n_without} hold elements whose self energy is fitted in training, so they are "
            "compared by composition alone"
        )
    is_unproved = spread is None and not has_own.any()
    outcomes.append(
        Outcome(
            check="energies",
            level=level.id,
            verdict="undecided" if is_unproved else "noted" if is_narrow else "passed",
            text=f"{text}.",
            values=values,
        )
    )
    if len(far):
        worst = far[np.argsort(-ratios[far])][:6]
        shift = left[worst]
        if not n_without:  # else a total energy would say nothing
            shift = shift + sums_over_atoms(composition[worst], composed)
        shift *= KCAL_PER_MOL_PER_HARTREE / EV_PER_HARTREE
        shown = [
            f"{names[int(places[i])]} ({ratios[i]:.0f} times the spread, {of_shift:+.0f} kcal/mol)"
            for i, of_shift in zip(worst, shift, strict=True)
        ]
        outcomes.append(
            judge_outliers(f"energies of level {level.id}", level, len(far), n, shown, accepted)
        )
    return outcomes, None


def judge_outliers(
    what: str, level: Level, n: int, of: int, shown: Sequence[str], accepted: Accepted
) -> Outcome:
    """The outcome for `n` outliers `of` some, refused beyond `MAX_SHARE` unless accepted."""
    beyond = n / of > MAX_SHARE
    text = f"{n} of {of} {what} stand out: {list_some(shown)}."
    if beyond and not accepted.outliers:
        text += (
            f" More than {MAX_SHARE:.1%} is refused: correct or remove them, or train on them with "
            "--accept-outliers."
        )
    verdict: Verdict = "noted" if not beyond else ("accepted" if accepted.outliers else "refused")
    values: dict[str, float | int | None] = {"n_outliers": n, "n": of}
    return Outcome(check="outliers", level=level.id, verdict=verdict, text=text, values=values)


def _refuse_total(
    level: Level,
    total: np.ndarray,
    free: np.ndarray,
    median: float,
    units: FileUnits,
    values: dict[str, float | int | None],
) -> tuple[list[Outcome], str | None]:
    known = free != 0
    ratio = float(np.median(total[known] / free[known])) if known.any() else np.nan
    unit = name_energy_unit(ratio, units)
    named = f" They are in {unit}." if unit is not None and unit != units.energy else ""
    text = (
        f"The energies of level {level.id} ({level.label}) are no total energies in "
        f"{units.energy}: they are {median:+.4g} eV per bond (median) from the self energies of "
        f"the atoms, and at most {MAX_PER_BOND:g} can be right.{named} Give total energies in "
        f"{units.energy}, or declare a level with self energies of its own."
    )
    outcome = Outcome(check="energies", level=level.id, verdict="refused", text=text, values=values)
    return [outcome], unit if unit != units.energy else None
