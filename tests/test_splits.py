import hashlib

import h5py
import numpy as np
import pytest
from planted import write_ani1x
from tiny import split_structures

from hippynn_mf.data import splits
from hippynn_mf.data.formats.ani1x import read_ani1x
from hippynn_mf.data.loading import file_hash, load_splits
from hippynn_mf.data.splits import SPLITS, assign_splits
from hippynn_mf.errors import UserError
from hippynn_mf.labels import parse_labels
from hippynn_mf.levels import CC, DZ, PAPER_LEVELS, TZ

DZ_ENERGIES = parse_labels({"DZ": "E"})
HOLES = {
    "CH4": {"ccsd(t)_cbs.energy": slice(5, 25)},
    "H2O": {"wb97x_tz.energy": slice(0, 30)},
    "N2": {"wb97x_dz.energy": slice(10, 12)},
}


@pytest.fixture
def holey_file(tmp_path):
    """A planted file with missing labels: 200 conformers, 148 of them common."""
    return write_ani1x(tmp_path / "holey.h5", missing=HOLES)


def counts(splits):
    return dict(zip(SPLITS, np.bincount(splits, minlength=3).tolist(), strict=True))


@pytest.mark.parametrize(
    ("n", "train", "valid", "test"),
    [
        (489_571, 391_657, 48_957, 48_957),
        (10, 8, 1, 1),
        (19, 17, 1, 1),
        (20, 16, 2, 2),
        (9, 9, 0, 0),
        (0, 0, 0, 0),
    ],
    ids=["the paper's", "ten", "nineteen", "twenty", "nine", "none"],
)
def test_a_tenth_tests_and_a_tenth_validates_rounded_down(n, train, valid, test):
    expected = {"train": train, "valid": valid, "test": test}
    assert counts(assign_splits(np.ones(n, bool), 0)) == expected
    assert counts(assign_splits(np.zeros(n, bool), 0)) == expected


@pytest.mark.parametrize("seed", range(5))
def test_common_conformers_and_the_others_are_drawn_apart(seed):
    is_common = np.random.default_rng(seed).random(1000) < 0.3
    splits = assign_splits(is_common, seed)
    for stratum in (splits[is_common], splits[~is_common]):
        tenth = len(stratum) // 10
        assert counts(stratum) == {
            "train": len(stratum) - 2 * tenth,
            "valid": tenth,
            "test": tenth,
        }


def test_the_split_is_fixed_by_the_seed():
    is_common = np.arange(1000) % 3 > 0
    first = assign_splits(is_common, 4)
    np.random.default_rng(0).random()
    np.testing.assert_array_equal(assign_splits(is_common, 4), first)
    drawn = {assign_splits(is_common, seed).tobytes() for seed in range(10)}
    assert len(drawn) == 10


def test_the_draw_does_not_follow_the_order_of_the_file():
    test = np.flatnonzero(assign_splits(np.ones(1000, bool), 0) == SPLITS.index("test"))
    assert np.histogram(test, bins=4, range=(0, 1000))[0].min() > 10


@pytest.mark.parametrize("rows", ["common", "all"])
def test_every_kept_conformer_is_in_one_split(holey_file, rows):
    structures, is_common = read_ani1x(
        holey_file, DZ_ENERGIES, common_levels=PAPER_LEVELS, rows=rows
    )
    parts = split_structures(structures, is_common, 0)
    assert list(parts) == ["train", "valid", "test"]
    joined = np.concatenate([part.rows for part in parts.values()])
    np.testing.assert_array_equal(np.sort(joined), structures.rows)
    for part in parts.values():
        whole = np.searchsorted(structures.rows, part.rows)
        np.testing.assert_array_equal(part.positions, structures.positions[whole])


@pytest.mark.parametrize("seed", range(3))
def test_a_common_conformer_keeps_its_split_whatever_is_read(holey_file, seed):
    common_parts, is_common = None, None
    for labels, rows in (
        ({"DZ": "E"}, "common"),
        ({"DZ": "E"}, "all"),
        ({"CC": "E"}, "all"),
        ({"DZ": "EF", "TZ": "E", "CC": "E"}, "all"),
    ):
        structures, is_common = read_ani1x(
            holey_file, parse_labels(labels), common_levels=PAPER_LEVELS, rows=rows
        )
        parts = {
            name: set(part.rows[is_common[part.rows]])
            for name, part in split_structures(structures, is_common, seed).items()
        }
        common_parts = common_parts or parts
        assert parts == common_parts
    assert set.union(*common_parts.values()) == set(np.flatnonzero(is_common))
    assert len(common_parts["test"]) == len(common_parts["valid"]) == is_common.sum() // 10 == 14


def test_no_experiment_trains_on_what_another_one_tests_on(holey_file):
    parts = [
        split_structures(*read_ani1x(holey_file, labels, common_levels=PAPER_LEVELS), 1)
        for labels in (DZ_ENERGIES, parse_labels({"TZ": "E"}), parse_labels({"CC": "E"}))
    ]
    for one in parts:
        for other in parts:
            assert not set(one["train"].rows) & set(other["test"].rows)
            assert not set(one["train"].rows) & set(other["valid"].rows)


