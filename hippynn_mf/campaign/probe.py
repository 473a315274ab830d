"""A few training steps of a run, to know what it costs on this device."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import torch
from hippynn.experiment.step_functions import get_step_function
from torch import Tensor
from tqdm import tqdm

from hippynn_mf.campaign.plan import N_STEPS, Probe
from hippynn_mf.data.structures import is_periodic
from hippynn_mf.model.model import build_model
from hippynn_mf.network.device import choose_device
from hippynn_mf.runs.log import logged_to
from hippynn_mf.runs.phases import phase_database
from hippynn_mf.runs.preflight import load_inputs
from hippynn_mf.runs.self_energies import self_energies_of_run
from hippynn_mf.runs.settings import RunSettings
from hippynn_mf.runs.teaching import as_if_taught
from hippynn_mf.training.loop import Training, prepare_training

N_WARM_UP = 3  # steps that are not counted: kernels are compiled, memory is claimed


def probe(settings: RunSettings, *, n_threads: int | None = None) -> Probe:
    """Time `N_STEPS` training steps and one validation of a run, with all its data loaded."""
    if n_threads is not None:
        torch.set_num_threads(n_threads)
    hyperparameters = settings.hyperparameters
    device = choose_device(settings.device)
    parts = load_inputs([settings])
    settings = settings.with_self_energies(self_energies_of_run(settings, parts["train"]))
    phases = settings.experiment.phases
    costliest = max(phases, key=lambda phase: sum(p.forces for p in phase.labels.values()))
    phase = replace(costliest, starts_from=None)
    if phase.taught is not None:
        parts = as_if_taught(parts, phase.taught)
    periodic = is_periodic(parts.values())
    model = build_model(hyperparameters, phase.labels, periodic=periodic)
    database = phase_database(phase, parts, settings)
    with logged_to(Path(os.devnull)):
        training = prepare_training(model, database, hyperparameters, device=device, phase=phase)
        structures_per_s = _time_steps(training, device)
        training.modules.model.eval()
        valid = database.make_generator("valid", "eval", hyperparameters.eval_batch_size)
        start = time.perf_counter()
        training.modules.evaluator.evaluate(valid, "valid")
        seconds = time.perf_counter() - start
    n_train, n_valid = len(parts["train"]), len(parts["valid"])
    # A part of the training set is evaluated with the validation set after every epoch.
    evaluation = seconds * (1 + hyperparameters.fraction_train_eval * n_train / n_valid)
    n_trained = n_train * (len(phase.labels) if phase.as_tasks else 1)  # every task sees its own
    seconds_per_epoch = n_trained / structures_per_s + evaluation
    return Probe(
        settings,
        str(device),
        structures_per_s,
        seconds_per_epoch * settings.n_epochs_planned,
        _peak_bytes(device) / 2**30,
    )


def _time_steps(training: Training, device: torch.device) -> float:
    """Structures per second of training steps."""
    database, optimizer = training.database, training.controller.optimizer
    network, loss, _ = training.modules
    step = get_step_function(optimizer)
    n_inputs, n_targets = len(database.inputs), len(database.targets)
    network.train()
    batches = itertools.islice(_batches(training), N_WARM_UP + N_STEPS)
    n_structures, start = 0, time.perf_counter()
    for n, batch in enumerate(
        tqdm(
            batches, desc="probe", total=N_WARM_UP + N_STEPS, unit="step", leave=False, disable=None
        )
    ):
        if n == N_WARM_UP:
            _synchronize(device)
            n_structures, start = 0, time.perf_counter()
        tensors = [item.to(device) for item in batch]
        step(optimizer, network, loss, tensors[:n_inputs], tensors[-n_targets:])
        n_structures += len(tensors[-1])
    _synchronize(device)
    return n_structures / (time.perf_counter() - start)


def _batches(training: Training) -> Iterator[list[Tensor]]:
    while True:
        yield from training.database.make_generator(
            "train", "train", training.controller.batch_size
        )


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):  # Windows
        return int(memory.peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
