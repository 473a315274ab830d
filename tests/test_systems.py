"""Pairs of atoms: small molecules are searched together, and everything else one by one."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from hippynn_mf.errors import UserError
from hippynn_mf.potentials import systems
from hippynn_mf.potentials.systems import Systems

SPECIES = (1, 6, 7, 8)


def pairs(found: Systems) -> dict[tuple[int, int], list[float]]:
    keys = zip(found.receivers.tolist(), found.senders.tolist(), strict=True)
    return dict(zip(keys, found.vectors.tolist(), strict=True))


@pytest.mark.parametrize("cutoff", [1.2, 2.0, 6.5])
def test_both_searches_find_the_same_pairs(monkeypatch, cutoff):
    molecules = [molecule(name) for name in ("C6H6", "H2O", "CH3CH2OH")]
    molecules.insert(1, Atoms("O", [[9.0, 9.0, 9.0]]))
    for atoms in molecules:
        atoms.rattle(0.05, seed=3)
        atoms.translate([7.0, -3.0, 1e3])
    together = Systems.of(molecules, cutoff, SPECIES)
    monkeypatch.setattr(systems, "SMALL", 0)
    one_by_one = Systems.of(molecules, cutoff, SPECIES)
    assert pairs(together) == pairs(one_by_one)
    assert len(together.receivers) == len(one_by_one.receivers) > 0
    for name in ("receivers", "system_of_atom", "numbers"):
        assert (getattr(together, name) == getattr(one_by_one, name)).all()
    assert together.sizes == one_by_one.sizes == [12, 1, 3, 9]


def test_one_system_of_another_kind_is_no_hindrance():
    water, diamond = molecule("H2O"), bulk("C", cubic=True)
    both = Systems.of([water, diamond, water], 4.0, SPECIES)
    alone = Systems.of([diamond], 4.0, SPECIES)
    of_diamond = both.system_of_atom[both.receivers] == 1
    assert (both.senders[of_diamond] - 3 == alone.senders).all()
    assert (~of_diamond).sum() == 12
    assert sum(np.isclose(alone.vectors.norm(dim=1), 3.57 * 3**0.5 / 4)) == 8 * 4


@pytest.mark.parametrize("small", [0, 40])
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"numbers": [8, 1, 9]}, r"structure 6 \(OHF\): Atomic numbers \[9\] are outside"),
        ({"positions": np.full((3, 3), np.nan)}, r"structure 6 \(OH2\): positions hold NaN"),
        ({"positions": np.zeros((3, 3))}, r"structure 6 .*overlap: they are 0\.00 Å apart"),
        ({"positions": np.eye(3) * 1e6}, r"structure 6 .*1\.0e\+06 Å from the origin"),
        ({"cell": [np.inf, 1, 1]}, r"structure 6 .*cell hold NaN or infinite"),
    ],
)
def test_a_wrong_system_is_named(monkeypatch, small, change, expected):
    monkeypatch.setattr(systems, "SMALL", small)
    water, wrong = molecule("H2O"), molecule("H2O")
    for name, value in change.items():
        setattr(wrong, name, value)
    with pytest.raises(UserError, match=expected):
        Systems.of([water, water, wrong], 4.0, SPECIES, first=3)


@pytest.mark.parametrize("small", [0, 40])
def test_no_atoms_are_no_system(monkeypatch, small):
    monkeypatch.setattr(systems, "SMALL", small)
    with pytest.raises(UserError, match=r"structure 1 \(\): there are no atoms"):
        Systems.of([Atoms()], 4.0, SPECIES)
