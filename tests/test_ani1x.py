import re

import h5py
import numpy as np
import planted
import pytest
from planted import MOLECULES, conformers, damage, energy, forces, numbers_of, replace, write_ani1x

from hippynn_mf.data.arrays import reference_energies, training_arrays
from hippynn_mf.data.formats.ani1x import labels_in_file, read_ani1x
from hippynn_mf.errors import UserError
from hippynn_mf.labels import parse_labels
from hippynn_mf.levels import CC, DZ, MP2, PAPER_LEVELS, SELF_ENERGIES, TZ, Levels
from hippynn_mf.units import KCAL_PER_MOL_PER_HARTREE

EVERYTHING = parse_labels({"DZ": "EF", "TZ": "EF", "MP2": "E", "CC": "E"})
DZ_ENERGIES = parse_labels({"DZ": "E"})
DZ_LABELS = parse_labels({"DZ": "EF"})
PARTS = {DZ: ["wb97x_dz"], TZ: ["wb97x_tz"], MP2: ["hf_tz", "mp2_tz"], CC: ["ccsd(t)_cbs"]}
# More than the seven atoms that hippynn's own reader needs in the first group.
WIDE = ("CCHHHHHHO", [(1.4 * i, 0.9 * (i % 2), 0.5 * (i % 3)) for i in range(9)])

# Conformers without a label, by group and key.
HOLES = {
    "CH4": {"wb97x_dz.energy": slice(0, 4), "ccsd(t)_cbs.energy": slice(2, 20)},
    "CHN": {"wb97x_tz.energy": slice(5, 7), "wb97x_tz.forces": slice(0, 9)},
    "H2O": {"hf_tz.energy": slice(0, 3), "mp2_tz.corr_energy": slice(2, 6)},
    "N2": dict.fromkeys(planted.ANI1X_ENERGIES, slice(10, 15)),
}


@pytest.fixture
def holey_file(tmp_path):
    """A planted file with missing labels: 5 groups of 20."""
    return write_ani1x(tmp_path / "holey.h5", 20, missing=HOLES)


def positions_in_file(path):
    with h5py.File(path) as file:
        return [row for group in file.values() for row in group["coordinates"][()]]


@pytest.mark.parametrize(
    "counts",
    [
        {"CH4": 3, "N2": 2},
        {"CHN": 2, "H3N": 3},
        {"N2": 4},
        {"A": 2, "CH4": 1, "N2": 3},
        {"H2O": 3, "Z": 2},
        dict.fromkeys(MOLECULES, 5),
    ],
    ids=["widest first", "narrowest first", "two atoms", "nine first", "nine last", "all"],
)
def test_every_group_is_read_as_written_and_padded_with_zeros(tmp_path, monkeypatch, counts):
    monkeypatch.setitem(planted.MOLECULES, "A", WIDE)
    monkeypatch.setitem(planted.MOLECULES, "Z", WIDE)
    path = write_ani1x(tmp_path / "file.h5", counts)
    structures, is_common = read_ani1x(path, EVERYTHING, common_levels=PAPER_LEVELS)

    groups = dict(structures.by_group())
    assert list(groups) == sorted(counts)
    assert len(structures) == sum(counts.values()) == is_common.sum()
    assert structures.species.shape[1] == max(len(MOLECULES[name][0]) for name in counts)
    for name, group in groups.items():
        numbers = numbers_of(MOLECULES[name][0])
        n_atoms = len(numbers)
        positions = conformers(MOLECULES[name], counts[name], list(MOLECULES).index(name))
        assert group.species.shape == (counts[name], n_atoms)
        assert (group.species[:] == numbers).all()
        np.testing.assert_array_equal(group.positions, positions)
        assert not structures.species[structures.n_atoms == n_atoms, n_atoms:].any()
        for level in (DZ, TZ):
            truth = forces(numbers, positions, level.id)
            np.testing.assert_allclose(group.forces[level.id], truth, rtol=1e-6, atol=1e-7)
        for level, parts in PARTS.items():
            truth = sum(energy(numbers, positions, part) for part in parts)
            np.testing.assert_allclose(group.energies[level.id], truth, rtol=0, atol=1e-12)


def test_labels_that_are_not_asked_for_are_not_returned(ani1x_file):
    structures, _ = read_ani1x(
        ani1x_file, parse_labels({"DZ": "EF", "CC": "E"}), common_levels=PAPER_LEVELS
    )
    assert set(structures.energies) == {"wb97x_dz", "ccsd(t)_cbs"}
    assert set(structures.forces) == {"wb97x_dz"}


