"""Training on extended XYZ: as on the same data in HDF5, in one file or one for each level."""

import json
import subprocess
import sys

import made_xyz
import numpy as np
import planted
import pytest
from ase import units
from ase.io import read
from made_runs import TINY_OPTIONS, build_settings, exit_code, files_below

from hippynn_mf.cli.texts import parse_level_files
from hippynn_mf.data.convert import convert_data
from hippynn_mf.data.database import load_database
from hippynn_mf.data.formats.extxyz_keys import level_datasets
from hippynn_mf.data.formats.frame_formats import FRAME_FORMATS, FrameFormat
from hippynn_mf.data.formats.frames import Content, Frame
from hippynn_mf.data.formats.merging import merge_frames
from hippynn_mf.data.formats.sources import as_data_path, open_data
from hippynn_mf.data.info import describe_file, format_description
from hippynn_mf.data.loading import file_hash, load_splits
from hippynn_mf.errors import UserError
from hippynn_mf.labels import parse_labels
from hippynn_mf.levels import CC, DZ, PAPER_LEVELS, SELF_ENERGIES, TZ
from hippynn_mf.paper.table1 import get_experiment
from hippynn_mf.ragged import recentred
from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.units import KCAL_PER_MOL_PER_HARTREE

NAME = "MF-DZ/EF-CC/E"
LABELS = parse_labels({"DZ": "EF", "CC": "E"})
HOLES = {"CH4": {"ccsd(t)_cbs.energy": slice(5, 25)}, "H2O": {"wb97x_tz.forces": slice(0, 30)}}
TWO_EPOCHS = [*TINY_OPTIONS, "--set", "max_epochs=2"]


def folder_of(out):
    return RunFolder(out / "runs" / "mf_dz_ef_cc_e" / "seed-0")


