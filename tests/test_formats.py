"""Formats of others: labels, signs and units as planted, and one clear error for what is wrong."""

from __future__ import annotations

import gzip
import pickle
import shutil
import sys

import h5py
import made_formats
import numpy as np
import pytest
from ase import units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import read, write
from ase.io.trajectory import Trajectory
from made_runs import exit_code

from hippynn_mf.data.checks.report import Accepted
from hippynn_mf.data.convert import convert_data
from hippynn_mf.data.formats.ani1x import read_ani1x
from hippynn_mf.data.formats.sources import (
    format_name,
    has_frames,
    open_data,
    read_frames,
    with_declared,
)
from hippynn_mf.data.info import describe_file, format_description
from hippynn_mf.data.loading import file_hash
from hippynn_mf.errors import UserError
from hippynn_mf.labels import parse_labels

DZ_EF = parse_labels({"DZ": "EF"})
ENERGY, FORCES = "wb97x_dz.energy", "wb97x_dz.forces"
# Name of a file, its writer, its format in words, number of structures, what is declared.
FILES = {
    "xyz": ("a.xyz", made_formats.write_xyz, "extended XYZ", 24, {}),
    "packed": ("a.xyz.gz", made_formats.write_packed, "extended XYZ", 24, {}),
    "trajectory": ("a.traj", made_formats.write_trajectory, "ASE", 24, {}),
    "database": ("a.db", made_formats.write_database, "ASE", 24, {}),
    "sgdml": ("a.npz", made_formats.write_sgdml, "numpy", 12, {}),
    "rmd17": ("a.npz", made_formats.write_rmd17, "numpy", 12, {"energy": "kcal/mol"}),
    "physnet": ("a.npz", made_formats.write_physnet, "numpy", 24, {}),
    "deepmd": ("system", made_formats.write_deepmd, "DeePMD", 24, {}),
    "spice": ("a.hdf5", made_formats.write_spice, "SPICE", 24, {}),
    "transition1x": ("a.h5", made_formats.write_transition1x, "Transition1x", 24, {}),
    "comp6": ("a.h5", made_formats.write_comp6, "COMP6", 24, {}),
}


def source_of(tmp_path, name):
    file_name, write, _, _, said = FILES[name]
    return with_declared({"DZ": write(tmp_path / file_name)}, units=said)


@pytest.mark.parametrize("name", FILES)
def test_labels_of_every_format_are_those_that_were_planted(tmp_path, name):
    source = source_of(tmp_path, name)
    read = read_frames(source)
    assert len(read.frames) == FILES[name][3]
    for frame in read.frames:
        energies, forces = made_formats.labels(frame.numbers, frame.positions[None])
        assert frame.energies[ENERGY] == pytest.approx(energies[0], abs=2e-6)
        np.testing.assert_allclose(frame.forces[FORCES], forces[0], atol=2e-6)
    assert FILES[name][2] in format_name(source)


@pytest.mark.parametrize("name", FILES)
def test_every_format_is_described_and_converted_both_ways(tmp_path, name, capsys):
    source = source_of(tmp_path, name)
    info = describe_file(source)
    assert info["levels"]["wb97x_dz"]["energy"] == FILES[name][3]
    assert info["levels"]["wb97x_dz"]["force_check"]["verdict"] != "refused"
    assert FILES[name][2] in format_description(info).splitlines()[1]
    first, _ = read_ani1x(source, DZ_EF)
    for suffix in ("h5", "xyz", "xyz.gz", "npz"):
        out = tmp_path / f"out.{suffix}"
        convert_data(source, out, drop_others=True)
        same, _ = read_ani1x(out, DZ_EF)
        order = [np.lexsort(each.energies["wb97x_dz"][None]) for each in (first, same)]
        one, two = first[order[0]], same[order[1]]
        np.testing.assert_allclose(one.energies["wb97x_dz"], two.energies["wb97x_dz"], rtol=1e-14)
        np.testing.assert_allclose(one.positions, two.positions, atol=1e-6)
        np.testing.assert_allclose(one.forces["wb97x_dz"], two.forces["wb97x_dz"], atol=1e-6)


def test_a_packed_file_can_be_read_by_ase(tmp_path, ani1x_file):
    convert_data(ani1x_file, tmp_path / "out.xyz.gz")
    assert len(read(tmp_path / "out.xyz.gz", index=":")) == 200