def test_references_are_read_beside_the_labels(ani1x_file):
    structures, _ = read_ani1x(
        ani1x_file, DZ_ENERGIES, references=parse_labels({"DZ": "EF", "TZ": "E"})
    )
    assert set(structures.energies) == {"wb97x_dz", "wb97x_tz"}
    assert set(structures.forces) == {"wb97x_dz"}


def test_the_types_are_exact_for_energies_and_those_of_the_file_otherwise(ani1x_file):
    structures, _ = read_ani1x(ani1x_file, DZ_LABELS)
    assert structures.species.dtype == np.uint8
    assert structures.positions.dtype == np.float32
    assert structures.energies["wb97x_dz"].dtype == np.float64
    assert structures.forces["wb97x_dz"].dtype == np.float32


def test_a_missing_label_is_missing_for_its_conformers_and_level_alone(holey_file):
    structures, _ = read_ani1x(holey_file, EVERYTHING)
    missing = {
        ("CH4", DZ, "energy"): range(4),
        ("CH4", CC, "energy"): range(2, 20),
        ("CHN", TZ, "energy"): range(5, 7),
        ("CHN", TZ, "forces"): range(9),
        ("H2O", MP2, "energy"): range(6),  # without either part of the sum
        **{("N2", level, "energy"): range(10, 15) for level in PAPER_LEVELS},
    }
    for name, group in structures.by_group():
        for level, properties in EVERYTHING.items():
            found = {"energy": ~group.has_energy(level)}
            if properties.forces:
                found["forces"] = ~group.has_forces(level)
            for label, rows in found.items():
                expected = missing.get((name, level, label), range(0))
                assert np.flatnonzero(rows).tolist() == list(expected), (name, level.id, label)


def test_common_conformers_are_those_with_every_energy(holey_file):
    structures, is_common = read_ani1x(
        holey_file, DZ_LABELS, common_levels=PAPER_LEVELS, rows="common"
    )
    expected = np.ones((5, 20), bool)  # CH4, CHN, H2O, H3N, N2
    for group, rows in ((0, range(20)), (1, range(5, 7)), (2, range(6)), (4, range(10, 15))):
        expected[group, rows] = False
    np.testing.assert_array_equal(is_common, expected.ravel())
    np.testing.assert_array_equal(structures.rows, np.flatnonzero(is_common))


def test_all_conformers_are_those_with_any_label_of_the_experiment(holey_file):
    labels = parse_labels({"DZ": "E", "CC": "E"})
    structures, is_common = read_ani1x(holey_file, labels, common_levels=PAPER_LEVELS, rows="all")
    unlabelled = [2, 3, *range(90, 95)]  # CH4 without DZ and CC, N2 without anything
    np.testing.assert_array_equal(np.setdiff1d(range(100), structures.rows), unlabelled)
    _, common = read_ani1x(holey_file, labels, common_levels=PAPER_LEVELS, rows="common")
    np.testing.assert_array_equal(is_common, common)


def test_forces_alone_keep_a_conformer_that_an_experiment_with_forces_can_use(tmp_path):
    holes = {"H2O": {"wb97x_dz.energy": slice(0, 4), "wb97x_dz.forces": slice(0, 1)}}
    path = write_ani1x(tmp_path / "forces.h5", {"H2O": 6}, missing=holes)
    assert read_ani1x(path, DZ_LABELS)[0].rows.tolist() == [1, 2, 3, 4, 5]
    assert read_ani1x(path, DZ_ENERGIES)[0].rows.tolist() == [4, 5]


def test_references_do_not_decide_which_conformers_are_kept(tmp_path):
    path = write_ani1x(
        tmp_path / "file.h5", {"H2O": 6}, missing={"H2O": {"wb97x_dz.energy": slice(0, 4)}}
    )
    structures, _ = read_ani1x(path, DZ_ENERGIES, references=EVERYTHING)
    assert structures.rows.tolist() == [4, 5]


@pytest.mark.parametrize("rows", ["common", "all"])
def test_rows_are_positions_in_the_whole_file(holey_file, rows):
    structures, is_common = read_ani1x(
        holey_file, DZ_ENERGIES, common_levels=PAPER_LEVELS, rows=rows
    )
    in_file = positions_in_file(holey_file)
    assert len(is_common) == len(in_file) == 100
    assert 0 < len(structures) < 100
    for row, positions in zip(structures.rows, structures.positions, strict=True):
        np.testing.assert_array_equal(positions, in_file[row])


