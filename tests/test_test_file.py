"""A file that is never trained on: what a run says of it, and that it is none of the data."""

import json
import shutil

import h5py
import numpy as np
import planted
import pytest
from made_runs import (
    TINY,
    build_settings,
    exit_code,
    files_below,
    make_run,
    make_settings,
    run_metrics,
)

from hippynn_mf.campaign.plan import plan_runs
from hippynn_mf.data.checks import require_force_sign
from hippynn_mf.data.embedded import MINI_ANI1X, MINI_CC_FORCES
from hippynn_mf.data.formats.ani1x import labels_in_file, read_ani1x
from hippynn_mf.data.merging import find_shared
from hippynn_mf.errors import UserError
from hippynn_mf.evaluation.scoring import heldout_metrics
from hippynn_mf.evaluation.test_sets import proved_set
from hippynn_mf.levels import CC, DZ, TZ
from hippynn_mf.report.results import read_results
from hippynn_mf.runs.experiment import get_experiment
from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.runs.preflight import check_inputs, refuse_changed_files
from hippynn_mf.runs.settings import DataSource, RunSettings
from hippynn_mf.runs.train import train_run

pytestmark = pytest.mark.filterwarnings("ignore:Provided distances are underneath:UserWarning")

NAME = "MF-DZ/EF-CC/E"
DZ_ID, TZ_ID, MP2_ID, CC_ID = "wb97x_dz", "wb97x_tz", "mp2_tz", "ccsd(t)_cbs"
FORCE = "force_rmse_kcal_per_mol_per_angstrom"
MISSING = {"H2O": {"ccsd(t)_cbs.forces": slice(0, 3), "wb97x_tz.energy": slice(1, 2)}}


def write_test_file(path, n=6, *, seed=5, **options):
    """A planted file with forces of CC, of conformers that no other planted file has."""
    return planted.write_ani1x(path, n, seed=seed, more_forces=planted.CC_FORCES, **options)


