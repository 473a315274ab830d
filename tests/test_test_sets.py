"""Sets that are never trained on, of every layout: what a run says of them, and what is refused."""

import json
import shutil

import h5py
import made_xyz
import numpy as np
import planted
import pytest
import torch
from made_runs import (
    CC_FORCES,
    COMP6,
    TINY,
    build_settings,
    exit_code,
    files_below,
    make_run,
    make_settings,
    run_metrics,
)

from hippynn_mf.campaign.plan import plan_runs
from hippynn_mf.cli.texts import read_values
from hippynn_mf.data.checks.slopes import find_slope
from hippynn_mf.data.embedded import MINI_ANI1X, MINI_CC_FORCES, MINI_COMP6, MINI_COMP6_KEYS
from hippynn_mf.data.formats.ani1x import labels_in_file, read_ani1x
from hippynn_mf.data.formats.comp6 import PUBLIC_KEYS, read_comp6, read_key_map
from hippynn_mf.data.formats.sources import shown_path
from hippynn_mf.data.matching import find_shared
from hippynn_mf.errors import UserError
from hippynn_mf.evaluation.scoring import score_set
from hippynn_mf.evaluation.test_sets import read_test_set
from hippynn_mf.level_records import LevelRecord
from hippynn_mf.levels import CC, DZ, KNOWN_LEVELS, TZ, Level, Levels
from hippynn_mf.paper.table1 import get_experiment
from hippynn_mf.runs.build import requested_source
from hippynn_mf.runs.evaluate import evaluate_run
from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.runs.preflight import check_inputs, refuse_changed_files
from hippynn_mf.runs.request import Request
from hippynn_mf.runs.same_run import refuse_other_run
from hippynn_mf.runs.settings import RunSettings
from hippynn_mf.runs.sources import DataSource, TestSource
from hippynn_mf.runs.train import train_run

pytestmark = pytest.mark.filterwarnings("ignore:Provided distances are underneath:UserWarning")

NAME = "MF-DZ/EF-CC/E"
DZ_ID, TZ_ID, MP2_ID, CC_ID = "wb97x_dz", "wb97x_tz", "mp2_tz", "ccsd(t)_cbs"
FORCE = "force_rmse_kcal_per_mol_per_angstrom"
MISSING = {"H2O": {"ccsd(t)_cbs.forces": slice(0, 3), "wb97x_tz.energy": slice(1, 2)}}
SPECIES = (0, 1, 6, 7, 8)
FILES = {"ani1x": "test.h5", "comp6": "comp6.h5", "extxyz": "test.xyz", "cc": "cc.xyz"}
REFERENCES = {
    "heldout": {DZ_ID, TZ_ID, MP2_ID, CC_ID},
    "ani1x": {DZ_ID, TZ_ID, MP2_ID, CC_ID},
    "comp6": {DZ_ID, MP2_ID, CC_ID},
    "extxyz": {DZ_ID, TZ_ID, MP2_ID, CC_ID},
    "cc": {CC_ID},
}


def write_test_file(path, n=6, *, seed=5, **options):
    """A planted file with forces of CC, of conformers that no other planted file has."""
    return planted.write_ani1x(path, n, seed=seed, more_forces=planted.CC_FORCES, **options)


def asked(*texts, levels=KNOWN_LEVELS):
    """The test set that somebody asks for who types `--test` before each of these texts."""
    ((name, test),) = Request.of(read_values({"test": texts}, (), ())).tests.items()
    return requested_source(name, test, levels)


def sets_in(folder):
    """A test set of every layout: all levels, COMP6 with a cut, extended XYZ, and one level."""
    keys = read_key_map(MINI_COMP6_KEYS)
    return (
        asked(f"ani1x={folder / 'test.h5'}"),
        TestSource.of("comp6", folder / "comp6.h5", keys=keys, energy_cut=100.0),
        asked(f"extxyz={folder / 'test.xyz'}"),
        asked(f"cc=CC:{folder / 'cc.xyz'}"),
    )


