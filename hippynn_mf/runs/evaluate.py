"""A trained run on its held-out structures and test sets."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch

from hippynn_mf.data.checks.report import CheckReport
from hippynn_mf.data.formats.sources import DataPath
from hippynn_mf.data.loading import file_hash
from hippynn_mf.data.structures import Structures
from hippynn_mf.errors import UserError
from hippynn_mf.evaluation.doubts import few_labels
from hippynn_mf.evaluation.scoring import ErrorsOfSet
from hippynn_mf.evaluation.test_sets import (
    TestSet,
    evaluate_model,
    heldout_set,
    measure_inference,
    refuse_trained_on,
)
from hippynn_mf.model.model import Model
from hippynn_mf.network.device import choose_device
from hippynn_mf.runs.changes import changes_since_parent
from hippynn_mf.runs.elements import elements_of_run, refuse_other_elements
from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.runs.models import models_of
from hippynn_mf.runs.preflight import (
    load_parts,
    read_tests,
)
from hippynn_mf.runs.settings import RunSettings
from hippynn_mf.runs.sources import DATA, VALID, TestSource

log = logging.getLogger(__name__)


def errors_of_run(
    model_for: Callable[[Structures], Model],
    settings: RunSettings,
    heldout: Structures,
    tests: Iterable[TestSet],
    device: torch.device,
) -> tuple[dict[str, ErrorsOfSet], dict[str, np.ndarray], list[str]]:
    """Errors, predictions and doubts of a run's model on its held-out structures and test sets.

    `model_for` is of `models_of`.
    """
    first = heldout_set(heldout, settings.data.shown, levels=settings.known)
    batch_size = settings.hyperparameters.eval_batch_size
    sets, doubts = chain([first], tests), list[str]()
    found = evaluate_model(model_for, sets, batch_size=batch_size, device=device, doubts=doubts)
    return *found, doubts


def warn_of_doubts(settings: RunSettings, doubts: Sequence[str]) -> None:
    """Every doubt in the log, and one line for all of them on the terminal."""
    for doubt in doubts:
        log.info("%s", doubt)
    if doubts:
        more = f" And {len(doubts) - 1} more in metrics.json." if len(doubts) > 1 else ""
        log.warning("%s, seed %d: %s%s", settings.name, settings.seed, doubts[0], more)


def inference_costs(model: Model, settings: RunSettings, heldout: Structures) -> dict[str, Any]:
    """What predicting the held-out structures takes, as in `metrics.json`."""
    return measure_inference(model, heldout, batch_size=settings.hyperparameters.eval_batch_size)


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
    settings = whole.with_sources(paths).with_self_energies(folder.read_self_energies() or {})
    for source in tests:
        _refuse_other_use(source, settings)
    for name, now in settings.sources.items():
        if (sha256 := file_hash(now.path, levels=settings.known)) != now.sha256:
            raise UserError(
                f"{now.shown} is not the file of this run: its SHA-256 is "
                f"{sha256[:12]}…, the run's is {now.sha256[:12]}…. Name the right one with "
                f"{_option(name, settings)}."
            )
    reports: list[CheckReport] = []
    parts = load_parts(settings, settings.experiment.resolved_labels, reports=reports)
    model_for = models_of(settings, folder)
    tests_of_run = _not_trained_on(settings, parts, reports)
    doubts = few_labels(parts["valid"], settings.experiment.resolved_labels)
    errors, predictions, of_heads = errors_of_run(
        model_for, settings, parts["test"], tests_of_run, target
    )
    warn_of_doubts(settings, of_heads)
    heldout = parts["test"]
    changes = changes_since_parent(folder, settings, heldout, read_tests(settings), target)
    inference = costs["inference"] or inference_costs(model_for(heldout), settings, heldout)
    with folder.locked():
        if folder.read_settings() != stored:
            raise UserError(f"{folder.path} has changed while it was evaluated. Evaluate it again.")
        folder.remove_leftovers()
        folder.write_results(
            errors,
            predictions,
            training=costs["training"],
            inference=inference,
            warnings=[*doubts, *of_heads],
            changes=changes,
            settings=whole if added else None,
            checks=reports,
        )


def _not_trained_on(
    settings: RunSettings, parts: Mapping[str, Structures], reports: list[CheckReport]
) -> Iterator[TestSet]:
    """The test sets of a run, of which none may share conformers with its data.

    The outcomes of the checks of every set are appended to `reports`.
    """
    for test in read_tests(settings, reports=reports):
        refuse_trained_on(test, parts, settings.data.shown)
        refuse_other_elements(settings, elements_of_run(settings, parts["train"]), test)
        yield test


def _refuse_other_use(source: TestSource, settings: RunSettings) -> None:
    """Raise UserError for a test set that the run has under this name in another way."""
    known = settings.test(source.name)
    if known is None:
        return
    for field in ("keys", "units", "energy_cut_kcal_per_mol"):
        before, now = getattr(known, field), getattr(source, field)
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
