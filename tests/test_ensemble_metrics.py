import json

import numpy as np
import pytest
from made_predictions import (
    GROUPS,
    TESTED,
    predicted_run,
    predictions,
    references,
    with_cc_forces,
)
from made_runs import files_below, make_run, run_metrics

from hippynn_mf.errors import UserError
from hippynn_mf.files import write_npz
from hippynn_mf.levels import KNOWN_LEVELS
from hippynn_mf.report.columns import heldout_energy
from hippynn_mf.report.ensemble import find_ensembles
from hippynn_mf.report.kept import write_kept
from hippynn_mf.report.results import read_results

NAME = "MF-DZ/EF-CC/E"
DZ, TZ, MP2, CC = "wb97x_dz", "wb97x_tz", "mp2_tz", "ccsd(t)_cbs"


def ensemble(out, name=NAME):
    return find_ensembles(read_results(out), [name]).get(name)


def stored(out):
    return out / "runs" / "mf_dz_ef_cc_e" / "ensemble.json"


def rms(errors):
    return np.sqrt(np.mean(np.square(errors)))


def mean_prediction(name, seeds=(0, 1, 2)):
    return np.mean([predictions(NAME, seed)[name].astype(float) for seed in seeds], axis=0)


@pytest.fixture
def members(tmp_path):
    for seed in range(3):
        predicted_run(tmp_path, NAME, seed)
    return tmp_path


def test_the_errors_are_those_of_the_mean_prediction(members):
    held = ensemble(members).sets["heldout"]
    truth = references()
    errors = mean_prediction(f"heldout.{CC}.energy") - truth[f"heldout.reference.{CC}.energy"]
    assert held[CC][CC].energy_rmse_kcal_per_mol == pytest.approx(rms(errors))
    assert held[CC][CC].energy_mae_kcal_per_mol == pytest.approx(np.abs(errors).mean())
    atoms = truth["heldout.species"] > 0
    for head, level in [(DZ, DZ), (CC, TZ)]:
        errors = mean_prediction(f"heldout.{head}.forces")
        errors = errors - truth[f"heldout.reference.{level}.forces"]
        found = held[head][level].force_rmse_kcal_per_mol_per_angstrom
        assert found == pytest.approx(rms(errors[atoms]))


def test_comp6_errors_are_those_of_the_mean_prediction_within_the_cut(members):
    far = ensemble(members).sets["comp6"]
    truth = references()
    kept = np.arange(7) < 6  # the last is planted far above the minimum
    errors = mean_prediction(f"comp6.{CC}.energy") - truth[f"comp6.reference.{CC}.energy"]
    pairs = [errors[i] - errors[j] for i in range(6) for j in range(i) if GROUPS[i] == GROUPS[j]]
    own = far[CC][CC]
    assert (own.n_structures, own.n_pairs) == (6, len(pairs)) == (6, 6)
    assert own.delta_e_rmse_kcal_per_mol == pytest.approx(rms(pairs))
    atoms = (truth["comp6.species"] > 0) & kept[:, None]
    for head in (DZ, CC):
        errors = mean_prediction(f"comp6.{head}.forces") - truth[f"comp6.reference.{MP2}.forces"]
        found = far[head][MP2].force_rmse_kcal_per_mol_per_angstrom
        assert found == pytest.approx(rms(errors[atoms]))


def test_the_mean_of_the_members_errors_is_not_below_that_of_their_mean(members):
    """By the triangle inequality; the members' errors are independent, so far below here."""
    found = ensemble(members).sets["heldout"][CC][CC].energy_rmse_kcal_per_mol
    assert found < read_results(members).values(NAME, heldout_energy(KNOWN_LEVELS.get(CC))).mean()


def test_an_ensemble_of_one_has_the_errors_of_its_member(tmp_path):
    predicted_run(tmp_path, NAME, 4)
    (run,) = read_results(tmp_path).finished
    assert ensemble(tmp_path).errors() == run.sets


def test_levels_are_compared_on_the_same_structures_by_the_same_code(members):
    differences = ensemble(members).level_differences
    truth = references()
    atoms = truth["heldout.species"] > 0
    errors = truth[f"heldout.reference.{DZ}.forces"] - truth[f"heldout.reference.{TZ}.forces"]
    found = differences["heldout"][DZ][TZ]
    assert found.force_rmse_kcal_per_mol_per_angstrom == pytest.approx(rms(errors[atoms]))
    atoms = (truth["comp6.species"] > 0) & (np.arange(7) < 6)[:, None]
    errors = truth[f"comp6.reference.{DZ}.forces"] - truth[f"comp6.reference.{MP2}.forces"]
    found = differences["comp6"][DZ][MP2]
    assert found.force_rmse_kcal_per_mol_per_angstrom == pytest.approx(rms(errors[atoms]))
    assert found.n_structures == 6
    assert set(differences["heldout"][DZ]) == {TZ, MP2, CC}  # not with itself
    assert set(differences["heldout"]) == {DZ, TZ}  # levels without forces are no low levels


