"""The package's own levels by PySCF, for one structure: the labels of the embedded data set.

Levels and settings (closed-shell molecules of H, C, N, O; PySCF; one thread):

================  ==========================  =====================================================
label             basis                       how
================  ==========================  =====================================================
``wb97x_dz``      6-31G(d), Cartesian d       RKS ωB97X, exact integrals, analytic gradient
``wb97x_tz``      def2-TZVPP, spherical       RKS ωB97X, density fitting with def2-universal-JKFIT
``hf_dz``         cc-pVDZ                     RHF, exact integrals
``mp2_dz``        cc-pVDZ                     canonical MP2, frozen core
``ccsd(t)_dz``    cc-pVDZ                     canonical CCSD(T), frozen core
``hf_{tz,qz}``    cc-pV{T,Q}Z                 RHF, density fitting with cc-pV{T,Q}Z-JKFIT
``mp2_{tz,qz}``   cc-pV{T,Q}Z                 MP2, density fitting with cc-pV{T,Q}Z-RI, frozen core
================  ==========================  =====================================================

Units: positions in Å, energies in hartree, forces (−dE/dR) in hartree/Å.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from pyscf import cc, dft, gto, mp, scf
from pyscf.data import elements
from pyscf.data.nist import BOHR as ANGSTROM_PER_BOHR
from pyscf.mp.dfmp2_native import DFMP2

from hippynn_mf.data.composite import canonical_ccsd_t_cbs

ENERGY_TOLERANCE = 1e-9  # hartree, convergence of the self-consistent field
GRADIENT_TOLERANCE = 1e-5  # hartree/bohr, of the orbital gradient

Density = np.ndarray | None


class NotConvergedError(RuntimeError):
    """A self-consistent field or coupled-cluster iteration did not converge."""


def build_molecule(
    numbers: np.ndarray, positions: np.ndarray, basis: str, *, cartesian: bool = False
) -> gto.Mole:
    """PySCF molecule from atomic numbers (n_atoms,) and positions (n_atoms, 3) in Å."""
    atoms = [
        (elements.ELEMENTS[number], position)
        for number, position in zip(numbers, positions, strict=True)
    ]
    return gto.M(atom=atoms, basis=basis, cart=cartesian, unit="Angstrom", verbose=0)


def n_core_orbitals(numbers: np.ndarray) -> int:
    """Number of frozen 1s orbitals: one for each atom heavier than helium."""
    return int(np.count_nonzero(np.asarray(numbers) > 2))


def run_scf(method: scf.hf.SCF, guess: Density) -> scf.hf.SCF:
    """Converge a self-consistent field, from a density of a similar structure where given."""
    method.conv_tol = ENERGY_TOLERANCE
    method.conv_tol_grad = GRADIENT_TOLERANCE
    method.kernel(dm0=guess)
    if not method.converged:
        method = method.newton()
        method.kernel(dm0=None)
    if not method.converged:
        raise NotConvergedError(f"{type(method).__name__} in {method.mol.basis}")
    return method


def wb97x(
    numbers: np.ndarray,
    positions: np.ndarray,
    basis: str,
    *,
    cartesian: bool = False,
    fitted_with: str | None = None,
    guess: Density = None,
) -> tuple[float, np.ndarray, np.ndarray]:
    """ωB97X energy (hartree), forces (n_atoms, 3) in hartree/Å, and the density matrix.

    The gradient includes the response of the integration grid, so that forces are the
    derivative of the computed energy and sum to zero.
    """
    molecule = build_molecule(numbers, positions, basis, cartesian=cartesian)
    method = dft.RKS(molecule, xc="wb97x")
    if fitted_with is not None:
        method = method.density_fit(auxbasis=fitted_with)
    method = run_scf(method, guess)
    gradient = method.nuc_grad_method().set(grid_response=True).kernel()
    return float(method.e_tot), -gradient / ANGSTROM_PER_BOHR, method.make_rdm1()


def fitted_hf_mp2(
    numbers: np.ndarray, positions: np.ndarray, basis: str, *, guess: Density = None
) -> tuple[float, float, np.ndarray]:
    """Density-fitted RHF energy, MP2 correlation energy (both hartree), and the density matrix."""
    molecule = build_molecule(numbers, positions, basis)
    reference = run_scf(scf.RHF(molecule).density_fit(auxbasis=f"{basis}-jkfit"), guess)
    correlated = DFMP2(reference, frozen=n_core_orbitals(numbers), auxbasis=f"{basis}-ri")
    correlated.verbose = 0
    correlated.kernel()
    return float(reference.e_tot), float(correlated.e_corr), reference.make_rdm1()


def coupled_cluster_dz(
    numbers: np.ndarray, positions: np.ndarray, *, guess: Density = None
) -> tuple[float, float, float, np.ndarray]:
    """RHF energy, MP2 and CCSD(T) correlation energies in cc-pVDZ (hartree), and the density."""
    molecule = build_molecule(numbers, positions, "cc-pvdz")
    reference = run_scf(scf.RHF(molecule), guess)
    n_frozen = n_core_orbitals(numbers) or None
    mp2_energy = mp.MP2(reference, frozen=n_frozen).kernel()[0]
    coupled = cc.CCSD(reference, frozen=n_frozen)
    coupled.conv_tol = 1e-8
    coupled.max_cycle = 200
    coupled.kernel()
    if not coupled.converged:
        raise NotConvergedError("CCSD in cc-pVDZ")
    correlation = float(coupled.e_corr) + float(coupled.ccsd_t())
    return float(reference.e_tot), float(mp2_energy), correlation, reference.make_rdm1()


def gradient_by_differences(
    energy: Callable[[np.ndarray], float | np.ndarray],
    positions: np.ndarray,
    *,
    directions: np.ndarray,
    step: float,
) -> np.ndarray:
    """Gradient (n_atoms, 3) in hartree/Å of an energy (hartree) by central differences.

    Of several energies (n_energies,) at once it is (n_energies, n_atoms, 3). `directions`
    (3 n_atoms, n) are orthonormal and span everything but rigid motions, along which the derivative
    is exactly zero. `step` is in Å.
    """
    slopes = []
    for direction in directions.T:
        displacement = step * direction.reshape(-1, 3)
        up, down = (energy(positions + sign * displacement) for sign in (1, -1))
        slopes.append((up - down) / (2 * step))
    gradient = np.tensordot(np.array(slopes), directions, axes=(0, 1))
    return gradient.reshape(*gradient.shape[:-1], -1, 3)


def mp2_tz_energy(
    numbers: np.ndarray, positions: np.ndarray, guesses: dict[str, np.ndarray]
) -> float:
    """Density-fitted MP2/cc-pVTZ total energy in hartree."""
    hf, mp2, _ = fitted_hf_mp2(numbers, positions, "cc-pvtz", guess=guesses.get("cc-pvtz"))
    return hf + mp2


def cbs_and_mp2_tz_energies(
    numbers: np.ndarray, positions: np.ndarray, guesses: dict[str, np.ndarray]
) -> np.ndarray:
    """CCSD(T)/CBS and, among its parts, MP2/cc-pVTZ: total energies (2,) in hartree."""
    labels = correlated_labels(numbers, positions, dict(guesses))
    return np.array([composite(labels), labels["hf_tz.energy"] + labels["mp2_tz.corr_energy"]])


def ccsd_t_cbs_energy(
    numbers: np.ndarray, positions: np.ndarray, guesses: dict[str, np.ndarray]
) -> float:
    """CCSD(T)/CBS in hartree: the composite of the labels at these positions."""
    return float(cbs_and_mp2_tz_energies(numbers, positions, guesses)[0])


def composite(labels: Mapping[str, np.ndarray]) -> np.ndarray:
    """CCSD(T)/CBS in hartree from the labels of a conformer, NaN where one is missing."""
    missing = np.array(np.nan)
    return canonical_ccsd_t_cbs(
        hf_tz=labels.get("hf_tz.energy", missing),
        hf_qz=labels.get("hf_qz.energy", missing),
        mp2_tz=labels.get("mp2_tz.corr_energy", missing),
        mp2_qz=labels.get("mp2_qz.corr_energy", missing),
        mp2_dz=labels.get("mp2_dz.corr_energy", missing),
        ccsd_t_dz=labels.get("ccsd(t)_dz.corr_energy", missing),
    )


def low_level_labels(
    numbers: np.ndarray, positions: np.ndarray, guesses: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """ωB97X/6-31G(d) energy and forces. `guesses` holds densities by basis and is updated."""
    energy, forces, density = wb97x(
        numbers, positions, "6-31g(d)", cartesian=True, guess=guesses.get("6-31g(d)")
    )
    guesses["6-31g(d)"] = density
    return {"wb97x_dz.energy": np.array(energy), "wb97x_dz.forces": forces}


def correlated_labels(
    numbers: np.ndarray, positions: np.ndarray, guesses: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """HF and MP2 in DZ, TZ, QZ and CCSD(T) in DZ, under the keys of the files."""
    labels: dict[str, float] = {}
    (
        labels["hf_dz.energy"],
        labels["mp2_dz.corr_energy"],
        labels["ccsd(t)_dz.corr_energy"],
        density,
    ) = coupled_cluster_dz(numbers, positions, guess=guesses.get("cc-pvdz"))
    guesses["cc-pvdz"] = density
    for size in ("tz", "qz"):
        basis = f"cc-pv{size}"
        labels[f"hf_{size}.energy"], labels[f"mp2_{size}.corr_energy"], guesses[basis] = (
            fitted_hf_mp2(numbers, positions, basis, guess=guesses.get(basis))
        )
    return {key: np.array(value) for key, value in labels.items()}


def all_labels(
    numbers: np.ndarray, positions: np.ndarray, guesses: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Every label of `mini-ani1x.h5` but the composite, under the keys of the file."""
    basis = "def2-tzvpp"
    energy, forces, guesses[basis] = wb97x(
        numbers, positions, basis, fitted_with="def2-universal-jkfit", guess=guesses.get(basis)
    )
    return {
        **low_level_labels(numbers, positions, guesses),
        "wb97x_tz.energy": np.array(energy),
        "wb97x_tz.forces": forces,
        **correlated_labels(numbers, positions, guesses),
    }
