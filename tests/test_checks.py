"""Wrong labels that once trained without a word, in small planted files."""

from dataclasses import replace

import h5py
import numpy as np
import planted
import pytest

from hippynn_mf.data.checks.gate import check_structures, pass_gate
from hippynn_mf.data.checks.levels import check_levels
from hippynn_mf.data.checks.repeats import check_repeats
from hippynn_mf.data.checks.report import Accepted, CheckReport
from hippynn_mf.data.embedded import MINI_ANI1X, MINI_CC_FORCES
from hippynn_mf.data.formats.ani1x import labels_in_file, read_ani1x
from hippynn_mf.data.formats.comp6 import read_comp6
from hippynn_mf.data.formats.extxyz import read_extxyz
from hippynn_mf.data.formats.sources import open_data
from hippynn_mf.errors import UserError
from hippynn_mf.levels import CC, DZ, KNOWN_LEVELS, TZ, Level, Levels


@pytest.fixture
def structures(ani1x_file):
    return read_ani1x(ani1x_file, labels_in_file(ani1x_file))[0]


def with_energies(structures, level, values):
    return replace(structures, energies={**structures.energies, level.id: values})


def refused(structures, path, **options):
    report = check_structures(structures, KNOWN_LEVELS, path, **options)
    return [outcome for outcome in report.outcomes if outcome.verdict == "refused"]


def test_planted_data_pass_and_the_report_is_json(structures, ani1x_file):
    report = pass_gate(structures, KNOWN_LEVELS, ani1x_file)
    assert {o.verdict for o in report.outcomes} <= {"passed", "noted"}
    assert CheckReport.model_validate_json(report.model_dump_json()) == report
    assert report.of("forces", DZ.id).values["slope"] == pytest.approx(1, abs=0.05)


def test_a_zero_is_no_label(structures, ani1x_file):
    energies = structures.energies[DZ.id].copy()
    energies[[3, 50]] = 0
    (found,) = refused(with_energies(structures, DZ, energies), ani1x_file)
    assert found.check == "values"
    assert "exactly 0 in 2 structures (row 3 of CH4, row 50 of CHN)" in found.text
    forces = {k: v[:] for k, v in structures.forces.items()}
    forces[TZ.id][7] = 0
    (found,) = refused(replace(structures, forces=forces), ani1x_file)
    assert "forces of level wb97x_tz are exactly 0 in 1 structures (row 7 of CH4)" in found.text


@pytest.mark.parametrize("every", [3, 1])
def test_energies_of_other_conformers_are_found_by_their_digits(structures, ani1x_file, every):
    """Every third one, or all, as the conformer before: a column that was filled."""
    energies = structures.energies[CC.id].copy()
    for row in range(1, len(energies)):
        if row % every == 0 and structures.groups[row] == structures.groups[row - 1]:
            energies[row] = energies[row - 1]
    found = refused(with_energies(structures, CC, energies), ani1x_file)
    assert "repeats" in {outcome.check for outcome in found}
    accepted = check_structures(
        with_energies(structures, CC, energies), KNOWN_LEVELS, ani1x_file,
        accepted=Accepted(outliers=True),
    )  # fmt: skip
    assert accepted.of("repeats", CC.id).verdict == "accepted"


@pytest.mark.parametrize("n", [2000, 20_000])
@pytest.mark.parametrize("digits", [3, 4, 5, 6, 9])
def test_energies_of_few_digits_are_equal_by_chance(digits, n):
    energies = np.random.default_rng(0).normal(-40, 0.01, n).round(digits)
    names = [str(i) for i in range(n)]
    groups = np.zeros(n, int)
    assert check_repeats(energies, names, groups, CC, Accepted()) == []
    filled = energies.copy()
    filled[1::2] = energies[::2]
    found = check_repeats(filled, names, groups, CC, Accepted())
    assert found or digits < 9


def test_a_column_shifted_by_a_row_is_refused(structures, ani1x_file):
    shifted = np.roll(structures.energies[CC.id], 1)
    found = refused(with_energies(structures, CC, shifted), ani1x_file)
    assert "levels" in {outcome.check for outcome in found}
    assert "may be shifted" in " ".join(outcome.text for outcome in found)


