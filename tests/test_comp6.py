import json

import h5py
import numpy as np
import pytest
from planted import (
    AMMONIA,
    MOLECULES,
    conformers,
    energy,
    forces,
    numbers_of,
    replace,
    write_ani1x,
    write_comp6,
)

from hippynn_mf.data.formats.comp6 import PUBLIC_KEYS, read_comp6, read_key_map
from hippynn_mf.errors import UserError
from hippynn_mf.levels import CC, DZ, MP2

ENERGY_KEYS = {"wb97x_dz": {"energy": "energies"}}


def truth(name, parts, spread=0.08, seed=7, n=6):
    """Positions, energies and forces of a molecule of the planted COMP6 file."""
    numbers = numbers_of(MOLECULES[name][0])
    seed = 1000 * seed + list(MOLECULES).index(name)
    positions = conformers(MOLECULES[name], n, seed, spread)
    return (
        positions,
        sum(energy(numbers, positions, part) for part in parts),
        sum(forces(numbers, positions, part) for part in parts),
    )


def write_key_map(tmp_path, content):
    path = tmp_path / "keys.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_the_public_layout_is_read_as_energies_and_true_forces(comp6_file):
    structures = read_comp6(comp6_file)
    assert len(structures) == 30
    groups = dict(structures.by_group())
    assert list(groups) == sorted(f"planted/{name}" for name in MOLECULES)
    for name, (symbols, _) in MOLECULES.items():
        group = groups[f"planted/{name}"]
        positions, energies, true_forces = truth(name, ["wb97x_dz"])
        n_atoms = len(symbols)
        assert (group.species[:, :n_atoms] == numbers_of(symbols)).all()
        assert not group.species[:, n_atoms:].any()
        np.testing.assert_array_equal(group.positions[:, :n_atoms], positions)
        np.testing.assert_allclose(group.energies["wb97x_dz"], energies, rtol=0, atol=1e-12)
        np.testing.assert_allclose(
            group.forces["wb97x_dz"][:, :n_atoms], true_forces, rtol=1e-6, atol=1e-7
        )
        assert not group.forces["wb97x_dz"][:, n_atoms:].any()
    np.testing.assert_array_equal(structures.rows, np.arange(30))


def test_a_key_map_adds_levels(comp6_file, comp6_keys_file):
    structures = read_comp6(comp6_file, read_key_map(comp6_keys_file))
    assert set(structures.energies) == {DZ.id, MP2.id, CC.id}
    assert set(structures.forces) == {DZ.id, MP2.id}
    for name, group in structures.by_group():
        name = name.removeprefix("planted/")
        n_atoms = len(MOLECULES[name][0])
        for level, parts in ((MP2, ["hf_tz", "mp2_tz"]), (CC, ["ccsd(t)_cbs"])):
            _, energies, true_forces = truth(name, parts)
            np.testing.assert_allclose(group.energies[level.id], energies, rtol=0, atol=1e-12)
            if level is MP2:
                found = group.forces[level.id][:, :n_atoms]
                np.testing.assert_allclose(found, true_forces, rtol=1e-6, atol=1e-6)


def test_a_key_declared_as_forces_keeps_its_sign(comp6_file):
    as_gradient = read_comp6(comp6_file).forces["wb97x_dz"]
    as_forces = read_comp6(comp6_file, {"DZ": {"forces": "forces"}}).forces["wb97x_dz"]
    np.testing.assert_array_equal(as_forces, -as_gradient[:])
    assert np.abs(as_forces).max() > 0.01


def test_levels_are_named_by_label_or_id(comp6_file):
    assert set(read_comp6(comp6_file, {"CC": {"energy": "ccsd(t)_cbs.energy"}}).energies) == {CC.id}


def test_properties_of_other_lengths_are_not_read(comp6_file):
    with h5py.File(comp6_file) as file:
        assert file["planted/H3N/cm5"].shape == (6, len(AMMONIA[0]) + 1)
    replace(comp6_file, "planted/H3N", "cm5", np.full((6, 5), b"x"))
    replace(comp6_file, "planted/H3N", "hirshfeld", np.full((2, 5), np.nan))
    ammonia = dict(read_comp6(comp6_file).by_group())["planted/H3N"]
    assert ammonia.has_energy(DZ).all()
    assert ammonia.has_forces(DZ).all()