def test_a_level_with_a_missing_label_is_not_compared(tmp_path):
    arrays = predictions(NAME, 0)
    arrays[f"heldout.reference.{DZ}.forces"][2] = np.nan
    predicted_run(tmp_path, NAME, 0, arrays)
    differences = ensemble(tmp_path).level_differences
    assert set(differences["heldout"]) == {TZ}
    assert set(differences["comp6"]) == {DZ, MP2}


def test_the_file_is_read_where_predictions_are_gone(members):
    made = ensemble(members)
    for path in members.rglob("predictions.npz"):
        path.unlink()
    before = files_below(members)
    assert ensemble(members) == made
    assert files_below(members) == before
    assert list(made.members) == ["0", "1", "2"]


def test_without_file_and_predictions_there_is_no_ensemble(tmp_path):
    make_run(tmp_path, NAME, 0, run_metrics())
    assert ensemble(tmp_path) is None
    assert not stored(tmp_path).exists()


def add_a_seed(out):
    predicted_run(out, NAME, 3)


def remove_a_seed(out):
    (out / "runs" / "mf_dz_ef_cc_e" / "seed-1" / "metrics.json").unlink()


def evaluate_to_something_else(out):
    folder = out / "runs" / "mf_dz_ef_cc_e" / "seed-1"
    predicted_run(out, NAME, 1, predictions(NAME, 9))
    assert folder.is_dir()


@pytest.mark.parametrize("change", [add_a_seed, remove_a_seed, evaluate_to_something_else])
def test_a_file_of_other_members_is_made_again_or_refused(members, change):
    before = ensemble(members)
    change(members)
    after = ensemble(members)
    assert after.sets != before.sets
    assert json.loads(stored(members).read_text())["members"] == after.members
    stored(members).write_text(before.model_dump_json(exclude_unset=True))
    for path in members.rglob("predictions.npz"):
        path.unlink()
    with pytest.raises(
        UserError, match=r"ensemble\.json is of seeds 0, 1, 2 of MF.* as they were.*evalua"
    ):
        ensemble(members)
    some = find_ensembles(read_results(members).only([0]), [NAME])
    assert some == {}  # a selection of seeds is not what the file is of


def test_training_time_does_not_make_a_file_out_of_date(members):
    made = ensemble(members)
    path = members / "runs" / "mf_dz_ef_cc_e" / "seed-1" / "metrics.json"
    metrics = json.loads(path.read_text()) | {"training": {"wall_s": 1.0, "n_epochs": 3}}
    path.write_text(json.dumps(metrics))
    for name in members.rglob("predictions.npz"):
        name.unlink()
    assert ensemble(members) == made


def test_a_selection_of_seeds_leaves_the_file_alone(members):
    ensemble(members)
    before = files_below(members)
    results = read_results(members).only([0, 2])
    (found,) = find_ensembles(results, [NAME]).values()
    assert list(found.members) == ["0", "2"]
    errors = (
        mean_prediction(f"heldout.{CC}.energy", (0, 2))
        - references()[f"heldout.reference.{CC}.energy"]
    )
    assert found.sets["heldout"][CC][CC].energy_rmse_kcal_per_mol == pytest.approx(rms(errors))
    assert files_below(members) == before


def shifted_reference(arrays):
    arrays[f"comp6.reference.{MP2}.forces"] = arrays[f"comp6.reference.{MP2}.forces"] + 1e-3


def other_rows(arrays):
    arrays["heldout.rows"] = arrays["heldout.rows"][::-1]


def no_species(arrays):
    arrays["heldout.species"] = np.where(arrays["heldout.species"] > 0, 1, 0)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (shifted_reference, r"comp6\.reference\.mp2_tz\.forces"),
        (other_rows, r"heldout\.rows"),
        (no_species, r"heldout\.species"),
    ],
    ids=["references", "rows", "species"],
)
def test_members_that_were_tested_on_something_else_are_refused(tmp_path, change, name):
    predicted_run(tmp_path, NAME, 0)
    arrays = predictions(NAME, 1)
    change(arrays)
    predicted_run(tmp_path, NAME, 1, arrays)
    with pytest.raises(UserError, match=f"seed-1 and .*seed-0 were not tested on.*: {name} of"):
        ensemble(tmp_path)
    assert not stored(tmp_path).exists()


def test_references_may_be_missing_in_the_same_places(tmp_path):
    for seed in range(2):
        arrays = predictions(NAME, seed)
        arrays[f"heldout.reference.{CC}.energy"][1] = np.nan
        predicted_run(tmp_path, NAME, seed, arrays)
    assert ensemble(tmp_path).sets["heldout"][CC][CC].n_energies == 4


