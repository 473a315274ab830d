"""An interrupted training continues as if nothing had happened."""

import errno
import hashlib
import io
import json
import os
import pickle

import pytest
import torch
from made_runs import build_settings
from planted import write_ani1x

from hippynn_mf import UserError
from hippynn_mf.data.database import TrainingDatabase
from hippynn_mf.runs import checkpoints
from hippynn_mf.runs.checkpoints import BEST, CURRENT, LAST, MODEL, PREVIOUS
from hippynn_mf.runs.experiment import Experiment
from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.runs.train import train_run

pytestmark = pytest.mark.filterwarnings("ignore:Provided distances are underneath:UserWarning")

N_EPOCHS = 6
TINY = {
    "n_interaction_layers": 1,
    "n_atom_layers": 1,
    "n_features": 4,
    "n_sensitivities": 4,
    "dist_soft_min": 0.5,
    "learning_rate": 0.1,  # so that epochs get better and worse
    "max_epochs": N_EPOCHS,
}
SCHEDULES = {
    "cosine": {"scheduler": "cosine", "learning_rate": 0.4},
    "plateau": {"scheduler": "plateau", "patience": 1},
    "average": {
        "scheduler": "cosine",
        "learning_rate": 0.4,
        "ema_decay": 0.5,
        "kept_epoch": "best_robust",
    },
    "last": {"scheduler": "cosine", "learning_rate": 0.4, "ema_decay": 0.7, "kept_epoch": "last"},
}


def settings_of(path, **overrides):
    experiment = Experiment(labels={"DZ": "EF", "CC": "E"})
    return build_settings([experiment], [0], data=path, overrides=TINY | overrides, device="cpu")[0]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_ani1x(tmp_path_factory.mktemp("data") / "planted.h5", 24)


@pytest.fixture(scope="module", params=SCHEDULES)
def uninterrupted(request, data, tmp_path_factory):
    """Settings, epochs and the final weights of a training that nothing disturbs."""
    settings = settings_of(data, **SCHEDULES[request.param])
    return settings, *results_of(train_run(settings, tmp_path_factory.mktemp("out")))


def results_of(folder):
    epochs = [{k: v for k, v in e.items() if k != "wall_s"} for e in folder.read_epochs()]
    states = {
        name: torch.load(folder.file(name), weights_only=True) for name in (MODEL, LAST, BEST)
    }
    return epochs, states


def assert_same_end(folder, epochs, weights):
    found_epochs, found_weights = results_of(folder)
    assert [epoch["epoch"] for epoch in found_epochs] == list(range(len(epochs)))
    for found, expected in zip(found_epochs, epochs, strict=True):
        assert found["best"] == expected["best"]
        assert found["valid"] == pytest.approx(expected["valid"], rel=1e-6)
    torch.testing.assert_close(found_weights, weights, rtol=1e-6, atol=1e-6)
    assert folder.is_finished
    assert not folder.file(CURRENT).exists()
    assert not folder.file(PREVIOUS).exists()


class Killed(BaseException):
    """Stands for the end of the process: nothing but `finally` blocks runs."""


def interrupt(settings, out, n_epochs, where):
    """Train until so many epochs are complete, or recorded but not saved; returns the folder."""
    original = checkpoints.Checkpoints.__call__
    make_generator = TrainingDatabase.make_generator

    def save(self, epoch, better):
        if epoch + 1 == n_epochs and where == "before the checkpoint":
            raise Killed
        original(self, epoch, better)
        if epoch + 1 == n_epochs and where == "after the checkpoint":
            raise Killed

    def make(self, split, mode, *arguments, **keywords):
        batches = make_generator(self, split, mode, *arguments, **keywords)
        if mode == "train":
            self.n_generators = getattr(self, "n_generators", 0) + 1
            if self.n_generators == n_epochs and where == "within the epoch":
                return first_then_killed(batches)
        return batches

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints.Checkpoints, "__call__", save)
        patch.setattr(TrainingDatabase, "make_generator", make)
        with pytest.raises(Killed):
            train_run(settings, out)
    return RunFolder.of(out, settings)


def first_then_killed(batches):
    yield next(iter(batches))
    raise Killed


@pytest.mark.parametrize(
    "where", ["within the epoch", "before the checkpoint", "after the checkpoint"]
)
def test_an_interrupted_training_ends_with_the_same_weights(uninterrupted, tmp_path, where):
    settings, epochs, weights = uninterrupted
    best = [epoch["best"] for epoch in epochs]
    assert True in best[1:]  # the schedules and data above see to it
    assert False in best[:-1]
    for n_epochs in (best.index(True, 1) + 1, best.index(False) + 1):
        out = tmp_path / str(n_epochs)
        folder = interrupt(settings, out, n_epochs, where)
        assert not folder.is_finished
        torch.rand(7)  # whatever another process would have done to the random state
        assert_same_end(train_run(settings, out), epochs, weights)
        log = folder.file("log.txt").read_text()
        done = n_epochs - (where != "after the checkpoint")
        assert f"continuing from checkpoint.pt after {done} epochs" in log


