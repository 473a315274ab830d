"""Crystals in files: read, checked, matched, converted; wrong cells and units are refused."""

from __future__ import annotations

import itertools

import ase.io
import h5py
import numpy as np
import pytest
from ase import Atoms, units
from made_crystals import crystals, label, labels_of, write_crystals

from hippynn_mf import UserError
from hippynn_mf.data.boxes import without_lonely_cells
from hippynn_mf.data.checks.gate import check_structures
from hippynn_mf.data.convert import convert_data
from hippynn_mf.data.copies import join_copies
from hippynn_mf.data.formats.ani1x import labels_in_file, read_ani1x
from hippynn_mf.data.loading import load_splits
from hippynn_mf.data.matching import find_copies
from hippynn_mf.labels import parse_labels
from hippynn_mf.levels import CC, DZ, KNOWN_LEVELS
from hippynn_mf.units import EV_PER_HARTREE

LABELS = parse_labels({"DZ": "EFS", "CC": "E"})


def read(path, labels=LABELS):
    return read_ani1x(path, labels)[0]


def report(path, **labels):
    wanted = labels_in_file(path)
    return check_structures(read_ani1x(path, wanted)[0], KNOWN_LEVELS, path)


def outcome(found, check, level=DZ):
    return found.of(check, level.id)


def test_labels_of_crystals_are_read_in_hartree(tmp_path):
    atoms = crystals(3)
    path = write_crystals(tmp_path / "all.xyz", label(atoms))
    found = read(path)
    assert dict(labels_in_file(path)) == dict(parse_labels({"DZ": "EFS", "CC": "EFS"}))
    for k, each in enumerate(atoms):
        energy, forces, stress = labels_of(each, DZ)
        np.testing.assert_allclose(found.cells[k], each.cell.array, atol=1e-7)
        np.testing.assert_allclose(found.energies[DZ.id][k] * EV_PER_HARTREE, energy)
        np.testing.assert_allclose(found.forces[DZ.id][k] * EV_PER_HARTREE, forces, atol=1e-6)
        np.testing.assert_allclose(found.stress[DZ.id][k] * EV_PER_HARTREE, stress, atol=1e-7)
    assert CC.id not in found.stress


@pytest.mark.parametrize("style", ["stress", "REF_stress", "virial", "REF_virial", "voigt", "nine"])
def test_a_stress_has_many_names(tmp_path, style):
    atoms = crystals(2)
    for each in atoms:
        energy, forces, stress = labels_of(each, DZ)
        prefix = "REF_" if style.startswith("REF_") or style == "voigt" else ""
        each.info[f"{prefix}energy"] = energy
        each.arrays[f"{prefix}forces"] = forces
        if "virial" in style:
            each.info[style] = -stress * each.get_volume()
        elif style == "voigt":
            each.info["REF_stress"] = stress.ravel()[[0, 4, 8, 5, 2, 1]]
        elif style == "nine":
            each.info["virials"] = -stress.ravel() * each.get_volume()
        else:
            each.info[style] = stress
    path = write_crystals(tmp_path / "one.xyz", atoms)
    found = read_ani1x({"DZ": path}, parse_labels({"DZ": "EFS"}))[0]
    for k, each in enumerate(atoms):
        expected = labels_of(each, DZ)[2]
        np.testing.assert_allclose(found.stress[DZ.id][k] * EV_PER_HARTREE, expected, atol=1e-6)


def test_molecules_and_crystals_are_in_one_file(tmp_path):
    molecule = crystals(1)[0]
    molecule.pbc = False
    path = write_crystals(tmp_path / "both.xyz", label([*crystals(2), molecule]))
    found = read(path)
    assert found.pbc.all(axis=1).tolist() == [True, True, False]
    assert np.isnan(found.stress[DZ.id][2]).all()
    assert np.isfinite(found.stress[DZ.id][:2]).all()


def test_a_right_stress_is_proved_by_strained_cells(tmp_path):
    path = write_crystals(tmp_path / "right.xyz", label(crystals()))
    found = report(path)
    assert outcome(found, "stress").verdict == "passed"
    assert outcome(found, "stress").values["slope"] == pytest.approx(1, abs=0.05)
    found.refuse()


def test_right_forces_are_proved_by_crystals_in_one_cell(tmp_path):
    path = write_crystals(tmp_path / "right.xyz", label(crystals(strain=0.0, shake=0.02)))
    found = outcome(report(path), "forces")
    assert found.verdict == "passed"
    assert found.values["slope"] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        (-1.0, "opposite sign"),
        (-1 / (0.1 * units.GPa), "in kbar.*opposite sign"),
        (1 / units.GPa, "in GPa"),
        (units.Bohr**3 / units.Hartree, "in hartree/bohr³"),
        (1e-3, "is not V⁻¹ dE/dε"),
        (-1e-5, "is not V⁻¹ dE/dε"),
        (1e3, "is not V⁻¹ dE/dε"),
    ],
)
def test_a_stress_in_another_unit_or_sign_is_refused(tmp_path, factor, said):
    path = write_crystals(tmp_path / "wrong.xyz", label(crystals(), stress_factor=factor))
    with pytest.raises(UserError, match=said):
        report(path).refuse()


