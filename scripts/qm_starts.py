"""Molecules of the embedded data set: where the search for their minima starts."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import molecule

from hippynn_mf.labelling.harmonic import Minimum, minimum_near

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