def test_only_mapped_keys_are_read(comp6_file):
    for name in MOLECULES:
        replace(comp6_file, f"planted/{name}", "forces", None)
        replace(comp6_file, f"planted/{name}", "mp2_tz.energy", np.full(6, b"x"))
    structures = read_comp6(comp6_file, ENERGY_KEYS)
    assert structures.has_energy(DZ).all()
    assert not structures.forces
    with pytest.raises(UserError, match="Unknown key 'forces'"):
        read_comp6(comp6_file, PUBLIC_KEYS)


def test_missing_labels_are_nan_per_conformer(comp6_file):
    with h5py.File(comp6_file, "r+") as file:
        file["planted/CH4/energies"][1] = np.nan
        file["planted/CH4/forces"][2, 4, 0] = np.nan
    methane = dict(read_comp6(comp6_file).by_group())["planted/CH4"]
    assert np.flatnonzero(~methane.has_energy(DZ)).tolist() == [1]
    assert np.flatnonzero(~methane.has_forces(DZ)).tolist() == [2]
    assert np.isnan(methane.forces[DZ.id][2]).all()


def test_every_file_of_a_folder_is_read_and_molecules_are_kept_apart(tmp_path):
    write_comp6(tmp_path / "b.h5", 2, seed=3)
    write_comp6(tmp_path / "a.h5", 3, seed=4)
    (tmp_path / "notes.txt").write_text("not HDF5")
    structures = read_comp6(tmp_path)
    assert len(structures) == 5 * 3 + 5 * 2
    assert len(np.unique(structures.groups)) == 10
    groups = [group for name, group in structures.by_group() if name == "planted/H2O"]
    assert [len(group) for group in groups] == [3, 2]
    for group, n, seed in zip(groups, (3, 2), (4, 3), strict=True):
        _, energies, _ = truth("H2O", ["wb97x_dz"], seed=seed, n=n)
        np.testing.assert_allclose(group.energies[DZ.id], energies, rtol=0, atol=1e-12)


def test_a_folder_without_files_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no \.h5 files"):
        read_comp6(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"No file .*absent\.h5"):
        read_comp6(tmp_path / "absent.h5")


@pytest.mark.parametrize("key", ["energies", "forces"])
def test_a_key_map_that_contradicts_the_file_is_refused(comp6_file, key):
    keys = {"mp2_tz": {"energy" if key == "energies" else "gradient": key}}
    message = (
        rf"{key} is 'wb97x/6-31g\(d\)' by the file's lot, "
        r"but the key map calls it mp2_tz \(MP2/cc-pVTZ\)"
    )
    with pytest.raises(UserError, match=message):
        read_comp6(comp6_file, keys)


@pytest.mark.parametrize(
    "lot", ["wb97x/6-31g(d)", "ωB97X/6-31G*", "wB97X / 6-31G(d)", "ωb97x/6-31g(d)", None]
)
def test_spellings_of_the_right_level_of_theory_are_accepted(comp6_file, lot):
    for name in MOLECULES:
        values = None if lot is None else np.array([lot.encode()])
        replace(comp6_file, f"planted/{name}", "lot", values)
    assert read_comp6(comp6_file).has_energy(DZ).all()


@pytest.mark.parametrize("lot", ["wb97x/def2-tzvpp", "b97x/6-31g(d)", "wb97x", "mp2/6-31g(d)"])
def test_another_level_of_theory_in_one_molecule_is_refused(comp6_file, lot):
    replace(comp6_file, "planted/N2", "lot", np.array([lot.encode()]))
    with pytest.raises(UserError, match=r"planted/N2: energies is '.*' by the file's lot"):
        read_comp6(comp6_file)


def test_an_ani1x_file_is_recognised(tmp_path):
    path = write_ani1x(tmp_path / "ani1x.h5", 2)
    with pytest.raises(UserError, match=r"one group per molecule.*ANI-1x layout, pass it as --dat"):
        read_comp6(path)


def test_a_file_without_molecules_is_refused(tmp_path):
    path = tmp_path / "flat.h5"
    with h5py.File(path, "w") as file:
        file["energies"] = np.zeros(3)
        file.create_group("empty")
    with pytest.raises(UserError, match=r"no molecules in the COMP6 layout \(group/molecule/speci"):
        read_comp6(path)


