"""Splits know levels, copies and molecules; another file may validate."""

from __future__ import annotations

from collections import Counter

import h5py
import numpy as np
import pytest
from planted import MOLECULES, WATER, energy, forces, numbers_of, replace, write_ani1x

from hippynn_mf.data.drawing import draw_splits
from hippynn_mf.data.embedded import MINI_ANI1X
from hippynn_mf.data.formats import atoms
from hippynn_mf.data.formats.ani1x import index_ani1x, labels_in_file
from hippynn_mf.data.formats.reading_bar import ReadingBar
from hippynn_mf.data.formats.sources import open_data
from hippynn_mf.data.info import describe_file, format_description
from hippynn_mf.data.loading import load_splits
from hippynn_mf.data.matching import Batch
from hippynn_mf.data.molecules import molecule_ids
from hippynn_mf.data.splits import SPLITS, assign_molecules, assign_splits
from hippynn_mf.errors import UserError
from hippynn_mf.labels import parse_labels
from hippynn_mf.levels import CC, DZ, PAPER_LEVELS

MF = parse_labels({"DZ": "EF", "CC": "E"})


def load(path, labels=MF, **options):
    options = {"rows": "all", "split_seed": 0, "common_levels": PAPER_LEVELS} | options
    return load_splits(path, labels, **options)


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("n_labelled", [3, 6, 11, 60])
def test_few_labels_of_a_level_are_in_every_split_by_their_share(seed, n_labelled):
    """6 CC labels of 300: refused or untested for 22 of 30 split seeds before."""
    has_label = np.ones((2, 300), bool)
    has_label[1] = np.isin(
        np.arange(300), np.random.default_rng(seed).permutation(300)[:n_labelled]
    )
    splits = assign_splits(np.zeros(300, bool), seed, has_label=has_label)
    assert np.bincount(splits).tolist() == pytest.approx([240, 30, 30], abs=2)
    found = np.bincount(splits[has_label[1]], minlength=3)
    assert found.min() >= 1
    for split in (SPLITS.index("valid"), SPLITS.index("test")):
        assert abs(found[split] - n_labelled / 10) <= 1


@pytest.mark.parametrize("seed", range(5))
def test_with_one_pattern_of_labels_the_draw_is_that_without(seed):
    is_common = np.random.default_rng(seed).random(500) < 0.6
    plain = assign_splits(is_common, seed)
    labels = np.array([np.ones(500, bool), is_common])
    found = assign_splits(is_common, seed, has_label=labels, first=np.arange(500))
    np.testing.assert_array_equal(found, plain)


@pytest.mark.parametrize(
    ("seed", "n", "rows"), [(0, 7, 40), (1, 3, 3), (2, 9, 9)], ids=["few", "three", "nine"]
)
def test_three_structures_are_one_for_each_split(seed, n, rows):
    has_label = np.zeros((1, rows), bool)
    has_label[0, :n] = True
    splits = assign_splits(np.zeros(rows, bool), seed, has_label=has_label)
    assert set(splits[:n]) == {0, 1, 2}


def test_copies_are_in_one_split_and_count_once_for_a_level():
    first = np.arange(60)
    first[30:] = np.arange(30)  # every structure twice
    has_label = np.zeros((1, 60), bool)
    has_label[0, [0, 30, 1]] = True  # two conformers with the label
    for seed in range(10):
        splits = assign_splits(np.zeros(60, bool), seed, has_label=has_label, first=first)
        np.testing.assert_array_equal(splits[30:], splits[:30])
        has_label[0, 5] = True  # and a third
        splits = assign_splits(np.zeros(60, bool), seed, has_label=has_label, first=first)
        assert set(splits[[0, 1, 5]]) == {0, 1, 2}
        has_label[0, 5] = False


@pytest.mark.parametrize("seed", range(6))
def test_scarce_levels_of_a_file_train_validate_and_test(tmp_path, seed):
    lost = dict.fromkeys(("ccsd(t)_cbs.energy",), slice(None))
    path = write_ani1x(
        tmp_path / "few.h5",
        60,
        missing=dict.fromkeys(("CH4", "H3N", "CHN", "N2"), lost)
        | {"H2O": {"ccsd(t)_cbs.energy": slice(6, None)}},
    )
    parts = load(path, split_seed=seed)
    assert {name: int(part.has_energy(CC).sum()) for name, part in parts.items()} == {
        "train": 4,
        "valid": 1,
        "test": 1,
    }