def test_predictions_that_do_not_give_the_metrics_are_refused(members):
    arrays = predictions(NAME, 2)
    arrays[f"comp6.{CC}.energy"][0] += 1
    write_npz(members / "runs" / "mf_dz_ef_cc_e" / "seed-2" / "predictions.npz", arrays)
    with pytest.raises(UserError, match=r"seed-2: predictions.npz does not give.*comp6\.") as error:
        ensemble(members)
    assert "hippynn-mf evaluate" in str(error.value)


def test_a_damaged_file_is_refused_with_its_field(members):
    ensemble(members)
    content = json.loads(stored(members).read_text()) | {"format": 1}
    stored(members).write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"ensemble\.json is not what.*format: Input should be 2"):
        ensemble(members)


@pytest.mark.parametrize("part", ["comp6", "cc-forces"])
def test_forces_whose_sign_was_not_proved_stay_unused(tmp_path, part):
    make_tested(tmp_path)
    for path in tmp_path.glob("runs/*/seed-*/metrics.json"):
        metrics = json.loads(path.read_text())
        for references_of_head in metrics["sets"][part].values():
            entry = references_of_head[DZ]
            for name in [name for name in entry if "force" in name]:
                del entry[name]
            entry |= {
                "force_rmse_kcal_per_mol_per_angstrom": None,
                "force_mae_kcal_per_mol_per_angstrom": None,
                "force_reason": "the sign is not proved",
            }
        path.write_text(json.dumps(metrics))
    found = ensemble(tmp_path)
    assert found.sets[part][CC][DZ].force_reason == "the sign is not proved"
    assert found.sets[part][DZ][MP2 if part == "comp6" else CC].n_force_components > 0
    assert DZ not in found.level_differences[part]
    assert DZ in found.level_differences["heldout"]


def test_without_tests_there_are_errors_on_the_heldout_set_alone(tmp_path):
    for seed in range(2):
        arrays = {n: v for n, v in predictions(NAME, seed).items() if n.startswith("heldout")}
        predicted_run(tmp_path, NAME, seed, arrays, tests=())
    assert set(ensemble(tmp_path).sets) == {"heldout"}
    assert set(ensemble(tmp_path).level_differences) == {"heldout"}


def make_tested(out):
    """Three runs that were tested on a set with CC forces, and their predictions."""
    stacks = [with_cc_forces(predictions(NAME, seed), seed) for seed in range(3)]
    for seed, arrays in enumerate(stacks):
        predicted_run(out, NAME, seed, arrays, **TESTED)
    return stacks


def test_errors_on_a_further_set_are_those_of_the_mean_prediction(tmp_path):
    stacks = make_tested(tmp_path)
    found = ensemble(tmp_path).sets["cc-forces"]
    atoms = stacks[0]["cc-forces.species"] > 0
    for head, level in [(CC, CC), (CC, TZ), (DZ, CC)]:
        mean = np.mean([a[f"cc-forces.{head}.forces"].astype(float) for a in stacks], axis=0)
        errors = mean - stacks[0][f"cc-forces.reference.{level}.forces"]
        rmse = found[head][level].force_rmse_kcal_per_mol_per_angstrom
        assert rmse == pytest.approx(rms(errors[atoms]))
    differences = ensemble(tmp_path).level_differences["cc-forces"]
    assert set(differences) == {DZ, TZ, CC}


def test_kept_results_bring_their_ensembles_along(members):
    results = read_results(members)
    records = find_ensembles(results, [NAME])
    write_kept(members / "kept", results.finished, [r.content() for r in records.values()])
    kept = read_results(members / "kept")
    assert find_ensembles(kept, [NAME]) == records
    assert find_ensembles(kept.only([0, 1]), [NAME]) == {}  # it is of all three
    lines = (members / "kept" / "runs.jsonl").read_text().splitlines()
    (members / "kept" / "runs.jsonl").write_text("\n".join(lines[:2]))
    with pytest.raises(
        UserError, match=r"ensembles\.jsonl is of seeds 0, 1, 2 of MF.*as they were"
    ):
        find_ensembles(read_results(members / "kept"), [NAME])


def test_members_of_which_one_was_tested_on_another_file_are_refused(tmp_path):
    stacks = make_tested(tmp_path)
    path = tmp_path / "runs" / "mf_dz_ef_cc_e" / "seed-1" / "predictions.npz"
    name = f"cc-forces.reference.{CC}.forces"
    write_npz(path, stacks[1] | {name: stacks[1][name] + 1})
    with pytest.raises(UserError, match=r"cc-forces\.reference\.ccsd\(t\)_cbs\.forces of pred"):
        ensemble(tmp_path)
