import copy
import json

import pytest
from made_runs import comp6_errors, heldout_errors, make_run, run_metrics, write_metrics

from hippynn_mf.errors import UserError
from hippynn_mf.evaluation.schema import validate_metrics

TZ = "wb97x_tz"


def good_metrics():
    return run_metrics(
        {TZ: heldout_errors(1.0, 2.0), "mp2_tz": heldout_errors(1.0)},
        comp6={"mp2_tz": comp6_errors(3.0), "ccsd(t)_cbs": comp6_errors(None, 4.0)},
        cross={TZ: {"wb97x_dz": heldout_errors(1.0, 2.0)}},
    ) | {"training": {"wall_s": 30.5, "n_epochs": 80}}


def test_metrics_come_back_as_they_were_written(tmp_path):
    folder = make_run(tmp_path, "SF-TZ/E", 0, good_metrics())
    assert folder.read_metrics() == good_metrics()


def test_metrics_of_held_out_structures_alone_are_whole(tmp_path):
    content = {"format": 2, "sets": {"heldout": {TZ: {TZ: heldout_errors(1.0)}}}}
    folder = make_run(tmp_path, "SF-TZ/E", 0, content)
    assert folder.read_metrics() == content
    assert validate_metrics(content, "metrics.json").training is None


HELDOUT, COMP6 = "sets.heldout.wb97x_tz.wb97x_tz", "sets.comp6.mp2_tz.mp2_tz"
FAULTS = {
    "a misspelt error": (HELDOUT, {"energy_rsme_kcal_per_mol": 1.0}, "Extra inputs"),
    "an unknown part": ("", {"holdout": {}}, "holdout: Extra inputs"),
    "a number as text": (
        HELDOUT,
        {"energy_rmse_kcal_per_mol": "1.0"},
        r"energy_rmse_kcal_per_mol: Input should be a valid number, found '1.0'",
    ),
    "a negative error": (
        HELDOUT,
        {"force_mae_kcal_per_mol_per_angstrom": -1.0},
        r"force_mae_kcal_per_mol_per_angstrom: .*greater than or equal to 0, found -1.0",
    ),
    "not a number": (
        COMP6,
        {"force_rmse_kcal_per_mol_per_angstrom": float("nan")},
        r"comp6\.mp2_tz\.mp2_tz\.force_rmse_kcal_per_mol_per_angstrom: .*finite number, found nan",
    ),
    "infinite": (
        "sets.heldout.wb97x_tz.wb97x_dz",
        {"energy_rmse_kcal_per_mol": float("inf")},
        r"heldout\.wb97x_tz\.wb97x_dz\.energy_rmse_kcal_per_mol: .*finite",
    ),
    "null without a reason": (
        HELDOUT,
        {"energy_rmse_kcal_per_mol": None, "energy_mae_kcal_per_mol": None},
        r"sets\.heldout\.wb97x_tz\.wb97x_tz: .*null needs energy_reason",
    ),
    "a number with a reason": (HELDOUT, {"force_reason": "none"}, "has no force_reason"),
    "half null": (
        "sets.comp6.ccsd(t)_cbs.ccsd(t)_cbs",
        {"delta_e_mae_kcal_per_mol": None},
        "delta_e: RMSE and MAE are either both",
    ),
    "errors of nothing": (HELDOUT, {"n_energies": 0}, "needs the count"),
    "an MAE above the RMSE": (
        HELDOUT,
        {"energy_mae_kcal_per_mol": 1.1},
        r"energy: an MAE of 1\.1 above the RMSE of 1\.0",
    ),
    "half a count": (COMP6, {"n_structures": 1.5}, "n_structures: .*found 1.5"),
    "a negative time": ("training", {"wall_s": -1.0}, "training.wall_s"),
    "energies with a cut": (
        COMP6,
        {"energy_rmse_kcal_per_mol": 1.0, "energy_mae_kcal_per_mol": 1.0, "n_energies": 3},
        r"energy_mae_kcal_per_mol, energy_rmse_kcal_per_mol, n_energies: a set has cut_by and delt",
    ),
    "differences without a cut": (HELDOUT, {"n_pairs": 3}, "n_pairs: a set has cut_by and delta_e"),
    "another format": ("", {"format": 3}, "format: Input should be 2, found 3"),
}


def at(metrics, path):
    for key in filter(None, path.split(".")):
        metrics = metrics[key]
    return metrics


@pytest.mark.parametrize(("path", "change", "message"), FAULTS.values(), ids=list(FAULTS))
def test_a_fault_is_named_with_file_and_field_on_writing_and_on_reading(
    tmp_path, path, change, message
):
    wrong = copy.deepcopy(good_metrics())
    at(wrong, path).update(change)
    folder = make_run(tmp_path, "SF-TZ/E", 0, None)
    with pytest.raises(UserError, match=message) as error:
        write_metrics(folder, wrong)
    assert not folder.is_finished
    assert str(folder.file("metrics.json")) in str(error.value)
    folder.file("metrics.json").write_text(json.dumps(wrong))
    with pytest.raises(UserError, match=message) as error:
        folder.read_metrics()
    assert str(folder.file("metrics.json")) in str(error.value)
    assert "delete it and train the run again" in str(error.value)


MISSING = {
    "": ["format", "sets"],
    HELDOUT: ["n_structures", "energy_rmse_kcal_per_mol", "force_mae_kcal_per_mol_per_angstrom"],
    COMP6: ["n_structures", "delta_e_mae_kcal_per_mol", "force_rmse_kcal_per_mol_per_angstrom"],
}


@pytest.mark.parametrize(("path", "name"), [(p, n) for p, names in MISSING.items() for n in names])
def test_a_part_that_is_missing_is_named(path, name):
    metrics = good_metrics()
    del at(metrics, path)[name]
    with pytest.raises(UserError, match=rf"some.json is not what.*{name}: .*equired"):
        validate_metrics(metrics, "some.json")


def test_many_faults_are_counted_and_the_first_named():
    metrics = run_metrics({name: {} for name in "abc"})
    with pytest.raises(UserError, match=r"heldout\.a\.a\.n_structures.*; and 6 more\. Restore it"):
        validate_metrics(metrics, "some.json")


def test_metrics_of_format_1_name_their_converter():
    content = {"heldout": {}, "cross": {}, "comp6": None}
    match = r"some\.json has format 1\. 'python scripts/convert_runs\.py DIR' converts"
    with pytest.raises(UserError, match=match):
        validate_metrics(content, "some.json")
