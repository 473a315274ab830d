"""The input of runs: read, and everything wrong with it refused, before anything is trained."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hippynn_mf.data.boxes import without_lonely_cells
from hippynn_mf.data.checks.report import CheckReport
from hippynn_mf.data.loading import file_hash, load_splits, refuse_missing_level
from hippynn_mf.data.structures import Structures, refuse_unknown_species
from hippynn_mf.errors import UserError, errors_about
from hippynn_mf.evaluation.doubts import few_labels
from hippynn_mf.evaluation.test_sets import (
    TestSet,
    heldout_set,
    read_test_set,
    refuse_trained_on,
)
from hippynn_mf.labels import Labels, join_labels
from hippynn_mf.runs.elements import check_elements, refuse_other_elements
from hippynn_mf.runs.kept_inputs import Kept, stamps
from hippynn_mf.runs.parent_data import (
    labels_of_new_data,
    needs_parent_data,
    with_parent_data,
)
from hippynn_mf.runs.self_energies import say_self_energies, self_energies_of_run
from hippynn_mf.runs.settings import RunSettings
from hippynn_mf.runs.sources import TestSource
from hippynn_mf.training.strategies import Phase

log = logging.getLogger(__name__)

_kept = Kept()

# What runs have in common that are checked together, on files that are read once.
SHARED = (
    *("data", "valid", "tests", "levels", "common_levels", "rows", "split", "split_seed"),
    *("label_fractions", "parent"),
    *("accept_outliers", "accept_charged", "ignore_cell"),
)


def refuse_changed_files(settings: RunSettings) -> None:
    """Raise UserError if a file is not any more what it was when the settings were made."""
    for source in settings.sources.values():
        if (found := file_hash(source.path, levels=settings.known)) != source.sha256:
            raise UserError(
                f"{source.shown} has changed since the campaign began: its SHA-256 was "
                f"{source.sha256[:12]}… and is {found[:12]}…. Restore the file; what is trained "
                "so far is kept."
            )


def check_inputs(runs: Sequence[RunSettings]) -> None:
    """Raise UserError for input that one of the runs would refuse, before the first one starts.

    Files are read once, with all the labels that runs on the same files train on. No network is
    built.
    """
    by_input: dict[str, list[RunSettings]] = {}
    for settings in runs:
        settings.hyperparameters.stopping_key(settings.experiment.resolved_labels)
        settings.experiment.phases  # noqa: B018 - refuses labels that the strategy cannot use
        species = sorted(settings.hyperparameters.species)
        shared = f"{species} {settings.model_dump_json(include=set(SHARED))}"
        by_input.setdefault(shared, []).append(settings)
    for group in by_input.values():
        parts = load_inputs(group)
        for settings in group:
            say_self_energies(settings, self_energies_of_run(settings, parts["train"]))
            for doubt in few_labels(parts["valid"], settings.experiment.resolved_labels):
                log.warning("%s", doubt)


def load_parts(
    settings: RunSettings, labels: Labels, *, reports: list[CheckReport] | None = None
) -> Mapping[str, Structures]:
    """Train, valid and test structures of a run, with these labels; outcomes go to `reports`."""
    known = settings.known
    parts = load_splits(
        settings.data.data,
        labels_of_new_data(settings, labels),
        common_levels=settings.experiment.common_levels,
        rows=settings.rows,
        split_seed=settings.split_seed,
        split_by=settings.split,
        valid_source=None if settings.valid is None else settings.valid.data,
        label_fractions={known.get(k): v for k, v in settings.label_fractions.items()},
        levels=known,
        accepted=settings.accepted,
        reports=reports,
    )
    if needs_parent_data(settings, labels):
        parts = with_parent_data(
            parts, settings, labels, lambda run: load_parts(run, run.experiment.resolved_labels)
        )
    found = without_lonely_cells(parts, settings.hyperparameters.dist_hard_max, settings.data.shown)
    for split in ("train", "valid"):
        refuse_missing_level(found[split], labels, split, settings.data.shown)
    unused = [
        level
        for level, wanted in labels.items()
        if not wanted.stress
        and level.id in found["test"].stress
        and found["test"].has_stress(level).any()
    ]
    if unused:
        log.warning(
            "%s: the stress of %s is not trained on; ask for it as %s/EFS.",
            settings.data.shown,
            ", ".join(level.label for level in unused),
            unused[0].label,
        )
    return found


def read_tests(
    settings: RunSettings, *, reports: list[CheckReport] | None = None
) -> Iterator[TestSet]:
    """The test sets of a run, one after another; UserError as `read_test_set`."""
    about = settings.model_dump_json(
        include={"levels", "accept_outliers", "accept_charged", "ignore_cell"}
    )
    cutoff = settings.hyperparameters.dist_hard_max
    for source in settings.tests:
        key = "test", source.model_dump_json(), about, settings.hyperparameters.species, cutoff
        test, of_source = _kept.get(
            (*key, stamps([source.path])), functools.partial(_read_test, settings, source)
        )
        if reports is not None:
            reports += of_source
        yield test


def _read_test(settings: RunSettings, source: TestSource) -> tuple[TestSet, list[CheckReport]]:
    reports: list[CheckReport] = []
    test = read_test_set(
        source.name,
        source.data,
        species=settings.hyperparameters.species,
        keys=source.keys if source.layout is not None else None,
        energy_cut_kcal_per_mol=source.energy_cut_kcal_per_mol,
        levels=settings.known,
        accepted=settings.accepted,
        reports=reports,
        cutoff=settings.hyperparameters.dist_hard_max,
    )
    return test, reports


def load_inputs(
    runs: Sequence[RunSettings], *, reports: list[CheckReport] | None = None
) -> Mapping[str, Structures]:
    """Structures of every split, with the labels of all the runs, which share their input.

    The outcomes of the checks of every file are appended to `reports`. Raises UserError for
    whatever is wrong with it for one of the runs: data and test sets. What was read for the same
    runs, or for others that differ in their seeds, and is small, is not read again.
    """
    sources = [source.path for run in runs for source in run.sources.values()]
    of_runs = tuple(run.model_dump_json(exclude={"seed", "preset", "device"}) for run in runs)
    parts, found = _kept.get(
        ("data", of_runs, stamps(sources)), functools.partial(_load_inputs, runs)
    )
    if reports is not None:
        reports += found
    return parts


def _load_inputs(
    runs: Sequence[RunSettings],
) -> tuple[Mapping[str, Structures], list[CheckReport]]:
    reports: list[CheckReport] = []
    first, labels_of_runs = runs[0], [run.experiment.resolved_labels for run in runs]
    labels = join_labels(*labels_of_runs)
    parts = load_parts(first, labels, reports=reports)
    with errors_about(first.data.shown):
        for part in parts.values():
            refuse_unknown_species(part.species, first.hyperparameters.species)
    for run, labels_of_run in zip(runs, labels_of_runs, strict=True):
        _refuse_empty_split(parts, labels_of_run, run.data.shown)
        with errors_about(run.data.shown):
            for phase in run.experiment.phases:
                _refuse_without_pairs(phase, parts)
    known = [check_elements(run, parts, run.data.shown) for run in runs]
    self_energies = self_energies_of_run(first, parts["train"], labels)
    first = first.with_self_energies(self_energies)
    heldout_set(parts["test"], first.data.shown, levels=first.known)
    for test in read_tests(first, reports=reports):
        refuse_trained_on(test, parts, first.data.shown)
        for run, elements in zip(runs, known, strict=True):
            refuse_other_elements(run, elements, test)
    return parts, reports


def _refuse_empty_split(parts: Mapping[str, Structures], labels: Labels, path: Path) -> None:
    """Raise UserError if a split has structures for other runs only."""
    for name, part in parts.items():
        has_any = any(
            part.has_energy(level).any()
            or (value.forces and part.has_forces(level).any())
            or (value.stress and part.has_stress(level).any())
            for level, value in labels.items()
        )
        if not has_any:
            names = ", ".join(f"{level.label}/{value}" for level, value in labels.items())
            raise UserError(
                f"{path}: the {name} split has no structure with any of the labels {names}. See "
                f"'hippynn-mf data info {path}'; leave the experiment out, or choose another "
                "split seed."
            )


def _refuse_without_pairs(phase: Phase, parts: Mapping[str, Structures]) -> None:
    """Raise UserError if a phase of differences has nothing to train or to validate on."""
    if phase.difference is None:
        return
    level, lower = phase.difference.higher, phase.difference.lower
    for split in ("train", "valid"):
        both = parts[split].has_energy(level) & parts[split].has_energy(lower)
        if not both.any():
            raise UserError(
                f"Δ-learning needs structures with energies of both {level.label} and "
                f"{lower.label}; the {split} split has none. Choose another strategy, as MF."
            )