def load(source, labels=LABELS, rows="all"):
    return load_splits(source, labels, common_levels=PAPER_LEVELS, rows=rows, split_seed=0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The same data as planted.h5 and planted.xyz, and a run on each."""
    folder = tmp_path_factory.mktemp("trained")
    planted.write_ani1x(folder / "planted.h5", missing=HOLES)
    convert_data(folder / "planted.h5", folder / "planted.xyz")
    for kind in ("h5", "xyz"):
        data = ["--data", folder / f"planted.{kind}", "--out", folder / kind]
        assert exit_code("train", NAME, *data, *TWO_EPOCHS) == 0
    return folder


@pytest.fixture
def level_files(tmp_path):
    """All structures with DZ labels as MACE has them, every second one with those of CC as ASE."""
    structures = made_xyz.molecules(30)
    made_xyz.save(tmp_path / "dz.xyz", made_xyz.label_mace(structures, "wb97x_dz"))
    high = made_xyz.label(structures[::2], {"energy": ("ccsd(t)_cbs",)}, {})
    np.random.default_rng(0).shuffle(high)
    made_xyz.save(tmp_path / "cc.xyz", high)
    return {"wb97x_dz": tmp_path / "dz.xyz", "ccsd(t)_cbs": tmp_path / "cc.xyz"}


# The same data in both formats.


def test_training_is_the_same_on_both_formats(trained):
    one, other = (folder_of(trained / kind).read_epochs() for kind in ("h5", "xyz"))
    assert len(one) == 2
    for epoch in (*one, *other):
        del epoch["wall_s"], epoch["cpu_s"]
    assert one == other


def test_splits_predictions_and_metrics_are_the_same_on_both_formats(trained):
    of_h5, of_xyz = (folder_of(trained / kind) for kind in ("h5", "xyz"))
    with np.load(of_h5.file("split.npz")) as one, np.load(of_xyz.file("split.npz")) as other:
        assert {name: len(one[name]) for name in one} == {"train": 160, "valid": 20, "test": 20}
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
    one, other = of_h5.read_predictions(), of_xyz.read_predictions()
    assert one.keys() == other.keys()
    for name, values in one.items():
        np.testing.assert_allclose(other[name], values, rtol=1e-9, atol=1e-9, err_msg=name)


def test_the_run_knows_its_file_and_is_evaluated_again(trained, tmp_path, capsys):
    folder = folder_of(trained / "xyz")
    settings = folder.read_settings()
    assert settings.data.path == trained / "planted.xyz"
    assert settings.data.sha256 == file_hash(trained / "planted.xyz")
    assert "planted.xyz: 200 structures" in folder.file("log.txt").read_text()
    before = folder.read_metrics()
    assert exit_code("evaluate", folder.path) == 0
    assert folder.read_metrics() == before
    other = tmp_path / "other.xyz"
    other.write_text((trained / "planted.xyz").read_text().replace("-", "", 1))
    assert exit_code("evaluate", folder.path, "--data", other) == 2
    assert "other.xyz is not the file of this run" in capsys.readouterr().err


def test_a_file_that_has_changed_is_not_trained_on_any_further(trained, tmp_path, capsys):
    data = tmp_path / "a.xyz"
    data.write_text((trained / "planted.xyz").read_text())
    command = ["train", NAME, "--data", data, "--out", tmp_path / "out", *TINY_OPTIONS]
    assert exit_code(*command) == 0
    data.write_text(data.read_text().replace("energy_wb97x_tz", "energy_other"))
    assert exit_code(*command) == 2
    assert "has changed since" in capsys.readouterr().err


@pytest.mark.parametrize("rows", ["common", "all"])
def test_every_array_of_every_split_is_the_same_on_both_formats(trained, rows):
    one, other = (load(trained / f"planted.{kind}", rows=rows) for kind in ("h5", "xyz"))
    for split, part in one.items():
        np.testing.assert_array_equal(part.rows, other[split].rows)
        np.testing.assert_array_equal(part.species, other[split].species)
        np.testing.assert_array_equal(part.positions, other[split].positions)
        for level, values in part.energies.items():
            np.testing.assert_allclose(other[split].energies[level], values, rtol=1e-15)
        for level, values in part.forces.items():
            np.testing.assert_array_equal(other[split].forces[level], values)


def test_both_formats_are_described_in_the_same_way(trained):
    one, other = (describe_file(trained / f"planted.{kind}") for kind in ("h5", "xyz"))
    assert other["notes"] == [f"{trained / 'planted.xyz'}: 200 structures"]
    assert other["notes"][0] in format_description(other)
    assert other["checks"].pop(0)["text"] == f"{other['notes'][0]}."  # HDF5 has no such notes
    for info in (one, other):
        del info["file"], info["notes"], info["format"], info["holds"]
        for entry in info["levels"].values():  # a sum of rounded numbers
            fit = entry["atomic_energy_fit"]
            fit["residual_rmse_kcal_per_mol"] = round(fit["residual_rmse_kcal_per_mol"], 9)
    assert one == other


def test_a_process_that_reads_extended_xyz_ends_well(trained):
    """Also when it ends with an error: an open file in memory would crash the interpreter."""
    main = "import sys; from hippynn_mf.cli.main import main; main(sys.argv[1:])"
    train = ["train", "SF-DZ/E", "--data", trained / "planted.xyz", "--set", "n_features=x"]
    for arguments, code in ((["data", "info", trained / "planted.xyz"], 0), (train, 2)):
        command = [sys.executable, "-c", main, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr


def test_a_file_is_read_once_until_it_changes(tmp_path, monkeypatch):
    reads = []

    def merge(files):
        reads.append(len(files[0]))
        return merge_frames(files)

    path = made_xyz.save(tmp_path / "a.xyz", made_xyz.label(made_xyz.molecules(3)))
    monkeypatch.setattr("hippynn_mf.data.formats.frame_reading.merge_frames", merge)
    for _ in range(2):
        with open_data(path) as file:
            assert len(file["H2O/coordinates"]) == 3
    made_xyz.save(path, made_xyz.label(made_xyz.molecules(4)))
    with open_data(path) as file:
        assert len(file["H2O/coordinates"]) == 4
    assert reads == [15, 20]


# One file for each level.


def test_labels_of_every_level_reach_training(level_files):
    parts = load(level_files)
    assert {name: len(part) for name, part in parts.items()} == {
        "train": 120,
        "valid": 15,
        "test": 15,
    }
    found = {}
    for part in parts.values():
        for row, (species, positions) in enumerate(zip(part.species, part.positions, strict=True)):
            key = species.tobytes(), positions.round(5).tobytes()
            found[key] = part.energies["wb97x_dz"][row], part.energies["ccsd(t)_cbs"][row]
    for place, atoms in enumerate(made_xyz.molecules(30)):
        positions = recentred(atoms.positions).round(5)
        dz, cc = found[atoms.numbers.astype(np.uint8).tobytes(), positions.tobytes()]
        assert dz == pytest.approx(made_xyz.energy(atoms, ["wb97x_dz"]) / units.Hartree, abs=1e-9)
        if place % 2:
            assert np.isnan(cc)
        else:
            expected = made_xyz.energy(atoms, ["ccsd(t)_cbs"]) / units.Hartree
            assert cc == pytest.approx(expected, abs=1e-9)


def test_no_structure_is_in_two_splits(level_files):
    """Nor in two places of one, although the files have different labels and orders."""
    parts = load(level_files)
    places = [
        (species.tobytes(), positions.tobytes())
        for part in parts.values()
        for species, positions in zip(part.species, part.positions, strict=True)
    ]
    assert len(set(places)) == len(places) == 150


def test_the_order_of_files_does_not_matter_and_their_levels_do(level_files):
    swapped = dict(reversed(level_files.items()))
    assert file_hash(swapped) == file_hash(level_files)
    assert file_hash(
        {"DZ": level_files["wb97x_dz"], "CC": level_files["ccsd(t)_cbs"]}
    ) == file_hash(level_files)
    assert file_hash(
        {"TZ": level_files["wb97x_dz"], "CC": level_files["ccsd(t)_cbs"]}
    ) != file_hash(level_files)
    for one, other in zip(load(level_files).values(), load(swapped).values(), strict=True):
        np.testing.assert_array_equal(one.positions, other.positions)
        np.testing.assert_array_equal(one.energies["ccsd(t)_cbs"], other.energies["ccsd(t)_cbs"])


@pytest.mark.parametrize("form", ["as in the issue", "repeated", "names last"])
def test_a_run_on_files_of_levels(level_files, tmp_path, form, capsys):
    dz, cc = (
        f"{name}={path}" for name, path in zip(("DZ", "CC"), level_files.values(), strict=True)
    )
    files = {
        "as in the issue": [NAME, "--train", dz, cc],
        "repeated": [NAME, "--train", cc, "--train", dz],
        "names last": ["--train", dz, cc, NAME],
    }[form]
    out = tmp_path / "out"
    assert exit_code("train", *files, "--rows", "all", "--out", out, *TINY_OPTIONS) == 0
    folder = folder_of(out)
    settings = folder.read_settings()
    assert settings.data.path == level_files
    assert list(settings.data.path) == ["wb97x_dz", "ccsd(t)_cbs"]
    log = folder.file("log.txt").read_text()
    assert "dz.xyz: 150 structures" in log
    assert "cc.xyz: 75 structures" in log
    assert "75 conformers are in several files" in log
    assert list(folder.read_metrics()["sets"]) == ["heldout"]

    before = folder.read_metrics()
    moved = []
    for name, path in (("DZ", level_files["wb97x_dz"]), ("CC", level_files["ccsd(t)_cbs"])):
        moved.append(f"{name}={path.rename(tmp_path / f'moved-{path.name}')}")
    assert exit_code("evaluate", folder.path, "--train", *moved) == 0
    assert folder.read_metrics() == before
    assert exit_code("evaluate", folder.path) == 2
    wrong = [moved[0], moved[0].replace("DZ=", "CC=")]
    assert exit_code("evaluate", folder.path, "--train", *wrong) == 2
    assert "Name the right one with --train" in capsys.readouterr().err


def test_a_campaign_takes_files_of_levels(level_files, tmp_path, capsys):
    files = [f"{level}={path}" for level, path in level_files.items()]
    plan = ["--experiments", f"{NAME},SF-CC/E", "--rows", "all", "--out", tmp_path / "out"]
    for command in ("campaign", "reproduce"):
        options = [*plan, *TINY_OPTIONS, "--dry-run", "--seeds", "0", "--device", "cpu"]
        assert exit_code(command, "--train", *files, *options) == 0
        assert "2 runs: 2 to do" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_a_database_is_made_of_files_of_levels(level_files):
    files = {"CC": level_files["ccsd(t)_cbs"], "DZ": level_files["wb97x_dz"]}
    database = load_database(files, LABELS, rows="all")
    energies = database.splits["train"]["ccsd(t)_cbs.energy"].numpy().ravel()
    labelled = energies[np.isfinite(energies)]
    expected = [
        made_xyz.energy(atoms, ["ccsd(t)_cbs"]) / units.Hartree
        - sum(SELF_ENERGIES[number] for number in atoms.numbers)
        for atoms in made_xyz.molecules(30)[::2]
    ]
    assert 50 < len(labelled) < 75
    apart = np.abs(np.array(expected)[:, None] * KCAL_PER_MOL_PER_HARTREE - labelled)
    assert apart.min(axis=0).max() < 1e-4


def test_files_of_levels_are_described_together(level_files, capsys):
    files = [f"{level}={path}" for level, path in level_files.items()]
    assert exit_code("data", "info", *files, "--json") == 0
    info = json.loads(capsys.readouterr().out)
    assert info["overlap"] == {"wb97x_dz & ccsd(t)_cbs": 75}
    assert info["levels"]["wb97x_dz"]["force_check"]["verdict"] == "passed"
    assert "75 conformers are in several files" in info["notes"]


# What is refused, before anything is written.


def refusal(capsys, tmp_path, *arguments):
    before = files_below(tmp_path)
    assert exit_code(*arguments, "--out", tmp_path / "out", *TINY_OPTIONS) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines()[-1].startswith("hippynn-mf: ")
    assert "Traceback" not in said.err
    assert files_below(tmp_path) == before
    return said.err


def test_common_rows_of_two_levels_are_refused_with_the_remedy(level_files, tmp_path, capsys):
    files = [f"{level}={path}" for level, path in level_files.items()]
    said = refusal(capsys, tmp_path, "train", NAME, "--train", *files, "--rows", "common")
    assert "energies of all of DZ, TZ, MP2, CC, and there are none of TZ, MP2." in said
    assert "Found: DZ/EF, CC/E. With --rows all every structure" in said


@pytest.mark.parametrize("suffix", ["h5", "xyz"])
def test_the_remedy_is_the_same_for_one_file(tmp_path, capsys, suffix):
    energies = {name: made_xyz.ENERGIES[name] for name in ("energy_wb97x_dz", "energy_ccsd(t)_cbs")}
    structures = made_xyz.label(made_xyz.molecules(20), energies)
    path = made_xyz.save(tmp_path / "a.xyz", structures)
    if suffix == "h5":
        convert_data(path, tmp_path / "a.h5")
    said = refusal(
        capsys, tmp_path, "train", NAME, *["--rows", "common", "--data", tmp_path / f"a.{suffix}"]
    )
    assert "there are none of TZ, MP2. Found: DZ/EF, CC/E. With --rows all" in said


def test_a_level_that_no_file_has_is_refused(level_files, tmp_path, capsys):
    files = [f"DZ={level_files['wb97x_dz']}"]
    said = refusal(capsys, tmp_path, "train", NAME, "--train", *files, "--rows", "all")
    assert "needs energy_ccsd(t)_cbs (level CC), and there is none. Found: DZ/EF." in said
    files = [f"DZ={level_files['ccsd(t)_cbs']}", f"CC={level_files['ccsd(t)_cbs']}"]
    said = refusal(capsys, tmp_path, "train", NAME, "--train", *files, "--rows", "all")
    assert "needs forces_wb97x_dz (level DZ), and there is none. Found: DZ/E, CC/E." in said


def test_gradients_are_refused_as_in_hdf5(tmp_path, capsys):
    structures = made_xyz.label(made_xyz.molecules(30))
    for atoms in structures:
        atoms.arrays["forces_wb97x_dz"] *= -1
    path = made_xyz.save(tmp_path / "a.xyz", structures)
    said = refusal(capsys, tmp_path, "train", NAME, "--data", path)
    assert "a.xyz: the forces of level wb97x_dz have the wrong sign" in said


def test_a_level_without_labels_in_a_split_is_refused(tmp_path, capsys):
    structures = made_xyz.label(made_xyz.molecules(20))
    for atoms in structures[1:]:
        del atoms.info["energy_ccsd(t)_cbs"]
    path = made_xyz.save(tmp_path / "a.xyz", structures)
    said = refusal(capsys, tmp_path, "train", NAME, "--data", path, "--rows", "all")
    assert "level ccsd(t)_cbs (CC) has no energy label in the valid split" in said


WRONG_FILES = {
    "unknown level": (["--train", "DZZ=a.xyz"], "Unknown level of theory 'DZZ'. Did you mean DZ"),
    "no level": (["--train", "a.xyz"], "LEVEL=FILE was expected, as DZ=dz.xyz; found 'a.xyz'"),
    "no file": (["--train", "DZ="], "LEVEL=FILE was expected, as DZ=dz.xyz; found 'DZ='"),
    "absent": (["--train", "DZ=absent.xyz"], "No file "),
    "twice": (["--train", "DZ=a.xyz", "wb97x_dz=b.xyz"], "[data]: level wb97x_dz is there twice"),
    "HDF5": (["--train", "DZ=a.h5"], "a.h5: the file of a level is extended XYZ"),
    "both": (["--train", "DZ=a.xyz", "--data", "a.h5"], "--data and --train both name"),
    "without --train": (["DZ=a.xyz"], "Unexpected: DZ=a.xyz. Files of levels follow --train"),
    "folder": (["--data", "folder.xyz"], "No file "),
}


@pytest.mark.parametrize("command", ["train", "campaign"])
@pytest.mark.parametrize("name", WRONG_FILES)
def test_wrong_files_are_refused(tmp_path, capsys, monkeypatch, name, command):
    arguments, message = WRONG_FILES[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.xyz").mkdir()
    planted.write_ani1x(tmp_path / "a.h5", 2)
    made_xyz.save(tmp_path / "a.xyz", made_xyz.label_mace(made_xyz.molecules(2), "wb97x_dz"))
    names = [NAME] if command == "train" else []
    assert message in refusal(capsys, tmp_path, command, *names, *arguments)


def test_levels_are_ordered_by_rank():
    files = as_data_path(parse_level_files(["CC=c.xyz", "TZ=t.extxyz", "wb97x_dz=d.XYZ"]))
    assert list(files) == [DZ.id, TZ.id, CC.id]


def test_settings_have_absolute_paths(level_files, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    relative = parse_level_files(["DZ=dz.xyz", "CC=cc.xyz"])
    (settings,) = build_settings([get_experiment(NAME)], [0], data=relative)
    assert settings.data.path == level_files
    assert settings.tests == ()
    assert settings.data.file_name == "wb97x_dz=dz.xyz ccsd(t)_cbs=cc.xyz"


def test_forces_that_a_level_is_read_without_are_noted(tmp_path):
    columns = {**made_xyz.FORCES, "forces_MP2": ("mp2_tz",)}
    path = made_xyz.save(tmp_path / "a.xyz", made_xyz.label(made_xyz.molecules(2), columns=columns))
    notes = describe_file(path)["notes"]
    assert notes[1:] == ["not used: forces_mp2_tz; level MP2 is read without forces"]
    convert_data(path, tmp_path / "a.h5")  # which keeps them
    convert_data(tmp_path / "a.h5", tmp_path / "back.xyz")
    structures = read(tmp_path / "back.xyz", index=":", format="extxyz")
    assert all("forces_mp2_tz" in atoms.arrays for atoms in structures)


def test_a_mistaken_source_of_levels_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"Every level has one file of its own; found DZ, wb97x_dz"):
        load({"DZ": tmp_path / "a.xyz", "wb97x_dz": tmp_path / "b.xyz"})
    with pytest.raises(UserError, match=r"found none"):
        load({})


# A further format: a reader and an entry of the table are all that it needs.


def read_mine(path, level, *, levels, declared):
    energy, forces = level_datasets(level)
    frames = []
    with np.load(path) as file:
        labels = (file[name] / KCAL_PER_MOL_PER_HARTREE for name in ("E", "F"))
        for number, (positions, *values) in enumerate(zip(file["R"], *labels, strict=True), 1):
            named = {energy: float(values[0])}, {forces: values[1]}
            frames.append(Frame(file["z"], positions, *named, None, path, number))
    return Content(frames, {}, [])


@pytest.mark.parametrize("unit", ["kcal/mol", "hartree"])
def test_a_further_format_is_read_checked_and_converted(tmp_path, monkeypatch, capsys, unit):
    further = FrameFormat("my format", (".mine",), read_mine, "kcal/mol")
    table = "hippynn_mf.data.formats.frame_formats.FRAME_FORMATS"
    monkeypatch.setattr(table, (*FRAME_FORMATS, further))
    numbers, factor = planted.numbers_of(planted.WATER[0]), 1.0
    positions = planted.conformers(planted.WATER, 60, seed=0)
    if unit == "kcal/mol":
        factor = KCAL_PER_MOL_PER_HARTREE
    with (tmp_path / "dz.mine").open("wb") as stream:
        np.savez(
            stream,
            z=numbers.astype(np.uint8),
            R=positions,
            E=planted.energy(numbers, positions, "wb97x_dz") * factor,
            F=planted.forces(numbers, positions, "wb97x_dz") * factor,
        )
    source, out = f"DZ={tmp_path / 'dz.mine'}", tmp_path / "dz.h5"
    code = exit_code("data", "convert", source, out)
    said = capsys.readouterr().err
    if unit == "hartree":
        assert code == 2
        assert "no total energies in kcal/mol" in said
        assert "They are in hartree. Give total energies in kcal/mol" in said.replace("\n", " ")
        return
    assert code == 0
    parts, same = (
        load(path, parse_labels({"DZ": "EF"})) for path in ({"DZ": tmp_path / "dz.mine"}, out)
    )
    for split in ("train", "valid", "test"):
        np.testing.assert_array_equal(
            parts[split].energies["wb97x_dz"], same[split].energies["wb97x_dz"]
        )
    (tmp_path / "dz.csv").write_text("energy")
    assert exit_code("data", "info", tmp_path / "dz.csv") == 2
    assert "my format (.mine)" in capsys.readouterr().err.replace("\n", " ")
