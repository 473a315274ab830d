"""pymatgen's dictionary of a `Structure` as ASE's atoms, if it does not contradict itself.

It says a lattice twice, as `matrix` and as `a`, `b`, `c`, `alpha`, `beta`, `gamma` and `volume`,
and the place of a site twice, as `xyz` and as `abc`. What edits one of them may leave the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.cell import Cell
from ase.data import atomic_numbers

from hippynn_mf.cells import LEAST_HEIGHT, heights_of
from hippynn_mf.errors import UserError

STRUCTURE = "structure"
LENGTHS, ANGLES = ("a", "b", "c"), ("alpha", "beta", "gamma")
SAME_LENGTH = 1e-3  # of a length or a volume: printed digits
SAME_ANGLE = 0.1  # degrees
SAME_PLACE = 1e-2  # Å
# Properties of a site, and of the species in it, under ASE's names of what atoms begin with.
MOMENTS = {"magmom": "initial_magmoms", "spin": "initial_magmoms", "charge": "initial_charges"}


def dictionary(value: object) -> Mapping[str, Any]:
    """The value itself if it is an object of JSON, else an empty one."""
    return value if isinstance(value, dict) else {}


def atoms_of(content: Mapping[str, Any], place: str) -> Atoms:
    """The structure of a record, with magnetic moments and charges of sites as ASE has them.

    Raises UserError for a record without one, for sites that one element does not occupy whole, and
    where lattice or sites contradict themselves; TypeError, ValueError or KeyError for what is no
    number.
    """
    structure = dictionary(content.get(STRUCTURE))
    lattice, sites = dictionary(structure.get("lattice")), structure.get("sites")
    if "matrix" not in lattice or not isinstance(sites, list) or not sites:
        raise UserError(
            f"{place}: there is no structure of pymatgen with lattice and sites. Found: "
            f"{', '.join(map(str, content)) or 'nothing'}."
        )
    cell = np.array(lattice["matrix"], np.float64).reshape(3, 3)
    pbc = np.broadcast_to(np.asarray(lattice.get("pbc", True), bool), 3)
    _refuse_other_lattice(lattice, cell, place)
    numbers = [_element(site, place) for site in sites]
    positions = _positions(sites, cell, pbc, place)
    atoms = Atoms(numbers, positions, cell=cell, pbc=pbc)
    for name, of_ase in MOMENTS.items():
        values = [_of_site(site, name) for site in sites]
        if any(value is not None for value in values):
            atoms.arrays[of_ase] = np.array([value or 0 for value in values], np.float64)
    if structure.get("charge") not in (None, 0):
        atoms.info["charge"] = float(structure["charge"])
    return atoms


def _of_site(site: Mapping[str, Any], name: str) -> Any:
    """A property of a site; None without it. Moments of three components are their size."""
    for holder in (
        site.get("properties"),
        site["species"][0].get("properties"),
        site["species"][0],
    ):
        value = dictionary(holder).get(name)
        if isinstance(value, list):
            return float(np.linalg.norm(np.array(value, np.float64)))
        if value is not None and not isinstance(value, dict):
            return value
    return None


def _refuse_other_lattice(lattice: Mapping[str, Any], cell: np.ndarray, place: str) -> None:
    """Raise UserError for lengths, angles or a volume that are not those of the matrix."""
    found: list[float] = Cell(cell).cellpar().tolist()
    of_matrix = dict(zip((*LENGTHS, *ANGLES), found, strict=True))
    of_matrix["volume"] = abs(float(np.linalg.det(cell)))
    for name, value in of_matrix.items():
        if lattice.get(name) is None:
            continue
        said = float(lattice[name])
        limit = SAME_ANGLE if name in ANGLES else SAME_LENGTH * max(value, 1.0)
        if not abs(said - value) <= limit:
            raise UserError(
                f"{place}: the lattice says {name}={said:g}, and its matrix has {value:.6g}. "
                "Correct one of them."
            )


def _positions(
    sites: Sequence[Mapping[str, Any]], cell: np.ndarray, pbc: np.ndarray, place: str
) -> np.ndarray:
    """Positions (n_atoms, 3) in Å; UserError where `xyz` and `abc` are different places."""
    has_xyz, has_abc = ("xyz" in sites[0]), ("abc" in sites[0])
    scaled = np.array([site["abc"] for site in sites], np.float64) if has_abc else None
    if not has_xyz:
        return np.asarray(np.array([site["abc"] for site in sites], np.float64) @ cell)
    positions = np.array([site["xyz"] for site in sites], np.float64)
    if scaled is not None and np.isfinite(cell).all() and not _is_flat(cell):
        apart = np.linalg.solve(cell.T, positions.T).T - scaled
        apart -= np.where(pbc, np.round(apart), 0.0)  # another image is the same place
        distances = np.linalg.norm(apart @ cell, axis=1)
        if not (distances <= SAME_PLACE).all():
            worst = int(np.argmax(distances))
            raise UserError(
                f"{place}: xyz and abc of site {worst + 1} are {distances[worst]:.3g} Å apart. "
                "Correct one of them, or leave it out."
            )
    return positions


def _is_flat(cell: np.ndarray) -> bool:
    """Whether a cell is one that is refused with its own message."""
    return bool(heights_of(cell).min() < LEAST_HEIGHT)


def _element(site: object, place: str) -> int:
    """The atomic number of a site, which one element occupies whole."""
    species = dictionary(site).get("species")
    if not isinstance(species, list) or len(species) != 1:
        raise UserError(f"{place}: a site has not one element. Only ordered structures are read.")
    one = dictionary(species[0])
    if float(one.get("occu", 1)) != 1 or str(one.get("element")) not in atomic_numbers:
        raise UserError(
            f"{place}: a site is {one.get('element')} with an occupation of {one.get('occu', 1)}; "
            "only ordered structures of known elements are read."
        )
    return int(atomic_numbers[str(one["element"])])
