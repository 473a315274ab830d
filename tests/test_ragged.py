"""Arrays of atoms without padding are the padded ones, cut by cut, in memory and in a file."""

from __future__ import annotations

import errno
import os
import tempfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from made_xyz import label, molecules, save
from planted import write_ani1x
from tiny import tiny_model

from hippynn_mf import stores
from hippynn_mf.data.database import TrainingDatabase, load_database
from hippynn_mf.data.formats.ani1x import labels_in_file, read_ani1x
from hippynn_mf.errors import UserError
from hippynn_mf.model.predicting import predict_arrays
from hippynn_mf.neighbours import NeighbourLists
from hippynn_mf.ragged import Places, Ragged, blocks_by_size, recentred

SIZES = st.lists(st.integers(0, 6), max_size=9).map(lambda sizes: np.array(sizes, int))
DTYPES = st.sampled_from([np.uint8, np.float32, np.float64])


def padded_and_sizes(data, dtype=np.float32, trailing=(3,)):
    """A random array of atoms, with zeros where there is no atom."""
    sizes = data.draw(SIZES)
    shape = (len(sizes), int(sizes.max(initial=0)) + data.draw(st.integers(0, 2)), *trailing)
    numbers = np.random.default_rng(data.draw(st.integers(0, 2**16))).integers(1, 200, shape)
    numbers[np.arange(shape[1]) >= sizes[:, None]] = 0
    return numbers.astype(dtype), sizes


def rows_of(data, n):
    """Rows in any order, some of them several times, as an index or a mask, or a slice."""
    return data.draw(
        st.one_of(
            st.lists(st.integers(0, n - 1), max_size=12).map(lambda rows: np.array(rows, int))
            if n
            else st.just(np.zeros(0, int)),
            hnp.arrays(bool, n),
            st.tuples(st.integers(0, n), st.integers(0, n)).map(lambda ends: slice(*ends)),
        )
    )


@given(st.data(), DTYPES, st.sampled_from([(), (3,), (2, 3)]))
def test_every_cut_is_that_of_the_padded_array(data, dtype, trailing):
    padded, sizes = padded_and_sizes(data, dtype, trailing)
    ragged = Ragged.of(padded, sizes)
    assert ragged.values.shape == (sizes.sum(), *trailing)
    assert (len(ragged), ragged.dtype) == (len(sizes), dtype)
    rows = rows_of(data, len(sizes))
    cut = ragged[rows]
    width = int(sizes[rows].max(initial=0))
    np.testing.assert_array_equal(cut, padded[rows][:, :width])
    assert cut.dtype == dtype
    chosen = ragged.at(ragged.places[rows])  # which shares the values
    np.testing.assert_array_equal(chosen, cut)
    own = chosen.compact()
    assert len(own.values) == sizes[rows].sum()
    assert own.places.are_whole
    np.testing.assert_array_equal(own, cut)
    np.testing.assert_array_equal(chosen.values[chosen.places.rows()], own.values)
    for found, expected, size in zip(ragged, padded, sizes, strict=True):
        np.testing.assert_array_equal(found, expected[:size])
    if padded.shape[1]:
        np.testing.assert_array_equal(ragged.first(), padded[:, 0])


@given(st.data())
def test_replaced_rows_are_those_of_a_copy(data):
    padded, sizes = padded_and_sizes(data)
    ragged = Ragged.of(padded, sizes)
    rows = data.draw(st.sets(st.integers(0, max(0, len(sizes) - 1)))) if len(sizes) else set()
    found = ragged.replaced(dict.fromkeys(rows, np.nan))
    np.testing.assert_array_equal(ragged, padded[:, : sizes.max(initial=0)])
    for row, size in enumerate(sizes):
        expected = np.full((size, 3), np.nan) if row in rows else padded[row, :size]
        np.testing.assert_array_equal(found[row], expected)