HF = Level("hf_tz", "HF", "HF", "cc-pVTZ", 0.5, ("hf_tz.energy",), self_energies=CC.self_energies)


@pytest.mark.parametrize("path", [MINI_CC_FORCES, MINI_ANI1X], ids=["minima", "all"])
def test_hartree_fock_and_dft_are_levels_of_the_same_structures(path):
    """Near minima they differ by more than half of what either varies by."""
    levels = Levels((HF, *KNOWN_LEVELS))
    labels = labels_in_file(path, levels=levels)
    structures = read_ani1x(path, labels)[0]
    both = {level.id: structures.energies[level.id] for level in (HF, DZ)}
    found = check_structures(replace(structures, energies=both), levels, path)
    (outcome,) = [each for each in found.outcomes if each.check == "levels"]
    assert (outcome.verdict, outcome.level) == ("passed", DZ.id)


@pytest.mark.parametrize("shift", [1, 2, 5])
def test_a_trajectory_shifted_by_a_frame_is_of_other_structures(shift):
    """Where neighbouring frames are alike, so that a column and the next have a correlation."""
    rng = np.random.default_rng(0)
    steps = rng.normal(size=400)
    energies = [0.0]
    for step in steps[1:]:
        energies.append(0.7 * energies[-1] + step)
    low = 1e-2 * np.array(energies)
    arguments = ([f"row {k}" for k in range(400)], np.ones((400, 1)), np.zeros(400, int))
    right = {DZ: low, CC: 1.1 * low + 1e-4 * rng.normal(size=400)}
    assert [o.verdict for o in check_levels(right, *arguments, Accepted())] == ["passed"]
    shifted = {DZ: low, CC: np.roll(right[CC], shift)}
    assert [o.verdict for o in check_levels(shifted, *arguments, Accepted())] == ["refused"]


def test_a_wrong_label_is_listed_with_its_ratio_and_can_be_accepted(structures, ani1x_file):
    energies = structures.energies[CC.id].copy()
    energies[11] += 1.0  # 27 eV
    changed = with_energies(structures, CC, energies)
    found = refused(changed, ani1x_file)
    assert found
    assert {outcome.check for outcome in found} == {"outliers"}
    assert all("row 11 of CH4" in o.text and "times the spread" in o.text for o in found)
    assert not refused(changed, ani1x_file, accepted=Accepted(outliers=True))
    with pytest.raises(UserError, match="--accept-outliers"):
        pass_gate(changed, KNOWN_LEVELS, ani1x_file)


def set_key(path, key, value):
    with h5py.File(path, "r+") as file:
        for group in file.values():
            group[key] = np.full(len(group["coordinates"]), value)


@pytest.mark.parametrize(
    ("key", "value", "check"),
    [
        ("charge", 1, "charge, spin"),
        ("spin", 2, "charge, spin"),
        ("multiplicity", 3, "charge, spin"),
        ("config_weight", 0.1, "weights"),
        ("config_forces_weight", 0, "weights"),
    ],
)
def test_charges_spins_and_weights_are_never_ignored(structures, ani1x_file, key, value, check):
    set_key(ani1x_file, key, value)
    (found,) = refused(structures, ani1x_file)
    assert found.check == check
    left = refused(structures, ani1x_file, accepted=Accepted(charged=True))
    assert bool(left) == (check == "weights")


@pytest.mark.parametrize(("key", "value"), [("charge", 0), ("spin", 1), ("config_weight", 1)])
def test_neutral_singlets_of_weight_one_pass(structures, ani1x_file, key, value):
    set_key(ani1x_file, key, value)
    assert not refused(structures, ani1x_file)


@pytest.mark.parametrize("key", ["spin", "total_spin"])
def test_spins_of_0_and_1_are_singlets_and_triplets(structures, ani1x_file, key):
    with h5py.File(ani1x_file, "r+") as file:
        for number, group in enumerate(file.values()):
            group[key] = np.full(len(group["coordinates"]), number % 2)
    (found,) = refused(structures, ani1x_file)
    assert found.check == "charge, spin"
    assert f"{key} is 0 and 1" in found.text
    assert not refused(structures, ani1x_file, accepted=Accepted(charged=True))


