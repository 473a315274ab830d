"""Torsions: geometry, numbers and refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from made_runs import exit_code
from potentials import random_potential

from hippynn_mf import MultiFidelityCalculator
from hippynn_mf.errors import UserError
from hippynn_mf.levels import Level
from hippynn_mf.potentials.potential import Potential
from hippynn_mf.potentials.torsion import TorsionScan, scan_torsion
from hippynn_mf.report.level_colors import level_color
from hippynn_mf.report.torsion import draw_torsion
from hippynn_mf.units import EV_PER_KCAL_PER_MOL

ANGLES = np.arange(0.0, 360.0, 45.0)
ETHANE_DIHEDRAL = (2, 0, 1, 5)


@pytest.fixture(scope="module")
def ensemble() -> Potential:
    return random_potential({"DZ": "EF", "CC": "E"}, n_members=3)


@pytest.fixture(scope="module")
def scan(ensemble) -> TorsionScan:
    return scan_torsion(ensemble, molecule("C2H6"), ETHANE_DIHEDRAL, ANGLES)


def test_one_end_turns_as_a_whole(scan):
    start = molecule("C2H6")
    for angle, turned in zip(ANGLES, scan.structures, strict=True):
        assert turned.get_dihedral(*ETHANE_DIHEDRAL) % 360 == pytest.approx(angle, abs=1e-6)
        for end in ([0, 2, 3, 4, 1], [1, 5, 6, 7, 0]):  # a methyl group and the bond it turns about
            np.testing.assert_allclose(
                turned[end].get_all_distances(), start[end].get_all_distances(), atol=1e-9
            )


def test_energies_are_those_of_the_calculator_above_their_mean(ensemble, scan):
    for level in ensemble.levels:
        energies = []
        for atoms in scan.structures:
            calculator = MultiFidelityCalculator(ensemble, level)
            energies.append(calculator.get_level_energies(atoms)[level.id] / EV_PER_KCAL_PER_MOL)
        expected = np.transpose(energies) - np.mean(energies, axis=0)[:, None]
        np.testing.assert_allclose(scan.energies[level.id], expected, atol=1e-6)
        assert np.ptp(expected) > 0.1
    difference = scan.energies["ccsd(t)_cbs"] - scan.energies["wb97x_dz"]
    np.testing.assert_array_equal(scan.difference("ccsd(t)_cbs", "wb97x_dz"), difference)


def test_the_figure_draws_mean_and_spread_of_every_level(ensemble, scan):
    figure, data = draw_torsion(ensemble, scan)
    energies, differences = figure.axes
    assert [line.get_label() for line in energies.lines] == ["DZ", "CC"]
    for line, level in zip(energies.lines, ("wb97x_dz", "ccsd(t)_cbs"), strict=True):
        np.testing.assert_allclose(line.get_ydata(), scan.energies[level].mean(axis=0))
    (line, _zero) = differences.lines
    assert line.get_label() == "DZ − CC"
    expected = scan.difference("wb97x_dz", "ccsd(t)_cbs")
    np.testing.assert_allclose(line.get_ydata(), expected.mean(axis=0))
    (curve,) = (curve for curve in data.curves if curve.minus)
    np.testing.assert_allclose(curve.std, expected.std(axis=0, ddof=1))
    (band,) = differences.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.max() == pytest.approx((expected.mean(0) + expected.std(0, ddof=1)).max())


def test_one_level_of_one_member_has_no_band_and_no_difference(ensemble):
    alone = ensemble.member(1).only(["CC"])
    figure, data = draw_torsion(
        alone, scan_torsion(alone, molecule("C2H6"), ETHANE_DIHEDRAL, ANGLES)
    )
    (axes,) = figure.axes
    assert not axes.collections
    assert [curve.std for curve in data.curves] == [None]


def test_levels_of_a_model_file_have_colours_without_being_registered():
    levels = [
        Level(name, label=name, method="", basis="", rank=rank, energy_keys=())
        for rank, name in enumerate(["one", "two"])
    ]
    assert len({level_color(level, levels) for level in levels}) == 2
    assert level_color(levels[0]) == level_color(levels[0], levels)


@pytest.mark.parametrize(
    ("atoms", "dihedral", "expected"),
    [
        (molecule("C2H6"), (2, 0, 5, 1), "Atoms 0 and 5 of C2H6 are not bonded"),
        (molecule("C2H6"), (2, 0, 1), r"four different atoms of 0 to 7, found \[2, 0, 1\]"),
        (molecule("C2H6"), (2, 0, 1, 8), "four different atoms of 0 to 7"),
        (molecule("C2H6"), (2, 0, 1, 2), "four different atoms"),
        (molecule("C3H6_D3h"), (1, 0, 2, 1), "four different atoms"),
        (molecule("cyclobutane"), (0, 2, 1, 3), "is part of a ring"),
        (molecule("C2H2"), (3, 0, 1, 2), "lie on a line"),
        (molecule("C2H6", cell=[9, 9, 9], pbc=True), ETHANE_DIHEDRAL, "is periodic"),
    ],
)
def test_what_cannot_turn_is_refused(ensemble, atoms: Atoms, dihedral, expected):
    with pytest.raises(UserError, match=expected):
        scan_torsion(ensemble, atoms, dihedral, ANGLES)


def test_the_command_writes_picture_and_numbers(tmp_path, ensemble, capsys):
    model, structure = tmp_path / "model.safetensors", tmp_path / "ethane.xyz"
    ensemble.save(model)
    molecule("C2H6").write(structure)
    out = tmp_path / "torsion.png"
    command = ["torsion", model, structure, "--dihedral", "2,0,1,5", "--out", out, "--step", "60"]
    assert exit_code(*command) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    stored = json.loads(out.with_suffix(".json").read_text())
    assert stored["angles"] == [0, 60, 120, 180, 240, 300, 360]
    assert stored["curves"][0]["mean"][0] == pytest.approx(stored["curves"][0]["mean"][-1])
    assert exit_code(*command) == 2
    assert "--force" in capsys.readouterr().err
    for wrong, expected in {"2,0,1,x": "four numbers", "2,0,1": "four different"}.items():
        other = [*command[:4], wrong, "--out", tmp_path / "other.png"]
        assert exit_code(*other) == 2
        assert expected in capsys.readouterr().err
    other = [*command[:5], "--out", tmp_path / "other.png", "--step", "70"]
    assert exit_code(*other) == 2
    assert "divides 360" in capsys.readouterr().err
    other = [*command[:5], "--out", tmp_path / "other.bmp"]
    assert exit_code(*other) == 2
    assert "*.png" in capsys.readouterr().err
