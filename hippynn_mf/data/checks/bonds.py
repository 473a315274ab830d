"""Units and sign of forces, from how stiff bonds of hydrogen are.

A hydrogen atom that is bound to carbon, nitrogen or oxygen is pulled back along its bond with a
force constant that hardly depends on molecule or method. So single conformers tell what forces are,
however far they are from each other, and without energies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from ase import units as ase_units
from ase.data import covalent_radii
from scipy.special import stdtrit

from hippynn_mf.data.structures import Structures
from hippynn_mf.levels import Level
from hippynn_mf.units import EV_PER_HARTREE

MDYN_PER_ANGSTROM = 6.241509  # eV/Å²
# Length in Å and harmonic force constant of a bond of hydrogen: CH4 (Gray and Robiette, Mol. Phys.
# 37, 1901, 1979), NH3 (Duncan and Mills, Spectrochim. Acta 20, 523, 1964) and H2O (Hoy, Mills and
# Strey, Mol. Phys. 24, 1265, 1972).
BONDS = {
    6: (1.09, 5.47 * MDYN_PER_ANGSTROM),
    7: (1.015, 7.06 * MDYN_PER_ANGSTROM),
    8: (0.96, 8.45 * MDYN_PER_ANGSTROM),
}
EXPONENT = 2.0  # 1/Å, of a Morse potential: the anharmonicity of these bonds
LENGTHS = (0.8, 1.3)  # of the known length: beyond it no bond
NEXT_ATOM = 1.35  # of the known length: with another atom nearer, hydrogen has two bonds
NEIGHBOUR = 1.25  # of the sum of covalent radii: atoms that count as bound to the heavy one
# A unit of length makes forces 1.89 or 0.53 times too large. Right is what lies no further than
# half way to that, wrong what lies two thirds of the way or further, in the logarithm. Right forces
# have 0.95 to 1.02 in embedded and real data.
RIGHT = (ase_units.Bohr**0.5, ase_units.Bohr**-0.5)
WRONG = (ase_units.Bohr ** (2 / 3), ase_units.Bohr ** (-2 / 3))
MIN_BONDS, MIN_STRUCTURES = 24, 8  # choices: fewer may share what is peculiar to them
MIN_CORRELATION = 0.9
# eV/Å by which known bonds of these lengths pull, beyond which other lengths at rest are no reason
# for forces that say something else. Forces that explain less than half of it are of other
# structures; right ones have a correlation of 0.98 and more in embedded and real data.
LARGE_PULL = 1.2
MAX_UNRELATED = 0.7
PLAIN = 0.2  # of right forces, how far a plain regression may be from 1
TRIMMED = 0.05  # share of bonds that fit worst and are left out
CONFIDENCE = 0.95
MAX_CONFORMERS = 50  # of a group, spread over it
MAX_TOTAL = 4000  # of all groups; a file with more shows some of its groups


@dataclass(frozen=True)
class Stiffness:
    """Outcome of the test: a verdict, and the regression it rests on.

    Attributes:
        verdict: `forces`, `gradient`, `unit`, `unrelated` (of other structures) or `undecided`.
        ratio: of the bonds' stiffness to what is known of it: NaN without bonds enough.
        error: half the width of the ratio's interval of 95 % confidence.
        correlation: of the forces along bonds with those of bonds as long.
        pull: eV/Å, the spread of what forces along bonds as long are.
        n_bonds, n_structures: that were looked at.
    """

    verdict: Literal["forces", "gradient", "unit", "unrelated", "undecided"]
    ratio: float
    error: float
    correlation: float
    pull: float
    n_bonds: int
    n_structures: int

    def __str__(self) -> str:
        """What was found, for a message."""
        return (
            f"bonds of hydrogen are {self.ratio:+.2f} ± {self.error:.2f} times as stiff as they "
            f"are known to be, correlation {self.correlation:+.2f} over {self.n_bonds} bonds of "
            f"{self.n_structures} structures"
        )


@dataclass(frozen=True)
class Bonds:
    """Bonds of hydrogen: each array is (n,).

    Attributes:
        kinds: a number for each kind of bond, which has its own length at rest.
        expected: eV/Å, how a known bond of this length pulls hydrogen back.
        given: eV/Å, how the forces do.
        structures: a number for each structure.
        groups: the place of its group among `names`.
        names: of groups.
    """

    kinds: np.ndarray
    expected: np.ndarray
    given: np.ndarray
    structures: np.ndarray
    groups: np.ndarray
    names: tuple[str, ...]

    def by_group(self) -> Iterator[tuple[str, Bonds]]:
        """The bonds of each group that has any."""
        order = np.argsort(self.groups, kind="stable")
        ends = np.cumsum(np.bincount(self.groups.astype(np.int64), minlength=len(self.names)))
        for name, rows in zip(self.names, np.split(order, ends[:-1]), strict=True):
            yield (
                name,
                replace(
                    self,
                    kinds=self.kinds[rows],
                    expected=self.expected[rows],
                    given=self.given[rows],
                    structures=self.structures[rows],
                    groups=self.groups[rows],
                ),
            )


def wrong_groups(bonds: Bonds) -> dict[str, Stiffness]:
    """Groups whose forces are wrong by themselves: name → their bonds.

    Where one group of a file has another sign or unit, all together may be right.
    """
    if len(bonds.names) < 2:
        return {}
    found = {}
    is_plain = plainly_right(bonds)
    for (name, of_group), is_right in zip(bonds.by_group(), is_plain, strict=True):
        if is_right:
            continue
        stiffness = stiffness_of(of_group)
        if stiffness.verdict in ("gradient", "unit", "unrelated"):
            found[name] = stiffness
    return found


def plainly_right(bonds: Bonds) -> np.ndarray:
    """(n_groups,) bool, groups whose plain regression is far from any wrong one."""
    groups, n = bonds.groups.astype(np.int64), len(bonds.names)
    _, kinds = np.unique(groups * 10_000.0 + bonds.kinds, return_inverse=True)
    counts = np.bincount(kinds)
    x, y = (
        values - (np.bincount(kinds, values) / counts)[kinds]
        for values in (bonds.expected, bonds.given)
    )
    xx, xy, yy = (np.bincount(groups, a * b, n) for a, b in ((x, x), (x, y), (y, y)))
    # Without a spread nothing is right plainly.
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio, correlation = xy / xx, xy / np.sqrt(xx * yy)
    return (np.abs(ratio - 1) < PLAIN) & (correlation > 1 - PLAIN**2)


def find_stiffness(parts: Structures | Sequence[Structures], level: Level) -> Stiffness:
    """Regress forces along the bonds of hydrogen on those of a known bond of the same length."""
    return stiffness_of(find_bonds([parts] if isinstance(parts, Structures) else parts, level))


def stiffness_of(bonds: Bonds) -> Stiffness:
    """The regression over all bonds."""
    expected, given = bonds.expected.copy(), bonds.given.copy()
    names, inverse = np.unique(bonds.kinds, return_inverse=True)
    for number in range(len(names)):
        chosen = inverse == number
        expected[chosen] -= np.median(expected[chosen])
        given[chosen] -= np.median(given[chosen])
    n, n_structures = len(expected), len(np.unique(bonds.structures))
    if n < MIN_BONDS or n_structures < MIN_STRUCTURES or not expected.any():
        return Stiffness("undecided", np.nan, np.nan, np.nan, np.nan, n, n_structures)
    ratio, error, correlation, pull = _regress(expected, given, bonds.structures)
    verdict = _verdict(ratio, error, correlation, pull)
    return Stiffness(verdict, ratio, error, correlation, pull, n, n_structures)


def _verdict(
    ratio: float, error: float, correlation: float, pull: float
) -> Literal["forces", "gradient", "unit", "unrelated", "undecided"]:
    if abs(correlation) < MAX_UNRELATED and pull > LARGE_PULL:
        return "unrelated"
    if abs(correlation) < MIN_CORRELATION:
        return "undecided"
    if ratio < 0:
        return "gradient"
    if RIGHT[0] < ratio - error and ratio + error < RIGHT[1]:
        return "forces"
    is_wrong = ratio + error < WRONG[0] or ratio - error > WRONG[1]
    return "unit" if is_wrong else "undecided"


def _regress(
    expected: np.ndarray, given: np.ndarray, structures: np.ndarray
) -> tuple[float, float, float, float]:
    """Ratio, its error with those of a structure as one, correlation, and spread of `expected`."""
    slope = (expected @ given) / (expected @ expected)
    residuals = np.abs(given - slope * expected)
    kept = residuals <= np.quantile(residuals, 1 - TRIMMED)
    x, y = expected[kept], given[kept]
    square = x @ x
    pull = float(np.sqrt(square / len(x)))
    if not square or not y.any():
        return 0.0, 0.0, 0.0, pull
    ratio = float(x @ y / square)
    correlation = float(x @ y / np.sqrt(square * (y @ y)))
    _, inverse = np.unique(structures[kept], return_inverse=True)
    of_structures = np.bincount(inverse, weights=x * (y - ratio * x))
    n = len(of_structures)
    freedom = max(n - 1, 1)
    variance = (of_structures @ of_structures) / square**2 * n / freedom
    return (
        ratio,
        float(stdtrit(freedom, (1 + CONFIDENCE) / 2) * np.sqrt(variance)),
        correlation,
        pull,
    )


def find_bonds(parts: Sequence[Structures], level: Level) -> Bonds:
    """The bonds of hydrogen of some structures with forces of a level."""
    found: list[tuple[np.ndarray, ...]] = [(np.zeros(0),) * 5]
    names: dict[str, int] = {}
    n_structures = 0
    for part in parts:
        if level.id not in part.forces:
            continue
        for members in some_groups(part, part.has_forces(level)):
            numbers = members.species[0]
            positions = members.positions[:].astype(np.float64)
            forces = members.forces[level.id][:].astype(np.float64) * EV_PER_HARTREE
            columns = _bonds_of(numbers, positions, forces, n_structures)
            number = names.setdefault(members.group_names[members.groups[0]], len(names))
            found.append((*columns, np.full(len(columns[0]), float(number))))
            n_structures += len(members)
    joined = [np.concatenate(column) for column in zip(*found, strict=True)]
    kinds, expected, given, structures, groups = joined
    return Bonds(kinds, expected, given, structures, groups, tuple(names))


def some_groups(part: Structures, is_labelled: np.ndarray) -> Iterator[Structures]:
    """Groups with a bond of hydrogen, in a drawn order, with some of their labelled conformers."""
    # Atoms of a crystal may be bound to images, and its bonds are those of other surroundings.
    rows = np.flatnonzero(is_labelled & ~part.is_periodic)
    names, starts = np.unique(part.groups[rows], return_index=True)
    if not len(names):
        return
    total = 0
    members = np.split(rows, starts[1:])
    for number in np.random.default_rng(0).permutation(len(members)):
        of_group = members[number]
        species = part.species[int(of_group[0])]
        if total >= MAX_TOTAL or not (species == 1).any() or not np.isin(species, [*BONDS]).any():
            continue
        chosen = np.unique(np.linspace(0, len(of_group) - 1, MAX_CONFORMERS).astype(int))
        total += len(chosen)
        yield part[of_group[chosen]]


def from_hydrogens(numbers: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (n, n_hydrogens, n_atoms, 3) in Å from all atoms to hydrogens, and their lengths.

    From itself an atom is infinitely far.
    """
    hydrogens = np.flatnonzero(numbers == 1)
    vectors = positions[:, hydrogens, None] - positions[:, None]
    apart = np.linalg.norm(vectors, axis=3)
    apart[:, np.arange(len(hydrogens)), hydrogens] = np.inf
    return vectors, apart