@given(SIZES, st.integers(1, 100))
def test_blocks_hold_every_structure_once_and_pad_little(sizes, at_once):
    blocks = list(blocks_by_size(sizes, at_once))
    np.testing.assert_array_equal(
        np.sort(np.concatenate([np.zeros(0, int), *blocks])), np.arange(len(sizes))
    )
    for block in blocks:
        assert len(block) == 1 or len(block) * sizes[block].max() ** 2 <= at_once


def test_padding_between_atoms_is_refused():
    with pytest.raises(ValueError, match="Padding"):
        NeighbourLists.of(np.array([[1, 0, 1]]), np.zeros((1, 3, 3)), 1.0)


def test_selections_share_what_belongs_to_atoms(ani1x_file):
    structures, _ = read_ani1x(ani1x_file, labels_in_file(ani1x_file))
    some = structures[np.arange(0, len(structures), 7)]
    assert some.positions.values is structures.positions.values
    whole = structures.positions[:]
    np.testing.assert_array_equal(some.positions, whole[::7, : some.positions.shape[1]])


# batches


@given(st.data())
def test_batches_are_cuts_of_padded_arrays(data):
    """For every rank of several, with missing labels, and structures of very different sizes."""
    sizes = np.array(data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=8)))
    width, n = int(sizes.max()), len(sizes)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    is_atom = np.arange(width) < sizes[:, None]
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    arrays = {
        "species": np.where(is_atom, rng.integers(1, 9, is_atom.shape), 0).astype(np.uint8),
        "positions": np.where(is_atom[:, :, None], rng.normal(size=(n, width, 3)), 0).astype(dtype),
        "a.energy": rng.normal(size=(n, 1)).astype(dtype),
        "a.forces": np.where(is_atom[:, :, None], rng.normal(size=(n, width, 3)), 0).astype(dtype),
    }
    missing = rng.random(n) < data.draw(st.sampled_from([0.0, 0.5, 1.0]))
    arrays["a.energy"][missing] = np.nan
    arrays["a.forces"][missing[:, None] & is_atom] = np.nan
    names = list(arrays)
    database = TrainingDatabase({"train": arrays}, inputs=names[:2], targets=names[2:])
    n_ranks = data.draw(st.integers(1, 3))
    for rank in range(n_ranks):
        batches, _ = database.training_batches("train", 4, (rank, n_ranks))
        rows = rng.permutation(n)[: rng.integers(1, n + 1)]
        order = rows[np.argsort(sizes[rows], kind="stable")]
        mine = order[rank::n_ranks] if rank < len(order) else order[:1]
        widest = sizes[mine].max()
        for name, tensor in zip(names, batches[rows.tolist()], strict=True):
            expected = arrays[name][mine]
            if name != "a.energy":
                expected = expected[:, :widest]
            if rank >= len(order) and name.startswith("a."):
                expected = np.full_like(expected, np.nan)
            np.testing.assert_array_equal(tensor.numpy(), expected)
            assert tensor.dtype == (
                torch.int64 if name == "species" else torch.from_numpy(arrays[name]).dtype
            )


def test_pairs_of_a_large_structure_among_small_ones_are_those_of_each_alone():
    rng = np.random.default_rng(0)
    sizes = np.array([3, 40, 2, 300, 5])
    rows = [rng.uniform(0, n ** (1 / 3) * 1.5, (n, 3)).astype(np.float32) for n in sizes]
    places = Places.of_sizes(sizes)
    species = Ragged(np.ones(places.n_atoms, np.uint8), places)
    lists = NeighbourLists.of(species, Ragged(np.concatenate(rows), places), 3.0)
    for k, positions in enumerate(rows):
        alone = NeighbourLists.of(np.ones((1, len(positions)), int), positions[None], 3.0)
        found = lists.batch_pairs(np.array([k]), len(positions))
        assert torch.equal(found, alone.batch_pairs(np.array([0]), len(positions)))
        assert len(found)


# files in place of memory


