"""Conversion there and back loses nothing, and what has no place is refused."""

import shutil

import h5py
import made_xyz
import numpy as np
import planted
import pytest
from ase import units
from ase.io import read
from made_runs import exit_code, files_below

from hippynn_mf.data.convert import convert_data
from hippynn_mf.data.embedded import MINI_ANI1X
from hippynn_mf.data.formats.ani1x import labels_in_file, read_ani1x
from hippynn_mf.data.formats.extxyz_keys import extxyz_key
from hippynn_mf.data.info import describe_file
from hippynn_mf.errors import UserError
from hippynn_mf.levels import MP2

HOLES = {
    "CH4": {"ccsd(t)_cbs.energy": slice(5, 25), "hf_tz.energy": slice(20, 30)},
    "H2O": {"wb97x_tz.forces": slice(0, 30), "mp2_tz.corr_energy": slice(3, 7)},
    "N2": dict.fromkeys((*planted.ANI1X_ENERGIES, *planted.ANI1X_FORCES), slice(0, 4)),
}


@pytest.fixture
def holey_file(tmp_path):
    return planted.write_ani1x(tmp_path / "holey.h5", missing=HOLES)


def datasets(path):
    with h5py.File(path) as file:
        return {(name, key): file[name][key][()] for name in file for key in file[name]}


def assert_same_datasets(path, other):
    """Equal to the tolerances of the issue, NaN in the same places, and floats of the same size."""
    one, two = datasets(path), datasets(other)
    assert one.keys() == two.keys()
    for place, expected in one.items():
        found = two[place]
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape), place
        if expected.dtype == np.float64:
            atol = 1e-9 / units.Hartree
            np.testing.assert_allclose(found, expected, rtol=0, atol=atol, err_msg=str(place))
        else:  # bit by bit
            np.testing.assert_array_equal(found, expected, err_msg=str(place))


def assert_same_structures(found, expected):
    """Atoms as ASE reads them: energies to 1e-9 eV, all that belongs to atoms to 1e-8."""
    assert len(found) == len(expected)
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.numbers, two.numbers)
        assert one.info.keys() == two.info.keys()
        assert one.arrays.keys() == two.arrays.keys()
        for name, value in two.info.items():
            assert one.info[name] == pytest.approx(value, rel=0, abs=1e-9), name
        for name, values in two.arrays.items():
            np.testing.assert_allclose(one.arrays[name], values, rtol=0, atol=1e-8, err_msg=name)


def by_group(structures):
    """In the order of a converted file: groups by name, in each the order of the file."""
    return sorted(structures, key=lambda atoms: atoms.get_chemical_formula(mode="hill"))


def test_hdf5_comes_back_from_extended_xyz(tmp_path, holey_file):
    convert_data(holey_file, tmp_path / "a.xyz")
    notes = convert_data(tmp_path / "a.xyz", tmp_path / "back.h5")
    assert notes == [f"{tmp_path / 'a.xyz'}: 200 structures"]
    assert_same_datasets(holey_file, tmp_path / "back.h5")


def test_the_embedded_data_come_back_but_for_what_is_named(tmp_path):
    arrays = datasets(MINI_ANI1X)
    keys = {key for _, key in arrays} - {"atomic_numbers", "coordinates"}
    others = sorted(key for key in keys if extxyz_key(key) is None)
    assert "sample" in others
    with pytest.raises(UserError, match=rf"No place for the datasets {', '.join(others)}\. Leave"):
        convert_data(MINI_ANI1X, tmp_path / "a.xyz")
    assert not files_below(tmp_path)
    notes = convert_data(MINI_ANI1X, tmp_path / "a.xyz", drop_others=True)
    assert notes[1:] == [f"not carried over: {', '.join(others)}"]
    convert_data(tmp_path / "a.xyz", tmp_path / "back.h5")
    shutil.copy(MINI_ANI1X, tmp_path / "expected.h5")
    with h5py.File(tmp_path / "expected.h5", "r+") as file:
        # An absent key stands for NaN, so of what is NaN throughout nothing is left.
        nothing = {
            key
            for key in keys - set(others)
            if all(np.isnan(values).all() for (_, of), values in arrays.items() if of == key)
        }
        for group in file.values():
            for key in nothing | set(others):
                del group[key]
        # Two of CO have one bond length to 1.5e-5 Å: one conformer, where structures are joined.
        bonds = np.linalg.norm(np.diff(file["CO/coordinates"][()].astype(float), axis=1), axis=2)
        apart = np.abs(bonds - bonds.T)
        (copy,) = np.nonzero((np.tril(apart < 1.6e-5, -1)).any(axis=1))[0]
        for key in set(file["CO"]) - {"atomic_numbers"}:
            kept = np.delete(file["CO"][key][()], copy, axis=0)
            del file["CO"][key]
            file["CO"][key] = kept
    assert_same_datasets(tmp_path / "expected.h5", tmp_path / "back.h5")