@pytest.mark.parametrize("symbol", [b"Q", b"X", b"h", b""])
def test_an_unknown_element_is_named(comp6_file, symbol):
    replace(comp6_file, "planted/H2O", "species", np.array([b"O", b"H", symbol], "S1"))
    message = rf"molecule planted/H2O: unknown elements \['{symbol.decode()}'\]"
    with pytest.raises(UserError, match=message):
        read_comp6(comp6_file)


@pytest.mark.parametrize("key", ["species", "coordinates", "energies", "forces"])
def test_a_missing_key_is_named_with_the_nearest_one(comp6_file, key):
    with h5py.File(comp6_file, "r+") as file:
        file["planted/H3N"].move(key, f"{key}_")
    message = rf"/planted/H3N: Unknown key '{key}'\. Did you mean {key}_"
    with pytest.raises(UserError, match=message):
        read_comp6(comp6_file)


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("coordinates", r"\(6, 4, 3\)"),
        ("energies", r"\(6,\)"),
        ("forces", r"\(6, 4, 3\)"),
    ],
)
def test_a_wrong_shape_is_reported_with_the_right_one(comp6_file, key, shape):
    replace(comp6_file, "planted/H3N", key, np.zeros((6, 5, 3)))
    with pytest.raises(UserError, match=rf"{key} has shape \(6, 5, 3\), expected {shape}"):
        read_comp6(comp6_file)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("coordinates", "NaN or infinite coordinates"),
        ("energies", "1 infinite values in energies"),
        ("forces", "3 infinite values in forces"),
    ],
)
def test_infinite_values_are_refused(comp6_file, key, message):
    with h5py.File(comp6_file, "r+") as file:
        file[f"planted/H3N/{key}"][(2,) if key == "energies" else (2, 0)] = np.inf
    with pytest.raises(UserError, match=rf"planted/H3N: {message}"):
        read_comp6(comp6_file)


def test_an_unknown_level_given_to_the_reader_is_refused(comp6_file):
    with pytest.raises(UserError, match="Unknown level of theory 'wb97x_ds'"):
        read_comp6(comp6_file, {"wb97x_ds": {"energy": "energies"}})


def test_a_key_map_is_returned_as_written(tmp_path):
    content = {"DZ": {"energy": "energies", "gradient": "forces"}, "CC": {"energy": "cc"}}
    assert read_key_map(write_key_map(tmp_path, content)) == content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"DZ": {"energy": ', r"keys\.json is not valid JSON"),
        ('["energies"]', r"keys\.json: expected .*found \['energies'\]"),
        ('{"DZ": "energies"}', r"keys\.json: expected"),
        ('{"DZ": {"energy": 3}}', r"keys\.json: expected"),
        ({"D": {"energy": "energies"}}, "Unknown level of theory 'D'"),
        ({"DZ": {"enregy": "energies"}}, "Unknown property 'enregy'. Did you mean energy"),
        (
            {"DZ": {"gradient": "forces", "forces": "forces"}},
            "level DZ has both a gradient and forces; keep one",
        ),
    ],
    ids=["cut", "list", "flat", "number", "level", "property", "both signs"],
)
def test_a_wrong_key_map_is_refused(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read_key_map(write_key_map(tmp_path, content))


def test_a_key_map_that_names_a_level_twice_is_refused(tmp_path):
    content = {"DZ": {"energy": "energies"}, "wb97x_dz": {"gradient": "forces"}}
    with pytest.raises(UserError, match=r"wb97x_dz \(DZ\) is named twice"):
        read_key_map(write_key_map(tmp_path, content))


def test_a_missing_key_map_is_named(tmp_path):
    with pytest.raises(UserError, match=r"No key map .*absent\.json"):
        read_key_map(tmp_path / "absent.json")


@pytest.mark.parametrize(("key", "value"), [("pbc", True), ("cell", 9.0)])
def test_periodic_molecules_are_refused(comp6_file, key, value):
    with h5py.File(comp6_file, "r+") as file:
        molecule = next(iter(next(iter(file.values())).values()))
        n = len(molecule["coordinates"])
        molecule[key] = np.full(3, value) if key == "pbc" else np.tile(value * np.eye(3), (n, 1, 1))
    with pytest.raises(UserError, match=rf"periodic \({key}\)"):
        read_comp6(comp6_file)
