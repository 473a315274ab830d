"""Reading twice and in blocks gives what a plain reader gives, to the last bit, in less memory."""

from __future__ import annotations

import functools
import re
import tracemalloc

import h5py
import numpy as np
import planted
import pytest
import torch
from planted import damage, write_ani1x

from hippynn_mf.data import matching
from hippynn_mf.data.checks import balance
from hippynn_mf.data.checks import pairs as signs
from hippynn_mf.data.database import build_database, load_database
from hippynn_mf.data.embedded import MINI_ANI1X
from hippynn_mf.data.formats import atoms, groups
from hippynn_mf.data.formats.ani1x import labels_in_file, read_ani1x
from hippynn_mf.data.loading import load_splits
from hippynn_mf.data.splits import SPLITS, assign_splits
from hippynn_mf.errors import UserError
from hippynn_mf.labels import join_labels, parse_labels
from hippynn_mf.levels import CC, DZ, MP2, PAPER_LEVELS, SELF_ENERGIES, TZ
from hippynn_mf.units import KCAL_PER_MOL_PER_HARTREE

EXPERIMENTS = [
    {"DZ": "EF", "CC": "E"},
    {"TZ": "EF"},
    {"CC": "E"},
    {"DZ": "E", "MP2": "E"},
    {"DZ": "EF", "TZ": "EF", "CC": "E"},
]
HOLES = {
    "CH4": {
        "wb97x_dz.energy": slice(0, 10),
        "wb97x_dz.forces": slice(0, 4),
        "ccsd(t)_cbs.energy": slice(2, 20),
    },
    "CHN": {"wb97x_tz.energy": slice(5, 7), "wb97x_tz.forces": slice(0, 9)},
    "H2O": {"hf_tz.energy": slice(0, 3), "mp2_tz.corr_energy": slice(2, 6)},
    "N2": dict.fromkeys(planted.ANI1X_ENERGIES, slice(10, 15)),
}
CO_COPY = 1513  # of row 1497, in the embedded file: bonds that are 1.5e-5 Å apart
WIDE = ("CCCCNNNOO", [(1.4 * i, 0.9 * (i % 2), 0.5 * (i % 3)) for i in range(9)])


@pytest.fixture
def holey_file(tmp_path):
    """A planted file with missing labels: 5 groups of 60."""
    return write_ani1x(tmp_path / "holey.h5", 60, missing=HOLES)


def plain_arrays(path, labels, rows, split_seed):
    """The arrays of the database, by a reader that takes everything and thinks afterwards."""
    with h5py.File(path) as file:
        groups = [{key: values[()] for key, values in group.items()} for group in file.values()]
    sizes = [len(group["coordinates"]) for group in groups]
    n, width = sum(sizes), max(len(group["atomic_numbers"]) for group in groups)
    stops = np.cumsum(sizes)
    species, positions = np.zeros((n, width), int), np.zeros((n, width, 3), np.float32)
    energies = {level: np.zeros(n) for level in PAPER_LEVELS}
    forces = {level: np.zeros((n, width, 3), np.float32) for level in (DZ, TZ)}
    for group, start, stop in zip(groups, stops - sizes, stops, strict=True):
        numbers = group["atomic_numbers"]
        species[start:stop, : len(numbers)] = numbers
        positions[start:stop, : len(numbers)] = group["coordinates"]
        for level in energies:
            energies[level][start:stop] = sum(group[key] for key in level.energy_keys)
        for level in forces:
            forces[level][start:stop, : len(numbers)] = group[level.force_key]
    is_common = np.isfinite(list(energies.values())).all(axis=0)
    kept = is_common
    if rows == "all":
        found = [np.isfinite(energies[level]) for level in labels]
        found += [np.isfinite(forces[lv]).all(axis=(1, 2)) for lv, p in labels.items() if p.forces]
        kept = np.any(found, axis=0)
    width = (species[kept] > 0).sum(axis=1).max()
    own = np.zeros(9)
    own[list(SELF_ENERGIES)] = list(SELF_ENERGIES.values())
    table = [np.isfinite(values) for values in energies.values()]
    table += [np.isfinite(values).all(axis=(1, 2)) for values in forces.values()]
    looked_at = is_common | (rows == "all")
    splits = assign_splits(is_common, split_seed, has_label=np.array(table) & looked_at)
    if rows == "all" and path == MINI_ANI1X:
        kept[CO_COPY] = False  # it has no label that the other lacks, which is common
    arrays = {}
    for index, name in enumerate(SPLITS):
        chosen = kept & (splits == index)
        arrays[name] = {"species": species[chosen, :width], "positions": positions[chosen, :width]}
        for level, properties in labels.items():
            shifted = energies[level][chosen] - own[species[chosen, :width]].sum(axis=1)
            in_kcal = (shifted * KCAL_PER_MOL_PER_HARTREE)[:, None]
            arrays[name][level.energy_name] = in_kcal.astype(np.float32)
            if properties.forces:
                in_kcal = forces[level][chosen, :width].astype(float) * KCAL_PER_MOL_PER_HARTREE
                arrays[name][level.forces_name] = in_kcal.astype(np.float32)
    return arrays


