"""The state of a training in its run folder, from which a killed run continues exactly.

`checkpoint.pt` is the state after the last epoch, `checkpoint-previous.pt` the one before: a
SHA-256, then what `torch.save` writes of state dicts and numbers, loaded without running code.
"""

from __future__ import annotations

import copy
import hashlib
import io
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from hippynn_mf.files import replace_when_complete, require_file, writing
from hippynn_mf.hyperparameters import KeptEpoch
from hippynn_mf.model.parameters import State
from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.training.loop import Training, load_controller

log = logging.getLogger(__name__)

FORMAT = 1
MODEL, LAST, BEST = "model.pt", "model-last.pt", "model-best.pt"
CURRENT = "checkpoint.pt"
PREVIOUS = "checkpoint-previous.pt"
DIGEST_SIZE = hashlib.sha256().digest_size

TrainingState = dict[str, Any]  # of parameters, optimizer, generators, and numbers


class Checkpoints:
    """Saves a training after every epoch, as an epoch callback, and restores it.

    hippynn calls back before it notes the best model, so the best parameters are kept here, and
    those of the last epoch: as they were validated, which is their average where there is one.
    """

    def __init__(self, folder: RunFolder, training: Training) -> None:
        self.folder = folder
        self.training = training
        self.best: State = {}
        self.last: State = {}

    def kept(self, rule: KeptEpoch) -> State:
        """The parameters that a rule keeps."""
        return self.last if rule == "last" else self.best

    def __call__(self, epoch: int, better: bool) -> None:
        """Write the state after an epoch; what was the current checkpoint becomes the previous."""
        training = self.training
        parameters = training.model.parameters.state_dict()
        self.last = self._validated()
        if better:
            self.best = self.last
        state = {
            "format": FORMAT,
            "n_epochs": epoch + 1,
            "parameters": parameters,
            "best": self.best,
            "controller": training.controller.state_dict(),
            "torch_generator": torch.get_rng_state(),
            "database_generator": training.database.random_state.get_state(),
        }
        if training.average is not None:
            state["average"] = training.average.state_dict()
        current = self.folder.file(CURRENT)
        with replace_when_complete(current) as partial:
            _write(partial, state)
            if current.exists():
                os.replace(current, self.folder.file(PREVIOUS))

    def restore(self) -> int:
        """Continue from the newest sound checkpoint; returns the epochs that it has, 0 for none.

        A checkpoint that is damaged, or that belongs to epochs that are not recorded, is passed
        over with a warning.
        """
        paths = [self.folder.file(name) for name in (CURRENT, PREVIOUS)]
        paths = [path for path in paths if path.exists()]
        for path in paths:
            try:
                state = self._read(path)
            except Exception as error:  # torch raises almost anything on a damaged file
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                log.warning("%s is damaged and not used (%s)", path, reason)
                continue
            self._apply(state)
            log.info("continuing from %s after %d epochs", path.name, state["n_epochs"])
            return int(state["n_epochs"])
        if paths:
            log.warning("%s: no sound checkpoint; training starts again", self.folder.path)
        self.folder.write_epochs([])
        return 0

    def _read(self, path: Path) -> TrainingState:
        """The state in a file; an exception if it is not one of this training."""
        require_file(path, "a checkpoint")
        content = path.read_bytes()
        digest, payload = content[:DIGEST_SIZE], content[DIGEST_SIZE:]
        if hashlib.sha256(payload).digest() != digest:
            raise ValueError("wrong checksum")
        state: TrainingState = torch.load(
            io.BytesIO(payload), map_location="cpu", weights_only=True
        )
        if state["format"] != FORMAT:
            raise ValueError(f"format {state['format']!r} instead of {FORMAT}")
        if self.training.average is not None and "average" not in state:
            raise ValueError("no average of the weights")
        n_recorded = len(self.folder.read_epochs())
        if n_recorded < state["n_epochs"]:
            raise ValueError(f"{state['n_epochs']} epochs, of which {n_recorded} are recorded")
        return state

    def _validated(self) -> State:
        """A copy of the parameters that validation measures."""
        average = self.training.average
        with nullcontext() if average is None else average.in_place():
            return copy.deepcopy(self.training.model.parameters.state_dict())

    def _apply(self, state: TrainingState) -> None:
        training = self.training
        training.model.parameters.load_state_dict(state["parameters"])
        if training.average is not None:
            training.average.load_state_dict(state["average"])
        load_controller(training.controller, state["controller"])
        torch.set_rng_state(state["torch_generator"])
        training.database.random_state.set_state(state["database_generator"])
        self.best, self.last = state["best"], self._validated()
        epochs = self.folder.read_epochs()[: state["n_epochs"]]
        self.folder.write_epochs(epochs)  # without those after the checkpoint
        for record in epochs:
            metrics = {split: record[split] for split in ("train", "valid")}
            training.tracker.register_metrics(metrics, when=record["epoch"])
            training.tracker.epoch_times.append(record["wall_s"])


def write_models(
    folder: RunFolder,
    checkpoints: Checkpoints,
    rule: KeptEpoch,
    whole: Callable[[State], State] = lambda state: state,
) -> None:
    """Write the parameters of the last and the best epoch, and last `model.pt`, those that count.

    Each file is complete or not there. `whole` makes all parameters of a model from those of its
    last phase.
    """
    states = {LAST: checkpoints.last, BEST: checkpoints.best, MODEL: checkpoints.kept(rule)}
    for name, state in states.items():
        with replace_when_complete(folder.file(name)) as partial:
            # Each tensor with its own memory: in training they may be parts of one vector.
            partial.write_bytes(_saved({name: _own(value) for name, value in whole(state).items()}))


def _own(value: Any) -> Any:
    """A tensor with memory of its own; anything else as it is."""
    return value.clone() if isinstance(value, torch.Tensor) else value


def remove_checkpoints(folder: RunFolder) -> None:
    """Remove the checkpoints of a run or a phase that is finished."""
    for name in (CURRENT, PREVIOUS):
        with writing(folder.file(name)):
            folder.file(name).unlink(missing_ok=True)


def _write(path: Path, state: TrainingState) -> None:
    """Write a state and its checksum, and wait until the disk has them."""
    payload = _saved(state)
    with path.open("wb") as stream:
        stream.write(hashlib.sha256(payload).digest())
        stream.write(payload)
        stream.flush()
        os.fsync(stream.fileno())


def _saved(state: Mapping[str, Any]) -> bytes:
    """What `torch.save` writes; on a full disk it would not raise an OSError itself."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()
