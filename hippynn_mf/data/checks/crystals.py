"""Sign and unit of the stress of periodic structures, and their shortest distances."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from ase import units as ase_units
from ase.data import covalent_radii
from vesin import NeighborList

from hippynn_mf.cells import complete
from hippynn_mf.data.checks.crystal_pairs import crystal_pairs
from hippynn_mf.data.checks.pairs import ConformerPairs
from hippynn_mf.data.checks.report import Outcome
from hippynn_mf.data.checks.slopes import MIN_PAIRS, ForceSlope, slope_of
from hippynn_mf.data.checks.units import ENERGIES, FileUnits
from hippynn_mf.data.structures import Structures
from hippynn_mf.levels import Level
from hippynn_mf.units import EV_PER_HARTREE, GPA_PER_EV_PER_ANGSTROM3

NEAREST = 6.0  # Å, within which the nearest atom is looked for
KBAR = 0.1 / GPA_PER_EV_PER_ANGSTROM3
STRESS_UNITS = {  # in eV/Å³
    "eV/Å³": 1.0,
    "hartree/Å³": EV_PER_HARTREE,
    "hartree/bohr³": EV_PER_HARTREE / ase_units.Bohr**3,
    "GPa": 10 * KBAR,
    "kbar": KBAR,
    "bar": 1e-3 * KBAR,
}
FAR, FAR_CORRELATION = 3.0, 0.95  # a slope that no right stress has
UNIT_WITHIN = 1.1  # times, that a slope may be from that of a unit


def check_stress(parts: Sequence[Structures], level: Level, units: FileUnits) -> list[Outcome]:
    """The outcome for sign and unit of the stress of a level; none without any."""
    with_stress = [part for part in parts if level.id in part.stress and level.id in part.energies]
    n = sum(int(part.has_stress(level).sum()) for part in with_stress)
    if not n:
        return []
    pairs = [
        crystal_pairs(part, level, of_stress=True)
        for part in with_stress
        if level.id in part.forces
    ]
    slope = slope_of(ConformerPairs.join(pairs))
    what = f"the stress of level {level.id}"
    values: dict[str, float | int | None] = {"n": n, "n_pairs": slope.n_pairs}
    if not np.isnan(slope.slope):
        values |= {"slope": round(slope.slope, 4), "slope_error": round(slope.error, 4)}
    how = _describe(slope)
    # What curvature may do to estimates that are far too small hides that they are.
    is_far = abs(slope.correlation) >= FAR_CORRELATION and (
        abs(slope.slope) - slope.error > FAR or abs(slope.slope) + slope.error < 1 / FAR
    )
    if slope.verdict == "undecided" and not is_far:
        text = (
            f"sign and unit of {what} are not proved ({how}); it is used as {units.energy}/Å³ with "
            "ASE's sign, V⁻¹ dE/dε, positive under tension. Strained cells of one structure would "
            "prove it."
        )
        return [
            Outcome(check="stress", level=level.id, verdict="undecided", text=text, values=values)
        ]
    if slope.verdict == "forces":
        text = f"{what} follows its energies ({how})."
        return [Outcome(check="stress", level=level.id, verdict="passed", text=text, values=values)]
    unit = _unit_of(abs(slope.slope), units)
    text = f"{what} is not V⁻¹ dE/dε in {units.energy}/Å³: {how}."
    if unit is not None:
        text += f" It is in {unit}; convert it to {units.energy}/Å³."
    elif abs(abs(slope.slope) - 1) > FAR - 1:
        text += " No known unit explains it; if one was declared with --units, look at that."
    if slope.slope < 0:
        text += " It has the opposite sign, as pressure and the stress that VASP prints. Negate it."
    return [Outcome(check="stress", level=level.id, verdict="refused", text=text, values=values)]


def _unit_of(slope: float, units: FileUnits) -> str | None:
    """The unit that a slope says, None for that of the file or an unknown one."""
    if not slope > 0:
        return None
    unit_of_file = EV_PER_HARTREE / ENERGIES[units.energy]
    apart = {
        name: abs(math.log(slope * unit_of_file / value))
        for name, value in STRESS_UNITS.items()
        if abs(value / unit_of_file - 1) > 1e-9
    }
    nearest = min(apart, key=apart.__getitem__)
    return nearest if apart[nearest] < math.log(UNIT_WITHIN) else None


def _describe(slope: ForceSlope) -> str:
    if np.isnan(slope.slope):
        return f"{slope.n_pairs} pairs of structures in different cells, {MIN_PAIRS} are needed"
    return (
        f"slope {slope.slope:+.3g} ± {slope.error:.2g}, correlation {slope.correlation:+.2f} over "
        f"{slope.n_pairs} pairs of structures in different cells"
    )


def nearest_in_cells(structures: Structures) -> np.ndarray:
    """(n, n_atoms_max) distance to the nearest atom or image, as a share of the covalent radii.

    Infinite for padding, and for atoms with nothing within `NEAREST`. All are periodic.
    """
    assert structures.cells is not None
    ratios = np.full(structures.species.shape, np.inf)
    finder = NeighborList(cutoff=NEAREST, full_list=True, n_threads=1)
    for row, cell in enumerate(structures.cells):
        numbers, positions = structures.species[row], structures.positions[row].astype(np.float64)
        first, second, distances = finder.compute(
            positions, complete(cell), cell.any(axis=1), quantities="ijd"
        )
        radii = covalent_radii[numbers]
        np.minimum.at(ratios[row], first, distances / (radii[first] + radii[second]))
    return ratios


def shortest_in_cells(structures: Structures) -> np.ndarray:
    """(n,) the shortest distance of two atoms or images, infinite beyond `NEAREST`, in Å."""
    assert structures.cells is not None
    finder = NeighborList(cutoff=NEAREST, full_list=False, n_threads=1)
    shortest = np.full(len(structures), np.inf)
    for row, cell in enumerate(structures.cells):
        positions = structures.positions[row].astype(np.float64)
        (distances,) = finder.compute(positions, complete(cell), cell.any(axis=1), quantities="d")
        shortest[row] = distances.min(initial=np.inf)
    return shortest
