"""Units of energies whose size tells none, from stretched bonds of hydrogen."""

from dataclasses import replace

import numpy as np
import pytest
from ase import units
from ase.build import molecule
from made_runs import exit_code

from hippynn_mf.data.checks.gate import check_structures
from hippynn_mf.data.checks.stretches import stretching_energies
from hippynn_mf.data.embedded import MINI_ANI1X
from hippynn_mf.data.formats.ani1x import labels_in_file, read_ani1x
from hippynn_mf.data.formats.xyz_file import write_molecule
from hippynn_mf.levels import CC, DZ, MP2, Levels

OWN = replace(DZ, id="own", label="OWN", self_energies={}, energy_keys=("own.energy",))
KCAL = units.kcal / units.mol
FACTORS = {
    "eV read as hartree": units.Hartree,
    "kcal/mol read as hartree": units.Hartree / KCAL,
    "kcal/mol read as eV": units.eV / KCAL,
    "hartree read as eV": units.eV / units.Hartree,
    "eV read as kcal/mol": KCAL,
    "hartree read as kcal/mol": KCAL / units.Hartree,
}


@pytest.fixture(scope="module")
def structures():
    return read_ani1x(MINI_ANI1X, labels_in_file(MINI_ANI1X))[0]


def verdict_of(structures, energies):
    only = replace(structures, energies={OWN.id: energies}, forces={})
    report = check_structures(only, Levels([OWN]), MINI_ANI1X)
    return report.of("stretches", OWN.id).verdict, report


@pytest.mark.parametrize("level", [DZ, MP2, CC])
def test_right_energies_pass_without_self_energies_and_forces(structures, level):
    verdict, report = verdict_of(structures, structures.energies[level.id])
    assert verdict == "passed"
    report.refuse()


@pytest.mark.parametrize("name", FACTORS)
def test_every_other_unit_is_refused(structures, name):
    wrong = structures.energies[CC.id] * FACTORS[name]
    only = replace(structures, energies={OWN.id: wrong}, forces={})
    report = check_structures(only, Levels([OWN]), MINI_ANI1X)
    assert "refused" in {o.verdict for o in report.outcomes if o.level == OWN.id}


def test_what_is_said_in_a_training(tmp_path, capsys, structures):
    path = tmp_path / "hartree.xyz"
    with path.open("w") as stream:
        for row in np.flatnonzero(np.isfinite(structures.energies[CC.id]))[::3]:
            numbers = structures.species[int(row)]
            positions = structures.positions[int(row)].astype(float)
            info = {"energy_OWN": float(structures.energies[CC.id][row])}
            write_molecule(stream, numbers, {"pos": positions}, info)
    command = ["train", "SF-OWN/E", "--levels", "OWN", "--data", path, "--out", tmp_path / "out"]
    assert exit_code(*command) == 2
    error = capsys.readouterr().err
    assert "times as much as bonds of hydrogen store" in error
    assert "--units energy=UNIT" in error
    assert not (tmp_path / "out").exists()


def test_energies_of_bonds_are_those_of_morse():
    """Their second derivative at rest is the force constant, and they end at k/2a²."""
    atoms = molecule("CH4")
    direction = atoms.positions[1] / np.linalg.norm(atoms.positions[1])
    lengths = np.array([1.09 - 1e-4, 1.09, 1.09 + 1e-4, 1.2])
    positions = np.tile(atoms.positions / np.linalg.norm(atoms.positions[1]) * 1.09, (4, 1, 1))
    positions[:, 1] = direction * lengths[:, None]
    energies = stretching_energies(atoms.numbers, positions)
    constant = (energies[0] - 2 * energies[1] + energies[2]) / 1e-8
    assert constant == pytest.approx(5.47 * 6.241509, rel=1e-4)
    expected = 5.47 * 6.241509 / 8 * (1 - np.exp(-2 * 0.11)) ** 2
    assert energies[3] == pytest.approx(expected, rel=1e-5)
    positions[3, 1] = direction * 2.0  # broken
    assert np.isnan(stretching_energies(atoms.numbers, positions)[3])
