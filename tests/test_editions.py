"""Runs of format 1 are converted without losing a digit, and a difference is found."""

import copy
import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from made_runs import CC_FORCES, COMP6, files_below, make_settings

from hippynn_mf.errors import UserError
from hippynn_mf.files import write_json, write_npz
from hippynn_mf.level_records import LevelRecord
from hippynn_mf.levels import CC, DZ, PAPER_LEVELS, Level
from hippynn_mf.runs.folder import RunFolder

SCRIPTS = Path(__file__).parent.parent / "scripts"
DZ_ID, TZ_ID, CC_ID = "wb97x_dz", "wb97x_tz", "ccsd(t)_cbs"
RUN = "runs/mf_dz_ef_cc_e/seed-0"
OWN = Level("low", "low", "Low", "none", 1.0, ("low.energy",), self_energies={1: -0.5})


@pytest.fixture
def convert(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("convert_runs")


@pytest.fixture
def compare(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("compare_editions")


def energies(value):
    return {
        "energy_rmse_kcal_per_mol": value,
        "energy_mae_kcal_per_mol": value / 3,
        "n_energies": 4,
        "force_rmse_kcal_per_mol_per_angstrom": None,
        "force_mae_kcal_per_mol_per_angstrom": None,
        "force_reason": "the file has no forces of this level",
    }


def differences(value, head):
    return {
        "predicted_by": head,
        "cut_by": CC_ID,
        "n_conformers": 5,
        "delta_e_rmse_kcal_per_mol": value,
        "delta_e_mae_kcal_per_mol": value / 7,
        "delta_e_label_rms_kcal_per_mol": 8.125,
        "n_pairs": 6,
        "force_rmse_kcal_per_mol_per_angstrom": value * 2,
        "force_mae_kcal_per_mol_per_angstrom": value,
        "force_label_rms_kcal_per_mol_per_angstrom": 31.0,
        "n_force_components": 45,
    }


def old_metrics():
    heads, levels = (DZ_ID, CC_ID), (DZ_ID, TZ_ID, CC_ID)
    cross = {
        h: {r: energies(1.1 + i + 0.1 * j) for j, r in enumerate(levels)}
        for i, h in enumerate(heads)
    }
    return {
        "heldout": {head: cross[head][head] for head in heads},
        "cross": cross,
        "comp6": {DZ_ID: differences(1.3, DZ_ID), CC_ID: differences(1.7, CC_ID)},
        "test_file": {
            h: {r: energies(e["energy_rmse_kcal_per_mol"] * 3) for r, e in c.items()}
            for h, c in cross.items()
        },
        "training": {"wall_s": 12.5, "n_epochs": 80, "cpu_s": 12.25},
        "inference": {"level": CC_ID, "cpu_ms_per_structure": 0.0625},
    }


def old_settings():
    settings = make_settings("MF-DZ/EF-CC/E").model_dump(mode="json")
    for name in ("strategy", "levels", "tests"):
        del settings[name]
    comp6, test_file = (s.model_dump(mode="json") for s in (COMP6, CC_FORCES))
    test_file = {"path": "/data/mini-cc-forces.h5", "sha256": test_file["sha256"]}
    labels = {"DZ": "EF", "CC": "E"}
    del comp6["name"]
    return settings | {"comp6": comp6, "test_file": test_file, "labels": labels}


def old_arrays():
    arrays = {}
    for place, (part, n) in enumerate({"heldout": 4, "comp6": 5, "test_file": 3}.items()):
        rng = np.random.default_rng(place)
        arrays[f"{part}.species"] = np.array([[1, 6], [6, 1], [8, 1], [1, 0], [1, 6]])[:n]
        for name in (f"{DZ_ID}.energy", f"reference.{CC_ID}.energy"):
            arrays[f"{part}.{name}"] = rng.normal(size=n)
    return arrays | {"heldout.rows": np.array([3, 5, 7, 9]), "comp6.groups": np.arange(5) // 2}


def write_old(out, *, levels=PAPER_LEVELS, metrics=True, arrays=True, settings=None):
    folder = RunFolder(out / RUN)
    folder.path.mkdir(parents=True)
    content = {
        "format": 1,
        "settings": old_settings() if settings is None else settings,
        "trained_labels": {DZ_ID: ["energy", "forces"], CC_ID: ["energy"]},
        "levels": [LevelRecord.of(level).model_dump(mode="json") for level in levels],
        "n_structures": {"train": 30, "valid": 4, "test": 4},
        "versions": {"hippynn_mf": "0.1.0"},
    }
    write_json(folder.file("experiment.json"), content)
    if metrics:
        write_json(folder.file("metrics.json"), old_metrics())
    if arrays:
        write_npz(folder.file("predictions.npz"), old_arrays())
    return folder


def run_script(script, monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["script", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        script.main()
    return stop.value.code


def test_a_run_of_before_is_refused_in_one_line_that_names_the_converter(tmp_path):
    folder = write_old(tmp_path)
    with pytest.raises(UserError, match=r"reads format 2\. 'python scripts/convert_runs\.py DIR'"):
        folder.read_settings()


def test_a_converted_run_is_one_of_format_2(convert, tmp_path):
    folder = write_old(tmp_path)
    assert convert.convert_run(folder) is True
    settings = folder.read_settings()
    assert settings == make_settings("MF-DZ/EF-CC/E", tests=settings.tests)
    assert settings.strategy == "MF"
    assert settings.labels == {DZ_ID: "EF", CC_ID: "E"}
    assert [source.name for source in settings.tests] == ["comp6", "cc-forces"]
    assert settings.test("comp6") == COMP6
    content = json.loads(folder.file("experiment.json").read_text())
    assert content.keys() == {"format", "settings", "n_structures", "versions"}
    sets = folder.read_metrics()["sets"]
    assert list(sets) == ["heldout", "comp6", "cc-forces"]
    assert {e["n_structures"] for of in sets["cc-forces"].values() for e in of.values()} == {3}
    assert sets["comp6"][DZ_ID] == {DZ_ID: sets["comp6"][DZ_ID][DZ_ID]}
    assert sets["comp6"][DZ_ID][DZ_ID]["n_structures"] == 5
    stored = folder.read_predictions()
    for name, values in old_arrays().items():
        new = name.replace("test_file.", "cc-forces.")
        np.testing.assert_array_equal(stored[new], values)
    for part in sets:
        assert len(stored[f"{part}.rows"]) == len(stored[f"{part}.groups"])
    np.testing.assert_array_equal(
        stored["heldout.groups"] == stored["heldout.groups"][0], [True, True, False, False]
    )  # CH twice, OH, H
    before = files_below(folder.path)
    assert convert.convert_run(folder) is False
    assert files_below(folder.path) == before


@pytest.mark.parametrize("n_renames", [0, 1, 2])
def test_a_conversion_that_is_killed_is_done_by_the_next(convert, tmp_path, monkeypatch, n_renames):
    from test_runs import Killed, kill_after

    folder, other = write_old(tmp_path / "a"), write_old(tmp_path / "b")
    with monkeypatch.context() as patch:
        kill_after(patch, n_renames)
        with pytest.raises(Killed):
            convert.convert_run(folder)
    assert convert.convert_run(folder) is True
    convert.convert_run(other)
    assert folder.read_settings() == other.read_settings()
    assert folder.read_metrics() == other.read_metrics()
    assert folder.read_predictions().keys() == other.read_predictions().keys()


def test_own_levels_are_kept_and_another_level_of_a_name_is_refused(convert, tmp_path):
    settings = old_settings() | {"labels": {"low": "E"}, "name": "SF-low/E", "slug": "sf_low_e"}
    older_cc = Level(**{**_fields(CC), "force_key": None})
    folder = write_old(tmp_path / "a", levels=(OWN, DZ, older_cc), metrics=False, settings=settings)
    convert.convert_run(folder)
    assert folder.read_settings().known.get("low") == OWN
    assert folder.read_settings().known.get("CC") == CC
    other = Level(**{**_fields(CC), "basis": "DZ"})
    folder = write_old(tmp_path / "b", levels=(DZ, other))
    before = files_below(folder.path)
    with pytest.raises(UserError, match=r"level ccsd\(t\)_cbs: basis is 'DZ', not 'CBS'"):
        convert.convert_run(folder)
    assert files_below(folder.path) == before


def _fields(level):
    return {name: getattr(level, name) for name in level.__dataclass_fields__}


@pytest.mark.parametrize("arrays", [True, False], ids=["with predictions", "without"])
def test_both_scripts_agree_on_a_folder(convert, compare, tmp_path, monkeypatch, capsys, arrays):
    write_old(tmp_path / "old", arrays=arrays)
    new = write_old(tmp_path / "new", arrays=arrays)
    monkeypatch.setattr("sys.argv", ["convert", str(tmp_path / "new")])
    convert.main()
    assert capsys.readouterr().out == "1 of 1 runs converted to format 2\n"
    assert new.read_metrics()["training"] == old_metrics()["training"]
    assert run_script(compare, monkeypatch, tmp_path / "old", tmp_path / "new") == 0
    expected = sum(
        1
        for name, _ in convert.leaves(old_metrics())
        if not name.endswith(("predicted_by", "wall_s", "cpu_s", "cpu_ms_per_structure"))
    )
    assert capsys.readouterr().out == f"{expected} values are equal, 0 are not\n"
    assert run_script(convert, monkeypatch, tmp_path / "nowhere").startswith("No runs below")


def renamed(sets):
    sets["comp6-b"] = sets.pop("comp6")


def nudged(sets):
    entry = sets["heldout"][CC_ID][TZ_ID]
    entry["energy_rmse_kcal_per_mol"] = np.nextafter(entry["energy_rmse_kcal_per_mol"], 9)


def as_whole_number(sets):
    sets["comp6"][CC_ID][CC_ID]["force_label_rms_kcal_per_mol_per_angstrom"] = 31


def lost(sets):
    del sets["cc-forces"][DZ_ID][CC_ID]["force_reason"]


DIFFERENCES = {
    "one digit": (nudged, 1, f"cross.{CC_ID}.{TZ_ID}.energy_rmse_kcal_per_mol = 2.2"),
    "a type": (as_whole_number, 1, "force_label_rms_kcal_per_mol_per_angstrom = 31.0: sets.comp6"),
    "a reason": (lost, 1, f"no sets.cc-forces.{DZ_ID}.{CC_ID}.force_reason"),
    "a set": (renamed, 20, f"no sets.comp6.{DZ_ID}.{DZ_ID}.n_structures"),
}


@pytest.mark.parametrize(("change", "n", "message"), DIFFERENCES.values(), ids=list(DIFFERENCES))
def test_a_difference_is_listed_and_ends_with_1(
    convert, compare, tmp_path, monkeypatch, capsys, change, n, message
):
    write_old(tmp_path / "old")
    folder = write_old(tmp_path / "new")
    convert.convert_run(folder)
    content = json.loads(folder.file("metrics.json").read_text())
    change(content["sets"])
    folder.file("metrics.json").write_text(json.dumps(content))
    assert run_script(compare, monkeypatch, tmp_path / "old", tmp_path / "new") == 1
    said = capsys.readouterr().out
    assert f"{RUN}: " in said
    assert message in said
    assert said.endswith(f"values are equal, {n} are not\n")


def test_a_run_that_is_missing_and_a_name_outside_the_table_are_differences(compare, tmp_path):
    write_old(tmp_path / "old")
    _, problems = compare.compare_folders(tmp_path / "old", tmp_path / "new")
    assert problems == [f"{RUN}: not in {tmp_path / 'new'}"]
    _, problems = compare.compare_folders(tmp_path / "new", tmp_path / "new")
    assert problems == [f"no runs in {tmp_path / 'new'}"]
    old = copy.deepcopy(old_metrics()) | {"more": {"a": 1.0}}
    new = {"sets": {}, "training": {}, "inference": {}}
    _, problems = compare.compare_metrics(old, new, "cc-forces")
    assert "more.a = 1.0: not in the table of names" in problems
