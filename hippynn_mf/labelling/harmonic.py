"""Near-equilibrium conformers of molecules, by their normal modes.

Conformers are drawn from the harmonic thermal distribution around a minimum, in the spirit of
ANI-1x: each normal mode has the classical variance kT/ω², with the temperature drawn log-uniformly
for every conformer. Modes below `SOFTEST_WAVENUMBER` are drawn as if they had that wavenumber,
because a straight displacement is no torsion. For the same reason a conformer far above its minimum
is drawn again: a torsion drawn straight has torn the molecule.

What is not said otherwise is as the embedded data have it: GFN2-xTB, temperatures from 100 to
1000 K, at most 40 kcal/mol up. Their generator draws with these functions, so their random numbers
and their rounding stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import CalculationFailed, Calculator
from ase.optimize import BFGS
from scipy.linalg import null_space, orth

from hippynn_mf.labelling.torsions import Rotor, turn_at_random

TEMPERATURES = (100.0, 1000.0)  # K
SOFTEST_WAVENUMBER = 200.0  # 1/cm
MOST_DRAWS = 100
HIGHEST_ENERGY = 40.0  # kcal/mol; the mean of ethane at 1000 K is 18
HESSIAN_STEP = 0.005  # Å
RATTLE = 0.02  # Å, which leaves symmetric saddle points
ESCAPE = 0.3  # Å of the atom that moves most, along a mode that goes down

# Of atomic numbers (n_atoms,) and positions (n_atoms, 3) in Å: energy in kcal/mol.
Energy = Callable[[np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class Minimum:
    """A minimum: positions (Å), normal modes and their force constants.

    `modes` (n_modes, n_atoms, 3) are mass-weighted and orthonormal; `curvatures` (n_modes,) are
    ω² in eV/(Å² u).
    """

    numbers: np.ndarray
    positions: np.ndarray
    masses: np.ndarray
    modes: np.ndarray
    curvatures: np.ndarray

    @property
    def wavenumbers(self) -> np.ndarray:
        """Harmonic wavenumbers (n_modes,) in 1/cm."""
        return curvature_to_wavenumber(self.curvatures)


def curvature_to_wavenumber(curvature: np.ndarray | float) -> np.ndarray:
    """Wavenumber in 1/cm of ω² in eV/(Å² u)."""
    frequency = np.sqrt(np.maximum(curvature, 0.0))  # in units of sqrt(eV/u)/Å
    hbar = units._hbar * units.J * units.second  # in eV times ASE's unit of time
    return hbar * frequency / units.invcm


def rigid_motions(positions: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Orthonormal translations and rotations (3 n_atoms, 5 or 6), in mass-weighted coordinates."""
    roots = np.sqrt(masses)[:, None]
    centred = positions - np.average(positions, axis=0, weights=masses)
    shifts = [np.broadcast_to(axis, centred.shape) for axis in np.eye(3)]
    turns = [np.cross(axis, centred) for axis in np.eye(3)]
    return orth(np.array([(roots * motion).ravel() for motion in shifts + turns]).T, rcond=1e-2)


