"""One run: load, train with hippynn's own loop, evaluate, write the run folder."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hippynn_mf.data.formats.sources import DataPath, data_notes, shown_path
from hippynn_mf.data.loading import file_hash
from hippynn_mf.data.structures import Structures
from hippynn_mf.errors import UserError, describe_error
from hippynn_mf.evaluation.test_sets import (
    evaluate_model,
    load_test_file,
    measure_inference,
    model_of,
    refuse_trained_on,
)
from hippynn_mf.files import write_npz
from hippynn_mf.labels import Labels, plain_labels
from hippynn_mf.level_records import records_of
from hippynn_mf.model.losses import stopping_metric_name
from hippynn_mf.model.model import Model
from hippynn_mf.runs.checkpoints import remove_checkpoints, write_model
from hippynn_mf.runs.folder import LOCK_WAIT_SECONDS, RunFolder
from hippynn_mf.runs.log import logged_to
from hippynn_mf.runs.phases import train_phase
from hippynn_mf.runs.preflight import levels_of_run, load_inputs, load_parts, refuse_changed_files
from hippynn_mf.runs.settings import SOURCES, DataSource, RunSettings
from hippynn_mf.training.loop import choose_device
from hippynn_mf.training.strategies import State

log = logging.getLogger(__name__)

PACKAGES = ("hippynn_mf", "hippynn", "torch", "numpy", "h5py", "numba")


def train_run(settings: RunSettings, out: Path, *, wait_s: float = LOCK_WAIT_SECONDS) -> RunFolder:
    """Train and evaluate one run, unless its folder holds it finished; returns the folder.

    Raises UserError for wrong input before anything is written.
    """
    folder = RunFolder.of(out, settings)
    folder.refuse_other(settings)
    if folder.is_finished:
        return folder
    device = choose_device(settings.device)
    labels = settings.experiment.resolved_labels
    refuse_changed_files(settings)
    stopping_metric_name(settings.hyperparameters, model_of(settings).heads)
    parts = load_inputs(settings, labels)

    with folder.locked(wait_s=wait_s):
        if folder.is_finished:  # by a process that this one has waited for
            return folder
        folder.prepare(settings, facts=_facts(settings, parts, labels, device))
        folder.remove_leftovers()
        write_npz(folder.file("split.npz"), {name: part.rows for name, part in parts.items()})
        with logged_to(folder.file("log.txt")), _failures_noted(folder):
            _train_in(folder, settings, parts, device)
    return folder


@contextmanager
def _failures_noted(folder: RunFolder) -> Iterator[None]:
    """Leave in the folder why a training ended early."""
    try:
        yield
    except Exception as error:
        with suppress(OSError):  # which may be what ended it
            log.info("failed", exc_info=not isinstance(error, UserError))
            folder.write_failure(describe_error(error))
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise UserError(
                f"The disk of {folder.path} is full. Make room; the same command continues after "
                f"epoch {folder.n_epochs}."
            ) from None
        raise


def _train_in(
    folder: RunFolder,
    settings: RunSettings,
    parts: Mapping[str, Structures],
    device: torch.device,
) -> None:
    """Train, evaluate and write everything that a prepared run folder still lacks."""
    interaction = settings.hyperparameters.interaction
    log.info(
        "%s, seed %d, on %s, %s interaction", settings.name, settings.seed, device, interaction
    )
    for note in data_notes(settings.data.path):
        log.info("%s", note)
    *earlier, last = settings.experiment.phases
    states: list[State] = []
    for phase in earlier:
        of_phase = folder.phase(phase.name)
        of_phase.path.mkdir(exist_ok=True)
        of_phase.remove_leftovers()
        if not all(of_phase.file(name).exists() for name in ("model.pt", "epochs.jsonl")):
            log.info("phase %s", phase.name)
            checkpoints = train_phase(of_phase, settings, phase, parts, states, device)
            write_model(of_phase, checkpoints.best)
        remove_checkpoints(of_phase)
        states.append(read_state(of_phase))
    log.info("phase %s", last.name)
    checkpoints = train_phase(folder, settings, last, parts, states, device, is_last=True)
    labels = settings.experiment.resolved_labels
    states.append(checkpoints.best)
    write_model(folder, settings.experiment.strategy.assemble(labels, states))
    model = model_of(settings)
    load_best(model, folder)
    metrics, predictions = evaluate_model(model, settings, parts["test"], device=device)
    epochs = [epoch for phase in folder.phases(settings) for epoch in phase.read_epochs()]
    cpu_s = [epoch.get("cpu_s") for epoch in epochs]
    # Not of epochs from before it was measured, nor where another device does the work.
    is_known = None not in cpu_s and device.type == "cpu"
    metrics["training"] = {
        "wall_s": sum(epoch["wall_s"] for epoch in epochs),
        "n_epochs": len(epochs),
        "cpu_s": sum(c for c in cpu_s if c is not None) if is_known else None,
    }
    metrics["inference"] = measure_inference(model, settings, parts["test"])
    write_results(folder, metrics, predictions)
    remove_checkpoints(folder)


def evaluate_run(
    folder: RunFolder,
    *,
    data: DataPath | None = None,
    comp6: Path | None = None,
    test_file: DataPath | None = None,
    device: str = "auto",
) -> None:
    """Evaluate the trained model of a run folder again; rewrite its metrics and predictions.

    `data`, `comp6` and `test_file` say where the run's files are now. A run without a test file
    gets this one, and `experiment.json` says so. Raises UserError if a file has changed, if
    conformers of the test file are in the training data, or if the run is not finished: metrics
    of half a training would pass for its result.
    """
    settings = folder.read_settings()
    before = folder.read_metrics()
    target = choose_device(device)
    if comp6 is not None and settings.comp6 is None:
        raise UserError(
            f"{folder.path} was trained without COMP6 data, so there is nothing that {comp6} could "
            "replace. Leave --comp6 out, or train in another folder with it."
        )
    added = None
    if test_file is not None and settings.test_file is None:
        added = DataSource.of(test_file)
        settings = settings.model_copy(update={"test_file": added})
    named = {"data": data, "comp6": comp6, "test_file": test_file}
    for name in SOURCES:
        source = getattr(settings, name)
        if source is None:
            continue
        path: DataPath = named[name] or source.path
        found = file_hash(path)
        if found != source.sha256:
            of_levels = name == "data" and isinstance(source.path, dict)
            option = "train" if of_levels else name.removesuffix("_file")
            raise UserError(
                f"{shown_path(path)} is not the file of this run: its SHA-256 is {found[:12]}…, "
                f"the run's is {source.sha256[:12]}…. Name the right one with --{option}."
            )
        settings = settings.with_source(name, path)
    labels = settings.experiment.resolved_labels
    parts = load_parts(settings, labels)
    model = model_of(settings)
    load_best(model, folder)
    if settings.test_file is not None:
        refuse_trained_on(load_test_file(settings.test_file, model.species_set), parts, settings)
    metrics, predictions = evaluate_model(model, settings, parts["test"], device=target)
    metrics["training"] = before.get("training")
    metrics["inference"] = before.get("inference") or measure_inference(
        model, settings, parts["test"]
    )
    if added is not None:
        folder.add_test_file(added)
    write_results(folder, metrics, predictions)


def load_best(model: Model, folder: RunFolder) -> None:
    """Load the parameters of the best epoch from a run folder, without running code."""
    state = read_state(folder)
    try:
        model.parameters.load_state_dict(state)
    except Exception as error:
        raise _damaged(folder, error) from None


def read_state(folder: RunFolder) -> State:
    """The parameters in `model.pt` of a run or a phase, read without running code."""
    path = folder.file("model.pt")
    if not path.exists():
        raise UserError(f"No model in {folder.path}; the run was not trained.")
    try:
        state: State = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise _damaged(folder, error) from None
    return state


def _damaged(folder: RunFolder, error: Exception) -> UserError:
    return UserError(
        f"{folder.file('model.pt')} is not a model of this run ({type(error).__name__}): it is "
        f"damaged, or of another network. Delete {folder.path} and train again."
    )


def write_results(
    folder: RunFolder, metrics: dict[str, Any], predictions: Mapping[str, np.ndarray]
) -> None:
    """Write the predictions, then the metrics, which mark the run as finished."""
    write_npz(folder.file("predictions.npz"), predictions)
    folder.write_metrics(metrics)


def _facts(
    settings: RunSettings, parts: Mapping[str, Structures], labels: Labels, device: torch.device
) -> dict[str, Any]:
    """What `experiment.json` says beside the settings."""
    return {
        "trained_labels": plain_labels(labels),
        "levels": records_of(levels_of_run(settings, parts["test"], labels)),
        "n_structures": {name: len(part) for name, part in parts.items()},
        "device_used": str(device),
        "versions": {name: version(name) for name in PACKAGES},
    }