def test_files_of_two_formats_are_matched(tmp_path):
    files = {"DZ": made_formats.write_sgdml(tmp_path / "dz.npz")}
    files["TZ"] = made_formats.write_deepmd(tmp_path / "tz", names=("H2O",))
    read = read_frames(files)
    assert len(read.frames) == 12  # the same conformers, each with labels of both
    assert all({ENERGY, "wb97x_tz.energy"} <= set(frame.energies) for frame in read.frames)


def test_the_hash_of_a_folder_changes_with_every_file(tmp_path):
    path = made_formats.write_deepmd(tmp_path / "a")
    hashes = {file_hash(path)}
    (path / "H2O" / "set.000" / "energy.npy").write_bytes(b"other")
    hashes.add(file_hash(path))
    (path / "H2O" / "nopbc").unlink()
    hashes.add(file_hash(path))
    assert len(hashes) == 3


def test_a_folder_is_read_again_when_a_file_in_it_has_changed(tmp_path):
    path = made_formats.write_deepmd(tmp_path / "a", names=("H2O",))
    source = {"DZ": path}
    with open_data(source) as file:
        before = file["H2O"][ENERGY][()]
    energies = path / "H2O" / "set.000" / "energy.npy"
    np.save(energies, np.load(energies).astype(np.float64) + 1e-3 * np.arange(5) + 1)
    with open_data(source) as file:
        assert not np.allclose(before, file["H2O"][ENERGY][()], rtol=0, atol=1e-3)


# Units.


def test_npz_without_a_unit_is_refused_and_declared(tmp_path):
    path = made_formats.write_rmd17(tmp_path / "a.npz")
    with pytest.raises(UserError, match=r"does not say in which unit.*--units energy=kcal/mol"):
        read_frames({"DZ": path})


@pytest.mark.parametrize("number", [0, 119, 255])
def test_a_number_of_no_element_in_a_database_is_refused(tmp_path, number):
    atoms = made_formats.structures(1)[0]
    atoms.numbers[0] = number
    with Trajectory(tmp_path / "a.traj", "w") as trajectory:
        trajectory.write(atoms)
    with pytest.raises(UserError, match=r"structure 1 has (the atomic number|atoms without)"):
        read_frames({"DZ": tmp_path / "a.traj"})


@pytest.mark.parametrize(
    ("name", "said", "declared"),
    [("r_unit", "nm", "positions=Å"), ("e_unit", "cal/mol", "energy=kcal/mol")],
)
def test_a_unit_of_npz_that_is_not_known_is_refused(tmp_path, name, said, declared):
    path = made_formats.write_sgdml(tmp_path / "a.npz", **{name: np.array(said)})
    with pytest.raises(UserError, match=f"{name} is '{said}', which is not known") as raised:
        read_frames({"DZ": path})
    assert f"--units {declared.split('=')[0]}=" in str(raised.value)
    units_said = dict([declared.split("=")])
    assert len(read_frames(with_declared({"DZ": path}, units=units_said)).frames) == 12


def test_units_of_a_level_and_of_all_files(tmp_path):
    files = {
        "DZ": made_formats.write_rmd17(tmp_path / "a.npz"),
        "TZ": made_formats.write_xyz(tmp_path / "b.xyz"),
    }
    source = with_declared(files, units={"DZ": {"energy": "kcal/mol"}})
    frames = read_frames(source).frames
    labelled = [f for f in frames if ENERGY in f.energies]
    energies, _ = made_formats.labels(labelled[0].numbers, labelled[0].positions[None])
    assert labelled[0].energies[ENERGY] == pytest.approx(energies[0], abs=1e-6)


@pytest.mark.parametrize("unit", ["hartree", "kJ/mol"])
def test_a_wrong_declaration_is_refused_by_the_checks(tmp_path, capsys, unit):
    path = made_formats.write_rmd17(tmp_path / "a.npz")
    code = exit_code(
        *("data", "convert", f"DZ={path}", tmp_path / "out.h5"),
        *("--units", f"energy={unit}", "--drop-others"),
    )
    assert code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"no total energies in {unit}" in said
    assert "They are in kcal/mol" in said


