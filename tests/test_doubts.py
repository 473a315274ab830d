"""What a run warns of: few validation labels, and heads that are no better than those below."""

import numpy as np
from made_runs import TINY_OPTIONS, exit_code
from planted import write_ani1x

from hippynn_mf.evaluation.doubts import few_labels, no_better
from hippynn_mf.evaluation.scoring import LabelledSet
from hippynn_mf.labels import parse_labels
from hippynn_mf.levels import CC, DZ, KNOWN_LEVELS, TZ
from hippynn_mf.runs.folder import RunFolder

N = 40
RNG = np.random.default_rng(3)
SPECIES = np.where(RNG.random((N, 5)) < 0.8, RNG.choice([1, 6, 8], (N, 5)), 0)
SPECIES[:, 0] = 6
ATOMIC = {1: 3.0, 6: -40.0, 8: 25.0}
SHIFT = sum((z == SPECIES).sum(axis=1) * value for z, value in ATOMIC.items())
MASK = (SPECIES > 0)[..., None]


def planted(*, high_error, low_error=5.0, cut=None, high_forces=True):
    """Labels of DZ and TZ `low_error` apart but for atomic energies, and predictions of both."""
    low = 30 * RNG.standard_normal(N)
    high = low + SHIFT + low_error * RNG.standard_normal(N)
    low_forces = 20 * RNG.standard_normal((N, 5, 3)) * MASK
    true_forces = low_forces + low_error * RNG.standard_normal((N, 5, 3)) * MASK
    labels = {DZ.energy_name: low, TZ.energy_name: high, DZ.forces_name: low_forces}
    if high_forces:
        labels[TZ.forces_name] = true_forces
    predicted = {
        DZ.energy_name: low + 0.1,
        DZ.forces_name: low_forces,
        TZ.energy_name: high + high_error * RNG.standard_normal(N),
        TZ.forces_name: true_forces + high_error * RNG.standard_normal((N, 5, 3)) * MASK,
    }
    groups = np.arange(N) // 4
    test = LabelledSet(SPECIES, labels, groups, KNOWN_LEVELS, cut=cut)
    return test, predicted


def test_a_good_head_is_not_doubted():
    test, predicted = planted(high_error=0.5)
    assert no_better("heldout", test, predicted, [DZ, TZ]) == []


def test_a_head_is_compared_with_labels_and_head_of_the_level_below():
    test, predicted = planted(high_error=20.0)
    lines = no_better("heldout", test, predicted, [DZ, TZ])
    assert [line.partition(", mean")[0] for line in lines] == [
        "heldout: energies of TZ are no better than those of the labels of DZ",
        "heldout: forces of TZ are no better than those of the labels of DZ",
        "heldout: energies of TZ are no better than those of the head of DZ",
        "heldout: forces of TZ are no better than those of the head of DZ",
    ]
    assert lines[1].endswith("kcal/mol/Å.")


def test_atomic_energies_do_not_make_the_lower_level_worse():
    """Without the fit the levels would be a hundred kcal/mol apart, and any head better."""
    test, predicted = planted(high_error=6.0, low_error=0.5)
    assert "energies of TZ" in no_better("mine", test, predicted, [DZ, TZ])[0]


def test_forces_that_are_not_known_are_not_compared():
    test, predicted = planted(high_error=20.0, high_forces=False)
    lines = no_better("heldout", test, predicted, [DZ, TZ])
    assert len(lines) == 2
    assert not any("forces" in line for line in lines)


def test_differences_of_conformers_need_no_atomic_energies():
    test, predicted = planted(high_error=20.0, cut=1e6)
    energies = {**test.labels, TZ.energy_name: test.labels[TZ.energy_name] - SHIFT}
    test = LabelledSet(SPECIES, energies, test.groups, KNOWN_LEVELS, cut=1e6)
    predicted[TZ.energy_name] = predicted[TZ.energy_name] - SHIFT
    lines = no_better("comp6", test, predicted, [DZ, TZ])
    assert lines[0].startswith("comp6: energies of conformers of TZ are no better")


def test_only_structures_that_both_levels_have_are_compared():
    test, predicted = planted(high_error=0.5)
    without = test.labels[DZ.energy_name].copy()
    without[10:] = np.nan  # where the head is bad
    predicted[TZ.energy_name][10:] += 1000.0
    labels = {**test.labels, DZ.energy_name: without}
    partly = LabelledSet(SPECIES, labels, test.groups, KNOWN_LEVELS)
    lines = no_better("heldout", partly, predicted, [DZ, TZ])
    assert [line for line in lines if "labels of DZ" in line] == []
    assert any("energies of TZ are no better than those of the head" in line for line in lines)


def test_a_single_level_has_none_below():
    test, predicted = planted(high_error=20.0)
    assert no_better("heldout", test, predicted, [TZ]) == []


class Part:
    def __init__(self, counts, n_forces=100):
        self.counts, self.n_forces = counts, n_forces

    def has_energy(self, level):
        return np.arange(100) < self.counts[level]

    def has_forces(self, level):
        return np.arange(100) < self.n_forces


def test_levels_with_fewer_than_thirty_validation_labels_are_named():
    labels = parse_labels({"DZ": "EF", "CC": "E"})
    assert few_labels(Part({DZ: 30, CC: 30}), labels) == []
    (line,) = few_labels(Part({DZ: 30, CC: 29}), labels)
    assert line.startswith("CC has 29 energies in the validation split, fewer than 30")
    (line,) = few_labels(Part({DZ: 30, CC: 30}, n_forces=4), labels)  # CC has none to train on
    assert line.startswith("DZ has 4 structures with forces in the validation split")


def test_a_run_warns_on_the_terminal_in_its_log_and_in_its_metrics(tmp_path, caplog):
    data = write_ani1x(tmp_path / "planted.h5", 24)
    arguments = ["MF-DZ/EF-CC/E", "--data", data, "--out", tmp_path / "out"]
    assert exit_code("train", *arguments, *TINY_OPTIONS, "--set", "max_epochs=1") == 0
    folder = RunFolder(tmp_path / "out" / "runs" / "mf_dz_ef_cc_e" / "seed-0")
    warnings = folder.read_metrics()["warnings"]
    log = folder.file("log.txt").read_text()
    assert warnings[0].startswith("DZ has 12 energies in the validation split")
    assert any("energies of CC are no better than" in text for text in warnings)
    assert all(text in log for text in warnings)
    shown = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert {text for text in shown if "fewer than 30" in text} == set(warnings[:2])
    (of_heads,) = [text for text in shown if "no better" in text]  # one line for all of them
    assert of_heads.startswith(f"MF-DZ/EF-CC/E, seed 0: {warnings[2]}")
    assert exit_code("evaluate", folder.path) == 0
    assert folder.read_metrics()["warnings"] == warnings