def test_ase_reads_what_is_written_with_the_right_units_and_missing_keys(tmp_path, holey_file):
    convert_data(holey_file, tmp_path / "a.xyz")
    structures = read(tmp_path / "a.xyz", index=":", format="extxyz")
    assert len(structures) == 200
    with h5py.File(holey_file) as file:
        names = [name for name in file for _ in range(40)]
        for place, (name, atoms) in enumerate(zip(names, structures, strict=True)):
            group, row = file[name], place % 40
            assert not atoms.pbc.any()
            np.testing.assert_array_equal(atoms.numbers, group["atomic_numbers"])
            np.testing.assert_allclose(atoms.positions, group["coordinates"][row], atol=1e-8)
            expected = {
                "energy_wb97x_dz": group["wb97x_dz.energy"][row],
                "energy_wb97x_tz": group["wb97x_tz.energy"][row],
                "energy_hf_tz": group["hf_tz.energy"][row],
                "corr_energy_mp2_tz": group["mp2_tz.corr_energy"][row],
                "energy_mp2_tz": group["hf_tz.energy"][row] + group["mp2_tz.corr_energy"][row],
                "energy_ccsd(t)_cbs": group["ccsd(t)_cbs.energy"][row],
            }
            expected = {key: v * units.Hartree for key, v in expected.items() if np.isfinite(v)}
            assert atoms.info == pytest.approx(expected, rel=0, abs=1e-9)
            for key in ("forces_wb97x_dz", "forces_wb97x_tz"):
                values = group[key.removeprefix("forces_") + ".forces"][row]
                assert (key in atoms.arrays) == np.isfinite(values).all()
                if key in atoms.arrays:
                    expected_forces = values.astype(float) * units.Hartree
                    np.testing.assert_allclose(atoms.arrays[key], expected_forces, atol=1e-8)


def test_extended_xyz_comes_back_from_hdf5(tmp_path):
    """Positions with 8 decimals, which float32 does not hold; labels missing here and there."""
    structures = made_xyz.label(made_xyz.molecules(15))
    for place, atoms in enumerate(structures):
        if place % 3 == 0:
            del atoms.info["energy_ccsd(t)_cbs"]
        if place % 4 == 0:
            del atoms.arrays["forces_wb97x_tz"]
    np.random.default_rng(0).shuffle(structures)
    path = made_xyz.save(tmp_path / "a.xyz", structures)
    convert_data(path, tmp_path / "a.h5")
    convert_data(tmp_path / "a.h5", tmp_path / "back.xyz")
    back = read(tmp_path / "back.xyz", index=":", format="extxyz")
    assert_same_structures(back, by_group(read(path, index=":", format="extxyz")))


def test_digits_that_ase_does_not_write_are_kept(tmp_path):
    path = planted.write_ani1x(tmp_path / "a.h5", {"N2": 9})
    tiny = np.random.default_rng(0).normal(scale=1e-4, size=(9, 2, 3)).astype("f4")
    planted.replace(path, "N2", "wb97x_dz.forces", tiny)
    tiny[:, 1, 2] += np.linspace(1, 1.2, 9, dtype="f4")  # else all would be one conformer
    planted.replace(path, "N2", "coordinates", tiny)
    convert_data(path, tmp_path / "a.xyz")
    convert_data(tmp_path / "a.xyz", tmp_path / "back.h5")
    assert_same_datasets(path, tmp_path / "back.h5")


