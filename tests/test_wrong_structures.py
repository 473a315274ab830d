"""What is wrong with structures in every format: one line that names the file, exit code 2."""

from __future__ import annotations

from pathlib import Path

import h5py
import made_formats
import made_xyz
import numpy as np
import planted
import pytest
from ase import Atoms
from ase.db import connect
from ase.io import write
from made_crystals import crystals
from made_runs import exit_code
from test_matpes import record, write_records

from hippynn_mf.data.formats.hdf5 import refuse_beyond_float32
from hippynn_mf.data.formats.sources import read_frames
from hippynn_mf.errors import UserError

FRAME = "2\nProperties=species:S:1:pos:R:3:forces:R:3 {}\nH 0 0 0 0 0 0.1\nH 0 0 0.75 0 0 -0.1\n"


def xyz(comment):
    def make(folder):
        path = folder / "a.xyz"
        path.write_text(FRAME.format(comment))
        return path

    return make


def physnet(folder):
    path = made_formats.write_physnet(folder / "a.npz")
    np.savez(path, **{**np.load(path), "N": np.full(24, 4)})
    return path


def padding_alone(folder):
    path = made_formats.write_physnet(folder / "a.npz")
    arrays = dict(np.load(path))
    arrays["Z"][3] = 0
    arrays["N"][3] = 0
    np.savez(path, **arrays)
    return path


def deepmd(of_atom):
    def make(folder):
        path = made_formats.write_deepmd(folder / "systems")
        for sets in path.glob("*/set.*"):
            n, width = np.load(sets / "coord.npy").shape
            np.save(sets / "real_atom_types.npy", np.full((n, width // 3), of_atom))
        return path

    return make


def hdf5(write_file, group, names):
    """A file with a group that has these datasets, none of which holds anything."""

    def make(folder):
        path = write_file(folder / "a.h5")
        with h5py.File(path, "r+") as file:
            for name in names:
                old = file[group][name]
                empty = np.zeros(0, old.dtype) if old.ndim == 1 else np.zeros((12, 0, 3))
                del file[group][name]
                file[group][name] = empty
        return path

    return make


def no_atoms_in_a_database(folder):
    path = folder / "a.db"
    with connect(path) as database:
        database.write(Atoms(), dft_energy=0.0)
        database.write(Atoms("H"), dft_energy=-13.0)
    return path


def not_a_number(folder):
    """As Python writes NaN, of which a parser of JSON says several lines."""
    one = record(crystals(1)[0])
    return write_records(folder / "a.json", [one | {"energy": float("nan")}])


EMPTY_SPICE = ("atomic_numbers", "conformations", "dft_total_gradient")
EMPTY_COMP6 = ("species", "coordinates", "forces")
WRONG = {
    "a name twice": (xyz("energy=-31.0 energy=-30.0"), "structure 1: energy is there twice"),
    "a name twice, for ASE": (
        xyz("energy=-31.0 note={a=b c} text='x=1 y' energy=-30.0"),
        "structure 1: energy is there twice",
    ),
    "counts of atoms": (physnet, "N is the number of atoms of a structure, and contradicts Z"),
    "padding alone": (padding_alone, "there are no atoms"),
    "no real atoms": (deepmd(-1), "there are no atoms"),
    "no such type": (deepmd(-7), "has the type -7; types are counted from 0"),
    "no atoms in SPICE": (
        hdf5(made_formats.write_spice, "ch4", EMPTY_SPICE),
        "group ch4: atomic_numbers: there are no atoms",
    ),
    "no atoms in COMP6": (
        hdf5(made_formats.write_comp6, "top/CH4", EMPTY_COMP6),
        "group top/CH4: there are no atoms",
    ),
    "no atoms in a database": (no_atoms_in_a_database, "structure 1 has no atoms"),
    "NaN in JSON": (not_a_number, "is damaged, or no JSON"),
}


@pytest.mark.parametrize(("make", "message"), WRONG.values(), ids=WRONG)
def test_wrong_structures_are_one_line(tmp_path, capfd, make, message):
    path = make(tmp_path)
    before = sorted(each.name for each in tmp_path.iterdir())
    assert exit_code("data", "info", f"DZ={path}") == 2
    error = capfd.readouterr().err
    assert message in error
    assert str(tmp_path) in error
    assert error.count("\n") == 1
    assert sorted(each.name for each in tmp_path.iterdir()) == before


def test_no_atoms_in_the_layout_of_ani1x_are_refused(tmp_path, capfd):
    path = planted.write_ani1x(tmp_path / "a.h5", {"N2": 8, "H2O": 8})
    with h5py.File(path, "r+") as file:
        group = next(iter(file.values()))
        del group["atomic_numbers"]
        group["atomic_numbers"] = np.zeros(0, np.uint8)
    assert exit_code("data", "info", path) == 2
    assert "there are no atoms" in capfd.readouterr().err


def test_names_inside_values_are_no_names(tmp_path):
    """Quotes and brackets may hold whatever they like, also a name that is there beside them."""
    comment = "energy=-31.0 note=\"energy=5 energy=6\" more={energy=7} last='energy=8'"
    (frame,) = read_frames({"DZ": xyz(comment)(tmp_path)}).frames
    assert frame.energies["wb97x_dz.energy"] == pytest.approx(-31.0 / 27.211386, abs=1e-5)


def test_a_molecule_without_conformers_is_passed_over(tmp_path):
    path = made_formats.write_comp6(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        group = file["top/CH4"]
        for name in ("coordinates", "energies", "forces"):
            values = group[name][:0]
            del group[name]
            group[name] = values
    assert len(read_frames({"DZ": path}).frames) == 12


def test_half_precision_is_compared_without_a_warning():
    refuse_beyond_float32(np.array([1.0, 6e4], np.float16), "energies")
    with pytest.raises(UserError, match="beyond what single precision holds"):
        refuse_beyond_float32(np.array([1.0, 1e39]), "energies")


def test_a_stress_of_zeros_is_no_stress(tmp_path, capfd):
    """One of many may be printed so; where most are, it was not computed."""
    structures = made_xyz.label(made_xyz.molecules(20, names=["CH4"]))
    for atoms in structures:
        atoms.set_cell(np.eye(3) * 6)
        atoms.pbc = True
        atoms.info["stress_wb97x_dz"] = np.zeros((3, 3))
    write(tmp_path / "a.xyz", structures, format="extxyz")
    assert exit_code("data", "info", tmp_path / "a.xyz") == 0
    assert "stress tensors of level wb97x_dz are exactly 0 in 20" in capfd.readouterr().out
    assert exit_code("data", "convert", tmp_path / "a.xyz", tmp_path / "a.h5") == 2
    assert not Path(tmp_path / "a.h5").exists()