def test_an_empty_split_is_refused(tmp_path):
    path = write_ani1x(tmp_path / "few.h5", {"H2O": 9})
    structures, is_common = read_ani1x(path, DZ_ENERGIES, common_levels=PAPER_LEVELS)
    with pytest.raises(UserError, match="The valid split is empty: 9 conformers are too few"):
        split_structures(structures, is_common, 0)


def test_ten_conformers_are_enough(tmp_path):
    path = write_ani1x(tmp_path / "ten.h5", {"H2O": 10})
    structures, is_common = read_ani1x(path, DZ_ENERGIES, common_levels=PAPER_LEVELS)
    parts = split_structures(structures, is_common, 0)
    assert {name: len(part) for name, part in parts.items()} == {"train": 8, "valid": 1, "test": 1}


def load(path, labels, rows="all"):
    return load_splits(
        path, parse_labels(labels), common_levels=PAPER_LEVELS, rows=rows, split_seed=0
    )


def test_loaded_splits_keep_the_conformers_with_a_label_of_the_experiment(holey_file):
    for part in load(holey_file, {"DZ": "E"}).values():
        assert part.energies["wb97x_dz"].size == np.isfinite(part.energies["wb97x_dz"]).sum()


def test_a_level_without_labels_in_training_is_refused(tmp_path):
    holes = {name: {"wb97x_tz.forces": slice(None)} for name in ("H2O", "CH4")}
    path = write_ani1x(tmp_path / "file.h5", {"H2O": 30, "CH4": 30}, missing=holes)
    message = r"level wb97x_tz \(TZ\) has no forces label in the train split of 48 structures"
    with pytest.raises(UserError, match=message):
        load(path, {"DZ": "E", "TZ": "EF"})
    assert len(load(path, {"DZ": "E", "TZ": "E"})["train"]) == 48


def test_a_level_that_lost_all_its_labels_leaves_no_common_conformer(tmp_path):
    holes = {"H2O": {"ccsd(t)_cbs.energy": slice(None)}}
    path = write_ani1x(tmp_path / "file.h5", {"H2O": 30}, missing=holes)
    with pytest.raises(UserError, match=r"no conformer has the labels.*Of 30 conformers, 0 carry"):
        load(path, {"DZ": "E"}, rows="common")
    with pytest.raises(UserError, match=rf"level ccsd\(t\)_cbs \({CC.label}\) has no energy label"):
        load(path, {"DZ": "E", "CC": "E"})


@pytest.mark.parametrize("trained", ["EF", "E"], ids=["trained on", "only evaluated against"])
def test_wrong_signs_stop_an_experiment(ani1x_file, trained):
    with h5py.File(ani1x_file, "r+") as file:
        for group in file.values():
            group["wb97x_tz.forces"][...] *= -1
    with pytest.raises(UserError, match="forces of level wb97x_tz have the wrong sign"):
        load(ani1x_file, {"DZ": "EF", "TZ": trained})


def test_the_hash_of_a_file_follows_its_content_alone(tmp_path):
    for name, content in (("a.h5", b"one"), ("b.h5", b"one"), ("c.h5", b"two")):
        (tmp_path / name).write_bytes(content)
    first, second, third = (file_hash(tmp_path / name) for name in ("a.h5", "b.h5", "c.h5"))
    assert first == second != third
    assert first == hashlib.sha256((tmp_path / "a.h5").read_bytes()).hexdigest()
    of_folder = file_hash(tmp_path)
    (tmp_path / "notes.txt").write_text("not counted")
    assert file_hash(tmp_path) == of_folder
    (tmp_path / "c.h5").write_bytes(b"three")
    assert file_hash(tmp_path) != of_folder
    with pytest.raises(UserError, match=r"No file .*absent\.h5"):
        file_hash(tmp_path / "absent.h5")


def test_only_the_test_structures_keep_labels_of_other_levels(ani1x_file):
    parts = load(ani1x_file, {"DZ": "E"})
    for name in ("train", "valid"):
        assert set(parts[name].energies) == {DZ.id}
        assert not parts[name].forces
    assert set(parts["test"].energies) == {level.id for level in PAPER_LEVELS}
    assert set(parts["test"].forces) == {DZ.id, TZ.id}


def test_labels_that_are_everywhere_need_no_lists(monkeypatch):
    """Nothing moves then, so who has what is not listed; a level that is missing somewhere is."""
    is_common = np.ones(200, bool)
    everywhere = np.ones((1, 200), bool)
    rare = np.zeros((1, 200), bool)
    rare[0, :3] = True
    nowhere = np.zeros((1, 200), bool)
    expected = splits.assign_splits(is_common, 0, has_label=everywhere)
    with_rare = splits.assign_splits(is_common, 0, has_label=np.concatenate([everywhere, rare]))
    assert sorted(with_rare[:3]) == [0, 1, 2]
    both = np.concatenate([everywhere, nowhere])
    with monkeypatch.context() as patch:
        patch.setattr(np, "unique", None)  # of which the lists are made
        assert (splits.assign_splits(is_common, 0, has_label=both) == expected).all()
