"""Minima of water and methanol with their harmonic wavenumbers, straight from quantum chemistry.

What a model's geometry optimisation and vibrations are compared with: ωB97X/6-31G(d) for both, by
differences of analytic forces, and CCSD(T)/CBS for water, by differences of energies.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.optimize import BFGS
from qm_starts import find_minimum

from hippynn_mf.files import write_json
from hippynn_mf.labelling.harmonic import curvature_to_wavenumber, internal_directions
from hippynn_mf.labelling.reference import ccsd_t_cbs_energy, gradient_by_differences, wb97x

log = logging.getLogger(__name__)

STEP = 0.005  # Å, of energies and of gradients
LARGEST_FORCE = 5e-4  # eV/Å, at the minimum
MOST_STEPS = 100

# Of positions (n_atoms, 3) in Å: energy in hartree and gradient in hartree/Å.
Surface = Callable[[np.ndarray], tuple[float, np.ndarray]]


def low_level_surface(numbers: np.ndarray) -> Surface:
    """ωB97X/6-31G(d), with its analytic gradient."""

    def surface(positions: np.ndarray) -> tuple[float, np.ndarray]:
        energy, forces, _ = wb97x(numbers, positions, "6-31g(d)", cartesian=True)
        return energy, -forces

    return surface


def coupled_cluster_surface(numbers: np.ndarray) -> Surface:
    """CCSD(T)/CBS, with its gradient by differences."""

    def surface(positions: np.ndarray) -> tuple[float, np.ndarray]:
        gradient = gradient_by_differences(
            lambda moved: ccsd_t_cbs_energy(numbers, moved, {}),
            positions,
            directions=internal_directions(positions, np.ones(len(numbers))),
            step=STEP,
        )
        return ccsd_t_cbs_energy(numbers, positions, {}), gradient

    return surface


REFERENCES = {
    ("H2O", "wb97x_dz"): low_level_surface,
    ("H2O", "ccsd(t)_cbs"): coupled_cluster_surface,
    ("CH3OH", "wb97x_dz"): low_level_surface,
}


def internal_hessian(surface: Surface, positions: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Hessian (n, n) in hartree/Å² in an orthonormal `basis` (3 n_atoms, n) of motions."""
    rows = []
    for direction in basis.T:
        displacement = STEP * direction.reshape(-1, 3)
        up, down = (surface(positions + sign * displacement)[1].ravel() for sign in (1, -1))
        rows.append(basis.T @ (up - down) / (2 * STEP))
    hessian = np.array(rows)
    return (hessian + hessian.T) / 2


class QuantumChemistry(Calculator):
    """A surface as ASE's optimisers want it."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def __init__(self, surface: Surface) -> None:
        super().__init__()
        self.surface = surface

    def calculate(self, atoms: Atoms, *arguments: Any) -> None:
        """Energy in eV and forces in eV/Å."""
        super().calculate(atoms, *arguments)
        energy, gradient = self.surface(atoms.positions)
        self.results = {"energy": energy * units.Hartree, "forces": -gradient * units.Hartree}


def find_reference(molecule: str, surface_of: Callable[[np.ndarray], Surface]) -> dict[str, Any]:
    """Minimum of a surface and its harmonic wavenumbers, from the GFN2-xTB minimum on."""
    start = find_minimum(molecule)
    surface = surface_of(start.numbers)
    atoms = Atoms(start.numbers, start.positions, calculator=QuantumChemistry(surface))
    if not BFGS(atoms, logfile=None).run(fmax=LARGEST_FORCE, steps=MOST_STEPS):
        raise RuntimeError(f"No minimum of {molecule} after {MOST_STEPS} steps")
    basis = internal_directions(atoms.positions, np.ones(len(atoms)))
    hessian = basis @ internal_hessian(surface, atoms.positions, basis) @ basis.T * units.Hartree
    weights = np.repeat(start.masses**-0.5, 3)
    modes = internal_directions(atoms.positions, start.masses)
    curvatures = np.linalg.eigvalsh(modes.T @ (weights[:, None] * hessian * weights) @ modes)
    if curvatures.min() <= 0:
        raise RuntimeError(f"The optimisation led {molecule} to a saddle point")
    return {
        "molecule": molecule,
        "atomic_numbers": atoms.numbers.tolist(),
        "positions_angstrom": atoms.positions.tolist(),
        "energy_hartree": atoms.get_potential_energy() / units.Hartree,
        "wavenumbers_per_cm": curvature_to_wavenumber(curvatures).tolist(),
    }


def write_minima(path: Path) -> None:
    """Write the minima as JSON, unless they are there."""
    if path.exists():
        return
    references = []
    for (molecule, level), surface_of in REFERENCES.items():
        log.info("%s at %s", molecule, level)
        references.append({"level": level} | find_reference(molecule, surface_of))
    write_json(path, {"step_angstrom": STEP, "references": references})
