"""One run: load, train with hippynn's own loop, evaluate, write the run folder."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from hippynn_mf.data.checks.report import CheckReport
from hippynn_mf.data.structures import Structures
from hippynn_mf.errors import UserError, describe_error
from hippynn_mf.evaluation.doubts import few_labels
from hippynn_mf.files import make_folder, write_npz
from hippynn_mf.model.parameters import State
from hippynn_mf.network.choice import InteractionUsed, choose_interaction
from hippynn_mf.network.device import choose_device
from hippynn_mf.potentials.seen import distances_of
from hippynn_mf.runs.changes import changes_since_parent
from hippynn_mf.runs.checkpoints import MODEL, remove_checkpoints, write_models
from hippynn_mf.runs.elements import elements_of_run
from hippynn_mf.runs.evaluate import errors_of_run, inference_costs, warn_of_doubts
from hippynn_mf.runs.folder import LOCK_WAIT_SECONDS, RunFolder
from hippynn_mf.runs.kept import kept_number
from hippynn_mf.runs.log import logged_to
from hippynn_mf.runs.models import models_of, read_state
from hippynn_mf.runs.parent_files import keep_parent
from hippynn_mf.runs.phases import train_phase
from hippynn_mf.runs.preflight import (
    load_inputs,
    read_tests,
    refuse_changed_files,
)
from hippynn_mf.runs.same_run import refuse_other_run
from hippynn_mf.runs.self_energies import plain, self_energies_of_run
from hippynn_mf.runs.settings import RunSettings

log = logging.getLogger(__name__)

PACKAGES = ("hippynn_mf", "hippynn", "torch", "numpy", "h5py", "numba")


def train_run(settings: RunSettings, out: Path, *, wait_s: float = LOCK_WAIT_SECONDS) -> RunFolder:
    """Train and evaluate one run, unless its folder holds it finished; returns the folder.

    Raises UserError for wrong input before anything is written.
    """
    folder = RunFolder.of(out, settings)
    refuse_other_run(folder, settings)
    if folder.is_finished:
        return folder
    device = choose_device(settings.device)
    refuse_changed_files(settings)
    settings.hyperparameters.stopping_key(settings.experiment.resolved_labels)
    interaction = choose_interaction(settings.hyperparameters.interaction, device)
    reports: list[CheckReport] = []
    parts = load_inputs([settings], reports=reports)

    with folder.locked(wait_s=wait_s):
        if folder.is_finished:  # by a process that this one has waited for
            return folder
        refuse_other_run(folder, settings)
        # What is trained so far goes on with what it began with.
        self_energies = folder.read_self_energies()
        if self_energies is None:
            self_energies = self_energies_of_run(settings, parts["train"])
        facts = _facts(settings, parts, device, interaction, reports)
        folder.prepare(settings, facts=facts | {"self_energies": plain(self_energies)})
        folder.remove_leftovers()
        keep_parent(folder, settings)
        write_npz(folder.file("split.npz"), {name: part.rows for name, part in parts.items()})
        with logged_to(folder.file("log.txt")), _failures_noted(folder):
            for report in reports:
                log.info("%s:\n%s", report.source, report.text())
            for level_id, found in self_energies.items():
                log.info("level %s: self energies %s", level_id, found.text())
            whole = settings.with_self_energies(self_energies)
            _train_in(folder, whole, parts, device, interaction)
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
    interaction: InteractionUsed,
) -> None:
    """Train, evaluate and write everything that a prepared run folder still lacks."""
    log.info(
        "%s, seed %d, on %s, interaction %s", settings.name, settings.seed, device, interaction
    )
    doubts = few_labels(parts["valid"], settings.experiment.resolved_labels)
    for doubt in doubts:
        log.warning("%s", doubt)
    *earlier, last = settings.experiment.phases
    rule = settings.hyperparameters.kept_epoch
    states: list[State] = []
    for phase in earlier:
        phase_folder = folder.phase(phase.name)
        make_folder(phase_folder.path)
        phase_folder.remove_leftovers()
        if not all(phase_folder.file(name).exists() for name in (MODEL, "epochs.jsonl")):
            log.info("phase %s", phase.name)
            checkpoints = train_phase(phase_folder, settings, phase, parts, states, device)
            write_models(phase_folder, checkpoints, rule)
        remove_checkpoints(phase_folder)
        states.append(read_state(phase_folder))
    log.info("phase %s", last.name)
    checkpoints = train_phase(folder, settings, last, parts, states, device, is_last=True)
    labels = settings.experiment.resolved_labels
    assemble = settings.experiment.strategy.assemble
    write_models(folder, checkpoints, rule, lambda state: assemble(labels, [*states, state]))
    model_for, heldout = models_of(settings, folder), parts["test"]
    tests = read_tests(settings)
    errors, predictions, of_heads = errors_of_run(model_for, settings, heldout, tests, device)
    warn_of_doubts(settings, of_heads)
    changes = changes_since_parent(folder, settings, heldout, read_tests(settings), device)
    cost = _cost(folder, settings, device)
    folder.write_results(
        errors,
        predictions,
        training=cost,
        inference=inference_costs(model_for(heldout), settings, heldout),
        warnings=[*doubts, *of_heads],
        changes=changes,
    )
    remove_checkpoints(folder)


def _cost(folder: RunFolder, settings: RunSettings, device: torch.device) -> dict[str, Any]:
    """How long the run trained, all phases together, and what it kept, as in `metrics.json`."""
    epochs = [epoch for phase in folder.phases(settings) for epoch in phase.read_epochs()]
    cpu_s = [epoch.get("cpu_s") for epoch in epochs]
    # Not of epochs from before it was measured, nor where another device does the work.
    is_known = None not in cpu_s and device.type == "cpu"
    return {
        "wall_s": sum(epoch["wall_s"] for epoch in epochs),
        "n_epochs": len(epochs),
        "cpu_s": sum(c for c in cpu_s if c is not None) if is_known else None,
        "kept_by": (rule := settings.hyperparameters.kept_epoch),
        "kept_epoch": kept_number(folder.read_epochs(), rule),
    }


def _facts(
    settings: RunSettings,
    parts: Mapping[str, Structures],
    device: torch.device,
    interaction: InteractionUsed,
    reports: Sequence[CheckReport],
) -> dict[str, Any]:
    """What `experiment.json` says beside the settings."""
    known = elements_of_run(settings, parts["train"])
    return {
        "elements": {level.id: sorted(elements) for level, elements in known.items()},
        "n_structures": {name: len(part) for name, part in parts.items()},
        "n_labels": {
            level.id: int(parts["train"].has_energy(level).sum())
            for level in settings.experiment.resolved_labels
        },
        "distances": distances_of(
            parts["train"].species, parts["train"].positions, parts["train"].cells
        ).model_dump(),
        "device_used": str(device),
        "interaction_used": interaction.name,
        "checks": [report.model_dump(mode="json") for report in reports],
        "versions": {name: version(name) for name in PACKAGES},
    }