def test_a_training_is_interrupted_again_and_again(uninterrupted, tmp_path):
    settings, epochs, weights = uninterrupted
    for n_epochs in range(1, N_EPOCHS + 1):
        interrupt(settings, tmp_path, n_epochs, "after the checkpoint")
    assert_same_end(train_run(settings, tmp_path), epochs, weights)


DAMAGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "garbage": lambda path: path.write_bytes(b"garbage"),
    "empty": lambda path: path.write_bytes(b""),
    "one wrong bit": lambda path: path.write_bytes(
        path.read_bytes()[:1000] + bytes([path.read_bytes()[1000] ^ 1]) + path.read_bytes()[1001:]
    ),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
def test_the_previous_checkpoint_is_used_when_the_current_one_is_damaged(
    uninterrupted, tmp_path, damage
):
    settings, epochs, weights = uninterrupted
    folder = interrupt(settings, tmp_path, 4, "after the checkpoint")
    damage(folder.file(CURRENT))
    is_gone = not folder.file(CURRENT).exists()
    assert_same_end(train_run(settings, tmp_path), epochs, weights)
    log = folder.file("log.txt").read_text()
    assert (f"{CURRENT} is damaged and not used" in log) != is_gone
    assert f"continuing from {PREVIOUS} after 3 epochs" in log


def test_training_starts_again_when_no_checkpoint_is_sound(uninterrupted, tmp_path, caplog):
    settings, epochs, weights = uninterrupted
    folder = interrupt(settings, tmp_path, 4, "after the checkpoint")
    for name in (CURRENT, PREVIOUS):
        folder.file(name).write_bytes(b"garbage")
    assert_same_end(train_run(settings, tmp_path), epochs, weights)
    assert "no sound checkpoint; training starts again" in folder.file("log.txt").read_text()
    assert "training starts again" in caplog.text  # also on the terminal


def test_a_checkpoint_without_its_recorded_epochs_is_not_used(uninterrupted, tmp_path):
    settings, epochs, weights = uninterrupted
    folder = interrupt(settings, tmp_path, 4, "after the checkpoint")
    lines = folder.file("epochs.jsonl").read_bytes().splitlines(keepends=True)
    folder.file("epochs.jsonl").write_bytes(b"".join(lines[:3]) + lines[3][:20])
    assert_same_end(train_run(settings, tmp_path), epochs, weights)
    log = folder.file("log.txt").read_text()
    assert "4 epochs, of which 3 are recorded" in log
    assert f"continuing from {PREVIOUS} after 3 epochs" in log


def test_a_training_that_only_lacks_its_evaluation_adds_no_epoch(
    uninterrupted, tmp_path, monkeypatch
):
    settings, epochs, weights = uninterrupted

    def killed(*arguments, **keywords):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("hippynn_mf.runs.evaluate.evaluate_model", killed)
        with pytest.raises(Killed):
            train_run(settings, tmp_path)
    folder = RunFolder.of(tmp_path, settings)
    assert folder.n_epochs == len(epochs)
    assert_same_end(train_run(settings, tmp_path), epochs, weights)
    stored = folder.read_metrics()["training"]
    assert stored["n_epochs"] == len(epochs)
    seconds = [epoch["wall_s"] for epoch in folder.read_epochs()]
    assert stored["wall_s"] == pytest.approx(sum(seconds))


def test_a_full_disk_loses_nothing(uninterrupted, tmp_path, monkeypatch):
    settings, epochs, weights = uninterrupted
    fsync, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 6:  # the checkpoint of the third epoch; epochs.jsonl is written as well
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.os, "fsync", full)
        with pytest.raises(UserError, match=r"seed-0 is full\. Make room; the same command cont"):
            train_run(settings, tmp_path)
    folder = RunFolder.of(tmp_path, settings)
    assert "The disk of" in folder.read_failure()
    assert not list(folder.path.glob(".*.partial"))
    assert_same_end(train_run(settings, tmp_path), epochs, weights)
    assert folder.read_failure() is None


def test_a_checkpoint_runs_no_code(uninterrupted, tmp_path):
    settings, epochs, weights = uninterrupted
    folder = interrupt(settings, tmp_path, 2, "after the checkpoint")
    target = tmp_path / "was-run"

    class Malicious:
        def __reduce__(self):
            return os.mkdir, (str(target),)

    buffer = io.BytesIO()
    torch.save(Malicious(), buffer)
    payload = buffer.getvalue()
    folder.file(CURRENT).write_bytes(hashlib.sha256(payload).digest() + payload)
    assert_same_end(train_run(settings, tmp_path), epochs, weights)
    assert not target.exists()
    assert "UnpicklingError" in folder.file("log.txt").read_text()
    pickle.loads(pickle.dumps(Malicious()))  # which would have run it
    assert target.exists()


def test_epochs_are_whole_lines(uninterrupted, tmp_path):
    settings, *_ = uninterrupted
    folder = RunFolder.of(tmp_path, settings)
    folder.path.mkdir(parents=True)
    folder.append_epoch({"epoch": 0})
    with folder.file("epochs.jsonl").open("a") as stream:
        stream.write(json.dumps({"epoch": 1})[:-1])
    assert folder.read_epochs() == [{"epoch": 0}]
    assert folder.n_epochs == 1