def test_positions_in_bohr_and_forces_per_bohr(tmp_path):
    numbers, positions = made_formats.molecule()
    energies, forces = made_formats.labels(numbers, positions)
    arrays = {"R": positions / units.Bohr, "z": numbers, "E": energies, "F": forces * units.Bohr}
    np.savez(tmp_path / "a.npz", **arrays)
    said = {"energy": "hartree", "positions": "bohr"}
    frame = read_frames(with_declared({"DZ": tmp_path / "a.npz"}, units=said)).frames[3]
    np.testing.assert_allclose(frame.positions, positions[3], rtol=1e-12)
    np.testing.assert_allclose(frame.forces[FORCES], forces[3], rtol=1e-12)
    said = {"energy": "hartree", "positions": "bohr", "forces": "hartree/angstrom"}
    frame = read_frames(with_declared({"DZ": tmp_path / "a.npz"}, units=said)).frames[3]
    np.testing.assert_allclose(frame.forces[FORCES], forces[3] * units.Bohr, rtol=1e-12)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"energy": "kcal"}, "Unknown unit of energies 'kcal'.*kcal/mol"),
        ({"energies": "eV"}, "Unknown quantity 'energies'.*Did you mean energy"),
        ({"forces": "eV"}, "an energy per length was expected"),
        ({"positions": "mm"}, "Unknown unit of positions 'mm'"),
        ({"DZ": {"positions": "bohr"}}, "units of DZ: Unknown quantity 'positions'"),
    ],
)
def test_a_unit_that_is_unknown_is_refused(tmp_path, said, message):
    with pytest.raises(UserError, match=message):
        with_declared(tmp_path / "a.xyz", units=said)


def test_a_dataset_that_names_another_unit_is_refused(tmp_path):
    path = made_formats.write_spice(tmp_path / "a.hdf5")
    with h5py.File(path, "a") as file:
        for group in file.values():
            group["dft_total_energy"].attrs["units"] = "kJ/mol"
    with pytest.raises(UserError, match=r"dft_total_energy says that it is in 'kJ/mol'.*--units"):
        read_frames({"DZ": path})


# Signs.


