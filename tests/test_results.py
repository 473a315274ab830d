import pytest
from made_runs import heldout_errors, make_run, make_settings, run_metrics

from hippynn_mf.errors import UserError
from hippynn_mf.hyperparameters import get_hyperparameters
from hippynn_mf.report.columns import pick
from hippynn_mf.report.results import read_results
from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.runs.settings import DataSource

ENERGY = ("heldout", "ccsd(t)_cbs", "energy_rmse_kcal_per_mol")


def energies(value):
    return run_metrics({"ccsd(t)_cbs": heldout_errors(value)})


def test_a_path_that_ends_early_picks_nothing():
    metrics = {"comp6": None, "heldout": {"mp2_tz": {"energy_rmse_kcal_per_mol": 1.5}}}
    assert pick(metrics, "heldout", "mp2_tz", "energy_rmse_kcal_per_mol") == 1.5
    assert pick(metrics, "comp6", "mp2_tz", "energy_rmse_kcal_per_mol") is None
    assert pick(metrics, "cross", "mp2_tz") is None


def test_a_metric_of_an_experiment_comes_by_seed_in_order_and_without_nulls(tmp_path):
    for seed, value in {10: 3.0, 2: 1.0, 5: None}.items():
        make_run(tmp_path, "SF-CC/E", seed, energies(value))
    results = read_results(tmp_path)
    assert list(results.by_seed("SF-CC/E", *ENERGY).items()) == [(2, 1.0), (10, 3.0)]
    assert results.by_seed("SF-DZ/E", *ENERGY) == {}


def test_unfinished_runs_are_named_and_not_averaged_over(tmp_path):
    make_run(tmp_path, "SF-CC/E", 0, energies(1.0))
    make_run(tmp_path, "SF-CC/E", 1, None)
    results = read_results(tmp_path)
    assert results.unfinished == {"SF-CC/E": [1]}
    assert results.by_seed("SF-CC/E", *ENERGY) == {0: 1.0}
    assert results.seeds("SF-CC/E") == [0]


def test_results_of_some_seeds_have_no_others_finished_or_not(tmp_path):
    for seed in (0, 1, 2):
        make_run(tmp_path, "SF-CC/E", seed, energies(1.0 + seed))
    make_run(tmp_path, "SF-TZ/E", 2, energies(1.0))
    make_run(tmp_path, "SF-DZ/E", 0, None)
    make_run(tmp_path, "SF-DZ/E", 2, None)
    some = read_results(tmp_path).only([2, 0])
    assert {name: some.seeds(name) for name in some.by_name} == {"SF-CC/E": [0, 2], "SF-TZ/E": [2]}
    assert read_results(tmp_path).only([1]).unfinished == {}
    assert some.unfinished == {"SF-DZ/E": [0, 2]}


def test_no_runs_are_an_error_with_a_remedy(tmp_path):
    with pytest.raises(UserError, match=r"No runs in .*runs.*hippynn-mf reproduce"):
        read_results(tmp_path)


def test_a_seed_that_is_there_twice_is_refused_with_both_folders(tmp_path):
    make_run(tmp_path, "SF-CC/E", 0, energies(1.0))
    copy = RunFolder(tmp_path / "runs" / "sf_cc_e_copy" / "seed-0")
    copy.prepare(make_settings("SF-CC/E"), facts={})
    copy.write_metrics(energies(1.0))
    with pytest.raises(
        UserError, match=r"SF-CC/E, seed 0 is there 2 times.*sf_cc_e/.*sf_cc_e_copy"
    ):
        read_results(tmp_path)


MIXTURES = {
    "data": ({"data": DataSource(path="/data/made.h5", sha256="9" * 64)}, "data.sha256"),
    "split": ({"split_seed": 1}, "split_seed"),
    "rows": ({"rows": "all"}, "rows"),
    "preset": ({"preset": "paper"}, "preset"),
    "hyperparameters": (
        {"hyperparameters": get_hyperparameters("quick", {"max_epochs": 5})},
        "hyperparameters.max_epochs",
    ),
    "COMP6": ({"comp6": None}, "comp6"),
    "common levels": ({"common_levels": ["wb97x_dz"]}, "common_levels"),
}


@pytest.mark.parametrize(("changes", "difference"), MIXTURES.values(), ids=list(MIXTURES))
@pytest.mark.parametrize("name", ["SF-CC/E", "MF-DZ/EF-CC/E"], ids=["same row", "other row"])
def test_runs_that_differ_in_more_than_labels_and_seed_do_not_share_a_table(
    tmp_path, changes, difference, name
):
    make_run(tmp_path, "SF-CC/E", 0, energies(1.0))
    make_run(tmp_path, name, 1, energies(1.0), **changes)
    with pytest.raises(UserError, match=rf"seed-\d cannot share a table: {difference}: ") as error:
        read_results(tmp_path)
    assert "sf_cc_e/seed-0" in str(error.value)


def test_runs_of_other_labels_seeds_devices_and_paths_share_a_table(tmp_path):
    make_run(tmp_path, "SF-CC/E", 0, energies(1.0))
    moved = make_settings("SF-CC/E").data.model_copy(update={"path": "/mnt/moved.h5"})
    make_run(tmp_path, "MF-DZ/EF-CC/E", 1, energies(2.0), device="cuda", data=moved)
    assert set(read_results(tmp_path).by_name) == {"SF-CC/E", "MF-DZ/EF-CC/E"}


def test_an_unfinished_run_of_other_settings_does_not_stop_a_table(tmp_path):
    make_run(tmp_path, "SF-CC/E", 0, energies(1.0))
    make_run(tmp_path, "SF-CC/E", 1, None, split_seed=4)
    assert read_results(tmp_path).unfinished == {"SF-CC/E": [1]}
