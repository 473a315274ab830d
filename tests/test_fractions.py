import re

import numpy as np
import pytest
from made_runs import TINY_OPTIONS, build_settings, exit_code
from planted import write_ani1x

from hippynn_mf.data.fractions import resolve_fractions
from hippynn_mf.data.loading import load_splits
from hippynn_mf.errors import UserError
from hippynn_mf.labels import parse_labels
from hippynn_mf.levels import CC, DZ, PAPER_LEVELS, TZ
from hippynn_mf.paper.table1 import get_experiment
from hippynn_mf.runs.folder import find_runs

LABELS = {"DZ": "EF", "CC": "E"}


@pytest.fixture
def planted_file(tmp_path):
    return write_ani1x(tmp_path / "data.h5")


def load(path, labels=LABELS, fractions=None, split_seed=0, rows="common"):
    return load_splits(
        path,
        parse_labels(labels),
        common_levels=PAPER_LEVELS,
        rows=rows,
        split_seed=split_seed,
        label_fractions=fractions or {},
    )


def kept_rows(part, level):
    return set(part.rows[part.has_energy(level)].tolist())


def test_the_asked_fraction_of_training_and_validation_labels_is_kept(planted_file):
    whole, parts = load(planted_file), load(planted_file, fractions={CC: 0.3})
    for split in ("train", "valid"):
        assert parts[split].has_energy(CC).sum() == round(0.3 * len(whole[split]))
        np.testing.assert_array_equal(parts[split].rows, whole[split].rows)
        np.testing.assert_array_equal(
            parts[split].energies["wb97x_dz"], whole[split].energies["wb97x_dz"]
        )
        np.testing.assert_array_equal(
            parts[split].forces["wb97x_dz"], whole[split].forces["wb97x_dz"]
        )
        labelled = parts[split].has_energy(CC)
        np.testing.assert_array_equal(
            parts[split].energies["ccsd(t)_cbs"][labelled],
            whole[split].energies["ccsd(t)_cbs"][labelled],
        )


def test_test_structures_keep_every_label(planted_file):
    whole, parts = load(planted_file), load(planted_file, fractions={CC: 0.1, DZ: 0.1})
    for level_id, energies in whole["test"].energies.items():
        np.testing.assert_array_equal(parts["test"].energies[level_id], energies)
    np.testing.assert_array_equal(
        parts["test"].forces["wb97x_dz"], whole["test"].forces["wb97x_dz"]
    )


def test_a_larger_fraction_keeps_the_conformers_of_a_smaller_one(planted_file):
    kept = [kept_rows(load(planted_file, fractions={CC: f})["train"], CC) for f in (0.1, 0.3, 0.8)]
    assert kept[0] < kept[1] < kept[2]


def test_every_experiment_keeps_the_same_conformers(planted_file):
    alone = load(planted_file, {"CC": "E"}, {CC: 0.3})["train"]
    beside = load(planted_file, LABELS, {CC: 0.3})["train"]
    assert kept_rows(alone, CC) == kept_rows(beside, CC)
    assert len(alone) == len(kept_rows(alone, CC))  # what has no label is left out
    assert len(beside) > len(alone)  # but not where another level has one


def test_another_split_seed_keeps_others(planted_file):
    first, other = (
        load(planted_file, fractions={CC: 0.3}, split_seed=seed)["train"] for seed in (0, 1)
    )
    assert kept_rows(first, CC) != kept_rows(other, CC)


def test_forces_go_with_their_energies_and_padding_stays_zero(planted_file):
    part = load(planted_file, fractions={DZ: 0.5})["train"]
    lost = ~part.has_energy(DZ)
    assert 0.4 < lost.mean() < 0.6
    np.testing.assert_array_equal(part.has_forces(DZ), ~lost)
    forces = part.forces["wb97x_dz"][lost]
    assert np.isnan(forces[part.atom_mask[lost]]).all()
    assert (forces[~part.atom_mask[lost]] == 0).all()


def test_at_least_one_label_is_kept(planted_file):
    assert load(planted_file, fractions={CC: 1e-9})["train"].has_energy(CC).sum() == 1


def test_fractions_of_levels_that_an_experiment_does_not_train_on_leave_it_alone(planted_file):
    whole, part = load(planted_file, {"DZ": "EF"}), load(planted_file, {"DZ": "EF"}, {CC: 0.3})
    np.testing.assert_array_equal(part["train"].rows, whole["train"].rows)


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ({"TZ": 0.3}, "which the experiment does not train on. It trains on: DZ, CC."),
        ({"CC": 0.0}, "is 0.0; expected more than 0 and at most 1"),
        ({"CC": 1.5}, "is 1.5; expected more than 0"),
        ({"CC": float("nan")}, "is nan; expected"),
        ({"CC": 0.3, "ccsd(t)_cbs": 0.4}, "CC is asked for twice"),
        ({"XX": 0.3}, "Unknown level of theory 'XX'"),
    ],
)
def test_wrong_fractions_are_refused(fractions, message):
    with pytest.raises(UserError, match=re.escape(message)):
        resolve_fractions(fractions, parse_labels(LABELS))


def test_a_campaign_may_have_experiments_without_the_level(planted_file):
    experiments = [get_experiment("SF-DZ/EF"), get_experiment("MF-DZ/EF-CC/E")]
    runs = build_settings(experiments, [0], data=planted_file, label_fractions={"CC": 0.3})
    assert [run.label_fractions for run in runs] == [{"ccsd(t)_cbs": 0.3}] * 2
    with pytest.raises(UserError, match="does not train on"):
        build_settings(experiments[:1], [0], data=planted_file, label_fractions={"CC": 0.3})
    assert resolve_fractions({"TZ": 1}, parse_labels({"TZ": "E"})) == {TZ: 1}


@pytest.mark.parametrize("text", ["CC", "CC=half", "=0.3", "CC=nan"])
def test_the_option_needs_level_and_number(text, tmp_path, capsys):
    arguments = ["train", "SF-CC/E", "--label-fraction", text, "--out", str(tmp_path)]
    assert exit_code(*arguments) == 2
    assert f"--label-fraction expects LEVEL=FRACTION, as CC=0.3; found '{text}'" in (
        capsys.readouterr().err
    )


def test_a_run_trains_on_the_fraction_and_says_so(planted_file, tmp_path):
    options = ["--data", planted_file, "--out", tmp_path / "out", *TINY_OPTIONS]
    assert exit_code("train", "SF-CC/E", "--label-fraction", "CC=0.25", *options) == 0
    (run,) = find_runs(tmp_path / "out")
    assert run.read_settings().label_fractions == {"ccsd(t)_cbs": 0.25}
    with np.load(run.file("split.npz")) as rows:
        assert len(rows["train"]) == round(0.25 * 160)
        assert len(rows["test"]) == 20