@pytest.mark.parametrize("rows", ["common", "all"])
def test_what_is_kept_in_a_file_is_the_same_to_the_last_bit(tmp_path, monkeypatch, rows, caplog):
    holes = {"CH4": {"wb97x_dz.forces": slice(0, 4)}}
    path = write_ani1x(tmp_path / "file.h5", missing=holes)
    labels = {"DZ": "EF", "CC": "E"}
    in_memory = load_database(path, labels, rows=rows)
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(stores, "free_memory", lambda: 3 * 40)
    in_file = load_database(path, labels, rows=rows)
    assert f"in files without a name in {folder}" in caplog.text
    assert not list(folder.iterdir())  # they have no name
    for split, arrays in in_memory.splits.items():
        for name, array in arrays.items():
            found = in_file.splits[split][name]
            if isinstance(array, Ragged):
                assert stores.is_mapped(found.values)
                assert not stores.is_mapped(array.values)
                assert found[:].tobytes() == array[:].tobytes()
            else:
                torch.testing.assert_close(found, array, rtol=0, atol=0, equal_nan=True)


def test_without_room_for_the_file_it_is_said_where(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"no file of 0\.0 GB .*No space left.*TMPDIR"):
        stores.new_store((10, 3), np.float32, mapped=True)


def test_the_limit_of_a_control_group_is_kept_in_mind(tmp_path, monkeypatch):
    """As of a job of a batch system, on a machine that has more."""
    monkeypatch.setattr(stores, "CGROUP", tmp_path)
    assert stores._left(tmp_path) > 2**60
    for name, text in {
        "memory.max": "1000",
        "memory.current": "700",
        "memory.stat": "anon 100\ninactive_file 300\n",
    }.items():
        (tmp_path / name).write_text(text)
    assert stores._left(tmp_path) == 600
    (tmp_path / "memory.max").write_text("max")
    assert stores._left(tmp_path) > 2**60


def test_a_copy_of_a_file_is_a_file():
    values = stores.new_store((4, 3), np.float32, mapped=True)
    values[:] = np.arange(12).reshape(4, 3)
    ragged = Ragged(values, Places.of_sizes(np.array([1, 3])))
    replaced = ragged.replaced({0: 7.0})
    assert stores.is_mapped(replaced.values)
    assert values[0].tolist() == [0, 1, 2]
    assert replaced.values[0].tolist() == [7, 7, 7]


# far from the origin


def energies_and_forces(path) -> dict[str, np.ndarray]:
    structures, _ = read_ani1x(path, labels_in_file(path))
    assert structures.positions.dtype == np.float32
    model = tiny_model({"CC": "EF"})
    return predict_arrays(model, structures.species, structures.positions, batch_size=10)


@pytest.mark.parametrize("shift", [0.0, 1e2, 1e5])
def test_a_molecule_far_away_has_the_same_energies_and_forces(tmp_path, shift):
    """In single precision its coordinates alone would have an error of 4e-3 Å."""
    near = label(molecules(2))
    far = [atoms.copy() for atoms in near]
    for atoms in far:
        atoms.positions += shift * np.array([1.0, -0.3, 0.7])
    expected = energies_and_forces(save(tmp_path / "near.xyz", near))
    found = energies_and_forces(save(tmp_path / "far.xyz", far))
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-5)


def test_only_what_has_the_digits_is_moved():
    rng = np.random.default_rng(0)
    positions = rng.normal(size=(4, 5, 3)) + 1e3
    moved = recentred(positions)
    assert moved.dtype == np.float32
    np.testing.assert_allclose(moved.mean(axis=1), 0, atol=1e-6)
    apart = positions[:, :, None] - positions[:, None]
    np.testing.assert_allclose(moved[:, :, None] - moved[:, None], apart, atol=1e-6)
    single = positions.astype(np.float32)
    assert recentred(single) is single


def test_comparisons_and_arithmetic_are_those_of_the_padded_array():
    species = np.array([[8, 1, 1], [1, 1, 0]])
    ragged = Ragged.of(species, np.array([3, 2]))
    np.testing.assert_array_equal(ragged == 1, species == 1)
    np.testing.assert_array_equal(ragged > 0, species > 0)
    np.testing.assert_array_equal(2 * ragged - ragged, species)
    np.testing.assert_array_equal(np.sqrt(ragged), np.sqrt(species))