def test_a_scarce_level_of_forces_is_in_every_split(tmp_path):
    lost = {name: {"wb97x_tz.forces": slice(None)} for name in MOLECULES}
    lost["CH4"] = {"wb97x_tz.forces": slice(5, None)}
    path = write_ani1x(tmp_path / "few.h5", 40, missing=lost)
    labels = parse_labels({"DZ": "E", "TZ": "EF"})
    for rows in ("common", "all"):
        for seed in range(5):
            parts = load(path, labels, rows=rows, split_seed=seed)
            assert all(part.has_forces(list(labels)[1]).any() for part in parts.values())


def with_copies(path):
    """Every 4th water turned, reordered and rounded at the end of its group."""
    with h5py.File(path, "r+") as file:
        group = file["H2O"]
        rows = np.arange(0, len(group["coordinates"]), 4)
        turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
        content = {key: values[()] for key, values in group.items() if key != "atomic_numbers"}
    for key, values in content.items():
        more = values[rows]
        if values.ndim == 3:
            more = more[:, [0, 2, 1]] @ turn
        if key == "coordinates":
            more = np.round(more.astype(float) + 1.5, 5).astype("f4")
        replace(path, "H2O", key, np.concatenate([values, more.astype(values.dtype)]))
    return len(rows)


def test_copies_in_a_file_count_once_whatever_is_read(tmp_path, caplog):
    path = write_ani1x(tmp_path / "file.h5", 40)
    n_copies = with_copies(path)
    reports = []
    whole = load(path, reports=reports)
    assert sum(map(len, whole.values())) == 200
    assert f"{n_copies} conformers repeat others; each counts once" in caplog.text
    (report,) = reports
    outcome = report.of("copies")
    assert (outcome.verdict, outcome.values) == ("noted", {"n_copies": n_copies})
    description = describe_file(path)
    (shown,) = (each for each in description["checks"] if each["check"] == "copies")
    assert shown["values"] == {"n_copies": n_copies}
    assert outcome.text in format_description(description)


def test_that_nothing_repeats_is_an_outcome_too(tmp_path, caplog):
    reports = []
    load(write_ani1x(tmp_path / "file.h5", 20), reports=reports)
    assert reports[0].of("copies").verdict == "passed"
    assert "repeat" not in caplog.text


@pytest.mark.parametrize("rows", ["common", "all"])
def test_coordinates_are_read_once(tmp_path, monkeypatch, rows):
    """For copies, splits, checks and training alike."""
    path = write_ani1x(tmp_path / "file.h5", 40)
    read = Counter()
    read_blocks = atoms.read_blocks

    def watch(group, key, source):
        read[group.name, key] += 1
        return read_blocks(group, key, source)

    monkeypatch.setattr(atoms, "read_blocks", watch)
    load(path, rows=rows)
    assert {key: n for key, n in read.items() if "coordinates" in key} == {
        (name, "coordinates"): 1 for name in MOLECULES
    }


@pytest.mark.parametrize("key", ["ccsd(t)_cbs.energy", "wb97x_dz.forces"])
def test_labels_of_copies_that_contradict_each_other_are_refused(tmp_path, key):
    path = write_ani1x(tmp_path / "file.h5", 40)
    with_copies(path)
    with h5py.File(path, "r+") as file:
        values = file["H2O"][key]
        values[43] = values[43] + 0.01
    with pytest.raises(
        UserError, match=r"row \d+ \(of H2O\) repeats row \d+, but its .* differs by"
    ):
        load(path)


def test_labels_of_copies_are_joined(tmp_path):
    path = write_ani1x(tmp_path / "file.h5", 40)
    with_copies(path)
    with h5py.File(path, "r+") as file:
        file["H2O"]["ccsd(t)_cbs.energy"][:40:4] = np.nan
        file["H2O"]["wb97x_dz.forces"][40:] = np.nan
    for part in load(path).values():
        assert part.has_energy(CC).all()
        assert part.has_forces(DZ).all()


