import numpy as np
import pytest
import torch
from planted import MOLECULES, conformers, energy, forces, numbers_of, write_ani1x
from tiny import split_structures

from hippynn_mf.data.arrays import reference_energies, reference_forces, training_arrays
from hippynn_mf.data.database import build_database, is_per_atom
from hippynn_mf.data.formats.ani1x import read_ani1x
from hippynn_mf.labels import parse_labels
from hippynn_mf.levels import DZ, MP2, PAPER_LEVELS, SELF_ENERGIES, TZ

KCAL_PER_MOL = 627.5094740631  # per hartree, by another source than the package's
LABELS = parse_labels({"DZ": "EF", "MP2": "E"})
NAMES = ["species", "positions", "wb97x_dz.energy", "wb97x_dz.forces", "mp2_tz.energy"]
HOLES = {"H2O": {"mp2_tz.corr_energy": slice(0, 20)}, "N2": {"wb97x_dz.forces": slice(0, 20)}}


@pytest.fixture
def structures(tmp_path):
    """200 conformers of 2 to 5 atoms, some without MP2 energies, some without forces."""
    path = write_ani1x(tmp_path / "holey.h5", missing=HOLES)
    return read_ani1x(path, LABELS, common_levels=PAPER_LEVELS)[0]


@pytest.fixture
def parts(structures):
    return split_structures(structures, np.ones(200, bool), 0)


@pytest.fixture
def database(parts):
    database = build_database(parts, LABELS)
    database.inputs = ["species", "positions"]
    database.targets = NAMES[2:]
    return database


def batches(database, split="train", mode="train", size=16, **options):
    """Batches of a split as dictionaries."""
    generator = database.make_generator(split, mode, size, **options)
    names = database.inputs + database.targets
    return [dict(zip(names, batch, strict=True)) for batch in generator]


def test_the_arrays_have_the_shapes_and_types_of_training(structures):
    arrays = training_arrays(structures, LABELS)
    assert {name: (array.shape, array.dtype.name) for name, array in arrays.items()} == {
        "species": ((200, 5), "uint8"),
        "positions": ((200, 5, 3), "float32"),
        "wb97x_dz.energy": ((200, 1), "float32"),
        "wb97x_dz.forces": ((200, 5, 3), "float32"),
        "mp2_tz.energy": ((200, 1), "float32"),
    }


def test_only_trained_labels_become_arrays(structures):
    arrays = training_arrays(structures, parse_labels({"DZ": "E"}))
    assert set(arrays) == {"species", "positions", "wb97x_dz.energy"}


def test_energies_are_kcal_per_mol_without_self_energies(structures):
    for name, group in structures.by_group():
        numbers = numbers_of(MOLECULES[name][0])
        positions = conformers(MOLECULES[name], 40, list(MOLECULES).index(name))
        own = sum(SELF_ENERGIES[number] for number in numbers)
        shifted = energy(numbers, positions, "wb97x_dz") - own
        found = reference_energies(group, DZ)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, shifted * KCAL_PER_MOL, rtol=1e-7)
        column = training_arrays(group, LABELS)["wb97x_dz.energy"][:, 0]
        np.testing.assert_allclose(column, shifted * KCAL_PER_MOL, rtol=2e-7)


def test_self_energies_are_subtracted_once_from_a_level_that_is_a_sum(structures):
    methane = dict(structures.by_group())["CH4"]
    positions = conformers(MOLECULES["CH4"], 40, 1)
    parts = (energy(numbers_of("CHHHH"), positions, part) for part in ("hf_tz", "mp2_tz"))
    shifted = sum(parts) - SELF_ENERGIES[6] - 4 * SELF_ENERGIES[1]
    np.testing.assert_allclose(reference_energies(methane, MP2), shifted * KCAL_PER_MOL, rtol=1e-7)


