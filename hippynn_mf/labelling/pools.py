"""Structures to be labelled or sampled: read, looked at, and known by their content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from hippynn_mf.cells import periodic_cell
from hippynn_mf.errors import UserError, errors_about
from hippynn_mf.potentials.batch import CHARGES, SPINS, refuse_charged
from hippynn_mf.potentials.structure_files import read_structures

N_NAMED = 3  # structures that a message names


def read_pool(path: Path) -> list[Atoms]:
    """The structures of a file in any format of ASE, with all that it says of them.

    Raises UserError for a file that is missing, damaged or empty, and for structures without atoms,
    with unknown elements, positions that are not finite, or a wrong cell.
    """
    with errors_about(path):
        structures = list(read_structures(path))
        if not structures:
            raise UserError("there is no structure in the file.")
        for number, atoms in enumerate(structures, 1):
            place = f"structure {number} ({atoms.symbols})"
            if not len(atoms):
                raise UserError(f"structure {number} has no atoms. Remove it.")
            if not (atoms.numbers.min() > 0 and atoms.numbers.max() < len(chemical_symbols)):
                raise UserError(f"{place} has atoms without an element (X). Remove it.")
            if not np.isfinite(atoms.positions).all():
                raise UserError(f"{place} has NaN or infinite positions. Remove it.")
            periodic_cell(atoms.cell.array, atoms.pbc, place)
    return structures


def named(structures: Sequence[Atoms], numbers: Iterable[int]) -> str:
    """Some structures in a message, counted from 1, as `structures 3 (CH4), 7 (H2O) and 2 more`."""
    places = [f"{k + 1} ({structures[k].symbols})" for k in numbers]
    more = f" and {len(places) - N_NAMED} more" if len(places) > N_NAMED else ""
    return f"structure{'s' if len(places) > 1 else ''} {', '.join(places[:N_NAMED])}{more}"


def refuse_charged_pool(structures: Sequence[Atoms], path: Path, remedy: str) -> None:
    """Raise UserError, one for all, for charges, open shells and odd numbers of electrons."""
    wrong = [k for k, atoms in enumerate(structures) if _is_other(atoms)]
    if wrong:
        raise UserError(
            f"{path}: {named(structures, wrong)} are charged or have unpaired electrons, as they "
            "say or by their number of electrons. Models know neutral closed shells only. Remove "
            f"them. {remedy}"
        )


def _is_other(atoms: Atoms) -> bool:
    """Whether a structure is no neutral closed shell."""
    if int(atoms.numbers.sum()) % 2 and not atoms.pbc.any():
        return True
    try:
        refuse_charged(atoms)
    except UserError:
        return True
    return False


def charge_and_multiplicity(atoms: Atoms) -> tuple[float, int]:
    """Charge, and 2S + 1, as a structure says them; else neutral, with as few spins as can be.

    Raises UserError for a `spin` that may be one of several multiplicities.
    """
    charge = float(np.sum(atoms.arrays.get("initial_charges", 0.0)))
    charge = next((float(atoms.info[name]) for name in CHARGES if name in atoms.info), charge)
    is_odd = int(atoms.numbers.sum() - round(charge)) % 2
    moments = round(abs(float(np.sum(atoms.arrays.get("initial_magmoms", 0.0)))))
    for name, closed in SPINS.items():
        if name not in atoms.info:
            continue
        value = float(atoms.info[name])
        if not is_odd and value in closed:
            return charge, 1
        meanings = (value,) if "multiplicity" in name else (value, value + 1, 2 * value + 1)
        fitting = {round(m) for m in meanings if m >= 1 and m == round(m) and m % 2 != is_odd}
        if len(fitting) != 1:
            raise UserError(
                f"{atoms.symbols} says {name}={value:g}, which may be any of the multiplicities "
                f"{sorted(fitting) or 'of no such molecule'}. Say multiplicity=2S+1 instead."
            )
        return charge, fitting.pop()
    return charge, moments + 1 if moments else 1 + is_odd


def content_key(atoms: Atoms, *more: str) -> str:
    """The hash of what a structure is to a calculator, and of `more`."""
    digest = hashlib.sha256(repr(more).encode())
    charge = charge_and_multiplicity(atoms)
    for part in (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, np.array(charge)):
        digest.update(np.ascontiguousarray(part).tobytes())
        digest.update(b";")
    return digest.hexdigest()


def bare(atoms: Atoms) -> Atoms:
    """What a calculator needs of a structure, and no labels; its charges and spins stay."""
    kept = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    for name in ("initial_charges", "initial_magmoms", "masses", "tags"):
        if name in atoms.arrays:
            kept.set_array(name, atoms.arrays[name])
    kept.info = {name: atoms.info[name] for name in (*CHARGES, *SPINS) if name in atoms.info}
    return kept