def test_the_sum_of_a_level_is_kept_where_its_parts_are_not_known(tmp_path):
    structures = made_xyz.label(made_xyz.molecules(6))
    path = made_xyz.save(tmp_path / "a.xyz", structures)
    convert_data(path, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert "mp2_tz.energy" in file["H2O"]
        assert "hf_tz.energy" not in file["H2O"]
    labels = labels_in_file(tmp_path / "a.h5")
    assert [level.label for level in labels] == ["DZ", "TZ", "MP2", "CC"]
    read_back, _ = read_ani1x(tmp_path / "a.h5", {MP2: labels[MP2]})
    expected = [made_xyz.energy(atoms, ("hf_tz", "mp2_tz")) for atoms in by_group(structures)]
    energies = read_back.energies["mp2_tz"] * units.Hartree
    np.testing.assert_allclose(energies, expected, rtol=0, atol=1e-9)


def test_a_sum_and_parts_in_different_structures_are_both_read(tmp_path):
    parts = {"energy_hf_tz": ("hf_tz",), "corr_energy_mp2_tz": ("mp2_tz",)}
    waters = made_xyz.molecules(6, names=["H2O"])
    structures = made_xyz.label(waters[:2], parts, {})
    structures += made_xyz.label(waters[2:4], {"energy_MP2": ("hf_tz", "mp2_tz")}, {})
    structures += made_xyz.label(waters[4:], {**parts, "energy_MP2": ("hf_tz", "mp2_tz")}, {})
    path = made_xyz.save(tmp_path / "a.xyz", structures)
    convert_data(path, tmp_path / "a.h5")
    expected = [made_xyz.energy(atoms, ("hf_tz", "mp2_tz")) for atoms in waters]
    for source in (path, tmp_path / "a.h5"):
        assert describe_file(source)["levels"]["mp2_tz"]["energy"] == 6
        found, _ = read_ani1x(source, {MP2: labels_in_file(source)[MP2]})
        energies = found.energies["mp2_tz"] * units.Hartree
        np.testing.assert_allclose(energies, expected, rtol=0, atol=1e-9)


def test_a_sum_that_contradicts_its_parts_is_refused(tmp_path):
    names = {**made_xyz.ENERGIES, "energy_hf_tz": ("hf_tz",), "corr_energy_mp2_tz": ("mp2_tz",)}
    structures = made_xyz.label(made_xyz.molecules(2), names)
    structures[3].info["energy_mp2_tz"] += 0.01
    path = made_xyz.save(tmp_path / "a.xyz", structures)
    message = r"structure 4: the energy of mp2_tz is not the sum of hf_tz.energy and .* 0.01 eV"
    with pytest.raises(UserError, match=message):
        convert_data(path, tmp_path / "a.h5")
    assert not (tmp_path / "a.h5").exists()


def test_groups_with_other_names_than_their_formulas_come_back(tmp_path):
    path = planted.write_ani1x(tmp_path / "a.h5", {"H2O": 3, "CH4": 2})
    with h5py.File(path, "r+") as file:
        file.move("H2O", "water")
        file["oxidane"] = file["water"]
        file.copy("water", "Z")
        del file["oxidane"]
        file["Z/coordinates"][...] = 1.05 * file["Z/coordinates"][()]  # other conformers
    convert_data(path, tmp_path / "a.xyz")
    convert_data(tmp_path / "a.xyz", tmp_path / "back.h5")
    assert_same_datasets(path, tmp_path / "back.h5")


def test_the_same_atoms_in_another_order_are_a_group_of_their_own(tmp_path):
    waters = made_xyz.label(made_xyz.molecules(6, names=["H2O"]), columns={})
    structures = [atoms[[1, 0, 2]] if place % 2 else atoms for place, atoms in enumerate(waters)]
    path = made_xyz.save(tmp_path / "a.xyz", structures)
    convert_data(path, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert {name: file[name]["atomic_numbers"][()].tolist() for name in file} == {
            "H2O": [8, 1, 1],
            "H2O_2": [1, 8, 1],
        }
        for name, start in (("H2O", 0), ("H2O_2", 1)):
            expected = np.stack([atoms.positions for atoms in structures[start::2]])
            np.testing.assert_allclose(file[name]["coordinates"], expected, rtol=0, atol=1e-12)


def test_one_file_for_each_level_becomes_one(tmp_path):
    structures = made_xyz.molecules(5)
    dz = made_xyz.save(tmp_path / "dz.xyz", made_xyz.label_mace(structures, "wb97x_dz"))
    high = made_xyz.label_mace(structures[::2], "ccsd(t)_cbs", with_forces=False)
    cc = made_xyz.save(tmp_path / "cc.xyz", high)
    assert exit_code("data", "convert", f"CC={cc}", f"DZ={dz}", tmp_path / "a.h5") == 0
    info = describe_file(tmp_path / "a.h5")
    assert info["n_structures"] == 25
    assert info["overlap"] == {"wb97x_dz & ccsd(t)_cbs": 13}
    assert info["levels"]["wb97x_dz"]["forces"] == 25


# What is refused.


def test_other_keys_are_refused_and_named_or_left_out(tmp_path):
    structures = made_xyz.label(made_xyz.molecules(2))
    structures[0].info |= {"REF_energy": -1.0, "config_type": "md"}
    path = made_xyz.save(tmp_path / "a.xyz", structures)
    message = r"no place for REF_energy \(1 structures\), config_type \(1 structures\)\. .*--drop"
    with pytest.raises(UserError, match=message):
        convert_data(path, tmp_path / "a.h5")
    assert not (tmp_path / "a.h5").exists()
    notes = convert_data(path, tmp_path / "a.h5", drop_others=True)
    assert notes == [f"{path}: 10 structures; not used: REF_energy, config_type"]


def test_forces_with_a_hole_are_refused_or_left_out(tmp_path, ani1x_file):
    with h5py.File(ani1x_file, "r+") as file:
        file["CH4/wb97x_dz.forces"][7, 2] = np.nan
    with pytest.raises(UserError, match=r"1 forces are NaN for some atoms only.*--drop-others"):
        convert_data(ani1x_file, tmp_path / "a.xyz")
    notes = convert_data(ani1x_file, tmp_path / "a.xyz", drop_others=True)
    assert notes[1:] == ["not carried over: 1 forces that are NaN for some atoms"]
    structures = read(tmp_path / "a.xyz", index=":", format="extxyz")
    assert sum("forces_wb97x_dz" not in atoms.arrays for atoms in structures) == 1


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("coordinates", np.nan, "group CH4: NaN or infinite coordinates"),
        ("wb97x_tz.forces", np.inf, "group /?CH4: 1 infinite values in wb97x_tz.forces"),
        ("ccsd(t)_cbs.energy", -np.inf, "group /?CH4: 1 infinite values in ccsd"),
    ],
)
def test_damaged_values_are_refused(tmp_path, ani1x_file, key, value, message):
    with h5py.File(ani1x_file, "r+") as file:
        file["CH4"][key][(3,) if "energy" in key else (3, 1, 2)] = value
    with pytest.raises(UserError, match=message):
        convert_data(ani1x_file, tmp_path / "a.xyz")
    assert set(files_below(tmp_path)) == {"planted.h5"}


