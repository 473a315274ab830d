"""Pairs found once are the pairs found in every step."""

from __future__ import annotations

import logging

import hippynn
import numpy as np
import pytest
import torch
from hippynn.databases import Database
from hippynn.experiment import SetupParams, assemble_for_training, setup_and_train
from hippynn.graphs.nodes.inputs import CellNode, PositionsNode, SpeciesNode
from planted import write_ani1x
from test_interaction import SIZES
from tiny import TINY, structures, tiny_model, train_model

from hippynn_mf import (
    FastHipnnQuad,
    UserError,
    build_heads,
    build_loss,
    build_metrics,
    load_database,
    neighbours,
    precompute_pairs,
)
from hippynn_mf.hyperparameters import Hyperparameters
from hippynn_mf.labels import parse_labels
from hippynn_mf.neighbours import NeighbourLists

LABELS = {"DZ": "EF", "CC": "E"}
CUTOFF = 2.0  # Å: some pairs of the planted molecules are farther apart


@pytest.fixture(autouse=True)
def _no_warnings(monkeypatch):
    monkeypatch.setattr(hippynn.settings, "WARN_LOW_DISTANCES", False)


def pairs_by_definition(species, positions):
    """Every (structure, receiver, sender) of two different atoms within the cut-off."""
    return {
        (k, i, j)
        for k in range(len(species))
        for i in range(species.shape[1])
        for j in range(species.shape[1])
        if i != j
        and species[k, i] > 0
        and species[k, j] > 0
        and (positions[k, i] - positions[k, j]).norm() < CUTOFF
    }