def test_unused_keys_are_said(structures, ani1x_file):
    set_key(ani1x_file, "dipole", 1.0)
    outcome = check_structures(structures, KNOWN_LEVELS, ani1x_file).of("unused")
    assert outcome.verdict == "noted"
    assert "dipole" in outcome.text


@pytest.mark.parametrize("key", ["coordinates", "wb97x_dz.forces"])
def test_values_beyond_float32_are_refused(ani1x_file, key):
    with h5py.File(ani1x_file) as file:
        values = file["CH4"][key][()].astype(float)
    values[2, 1, 0] = 1e300
    planted.replace(ani1x_file, "CH4", key, values)
    with pytest.raises(UserError, match=r"group CH4: .*beyond what single precision holds"):
        read_ani1x(ani1x_file, labels_in_file(ani1x_file))


@pytest.mark.parametrize("key", ["coordinates", "forces"])
def test_values_beyond_float32_are_refused_in_comp6(tmp_path, key):
    path = planted.write_comp6(tmp_path / "comp6.h5")
    with h5py.File(path, "r+") as file:
        values = file["planted/CH4"][key][()].astype(float)
        del file["planted/CH4"][key]
        values[2, 1, 0] = -1e300
        file["planted/CH4"][key] = values
    with pytest.raises(UserError, match="beyond what single precision holds"):
        read_comp6(path)


@pytest.mark.parametrize("number", [np.nan, 6.4, 0.0, 263.0, -1.0])
def test_atomic_numbers_are_elements(ani1x_file, number):
    planted.replace(ani1x_file, "N2", "atomic_numbers", np.array([7.0, number]))
    with pytest.raises(UserError, match="group N2: atomic_numbers"):
        read_ani1x(ani1x_file, labels_in_file(ani1x_file))


def frame(info, columns="species:S:1:pos:R:3", rows="H 0 0 0\nH 0 0 0.74\n"):
    return f'2\nProperties={columns} {info} pbc="F F F"\n{rows}'


def write(tmp_path, *frames):
    path = tmp_path / "a.xyz"
    path.write_text("".join(frames))
    return path


def test_head_selects_the_level(tmp_path):
    path = write(tmp_path, frame("REF_energy=-31 head=DZ"), frame("REF_energy=-32 head=CC"))
    dz, cc = read_extxyz(path).frames
    assert list(dz.energies) == ["wb97x_dz.energy"]
    assert list(cc.energies) == ["ccsd(t)_cbs.energy"]
    with pytest.raises(UserError, match=r"structure 2: head=CC names level ccsd.*file is that of"):
        read_extxyz(path, DZ)
    path = write(tmp_path, frame("REF_energy=-31 head=Default"))
    with pytest.raises(UserError, match="head=Default names no level"):
        read_extxyz(path, DZ)


def test_two_naming_styles_are_both_read(tmp_path):
    path = write(tmp_path, frame("REF_energy=-31"), frame("energy=-32"))
    assert [len(each.energies) for each in read_extxyz(path, DZ).frames] == [1, 1]


def test_a_prediction_beside_labels_is_not_read_as_a_label(tmp_path):
    both = frame("REF_energy=-31 energy=-30")
    (only,) = read_extxyz(write(tmp_path, both), DZ).frames
    assert only.energies["wb97x_dz.energy"] * 27.211386 == pytest.approx(-31, rel=1e-6)
    with pytest.raises(UserError, match="not clear whether these are labels"):
        read_extxyz(write(tmp_path, both, frame("energy=-30")), DZ)


def test_charges_and_weights_of_extended_xyz_reach_the_gate(tmp_path):
    path = write(tmp_path, frame("energy_DZ=-31 charge=1 config_weight=2"))
    with open_data(path) as file:
        assert file["H2/charge"][0] == 1
        assert file["H2/config_weight"][0] == 2
    structures, _ = read_ani1x(path, labels_in_file(path))
    assert {o.check for o in refused(structures, path)} == {"charge, spin", "weights"}