@pytest.mark.parametrize(("factor", "shift"), [(1 / units.Hartree, 0), (1, 2040.0 * 3)])
def test_energies_that_are_no_total_energies_in_ev_are_refused(tmp_path, factor, shift):
    """In hartree, and without the energies of atoms; the fit of atomic energies would hide both."""
    structures = made_xyz.label(made_xyz.molecules(4, names=["H2O"]))
    for atoms in structures:
        atoms.info["energy_ccsd(t)_cbs"] = atoms.info["energy_ccsd(t)_cbs"] * factor + shift
    path = made_xyz.save(tmp_path / "a.xyz", structures)
    message = r"The energies of level ccsd\(t\)_cbs \(CC\) are no total energies in eV"
    with pytest.raises(UserError, match=message):
        convert_data(path, tmp_path / "a.h5")


def test_what_is_there_is_replaced_only_by_force_and_only_when_complete(tmp_path, ani1x_file):
    out = tmp_path / "a.xyz"
    out.write_text("mine")
    with pytest.raises(UserError, match=r"a.xyz exists.*--force"):
        convert_data(ani1x_file, out)
    with h5py.File(ani1x_file, "r+") as file:
        file["N2/coordinates"][5] = np.nan  # found after other groups have been written
    with pytest.raises(UserError, match="group N2"):
        convert_data(ani1x_file, out, force=True)
    assert out.read_text() == "mine"
    assert set(files_below(tmp_path)) == {"a.xyz", "planted.h5"}