def test_the_labels_of_kept_conformers_are_their_own(tmp_path):
    holes = {"H2O": {"ccsd(t)_cbs.energy": slice(0, 9, 2)}}
    path = write_ani1x(tmp_path / "file.h5", {"H2O": 10}, missing=holes)
    labels = parse_labels({"DZ": "EF", "CC": "E"})
    structures, _ = read_ani1x(path, labels, common_levels=[CC], rows="common")
    numbers, positions = numbers_of("OHH"), conformers(MOLECULES["H2O"], 10, 0)[1::2]
    np.testing.assert_array_equal(structures.positions, positions)
    for level in (DZ, CC):
        truth = energy(numbers, positions, level.id)
        np.testing.assert_allclose(structures.energies[level.id], truth, rtol=0, atol=1e-12)
    truth = forces(numbers, positions, DZ.id)
    np.testing.assert_allclose(structures.forces[DZ.id], truth, rtol=1e-6, atol=1e-7)


def test_a_wide_molecule_that_is_not_kept_does_not_widen_the_arrays(tmp_path):
    path = write_ani1x(
        tmp_path / "file.h5",
        {"CH4": 3, "H2O": 3},
        missing={"CH4": {"wb97x_dz.energy": slice(None)}},
    )
    structures, _ = read_ani1x(path, DZ_ENERGIES)
    assert structures.species.shape == (3, 3)
    assert structures.rows.tolist() == [3, 4, 5]


def test_a_file_whose_labels_are_all_missing_leaves_nothing(tmp_path):
    holes = {"H2O": {"wb97x_dz.energy": slice(None)}}
    path = write_ani1x(tmp_path / "file.h5", {"H2O": 3}, missing=holes)
    structures, is_common = read_ani1x(path, DZ_ENERGIES, common_levels=[DZ])
    assert len(structures) == 0
    assert is_common.tolist() == [False, False, False]


def test_forces_with_a_hole_are_missing_as_a_whole(ani1x_file):
    with h5py.File(ani1x_file, "r+") as file:
        file["H2O/wb97x_dz.forces"][3, 1, 2] = np.nan
    structures, _ = read_ani1x(ani1x_file, DZ_LABELS)
    water = dict(structures.by_group())["H2O"]
    assert np.flatnonzero(~water.has_forces(DZ)).tolist() == [3]
    assert np.isnan(water.forces["wb97x_dz"][3, :3]).all()
    assert not water.forces["wb97x_dz"][3, 3:].any()
    assert water.has_energy(DZ).all()


@pytest.mark.parametrize("harm", [damage, lambda *key: replace(*key, None)], ids=["damage", "lack"])
def test_only_the_keys_that_are_asked_for_are_read(ani1x_file, harm):
    wanted = {"wb97x_dz.energy", "wb97x_dz.forces"}
    for name in MOLECULES:
        for key in {*planted.ANI1X_ENERGIES, *planted.ANI1X_FORCES} - wanted:
            harm(ani1x_file, name, key)
    structures, _ = read_ani1x(ani1x_file, DZ_LABELS)
    assert structures.has_energy(DZ).all()
    assert structures.has_forces(DZ).all()
    with pytest.raises(UserError):
        read_ani1x(ani1x_file, parse_labels({"TZ": "E"}))
    harm(ani1x_file, "H2O", "wb97x_dz.forces")
    assert read_ani1x(ani1x_file, DZ_ENERGIES)[0].has_energy(DZ).all()
    with pytest.raises(UserError):
        read_ani1x(ani1x_file, DZ_LABELS)


def test_a_key_that_cannot_be_decoded_is_named_with_its_file(ani1x_file):
    damage(ani1x_file, "H2O", "wb97x_dz.energy")
    with pytest.raises(UserError, match=r"planted\.h5 cannot be read .*Copy it again"):
        read_ani1x(ani1x_file, DZ_LABELS)


def test_energies_lose_nothing_before_the_self_energies_are_subtracted(ani1x_file):
    structures, _ = read_ani1x(ani1x_file, EVERYTHING)
    arrays = training_arrays(structures, EVERYTHING)
    for level, parts in PARTS.items():
        by_hand = []
        for name in sorted(MOLECULES):
            numbers = numbers_of(MOLECULES[name][0])
            positions = conformers(MOLECULES[name], 40, list(MOLECULES).index(name))
            total = sum(energy(numbers, positions, part) for part in parts)
            own = sum(SELF_ENERGIES[number] for number in numbers)
            by_hand.append((total - own) * KCAL_PER_MOL_PER_HARTREE)
        by_hand = np.concatenate(by_hand)
        found = reference_energies(structures, level)
        np.testing.assert_allclose(found, by_hand, rtol=0, atol=1e-9)
        # One float32 rounding of the shifted energy, far below one of the total energy.
        np.testing.assert_allclose(arrays[level.energy_name][:, 0], by_hand, rtol=1e-7, atol=1e-8)
        assert np.median(np.abs(arrays[level.energy_name][:, 0] - by_hand)) < 1e-5