def test_forces_are_kcal_per_mol_per_angstrom_with_zero_padding(structures):
    water = dict(structures.by_group())["H2O"]
    true_forces = forces(numbers_of("OHH"), conformers(MOLECULES["H2O"], 40, 0), "wb97x_dz")
    found = reference_forces(water, DZ)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found[:, :3], true_forces * KCAL_PER_MOL, rtol=1e-5, atol=1e-4)
    assert not found[:, 3:].any()
    np.testing.assert_array_equal(
        training_arrays(water, LABELS)["wb97x_dz.forces"], found.astype(np.float32)
    )


def test_forces_are_minus_the_gradient_of_the_energies_in_the_same_units(tmp_path):
    """Differences of the energies of displaced water molecules give its forces."""
    step, numbers = 1e-4, numbers_of("OHH")
    positions = conformers(MOLECULES["H2O"], 1, 0)
    true_forces = forces(numbers, positions, "wb97x_dz")[0] * KCAL_PER_MOL
    for atom, axis in np.ndindex(3, 3):
        ends = np.repeat(positions, 2, axis=0)
        ends[:, atom, axis] += [step, -step]
        up, down = energy(numbers, ends, "wb97x_dz") * KCAL_PER_MOL
        assert -(up - down) / (2 * step) == pytest.approx(true_forces[atom, axis], abs=1e-3)


def test_missing_labels_stay_missing(structures):
    arrays = training_arrays(structures, LABELS)
    for name, group in structures.by_group():
        rows = np.searchsorted(structures.rows, group.rows)
        lacks_mp2 = np.isnan(arrays["mp2_tz.energy"][rows, 0])
        assert np.flatnonzero(lacks_mp2).tolist() == (list(range(20)) if name == "H2O" else [])
        lacks_forces = np.isnan(arrays["wb97x_dz.forces"][rows]).any(axis=(1, 2))
        assert np.flatnonzero(lacks_forces).tolist() == (list(range(20)) if name == "N2" else [])
    assert np.isfinite(arrays["wb97x_dz.energy"]).all()


def test_the_splits_of_the_database_are_the_structures_of_each(database, parts):
    for name, part in parts.items():
        for key, array in training_arrays(part, LABELS).items():
            np.testing.assert_array_equal(database.splits[name][key].numpy(), array)


@pytest.mark.parametrize("size", [1, 7, 16, 160, 1000])
def test_every_training_row_appears_once_per_epoch(database, size):
    epoch = batches(database, size=size)
    energies = torch.cat([batch["wb97x_dz.energy"] for batch in epoch])
    expected = database.splits["train"]["wb97x_dz.energy"]
    assert len(torch.unique(expected)) == len(expected) == 160
    assert torch.equal(energies.sort(dim=0).values, expected.sort(dim=0).values)
    assert [len(batch["species"]) for batch in epoch[:-1]] == [size] * (len(epoch) - 1)