@pytest.mark.parametrize("split_by", ["conformer", "molecule"])
def test_the_splits_are_those_of_the_file_whatever_an_experiment_reads(tmp_path, split_by):
    lost = {"CH4": {"ccsd(t)_cbs.energy": slice(0, 30)}, "H2O": {"wb97x_dz.energy": slice(3, 9)}}
    path = write_ani1x(tmp_path / "file.h5", 40, missing=lost)
    found = [
        load(path, parse_labels(labels), split_by=split_by)
        for labels in ({"DZ": "E"}, {"CC": "E"}, {"DZ": "EF", "TZ": "E", "CC": "E"})
    ]
    for one in found:
        for other in found:
            assert not set(one["train"].rows) & set(other["test"].rows)
            assert not set(one["train"].rows) & set(other["valid"].rows)
            assert not set(one["valid"].rows) & set(other["test"].rows)


# Molecules.


def test_bonds_tell_isomers_apart_and_order_does_not():
    hcn = np.array([[0, 0, 0], [0, 0, 1.07], [0, 0, 2.22]])  # H, C, N
    hnc = np.array([[0, 0, 0], [0, 0, 2.17], [0, 0, 1.0]])
    batch = Batch(np.array([1, 6, 7]), 2, np.stack([hcn, hnc]).__getitem__)
    first, second = molecule_ids(batch)
    assert first != second
    order = [2, 0, 1]
    other = Batch(np.array([1, 6, 7])[order], 2, np.stack([hcn, hnc])[:, order].__getitem__)
    assert molecule_ids(other).tolist() == [first, second]


def test_the_embedded_molecules_are_found_by_their_bonds():
    """18 formulas, and two isomers of CHN; cis and trans HNNH have the same bonds."""
    labels = labels_in_file(MINI_ANI1X)
    with open_data(MINI_ANI1X) as file:
        groups = index_ani1x(file, MINI_ANI1X, labels).groups
        ids = {
            group.name: len(
                set(
                    molecule_ids(
                        Batch(
                            group.numbers, group.size, group.member["coordinates"][()].__getitem__
                        )
                    )
                )
            )
            for group in groups
        }
    assert sum(ids.values()) == 19
    assert ids["CHN"] == 2


@pytest.mark.parametrize("seed", range(5))
def test_whole_molecules_are_in_one_split(tmp_path, seed):
    path = write_ani1x(tmp_path / "file.h5", 40, seed=seed)
    parts = load(path, split_by="molecule", split_seed=seed)
    names = [{part.group_names[group] for group in part.groups} for part in parts.values()]
    assert all(names)
    assert sum(map(len, names)) == len(set.union(*names)) == 5


def test_molecules_of_a_scarce_level_are_in_every_split():
    molecule = np.repeat(np.random.default_rng(0).integers(2**62, size=40).astype(np.uint64), 5)
    has_label = np.zeros((1, 200), bool)
    has_label[0, [0, 50, 100]] = True
    for seed in range(10):
        splits = assign_molecules(molecule, seed, has_label=has_label)
        assert set(splits[[0, 50, 100]]) == {0, 1, 2}
        assert (splits.reshape(40, 5) == splits[::5, None]).all()
        order = np.random.default_rng(seed).permutation(200)  # the draw does not see the file
        np.testing.assert_array_equal(assign_molecules(molecule[order], seed), assign_molecules(molecule, seed)[order])  # fmt: skip  # noqa: E501


def test_two_molecules_cannot_be_split(tmp_path):
    path = write_ani1x(tmp_path / "file.h5", {"H2O": 20, "CH4": 20})
    with pytest.raises(UserError, match=r"at least 3 molecules .*found 2"):
        load(path, split_by="molecule")


# Structures of another file that validate.


