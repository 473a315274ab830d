"""Names of the user's own for labels: declared on the command line, in run files, in Python."""

from __future__ import annotations

import json

import made_formats
import made_xyz
import numpy as np
import planted
import pytest
from made_runs import TINY_OPTIONS, exit_code

from hippynn_mf.data.database import load_database
from hippynn_mf.data.formats.ani1x import read_ani1x
from hippynn_mf.data.formats.sources import read_frames, with_declared
from hippynn_mf.data.info import describe_file
from hippynn_mf.errors import UserError
from hippynn_mf.labels import parse_labels
from hippynn_mf.runs.request import Request
from hippynn_mf.runs.run_file import read_run_file

OWN = ["--levels", "DFT,BEST"]
ENERGIES = {"dft_energy": ("wb97x_dz",), "U0": ("ccsd(t)_cbs",)}
COLUMNS = {"dft_force": ("wb97x_dz",)}
KEYS = {"DZ": {"energy": "dft_energy", "forces": "dft_force"}, "CC": {"energy": "U0"}}


def write_own(path, n=20, **more):
    structures = made_xyz.label(made_xyz.molecules(n, **more), ENERGIES, COLUMNS)
    return made_xyz.save(path, structures)


def one_line(text):
    return " ".join(text.split())


def test_declared_names_are_the_labels_of_their_levels(tmp_path):
    path = write_own(tmp_path / "a.xyz")
    read = read_frames(with_declared(path, KEYS))
    for frame in read.frames:
        one, two = (
            planted.energy(frame.numbers, frame.positions[None], level)[0]
            for level in ("wb97x_dz", "ccsd(t)_cbs")
        )
        assert frame.energies == pytest.approx(
            {"wb97x_dz.energy": one, "ccsd(t)_cbs.energy": two}, rel=1e-10
        )
        forces = planted.forces(frame.numbers, frame.positions[None], "wb97x_dz")[0]
        np.testing.assert_allclose(frame.forces["wb97x_dz.forces"], forces, atol=1e-7)


def test_a_gradient_is_read_with_the_other_sign(tmp_path):
    path = write_own(tmp_path / "a.xyz", n=3)
    plain = read_frames(with_declared(path, {"DZ": {"forces": "dft_force"}})).frames
    turned = read_frames(with_declared(path, {"DZ": {"gradient": "dft_force"}})).frames
    for one, two in zip(plain, turned, strict=True):
        np.testing.assert_array_equal(one.forces["wb97x_dz.forces"], -two.forces["wb97x_dz.forces"])


def test_hdf5_in_the_layout_of_ani1x_takes_names_and_units_too(tmp_path, ani1x_file):
    import h5py

    own = tmp_path / "own.h5"
    with h5py.File(ani1x_file) as file, h5py.File(own, "w") as copy:
        for name, group in file.items():
            for key in ("atomic_numbers", "coordinates"):
                copy[f"{name}/{key}"] = group[key][()]
            copy[f"{name}/my_energy"] = group["wb97x_dz.energy"][()] * made_formats.units.Hartree
            copy[f"{name}/my_grad"] = -group["wb97x_dz.forces"][()] * made_formats.units.Hartree
    keys = {"DZ": {"energy": "my_energy", "gradient": "my_grad"}}
    labels = parse_labels({"DZ": "EF"})
    source = with_declared(own, keys, {"energy": "eV"})
    one, two = (read_ani1x(path, labels)[0] for path in (source, ani1x_file))
    np.testing.assert_allclose(one.energies["wb97x_dz"], two.energies["wb97x_dz"], rtol=1e-14)
    np.testing.assert_allclose(one.forces["wb97x_dz"], two.forces["wb97x_dz"], rtol=1e-6)


def test_a_run_with_keys_of_its_own_from_the_command_line(tmp_path, capsys):
    write_own(tmp_path / "a.xyz", n=40)
    arguments = [*OWN, "--data", tmp_path / "a.xyz", "--out", tmp_path / "out", *TINY_OPTIONS]
    keys = ["--key", "DFT.energy=dft_energy", "--key", "DFT.forces=dft_force"]
    assert exit_code("train", "MF-DFT/EF-BEST/E", *arguments, *keys, "--key", "BEST.energy=U0") == 0
    (stored,) = (tmp_path / "out").rglob("experiment.json")
    settings = json.loads(stored.read_text())
    settings = settings.get("settings", settings)
    assert settings["data"]["keys"] == {
        "DFT": {"energy": "dft_energy", "forces": "dft_force"},
        "BEST": {"energy": "U0"},
    }
    folder = stored.parent
    assert exit_code("evaluate", folder) == 0
    capsys.readouterr()