def assert_same_bits(found, expected):
    np.testing.assert_array_equal(found, expected)  # NaN equals NaN
    assert found.dtype == expected.dtype
    assert np.nan_to_num(found).tobytes() == np.nan_to_num(expected).tobytes()


def same_file(which, holey_file):
    return MINI_ANI1X if which == "embedded" else holey_file


@pytest.mark.parametrize("which", ["embedded", "holey"])
@pytest.mark.parametrize("rows", ["common", "all"])
@pytest.mark.parametrize("names", EXPERIMENTS, ids=str)
def test_the_database_is_that_of_a_plain_reader(which, rows, names, holey_file):
    path, labels = same_file(which, holey_file), parse_labels(names)
    database = load_database(path, labels, rows=rows, split_seed=3)
    expected = plain_arrays(path, labels, rows, 3)
    assert list(database.splits) == list(expected)
    for split, arrays in expected.items():
        assert list(database.splits[split]) == list(arrays)
        for name, array in arrays.items():
            found = database.splits[split][name].numpy()
            assert_same_bits(found.astype(array.dtype) if name == "species" else found, array)


@pytest.mark.parametrize("rows", ["common", "all"])
def test_batches_do_not_depend_on_how_the_database_was_made(rows, holey_file):
    """From structures, which keep their forces in hartree, or straight from the file."""
    labels = parse_labels(EXPERIMENTS[0])
    parts = load_splits(holey_file, labels, common_levels=PAPER_LEVELS, rows=rows, split_seed=0)
    before = parts["train"].forces[DZ.id][:]
    made = [
        build_database(parts, labels, seed=4),
        load_database(holey_file, labels, rows=rows, seed=4),
    ]
    np.testing.assert_array_equal(parts["train"].forces[DZ.id], before)
    for database in made:
        database.inputs = ["species", "positions"]
        database.targets = [DZ.energy_name, DZ.forces_name, CC.energy_name]
    for split, mode in (("train", "train"), ("train", "eval"), ("test", "eval")):
        for one, other in zip(*(db.make_generator(split, mode, 7) for db in made), strict=True):
            assert one[0].dtype == torch.int64
            for first, second in zip(one, other, strict=True):
                assert_same_bits(first.numpy(), second.numpy())


def everything(path):
    """All that is read for an experiment, and for a description of the file."""
    labels = parse_labels(EXPERIMENTS[0])
    parts = load_splits(path, labels, common_levels=PAPER_LEVELS, rows="all", split_seed=0)
    whole, _ = read_ani1x(path, labels_in_file(path))
    arrays = {}
    for name, part in {**parts, "whole": whole}.items():
        for kind in ("species", "positions", "groups", "rows"):
            arrays[name, kind] = getattr(part, kind)
        arrays |= {(name, "energy", level): v for level, v in part.energies.items()}
        arrays |= {(name, "forces", level): v for level, v in part.forces.items()}
    return arrays


