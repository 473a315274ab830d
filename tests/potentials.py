"""Potentials of random parameters, and run folders that hold them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from made_runs import make_settings, run_metrics, write_metrics
from tiny import tiny_model

from hippynn_mf.hyperparameters import Hyperparameters
from hippynn_mf.labels import parse_labels, plain_labels
from hippynn_mf.model.model import build_model
from hippynn_mf.paper.table1 import get_experiment
from hippynn_mf.potentials.card import Card, MemberCard, TrainedOn
from hippynn_mf.potentials.potential import Potential, split_constants
from hippynn_mf.runs.exporting import level_card
from hippynn_mf.runs.folder import RunFolder

SMALL = {"n_features": 6, "n_sensitivities": 5, "n_atom_layers": 1}


def random_potential(labels: Mapping[str, str], n_members: int = 1, **changes: Any) -> Potential:
    """Members of one architecture with random parameters, in float32."""
    members = [tiny_model(labels, seed=seed, **(SMALL | changes)) for seed in range(n_members)]
    for member in members:
        stir(member.parameters)
    _, constants = split_constants(members[0].parameters.state_dict())
    card = Card(
        levels=tuple(
            level_card(members[0], level, ["energy"]) for level in members[0].heads.levels
        ),
        hyperparameters=Hyperparameters(**(SMALL | changes)),
        constants=constants,
        training=TrainedOn(
            experiment="made",
            preset="quick",
            rows="common",
            split_seed=0,
            common_levels=(),
            data_sha256="0" * 64,
            n_structures={},
        ),
        members=tuple(MemberCard(seed=seed, metrics={}, versions={}) for seed in range(n_members)),
    )
    return Potential(card, tuple(members))


def stir(parameters: torch.nn.Module) -> None:
    """Enlarge the heads' weights, so that forces are not tiny."""
    with torch.no_grad():
        for name, parameter in parameters.named_parameters():
            if name.startswith("heads") and name.endswith("weight"):
                parameter.mul_(30.0)


def trained_run(
    out: Path,
    name: str = "MF-DZ/EF-CC/E",
    seed: int = 0,
    coupling: Literal["independent", "delta"] = "independent",
    **changes: Any,
) -> RunFolder:
    """A finished run folder with random parameters."""
    hyperparameters = Hyperparameters(coupling=coupling, **SMALL)
    settings = make_settings(name, seed, hyperparameters=hyperparameters, **changes)
    folder = RunFolder.of(out, settings)
    labels = parse_labels(get_experiment(name).labels)
    facts = {
        "trained_labels": plain_labels(labels),
        "n_structures": {"train": 5},
        "versions": {"torch": "2"},
    }
    folder.prepare(settings, facts=facts)
    torch.manual_seed(seed)
    model = build_model(settings.hyperparameters, labels)
    stir(model.parameters)
    torch.save(model.parameters.state_dict(), folder.file("model.pt"))
    write_metrics(folder, run_metrics())
    return folder
