"""Molecules of the embedded data set and their near-equilibrium conformers.

Conformers are drawn from the harmonic thermal distribution around the GFN2-xTB minimum, in the
spirit of ANI-1x: each normal mode has the classical variance kT/ω², with the temperature drawn
log-uniformly for every conformer. Modes below `SOFTEST_WAVENUMBER` are drawn as if they had that
wavenumber, because a straight displacement is no torsion. For the same reason a conformer far above
its minimum, by GFN2-xTB, is drawn again: a torsion drawn straight has torn the molecule. The
embedded data have temperatures from 100 to 1000 K and are at most 40 kcal/mol up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.calculator import CalculationFailed
from ase.optimize import BFGS
from qm_torsions import Rotor, turn_at_random
from scipy.linalg import null_space, orth
from tblite.ase import TBLite

TEMPERATURES = (100.0, 1000.0)  # K
SOFTEST_WAVENUMBER = 200.0  # 1/cm
MOST_DRAWS = 100
HIGHEST_ENERGY = 40.0  # kcal/mol; the mean of ethane at 1000 K is 18
HESSIAN_STEP = 0.005  # Å

# Starting points (Å) for the optimiser, where ASE's G2 collection has no such molecule.
DRAWN_BY_HAND = {
    "HNC": ("NHC", [(0, 0, 0), (0, 0, -1.0), (0, 0, 1.17)]),
    "CH2NH": (
        "CNHHH",
        [(0, 0, 0), (1.27, 0, 0), (-0.55, 0.94, 0), (-0.55, -0.94, 0), (1.62, 0.95, 0)],
    ),
    "HNO": ("NOH", [(0, 0, 0), (1.21, 0, 0), (-0.33, 1.0, 0)]),
    "trans-N2H2": ("NNHH", [(0, 0, 0), (1.25, 0, 0), (-0.3, 0.99, 0), (1.55, -0.99, 0)]),
    "cis-N2H2": ("NNHH", [(0, 0, 0), (1.25, 0, 0), (-0.3, 0.99, 0), (1.55, 0.99, 0)]),
    "NH2OH": (
        "NOHHH",
        [(0, 0, 0), (1.45, 0, 0), (-0.3, 0.82, 0.52), (-0.3, -0.82, 0.52), (1.7, 0, -0.92)],
    ),
    "HCONH2": (
        "CONHHH",
        [
            (0, 0, 0),
            (1.21, 0, 0),
            (-0.68, 1.19, 0),
            (-0.6, -0.93, 0),
            (-1.69, 1.17, 0),
            (-0.2, 2.07, 0),
        ],
    ),
    "HNCO": ("NCOH", [(0, 0, 0), (1.21, 0, 0), (2.38, 0.02, 0), (-0.5, 0.87, 0)]),
    "HCCCN": ("HCCCN", [(-1.06, 0, 0), (0, 0, 0), (1.21, 0, 0), (2.58, 0, 0), (3.74, 0, 0)]),
}


@dataclass(frozen=True)
class Minimum:
    """A GFN2-xTB minimum: positions (Å), normal modes and their force constants.

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


def curvature_to_wavenumber(curvature: np.ndarray) -> np.ndarray:
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


def starting_structure(name: str) -> Atoms:
    """Rough geometry of a molecule, from ASE's G2 collection or drawn by hand.

    Atoms are ordered by symbol, so that isomers agree in the order that a file's group shares.
    """
    if name in DRAWN_BY_HAND:
        symbols, positions = DRAWN_BY_HAND[name]
        atoms = Atoms(list(symbols), positions)
    else:
        atoms = molecule(name)
    return atoms[np.argsort(atoms.symbols, kind="stable")]


def find_minimum(name: str) -> Minimum:
    """Minimum from a molecule's starting structure."""
    return minimum_near(starting_structure(name), name)


def minimum_near(atoms: Atoms, name: str) -> Minimum:
    """Optimise a molecule with GFN2-xTB and diagonalise its Hessian; refuses a saddle point."""
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0, accuracy=0.01)
    atoms.rattle(0.02, seed=0)  # leaves symmetric saddle points
    if not BFGS(atoms, logfile=None).run(fmax=1e-4, steps=1000):
        raise RuntimeError(f"GFN2-xTB did not find a minimum of {name}")
    hessian = finite_difference_hessian(atoms)
    masses = atoms.get_masses()
    weights = np.repeat(masses**-0.5, 3)
    basis = internal_directions(atoms.positions, masses)
    curvatures, vectors = np.linalg.eigh(basis.T @ (weights[:, None] * hessian * weights) @ basis)
    if curvatures.min() <= 0:
        raise RuntimeError(f"GFN2-xTB led {name} to a saddle point")
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
) -> np.ndarray:
    """Positions (n_atoms, 3) in Å, rounded to float32 as the files store them.

    Deterministic in `seed`, one tuple of integers for each conformer; `temperatures` in K,
    `highest_energy` in kcal/mol above the minimum; `rotors` are turned at random. Raises
    RuntimeError if `MOST_DRAWS` draws were all too high.
    """
    rng = np.random.default_rng(seed)
    highest = xtb_energy(minimum.numbers, minimum.positions) + highest_energy
    for _ in range(MOST_DRAWS):
        positions = draw_harmonic(minimum, rng, temperatures=temperatures)
        if rotors:
            positions = round_as_stored(turn_at_random(positions, rotors, rng))
        if xtb_energy(minimum.numbers, positions) <= highest:
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
    atoms = Atoms(numbers, positions, calculator=TBLite(method="GFN2-xTB", verbosity=0))
    try:
        return float(atoms.get_potential_energy() / (units.kcal / units.mol))
    except CalculationFailed:
        return float("inf")
