"""From finished runs to one model file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError

from hippynn_mf.data.self_energies import Origin, SelfEnergies
from hippynn_mf.errors import UserError
from hippynn_mf.evaluation.schema import HELDOUT
from hippynn_mf.files import read_json
from hippynn_mf.labels import Labels, without_stress
from hippynn_mf.level_records import LevelRecord
from hippynn_mf.levels import Level
from hippynn_mf.model.model import Model, build_model
from hippynn_mf.model.parameters import fold
from hippynn_mf.potentials.card import Card, Distances, LevelCard, MemberCard, Seen, TrainedOn
from hippynn_mf.potentials.potential import Potential, atomic_energies, split_constants
from hippynn_mf.potentials.seen import spread_quantiles
from hippynn_mf.runs.extended_card import (
    card_of_parent,
    joined_distances,
    self_energy_origins,
    trained_kinds,
)
from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.runs.models import load_best
from hippynn_mf.runs.settings import RunSettings
from hippynn_mf.schema import describe_errors

# What members may differ in; where the data lie is no difference (see `RunSettings.differences`).
OF_A_MEMBER = ("seed",)
SAME_SELF_ENERGY = 1e-7  # hartree; fitted ones are rounded to 1e-8


def export_runs(paths: Sequence[Path]) -> Potential:
    """One potential of the best parameters of finished runs: of one run, or an ensemble.

    Only `model.pt` (a state dict) and JSON are read, without running code. Raises UserError for a
    run that is not finished, and for runs that differ in more than their seeds or repeat one.
    """
    if not paths:
        raise UserError("Name at least one run folder, OUT/runs/NAME/seed-K.")
    folders = [RunFolder(path) for path in paths]
    settings = [folder.read_settings() for folder in folders]
    metrics = [folder.read_metrics() for folder in folders]  # refuses unfinished ones
    _refuse_mixture(folders, settings)
    self_energies = [folder.read_self_energies() or {} for folder in folders]
    _refuse_other_self_energies(folders, self_energies)
    first = settings[0].with_self_energies(self_energies[0])
    if first.experiment.strategy.has_second_network:
        raise UserError(
            f"{folders[0].path} has two networks ({first.experiment.strategy.title}), and a model "
            "file has one. Export another strategy, or predict with the run's model in Python "
            "(hippynn_mf.runs.models.model_of and load_best)."
        )
    facts = [_read_facts(folder) for folder in folders]
    labels = without_stress(first.model_labels)
    members = []
    for folder in folders:
        trained_model = build_model(first.hyperparameters, labels, bases=first.coupled)
        load_best(trained_model, folder)
        _refuse_infinite(trained_model, folder)
        members.append(_with_independent_heads(trained_model, first, labels))
    _, constants = split_constants(members[0].parameters.state_dict())
    before = card_of_parent(folders[0], first)
    trained = trained_kinds(first, before)
    origins = self_energy_origins(self_energies[0], before)
    card = Card(
        levels=tuple(
            level_card(
                members[0],
                level,
                trained.get(level.id, ()),
                elements=facts[0].elements.get(level.id),
                origin=origins.get(level.id, {}),
            )
            for level in members[0].heads.levels
        ),
        hyperparameters=first.hyperparameters,
        constants=constants,
        training=TrainedOn(
            experiment=first.name,
            preset=first.preset,
            rows=first.rows,
            split_seed=first.split_seed,
            common_levels=tuple(first.common_levels),
            data_sha256=first.data.sha256,
            n_structures=facts[0].n_structures,
        ),
        members=tuple(
            MemberCard(seed=run_settings.seed, metrics=content, versions=run_facts.versions)
            for run_settings, content, run_facts in zip(settings, metrics, facts, strict=True)
        ),
        seen=Seen(
            distances=joined_distances(facts[0].distances, before),
            spreads_ev_per_atom=_spreads(folders, [level.id for level in labels]),
        ),
    )
    return Potential(card, tuple(members))


class RunFacts(BaseModel):
    """What `experiment.json` says beside the settings, as far as a model file repeats it."""

    n_structures: dict[str, int]
    distances: Distances | None = None  # not in runs of before 0.2
    versions: dict[str, str]
    elements: dict[str, tuple[int, ...]] = {}  # none of a run of an older version


def _read_facts(folder: RunFolder) -> RunFacts:
    path = folder.file("experiment.json")
    try:
        return RunFacts.model_validate_json(json.dumps(read_json(path)))
    except ValidationError as error:
        raise UserError(f"{path} is damaged: {describe_errors(error)}.") from None


def _spreads(folders: Sequence[RunFolder], level_ids: Sequence[str]) -> dict[str, float]:
    """Quantiles of the members' spread on held-out structures; none where predictions are gone."""
    if len(folders) < 2 or not all(f.file("predictions.npz").exists() for f in folders):
        return {}
    predictions = [folder.read_predictions() for folder in folders]
    rows = [found[f"{HELDOUT}.rows"] for found in predictions]
    if any(not np.array_equal(rows[0], each) for each in rows):
        raise UserError(
            f"{folders[0].path} and the others were tested on different structures, though their "
            "settings are the same. Evaluate them again."
        )
    names = {level_id: f"{HELDOUT}.{level_id}.energy" for level_id in level_ids}
    energies = {
        k: [found[name] for found in predictions]
        for k, name in names.items()
        if name in predictions[0]
    }
    return spread_quantiles(energies, (predictions[0][f"{HELDOUT}.species"] > 0).sum(axis=1))


