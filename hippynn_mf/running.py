"""One run: load, train with hippynn's own loop, evaluate, write the run folder."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hippynn_mf.checkpoints import Checkpoints
from hippynn_mf.data.database import TrainingDatabase, build_database
from hippynn_mf.data.loading import file_hash, load_splits
from hippynn_mf.data.sources import DataPath, absolute_paths, data_notes, shown_path
from hippynn_mf.data.structures import Structures, refuse_unknown_species
from hippynn_mf.errors import UserError, describe_error, errors_about
from hippynn_mf.evaluation import evaluate_model, load_comp6, reference_labels
from hippynn_mf.files import write_npz
from hippynn_mf.labels import Labels, join_labels, plain_labels
from hippynn_mf.level_records import records_of
from hippynn_mf.levels import Level, get_level
from hippynn_mf.losses import stopping_metric_name
from hippynn_mf.models import Model, build_model
from hippynn_mf.recording import EpochRecord, logged_to
from hippynn_mf.runs import LOCK_WAIT_SECONDS, RunFolder, RunSettings
from hippynn_mf.training import choose_device, continue_training, prepare_training

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
    torch.manual_seed(settings.seed)
    model = build_model(settings.hyperparameters, labels)
    stopping_metric_name(settings.hyperparameters, model.heads)
    parts, database = load_inputs(settings, model, labels)

    with folder.locked(wait_s=wait_s):
        if folder.is_finished:  # by a process that this one has waited for
            return folder
        folder.prepare(settings, facts=_facts(settings, parts, labels, device))
        folder.remove_leftovers()
        write_npz(folder.file("split.npz"), {name: part.rows for name, part in parts.items()})
        with logged_to(folder.file("log.txt")), _failures_noted(folder):
            _train_in(folder, settings, model, database, parts["test"], device)
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
    model: Model,
    database: TrainingDatabase,
    test: Structures,
    device: torch.device,
) -> None:
    """Train, evaluate and write everything that a prepared run folder still lacks."""
    interaction = settings.hyperparameters.interaction
    log.info(
        "%s, seed %d, on %s, %s interaction", settings.name, settings.seed, device, interaction
    )
    for note in data_notes(settings.data.path):
        log.info("%s", note)
    training = prepare_training(model, database, settings.hyperparameters, device=device)
    checkpoints = Checkpoints(folder, training)
    checkpoints.restore()
    continue_training(training, [EpochRecord(folder, training.tracker), checkpoints])
    checkpoints.write_best()
    load_best(model, folder)
    metrics, predictions = evaluate_model(model, settings, test, device=device)
    metrics["training"] = {
        "wall_s": sum(training.tracker.epoch_times),
        "n_epochs": folder.n_epochs,
    }
    write_results(folder, metrics, predictions)
    checkpoints.remove()


def refuse_changed_files(settings: RunSettings) -> None:
    """Raise UserError if a file is not any more what it was when the settings were made."""
    for name in ("data", "comp6"):
        source = getattr(settings, name)
        if source is not None and (found := file_hash(source.path)) != source.sha256:
            raise UserError(
                f"{shown_path(source.path)} has changed since the campaign began: its SHA-256 was "
                f"{source.sha256[:12]}… and is {found[:12]}…. Restore the file; what is trained "
                "so far is kept."
            )


def check_inputs(runs: Sequence[RunSettings]) -> None:
    """Raise UserError for input that one of the runs would refuse, before the first one starts.

    Files are read once, with all the labels that runs on the same files train on.
    """
    by_source: dict[str, list[RunSettings]] = {}
    for settings in runs:
        source = settings.model_dump_json(exclude={"name", "slug", "labels", "seed"})
        by_source.setdefault(source, []).append(settings)
    for group in by_source.values():
        hyperparameters = group[0].hyperparameters
        for settings in group:
            heads = build_model(hyperparameters, settings.experiment.resolved_labels).heads
            stopping_metric_name(hyperparameters, heads)
        labels = join_labels(*(settings.experiment.resolved_labels for settings in group))
        load_inputs(group[0], build_model(hyperparameters, labels), labels)


def _load_parts(settings: RunSettings, labels: Labels) -> Mapping[str, Structures]:
    """Train, valid and test structures of a run."""
    return load_splits(
        settings.data.path,
        labels,
        common_levels=settings.experiment.common_levels,
        rows=settings.rows,
        split_seed=settings.split_seed,
    )


def load_inputs(
    settings: RunSettings, model: Model, labels: Labels
) -> tuple[Mapping[str, Structures], TrainingDatabase]:
    """Structures of every split and their database; refuses all wrong data, COMP6 included."""
    parts = _load_parts(settings, labels)
    with errors_about(settings.data.shown):
        for part in parts.values():
            refuse_unknown_species(part.species, model.species_set)
        reference_labels(parts["test"])
        # Only the test structures are needed again, with their labels as references.
        consumed = [name for name in parts if name != "test"]
        database = build_database(parts, labels, seed=settings.seed, consume=consumed)
    if settings.comp6 is not None:
        load_comp6(settings.comp6, model)
    return parts, database


def evaluate_run(
    folder: RunFolder,
    *,
    data: DataPath | None = None,
    comp6: Path | None = None,
    device: str = "auto",
) -> None:
    """Evaluate the trained model of a run folder again; rewrite its metrics and predictions.

    `data` and `comp6` say where the run's files are now. Raises UserError if one has changed, or
    if the run is not finished: metrics of half a training would pass for its result.
    """
    settings = folder.read_settings()
    training = folder.read_metrics().get("training")
    target = choose_device(device)
    if comp6 is not None and settings.comp6 is None:
        raise UserError(
            f"{folder.path} was trained without COMP6 data, so there is nothing that {comp6} could "
            "replace. Leave --comp6 out, or train in another folder with it."
        )
    moved: dict[str, DataPath] = {"data": data or settings.data.path}
    if settings.comp6 is not None:
        moved["comp6"] = comp6 or settings.comp6.path
    for name, path in moved.items():
        source = getattr(settings, name)
        found = file_hash(path)
        if found != source.sha256:
            option = "train" if isinstance(source.path, dict) else name
            raise UserError(
                f"{shown_path(path)} is not the file of this run: its SHA-256 is {found[:12]}…, "
                f"the run's is {source.sha256[:12]}…. Name the right one with --{option}."
            )
        settings = settings.model_copy(
            update={name: source.model_copy(update={"path": absolute_paths(path)})}
        )
    labels = settings.experiment.resolved_labels
    parts = _load_parts(settings, labels)
    model = build_model(settings.hyperparameters, labels)
    load_best(model, folder)
    metrics, predictions = evaluate_model(model, settings, parts["test"], device=target)
    metrics["training"] = training
    write_results(folder, metrics, predictions)


def load_best(model: Model, folder: RunFolder) -> None:
    """Load the parameters of the best epoch from a run folder, without running code."""
    path = folder.file("model.pt")
    if not path.exists():
        raise UserError(f"No model in {folder.path}; the run was not trained.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        model.parameters.load_state_dict(state)
    except Exception as error:
        raise UserError(
            f"{path} is not a model of this run ({type(error).__name__}): it is damaged, or of "
            f"another network. Delete {folder.path} and train again."
        ) from None


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
        "levels": records_of(_levels_of_run(settings, parts["test"], labels)),
        "n_structures": {name: len(part) for name, part in parts.items()},
        "device_used": str(device),
        "versions": {name: version(name) for name in PACKAGES},
    }


def _levels_of_run(settings: RunSettings, test: Structures, labels: Labels) -> list[Level]:
    """All levels that whoever reads the run has to know: trained, common, and of references."""
    of_comp6 = {} if settings.comp6 is None else settings.comp6.keys
    names = [*settings.common_levels, *test.energies, *test.forces, *of_comp6]
    return sorted({*labels, *map(get_level, names)}, key=lambda level: level.rank)