def test_another_file_validates_and_its_share_of_the_data_trains(tmp_path):
    data = write_ani1x(tmp_path / "data.h5", 40)
    other = write_ani1x(tmp_path / "valid.h5", 8, seed=5)
    plain, found = load(data), load(data, valid_source=other)
    assert list(found) == ["train", "valid", "test"]
    np.testing.assert_array_equal(found["test"].rows, plain["test"].rows)
    trains = np.sort(np.concatenate([plain["train"].rows, plain["valid"].rows]))
    np.testing.assert_array_equal(found["train"].rows, trains)
    assert len(found["valid"]) == 40
    assert set(found["valid"].energies) == {DZ.id, CC.id}


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_validation_file_with_conformers_of_the_data_is_refused(tmp_path, split):
    data = write_ani1x(tmp_path / "data.h5", 40)
    other = write_ani1x(tmp_path / "valid.h5", 8, seed=5)
    numbers = numbers_of(WATER[0])
    part = load(data)[split]
    (first, *_) = np.flatnonzero(np.array(part.group_names)[part.groups] == "H2O")
    shared = part.positions[first, : len(numbers)].astype(float)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    with h5py.File(other, "r+") as file:
        file["H2O/coordinates"][2] = shared @ turn
        file["H2O/wb97x_dz.energy"][2] = energy(numbers, shared[None], "wb97x_dz")[0]
        file["H2O/wb97x_dz.forces"][2] = forces(numbers, shared[None], "wb97x_dz")[0] @ turn
    with pytest.raises(UserError, match=rf"valid\.h5: 1 of its 40 .* are also in the {split} "):
        load(data, valid_source=other)


PLANTED = {
    "unit": (lambda f: f / 1.8897, r"forces of level wb97x_dz are not"),
    "sign": (lambda f: -f, r"wb97x_dz have the wrong sign"),
    "zeros": (lambda f: 0 * f, r"forces of level wb97x_dz are exactly 0"),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_what_is_wrong_in_a_validation_file_is_refused_as_in_the_data(tmp_path, kind):
    change, message = PLANTED[kind]
    data = write_ani1x(tmp_path / "data.h5", 40)
    other = write_ani1x(tmp_path / "valid.h5", 40, seed=5)
    with h5py.File(other) as file:
        changed = {name: change(file[name]["wb97x_dz.forces"][()]) for name in MOLECULES}
    for name, values in changed.items():
        replace(other, name, "wb97x_dz.forces", values.astype("f4"))
    with pytest.raises(UserError, match=rf"valid\.h5: .*{message}"):
        load(data, valid_source=other)
    with pytest.raises(UserError, match=rf"valid\.h5: .*{message}"):
        load(other)


def test_a_validation_file_in_other_units_of_energy_is_refused(tmp_path):
    data = write_ani1x(tmp_path / "data.h5", 40)
    other = write_ani1x(tmp_path / "valid.h5", 40, seed=5)
    for name in MOLECULES:
        with h5py.File(other) as file:
            values = file[name]["ccsd(t)_cbs.energy"][()]
        replace(other, name, "ccsd(t)_cbs.energy", values * 27.2114)
    with pytest.raises(UserError, match=r"valid\.h5: .*no total energies in hartree.* in eV"):
        load(data, valid_source=other)


def test_the_report_of_a_validation_file_is_its_own(tmp_path):
    data = write_ani1x(tmp_path / "data.h5", 40)
    other = write_ani1x(tmp_path / "valid.h5", 20, seed=5)
    n_copies = with_copies(other)
    reports = []
    load(data, valid_source=other, reports=reports)
    assert [report.source for report in reports] == [str(data), str(other)]
    found = [report.of("copies").values["n_copies"] for report in reports]
    assert found == [0, n_copies]


def test_a_validation_file_without_labels_of_a_level_is_refused(tmp_path):
    data = write_ani1x(tmp_path / "data.h5", 40)
    other = write_ani1x(tmp_path / "valid.h5", 8, seed=5)
    for name in MOLECULES:
        replace(other, name, "ccsd(t)_cbs.energy", None)
    with pytest.raises(UserError, match=r"valid\.h5: the validation file has no labels CC/E"):
        load(data, valid_source=other)


def test_the_draw_of_a_file_is_the_plain_one_for_common_rows():
    """What committed results rest on."""
    labels = labels_in_file(MINI_ANI1X)
    with open_data(MINI_ANI1X) as file:
        index = index_ani1x(file, MINI_ANI1X, labels, common_levels=PAPER_LEVELS, rows="common")
        for seed in (0, 1, 100):
            drawn = draw_splits(
                index,
                MINI_ANI1X,
                labels,
                rows="common",
                split_by="conformer",
                seed=seed,
                bar=ReadingBar(MINI_ANI1X, 1, hidden=True),
            )
            plain = assign_splits(index.is_common, seed)
            np.testing.assert_array_equal(drawn.splits[index.rows], plain[index.rows])