def test_the_arrays_of_a_row_stay_together_and_lose_only_padding(database):
    whole = database.padded("train")
    rows = {float(value): row for row, value in enumerate(whole["wb97x_dz.energy"][:, 0])}
    for batch in batches(database):
        index = [rows[float(value)] for value in batch["wb97x_dz.energy"][:, 0]]
        for name, array in batch.items():
            expected = whole[name][index]
            if is_per_atom(name):
                width = batch["species"].shape[1]
                assert array.shape[1] == width
                assert not torch.count_nonzero(torch.nan_to_num(expected[:, width:]))
                expected = expected[:, :width]
            if name == "species":
                assert (array.dtype, expected.dtype) == (torch.int64, torch.uint8)
                expected = expected.to(torch.int64)
            torch.testing.assert_close(array, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("size", [1, 4])
def test_training_batches_are_as_wide_as_their_largest_molecule(database, size):
    widths = set()
    for batch in batches(database, size=size):
        n_atoms = (batch["species"] > 0).sum(dim=1)
        assert batch["species"].shape[1] == n_atoms.max()
        assert batch["positions"].shape[1:] == (n_atoms.max(), 3)
        assert batch["wb97x_dz.forces"].shape[1:] == (n_atoms.max(), 3)
        assert batch["wb97x_dz.energy"].shape[1:] == (1,)
        widths.add(int(n_atoms.max()))
    assert len(widths) > 1


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_evaluation_batches_keep_the_order_and_the_width_of_the_file(database, split):
    found = batches(database, split, "eval", size=7)
    for name in NAMES:
        joined = torch.cat([batch[name] for batch in found])
        expected = database.padded(split)[name].to(joined.dtype)
        torch.testing.assert_close(joined, expected, rtol=0, atol=0, equal_nan=True)
    assert {batch["species"].shape[1] for batch in found} == {5}


def test_without_a_batch_size_a_split_is_one_batch(database):
    (batch,) = batches(database, "test", "eval", None)
    assert len(batch["species"]) == 20


def epoch_order(database):
    return torch.cat([batch["wb97x_dz.energy"] for batch in batches(database)])


def test_order_of_batches_follows_the_seed_alone(database, parts):
    same, other = (build_database(parts, LABELS, seed=seed) for seed in (0, 1))
    for copy in (same, other):
        copy.inputs, copy.targets = database.inputs, database.targets
    first, second = epoch_order(database), epoch_order(database)
    assert not torch.equal(first, second)
    assert not torch.equal(first, database.splits["train"]["wb97x_dz.energy"])
    torch.manual_seed(3)
    iter(same.make_generator("train", "train", 16))  # as a progress bar opens a loader
    assert torch.equal(epoch_order(same), first)
    assert torch.equal(epoch_order(same), second)
    assert not torch.equal(epoch_order(other), first)


def test_one_generator_shuffles_every_epoch_anew(database):
    generator = database.make_generator("train", "train", 16)
    first, second = (torch.cat([batch[2] for batch in generator]) for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(first.sort(dim=0).values, second.sort(dim=0).values)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_name_may_be_input_and_target(database, mode):
    database.targets = ["species", "wb97x_dz.energy"]
    for batch in database.make_generator("train", mode, 16):
        species_in, positions, species_out, energies = batch
        assert torch.equal(species_in, species_out)
        assert species_in.shape == positions.shape[:2]
        assert energies.shape == (len(species_in), 1)


@pytest.mark.parametrize(
    ("fraction", "n"), [(0.25, 40), (0.1, 16), (1e-6, 1), (1.0, 160), (False, 160)]
)
def test_a_subsample_is_a_fraction_of_the_rows_without_repeats(database, fraction, n):
    found = batches(database, "train", "eval", 16, subsample=fraction)
    energies = torch.cat([batch["wb97x_dz.energy"] for batch in found])[:, 0]
    assert len(energies) == len(torch.unique(energies)) == n
    assert torch.isin(energies, database.splits["train"]["wb97x_dz.energy"]).all()
    assert {batch["species"].shape[1] for batch in found} == {5}


def test_subsamples_differ_from_call_to_call(database):
    drawn = {
        batches(database, "train", "eval", 40, subsample=0.25)[0]["wb97x_dz.energy"]
        .numpy()
        .tobytes()
        for _ in range(5)
    }
    assert len(drawn) == 5


@pytest.mark.parametrize(
    ("name", "per_atom"),
    [
        ("species", True),
        ("positions", True),
        (TZ.forces_name, True),
        (TZ.energy_name, False),
    ],
)
def test_arrays_are_cut_along_atoms_by_name_and_not_by_shape(name, per_atom):
    assert is_per_atom(name) is per_atom


def test_a_width_that_equals_the_number_of_rows_is_no_coincidence_to_fall_for(structures):
    """Five molecules of up to five atoms: only the second axis of per-atom arrays is cut."""
    nitrogen = np.flatnonzero(structures.n_atoms == 2)[-5:]
    database = build_database(
        dict.fromkeys(("train", "valid", "test"), structures[nitrogen]), LABELS
    )
    database.inputs, database.targets = NAMES[:2], NAMES[2:]
    (batch,) = batches(database, size=5)
    assert {name: tuple(array.shape) for name, array in batch.items()} == {
        "species": (5, 2),
        "positions": (5, 2, 3),
        "wb97x_dz.energy": (5, 1),
        "wb97x_dz.forces": (5, 2, 3),
        "mp2_tz.energy": (5, 1),
    }
