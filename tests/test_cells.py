"""Networks with cells: molecules and crystals in one batch, stress, and what must not matter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hippynn.experiment import assemble_for_training
from tiny import TINY

from hippynn_mf import UserError
from hippynn_mf.cells import periodic_cell, stress_tensor
from hippynn_mf.cli.texts import read_values
from hippynn_mf.data.database import TrainingDatabase
from hippynn_mf.hyperparameters import Hyperparameters
from hippynn_mf.labels import parse_labels
from hippynn_mf.levels import CC, DZ
from hippynn_mf.model.losses import build_loss, build_metrics
from hippynn_mf.model.model import build_model
from hippynn_mf.model.predicting import predict_arrays
from hippynn_mf.model.whole_model import WholeModel, compute_at_once
from hippynn_mf.neighbours import NeighbourLists
from hippynn_mf.network.stored_pairs import precompute_pairs
from hippynn_mf.runs.request import Request

LABELS = {"DZ": "EFS", "CC": "EFS"}
SHORT = {"dist_soft_max": 3.0, "dist_hard_max": 3.5}
STEP = 1e-4


def crystal(seed: int = 0, n_atoms: int = 4, edge: float = 3.2):
    """Atoms far enough from each other in a cell without symmetry, smaller than the cut-off."""
    generator = np.random.default_rng(seed)
    cell = edge * np.eye(3) + generator.normal(scale=0.25, size=(3, 3))
    grid = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])[:n_atoms]
    positions = (grid + generator.normal(scale=0.04, size=grid.shape)) @ cell
    numbers = np.array([6, 8, 1, 7])[:n_atoms]
    return numbers, positions, cell


def batch(*systems):
    """Padded arrays of systems."""
    width = max(len(numbers) for numbers, _, _ in systems)
    species = np.zeros((len(systems), width), np.int64)
    positions = np.zeros((len(systems), width, 3))
    cells = np.zeros((len(systems), 3, 3))
    for k, (numbers, of_atoms, cell) in enumerate(systems):
        species[k, : len(numbers)], positions[k, : len(numbers)] = numbers, of_atoms
        cells[k] = cell
    return species, positions, cells


def model_of(labels=LABELS, *, periodic=True, interaction="fast", order=2, seed=0):
    torch.manual_seed(seed)
    hyperparameters = Hyperparameters(
        **(TINY | SHORT), interaction=interaction, tensor_order=order, coupling="delta"
    )
    return build_model(hyperparameters, parse_labels(labels), periodic=periodic)


def predict(model, *systems):
    species, positions, cells = batch(*systems)
    return predict_arrays(model, species, positions, cells=cells, batch_size=10)


def energy(model, numbers, positions, cell, level=CC):
    return predict(model, (numbers, positions, cell))[level.energy_name][0]


@pytest.mark.parametrize("interaction", ["fast", "compiled", "stock"])
@pytest.mark.parametrize("order", [0, 1, 2])
def test_forces_and_stress_are_derivatives_of_the_energy(float64, interaction, order):
    model = model_of(interaction=interaction, order=order)
    numbers, positions, cell = crystal()
    found = predict(model, (numbers, positions, cell))
    for level in (DZ, CC):
        moved = np.zeros((len(numbers), 3))
        for atom, axis in np.ndindex(moved.shape):
            ends = []
            for step in (STEP, -STEP):
                changed = positions.copy()
                changed[atom, axis] += step
                ends.append(energy(model, numbers, changed, cell, level))
            moved[atom, axis] = -(ends[0] - ends[1]) / (2 * STEP)
        scale = np.abs(moved).max()
        np.testing.assert_allclose(found[level.forces_name][0], moved, atol=1e-6 * scale)
        stress = np.zeros((3, 3))
        for row, column in np.ndindex(3, 3):
            ends = []
            for step in (STEP, -STEP):
                strain = np.eye(3)
                strain[row, column] += step / 2
                strain[column, row] += step / 2
                ends.append(energy(model, numbers, positions @ strain, cell @ strain, level))
            stress[row, column] = (ends[0] - ends[1]) / (2 * STEP) / np.linalg.det(cell)
        scale = np.abs(stress).max()
        np.testing.assert_allclose(found[level.stress_name][0], stress, atol=1e-6 * scale)


def test_a_supercell_has_the_energy_of_its_cells_and_their_stress(float64):
    model = model_of()
    numbers, positions, cell = crystal()
    shift = np.array([0, 1, 0]) @ cell
    doubled = (
        np.tile(numbers, 2),
        np.concatenate([positions, positions + shift]),
        cell * np.array([[1], [2], [1]]),
    )
    one, two = predict(model, (numbers, positions, cell)), predict(model, doubled)
    for level in (DZ, CC):
        np.testing.assert_allclose(two[level.energy_name], 2 * one[level.energy_name], rtol=1e-10)
        np.testing.assert_allclose(two[level.stress_name], one[level.stress_name], atol=1e-9)
        np.testing.assert_allclose(
            two[level.forces_name][0], np.tile(one[level.forces_name][0], (2, 1)), atol=1e-8
        )


def test_origin_and_choice_of_the_cell_do_not_matter(float64):
    model = model_of()
    numbers, positions, cell = crystal()
    expected = predict(model, (numbers, positions, cell))
    moved = positions + np.array([0.3, -7.1, 2.2])
    moved[1] += np.array([2, -1, 3]) @ cell  # another image
    other_cell = np.array([[1, 0, 0], [1, 1, 0], [-1, 1, 1]]) @ cell
    found = predict(model, (numbers, moved, other_cell))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-8)


def test_stress_turns_with_the_crystal(float64):
    model = model_of()
    numbers, positions, cell = crystal()
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    one = predict(model, (numbers, positions, cell))
    two = predict(model, (numbers, positions @ turn, cell @ turn))
    stress = one[CC.stress_name][0]
    np.testing.assert_allclose(two[CC.stress_name][0], turn.T @ stress @ turn, atol=1e-8)
    assert np.abs(stress - stress.T).max() < 1e-12


def test_molecules_beside_crystals_are_what_they_are_alone(float64):
    molecule = crystal(1, 3)[:2]
    alone = predict_arrays(
        model_of({"DZ": "EF", "CC": "EF"}, periodic=False), *batch((*molecule, 0))[:2], batch_size=1
    )
    found = predict(model_of(), crystal(), (*molecule, np.zeros((3, 3))))
    for name, value in alone.items():
        shown = found[name][1:]
        shown = shown[:, : value.shape[1]] if value.ndim > 1 else shown
        np.testing.assert_allclose(shown, value, atol=1e-8)
    assert np.isnan(found[CC.stress_name][1]).all()
    assert np.isfinite(found[CC.stress_name][0]).all()


def test_a_slab_sees_images_along_its_periodic_axes_only(float64):
    model = model_of()
    numbers, positions, cell = crystal()
    slab = cell * np.array([[1], [1], [0]])
    high = cell.copy()
    high[2] = 60.0 * np.cross(cell[0], cell[1]) / np.linalg.norm(np.cross(cell[0], cell[1]))
    found = predict(model, (numbers, positions, slab), (numbers, positions, high))
    np.testing.assert_allclose(*found[CC.energy_name], rtol=1e-10)
    assert np.isnan(found[CC.stress_name][0]).all()


@pytest.mark.parametrize("interaction", ["fast", "compiled", "at once"])
def test_stored_pairs_train_as_pairs_that_are_found(float64, interaction):
    systems = [crystal(seed, n) for seed, n in ((0, 4), (1, 2), (2, 3))]
    systems[1] = (*systems[1][:2], np.zeros((3, 3)))
    species, positions, cells = batch(*systems)
    generator = np.random.default_rng(0)
    arrays = {"species": species.astype(np.uint8), "positions": positions, "cell": cells}
    for level in (DZ, CC):
        arrays[level.energy_name] = generator.normal(size=(3, 1))
        arrays[level.forces_name] = generator.normal(size=positions.shape)
        stress = generator.normal(size=(3, 3, 3))
        stress[1] = np.nan
        arrays[level.stress_name] = stress
    gradients = []
    for stored in (False, True):
        model = model_of(interaction=interaction.replace("at once", "compiled"))
        loss = build_loss(model.heads)
        modules, db_info = assemble_for_training(loss, build_metrics(model.heads, loss))
        database = TrainingDatabase(dict.fromkeys(("train", "valid", "test"), arrays), **db_info)
        if stored:
            modules = precompute_pairs(modules, database)
            assert database.inputs[-2:] == ["pairs", "pair_shifts"]
            if interaction == "at once":
                modules = compute_at_once(modules, model.heads)
                assert isinstance(modules.model, WholeModel)
        (tensors,) = database.make_generator("train", "eval", 3)
        tensors = [t.double() if t.is_floating_point() else t for t in tensors]
        n_inputs = len(database.inputs)
        value = modules.loss(*modules.model(*tensors[:n_inputs]), *tensors[n_inputs:])[0]
        value.backward()
        assert torch.isfinite(value)
        gradients.append([value, *(p.grad for p in model.parameters.parameters())])
    for one, two in zip(*gradients, strict=True):
        if one is not None:
            torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-10)


def test_lists_have_every_image_within_the_cutoff():
    numbers, positions, cell = crystal(n_atoms=2)
    species, places, cells = batch((numbers, positions, cell))
    lists = NeighbourLists.of(species, places, 6.0, cells)
    rows = np.arange(1)
    pairs, shifts = lists.batch_pairs(rows, 2), lists.batch_shifts(rows, cells)
    vectors = places[0, pairs[:, 1]] - places[0, pairs[:, 0]] + shifts.numpy()
    found = np.sort(np.linalg.norm(vectors, axis=1))
    span = range(-4, 5)
    images = [np.array([a, b, c]) @ cell for a in span for b in span for c in span]
    lengths = [
        np.linalg.norm(positions[j] + image - positions[i])
        for i in range(2)
        for j in range(2)
        for image in images
    ]
    expected = sorted(length for length in lengths if 0 < length < 6.0)
    np.testing.assert_allclose(found, expected)


def test_a_stress_without_cells_is_refused():
    with pytest.raises(UserError, match=r"no structure is periodic\. Ask for CC/EF"):
        model_of({"CC": "EFS"}, periodic=False)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (np.zeros((3, 3)), "without a cell vector"),
        (np.diag([3.0, 3.0, np.nan]), "NaN or infinite"),
        (np.array([[3.0, 0, 0], [0, 3.0, 0], [3.0, 3.0, 0.1]]), "flat"),
        (np.diag([3.0, -3.0, 3.0]), "left-handed"),
    ],
)
def test_what_is_no_cell_is_refused(cell, message):
    with pytest.raises(UserError, match=f"somewhere: .*{message}"):
        periodic_cell(cell, np.ones(3, bool), "somewhere")


def test_a_stress_of_six_numbers_is_in_the_order_of_ase():
    tensor = stress_tensor([1.0, 2, 3, 4, 5, 6], "here")
    np.testing.assert_array_equal(tensor, [[1, 6, 5], [6, 2, 4], [5, 4, 3]])
    np.testing.assert_array_equal(stress_tensor(tensor.ravel(), "here"), tensor)
    for wrong in (np.arange(9.0), [1.0, 2, 3], [[np.nan] * 3] * 3):
        with pytest.raises(UserError, match="here"):
            stress_tensor(wrong, "here")


@pytest.mark.parametrize("flag", ["ignore_cell", "accept_outliers", "accept_charged"])
def test_a_switch_of_the_command_line_reaches_the_request(flag):
    values = read_values({flag: True}, ("SF-CC/E",))
    assert getattr(Request.of(values), flag) is True