@pytest.mark.parametrize("at_once", [1, 100, 2**20])
def test_lists_hold_every_pair_within_the_cutoff(at_once, monkeypatch):
    monkeypatch.setattr(neighbours, "DISTANCES_AT_ONCE", at_once)
    species, positions = structures(2)
    lists = NeighbourLists.of(species, positions, CUTOFF)
    n_atoms = species.shape[1]
    everything = lists.batch_pairs(np.arange(len(species)), n_atoms)
    found = {(i // n_atoms, i % n_atoms, j % n_atoms) for i, j in everything.tolist()}
    assert found == pairs_by_definition(species, positions)
    assert len(everything) == len(found)
    all_pairs = ((species > 0).sum(dim=1) * ((species > 0).sum(dim=1) - 1)).sum()
    assert 0 < len(found) < all_pairs


def test_a_batch_numbers_the_places_of_its_own_padding():
    species, positions = structures(2)
    lists = NeighbourLists.of(species, positions, CUTOFF)
    rows = np.array([7, 0, 3])
    width = int((species[rows] > 0).sum(dim=1).max())
    for k, i, j in pairs_by_definition(species[rows], positions[rows]):
        assert [k * width + i, k * width + j] in lists.batch_pairs(rows, width).tolist()
    expected = len(pairs_by_definition(species[rows], positions[rows]))
    assert len(lists.batch_pairs(rows, width)) == expected


def test_lists_are_compact():
    species, positions = structures(2)
    lists = NeighbourLists.of(species, positions, CUTOFF)
    assert lists.atoms.dtype == np.uint8
    n = len(species)
    assert lists.bytes_per_structure == (2 * len(lists.atoms) + 16 * n) / n


def test_structures_of_more_than_256_atoms():
    species = torch.ones(2, 300, dtype=torch.int64)
    species[1, 3:] = 0
    positions = torch.arange(300.0).view(1, 300, 1) * torch.tensor([1.5, 0, 0])
    lists = NeighbourLists.of(species, positions.repeat(2, 1, 1), CUTOFF)
    pairs = lists.batch_pairs(np.array([0]), 300)
    assert (pairs[:, 0] - pairs[:, 1]).abs().tolist() == [1] * 598
    assert lists.batch_pairs(np.array([1]), 300).tolist() == [[0, 1], [1, 0], [1, 2], [2, 1]]


def test_atoms_without_neighbours():
    lists = NeighbourLists.of(torch.ones(3, 1, dtype=torch.int64), torch.zeros(3, 1, 3), CUTOFF)
    assert lists.batch_pairs(np.array([2, 0]), 1).shape == (0, 2)


def train(path, **changes):
    """Parameters and metrics after two epochs, and the database."""
    settings = {"dist_soft_min": 0.5, "dist_soft_max": 1.8, "dist_hard_max": CUTOFF}
    hyperparameters = Hyperparameters(
        **TINY, **settings, batch_size=16, max_epochs=2, fraction_train_eval=1.0, **changes
    )
    labels = parse_labels(LABELS)
    model = tiny_model(LABELS, interaction="fast", **settings)
    database = load_database(path, labels, rows="all")
    tracker = train_model(model, database, hyperparameters)
    return model.parameters.state_dict(), tracker.best_metric_values, database


def test_training_is_the_same_to_the_last_bit(tmp_path, caplog):
    path = write_ani1x(tmp_path / "planted.h5")
    with caplog.at_level(logging.INFO):
        stored, stored_metrics, database = train(path)
    searched, searched_metrics, plain = train(path, precompute_pairs=False)
    assert "Neighbour lists within 2 Å: " in caplog.text
    assert set(database.pairs) == {"train", "valid", "test"}
    assert not plain.pairs
    assert stored.keys() == searched.keys()
    for name, parameter in stored.items():
        if isinstance(parameter, torch.Tensor):  # not the extra state of the network
            assert torch.equal(parameter, searched[name]), name
    assert stored_metrics == searched_metrics


def assembled(periodic=False, species=(0, 1, 6, 7, 8)):
    inputs = [SpeciesNode(db_name="species"), PositionsNode(db_name="positions")]
    if periodic:
        inputs.append(CellNode(db_name="cell"))
    sizes = SIZES | {"possible_species": list(species)}
    network = FastHipnnQuad("network", tuple(inputs), periodic=periodic, module_kwargs=sizes)
    heads = build_heads(network, LABELS)
    loss = build_loss(heads)
    return assemble_for_training(loss, build_metrics(heads, loss))


def test_the_plugin_stores_pairs(ani1x_file):
    modules, db_info = assembled()
    database = load_database(ani1x_file, LABELS, **db_info)
    before = sum(p.numel() for p in modules.model.parameters())
    stored = precompute_pairs(modules, database)
    assert sum(p.numel() for p in stored.model.parameters()) == before
    assert database.inputs[-1] == "pairs"
    (batch,) = database.make_generator("test", "eval", None)
    values = dict(zip(database.inputs + database.targets, batch, strict=True))
    searched = modules.model(*(values[name].clone() for name in db_info["inputs"]))
    found = stored.model(*(values[name].clone() for name in database.inputs))
    for theirs, ours in zip(searched, found, strict=True):
        assert torch.equal(theirs, ours)
    metrics = stored.evaluator.evaluate(database.make_generator("test", "eval", 8), "test")
    assert np.isfinite(list(metrics.values())).all()


@pytest.mark.filterwarnings("ignore")  # hippynn's own plots at the end of training
@pytest.mark.parametrize("backwards", [False, True])
def test_hippynns_training_takes_stored_pairs(ani1x_file, tmp_path, monkeypatch, backwards):
    """Whatever order the database has its targets in."""
    monkeypatch.chdir(tmp_path)
    results = []
    for store in (False, True):
        torch.manual_seed(0)
        modules, db_info = assembled()
        before = modules
        database = load_database(ani1x_file, LABELS, **db_info)
        if backwards:
            database.targets = database.targets[::-1]
        if store:
            modules = precompute_pairs(modules, database)
            assert before.evaluator.model is before.model
        settings = SetupParams(
            stopping_key="energy_rmse_sum", batch_size=50, learning_rate=1e-2, max_epochs=2
        )
        tracker = setup_and_train(modules, database, settings)
        results.append(tracker.best_metric_values)
    assert results[0] == results[1]
    assert set(results[1]) >= {"train", "valid"}


def test_stored_pairs_can_be_stored_again(ani1x_file):
    """As after loading a checkpoint, with a database of its own."""
    modules, db_info = assembled()
    first, second = (load_database(ani1x_file, LABELS, **db_info) for _ in range(2))
    once = precompute_pairs(modules, first)
    twice = precompute_pairs(once, second)
    assert second.inputs.count("pairs") == 1
    found = [
        stored.evaluator.evaluate(database.make_generator("valid", "eval", 8), "valid")
        for stored, database in ((once, first), (twice, second))
    ]
    assert found[0] == found[1]


def test_other_databases_are_refused():
    modules, _ = assembled()
    arrays = {"species": np.ones((2, 1), int), "positions": np.zeros((2, 1, 3))}
    database = Database(arrays, inputs=None, targets=None, seed=0, quiet=True, pin_memory=False)
    with pytest.raises(UserError, match=r"a Database; make the database with hippynn_mf\.load_"):
        precompute_pairs(modules, database)


def test_periodic_graphs_are_refused(ani1x_file):
    modules, _ = assembled(periodic=True)
    database = load_database(ani1x_file, LABELS)
    with pytest.raises(UserError, match="this graph has: PeriodicPairIndexer"):
        precompute_pairs(modules, database)
    assert not database.pairs


def test_elements_that_the_network_does_not_know_are_refused(ani1x_file):
    modules, db_info = assembled(species=(0, 1, 6, 8))
    database = load_database(ani1x_file, LABELS, **db_info)
    with pytest.raises(UserError, match=r"\[7\] are outside the species of the model"):
        precompute_pairs(modules, database)