@pytest.mark.parametrize("block_bytes", [1, 100, 1000, 5000])
@pytest.mark.parametrize("chunks", [None, 1, 7, 60])
def test_blocks_of_rows_do_not_change_anything(holey_file, monkeypatch, block_bytes, chunks):
    whole = everything(holey_file)
    if chunks:
        with h5py.File(holey_file, "r+") as file:
            for group in file.values():
                for key in ("coordinates", "wb97x_dz.forces", "wb97x_tz.forces"):
                    values = group[key][()]
                    del group[key]
                    shape = (chunks, *values.shape[1:])
                    group.create_dataset(key, data=values, chunks=shape, compression="gzip")
    monkeypatch.setattr(groups, "BLOCK_BYTES", block_bytes)
    in_blocks = everything(holey_file)
    assert in_blocks.keys() == whole.keys()
    for name, array in whole.items():
        assert_same_bits(in_blocks[name], array)


def test_blocks_hold_whole_chunks(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "file.h5", "w") as file:
        member = file.create_group("H2O")
        member.create_dataset("coordinates", data=np.zeros((50, 3, 3), "f4"), chunks=(8, 3, 3))
        group = groups.Group("H2O", member, np.array([8, 1, 1]), 0, 50)
        monkeypatch.setattr(groups, "BLOCK_BYTES", 10 * 36)
        sizes = [len(values) for _, values in groups.read_blocks(group, "coordinates", tmp_path)]
    assert sizes == [16, 16, 16, 2]


def test_what_belongs_to_atoms_is_read_only_where_a_conformer_is_kept(tmp_path):
    holes = {"N2": {"ccsd(t)_cbs.energy": slice(None)}}
    path = write_ani1x(tmp_path / "file.h5", 20, missing=holes)
    for key in ("coordinates", "wb97x_dz.forces", "wb97x_tz.forces"):
        damage(path, "N2", key)
    parts = load_splits(
        path,
        parse_labels({"DZ": "EF", "CC": "E"}),
        common_levels=PAPER_LEVELS,
        rows="common",
        split_seed=0,
    )
    assert sum(len(part) for part in parts.values()) == 80
    with pytest.raises(UserError, match=r"file\.h5 cannot be read"):
        load_database(path, {"DZ": "EF"}, rows="all")


def test_forces_are_read_for_a_conformer_without_energies(holey_file):
    """CH4 has ten conformers without DZ energies; the last six of them have DZ forces."""
    structures, _ = read_ani1x(holey_file, parse_labels({"DZ": "EF"}))
    methane = dict(structures.by_group())["CH4"]
    assert methane.rows.tolist() == list(range(4, 60))
    assert methane.has_forces(DZ).all()
    assert np.flatnonzero(~methane.has_energy(DZ)).tolist() == list(range(6))


def peak_bytes(function, *arguments, **options):
    tracemalloc.start()
    function(*arguments, **options)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_grows_with_the_rows_kept_not_with_the_file(tmp_path, monkeypatch):
    """A conformer that is not kept costs its energies for a moment, a kept one its arrays."""
    monkeypatch.setitem(planted.MOLECULES, "W", WIDE)
    # What is worked on at once, or looked at of a file, is less than what both files have.
    monkeypatch.setattr(groups, "BLOCK_BYTES", 2**12)
    monkeypatch.setattr(matching, "ROWS_AT_ONCE", 2**6)
    monkeypatch.setattr(signs, "MAX_CONFORMERS", 100)
    monkeypatch.setattr(balance, "AT_ONCE", 2**6)
    n_kept, n_more = 400, 6000
    in_file = 3 * 9 * 3 * 4  # bytes of coordinates and two levels of forces, of nine atoms
    peaks = {}
    for kept, others in ((n_kept, 0), (n_kept, n_more), (n_kept + n_more, 0)):
        holes = {"W": {"ccsd(t)_cbs.energy": slice(kept, None)}}
        path = write_ani1x(tmp_path / f"{kept}.{others}.h5", {"W": kept + others}, missing=holes)
        load = functools.partial(load_database, rows="common")
        load(path, {"DZ": "EF", "CC": "E"})  # what is made once is made
        peaks[kept, others] = peak_bytes(load, path, {"DZ": "EF", "CC": "E"})
    base = peaks[n_kept, 0]
    unkept, kept = (
        (peaks[key] - base) / n_more for key in ((n_kept, n_more), (n_kept + n_more, 0))
    )
    assert unkept < in_file / 2
    assert 225 < kept < 225 + in_file  # 225 = nine atoms of one byte and six float32


