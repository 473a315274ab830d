"""Molecules and crystals together, from a file to a prediction, by the command line alone."""

from __future__ import annotations

import made_crystals
import made_xyz
import numpy as np
import pytest
from ase.io import read, write
from made_runs import exit_code

from hippynn_mf import MultiFidelityCalculator
from hippynn_mf.levels import CC, DZ

SMALL = ["--set", "n_features=4", "--set", "n_sensitivities=4", "--set", "max_epochs=1"]
RUN = "results/runs/mf_dz_efs_cc_e"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_stress_goes_all_the_way(folder, capfd):
    molecules = made_xyz.label(made_xyz.molecules(12, names=["CH4", "H2O"]))
    labelled = made_crystals.label(made_crystals.crystals(36))
    write("my.xyz", [*labelled, *molecules], format="extxyz")
    asked = ["train", "MF-DZ/EFS-CC/E", "--data", "my.xyz", *SMALL]
    assert exit_code(*asked, "--seeds", "0,1") == 0
    output = capfd.readouterr().out
    assert "heldout   DZ stress" in output
    assert exit_code("export", f"{RUN}/seed-0", f"{RUN}/seed-1", "--out", "m.safetensors") == 0
    assert exit_code("card", "m.safetensors") == 0
    assert "trained on energy, forces and stress" in capfd.readouterr().out
    new = [*made_crystals.crystals(3, seed=5), *made_xyz.molecules(1, seed=5, names=["CH4"])]
    write("new.xyz", new, format="extxyz")
    asked = ["predict", "m.safetensors", "new.xyz", "--level", "DZ,CC", "--dtype", "float64"]
    assert exit_code(*asked, "--ensemble-std", "--out", "out.xyz") == 0
    calculator = MultiFidelityCalculator("m.safetensors", "CC")
    for atoms in read("out.xyz", ":"):
        copy = atoms.copy()
        copy.calc = calculator
        assert atoms.get_potential_energy() == pytest.approx(copy.get_potential_energy())
        names = {f"{std}stress_{level.id}" for level in (DZ, CC) for std in ("", "std_")}
        if not atoms.pbc.all():
            assert not names & set(atoms.info)
            continue
        assert names <= set(atoms.info)
        np.testing.assert_allclose(atoms.get_stress(), copy.get_stress(), atol=1e-8)
        assert np.abs(copy.get_stress()).max() > 1e-6


def level_files(change):
    """A file for each level of the same crystals, that of CC with cells of its own."""
    structures = made_crystals.crystals(24)
    write("dz.xyz", made_crystals.label(structures, [DZ]), format="extxyz")
    of_cc = made_crystals.label(structures, [CC])
    for atoms in of_cc:
        change(atoms)
        del atoms.info["stress_ccsd(t)_cbs"]
    write("cc.xyz", of_cc, format="extxyz")
    return ["DZ=dz.xyz", "CC=cc.xyz"]


def open_all(atoms):
    atoms.pbc = False


def open_one(atoms):
    atoms.pbc = [True, True, False]


def open_and_turn(atoms):
    """As a molecule that another program has turned."""
    atoms.pbc = False
    atoms.rotate(40, "z", rotate_cell=True)
    forces = atoms.arrays["forces_ccsd(t)_cbs"]
    angle = np.deg2rad(40)
    cos, sin = np.cos(angle), np.sin(angle)
    atoms.arrays["forces_ccsd(t)_cbs"] = forces @ np.array(
        [[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]
    )


@pytest.mark.parametrize(
    ("change", "axes"),
    [(open_all, "open"), (open_one, "periodic along a, b"), (open_and_turn, "open")],
)
def test_one_structure_with_two_kinds_of_periodicity_is_refused(folder, capfd, change, axes):
    files = level_files(change)

    assert exit_code("train", "MF-DZ/EF-CC/E", "--train", *files, *SMALL) == 2
    error = capfd.readouterr().err
    assert "with labels of different levels and different periodicity" in error
    assert f"({axes})" in error
    assert "--ignore-cell" in error
    assert not list(folder.glob("results/runs/*/*/model.pt"))
    assert exit_code("data", "convert", *files, "all.h5") == 2
    assert not (folder / "all.h5").exists()
    assert exit_code("data", "info", *files) == 0
    assert "periodicity                 refused" in capfd.readouterr().out


def test_the_same_cells_and_molecules_of_one_level_are_no_mistake(folder, capfd):
    files = level_files(lambda atoms: None)
    assert exit_code("data", "info", *files) == 0
    assert "24 carry the energies of all" in capfd.readouterr().out
    crystals = made_crystals.label(made_crystals.crystals(12), [DZ])
    alone = [atoms.copy() for atoms in crystals]
    for atoms in alone:  # the same atoms without their images, at the same level
        atoms.pbc = False
        del atoms.info["stress_wb97x_dz"]
    write("both.xyz", [*crystals, *alone], format="extxyz")
    assert exit_code("data", "info", "both.xyz") == 0
    output = capfd.readouterr().out
    assert "24 structures in 1 groups" in output
    assert "periodicity" not in output


def test_cells_that_differ_are_ignored_where_that_is_asked_for(folder, capfd):
    files = level_files(open_all)
    asked = ["train", "MF-DZ/EF-CC/E", "--train", *files, *SMALL, "--ignore-cell"]
    assert exit_code(*asked, "--accept-outliers") == 0
    assert "heldout   CC energy" in capfd.readouterr().out
