"""Reptile against its definition, and the tasks that its batches are."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from planted import write_ani1x
from tiny import tiny_model

from hippynn_mf import UserError
from hippynn_mf.data.arrays import training_arrays
from hippynn_mf.data.loading import load_splits
from hippynn_mf.labels import parse_labels
from hippynn_mf.levels import CC, DZ, PAPER_LEVELS
from hippynn_mf.training.reptile import Reptile, TaskDatabase, share_head

LABELS = parse_labels({"DZ": "EF", "CC": "E"})
NAMES = ["species", "positions", DZ.energy_name, DZ.forces_name, CC.energy_name]


@pytest.mark.parametrize("rate", [0.3, 1.0])
def test_shared_weights_move_toward_the_result_of_each_task(rate):
    """φ ← φ + ε (φ' − φ), with φ' from plain Adam without momentum that starts anew."""
    targets = [torch.tensor([3.0, -1.0]), torch.tensor([-2.0, 5.0])]
    steps, tasks = 4, 6
    weights = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
    reptile = Reptile([weights], lr=0.1, meta_steps=steps, meta_rate=rate)
    expected = weights.detach().clone()
    for task in range(tasks):
        target = targets[task % 2]
        inner = torch.nn.Parameter(expected.clone())
        adam = torch.optim.Adam([inner], lr=0.1, betas=(0.0, 0.999))
        for _ in range(steps):
            for parameter, optimizer in ((weights, reptile), (inner, adam)):
                optimizer.zero_grad()
                ((parameter - target) ** 2).sum().backward()
                optimizer.step()
        expected = expected + rate * (inner.detach() - expected)
        torch.testing.assert_close(weights.detach(), expected)
    assert not reptile.state  # nothing to resume between tasks


def test_a_persistent_adam_is_the_ordinary_one():
    """With a rate of 1, levels that take turns and one optimizer."""
    weights, others = (torch.nn.Parameter(torch.tensor([1.0, 1.0])) for _ in range(2))
    reptile = Reptile([weights], lr=0.1, meta_steps=3, meta_rate=1.0, persistent=True)
    adam = torch.optim.Adam([others], lr=0.1)
    for step in range(12):
        target = torch.tensor([3.0, -1.0]) if step // 3 % 2 else torch.tensor([-2.0, 5.0])
        for parameter, optimizer in ((weights, reptile), (others, adam)):
            optimizer.zero_grad()
            ((parameter - target) ** 2).sum().backward()
            optimizer.step()
        torch.testing.assert_close(weights.detach(), others.detach())
    assert reptile.state


def task_database(tmp_path, n=24, meta_steps=3, missing=None):
    path = write_ani1x(tmp_path / "data.h5", n, missing=missing)
    parts = load_splits(path, LABELS, common_levels=PAPER_LEVELS, rows="all", split_seed=0)
    arrays = {name: training_arrays(part, LABELS) for name, part in parts.items()}
    database = TaskDatabase(arrays, labels=LABELS, meta_steps=meta_steps, seed=1)
    database.inputs, database.targets = NAMES[:2], NAMES[2:]
    return database


def batches_of(database, size):
    loader = database.make_generator("train", "train", size)
    return [dict(zip(NAMES, batch, strict=True)) for batch in loader]


def level_of(batch):
    """The one level whose labels a batch has."""
    has = {level.id: torch.isfinite(batch[level.energy_name]).any().item() for level in (DZ, CC)}
    assert sum(has.values()) == 1
    assert torch.isfinite(batch[DZ.forces_name]).any().item() == has[DZ.id]
    return next(level_id for level_id, found in has.items() if found)


def test_batches_come_as_whole_tasks_of_one_level_each_in_turn(tmp_path):
    batches = batches_of(task_database(tmp_path), 8)
    levels = [level_of(batch) for batch in batches]
    tasks = [(level, len(list(group))) for level, group in itertools.groupby(levels)]
    assert tasks == [(DZ.id, 3), (CC.id, 3)] * (len(batches) // 6)


def test_an_epoch_sees_every_structure_of_the_largest_level(tmp_path):
    lost = {name: {"ccsd(t)_cbs.energy": slice(0, 18)} for name in ("CH4", "H2O", "N2")}
    database = task_database(tmp_path, missing=lost)
    energies = {level: database.splits["train"][level.energy_name] for level in (DZ, CC)}
    assert torch.isfinite(energies[CC]).sum() < torch.isfinite(energies[DZ]).sum()
    seen = {level.id: [] for level in (DZ, CC)}
    for batch in batches_of(database, 8):
        level_id = level_of(batch)
        values = batch[f"{level_id}.energy"].flatten()
        assert torch.isfinite(values).all()  # no structure without the label of the task
        seen[level_id] += values.tolist()
    for level in (DZ, CC):
        known = energies[level][torch.isfinite(energies[level])].tolist()
        assert set(seen[level.id]) == set(known)
    assert len(seen[DZ.id]) >= len(seen[CC.id])


def test_tasks_differ_between_epochs_and_follow_the_seed(tmp_path):
    database = task_database(tmp_path)
    first, second = batches_of(database, 8), batches_of(database, 8)
    again = batches_of(task_database(tmp_path), 8)
    for batch, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(batch["positions"], other["positions"])
    rows = [[batch["positions"].tolist() for batch in epoch] for epoch in (first, second)]
    assert rows[0] != rows[1]


def test_validation_batches_have_every_label(tmp_path):
    database = task_database(tmp_path)
    for batch in database.make_generator("valid", "eval", 4):
        named = dict(zip(NAMES, batch, strict=True))
        assert torch.isfinite(named[DZ.energy_name]).all()
        assert torch.isfinite(named[CC.energy_name]).all()


def test_several_processes_are_refused(tmp_path):
    with pytest.raises(UserError, match="works in one process"):
        task_database(tmp_path).make_generator("train", "train", 4, share=(0, 2))


def test_heads_share_everything_but_their_atomic_energies():
    model = tiny_model({"DZ": "EF", "CC": "E"})
    share_head(model.heads)
    low, high = (model.heads[level].energy.torch_module.layers for level in (DZ, CC))
    assert low[0].weight is not high[0].weight
    assert len(low) > 1
    for place in range(1, len(low)):
        assert low[place] is high[place]
    names = [name for name, _ in model.parameters.named_parameters()]
    assert len(set(names)) == len(names)
    assert sum(".layers.1.weight" in name for name in names) == 1