def test_forces_of_pyanitools_are_not_read_until_their_sign_is_said(tmp_path):
    path = made_formats.write_comp6(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        for group in file["top"].values():
            del group["lot"]
    assert not any(frame.forces for frame in read_frames({"DZ": path}).frames)
    keys = {"DZ": {"energy": "energies", "gradient": "forces"}}
    frame = read_frames(with_declared(path, keys)).frames[0]
    _, forces = made_formats.labels(frame.numbers, frame.positions[None])
    np.testing.assert_allclose(frame.forces[FORCES], forces[0], atol=1e-6)


def test_a_wrong_sign_is_refused(tmp_path, capsys):
    numbers, positions = made_formats.molecule(n=60)
    energies, forces = made_formats.labels(numbers, positions)
    np.savez(tmp_path / "a.npz", R=positions, z=numbers, E=energies, F=-forces)
    arguments = ["data", "convert", f"DZ={tmp_path / 'a.npz'}", tmp_path / "out.h5"]
    assert exit_code(*arguments, "--units", "energy=hartree") == 2
    assert "sign" in capsys.readouterr().err
    assert not (tmp_path / "out.h5").exists()


# Hostile and damaged files.


class Runs:
    """Writes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def damage(tmp_path, name):
    """A damaged file of one level, and what is said of it."""
    numbers, positions = made_formats.molecule()
    energies, forces = made_formats.labels(numbers, positions)
    good = {"R": positions, "z": numbers, "E": energies, "F": forces, "e_unit": np.array("hartree")}
    bad = np.empty(1, dtype=object)
    bad[0] = Runs(tmp_path / "ran")
    changed = {
        "objects for energies": ({"E": bad}, "E holds Python objects, which are not loaded"),
        "objects for positions": ({"R": bad}, "R holds Python objects, which are not loaded"),
        "fewer energies": ({"E": energies[:5]}, r"E has shape \(5,\)"),
        "forces of other atoms": ({"F": forces[:, :2]}, r"F has shape \(12, 2, 3\)"),
        "texts for forces": ({"F": forces.astype(str)}, "F has shape .* and type"),
        "infinite": ({"E": np.full(12, np.inf)}, "infinite values"),
        "a hole in forces": ({"F": np.where(np.eye(3) > 0, np.nan, forces)}, "some atoms only"),
        "no such element": ({"z": numbers * 0 + 119}, "must all be positive, and at most 118"),
        "two numbers": ({"Z": numbers}, "z and Z may both be the atomic numbers"),
        "a lattice": ({"lattice": np.eye(3) * 9 + np.eye(3, k=1)}, "vectors as columns"),
        "a flat cell": ({"cell": np.eye(3) * 0.1}, "the cell is flat"),
    }
    path = tmp_path / "a.npz"
    if name in changed:
        values, message = changed[name]
        np.savez(path, **{**good, **values})
        return path, message
    if name == "pickle":
        path.write_bytes(pickle.dumps(Runs(tmp_path / "ran")))
        return path, "is damaged"
    if name == "cut":
        np.savez(path, **good)
        path.write_bytes(path.read_bytes()[:-200])
        return path, "is damaged"
    packed = made_formats.write_packed(tmp_path / "a.xyz.gz")
    if name == "cut gzip":
        packed.write_bytes(packed.read_bytes()[:-100])
        return packed, "truncated or damaged"
    if name == "no gzip":
        packed.write_text("3\n\n")
        return packed, "truncated or damaged"
    if name == "bomb":
        packed.write_bytes(gzip.compress(b"1\n" + b" " * 2**19 + b"\nH 0 0 0\n" * 1, 9) * 400)
        return packed, "times its size|number of atoms"
    trajectory = made_formats.write_trajectory(tmp_path / "a.traj")
    if name == "cut trajectory":
        trajectory.write_bytes(trajectory.read_bytes()[:400])
        return trajectory, "ASE cannot read it|empty"
    raise AssertionError(name)


DAMAGED = [
    *("objects for energies", "objects for positions", "fewer energies", "forces of other atoms"),
    *("texts for forces", "infinite", "a hole in forces", "no such element", "two numbers"),
    *("a lattice", "a flat cell", "pickle", "cut", "cut gzip", "no gzip", "bomb", "cut trajectory"),
]


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_one_error_and_runs_nothing(tmp_path, name):
    path, message = damage(tmp_path, name)
    with pytest.raises(UserError, match=message) as caught:
        read_frames({"DZ": path})
    assert str(path) in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_objects_that_nobody_needs_are_left_out_and_named(tmp_path):
    bad = np.empty(1, dtype=object)
    bad[0] = Runs(tmp_path / "ran")
    path = made_formats.write_sgdml(tmp_path / "a.npz", notes=bad)
    read = read_frames({"DZ": path})
    assert len(read.frames) == 12
    assert "notes" in read.others
    assert not (tmp_path / "ran").exists()


def break_deepmd(path, name):
    system, first = path / "H2O", path / "H2O" / "set.000"
    if name == "ragged":
        np.save(first / "energy.npy", np.zeros(3))
        return "energy.npy has 3 frames, and coord.npy has 5"
    if name == "other atoms":
        (system / "type.raw").write_text("0 1\n")
        return r"coord.*has shape \(5, 9\); 2 atoms"
    if name == "no map":
        (system / "type_map.raw").unlink()
        return "no type_map.raw, so its elements are not known"
    if name == "no element":
        (system / "type_map.raw").write_text("O Hx\n")
        return "Hx are no chemical symbols"
    if name == "unknown type":
        (system / "type.raw").write_text("0 1 7\n")
        return "type 7 is none of the 2"
    if name == "words":
        (system / "type.raw").write_text("0 1 -1\n")
        return "integers from 0"
    if name == "periodic":
        (system / "nopbc").unlink()
        (first / "box.npy").unlink()
        return "is periodic, for H2O has no file nopbc, and has no box.npy"
    if name == "no sets":
        for folder in system.glob("set.*"):
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
        return "no folder set"
    if name == "no coordinates":
        (first / "coord.npy").unlink()
        return "has no coord.npy"
    if name == "objects":
        bad = np.empty(5, dtype=object)
        bad[:] = [Runs(path / "ran")] * 5
        np.save(first / "energy.npy", bad, allow_pickle=True)
        return "Python objects, which are not loaded"
    (first / "force.npy").write_bytes((first / "force.npy").read_bytes()[:-8])
    return "is damaged"


@pytest.mark.parametrize(
    "name",
    [
        *("ragged", "other atoms", "no map", "no element", "unknown type", "words", "periodic"),
        *("no sets", "no coordinates", "objects", "cut"),
    ],
)
def test_a_wrong_system_of_deepmd_is_one_error(tmp_path, name):
    path = made_formats.write_deepmd(tmp_path / "a")
    message = break_deepmd(path, name)
    with pytest.raises(UserError, match=message) as caught:
        read_frames({"DZ": path})
    assert str(path) in str(caught.value)
    assert not (path / "ran").exists()


def test_systems_of_mixed_types(tmp_path):
    path = made_formats.write_deepmd(tmp_path / "a", names=("H2O",))
    plain = read_frames({"DZ": path}).frames
    system = path / "H2O"
    types = np.array([int(word) for word in (system / "type.raw").read_text().split()])
    (system / "type.raw").write_text("0 0 0\n")
    for folder in system.glob("set.*"):
        n = len(np.load(folder / "energy.npy"))
        np.save(folder / "real_atom_types.npy", np.tile(types, (n, 1)))
    mixed = read_frames({"DZ": path}).frames
    assert [f.energies for f in mixed] == [f.energies for f in plain]
    np.testing.assert_array_equal(mixed[0].numbers, plain[0].numbers)


def test_a_link_out_of_hdf5_is_refused_in_every_layout(tmp_path):
    path = made_formats.write_spice(tmp_path / "a.hdf5")
    with h5py.File(path, "a") as file:
        file["other"] = h5py.ExternalLink("elsewhere.h5", "/a")
    with pytest.raises(UserError, match="external link"), open_data({"DZ": path}):
        pass


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda atoms: atoms.set_initial_charges([1.0] + [0.0] * (len(atoms) - 1)), "charge"),
        (
            lambda atoms: atoms.set_initial_magnetic_moments([1.0] + [0.0] * (len(atoms) - 1)),
            "spin",
        ),
        (lambda atoms: atoms.calc.results.update(magmom=2.0), "spin"),
    ],
)
def test_charges_and_moments_of_atoms_are_those_of_the_molecule(tmp_path, capsys, change, said):
    structures = made_formats.structures()
    with Trajectory(tmp_path / "a.traj", "w") as trajectory:
        for atoms in structures:
            change(atoms)
            trajectory.write(atoms)
    data = f"DZ={tmp_path / 'a.traj'}"
    assert exit_code("train", "SF-DZ/EF", "--train", data, "--out", tmp_path / "out") == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_link_among_the_sets_of_deepmd_is_refused(tmp_path):
    path = made_formats.write_deepmd(tmp_path / "in")
    outside = made_formats.write_deepmd(tmp_path / "outside")
    shutil.rmtree(path / "H2O" / "set.000")
    (path / "H2O" / "set.000").symlink_to(outside / "H2O" / "set.000")
    with pytest.raises(UserError, match="is a link"):
        read_frames({"DZ": path})


def test_units_of_positions_in_spice_count(tmp_path):
    path = made_formats.write_spice(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        for group in file.values():
            group["conformations"].attrs["units"] = "nanometer"
    with pytest.raises(UserError, match="positions says that it is in 'nanometer'"):
        read_frames({"DZ": path})


def test_an_lmdb_database_is_read_where_its_package_is(tmp_path):
    pytest.importorskip("ase_db_backends")
    path = tmp_path / "a.aselmdb"
    with connect(path, type="aselmdb") as database:
        for atoms in made_formats.structures():
            database.write(atoms)
    frames = read_frames({"DZ": path}).frames
    assert len(frames) == 24
    for frame in frames:
        energies, forces = made_formats.labels(frame.numbers, frame.positions[None])
        assert frame.energies[ENERGY] == pytest.approx(energies[0], abs=2e-6)
        np.testing.assert_allclose(frame.forces[FORCES], forces[0], atol=2e-6)


def test_a_database_whose_package_is_absent_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ase_db_backends", None)
    monkeypatch.setitem(sys.modules, "ase_db_backends.aselmdb", None)
    (tmp_path / "a.aselmdb").write_bytes(b"lmdb")
    with pytest.raises(UserError, match="pip install ase-db-backends"):
        read_frames({"DZ": tmp_path / "a.aselmdb"})


def crystals(n=4):
    """Water in cells that are strained, with made-up stress."""
    structures = made_formats.structures(n)[:n]
    rng = np.random.default_rng(3)
    for place, atoms in enumerate(structures):
        results = {name: atoms.calc.results[name] for name in ("energy", "forces")}
        atoms.cell, atoms.pbc = np.eye(3) * 9 + 0.3 * np.eye(3, k=-1) * place, True
        atoms.calc = SinglePointCalculator(atoms, **results, stress=rng.normal(size=6))
    return structures


def test_cells_and_stress_of_a_trajectory_npz_and_deepmd(tmp_path):
    structures = crystals()
    with Trajectory(tmp_path / "a.traj", "w") as trajectory:
        for atoms in structures:
            trajectory.write(atoms)
    expected = [atoms.get_stress(voigt=False) / units.Hartree for atoms in structures]
    volumes = [atoms.get_volume() for atoms in structures]
    convert_data({"DZ": tmp_path / "a.traj"}, tmp_path / "a.xyz", accepted=Accepted(outliers=True))
    convert_data({"DZ": tmp_path / "a.traj"}, tmp_path / "a.npz", accepted=Accepted(outliers=True))
    system = made_formats.write_deepmd(tmp_path / "system", names=("H2O",)) / "H2O"
    (system / "nopbc").unlink()
    for folder in system.glob("set.*"):
        if folder.name != "set.000":
            shutil.rmtree(folder)
    folder = system / "set.000"
    np.save(folder / "coord.npy", np.array([atoms.positions.ravel() for atoms in structures]))
    np.save(folder / "box.npy", np.array([atoms.cell.array.ravel() for atoms in structures]))
    np.save(folder / "energy.npy", np.array([a.get_potential_energy() for a in structures]))
    np.save(folder / "force.npy", np.array([a.get_forces().ravel() for a in structures]))
    virials = [-v * e.ravel() * units.Hartree for v, e in zip(volumes, expected, strict=True)]
    np.save(folder / "virial.npy", np.array(virials))
    for source in (
        {"DZ": tmp_path / "a.traj"},
        tmp_path / "a.xyz",
        tmp_path / "a.npz",
        {"DZ": tmp_path / "system"},
    ):
        frames = read_frames(source).frames
        for frame, atoms, tensor in zip(frames, structures, expected, strict=True):
            np.testing.assert_allclose(frame.cell, atoms.cell.array, atol=1e-12)
            np.testing.assert_allclose(frame.stress["wb97x_dz.stress"], tensor, rtol=1e-9)


def test_a_declared_virial_and_stress_in_other_units(tmp_path):
    structures = crystals()
    for atoms in structures:
        results, atoms.calc = atoms.calc.results, None
        atoms.info |= {"my_energy": results["energy"], "kb": -results["stress"] / units.GPa * 10}
        virial = -results["stress"] * atoms.get_volume()
        atoms.info["my_virial"] = virial
        atoms.info["expected"] = results["stress"]
    path = tmp_path / "a.xyz"
    write(path, structures, format="extxyz")
    keys = {"DZ": {"energy": "my_energy", "virial": "my_virial"}}
    one = read_frames(with_declared(path, keys)).frames
    keys = {"DZ": {"energy": "my_energy", "stress": "kb"}}
    two = read_frames(with_declared(path, keys, {"stress": "kbar"})).frames
    for first, second in zip(one, two, strict=True):
        tensors = (frame.stress["wb97x_dz.stress"] for frame in (first, second))
        np.testing.assert_allclose(next(tensors), -next(tensors), rtol=1e-6)


@pytest.mark.parametrize("name", ["comp6", "spice", "transition1x"])
def test_a_file_whose_labels_name_no_level_says_what_to_do(tmp_path, capsys, name):
    file_name, write, *_ = FILES[name]
    path = write(tmp_path / file_name)
    assert exit_code("data", "info", path) == 2
    said = capsys.readouterr().err
    assert "name" in said
    assert "LEVEL.energy=" in said.partition("--key ")[2]
    assert FILES[name][2] in said


def test_hdf5_for_tests_stays_what_it_was(tmp_path):
    assert not has_frames(made_formats.write_comp6(tmp_path / "a.h5"))
    assert has_frames({"DZ": tmp_path / "a.h5"})


def test_names_of_a_calculator_in_a_database_are_declared(tmp_path):
    path = made_formats.write_database(tmp_path / "a.db")
    keys = {"DZ": {"energy": "dft_energy"}}
    frames = read_frames(with_declared({"DZ": path}, keys)).frames
    plain = read_frames({"DZ": path}).frames
    values = [[frame.energies[ENERGY] for frame in each] for each in (frames, plain)]
    assert values[0] == pytest.approx(values[1], rel=1e-12)
    assert all(FORCES in frame.forces for frame in frames)