def settings_of(folder, tests=()):
    """Settings of a run on `data.h5` of a folder, without the default test sets."""
    (settings,) = build_settings(
        [get_experiment(NAME)], [0], data=folder / "data.h5", overrides=TINY, device="cpu"
    )
    return settings.with_tests(tests)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Data, files that test, and a run with them and one without, in out/ and out-without/."""
    folder = tmp_path_factory.mktemp("trained")
    planted.write_ani1x(folder / "data.h5")
    write_test_file(folder / "test.h5", missing=MISSING)
    planted.write_comp6(folder / "comp6.h5", spread=0.02)  # none beyond the cut
    made_xyz.save(folder / "test.xyz", made_xyz.label(made_xyz.molecules(6, seed=8)))
    one_level = made_xyz.label_results(made_xyz.molecules(6, seed=9), CC_ID)
    made_xyz.save(folder / "cc.xyz", one_level)
    train_run(settings_of(folder, sets_in(folder)), folder / "out")
    train_run(settings_of(folder), folder / "out-without")
    return folder


def folder_in(out):
    return RunFolder(out / "runs" / "mf_dz_ef_cc_e" / "seed-0")


@pytest.fixture
def without(trained, tmp_path):
    """A finished run that was tested on nothing but its held-out structures, its own copy."""
    shutil.copytree(trained / "out-without", tmp_path / "out")
    return folder_in(tmp_path / "out")


def rms(errors):
    return np.sqrt(np.mean(np.square(errors)))


@pytest.mark.parametrize("name", REFERENCES)
def test_every_head_has_errors_against_every_level_of_every_set(trained, name):
    folder = folder_in(trained / "out")
    metrics = folder.read_metrics()
    assert list(metrics["sets"]) == list(REFERENCES)
    errors = metrics["sets"][name]
    found = {head: set(of_head) for head, of_head in errors.items()}
    assert found == dict.fromkeys((DZ_ID, CC_ID), REFERENCES[name])
    stored = folder.read_predictions()
    atoms = stored[f"{name}.species"] > 0
    n = len(atoms)
    assert stored[f"{name}.rows"].shape == stored[f"{name}.groups"].shape == (n,)
    for head in (DZ_ID, CC_ID):
        predicted = stored[f"{name}.{head}.forces"]
        for level in REFERENCES[name]:
            entry = errors[head][level]
            true = stored.get(f"{name}.reference.{level}.forces")
            if true is None:
                assert entry[FORCE] is None
                assert entry["force_reason"] == "the file has no forces of this level"
                continue
            assert entry["n_structures"] == n
            labelled = atoms & np.isfinite(true).all(axis=2)
            assert entry["n_force_components"] == 3 * labelled.sum()
            assert entry[FORCE] == pytest.approx(rms((predicted - true)[labelled]))


def test_labels_that_are_missing_in_a_file_are_not_counted(trained):
    folder = folder_in(trained / "out")
    errors = folder.read_metrics()["sets"]["ani1x"]
    atoms = folder.read_predictions()["ani1x.species"] > 0
    assert atoms.shape == (30, 5)
    for head in (DZ_ID, CC_ID):
        assert errors[head][CC_ID]["n_force_components"] == 3 * (atoms.sum() - 3 * 3)
        assert errors[head][TZ_ID]["n_energies"] == 29
        assert errors[head][TZ_ID]["n_structures"] == 30


def test_the_references_are_the_planted_truth(trained):
    stored = folder_in(trained / "out").read_predictions()
    with h5py.File(trained / "test.h5") as file:
        groups = {name: {key: group[key][()] for key in group} for name, group in file.items()}
    for place, group in enumerate(groups.values()):
        numbers = group["atomic_numbers"]
        rows, n_atoms = slice(6 * place, 6 * place + 6), len(numbers)
        own = sum(planted.SELF_ENERGIES[z] for z in numbers)
        energies = 627.509474 * (group["ccsd(t)_cbs.energy"] - own)
        found = stored[f"ani1x.reference.{CC_ID}.energy"][rows]
        np.testing.assert_allclose(found, energies, rtol=1e-6)
        forces = 627.509474 * group["ccsd(t)_cbs.forces"]
        found = stored[f"ani1x.reference.{CC_ID}.forces"][rows, :n_atoms]
        np.testing.assert_allclose(found, forces, rtol=1e-5, atol=1e-5)


def test_plain_energies_of_a_file_of_one_level_are_that_level_s(trained):
    stored = folder_in(trained / "out").read_predictions()
    of_set = {name for name in stored if name.startswith("cc.reference.")}
    assert of_set == {f"cc.reference.{CC_ID}.energy", f"cc.reference.{CC_ID}.forces"}
    by_file = made_xyz.molecules(6, seed=9)
    expected = [
        23.0605478 * made_xyz.energy(atoms, [CC_ID])
        - 627.509474 * sum(planted.SELF_ENERGIES[z] for z in atoms.numbers)
        for atoms in by_file
    ]
    found = stored[f"cc.reference.{CC_ID}.energy"]
    np.testing.assert_allclose(np.sort(found), np.sort(expected), atol=1e-2)


# What evaluating adds, and that nothing is trained on.

COSTS = {"training": None, "inference": None, "predictions_sha256": None, "warnings": None}


def test_nothing_of_the_sets_is_trained_on_or_held_out(trained):
    one, other = folder_in(trained / "out"), folder_in(trained / "out-without")
    for name in ("split.npz", "model.pt"):
        assert one.file(name).read_bytes() == other.file(name).read_bytes()
    metrics = [folder.read_metrics() | COSTS for folder in (one, other)]
    assert metrics[1] == metrics[0] | {"sets": {"heldout": metrics[0]["sets"]["heldout"]}}
    sets = {name.partition(".")[0] for name in other.read_predictions()}
    assert sets == {"heldout"}


def test_evaluating_adds_sets_to_a_run_that_has_none(trained, without):
    before = json.loads(without.file("experiment.json").read_text())
    for source in sets_in(trained):
        evaluate_run(without, tests=[source], device="cpu")
    settings = without.read_settings()
    assert settings.tests == sets_in(trained)
    after = json.loads(without.file("experiment.json").read_text())
    assert after["settings"].pop("tests") != before["settings"].pop("tests") == []
    checks = after.pop("checks")
    assert [report["source"] for report in checks] == [
        *(report["source"] for report in before.pop("checks")),
        *(str(shown_path(source.path)) for source in sets_in(trained)),
    ]
    assert all(report["outcomes"] for report in checks)
    assert after == before
    expected = folder_in(trained / "out")
    assert without.read_metrics()["sets"] == expected.read_metrics()["sets"]
    stored = expected.read_predictions()
    assert stored.keys() == without.read_predictions().keys()
    for name, values in without.read_predictions().items():
        np.testing.assert_array_equal(stored[name], values, err_msg=name)
    # From now on it is a run of this campaign, and is not trained again.
    assert settings_of(trained, sets_in(trained)).differences(settings) == []
    # The command that trained it, which names no sets, keeps it too.
    refuse_other_run(without, settings_of(trained, []))
    with pytest.raises(UserError, match=r"holds another run: rows: .*Choose another --out"):
        refuse_other_run(without, settings_of(trained, []).model_copy(update={"rows": "common"}))
    evaluate_run(without, device="cpu")
    assert without.read_metrics()["sets"] == expected.read_metrics()["sets"]


def test_a_killed_evaluation_is_made_whole_by_the_command_of_the_message(
    trained, without, monkeypatch
):
    from test_runs import Killed, kill_after

    source = sets_in(trained)[0]
    with monkeypatch.context() as patch:
        kill_after(patch, 2)
        with pytest.raises(Killed):
            evaluate_run(without, tests=[source], device="cpu")
    with pytest.raises(UserError, match=f"'hippynn-mf evaluate {without.path}' makes both"):
        without.read_metrics()
    assert exit_code("evaluate", without.path, "--device", "cpu") == 0
    assert list(without.read_metrics()["sets"]) == ["heldout", "ani1x"]
    expected = folder_in(trained / "out").read_metrics()["sets"]["ani1x"]
    assert without.read_metrics()["sets"]["ani1x"] == expected


@pytest.mark.parametrize("name", ["data", *FILES])
def test_a_file_may_move_but_is_not_another_one(trained, tmp_path, name):
    shutil.copytree(trained / "out", tmp_path / "out")
    folder = folder_in(tmp_path / "out")
    filename = FILES.get(name, "data.h5")
    moved = shutil.copy(trained / filename, tmp_path / f"moved-{filename}")
    metrics = folder.read_metrics()
    source = {CC_ID: moved} if name == "cc" else moved
    evaluate_run(folder, moved={name: source}, device="cpu")
    assert folder.read_metrics() == metrics
    before = files_below(folder.path)
    with open(moved, "ab") as stream:
        stream.write(b"\n")
    option = {"data": "--data", "comp6": "--comp6"}.get(name, f"--test {name}=FILE")
    with pytest.raises(UserError, match=rf"is not the file of this run.*Name .* with {option}"):
        evaluate_run(folder, moved={name: source}, device="cpu")
    assert files_below(folder.path) == before


def test_a_set_of_the_name_is_not_replaced_and_unknown_names_are_listed(trained, tmp_path):
    folder = folder_in(shutil.copytree(trained / "out", tmp_path / "out"))
    before = files_below(folder.path)
    other = TestSource.of("ani1x", write_test_file(tmp_path / "other.h5", seed=6))
    with pytest.raises(UserError, match=r"other\.h5 is not the file of this run"):
        evaluate_run(folder, tests=[other], device="cpu")
    uncut = TestSource.of("comp6", trained / "comp6.h5", keys=read_key_map(MINI_COMP6_KEYS))
    with pytest.raises(UserError, match=r"comp6 of this run has energy_cut_.* 100\.0, not None"):
        evaluate_run(folder, tests=[uncut], device="cpu")
    match = "has no test set nosuch. Its files are data, ani1x, comp6, extxyz, cc"
    with pytest.raises(UserError, match=match):
        evaluate_run(folder, moved={"nosuch": trained / "test.h5"}, device="cpu")
    assert files_below(folder.path) == before


@pytest.mark.parametrize("name", ["data", "ani1x", "comp6"])
def test_a_file_that_changes_stops_a_campaign(trained, tmp_path, name):
    for filename in ("data.h5", *FILES.values()):
        shutil.copy(trained / filename, tmp_path / filename)
    settings = settings_of(tmp_path, sets_in(tmp_path))
    refuse_changed_files(settings)
    path = tmp_path / FILES.get(name, "data.h5")
    with h5py.File(path, "r+") as file:
        file.create_group("more")
    with pytest.raises(UserError, match=rf"{path.name} has changed since the campaign began"):
        refuse_changed_files(settings)
    folder = RunFolder.of(tmp_path / "out", settings)
    folder.prepare(settings, facts={})
    changed = settings_of(tmp_path)
    if name != "data":
        changed = changed.with_tests(
            source.model_copy(update={"sha256": "0" * 64}) if source.name == name else source
            for source in settings.tests
        )
    with pytest.raises(UserError, match=rf"{path.name} has changed since .*seed-0 began"):
        refuse_other_run(folder, changed)


# What is refused before anything is trained.


def leak(trained, folder, nudge):
    """Copy the files; one nitrogen and two methanes of the data are in the test file, moved."""
    shutil.copy(trained / "data.h5", folder / "data.h5")
    path = shutil.copy(trained / "test.h5", folder / "test.h5")
    with h5py.File(folder / "data.h5") as data, h5py.File(path, "r+") as test:
        for name, rows in (("CH4", [3, 17]), ("N2", [8])):
            for key in set(test[name]) - {"atomic_numbers"}:
                values = test[name][key][()]
                copied = data[name][key][()][rows] if key in data[name] else np.nan
                values[2 : 2 + len(rows)] = copied
                test[name][key][...] = values
        test["CH4"]["coordinates"][2:4, 1, 2] += nudge
    return settings_of(folder, [TestSource.of("leak", path)])


def test_conformers_that_were_trained_on_are_refused_with_their_number(trained, tmp_path):
    settings = leak(trained, tmp_path, 5e-7)
    message = (
        r"test\.h5: 3 of its 30 conformers are also in .*data\.h5, however turned, "
        r"mirrored or ordered \(of CH4, N2\).*remove them"
    )
    with pytest.raises(UserError, match=message):
        train_run(settings, tmp_path / "out")
    with pytest.raises(UserError, match=message):
        check_inputs([settings])
    assert not (tmp_path / "out").exists()


def test_a_conformer_with_an_atom_elsewhere_is_another_one(trained, tmp_path):
    settings = leak(trained, tmp_path, 2e-4)
    with pytest.raises(UserError, match=r"test\.h5: 1 of its 30 conformers.*\(of N2\)"):
        check_inputs([settings])


def test_evaluating_on_what_was_trained_on_is_refused(trained, without, tmp_path):
    settings = leak(trained, tmp_path, 0.0)
    before = files_below(without.path)
    with pytest.raises(UserError, match="3 of its 30 conformers are also in"):
        evaluate_run(without, tests=settings.tests, device="cpu")
    assert files_below(without.path) == before


def test_comp6_conformers_that_were_trained_on_are_refused(trained, tmp_path):
    shutil.copy(trained / "data.h5", tmp_path / "data.h5")
    planted.write_comp6(tmp_path / "comp6.h5")
    with h5py.File(tmp_path / "data.h5") as data, h5py.File(tmp_path / "comp6.h5", "r+") as comp6:
        comp6["planted/N2/coordinates"][1] = data["N2/coordinates"][4]
        comp6["planted/N2/energies"][1] = data["N2/wb97x_dz.energy"][4]
        comp6["planted/N2/forces"][1] = -data["N2/wb97x_dz.forces"][4]
    source = TestSource.of("comp6", tmp_path / "comp6.h5", energy_cut=100.0)
    settings = settings_of(tmp_path, [source])
    with pytest.raises(UserError, match=r"comp6\.h5: 1 of its 30 conformers.*\(of planted/N2\)"):
        check_inputs([settings])


def test_shared_conformers_are_found_by_atoms_and_positions(tmp_path):
    path = planted.write_ani1x(tmp_path / "a.h5", 5)
    structures, _ = read_ani1x(path, labels_in_file(path))
    assert find_shared(structures, structures).all()
    some = np.array([2, 11, 24])
    expected = np.isin(np.arange(25), some)
    np.testing.assert_array_equal(find_shared(structures, structures[some]), expected)
    assert find_shared(structures[some], structures).all()
    waters = structures[structures.species[:, 0] == 8]
    others = waters.species[:]
    others[others == 8] = 7  # the same positions of other atoms
    assert not find_shared(type(waters)(**{**vars(waters), "species": others}), structures).any()


def test_the_embedded_sets_are_the_default_with_the_embedded_data(trained):
    (settings,) = build_settings([get_experiment(NAME)], [0])
    assert settings.tests == (
        TestSource.of("comp6", MINI_COMP6, keys=read_key_map(MINI_COMP6_KEYS), energy_cut=100.0),
        TestSource.of("cc-forces", MINI_CC_FORCES),
    )
    assert settings_of(trained).tests == ()


@pytest.mark.parametrize("path", [MINI_CC_FORCES, MINI_COMP6], ids=["CC forces", "COMP6"])
def test_no_embedded_conformer_that_tests_is_in_the_embedded_data(path):
    if path == MINI_COMP6:
        structures = read_comp6(path, read_key_map(MINI_COMP6_KEYS))
    else:
        structures, _ = read_ani1x(path, labels_in_file(path))
    data, _ = read_ani1x(MINI_ANI1X, labels_in_file(MINI_ANI1X))
    assert not find_shared(structures, data).any()


@pytest.mark.parametrize("level", [DZ, TZ, CC], ids=lambda level: level.label)
def test_the_embedded_file_proves_the_sign_of_its_forces(level):
    structures, _ = read_ani1x(MINI_CC_FORCES, labels_in_file(MINI_CC_FORCES))
    found = find_slope(structures, level)
    assert found.verdict == "forces"
    assert found.n_pairs > 10
    assert found.correlation > 0.99


def test_forces_of_too_few_conformers_are_used_as_training_uses_them_and_it_is_said(tmp_path):
    reports = []
    path = write_test_file(tmp_path / "few.h5", 2)
    test = read_test_set("few", path, species=SPECIES, reports=reports)
    entry = score_set(test.labels.labels, test.labels, [CC])[CC_ID][CC_ID]
    assert entry["energy_rmse_kcal_per_mol"] == 0
    assert entry[FORCE] == 0
    outcome = reports[0].of("forces", CC_ID)
    assert outcome.verdict == "undecided"
    why = "5 pairs of close conformers, 10 are needed; 20 bonds of hydrogen are too few"
    assert f"({why}); they are used" in outcome.text


def test_a_file_without_any_label_tests_nothing(trained, tmp_path):
    shutil.copy(trained / "test.h5", tmp_path / "test.h5")
    with h5py.File(tmp_path / "test.h5", "r+") as file:
        for group in file.values():
            for key in set(group) - {"atomic_numbers", "coordinates"}:
                del group[key]
    settings = settings_of(trained, [TestSource.of("empty", tmp_path / "test.h5")])
    match = r"test\.h5 has no label of a known level.*or leave test set empty out"
    with pytest.raises(UserError, match=match):
        check_inputs([settings])


# What a user types.


def test_a_set_is_named_with_its_file_and_its_level(trained):
    ani1x, comp6, extxyz, cc = sets_in(trained)
    for source in (ani1x, extxyz, cc):
        assert (source.keys, source.energy_cut_kcal_per_mol) == (None, None)
    assert ani1x.path == trained / "test.h5"
    assert cc.path == {CC_ID: trained / "cc.xyz"}
    assert asked(f"c={trained / 'comp6.h5'}").keys == PUBLIC_KEYS
    assert comp6.option == f"--comp6 {trained / 'comp6.h5'}"
    for source in (ani1x, extxyz, cc):
        assert asked(*source.option.split(" ")[1::2]) == source


def test_every_file_of_a_set_of_several_levels_is_an_option_of_its_own(trained):
    files = {DZ_ID: trained / "cc.xyz", CC_ID: trained / "cc.xyz"}
    source = TestSource.of("both", files)
    words = source.option.split(" ")
    assert words[::2] == ["--test", "--test"]
    assert asked(*words[1::2]) == source


WRONG = {
    "no name": ("test.h5", r"--test expects NAME=FILE or NAME=LEVEL:FILE; found 'test\.h5'"),
    "no file": ("a=", "--test expects NAME=FILE"),
    "a wrong name": ("A b=test.h5", r"'A b' is no name for an entry"),
    "the held-out set": ("heldout=test.h5", "heldout is the test set of every run; choose another"),
    "the training data": (
        "data=test.h5",
        "not data or valid or heldout or parent-data; found 'data'",
    ),
    "absent": ("a=absent.h5", r"No file .*absent\.h5"),
    "an unknown level": ("a=CX:cc.xyz", "Unknown level of theory 'CX'"),
    "a level of HDF5": ("a=CC:test.h5", r"test\.h5: the file of a level is extended XYZ"),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=list(WRONG))
def test_what_names_no_set_is_refused(trained, monkeypatch, text, message):
    monkeypatch.chdir(trained)
    with pytest.raises(UserError, match=message):
        asked(text)


@pytest.mark.parametrize("name", ["A b", "heldout", "data"])
def test_a_source_has_a_name_of_its_own(trained, name):
    with pytest.raises(UserError, match=rf"named by lower-case letters, digits.*found '{name}'"):
        TestSource.of(name, trained / "test.h5")


def test_a_cut_is_for_molecules(trained):
    with pytest.raises(UserError, match=r"test\.h5: an energy cut is for files in the COMP6 layou"):
        TestSource.of("a", trained / "test.h5", energy_cut=100.0)


# Runs in one folder.


@pytest.mark.parametrize(
    ("source", "option"),
    [(CC_FORCES, "--test cc-forces=/data/cc-forces.h5"), (COMP6, "--comp6 /data/comp6.h5")],
    ids=["a file", "COMP6"],
)
def test_a_finished_run_without_a_set_names_the_command_that_adds_it(tmp_path, source, option):
    folder = make_run(tmp_path, NAME, 0, run_metrics(), tests=())
    settings = make_settings(NAME, tests=(source,))
    message = (
        rf"seed-0 holds another run: tests\.{source.name}: None → .*'hippynn-mf evaluate "
        rf".*runs/\*/seed-\* {option}' adds these errors"
    )
    with pytest.raises(UserError, match=message):
        refuse_other_run(folder, settings)
    (planned,) = plan_runs([settings], tmp_path)
    assert planned.state == "broken"
    assert "hippynn-mf evaluate" in planned.detail
    with pytest.raises(UserError, match="holds another run") as error:
        refuse_other_run(folder, make_settings(NAME, split_seed=1, tests=()))
    assert "hippynn-mf evaluate" not in str(error.value)


def test_an_unfinished_run_goes_on_with_a_further_set(tmp_path):
    folder = make_run(tmp_path, NAME, 0, None)
    folder.prepare(make_settings(NAME, tests=(COMP6, CC_FORCES)), facts={})
    assert folder.read_settings().tests == (COMP6, CC_FORCES)
    with pytest.raises(UserError, match=r"holds another run: tests\.cc-forces: 'cc-forces\.h5' → "):
        refuse_other_run(folder, make_settings(NAME))  # which would lose it


def test_where_the_file_lies_makes_no_difference():
    before = make_settings(NAME, tests=(CC_FORCES,))
    moved = CC_FORCES.model_copy(update={"path": "/mnt/cc.h5"})
    assert make_settings(NAME, tests=(moved,)).differences(before) == []
    assert RunSettings.model_validate_json(before.model_dump_json()) == before


# Inputs of several runs.


def test_inputs_of_every_run_of_a_group_are_checked_before_any_training(tmp_path):
    """No structure has energies of both levels, which only the second run needs."""
    lost = {
        name: {"ccsd(t)_cbs.energy": slice(0, 12), "wb97x_dz.energy": slice(12, 24)}
        for name in planted.MOLECULES
    }
    path = planted.write_ani1x(tmp_path / "disjoint.h5", 24, missing=lost)
    experiments = [get_experiment(name) for name in (NAME, "DELTA-DZ/EF-CC/E")]
    options = {"data": path, "rows": "all", "overrides": TINY, "device": "cpu"}
    runs = build_settings(experiments, [0, 1], **options)
    check_inputs(runs[:1])
    with pytest.raises(UserError, match="energies of both CC and DZ; the train split has none"):
        check_inputs(runs)


def test_runs_that_differ_in_hyperparameters_share_a_reading_and_each_is_checked(
    trained, monkeypatch
):
    from hippynn_mf.runs import preflight

    reads = []
    load_parts = preflight.load_parts

    def counted(*arguments, **options):
        reads.append(arguments)
        return load_parts(*arguments, **options)

    monkeypatch.setattr(preflight, "load_parts", counted)
    one = settings_of(trained)
    sizes = one.hyperparameters.model_copy(update={"n_features": 5})
    other = one.model_copy(update={"hyperparameters": sizes, "seed": 1})
    check_inputs([one, other])
    assert len(reads) == 1
    few = one.hyperparameters.model_copy(update={"species": (0, 1, 6, 7)})
    poor = one.model_copy(update={"hyperparameters": few, "seed": 2})
    with pytest.raises(UserError, match=r"Atomic numbers \[8\] are outside the species"):
        check_inputs([one, poor])
    wrong = one.hyperparameters.model_copy(update={"stopping_metric": "TZ"})
    with pytest.raises(UserError, match="Unknown stopping criterion 'TZ'"):
        check_inputs([one, one.model_copy(update={"hyperparameters": wrong, "seed": 3})])


def test_checking_inputs_builds_no_network_and_draws_no_random_number(trained, monkeypatch):
    from hippynn_mf.runs import models

    def build(*arguments, **options):
        raise AssertionError("a network was built")

    monkeypatch.setattr(models, "build_model", build)
    torch.manual_seed(5)
    before, of_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()
    check_inputs([settings_of(trained, sets_in(trained))])
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], of_numpy)


def test_a_run_of_levels_that_nothing_else_knows_is_trained_and_tested(trained, tmp_path):
    """DZ labels under another name, in the data and in a test file of this level alone."""
    own = Level("own", "OWN", "m", "b", 1.0, ("own.energy",), "own.forces")
    levels = Levels([own])
    structures = made_xyz.label_results(made_xyz.molecules(16), DZ_ID)
    made_xyz.save(tmp_path / "data.xyz", structures)
    made_xyz.save(
        tmp_path / "own.xyz", made_xyz.label_results(made_xyz.molecules(6, seed=4), DZ_ID)
    )
    plain = {"name": "SF-OWN/EF", "slug": "sf_own_ef", "strategy": "SF", "labels": {"own": "EF"}}
    settings = settings_of(trained).model_copy(
        update=plain
        | {
            "levels": (LevelRecord.of(own),),
            "common_levels": ("own",),
            "data": DataSource.of({"OWN": tmp_path / "data.xyz"}, levels=levels),
            "tests": (asked(f"unseen=OWN:{tmp_path / 'own.xyz'}", levels=levels),),
        }
    )
    check_inputs([settings])
    folder = train_run(settings, tmp_path / "out")
    metrics = folder.read_metrics()
    assert set(metrics["sets"]) == {"heldout", "unseen"}
    entry = metrics["sets"]["unseen"]["own"]["own"]
    assert (entry["n_energies"], entry["n_structures"]) == (30, 30)
    assert entry[FORCE] > 0
    assert folder.read_settings() == settings
    evaluate_run(folder, device="cpu")
    assert folder.read_metrics()["sets"] == metrics["sets"]
    with pytest.raises(UserError, match="Unknown level"):
        asked(f"unseen=OWN:{tmp_path / 'own.xyz'}")