@pytest.mark.parametrize("rows", ["common", "all"])
def test_references_are_read_for_the_test_structures_alone(holey_file, rows, monkeypatch):
    """Of the training structures only a sample is looked at, to prove the sign of the forces."""
    wanted = []
    read_parts = atoms.read_parts

    def watch(path, groups, parts, **options):
        wanted.append({name: (len(p.rows), list(p.force_levels)) for name, p in parts.items()})
        return read_parts(path, groups, parts, **options)

    monkeypatch.setattr("hippynn_mf.data.loading.read_parts", watch)
    monkeypatch.setattr(signs, "MAX_CONFORMERS", 6)
    labels = parse_labels({"DZ": "EF", "CC": "E"})
    parts = load_splits(holey_file, labels, common_levels=PAPER_LEVELS, rows=rows, split_seed=0)
    (found,) = wanted
    assert found == {
        "train": (len(parts["train"]), [DZ]),
        "valid": (len(parts["valid"]), [DZ]),
        "test": (len(parts["test"]), [DZ, TZ]),
        "sample of wb97x_tz": (5 * 6, [TZ]),
    }
    assert list(parts) == list(SPLITS)
    assert set(parts["test"].energies) == {level.id for level in (DZ, TZ, MP2, CC)}


@pytest.mark.parametrize("trained", [{"DZ": "EF"}, {"TZ": "EF"}], ids=str)
def test_a_sample_proves_as_much_as_all_training_structures(ani1x_file, trained):
    reports = []
    for labels in (trained, {"DZ": "EF", "TZ": "EF"}):
        load_splits(
            ani1x_file,
            parse_labels(labels),
            common_levels=PAPER_LEVELS,
            rows="common",
            split_seed=0,
            reports=reports,
        )
    for level in (DZ, TZ):
        outcomes = [report.of("forces", level.id) for report in reports]
        assert [outcome.verdict for outcome in outcomes] == ["passed", "passed"]
        slopes = [outcome.values["slope"] for outcome in outcomes]
        assert slopes[0] == pytest.approx(slopes[1], abs=0.02)


def test_an_atomic_number_beyond_the_elements_is_refused(ani1x_file):
    planted.replace(ani1x_file, "N2", "atomic_numbers", np.array([7, 263]))
    message = "group N2: atomic_numbers [7, 263] must all be positive, and at most 118"
    with pytest.raises(UserError, match=re.escape(message)):
        read_ani1x(ani1x_file, parse_labels({"DZ": "E"}))


@pytest.mark.parametrize(
    "read",
    [
        lambda path: read_ani1x(path, join_labels(parse_labels({"DZ": "EF"}))),
        lambda path: load_database(path, {"CC": "E"}, rows="all"),
    ],
    ids=["a test set", "splits"],
)
def test_one_bar_goes_through_a_file(ani1x_file, monkeypatch, read):
    bars, stages = [], []

    class Bar:
        def __init__(self, **options):
            self.options, self.n = options, 0
            bars.append(self)

        def close(self):
            self.closed = True

        def set_description_str(self, text, refresh):
            stages.append(text)

        def update(self, n):
            self.n += n
            assert self.n <= self.total

    monkeypatch.setattr("hippynn_mf.data.formats.reading_bar.tqdm", Bar)
    read(ani1x_file)
    (bar,) = bars
    assert bar.options["desc"] == "planted.h5"
    assert stages == [
        f"planted.h5: {what}" for what in ("labels", "coordinates", "labels of atoms")
    ]
    assert bar.n == bar.total == 3 * 200
    assert bar.closed