def test_keys_follow_one_another_as_files_of_levels_do(tmp_path):
    path = write_own(tmp_path / "a.xyz", n=20)
    arguments = ["--key", "DFT.energy=dft_energy", "DFT.forces=dft_force", "BEST.energy=U0"]
    assert exit_code("data", "info", path, *OWN, *arguments) == 0


def test_a_run_file_has_the_same_table_and_new_writes_it(tmp_path, capsys):
    path = write_own(tmp_path / "a.xyz", n=20)
    keys = ["--key", "DFT.energy=dft_energy", "--key", "BEST.energy=U0"]
    arguments = [path, *OWN, *keys, "--units", "energy=eV"]
    assert exit_code("new", tmp_path / "my.toml", *arguments) == 0
    request = read_run_file(tmp_path / "my.toml")
    assert request.keys == {"DFT": {"energy": "dft_energy"}, "BEST": {"energy": "U0"}}
    assert request.units == {"energy": "eV"}
    capsys.readouterr()


def test_the_same_in_python(tmp_path):
    path = write_own(tmp_path / "a.xyz", n=40)
    labels = {"DZ": "EF", "CC": "E"}
    database = load_database(path, labels, rows="all", keys=KEYS)
    assert {"wb97x_dz.energy", "wb97x_dz.forces"} <= set(database.splits["train"])
    with pytest.raises(UserError, match="property 'energie'"):
        load_database(path, labels, rows="all", keys={"DZ": {"energie": "dft_energy"}})


# What is refused.


def test_a_refusal_lists_what_the_file_holds_and_the_nearest_fit(tmp_path, capsys):
    path = write_own(tmp_path / "a.xyz", n=3)
    assert exit_code("data", "info", path, *OWN) == 2
    said = one_line(capsys.readouterr().err)
    assert "a.xyz is extended XYZ" in said
    assert "It holds U0 (a number; 15), dft_energy (a number; 15), dft_force (3 numbers" in said
    assert "--key DFT.energy=dft_energy --key DFT.forces=dft_force" in said


def test_the_nearest_fit_is_of_the_labels_that_are_asked_for(tmp_path, capsys):
    path = write_own(tmp_path / "a.xyz", n=3)
    arguments = ["--data", path, *OWN, "--out", tmp_path / "out"]
    keys = ["--key", "DFT.energy=dft_energy"]
    assert exit_code("train", "MF-DFT/EF-BEST/E", *arguments, *keys) == 2
    said = one_line(capsys.readouterr().err)
    assert "The nearest fit: --key DFT.forces=dft_force." in said


def test_names_of_other_levels_are_not_proposed(tmp_path):
    structures = made_xyz.label(made_xyz.molecules(2), {"energy_DZ": ("wb97x_dz",)}, {})
    path = made_xyz.save(tmp_path / "a.xyz", structures)
    with pytest.raises(UserError) as caught:
        read_frames({"TZ": path})
    assert "TZ.energy=energy_DZ" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["DFT.energy=dft_enrgy"], "Unknown key 'dft_enrgy'. Did you mean dft_energy?"),
        (["DFT.enrgy=dft_energy"], "Unknown kind 'enrgy'. Did you mean energy?"),
        (["DFT=dft_energy"], "--key expects LEVEL.KIND=NAME"),
        (["DFT.energy="], "--key expects LEVEL.KIND=NAME"),
        (["NO.energy=dft_energy"], "Unknown level of theory 'NO'"),
        (["DFT.energy=dft_energy", "DFT.energy=U0"], "--key names the energy of DFT twice"),
        (["DFT.energy=U0", "BEST.energy=U0"], "The key U0 is declared for DFT.energy and for BEST"),
        (["DFT.forces=dft_force", "DFT.gradient=dft_force"], "is declared for DFT.forces and for"),
        (["DFT.energy=dft_force"], "an energy in eV was expected"),
        (["DFT.forces=dft_energy"], "forces in eV/Å"),
    ],
)
def test_a_wrong_key_is_one_error(tmp_path, capsys, arguments, message):
    path = write_own(tmp_path / "a.xyz", n=3)
    options = [item for text in arguments for item in ("--key", text)]
    assert exit_code("data", "info", path, *OWN, *options) == 2
    said = capsys.readouterr().err
    assert message in one_line(said)
    assert "Traceback" not in said