def internal_directions(positions: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Orthonormal directions (3 n_atoms, n) without rigid motion, in mass-weighted coordinates."""
    return null_space(rigid_motions(positions, masses).T)


def minimum_near(
    atoms: Atoms,
    name: str,
    *,
    calculator: Calculator | None = None,
    largest_force: float = 1e-4,
    n_escapes: int = 0,
) -> Minimum:
    """Optimise a molecule and diagonalise its Hessian; `atoms` end up in the minimum.

    `calculator` is GFN2-xTB by default; `largest_force` in eV/Å. From a saddle point the search
    goes on downhill, `n_escapes` times. Raises RuntimeError where it finds no minimum.
    """
    method = "GFN2-xTB" if calculator is None else "the calculator"
    atoms.calc = _xtb(accuracy=0.01) if calculator is None else calculator
    atoms.rattle(RATTLE, seed=0)
    for n_left in reversed(range(n_escapes + 1)):
        if not BFGS(atoms, logfile=None).run(fmax=largest_force, steps=1000):
            raise RuntimeError(f"{method} did not find a minimum of {name}")
        minimum = _harmonic(atoms)
        if minimum.curvatures.min(initial=np.inf) > 0:
            return minimum
        if n_left:
            downhill = minimum.modes[minimum.curvatures.argmin()] / np.sqrt(minimum.masses)[:, None]
            atoms.positions += ESCAPE * downhill / np.linalg.norm(downhill, axis=1).max()
    raise RuntimeError(f"{method} led {name} to a saddle point")


def _harmonic(atoms: Atoms) -> Minimum:
    """The normal modes where the atoms are, whatever the signs of their curvatures."""
    hessian = finite_difference_hessian(atoms)
    masses = atoms.get_masses()
    weights = np.repeat(masses**-0.5, 3)
    basis = internal_directions(atoms.positions, masses)
    curvatures, vectors = np.linalg.eigh(basis.T @ (weights[:, None] * hessian * weights) @ basis)
    modes = (basis @ vectors).T.reshape(-1, len(atoms), 3)
    return Minimum(atoms.numbers, atoms.positions.copy(), masses, modes, curvatures)


def finite_difference_hessian(atoms: Atoms) -> np.ndarray:
    """Symmetric Hessian (3 n_atoms, 3 n_atoms) in eV/Å² by central differences of forces."""
    reference = atoms.positions.copy()
    rows = []
    for index in np.ndindex(reference.shape):
        forces = []
        for sign in (1, -1):
            atoms.positions = reference
            atoms.positions[index] += sign * HESSIAN_STEP
            forces.append(atoms.get_forces().ravel())
        rows.append((forces[1] - forces[0]) / (2 * HESSIAN_STEP))
    atoms.positions = reference
    hessian = np.array(rows)
    return (hessian + hessian.T) / 2


def draw_conformer(
    minimum: Minimum,
    seed: tuple[int, ...],
    *,
    temperatures: tuple[float, float] = TEMPERATURES,
    highest_energy: float = HIGHEST_ENERGY,
    rotors: Sequence[Rotor] = (),
    energy: Energy | None = None,
) -> np.ndarray:
    """Positions (n_atoms, 3) in Å, rounded to float32 as the files store them.

    Deterministic in `seed`, one tuple of integers for each conformer; `temperatures` in K,
    `highest_energy` in kcal/mol above the minimum, by `energy` or (None) GFN2-xTB; `rotors` are
    turned at random. Raises RuntimeError if `MOST_DRAWS` draws were all too high.
    """
    energy = xtb_energy if energy is None else energy
    rng = np.random.default_rng(seed)
    highest = energy(minimum.numbers, minimum.positions) + highest_energy
    for _ in range(MOST_DRAWS):
        positions = draw_harmonic(minimum, rng, temperatures=temperatures)
        if rotors:
            positions = round_as_stored(turn_at_random(positions, rotors, rng))
        if energy(minimum.numbers, positions) <= highest:
            return positions
    raise RuntimeError(f"{MOST_DRAWS} conformers of {minimum.numbers} lie above {highest_energy}")


def draw_harmonic(
    minimum: Minimum,
    rng: np.random.Generator,
    *,
    temperatures: tuple[float, float] = TEMPERATURES,
) -> np.ndarray:
    """Positions (n_atoms, 3) in Å of the harmonic distribution at a random temperature."""
    temperature = np.exp(rng.uniform(*np.log(temperatures)))
    softest = (SOFTEST_WAVENUMBER / curvature_to_wavenumber(1.0)) ** 2
    widths = np.sqrt(units.kB * temperature / np.maximum(minimum.curvatures, softest))
    amplitudes = rng.normal(size=len(widths)) * widths
    displacement = np.tensordot(amplitudes, minimum.modes, axes=1)
    positions = minimum.positions + displacement / np.sqrt(minimum.masses)[:, None]
    return round_as_stored(positions)


def round_as_stored(positions: np.ndarray) -> np.ndarray:
    """Positions of the precision of the files, float32."""
    return positions.astype(np.float32).astype(np.float64)


def xtb_energy(numbers: np.ndarray, positions: np.ndarray) -> float:
    """GFN2-xTB energy in kcal/mol, infinite where its electrons do not converge."""
    atoms = Atoms(numbers, positions, calculator=_xtb())
    try:
        return float(atoms.get_potential_energy() / (units.kcal / units.mol))
    except CalculationFailed:
        return float("inf")


def _xtb(**arguments: float) -> Calculator:
    from tblite.ase import TBLite  # of the extra `qm`

    return TBLite(method="GFN2-xTB", verbosity=0, **arguments)
