"""The labels of one structure by a calculator, as a record; what cannot be a label is an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from hippynn_mf.cells import is_crystal
from hippynn_mf.errors import UserError
from hippynn_mf.keys import ENERGY, FORCES, STRESS
from hippynn_mf.labelling.pools import charge_and_multiplicity
from hippynn_mf.labelling.registry import Named
from hippynn_mf.labels import Properties
from hippynn_mf.schema import StrictKeys

LARGEST = float(np.finfo(np.float32).max)


class SinglePoints(StrictKeys):
    """What workers are told: the calculator, and the labels."""

    named: Named
    properties: Properties


def make(settings: str) -> Callable[[Atoms], Mapping[str, Any]]:
    """What computes the record of a structure, of settings as JSON."""
    asked = SinglePoints.model_validate_json(settings)
    factory = asked.named.factory()
    kept: list[Calculator] = []

    def calculator() -> Calculator:
        if not asked.named.is_kept:
            return factory()
        if not kept:
            kept.append(factory())
        if hasattr(kept[0], "reset"):
            kept[0].reset()
        return kept[0]

    def compute(atoms: Atoms) -> Mapping[str, Any]:
        return labels_of(atoms, calculator(), asked)

    return compute


def labels_of(atoms: Atoms, calculator: Calculator, asked: SinglePoints) -> dict[str, Any]:
    """Energy in eV, forces (n_atoms, 3) in eV/Å, stress (3, 3) in eV/Å³ of what is a crystal.

    Raises UserError for what is no number, of another shape, or beyond float32; and whatever the
    calculator raises.
    """
    atoms = atoms.copy()
    if asked.named.knows_charges:
        charge, multiplicity = charge_and_multiplicity(atoms)
        if charge or multiplicity != 1:
            calculator.set(charge=charge, multiplicity=multiplicity)
    atoms.calc = calculator
    values: dict[str, Any] = {ENERGY: atoms.get_potential_energy()}
    shapes: dict[str, tuple[int, ...]] = {ENERGY: (), FORCES: (len(atoms), 3), STRESS: (3, 3)}
    if asked.properties.forces:
        values[FORCES] = atoms.get_forces(apply_constraint=False)
    if asked.properties.stress and is_crystal(atoms.cell.array[None])[0] and atoms.pbc.all():
        values[STRESS] = atoms.get_stress(voigt=False, apply_constraint=False)
    return {kind: _checked(kind, value, shapes[kind]) for kind, value in values.items()}


def _checked(kind: str, value: Any, shape: tuple[int, ...]) -> Any:
    array = np.asarray(value)
    if array.size == 1 and shape == ():
        array = array.reshape(())  # some calculators give an array of one energy
    if array.shape != shape or array.dtype.kind not in "iuf":
        raise UserError(
            f"the calculator gives {kind} of shape {array.shape} and type {array.dtype}, where "
            f"numbers of shape {shape} were expected"
        )
    if not np.isfinite(array).all():
        raise UserError(f"the calculator gives NaN or infinite {kind}")
    if np.abs(array).max() > LARGEST:
        raise UserError(f"the calculator gives {kind} beyond the range of float32")
    return array.astype(np.float64).tolist()
