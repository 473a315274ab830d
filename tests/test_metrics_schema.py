import copy
import json

import pytest
from made_runs import comp6_errors, heldout_errors, make_run, run_metrics

from hippynn_mf.errors import UserError
from hippynn_mf.evaluation.schema import validate_metrics

TZ = "wb97x_tz"


def good_metrics():
    return run_metrics(
        {TZ: heldout_errors(1.0, 2.0), "mp2_tz": heldout_errors(1.0)},
        comp6={"mp2_tz": comp6_errors(3.0), "ccsd(t)_cbs": comp6_errors(None, 4.0)},
        cross={TZ: {TZ: heldout_errors(1.0, 2.0)}},
    ) | {"training": {"wall_s": 30.5, "n_epochs": 80}}


def test_metrics_come_back_as_they_were_written(tmp_path):
    folder = make_run(tmp_path, "SF-TZ/E", 0, good_metrics())
    assert folder.read_metrics() == good_metrics()


def test_metrics_without_comp6_and_without_training_are_whole(tmp_path):
    folder = make_run(tmp_path, "SF-TZ/E", 0, run_metrics({TZ: heldout_errors(1.0)}))
    assert folder.read_metrics()["comp6"] is None


FAULTS = {
    "a misspelt error": ("heldout.wb97x_tz", {"energy_rsme_kcal_per_mol": 1.0}, "Extra inputs"),
    "an unknown part": ("", {"holdout": {}}, "holdout: Extra inputs"),
    "a number as text": (
        "heldout.wb97x_tz",
        {"energy_rmse_kcal_per_mol": "1.0"},
        r"energy_rmse_kcal_per_mol: Input should be a valid number, found '1.0'",
    ),
    "a negative error": (
        "heldout.wb97x_tz",
        {"force_mae_kcal_per_mol_per_angstrom": -1.0},
        r"force_mae_kcal_per_mol_per_angstrom: .*greater than or equal to 0, found -1.0",
    ),
    "not a number": (
        "comp6.mp2_tz",
        {"force_rmse_kcal_per_mol_per_angstrom": float("nan")},
        r"comp6\.mp2_tz\.force_rmse_kcal_per_mol_per_angstrom: .*finite number, found nan",
    ),
    "infinite": (
        "cross.wb97x_tz.wb97x_tz",
        {"energy_rmse_kcal_per_mol": float("inf")},
        r"cross\.wb97x_tz\.wb97x_tz\.energy_rmse_kcal_per_mol: .*finite",
    ),
    "null without a reason": (
        "heldout.wb97x_tz",
        {"energy_rmse_kcal_per_mol": None, "energy_mae_kcal_per_mol": None},
        r"heldout\.wb97x_tz: .*null needs energy_reason",
    ),
    "a number with a reason": ("heldout.wb97x_tz", {"force_reason": "none"}, "has no force_reason"),
    "half null": (
        "comp6.ccsd(t)_cbs",
        {"delta_e_mae_kcal_per_mol": None},
        "delta_e: RMSE and MAE are either both",
    ),
    "errors of nothing": ("heldout.wb97x_tz", {"n_energies": 0}, "needs the count"),
    "an MAE above the RMSE": (
        "heldout.wb97x_tz",
        {"energy_mae_kcal_per_mol": 1.1},
        r"energy: an MAE of 1\.1 above the RMSE of 1\.0",
    ),
    "half a count": ("comp6.mp2_tz", {"n_conformers": 1.5}, "n_conformers: .*found 1.5"),
    "a negative time": ("training", {"wall_s": -1.0}, "training.wall_s"),
}


def with_fault(path, change):
    metrics = copy.deepcopy(good_metrics())
    place = metrics
    for key in filter(None, path.split(".")):
        place = place[key]
    place.update(change)
    return metrics


@pytest.mark.parametrize(("path", "change", "message"), FAULTS.values(), ids=list(FAULTS))
def test_a_fault_is_named_with_file_and_field_on_writing_and_on_reading(
    tmp_path, path, change, message
):
    wrong = with_fault(path, change)
    folder = make_run(tmp_path, "SF-TZ/E", 0, None)
    with pytest.raises(UserError, match=message) as error:
        folder.write_metrics(wrong)
    assert not folder.is_finished
    assert str(folder.file("metrics.json")) in str(error.value)
    folder.file("metrics.json").write_text(json.dumps(wrong))
    with pytest.raises(UserError, match=message) as error:
        folder.read_metrics()
    assert str(folder.file("metrics.json")) in str(error.value)
    assert "delete it and train the run again" in str(error.value)


@pytest.mark.parametrize("part", ["heldout", "cross", "comp6"])
def test_a_part_that_is_missing_is_named(part):
    metrics = good_metrics()
    del metrics[part]
    with pytest.raises(UserError, match=f"some.json is not what.* {part}: Field required"):
        validate_metrics(metrics, "some.json")


@pytest.mark.parametrize("name", ["predicted_by", "cut_by", "n_conformers"])
def test_comp6_errors_say_what_they_are_of(name):
    metrics = good_metrics()
    del metrics["comp6"]["mp2_tz"][name]
    with pytest.raises(UserError, match=rf"comp6\.mp2_tz\.{name}: Field required"):
        validate_metrics(metrics, "some.json")


def test_many_faults_are_counted_and_the_first_named():
    metrics = run_metrics({name: {} for name in "abc"})
    with pytest.raises(UserError, match=r"heldout\.a\.force_rmse.*; and 9 more\. Restore it"):
        validate_metrics(metrics, "some.json")


def test_errors_on_a_test_file_are_optional_and_checked():
    content = run_metrics({"wb97x_tz": heldout_errors(1.0, 2.0)})
    assert validate_metrics(content, "metrics.json").test_file is None
    entry = heldout_errors(3.0, 4.0)
    content["test_file"] = {"wb97x_tz": {"ccsd(t)_cbs": entry}}
    found = validate_metrics(content, "metrics.json").test_file["wb97x_tz"]["ccsd(t)_cbs"]
    assert found.force_rmse_kcal_per_mol_per_angstrom == 4.0
    entry["energy_rmse_kcal_per_mol"] = None
    match = r"test_file\.wb97x_tz\.ccsd\(t\)_cbs: .*energy"
    with pytest.raises(UserError, match=match):
        validate_metrics(content, "metrics.json")
