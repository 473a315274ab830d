"""A whole molecule whose levels differ by something else than its atoms say."""

from dataclasses import replace

import hypothesis.extra.numpy as st_numpy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hippynn_mf.data.checks.fits import count_elements
from hippynn_mf.data.checks.gate import check_structures
from hippynn_mf.data.checks.levels import check_levels
from hippynn_mf.data.checks.molecules import (
    check_molecules,
    deleted_residuals,
    robust_residuals,
)
from hippynn_mf.data.checks.report import NOTHING
from hippynn_mf.data.embedded import MINI_ANI1X
from hippynn_mf.data.formats.ani1x import labels_in_file, read_ani1x
from hippynn_mf.levels import CC, DZ, KNOWN_LEVELS, MP2, TZ
from hippynn_mf.units import EV_PER_HARTREE


@pytest.fixture(scope="module")
def structures():
    return read_ani1x(MINI_ANI1X, labels_in_file(MINI_ANI1X))[0]


def judge(structures, energies):
    """What is remarked of two levels."""
    names = [f"structure {i}" for i in range(len(structures))]
    _, counts = count_elements([structures])
    outcomes = check_levels(energies, names, counts, structures.groups, NOTHING)
    return [outcome for outcome in outcomes if outcome.verdict != "passed"]


@pytest.mark.parametrize("pair", [(DZ, TZ), (TZ, MP2), (MP2, CC), (DZ, CC)])
def test_every_molecule_that_is_two_ev_off_is_named_and_no_other(structures, pair):
    right = {level: structures.energies[level.id] for level in pair}
    assert judge(structures, right) == []
    is_known = np.isfinite(right[pair[0]]) & np.isfinite(right[pair[1]])
    n_noted = 0
    for group in np.unique(structures.groups[is_known]):
        is_of = structures.groups == group
        first = np.flatnonzero(is_of & is_known)[0]
        for level, sign in zip(pair, "-+", strict=True):
            wrong = right | {level: right[level] + 2 / EV_PER_HARTREE * is_of}
            (found,) = judge(structures, wrong)
            if found.verdict == "refused":  # all its conformers stand out by themselves
                continue
            n_noted += 1
            assert (found.check, found.verdict) == ("molecules", "noted")
            assert found.values["n_far"] == 1
            assert f"like structure {first} by {sign}" in found.text
    assert n_noted > 5


@pytest.mark.parametrize("n_wrong", [2, 3])
def test_several_wrong_molecules_do_not_hide_each_other(structures, n_wrong):
    right = {level: structures.energies[level.id] for level in (DZ, CC)}
    wrong = np.isin(structures.group_names, ["C2H4", "CH5N", "H2O2"][:n_wrong])
    shift = 2 / EV_PER_HARTREE * wrong[structures.groups]
    (found,) = judge(structures, right | {CC: right[CC] + shift})
    assert (found.check, found.values["n_far"]) == ("molecules", n_wrong)


def test_the_gate_asks_it(structures):
    report = check_structures(structures, KNOWN_LEVELS, MINI_ANI1X)
    assert not [o for o in report.outcomes if o.check == "molecules"]
    ethane = structures.groups == structures.group_names.index("C2H6")
    shifted = structures.energies[CC.id] + 2 / EV_PER_HARTREE * ethane
    energies = {DZ.id: structures.energies[DZ.id], CC.id: shifted}
    report = check_structures(replace(structures, energies=energies), KNOWN_LEVELS, MINI_ANI1X)
    assert report.of("molecules", CC.id).verdict == "noted"


def test_few_molecules_and_few_conformers_are_not_judged():
    counts = np.eye(4)[np.repeat(np.arange(4), 10)]
    differences = np.repeat([0.0, 0.0, 0.0, 100.0], 10)
    groups = np.repeat(np.arange(4), 10)
    names = ["x"] * 40
    rows, ones = np.arange(40), np.ones((40, 1))
    assert check_molecules("A and B", CC, differences, names, rows, counts, groups) == []
    assert check_molecules("A and B", CC, differences, names, rows, ones, rows) == []


@settings(deadline=None, max_examples=50)
@given(
    counts=st_numpy.arrays(
        np.int64, st.tuples(st.integers(9, 14), st.integers(1, 4)), elements=st.integers(0, 6)
    ),
    seed=st.integers(0, 999),
)
def test_deleted_residuals_are_those_of_fits_without_the_value(counts, seed):
    values = np.random.default_rng(seed).normal(size=len(counts))
    plain, studentized = deleted_residuals(counts.astype(float), values)
    rank = np.linalg.matrix_rank(counts)
    for i in range(len(values)):
        others, target = np.delete(counts, i, axis=0), np.delete(values, i)
        if np.linalg.matrix_rank(others) < rank:  # the others do not determine it
            assert plain[i] == studentized[i] == 0
            continue
        solution, *_ = np.linalg.lstsq(others, target, rcond=None)
        left = values[i] - counts[i] @ solution
        assert plain[i] == pytest.approx(left, abs=1e-8)
        variance = ((target - others @ solution) ** 2).sum() / (len(target) - rank)
        leverage = counts[i] @ np.linalg.pinv(others.T @ others) @ counts[i]
        expected = left / np.sqrt(variance * (1 + leverage))
        assert studentized[i] == pytest.approx(expected, rel=1e-6, abs=1e-8)


def test_values_that_stand_out_have_the_residuals_of_deletion():
    rng = np.random.default_rng(5)
    counts = rng.integers(0, 7, (40, 3)).astype(float)
    values = counts @ [1.0, -2.0, 0.5] + rng.normal(size=40)
    values[[3, 8]] += 500.0
    plain, studentized = robust_residuals(counts, values)
    assert set(np.flatnonzero(np.abs(studentized) > 20)) == {3, 8}
    for i in (3, 8):  # each without the other
        others = np.delete(np.arange(40), 11 - i)
        one, other = deleted_residuals(counts[others], values[others])
        place = int(np.flatnonzero(others == i)[0])
        assert plain[i] == pytest.approx(one[place])
        assert studentized[i] == pytest.approx(other[place])