def test_energies_of_lower_precision_in_the_file_are_still_summed_in_float64(ani1x_file):
    with h5py.File(ani1x_file) as file:
        parts = [file[f"H2O/{key}"][()].astype("f4") for key in MP2.energy_keys]
    for key, values in zip(MP2.energy_keys, parts, strict=True):
        replace(ani1x_file, "H2O", key, values)
    structures, _ = read_ani1x(ani1x_file, parse_labels({"MP2": "E"}))
    water = dict(structures.by_group())["H2O"].energies["mp2_tz"]
    np.testing.assert_array_equal(water, parts[0].astype("f8") + parts[1].astype("f8"))


@pytest.mark.parametrize("kind", ["f8", "i8"])
def test_labels_of_another_numeric_type_are_read(ani1x_file, kind):
    values = np.arange(40 * 3 * 3).reshape(40, 3, 3).astype(kind)
    replace(ani1x_file, "H2O", "wb97x_dz.forces", values)
    structures, _ = read_ani1x(ani1x_file, DZ_LABELS)
    water = dict(structures.by_group())["H2O"]
    np.testing.assert_array_equal(water.forces["wb97x_dz"][:, :3], values)


def test_the_levels_of_a_file_are_those_whose_keys_it_has(ani1x_file):
    assert labels_in_file(ani1x_file, levels=Levels(PAPER_LEVELS)) == dict(EVERYTHING)
    for name in MOLECULES:
        replace(ani1x_file, name, "mp2_tz.corr_energy", None)
        replace(ani1x_file, name, "wb97x_tz.forces", None)
    found = labels_in_file(ani1x_file, levels=Levels(PAPER_LEVELS))
    assert found == dict(parse_labels({"DZ": "EF", "TZ": "E", "CC": "E"}))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"No file .*absent\.h5.*relative paths start at"):
        read_ani1x(tmp_path / "absent.h5", DZ_LABELS)


def test_a_folder_is_not_a_file(tmp_path):
    with pytest.raises(UserError, match="is a folder; an HDF5 file was expected"):
        read_ani1x(tmp_path, DZ_LABELS)


def test_a_file_of_another_format_is_refused(tmp_path):
    path = tmp_path / "text.h5"
    path.write_text("no HDF5 " * 1000)
    with pytest.raises(UserError, match=r"text\.h5 is not an HDF5 file"):
        read_ani1x(path, DZ_LABELS)


@pytest.mark.parametrize("fraction", [0.3, 0.9])
def test_a_truncated_file_is_recognised(ani1x_file, fraction):
    content = ani1x_file.read_bytes()
    ani1x_file.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(UserError, match=r"planted\.h5 is truncated .*download it again"):
        read_ani1x(ani1x_file, DZ_LABELS)


def test_a_file_without_groups_is_refused_with_what_it_holds(tmp_path):
    path = tmp_path / "flat.h5"
    with h5py.File(path, "w") as file:
        file["energies"] = np.zeros(3)
    with pytest.raises(UserError, match=r"has no groups; .* Found: energies"):
        read_ani1x(path, DZ_LABELS)
    with h5py.File(path, "w"):
        pass
    with pytest.raises(UserError, match=r"has no groups; .* Found: nothing"):
        read_ani1x(path, DZ_LABELS)


def test_an_unknown_choice_of_rows_is_refused(ani1x_file):
    with pytest.raises(UserError, match=r"Unknown choice of rows 'every'.*Known: common, all"):
        read_ani1x(ani1x_file, DZ_LABELS, rows="every")


def test_forces_of_a_level_that_has_none_are_refused(ani1x_file):
    with pytest.raises(UserError, match=r"\(MP2\) has no forces in this layout"):
        read_ani1x(ani1x_file, parse_labels({"MP2": "EF"}))


def test_a_comp6_file_is_not_taken_for_ani1x(comp6_file):
    with pytest.raises(UserError, match=r"group /planted: Unknown key 'atomic_numbers'"):
        read_ani1x(comp6_file, DZ_LABELS)


