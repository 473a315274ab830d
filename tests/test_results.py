import pytest
from made_runs import COMP6, heldout_errors, make_run, make_settings, run_metrics, write_run

from hippynn_mf.errors import UserError
from hippynn_mf.hyperparameters import get_hyperparameters
from hippynn_mf.levels import CC, Level
from hippynn_mf.report.columns import TRAINING, heldout_energy
from hippynn_mf.report.kept import write_kept
from hippynn_mf.report.results import read_results
from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.runs.sources import DataSource

ENERGY = heldout_energy(CC)


def energies(value):
    return run_metrics({"ccsd(t)_cbs": heldout_errors(value)})


def test_a_metric_of_an_experiment_comes_by_seed_in_order_and_without_nulls(tmp_path):
    for seed, value in {10: 3.0, 2: 1.0, 5: None}.items():
        make_run(tmp_path, "SF-CC/E", seed, energies(value))
    results = read_results(tmp_path)
    assert list(results.values("SF-CC/E", ENERGY).items()) == [(2, 1.0), (10, 3.0)]
    assert results.values("SF-DZ/E", ENERGY).empty


def test_unfinished_runs_are_named_and_not_averaged_over(tmp_path):
    make_run(tmp_path, "SF-CC/E", 0, energies(1.0))
    make_run(tmp_path, "SF-CC/E", 1, None)
    results = read_results(tmp_path)
    assert results.unfinished == {"SF-CC/E": [1]}
    assert results.values("SF-CC/E", ENERGY).to_dict() == {0: 1.0}
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
    with pytest.raises(UserError, match=r"No runs in .*hippynn-mf campaign --out .*runs\.jsonl"):
        read_results(tmp_path)


def test_a_seed_that_is_there_twice_is_refused_with_both_folders(tmp_path):
    make_run(tmp_path, "SF-CC/E", 0, energies(1.0))
    copy = RunFolder(tmp_path / "runs" / "sf_cc_e_copy" / "seed-0")
    write_run(copy, make_settings("SF-CC/E"), energies(1.0))
    with pytest.raises(
        UserError, match=r"SF-CC/E, seed 0 is there 2 times.*sf_cc_e/.*sf_cc_e_copy"
    ):
        read_results(tmp_path)