def test_a_stress_of_hdf5_is_in_hartree(tmp_path):
    path = write_crystals(tmp_path / "a.xyz", label(crystals()))
    convert_data(path, tmp_path / "a.h5")
    assert outcome(report(tmp_path / "a.h5"), "stress").verdict == "passed"
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        for group in file.values():
            group["wb97x_dz.stress"][...] *= EV_PER_HARTREE
    with pytest.raises(UserError, match="in eV/Å³; convert it to hartree/Å³"):
        report(tmp_path / "a.h5").refuse()


def test_forces_of_the_wrong_sign_are_refused_by_crystals_alone(tmp_path):
    same_cell = crystals(40, strain=0.0, shake=0.05)
    path = write_crystals(tmp_path / "wrong.xyz", label(same_cell, force_factor=-1.0))
    with pytest.raises(UserError, match="wrong sign"):
        report(path).refuse()


def test_a_stress_without_strained_cells_is_said_to_be_unproved(tmp_path):
    path = write_crystals(tmp_path / "a.xyz", label(crystals(30, strain=0.0)))
    found = outcome(report(path), "stress")
    assert found.verdict == "undecided"
    assert "not proved" in found.text


def test_conversion_there_and_back_loses_nothing(tmp_path):
    molecule = crystals(1, seed=5)[0]
    molecule.pbc = False
    slab = crystals(1, seed=6)[0]
    slab.pbc = (True, True, False)
    labelled = label([*crystals(3), molecule, slab])
    path = write_crystals(tmp_path / "a.xyz", labelled)
    convert_data(path, tmp_path / "a.h5")
    convert_data(tmp_path / "a.h5", tmp_path / "b.xyz")
    back = ase.io.read(tmp_path / "b.xyz", ":")
    assert len(back) == len(labelled)
    for one, two in zip(labelled, back, strict=True):
        assert (one.pbc == two.pbc).all()
        kept = one.cell.array[one.pbc]
        np.testing.assert_allclose(kept, two.cell.array[two.pbc], atol=1e-8)
        assert (f"stress_{DZ.id}" in one.info) == (f"stress_{DZ.id}" in two.info)
        if one.pbc.all():
            np.testing.assert_allclose(
                one.info[f"stress_{DZ.id}"], two.info[f"stress_{DZ.id}"], atol=1e-8
            )


def turned(atoms: Atoms, seed: int = 0) -> Atoms:
    """The same crystal: turned, moved, wrapped, in another cell and order."""
    generator = np.random.default_rng(seed)
    turn = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    order = generator.permutation(len(atoms))
    cell = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1]]) @ atoms.cell.array
    copy = Atoms(atoms.numbers[order], atoms.positions[order], cell=cell, pbc=True)
    copy.translate([0.3, 0.2, 0.7])
    copy.wrap()
    return Atoms(copy.numbers, copy.positions @ turn, cell=copy.cell.array @ turn, pbc=True)


def test_copies_of_crystals_are_found_however_they_are_written(tmp_path):
    atoms = crystals(4)
    others = [turned(atoms[1]), atoms[2].copy()]
    others[1].positions += 0.1
    energies = [
        [labels_of(each, DZ)[0] for each in atoms],
        [labels_of(atoms[1], DZ)[0], labels_of(atoms[2], DZ)[0]],
    ]
    for each, energy in zip([*atoms, *others], itertools.chain(*energies), strict=True):
        each.info["energy_DZ"] = energy
    path = tmp_path / "copies.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("C8")
        every = [*atoms, *others]
        group["atomic_numbers"] = np.full(8, 6)
        group["coordinates"] = np.stack([each.positions for each in every])
        group["cell"] = np.stack([each.cell.array for each in every])
        group["wb97x_dz.energy"] = np.array([e.info["energy_DZ"] for e in every]) / EV_PER_HARTREE
    structures = read(path, parse_labels({"DZ": "E"}))
    assert find_copies(structures).tolist() == [0, 1, 2, 3, 1, 2]
    assert join_copies(structures).n_copies == 2


