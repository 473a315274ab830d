"""Two processes train as one: losses, gradients, metrics, checkpoints."""

from __future__ import annotations

import copy
import functools
import importlib
import itertools
import math
import re
import subprocess
import sys
from pathlib import Path

import hippynn
import pytest
import torch
from conftest import assert_close
from distributed_ranks import (
    AVERAGED,
    LABELS,
    PATTERNS,
    TIMEOUT,
    TRAINING,
    batch_with,
    environment,
    launch,
    losses_of,
    model_and_database,
    train,
)
from hippynn.databases import Database
from hippynn.experiment import assemble_for_training
from hippynn.graphs.nodes.loss import MSELoss
from made_crystals import crystals, label, write_crystals
from planted import MOLECULES, write_ani1x
from tiny import labelled_batch, tiny_model

from hippynn_mf import UserError
from hippynn_mf.model.losses import MaskedMAELoss
from hippynn_mf.training.global_loss import GlobalLoss
from hippynn_mf.training.loop import continue_training, prepare_training

TOP = Path(__file__).parent.parent
# Two of the 24 conformers of every molecule have a CC energy.
FEW_CC = {name: {"ccsd(t)_cbs.energy": slice(2, None)} for name in MOLECULES}

pytestmark = [
    pytest.mark.slow,
    # hippynn warns of the cut-offs of untrained sensitivities
    pytest.mark.filterwarnings("ignore:Provided distances are underneath:UserWarning"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distributed")
    write_ani1x(folder / "planted.h5", 24, missing=FEW_CC)
    return folder


@pytest.fixture(scope="module")
def ranks(folder):
    """What two processes do, with hashes and addresses of their own."""
    trainings = "trained", "interrupted", "continued", "ended", "spoiled", "frozen", "refused"
    return launch(folder, "gradients", *trainings)


@pytest.fixture(scope="module")
def averaged(folder):
    """Trainings of two processes with an average of the weights."""
    return launch(folder, "averaged", "averaged_in_two")


@pytest.fixture(scope="module")
def alone(folder, ranks):
    """What a process does that is started after them."""
    return launch(folder, "continued", "averaged", n_ranks=1)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setattr(hippynn.settings, "PROGRESS", None)
    monkeypatch.setattr(hippynn.settings, "WARN_LOW_DISTANCES", False)


def modules_and_database(folder, **changes):
    model, database, hyperparameters = model_and_database(folder, **changes)
    training = prepare_training(model, database, hyperparameters)
    return model, database, training.modules, training.controller


def evaluated(folder, parameters, split="valid"):
    """Metrics of a split by hippynn's evaluator in this process."""
    model, database, modules, _ = modules_and_database(folder)
    model.parameters.load_state_dict(parameters)
    return modules.evaluator.evaluate(database.make_generator(split, "eval", 100), split)


# Losses and gradients


@functools.cache
def assembled(name):
    """A model, and hippynn's modules of one loss of it with their names of arrays."""
    model = tiny_model(LABELS)
    node = losses_of(model.heads)[name]
    return model, *assemble_for_training(node, {name: node})


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("name", ["loss", "rmse", "mae", "hierarchicality"])
def test_loss_and_averaged_gradients_are_those_of_one_process(ranks, name, pattern):
    model, modules, names = assembled(name)
    batch = batch_with(pattern, model)
    predictions = modules.model(*(batch[name].clone() for name in names["inputs"]))
    expected = modules.loss(*predictions, *(batch[name] for name in names["targets"]))[0]
    assert (expected == 0) == (pattern == "nowhere")
    parameters = dict(model.parameters.named_parameters())
    gradients = torch.autograd.grad(expected, parameters.values(), allow_unused=True)
    for value, found in (rank[f"{name}, {pattern}"] for rank in ranks["gradients"]):
        assert_close(torch.tensor(value), expected.detach())
        for parameter, gradient in zip(parameters, gradients, strict=True):
            zeros = torch.zeros_like(parameters[parameter])
            actual = zeros if found[parameter] is None else found[parameter]
            assert_close(actual, zeros if gradient is None else gradient)
            if pattern == "nowhere":
                assert torch.equal(actual, zeros)


def test_errors_are_added_up_in_one_order_on_all_ranks(ranks):
    for name in ("loss", "rmse", "mae", "hierarchicality"):
        names, other = (rank[f"names of {name}"] for rank in ranks["gradients"])
        assert names == other == sorted(set(names))


@pytest.mark.usefixtures("float64")
def test_on_one_device_a_global_loss_is_the_loss():
    model = tiny_model(LABELS)
    batch = labelled_batch(model)
    batch["ccsd(t)_cbs.energy"][2:] = math.nan
    nodes = losses_of(model.heads)
    modules, names = assemble_for_training(nodes["loss"], nodes)
    predictions = [p.detach() for p in modules.model(*(batch[n].clone() for n in names["inputs"]))]
    values = *predictions, *(batch[name] for name in names["targets"])
    expected = modules.evaluator.loss(*values)
    found = GlobalLoss(modules.evaluator.loss)(*values)
    assert_close(torch.stack(found), torch.stack(expected))


@pytest.mark.parametrize("where", ["beside", "below"])
def test_a_loss_that_is_not_of_masked_errors_is_refused(where):
    heads = tiny_model(LABELS).heads
    plain, masked = MSELoss.of_node(heads["CC"].energy), MaskedMAELoss.of_node(heads["DZ"].energy)
    loss = plain + masked if where == "beside" else masked * heads["DZ"].energy.batch_hier.pred
    modules, _ = assemble_for_training(loss, {"loss": loss})
    with pytest.raises(UserError, match=r"cannot be summed over devices: .*MaskedRMSELoss"):
        GlobalLoss(modules.loss)


# Shares of batches


@pytest.fixture
def database(folder):
    return modules_and_database(folder)[1]


def rows_of(database, split, batch):
    """Places in a split of the labelled structures of a batch."""
    energies, positions = (
        batch[database.var_list.index(name)] for name in ("wb97x_dz.energy", "positions")
    )
    everything = database.splits[split]["positions"]
    return [
        int((everything[:, 0] == atoms[0]).all(dim=1).nonzero())
        for atoms, energy in zip(positions, energies, strict=True)
        if energy.isfinite()
    ]


@pytest.mark.parametrize("n_ranks", [1, 2, 3])
@pytest.mark.parametrize(("split", "mode"), [("train", "train"), ("valid", "eval")])
def test_ranks_share_every_batch(database, split, mode, n_ranks):
    state = database.random_state.get_state()
    whole = [rows_of(database, split, b) for b in database.make_generator(split, mode, 7)]
    assert sorted(itertools.chain(*whole)) == list(range(len(database.splits[split]["species"])))
    shares = []
    for rank in range(n_ranks):
        database.random_state.set_state(state)
        batches = database.make_generator(split, mode, 7, share=(rank, n_ranks))
        shares.append([rows_of(database, split, batch) for batch in batches])
    for batch, *parts in zip(whole, *shares, strict=True):
        assert sorted(batch) == sorted(itertools.chain(*parts))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_rank_without_a_structure_gets_one_without_labels(database):
    (batch,) = [
        batch
        for batch in database.make_generator("train", "train", 19, share=(1, 2))
        if len(batch[0]) == 1
    ]
    arrays = dict(zip(database.var_list, batch, strict=True))
    assert (arrays["species"] > 0).any()
    assert arrays["positions"].isfinite().all()
    assert len(arrays["pairs"]) == (arrays["species"] > 0).sum() * (
        (arrays["species"] > 0).sum() - 1
    )
    for name in ("wb97x_dz.energy", "wb97x_dz.forces", "ccsd(t)_cbs.energy"):
        assert arrays[name].isnan().all()


# Trainings


def test_losses_of_the_steps_are_those_of_one_process(folder, ranks):
    """Plain hippynn modules and a plain loop, with the batches of one process."""
    _, database, modules, controller = modules_and_database(folder)
    sizes = {split: len(arrays["species"]) for split, arrays in database.splits.items()}
    # A rank without a structure in the last step, and in the last batch of the validation.
    assert sizes["train"] % TRAINING["batch_size"] == 1
    assert sizes["valid"] % TRAINING["eval_batch_size"] == 1

    n_inputs, n_targets = len(database.inputs), len(database.targets)
    place = database.var_list.index("ccsd(t)_cbs.energy")
    losses, with_cc = [], []
    for _ in range(TRAINING["max_epochs"]):
        for batch in database.make_generator("train", "train", controller.batch_size):
            labelled = batch[place].isfinite()
            with_cc.append((bool(labelled[0::2].any()), bool(labelled[1::2].any())))
            outputs = modules.model(*batch[:n_inputs])
            loss = modules.loss(*outputs, *batch[-n_targets:])[0]
            controller.optimizer.zero_grad()
            loss.backward()
            controller.optimizer.step()
            losses.append(loss.item())
    assert len(losses) >= 20
    assert set(with_cc) == {(True, True), (True, False), (False, True), (False, False)}
    for rank in ranks["trained"]:
        assert rank["losses"] == pytest.approx(losses, rel=1e-5)


def test_crystals_train_as_in_one_process(tmp_path):
    """The last batch has one structure; one rank has a cell, and no label, of it then."""
    made = label(crystals(40))
    for atoms in made[::3]:
        del atoms.info["stress_wb97x_dz"]
    write_crystals(tmp_path / "crystals.xyz", made)
    two, one = (launch(tmp_path, "crystals", n_ranks=n)["crystals"] for n in (2, 1))
    metrics = one[0]["metrics"]
    assert {"stress_rmse.wb97x_dz", "force_rmse.wb97x_dz"} <= metrics[0].keys()
    for rank in two:
        assert rank["losses"] == pytest.approx(one[0]["losses"], rel=1e-4)
        for found, expected in zip(rank["metrics"], metrics, strict=True):
            assert found == pytest.approx(expected, rel=1e-3)


def test_metrics_are_those_of_the_whole_validation_set(folder, ranks):
    checkpoint = torch.load(folder / "whole" / "last.ckpt", weights_only=True)
    expected = evaluated(folder, checkpoint["state_dict"])
    for rank in ranks["trained"]:
        assert rank["metrics"][-1] == pytest.approx(expected, rel=1e-6)


def test_a_checkpoint_holds_parameters_under_the_names_of_the_model(folder, ranks):
    checkpoint = torch.load(folder / "whole" / "last.ckpt", weights_only=True)
    model, *_ = model_and_database(folder)
    assert checkpoint["state_dict"].keys() == model.parameters.state_dict().keys()
    assert not any(folder.rglob("*.partial"))


@pytest.mark.parametrize("n_ranks", [1, 2])
def test_a_training_that_is_continued_is_the_training(folder, ranks, alone, n_ranks):
    whole, begun = ranks["trained"][0], ranks["interrupted"][0]
    continued = (alone if n_ranks == 1 else ranks)["continued"]
    assert len(continued) == n_ranks
    for rank in continued:
        assert len(begun["losses"]) == len(rank["losses"]) == len(whole["losses"]) // 2
        assert begun["losses"] + rank["losses"] == pytest.approx(whole["losses"], rel=1e-6)
        assert rank["rates"] == whole["rates"][2:]
        for found, expected in zip(rank["metrics"], whole["metrics"], strict=True):
            assert found == pytest.approx(expected, rel=1e-6)
    outs = f"continued-{n_ranks}", "whole"
    last = [torch.load(folder / out / "last.ckpt", weights_only=True) for out in outs]
    best = [torch.load(folder / out / "model.pt", weights_only=True) for out in outs]
    for pair in ([checkpoint["state_dict"] for checkpoint in last], best):
        torch.testing.assert_close(*pair, rtol=1e-6, atol=1e-7)


def test_a_training_that_has_ended_is_not_continued(ranks):
    for rank, before in zip(ranks["ended"], ranks["trained"], strict=True):
        assert rank["losses"] == []
        assert rank["metrics"] == before["metrics"]


def test_the_best_epoch_of_all_ranks_is_kept_and_patience_ends_the_training(folder, ranks):
    leading, other = ranks["spoiled"]
    assert leading["metrics"] == other["metrics"]
    errors = [epoch["energy_rmse.wb97x_dz"] for epoch in leading["metrics"]]
    best = errors.index(min(errors))
    assert best > 0
    assert errors[-1] > 1.5 * errors[best]
    assert len(errors) == best + 2 + 1
    found = evaluated(folder, torch.load(folder / "spoiled" / "model.pt", weights_only=True))
    assert found == pytest.approx(leading["metrics"][best], rel=1e-6)


def test_the_plateau_of_the_global_metric_lowers_the_rate(ranks):
    for rank in ranks["frozen"]:
        assert rank["rates"] == [1e-7, 1e-7, 1e-7, 5e-8, 5e-8]


def test_callbacks_are_called_once_per_epoch(ranks):
    leading, other = ranks["spoiled"]
    errors = [epoch["energy_rmse.wb97x_dz"] for epoch in leading["metrics"]]
    better = [error < min(errors[:n], default=math.inf) for n, error in enumerate(errors)]
    assert leading["calls"] == [[n, int(flag)] for n, flag in enumerate(better)]
    assert other["calls"] == []


@pytest.fixture(scope="module")
def looped(folder):
    """Metrics of hippynn's loop in this process, and the averaged weights of its last epoch.

    The loop also measures structures of the training set, which it draws; processes do not. Here
    the batches go on as if it had not.
    """
    model, database, hyperparameters = model_and_database(folder, **AVERAGED)
    make_generator = database.make_generator

    def without_draws(split, mode, *arguments, **keywords):
        state = database.random_state.get_state()
        batches = make_generator(split, mode, *arguments, **keywords)
        if mode == "train":
            return batches
        batches = list(batches)
        database.random_state.set_state(state)
        return batches

    database.make_generator = without_draws
    training = prepare_training(model, database, hyperparameters)
    continue_training(training, [])
    with training.average.in_place():
        kept = copy.deepcopy(model.parameters.state_dict())
    return [epoch["valid"] for epoch in training.tracker.epoch_metric_values], kept


@pytest.mark.parametrize("n_ranks", [1, 2])
def test_the_average_and_the_last_epoch_are_those_of_the_loop(
    folder, averaged, alone, looped, n_ranks
):
    metrics, kept = looped
    for rank in (alone if n_ranks == 1 else averaged)["averaged"]:
        for found, expected in zip(rank["metrics"], metrics, strict=True):
            assert found == pytest.approx({k: expected[k] for k in found}, rel=1e-6)
    model = torch.load(folder / f"averaged-{n_ranks}" / "model.pt", weights_only=True)
    checkpoint = torch.load(folder / f"averaged-{n_ranks}" / "last.ckpt", weights_only=True)
    tensors = {name: value for name, value in kept.items() if isinstance(value, torch.Tensor)}
    for name, value in tensors.items():
        torch.testing.assert_close(model[name], value, rtol=1e-5, atol=1e-6)
    # What is trained goes on beside what is kept.
    assert any(not torch.equal(checkpoint["state_dict"][n], model[n]) for n in tensors)


def test_the_best_epoch_of_the_average_is_kept_averaged(folder, averaged):
    found = evaluated(
        folder, torch.load(folder / "averaged-best-2" / "model.pt", weights_only=True)
    )
    errors = [epoch["energy_rmse.wb97x_dz"] for epoch in averaged["averaged"][0]["metrics"]]
    assert min(abs(found["energy_rmse.wb97x_dz"] / error - 1) for error in errors) < 1e-4


def test_an_averaged_training_that_is_continued_is_the_training(folder, averaged):
    for found, expected in zip(
        averaged["averaged_in_two"][0]["metrics"], averaged["averaged"][0]["metrics"], strict=True
    ):
        assert found == pytest.approx(expected, rel=1e-6)
    pair = [
        torch.load(folder / out / "model.pt", weights_only=True)
        for out in ("averaged-in-two", "averaged-2")
    ]
    torch.testing.assert_close(*pair, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("case", "match"),
    [
        ("rate", r"differs between the processes in: learning_rate \(0\.001 and 0\.002\)"),
        ("width", r"differs between the processes in: n_features, parameters \(4 and 5\)"),
        ("resumed", r"differs from that of the checkpoint in: force_weight \(1\.0 and 2\.0\)"),
        ("diverged", r"diverged in epoch 1: .* Lower learning_rate"),
    ],
)
def test_every_rank_refuses_with_one_message(ranks, case, match):
    messages = [rank[case] for rank in ranks["refused"]]
    assert messages[0] == messages[1]
    assert re.search(match, messages[0])


# Wrong input in one process


def test_a_folder_with_a_checkpoint_is_refused(folder, tmp_path):
    (tmp_path / "last.ckpt").touch()
    with pytest.raises(UserError, match=r"last\.ckpt is there already\. Continue it with resume="):
        train(folder, str(tmp_path))


def test_another_database_is_refused(folder, tmp_path):
    from hippynn_mf.training.distributed import train_distributed

    model, _, hyperparameters = model_and_database(folder)
    plain = Database({"species": torch.zeros(1, 1)}, inputs=None, targets=None, seed=0, quiet=True)
    with pytest.raises(UserError, match=r"A Database cannot be shared .*load_database"):
        train_distributed(model, plain, hyperparameters, tmp_path)


def test_loading_a_graph_from_a_checkpoint_is_refused(tmp_path):
    from hippynn_mf.training.lightning_module import DataParallelModule

    with pytest.raises(UserError, match=r"no graph\. Continue with train_distributed\(…, resume"):
        DataParallelModule.load_from_checkpoint(tmp_path / "last.ckpt")


def test_a_checkpoint_of_another_program_is_refused():
    from hippynn_mf.training.lightning_module import DataParallelModule

    with pytest.raises(UserError, match="not one of hippynn_mf: it has no 'hippynn_mf'"):
        DataParallelModule.on_load_checkpoint(None, {"state_dict": {}})


def test_without_lightning_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_lightning", None)
    monkeypatch.delitem(sys.modules, "hippynn_mf.training.distributed", raising=False)
    with pytest.raises(UserError, match=r"pip install \"hippynn_mf\[distributed\]\""):
        importlib.import_module("hippynn_mf.training.distributed")


# documentation


def test_the_example_of_the_documentation_trains_in_two_processes(tmp_path):
    section = (TOP / "docs" / "several-devices.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    (command,) = re.findall(r"^    torchrun (.*)$", section, flags=re.MULTILINE)
    (tmp_path / command.split()[-1]).write_text(script)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", *command.split()]
    finished = subprocess.run(
        torchrun,
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(TOP)),
        timeout=TIMEOUT,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr[-5000:]
    assert "Starting with 2 processes" in finished.stderr + finished.stdout
    checkpoint = torch.load(tmp_path / "trained" / "last.ckpt", weights_only=True)
    assert checkpoint["epoch"] == 1
    assert (tmp_path / "trained" / "model.pt").exists()
