"""The input of runs: read, and everything wrong with it refused, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hippynn_mf.data.formats.ani1x import labels_in_file
from hippynn_mf.data.formats.sources import shown_path
from hippynn_mf.data.loading import file_hash, load_splits
from hippynn_mf.data.structures import Structures, atomic_energy_sum, refuse_unknown_species
from hippynn_mf.errors import UserError, errors_about
from hippynn_mf.evaluation.test_sets import (
    load_comp6,
    load_test_file,
    reference_labels,
    refuse_trained_on,
)
from hippynn_mf.labels import Labels, join_labels
from hippynn_mf.levels import Level, get_level
from hippynn_mf.runs.settings import SOURCES, RunSettings
from hippynn_mf.training.strategies import Phase


def refuse_changed_files(settings: RunSettings) -> None:
    """Raise UserError if a file is not any more what it was when the settings were made."""
    for name in SOURCES:
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
            hyperparameters.stopping_key(settings.experiment.resolved_labels)
            settings.experiment.phases  # noqa: B018 - refuses labels that the strategy cannot use
        labels = join_labels(*(settings.experiment.resolved_labels for settings in group))
        load_inputs(group[0], labels)


def load_parts(settings: RunSettings, labels: Labels) -> Mapping[str, Structures]:
    """Train, valid and test structures of a run."""
    return load_splits(
        settings.data.path,
        labels,
        common_levels=settings.experiment.common_levels,
        rows=settings.rows,
        split_seed=settings.split_seed,
        label_fractions={get_level(k): v for k, v in settings.label_fractions.items()},
    )


def load_inputs(settings: RunSettings, labels: Labels) -> Mapping[str, Structures]:
    """Structures of every split; refuses all wrong data, COMP6 and the test file included."""
    parts = load_parts(settings, labels)
    known = settings.hyperparameters.species
    if settings.test_file is not None:
        refuse_trained_on(load_test_file(settings.test_file, known), parts, settings)
    with errors_about(settings.data.shown):
        for part in parts.values():
            refuse_unknown_species(part.species, known)
            for level in labels:
                atomic_energy_sum(part.species, level)
        reference_labels(parts["test"])
        for phase in settings.experiment.phases:
            _refuse_without_pairs(phase, parts)
    if settings.comp6 is not None:
        load_comp6(settings.comp6, known)
    return parts


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


def levels_of_run(settings: RunSettings, test: Structures, labels: Labels) -> list[Level]:
    """All levels that whoever reads the run has to know: trained, common, and of references."""
    of_comp6 = {} if settings.comp6 is None else settings.comp6.keys
    names = [*settings.common_levels, *test.energies, *test.forces, *of_comp6]
    if settings.test_file is not None:
        names += [level.id for level in labels_in_file(settings.test_file.path)]
    return sorted({*labels, *map(get_level, names)}, key=lambda level: level.rank)