@pytest.mark.parametrize(
    "key", ["atomic_numbers", "coordinates", "wb97x_dz.energy", "wb97x_dz.forces"]
)
def test_a_missing_key_is_named_with_its_group_and_the_nearest_one(ani1x_file, key):
    with h5py.File(ani1x_file, "r+") as file:
        file["H3N"].move(key, f"{key}_")
    with pytest.raises(UserError, match=rf"group /H3N: Unknown key '{key}'\. Did you mean {key}_"):
        read_ani1x(ani1x_file, DZ_LABELS)


@pytest.mark.parametrize(
    ("key", "shape", "expected"),
    [
        ("wb97x_dz.energy", (39,), (40,)),
        ("wb97x_dz.energy", (40, 1), (40,)),
        ("wb97x_dz.forces", (40, 4, 3), (40, 3, 3)),
        ("wb97x_dz.forces", (40, 9), (40, 3, 3)),
        ("coordinates", (40, 4, 3), (40, 3, 3)),
    ],
)
def test_a_wrong_shape_is_reported_with_the_right_one(ani1x_file, key, shape, expected):
    replace(ani1x_file, "H2O", key, np.ones(shape))
    message = f"group /H2O: {key} has shape {shape}, expected {expected}"
    with pytest.raises(UserError, match=re.escape(message)):
        read_ani1x(ani1x_file, DZ_ENERGIES if key == "coordinates" else DZ_LABELS)


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("wb97x_dz.energy", (40,)),
        ("wb97x_dz.forces", (40, 3, 3)),
        ("coordinates", (40, 3, 3)),
        ("atomic_numbers", (3,)),
    ],
)
def test_text_where_numbers_belong_is_refused(ani1x_file, key, shape):
    replace(ani1x_file, "H2O", key, np.full(shape, b"O"))
    with pytest.raises(UserError, match=rf"/H2O: {key} holds \|S1, numbers were expected"):
        read_ani1x(ani1x_file, DZ_LABELS)


def test_an_atomic_number_that_means_padding_is_refused(ani1x_file):
    replace(ani1x_file, "H2O", "atomic_numbers", np.array([8, 0, 1]))
    with pytest.raises(UserError, match=r"group H2O: atomic_numbers \[8, 0, 1\] .* positive"):
        read_ani1x(ani1x_file, DZ_LABELS)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("key", "what"),
    [("wb97x_dz.energy", "the energies of wb97x_dz"), ("wb97x_dz.forces", "wb97x_dz.forces")],
)
def test_an_infinite_label_is_refused(ani1x_file, key, what, sign):
    with h5py.File(ani1x_file, "r+") as file:
        file[f"H3N/{key}"][3] = sign * np.inf
    with pytest.raises(UserError, match=rf"group H3N: \d+ infinite values in {what}.*as NaN"):
        read_ani1x(ani1x_file, DZ_LABELS)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_coordinates_that_are_not_finite_are_refused(ani1x_file, value):
    with h5py.File(ani1x_file, "r+") as file:
        file["N2/coordinates"][3:5, 1, 2] = value
    with pytest.raises(UserError, match="group N2: NaN or infinite coordinates in 2 conformers"):
        read_ani1x(ani1x_file, DZ_LABELS)


def test_coordinates_of_conformers_that_are_not_kept_do_not_matter(tmp_path):
    holes = {"N2": {"wb97x_dz.energy": slice(3, 5)}}
    path = write_ani1x(tmp_path / "file.h5", {"N2": 6}, missing=holes)
    with h5py.File(path, "r+") as file:
        file["N2/coordinates"][3:5] = np.nan
    assert read_ani1x(path, DZ_ENERGIES)[0].rows.tolist() == [0, 1, 2, 5]


def test_an_element_without_self_energy_is_named(ani1x_file):
    replace(ani1x_file, "N2", "atomic_numbers", np.array([9, 17]))
    structures, _ = read_ani1x(ani1x_file, DZ_LABELS)
    message = r"Atomic numbers \[9, 17\] have no self energy at level wb97x_dz, which knows \[1, 6"
    with pytest.raises(UserError, match=message):
        training_arrays(structures, DZ_LABELS)


def test_all_rows_need_no_level_that_nobody_asked_for(ani1x_file):
    with h5py.File(ani1x_file, "r+") as file:
        for group in file.values():
            del group["wb97x_tz.energy"]
    labels = parse_labels({"DZ": "EF"})
    structures, is_common = read_ani1x(ani1x_file, labels, common_levels=PAPER_LEVELS, rows="all")
    assert len(structures) == len(is_common) == 200
    assert not is_common.any()
    with pytest.raises(UserError, match=r"wb97x_tz\.energy"):
        read_ani1x(ani1x_file, labels, common_levels=PAPER_LEVELS, rows="common")