def settings_of(folder, **changes):
    values = {"data": folder / "data.h5", "test_file": folder / "test.h5"} | changes
    return build_settings([get_experiment(NAME)], [0], overrides=TINY, device="cpu", **values)[0]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Data, a test file, and a run with it and one without it, in out/ and out-without/."""
    folder = tmp_path_factory.mktemp("trained")
    planted.write_ani1x(folder / "data.h5")
    write_test_file(folder / "test.h5", missing=MISSING)
    train_run(settings_of(folder), folder / "out")
    train_run(settings_of(folder, test_file=None), folder / "out-without")
    return folder


def folder_in(out):
    return RunFolder(out / "runs" / "mf_dz_ef_cc_e" / "seed-0")


@pytest.fixture
def without(trained, tmp_path):
    """A finished run of before there was a test file, its own copy."""
    shutil.copytree(trained / "out-without", tmp_path / "out")
    folder = folder_in(tmp_path / "out")
    content = json.loads(folder.file("experiment.json").read_text())
    del content["settings"]["test_file"]
    folder.file("experiment.json").write_text(json.dumps(content))
    content = json.loads(folder.file("metrics.json").read_text())
    del content["test_file"]
    folder.file("metrics.json").write_text(json.dumps(content))
    return folder


def rms(errors):
    return np.sqrt(np.mean(np.square(errors)))


def test_every_head_has_errors_against_every_level_of_the_file(trained):
    folder = folder_in(trained / "out")
    errors = folder.read_metrics()["test_file"]
    assert {head: set(found) for head, found in errors.items()} == {
        head: {DZ_ID, TZ_ID, MP2_ID, CC_ID} for head in (DZ_ID, CC_ID)
    }
    stored = folder.read_predictions()
    atoms = stored["test_file.species"] > 0
    assert atoms.shape == (30, 5)
    np.testing.assert_array_equal(stored["test_file.rows"], np.arange(30))
    for head in (DZ_ID, CC_ID):
        predicted = stored[f"test_file.{head}.forces"]
        for level in (DZ_ID, TZ_ID, CC_ID):
            true = stored[f"test_file.reference.{level}.forces"]
            labelled = atoms & np.isfinite(true).all(axis=2)
            entry = errors[head][level]
            assert entry["n_force_components"] == 3 * labelled.sum()
            assert entry[FORCE] == pytest.approx(rms((predicted - true)[labelled]))
        assert errors[head][CC_ID]["n_force_components"] == 3 * (atoms.sum() - 3 * 3)
        assert errors[head][TZ_ID]["n_energies"] == 29
        assert errors[head][MP2_ID][FORCE] is None
        assert errors[head][MP2_ID]["force_reason"] == "the file has no forces of this level"


def test_the_references_are_the_planted_truth(trained):
    stored = folder_in(trained / "out").read_predictions()
    with h5py.File(trained / "test.h5") as file:
        groups = {name: {key: group[key][()] for key in group} for name, group in file.items()}
    place = 0
    for group in groups.values():
        numbers = group["atomic_numbers"]
        rows, n_atoms = slice(place, place + 6), len(numbers)
        place += 6
        own = sum(planted.SELF_ENERGIES[z] for z in numbers)
        energies = 627.509474 * (group["ccsd(t)_cbs.energy"] - own)
        found = stored[f"test_file.reference.{CC_ID}.energy"][rows]
        np.testing.assert_allclose(found, energies, rtol=1e-6)
        forces = 627.509474 * group["ccsd(t)_cbs.forces"]
        found = stored[f"test_file.reference.{CC_ID}.forces"][rows, :n_atoms]
        np.testing.assert_allclose(found, forces, rtol=1e-5, atol=1e-5)


COSTS = {"training": None, "inference": None}  # differ from one training to the next


def test_nothing_of_the_file_is_trained_on_or_held_out(trained):
    one, other = folder_in(trained / "out"), folder_in(trained / "out-without")
    for name in ("split.npz", "model.pt"):
        assert one.file(name).read_bytes() == other.file(name).read_bytes()
    metrics = [folder.read_metrics() | COSTS for folder in (one, other)]
    assert metrics[0] == metrics[1] | {"test_file": metrics[0]["test_file"]}
    assert metrics[1]["test_file"] is None
    assert not any("test_file" in name for name in other.read_predictions())


def test_a_run_of_before_is_read_and_has_no_test_file(without):
    assert without.read_settings().test_file is None
    assert "test_file" not in without.read_metrics()


def test_evaluating_adds_a_test_file_to_a_run_that_has_none(trained, without, capsys):
    before = json.loads(without.file("experiment.json").read_text())
    assert exit_code("evaluate", without.path, "--test", f"mine={trained / 'test.h5'}") == 0
    assert capsys.readouterr().out == f"{without.file('metrics.json')}\n"
    settings = without.read_settings()
    assert settings.test_file == DataSource.of(trained / "test.h5")
    after = json.loads(without.file("experiment.json").read_text())
    del after["settings"]["test_file"]
    assert after == before
    expected = folder_in(trained / "out")
    assert without.read_metrics()["test_file"] == expected.read_metrics()["test_file"]
    for name, values in expected.read_predictions().items():
        np.testing.assert_array_equal(without.read_predictions()[name], values, err_msg=name)
    # From now on it is a run of this campaign, and is not trained again.
    assert settings_of(trained).differences(settings) == []
    assert exit_code("evaluate", without.path) == 0
    assert without.read_metrics()["test_file"] == expected.read_metrics()["test_file"]


def test_a_test_file_may_move_but_is_not_another_one(trained, without, tmp_path, capsys):
    assert exit_code("evaluate", without.path, "--test", f"mine={trained / 'test.h5'}") == 0
    metrics = without.read_metrics()
    moved = shutil.copy(trained / "test.h5", tmp_path / "moved.h5")
    assert exit_code("evaluate", without.path, "--test", f"mine={moved}") == 0
    assert without.read_metrics() == metrics
    other = write_test_file(tmp_path / "other.h5", seed=6)
    before = files_below(without.path)
    capsys.readouterr()
    assert exit_code("evaluate", without.path, "--test", f"mine={other}") == 2
    said = capsys.readouterr().err
    assert "other.h5 is not the file of this run" in said
    assert "Name the right one with --test" in said
    assert files_below(without.path) == before


def test_a_file_that_changes_stops_a_campaign(trained, tmp_path):
    for name in ("data.h5", "test.h5"):
        shutil.copy(trained / name, tmp_path / name)
    settings = settings_of(tmp_path)
    refuse_changed_files(settings)
    planted.replace(tmp_path / "test.h5", "H2O", "ccsd(t)_cbs.forces", None)
    with pytest.raises(UserError, match=r"test\.h5 has changed since the campaign began"):
        refuse_changed_files(settings)
    make_run(tmp_path / "out", NAME, 0, None, test_file=settings.test_file)
    changed = make_settings(NAME, test_file=DataSource.of(tmp_path / "test.h5"))
    with pytest.raises(UserError, match=r"test\.h5 has changed since .*seed-0 began"):
        RunFolder.of(tmp_path / "out", changed).refuse_other(changed)


def leak(trained, folder, nudge):
    """Copy the files; one nitrogen and two methanes of the data are in the test file, moved."""
    shutil.copy(trained / "data.h5", folder / "data.h5")
    path = shutil.copy(trained / "test.h5", folder / "test.h5")
    with h5py.File(folder / "data.h5") as data, h5py.File(path, "r+") as test:
        for name, rows in (("CH4", [3, 17]), ("N2", [8])):
            for key in test[name]:
                if key in data[name] and key != "atomic_numbers":
                    values = test[name][key][()]
                    values[2 : 2 + len(rows)] = data[name][key][()][rows]
                    test[name][key][...] = values
        test["CH4"]["coordinates"][2:4, 1, 2] += nudge
    return settings_of(folder)


def test_conformers_that_were_trained_on_are_refused_with_their_number(trained, tmp_path):
    settings = leak(trained, tmp_path, 5e-7)
    message = (
        r"test\.h5: 3 of its 30 conformers are also in .*data\.h5, the same atoms at the same "
        r"positions \(of CH4, N2\).*remove them"
    )
    with pytest.raises(UserError, match=message):
        train_run(settings, tmp_path / "out")
    with pytest.raises(UserError, match=message):
        check_inputs([settings])
    assert not (tmp_path / "out").exists()


def test_a_conformer_that_has_moved_is_another_one(trained, tmp_path):
    settings = leak(trained, tmp_path, 5e-6)
    with pytest.raises(UserError, match=r"test\.h5: 1 of its 30 conformers.*\(of N2\)"):
        check_inputs([settings])


def test_evaluating_on_what_was_trained_on_is_refused(trained, without, tmp_path, capsys):
    leak(trained, tmp_path, 0.0)
    before = files_below(without.path)
    assert exit_code("evaluate", without.path, "--test", f"mine={tmp_path / 'test.h5'}") == 2
    assert "3 of its 30 conformers are also in" in capsys.readouterr().err
    assert files_below(without.path) == before


def test_shared_conformers_are_found_by_atoms_and_positions(tmp_path):
    path = planted.write_ani1x(tmp_path / "a.h5", 5)
    structures, _ = read_ani1x(path, labels_in_file(path))
    assert find_shared(structures, structures).all()
    some = np.array([2, 11, 24])
    expected = np.isin(np.arange(25), some)
    np.testing.assert_array_equal(find_shared(structures, structures[some]), expected)
    assert find_shared(structures[some], structures).all()
    waters = structures[structures.species[:, 0] == 8]
    others = waters.species.copy()
    others[others == 8] = 7  # the same positions of other atoms
    assert not find_shared(type(waters)(**{**vars(waters), "species": others}), structures).any()


def test_the_embedded_test_file_is_the_default_with_the_embedded_data(trained):
    (settings,) = build_settings([get_experiment(NAME)], [0])
    assert settings.test_file == DataSource.of(MINI_CC_FORCES)
    assert settings_of(trained, test_file=None).test_file is None
    (settings,) = build_settings([get_experiment(NAME)], [0], test_file=trained / "test.h5")
    assert settings.test_file.path == trained / "test.h5"
    with pytest.raises(UserError, match=r"No file .*nowhere\.h5"):
        settings_of(trained, test_file=trained / "nowhere.h5")


def test_no_embedded_conformer_with_cc_forces_is_in_the_embedded_data():
    parts = [read_ani1x(path, labels_in_file(path))[0] for path in (MINI_CC_FORCES, MINI_ANI1X)]
    assert not find_shared(*parts).any()


@pytest.mark.parametrize("level", [DZ, TZ, CC], ids=lambda level: level.label)
def test_the_embedded_file_proves_the_sign_of_its_forces(level):
    structures, _ = read_ani1x(MINI_CC_FORCES, labels_in_file(MINI_CC_FORCES))
    found = require_force_sign(structures, level, "the file")
    assert found.verdict == "forces"
    assert found.n_pairs > 50
    assert found.correlation > 0.99


def test_forces_that_are_gradients_are_refused(trained, tmp_path):
    shutil.copy(trained / "test.h5", tmp_path / "test.h5")
    with h5py.File(tmp_path / "test.h5", "r+") as file:
        for group in file.values():
            group["ccsd(t)_cbs.forces"][...] *= -1
    settings = settings_of(trained, test_file=tmp_path / "test.h5")
    match = r"test\.h5: the forces of level ccsd\(t\)_cbs have the wrong sign"
    with pytest.raises(UserError, match=match):
        check_inputs([settings])


def test_forces_of_too_few_conformers_are_not_used_and_the_reason_is_there(tmp_path):
    path = write_test_file(tmp_path / "few.h5", 2)
    structures, _ = read_ani1x(path, labels_in_file(path))
    test = proved_set(structures, path)
    entry = heldout_metrics(test.labels, test, [CC])["cross"][CC_ID][CC_ID]
    assert entry["energy_rmse_kcal_per_mol"] == 0
    assert entry[FORCE] is None
    assert "not proved by the energies (5 pairs" in entry["force_reason"]


def test_a_file_without_any_label_tests_nothing(trained, tmp_path):
    shutil.copy(trained / "test.h5", tmp_path / "test.h5")
    with h5py.File(tmp_path / "test.h5", "r+") as file:
        for group in file.values():
            for key in set(group) - {"atomic_numbers", "coordinates"}:
                del group[key]
    settings = settings_of(trained, test_file=tmp_path / "test.h5")
    with pytest.raises(UserError, match=r"test\.h5 has no label of a known level"):
        check_inputs([settings])


def test_a_finished_run_without_the_file_names_the_command_that_adds_it(tmp_path):
    folder = make_run(tmp_path, NAME, 0, run_metrics())
    source = DataSource(path="/data/cc.h5", sha256="7" * 64)
    settings = make_settings(NAME, test_file=source)
    message = (
        r"seed-0 holds another run: test_file: None → .*'hippynn-mf evaluate "
        r".*runs/\*/seed-\* --test NAME=/data/cc\.h5' adds these errors"
    )
    with pytest.raises(UserError, match=message):
        folder.refuse_other(settings)
    (planned,) = plan_runs([settings], tmp_path)
    assert planned.state == "broken"
    assert "hippynn-mf evaluate" in planned.detail
    other = make_settings(NAME, split_seed=1)
    with pytest.raises(UserError, match="holds another run") as error:
        folder.refuse_other(other)
    assert "--test " not in str(error.value)


@pytest.mark.parametrize("tested", [0, 1])
def test_runs_with_and_without_the_file_share_no_table_and_the_remedy_is_named(tmp_path, tested):
    source = DataSource(path="/data/cc.h5", sha256="7" * 64)
    make_run(tmp_path, NAME, tested, run_metrics(), test_file=source)
    make_run(tmp_path, NAME, 1 - tested, run_metrics())
    match = rf"cannot share a table: test_file: .*seed-{1 - tested} was not tested on /data/cc\.h5"
    with pytest.raises(UserError, match=match) as error:
        read_results(tmp_path)
    assert "--test NAME=/data/cc.h5' adds these errors" in str(error.value)


def test_an_unfinished_run_goes_on_with_a_test_file(tmp_path):
    folder = make_run(tmp_path, NAME, 0, None)
    source = DataSource(path="/data/cc.h5", sha256="7" * 64)
    folder.prepare(make_settings(NAME, test_file=source), facts={})
    assert folder.read_settings().test_file == source
    with pytest.raises(UserError, match="holds another run: test_file: "):
        folder.refuse_other(make_settings(NAME))  # which would lose it


def test_where_the_file_lies_makes_no_difference():
    source = DataSource(path="/data/cc.h5", sha256="7" * 64)
    before = make_settings(NAME, test_file=source)
    after = make_settings(NAME, test_file=source.model_copy(update={"path": "/mnt/cc.h5"}))
    assert after.differences(before) == []
    assert RunSettings.model_validate_json(before.model_dump_json()) == before