MIXTURES = {
    "data": ({"data": DataSource(path="/data/made.h5", sha256="9" * 64)}, "data.sha256"),
    "rows": ({"rows": "all"}, "rows"),
    "preset": ({"preset": "paper"}, "preset"),
    "hyperparameters": (
        {"hyperparameters": get_hyperparameters("quick", {"max_epochs": 5})},
        "hyperparameters.max_epochs",
    ),
    "weights": ({"weights": {"wb97x_dz": {"forces": 4.0}}}, "weights.wb97x_dz"),
    "the preset for own data": (
        {"preset": "robust", "hyperparameters": get_hyperparameters("robust")},
        "preset",
    ),
    "tests": ({"tests": ()}, r"tests\.comp6"),
    "another test file": (
        {"tests": (COMP6.model_copy(update={"sha256": "8" * 64}),)},
        r"tests\.comp6\.sha256",
    ),
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
    make_run(tmp_path, "SF-CC/E", 1, None, rows="all")
    assert read_results(tmp_path).unfinished == {"SF-CC/E": [1]}


def test_a_run_that_lacks_a_test_is_told_how_it_gets_it(tmp_path):
    make_run(tmp_path, "SF-CC/E", 0, energies(1.0))
    make_run(tmp_path, "SF-CC/E", 1, energies(1.0), tests=())
    with pytest.raises(
        UserError, match=r"seed-1 was not tested on comp6.* --comp6 /data/comp6\.h5"
    ):
        read_results(tmp_path)


def test_runs_of_several_splits_are_read_and_never_averaged_over(tmp_path):
    for split, value in [(0, 1.0), (3, 5.0)]:
        for seed in range(2):
            settings = make_settings("SF-CC/E", seed, split_seed=split)
            folder = RunFolder(tmp_path / "runs" / f"split-{split}" / f"seed-{seed}")
            write_run(folder, settings, energies(value + seed))
    results = read_results(tmp_path)
    assert results.split_seeds == [0, 3]
    assert set(results.table["split_seed"]) == {0, 3}
    with pytest.raises(UserError, match=r"split seeds 0, 3, .*--split-seed"):
        results.values("SF-CC/E", ENERGY)
    with pytest.raises(UserError, match="split seeds 0, 3"):
        results.members("SF-CC/E")
    chosen = results.only(split_seed=3)
    assert chosen.values("SF-CC/E", ENERGY).to_dict() == {0: 5.0, 1: 6.0}
    assert chosen.is_whole


def test_the_table_has_a_row_for_every_number_with_its_address(tmp_path):
    cross = {"ccsd(t)_cbs": {"wb97x_tz": heldout_errors(9.0, 4.0)}}
    make_run(tmp_path, "SF-CC/E", 4, run_metrics({"ccsd(t)_cbs": heldout_errors(2.0)}, cross=cross))
    table = read_results(tmp_path).table
    assert list(table.columns) == [
        *("experiment", "seed", "split_seed", "set", "head", "reference", "quantity", "metric"),
        "value",
    ]
    where = table.reference == "wb97x_tz"
    found = table[where].set_index(["quantity", "metric"])["value"].to_dict()
    assert found == {
        ("energy", "rmse"): 9.0,
        ("energy", "mae"): 4.5,
        ("force", "rmse"): 4.0,
        ("force", "mae"): 2.0,
        ("force", "label_rms"): 30.0,
    }
    assert len(table) == len(found) + 2  # energies against CC; forces are null
    assert set(table["seed"]) == {4}


def test_costs_are_a_table_of_their_own(tmp_path):
    metrics = energies(1.0) | {"training": {"wall_s": 9.0, "n_epochs": 3, "cpu_s": 7.5}}
    make_run(tmp_path, "SF-CC/E", 2, metrics)
    results = read_results(tmp_path)
    assert results.values("SF-CC/E", TRAINING).to_dict() == {2: 7.5}
    assert set(results.costs["quantity"]) == {"training"}


def test_levels_that_differ_under_one_name_cannot_share_a_table(tmp_path):
    mine = Level("mine", "ME", "m", "b", 1.0, ("mine.energy",))
    other = Level("mine", "ME", "m", "b", 1.0, ("mine.energy",), self_energies={1: -0.5})
    make_run(tmp_path, "SF-ME/E", 0, run_metrics(), more_levels=(mine,))
    make_run(tmp_path, "SF-ME/E", 1, run_metrics(), more_levels=(other,))
    with pytest.raises(
        UserError, match=r"seed-1 and .*seed-0 cannot share a table: levels\.mine: self_energies"
    ):
        read_results(tmp_path)


def test_runs_of_the_first_format_are_refused_in_one_line(tmp_path):
    folder = make_run(tmp_path, "SF-CC/E", 0, energies(1.0))
    path = folder.file("experiment.json")
    path.write_text(path.read_text().replace('"format": 2', '"format": 1'))
    with pytest.raises(UserError, match=r"run format 1; .*reads format 2.*convert_runs\.py"):
        read_results(tmp_path)


@pytest.fixture
def kept(tmp_path):
    """Runs of two experiments in the form that is kept, beside those that they are of."""
    for seed in range(2):
        make_run(tmp_path / "out", "SF-CC/E", seed, energies(1.0 + seed), {"device_used": "cpu"})
        changes = {"hyperparameters": get_hyperparameters("quick", {"coupling": "delta"})}
        make_run(tmp_path / "out", "MFC-DZ/EF-CC/E", seed, energies(0.5), **changes)
    results = read_results(tmp_path / "out")
    write_kept(tmp_path / "kept", results.finished, [])
    return results, tmp_path / "kept"


def test_kept_results_are_those_of_the_runs(kept):
    results, folder = kept
    again = read_results(folder)
    key = ["experiment", "seed", "set", "head", "reference", "quantity", "metric"]
    tables = [r.table.sort_values(key, ignore_index=True) for r in (again, results)]
    assert tables[0].equals(tables[1])
    settings = {(run.name, run.seed): run.settings for run in again.finished}
    for run in results.finished:
        found = settings[run.name, run.seed]
        assert found.differences(run.settings) == []
        assert found.data.path.name == str(found.data.path) == run.settings.data.path.name
        assert (found.name, found.seed, found.labels) == (run.name, run.seed, run.settings.labels)
    facts = {run.name: run.facts for run in again.finished}
    assert facts["SF-CC/E"] == {"device_used": "cpu"}
    assert facts["MFC-DZ/EF-CC/E"] == {}


def test_what_runs_share_is_kept_once(kept):
    _, folder = kept
    lines = (folder / "runs.jsonl").read_text().splitlines()
    assert len(lines) == 4
    assert not any("n_interaction_layers" in line or "/data" in line for line in lines)
    assert sum("coupling" in line for line in lines) == 4
    assert "made.h5" in (folder / "campaign.json").read_text()


def test_a_damaged_line_is_named(kept):
    _, folder = kept
    path = folder / "runs.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], lines[2][:50]]))
    with pytest.raises(UserError, match=r"runs\.jsonl, line 3 is not valid JSON"):
        read_results(folder)
    path.write_text("\n".join([lines[0].replace('"energy_rmse_kcal_per_mol"', '"energy_rms"')]))
    with pytest.raises(UserError, match=r"runs\.jsonl, line 1 is not what.*energy_rms"):
        read_results(folder)