def test_a_key_of_a_level_without_a_file_is_refused(tmp_path, capsys):
    path = write_own(tmp_path / "a.xyz", n=3)
    options = ["--key", "DFT.energy=dft_energy", "--key", "BEST.energy=U0"]
    assert exit_code("data", "info", f"DFT={path}", *OWN, *options) == 2
    assert "BEST has no file" in one_line(capsys.readouterr().err)


def test_two_candidates_for_a_label_are_refused_and_told_apart(tmp_path):
    extra = {"energies": np.zeros(12), "energy": np.zeros(12)}
    path = made_formats.write_sgdml(tmp_path / "a.npz", **extra)
    with pytest.raises(UserError, match=r"E and energies and energy may both hold DZ\.energy"):
        read_frames({"DZ": path})
    frames = read_frames(with_declared({"DZ": path}, {"DZ": {"energy": "E"}})).frames
    assert frames[0].energies["wb97x_dz.energy"] < -70
    structures = made_xyz.label(
        made_xyz.molecules(2), {"energy_DZ": ("wb97x_dz",), "energy_wb97x_dz": ("wb97x_dz",)}, {}
    )
    path = made_xyz.save(tmp_path / "b.xyz", structures)
    with pytest.raises(UserError, match=r"are the same label.*--key DZ\.energy="):
        read_frames(path)
    assert read_frames(with_declared(path, {"DZ": {"energy": "energy_DZ"}})).frames


def test_a_test_file_may_lack_keys_of_the_data_and_have_its_own(tmp_path, capsys):
    write_own(tmp_path / "a.xyz", n=40)
    structures = made_xyz.label(made_xyz.molecules(6, seed=9), {"U0": ("ccsd(t)_cbs",)}, {})
    made_xyz.save(tmp_path / "b.xyz", structures)
    structures = made_xyz.label(made_xyz.molecules(6, seed=8), {"best": ("ccsd(t)_cbs",)}, {})
    made_xyz.save(tmp_path / "c.xyz", structures)
    (tmp_path / "my.toml").write_text(
        'experiments = ["MF-DFT/EF-BEST/E"]\nlevels = ["DFT", "BEST"]\nrows = "all"\n'
        'data = "a.xyz"\n[keys]\nDFT.energy = "dft_energy"\nDFT.forces = "dft_force"\n'
        'BEST.energy = "U0"\n[tests.b]\npath = "b.xyz"\n[tests.c]\npath = "c.xyz"\n'
        '[tests.c.keys]\nBEST.energy = "best"\n'
    )
    out = ["--out", tmp_path / "out"]
    assert exit_code("train", tmp_path / "my.toml", *out, *TINY_OPTIONS) == 0
    (metrics,) = (tmp_path / "out").rglob("metrics.json")
    sets = json.loads(metrics.read_text())["sets"]
    assert {"b", "c"} <= set(sets)
    capsys.readouterr()


@pytest.mark.parametrize(
    ("asked", "rows"),
    [
        ({"data": "a.h5", "experiments": ["SF-CC/E"]}, "all"),
        ({"data": "a.h5", "experiments": ["SF-CC/E"], "rows": "common"}, "common"),
        ({"data": "a.h5", "experiments": ["SF-CC/E"], "preset": "paper"}, "common"),
        ({"data": "a.h5", "experiments": ["table1"]}, "common"),
        ({"experiments": ["SF-CC/E"]}, "common"),
        ({"experiments": ["SF-CC/E"], "rows": "all"}, "all"),
    ],
)
def test_rows_follow_the_data_where_nothing_is_said(asked, rows):
    assert Request.of(asked).chosen_rows == rows


def test_the_terminal_says_which_rows_were_taken(tmp_path, capsys):
    write_own(tmp_path / "a.xyz", n=40)
    keys = ["--key", "DFT.energy=dft_energy", "--key", "BEST.energy=U0"]
    arguments = [*OWN, "--data", tmp_path / "a.xyz", "--out", tmp_path / "out", "--dry-run"]
    assert exit_code("campaign", "--experiments", "MF-DFT/E-BEST/E", *arguments, *keys) == 0
    said = one_line(capsys.readouterr().err)
    assert "Rows all, all structures with any label of an experiment: the default with data" in said


def test_what_is_there_is_said_before_what_is_missing(tmp_path):
    info = describe_file(with_declared(write_own(tmp_path / "a.xyz", n=20), KEYS))
    assert info["format"] == "extended XYZ"
    assert info["holds"] == {"U0": 100, "dft_energy": 100, "dft_force": 100}