@pytest.mark.parametrize(
    ("source", "out", "message"),
    [
        ("a.h5", "b.txt", r"b.txt: the suffix does not tell the format"),
        ("a.dat", "b.h5", r"same format"),
        ("a.h5", "b.hdf5", r"same format"),
        ("a.xyz", "b.extxyz", r"same format"),
        ("a.h5", "absent/b.xyz", r"No folder .*absent"),
        ("absent.h5", "b.xyz", r"No file .*absent.h5"),
        ("absent.xyz", "b.h5", r"No file .*absent.xyz"),
    ],
)
def test_names_that_say_nothing_are_refused(tmp_path, capsys, source, out, message):
    planted.write_ani1x(tmp_path / "a.h5", 2)
    shutil.copy(tmp_path / "a.h5", tmp_path / "a.dat")
    made_xyz.save(tmp_path / "a.xyz", made_xyz.label(made_xyz.molecules(2)))
    before = files_below(tmp_path)
    with pytest.raises(UserError, match=message):
        convert_data(tmp_path / source, tmp_path / out)
    assert exit_code("data", "convert", tmp_path / source, tmp_path / out) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert files_below(tmp_path) == before


def test_the_command_says_what_it_has_done(tmp_path, capsys, ani1x_file):
    out = tmp_path / "a.xyz"
    assert exit_code("data", "convert", ani1x_file, out) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{ani1x_file}: 200 structures in 5 groups", str(out)]
    assert exit_code("data", "convert", ani1x_file, out) == 2
    assert exit_code("data", "convert", ani1x_file, out, "--force") == 0


@pytest.mark.parametrize(
    ("plant", "option"),
    [("outliers", "--accept-outliers"), ("charges", "--accept-charged")],
)
@pytest.mark.parametrize("suffix", [".h5", ".xyz"])
def test_converting_refuses_what_training_refuses(
    tmp_path, capsys, ani1x_file, plant, option, suffix
):
    """Either way, and says what is taken along by the option."""
    if plant == "outliers":
        with h5py.File(ani1x_file, "r+") as file:
            file["CH4"]["wb97x_dz.energy"][3:6] -= 1.0
    else:
        planted.replace(ani1x_file, "CH4", "charge", np.ones(40))
    source = ani1x_file
    if suffix == ".h5":
        source = tmp_path / "source.xyz"
        assert exit_code("data", "convert", ani1x_file, source, option) == 0
    out = tmp_path / f"out{suffix}"
    capsys.readouterr()
    assert exit_code("data", "convert", source, out) == 2
    error = capsys.readouterr().err
    assert option in " ".join(error.split())
    assert not out.exists()
    other = {"--accept-outliers", "--accept-charged"} - {option}
    assert exit_code("data", "convert", source, out, *other) == 2
    assert exit_code("data", "convert", source, out, option) == 0
    said = capsys.readouterr().out
    assert {"outliers": "stand out", "charges": "charge of group"}[plant] in said
    assert out.exists()


def test_files_and_levels_are_not_mixed(tmp_path, capsys):
    assert exit_code("data", "convert", "a.xyz", "CC=b.xyz", tmp_path / "a.h5") == 2
    assert "One file, or LEVEL=FILE for each level" in capsys.readouterr().err