def _with_independent_heads(model: Model, settings: RunSettings, labels: Labels) -> Model:
    """The same energies without coupling, which matters in training only."""
    independent = settings.hyperparameters.model_copy(update={"coupling": "independent"})
    folded = build_model(independent, labels)
    folded.parameters.load_state_dict(fold(model.parameters.state_dict(), model.heads.bases))
    return folded


def _refuse_mixture(folders: Sequence[RunFolder], settings: Sequence[RunSettings]) -> None:
    first = settings[0]
    seen: dict[int, Path] = {}
    for folder, run_settings in zip(folders, settings, strict=True):
        same_seed = run_settings.model_copy(
            update={name: getattr(first, name) for name in OF_A_MEMBER}
        )
        differences = same_seed.differences(first)
        if differences:
            raise UserError(
                f"{folder.path} and {folders[0].path} are no members of one ensemble: "
                f"{'; '.join(differences)}. Members differ in their seeds only."
            )
        if (seed := run_settings.seed) in seen:
            raise UserError(f"{folder.path} and {seen[seed]} have the same seed {seed}.")
        seen[seed] = folder.path


def _refuse_other_self_energies(
    folders: Sequence[RunFolder], found: Sequence[Mapping[str, SelfEnergies]]
) -> None:
    """Raise UserError for members that were trained on energies beyond other self energies."""
    for folder, of_member in zip(folders, found, strict=True):
        for level_id, first in found[0].items():
            here = of_member[level_id].hartree if level_id in of_member else {}
            if here.keys() != first.hartree.keys() or any(
                abs(here[number] - value) > SAME_SELF_ENERGY
                for number, value in first.hartree.items()
            ):
                raise UserError(
                    f"{folder.path} and {folders[0].path} have other self energies of level "
                    f"{level_id}: {here} and {first.hartree} hartree. Train one of them again."
                )


def _refuse_infinite(model: Model, folder: RunFolder) -> None:
    for name, parameter in model.parameters.named_parameters():
        if not np.isfinite(parameter.detach().numpy()).all():
            raise UserError(f"{folder.path}: {name} is not finite; the training diverged.")


def level_card(
    model: Model,
    level: Level,
    trained: Any,
    *,
    elements: Sequence[int] | None = None,
    origin: Mapping[int, Origin] = MappingProxyType({}),
) -> LevelCard:
    """Card of a level of a model, the labels and elements that it was trained on.

    `origin` says where self energies are from, see `SelfEnergies`.
    """
    return LevelCard(
        **LevelRecord.of(level).model_dump(),
        atomic_energies_kcal_per_mol=atomic_energies(model, level),
        trained=tuple(trained),
        elements=None if elements is None else tuple(elements),
        self_energies_origin={z: o for z, o in origin.items() if o != "declared"},
    )
