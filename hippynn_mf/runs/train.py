"""One run: load, train with hippynn's own loop, evaluate, write the run folder."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hippynn_mf.data.formats.sources import DataPath, data_notes
from hippynn_mf.data.loading import file_hash
from hippynn_mf.data.structures import Structures
from hippynn_mf.errors import UserError, describe_error
from hippynn_mf.evaluation.scoring import ErrorsOfSet
from hippynn_mf.evaluation.test_sets import (
    TestSet,
    evaluate_model,
    heldout_set,
    measure_inference,
    refuse_trained_on,
)
from hippynn_mf.files import write_npz
from hippynn_mf.model.model import Model
from hippynn_mf.model.parameters import State
from hippynn_mf.network.device import choose_device
from hippynn_mf.runs.checkpoints import remove_checkpoints, write_model
from hippynn_mf.runs.elements import elements_of_run, refuse_other_elements
from hippynn_mf.runs.folder import LOCK_WAIT_SECONDS, RunFolder
from hippynn_mf.runs.log import logged_to
from hippynn_mf.runs.models import read_state, trained_model
from hippynn_mf.runs.phases import train_phase
from hippynn_mf.runs.preflight import (
    load_inputs,
    load_parts,
    read_tests,
    refuse_changed_files,
)
from hippynn_mf.runs.settings import DATA, VALID, RunSettings, TestSource

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
    refuse_changed_files(settings)
    settings.hyperparameters.stopping_key(settings.experiment.resolved_labels)
    parts = load_inputs([settings])

    with folder.locked(wait_s=wait_s):
        if folder.is_finished:  # by a process that this one has waited for
            return folder
        folder.prepare(settings, facts=_facts(settings, parts, device))
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
    for note in data_notes(settings.data.path, levels=settings.known):
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
    model = trained_model(settings, folder)
    tests = read_tests(settings)
    errors, predictions = _evaluate(model, settings, parts["test"], tests, device)
    cost = _cost(folder, settings, device)
    folder.write_results(
        errors, predictions, training=cost, inference=_inference(model, settings, parts["test"])
    )
    remove_checkpoints(folder)


def _evaluate(
    model: Model,
    settings: RunSettings,
    heldout: Structures,
    tests: Iterable[TestSet],
    device: torch.device,
) -> tuple[dict[str, ErrorsOfSet], dict[str, np.ndarray]]:
    """Errors and predictions of a run's model on its held-out structures and test sets."""
    first = heldout_set(heldout, settings.data.shown, levels=settings.known)
    batch_size = settings.hyperparameters.eval_batch_size
    return evaluate_model(model, chain([first], tests), batch_size=batch_size, device=device)


def _inference(model: Model, settings: RunSettings, heldout: Structures) -> dict[str, Any]:
    return measure_inference(model, heldout, batch_size=settings.hyperparameters.eval_batch_size)


def _cost(folder: RunFolder, settings: RunSettings, device: torch.device) -> dict[str, Any]:
    """How long the run trained, all phases together, as in `metrics.json`."""
    epochs = [epoch for phase in folder.phases(settings) for epoch in phase.read_epochs()]
    cpu_s = [epoch.get("cpu_s") for epoch in epochs]
    # Not of epochs from before it was measured, nor where another device does the work.
    is_known = None not in cpu_s and device.type == "cpu"
    return {
        "wall_s": sum(epoch["wall_s"] for epoch in epochs),
        "n_epochs": len(epochs),
        "cpu_s": sum(c for c in cpu_s if c is not None) if is_known else None,
    }


def evaluate_run(
    folder: RunFolder,
    *,
    tests: Sequence[TestSource] = (),
    moved: Mapping[str, DataPath] | None = None,
    device: str = "auto",
) -> None:
    """Evaluate the trained model of a run folder again; rewrite its metrics and predictions.

    Args:
        folder: of a finished run.
        tests: sets to test on from now on, which `experiment.json` then names. One whose name the
            run has already says where its file is now, as in `moved`.
        moved: where files of the run are now: the training data as `data`, or a test set by name.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        UserError: if a file is not the run's, if conformers of a test set are in the training data,
            or if the run is not finished: metrics of half a training would pass for its result.
            Nothing is written then.
    """
    stored = folder.read_settings()
    costs = folder.read_costs()
    target = choose_device(device)
    added = [source for source in tests if stored.test(source.name) is None]
    whole = stored.with_tests(added)
    paths = {s.name: s.path for s in tests if stored.test(s.name) is not None} | dict(moved or {})
    settings = whole.with_sources(paths)
    for source in tests:
        _refuse_other_use(source, settings)
    for name, now in settings.sources.items():
        if (found := file_hash(now.path, levels=settings.known)) != now.sha256:
            raise UserError(
                f"{now.shown} is not the file of this run: its SHA-256 is "
                f"{found[:12]}…, the run's is {now.sha256[:12]}…. Name the right one with "
                f"{_option(name, settings)}."
            )
    parts = load_parts(settings, settings.experiment.resolved_labels)
    model = trained_model(settings, folder)
    tests_of_run = _not_trained_on(settings, parts)
    errors, predictions = _evaluate(model, settings, parts["test"], tests_of_run, target)
    inference = costs["inference"] or _inference(model, settings, parts["test"])
    with folder.locked():
        if folder.read_settings() != stored:
            raise UserError(f"{folder.path} has changed while it was evaluated. Evaluate it again.")
        folder.remove_leftovers()
        folder.write_results(
            errors,
            predictions,
            training=costs["training"],
            inference=inference,
            settings=whole if added else None,
        )


def _not_trained_on(settings: RunSettings, parts: Mapping[str, Structures]) -> Iterator[TestSet]:
    """The test sets of a run, of which none may share conformers with its data."""
    for test in read_tests(settings):
        refuse_trained_on(test, parts, settings.data.shown)
        refuse_other_elements(settings, elements_of_run(settings, parts["train"]), test)
        yield test


def _refuse_other_use(source: TestSource, settings: RunSettings) -> None:
    """Raise UserError for a test set that the run has under this name in another way."""
    own = settings.test(source.name)
    if own is None:
        return
    for field in ("keys", "energy_cut_kcal_per_mol"):
        before, now = getattr(own, field), getattr(source, field)
        if before != now:
            raise UserError(
                f"Test set {source.name} of this run has {field} {before!r}, not {now!r}. Choose "
                "another name for another set."
            )


def _option(name: str, settings: RunSettings) -> str:
    """The option that says where a file of a run is."""
    if name == DATA:
        return "--train" if isinstance(settings.data.path, dict) else "--data"
    if name == VALID:
        return "--valid-file"
    source = settings.test(name)
    is_comp6 = source is not None and source.option.startswith("--comp6")
    return "--comp6" if is_comp6 else f"--test {name}=FILE"


def _facts(
    settings: RunSettings, parts: Mapping[str, Structures], device: torch.device
) -> dict[str, Any]:
    """What `experiment.json` says beside the settings."""
    known = elements_of_run(settings, parts["train"])
    return {
        "elements": {level.id: sorted(elements) for level, elements in known.items()},
        "n_structures": {name: len(part) for name, part in parts.items()},
        "device_used": str(device),
        "versions": {name: version(name) for name in PACKAGES},
    }