def test_crystals_that_differ_are_no_copies(tmp_path):
    one = crystals(1)[0]
    stretched = one.copy()
    shear = np.eye(3)
    shear[0, 1] = shear[1, 0] = 2e-3
    stretched.set_cell(one.cell.array @ shear, scale_atoms=True)
    moved = one.copy()
    moved.positions[0, 0] += 1e-3
    molecule = one.copy()
    molecule.pbc = False
    wide = one.copy()
    wide.set_cell(one.cell.array * 1.01)
    path = write_crystals(tmp_path / "a.xyz", label([one, stretched, moved, molecule, wide]))
    assert find_copies(read(path)).tolist() == [0, 1, 2, 3, 4]


def test_levels_are_merged_by_crystals(tmp_path):
    atoms = crystals(5)
    shifted = [each.copy() for each in atoms]
    for each in shifted:
        each.positions += 0.2
        each.wrap()
    for level, structures in ((DZ, atoms), (CC, shifted)):
        labelled = label(structures, (level,))
        write_crystals(tmp_path / f"{level.label}.xyz", labelled)
    source = {"DZ": tmp_path / "DZ.xyz", "CC": tmp_path / "CC.xyz"}
    found = read_ani1x(source, parse_labels({"DZ": "EFS", "CC": "EFS"}))[0]
    assert len(found) == 5
    for k, each in enumerate(atoms):
        np.testing.assert_allclose(
            found.stress[CC.id][k] * EV_PER_HARTREE, labels_of(each, CC)[2], atol=1e-7
        )
        np.testing.assert_allclose(
            found.forces[CC.id][k] * EV_PER_HARTREE, labels_of(each, CC)[1], atol=1e-5
        )


def test_forces_of_a_turned_copy_are_refused(tmp_path):
    atoms = crystals(3)
    write_crystals(tmp_path / "DZ.xyz", label(atoms, (DZ,)))
    write_crystals(tmp_path / "CC.xyz", label([turned(atoms[0]), *atoms[1:]], (CC,)))
    source = {"DZ": tmp_path / "DZ.xyz", "CC": tmp_path / "CC.xyz"}
    with pytest.raises(UserError, match="in another cell, orientation or order of atoms"):
        read_ani1x(source, parse_labels({"DZ": "EFS", "CC": "EFS"}))


def test_splits_of_crystals_hold_cells_and_their_labels(tmp_path):
    molecule = crystals(1, seed=9)[0]
    molecule.pbc = False
    path = write_crystals(tmp_path / "a.xyz", label([*crystals(40), molecule]))
    parts = load_splits(path, LABELS, common_levels=(DZ, CC), rows="all", split_seed=0)
    assert sum(len(part) for part in parts.values()) == 41
    for part in parts.values():
        assert part.cells.shape == (len(part), 3, 3)
    assert set(parts["train"].stress) == {DZ.id}
    assert set(parts["test"].stress) == {DZ.id, CC.id}


def test_a_molecule_in_a_box_is_a_molecule(tmp_path, caplog):
    far = crystals(1)[0]
    near = far.copy()
    far.set_cell(30 * np.eye(3))
    path = write_crystals(tmp_path / "a.xyz", label([far, near]))
    found = without_lonely_cells({"all": read(path)}, 6.5, path)["all"]
    assert found.pbc.all(axis=1).tolist() == [False, True]
    assert np.isnan(found.stress[DZ.id][0]).all()
    assert "1 structures have a cell and no image within 6.5 Å" in caplog.text
    alone = without_lonely_cells({"all": read(path)[:1]}, 6.5, path)["all"]
    assert alone.cells is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cell": np.diag([3.0, 3.0, 0.0])}, "without a cell vector"),
        ({"cell": np.diag([3.0, 3.0, 0.1])}, "flat"),
        ({"cell": np.diag([3.0, -3.0, 3.0])}, "left-handed"),
        ({"pbc": (True, True, False)}, "not periodic along all three axes"),
        ({"stress": np.arange(9.0).reshape(3, 3)}, "not symmetric"),
        ({"stress": np.arange(5.0)}, "3 × 3 numbers"),
    ],
)
def test_wrong_cells_and_stress_are_one_message(tmp_path, change, message):
    (atoms,) = label(crystals(1))
    if "cell" in change:
        atoms.cell[:] = change["cell"]
    if "pbc" in change:
        atoms.pbc = change["pbc"]
    if "stress" in change:
        atoms.info[f"stress_{DZ.id}"] = change["stress"]
    path = write_crystals(tmp_path / "wrong.xyz", [atoms])
    with pytest.raises(UserError, match=f"wrong.xyz, structure 1.*{message}"):
        read(path)


def test_hdf5_with_pbc_and_no_cell_is_refused(tmp_path):
    path = write_crystals(tmp_path / "a.xyz", label(crystals(2)))
    convert_data(path, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        for group in file.values():
            del group["cell"]
            group["pbc"] = True
    with pytest.raises(UserError, match="there is no dataset cell"):
        read(tmp_path / "a.h5")
