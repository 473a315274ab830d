"""Extended XYZ is written as ASE's own writer does."""

from __future__ import annotations

import io

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixCartesian
from ase.io import write

from hippynn_mf.data.formats.xyz_file import write_structures


def structure(what: str) -> Atoms:
    """A structure with something that has a rule of its own in the file."""
    atoms = bulk("Si", cubic=True) if what in ("cell", "stress") else molecule("CH3OH")
    n = len(atoms)
    atoms.positions += np.random.default_rng(0).normal(size=(n, 3)) * 1e4
    if what == "info":
        atoms.info |= {"text": "a b", "quoted": 'a "b"', "yes": True, "flags": np.ones(3, bool)}
        atoms.info |= {"n": 3, "x": 1 / 3, "vector": np.arange(4) / 7, "nothing": None, "l": [1, 2]}
        atoms.info |= {"matrix": np.eye(2), "single": np.float32(0.1), "odd key": 1}
    elif what == "columns":
        atoms.arrays |= {"i": np.arange(n), "b": np.arange(n) % 2 == 0, "s": np.array(["x"] * n)}
        atoms.arrays |= {"f": np.arange(n, dtype=np.float32) / 3, "one": np.ones((n, 1))}
        atoms.arrays |= {"b2": np.ones((n, 2), bool), "nan": np.full((n, 2), np.nan)}
        atoms.arrays["o"] = np.array(["a", "bcd"] * (n // 2), object)
    elif what == "calculator":
        atoms.calc = SinglePointCalculator(
            atoms, energy=-1 / 3, forces=atoms.positions / 7, charges=np.ones(n), dipole=np.ones(3)
        )
    elif what == "stress":
        atoms.calc = SinglePointCalculator(atoms, energy=1.0, stress=np.arange(6) / 7)
    elif what == "fixed":
        atoms.set_constraint([FixAtoms([0]), FixCartesian(1, [True, False, False])])
    elif what == "one atom":
        atoms = atoms[:1]
        atoms.arrays["v"] = np.ones((1, 3))
    elif what == "ASE":
        atoms.set_tags(range(n))
        atoms.set_initial_charges(np.arange(n) / 7)
        atoms.set_velocities(atoms.positions)
        atoms.set_masses(np.arange(n) + 1.0)
    return atoms


CASES = [
    "plain",
    "info",
    "columns",
    "calculator",
    "stress",
    "fixed",
    "cell",
    "one atom",
    "ASE's own",
]


@pytest.mark.parametrize("what", CASES)
def test_structures_are_written_as_by_ase(what):
    expected, found = io.StringIO(), io.StringIO()
    write(expected, [structure(what), structure("plain")], format="extxyz")
    write_structures(found, [structure(what), structure("plain")])
    assert found.getvalue() == expected.getvalue()