def nearest_bonds(numbers: np.ndarray, apart: np.ndarray) -> tuple[np.ndarray, ...]:
    """(n, n_hydrogens) nearest atom, its distance, and length at rest and constant of such bonds.

    The latter two are NaN beside an atom that is not among `BONDS`.
    """
    nearest = apart.argmin(axis=2)
    length = np.take_along_axis(apart, nearest[:, :, None], 2)[:, :, 0]
    known = np.array([BONDS.get(int(z), (np.nan, np.nan)) for z in numbers])[nearest]
    return nearest, length, known[:, :, 0], known[:, :, 1]


def _bonds_of(
    numbers: np.ndarray, positions: np.ndarray, forces: np.ndarray, first: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    hydrogens = np.flatnonzero(numbers == 1)
    vectors, apart = from_hydrogens(numbers, positions)
    nearest, length, rest, constant = nearest_bonds(numbers, apart)
    after = np.partition(apart, 1, axis=2)[:, :, 1]
    is_bond = (length > LENGTHS[0] * rest) & (length < LENGTHS[1] * rest)
    is_bond &= after > NEXT_ATOM * rest
    which, place = np.nonzero(is_bond)
    heavy = nearest[which, place]
    direction = vectors[which, place, heavy] / length[which, place, None]
    decay = np.exp(-EXPONENT * (length - rest)[is_bond])
    expected = constant[is_bond] * (1 - decay) * decay / EXPONENT
    given = -(forces[which, hydrogens[place]] * direction).sum(axis=1)
    # Carbon of a triple, double or single bond holds hydrogen at other lengths.
    near = np.linalg.norm(positions[which] - positions[which, heavy][:, None], axis=2)
    radii = covalent_radii[numbers]
    n_near = (near < NEIGHBOUR * (radii[None] + radii[heavy][:, None])).sum(axis=1)
    return numbers[heavy] * 100.0 + n_near, expected, given, (first + which).astype(float)
