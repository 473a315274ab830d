"""The graph of an experiment's model, by its name, or of that of a run, as an image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hippynn_mf.errors import UserError
from hippynn_mf.files import make_folder
from hippynn_mf.hyperparameters import get_hyperparameters
from hippynn_mf.levels import KNOWN_LEVELS, Levels
from hippynn_mf.model.model import build_model
from hippynn_mf.paper.table1 import get_experiment
from hippynn_mf.report.model_graph import draw_model_graph
from hippynn_mf.report.saving import save_figure
from hippynn_mf.runs.build import strategy_hyperparameters
from hippynn_mf.runs.folder import RunFolder


def write_model_graph(
    name: str,
    path: Path,
    *,
    preset: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    levels: Levels = KNOWN_LEVELS,
) -> Path:
    """Write the graph of an experiment's model, or of that of a run folder, as PNG.

    An experiment has the hyperparameters of a preset (by default `quick`) with overridden values, a
    run its own; levels in an experiment's name are among `levels`. Raises UserError for an unknown
    experiment or hyperparameter, for hyperparameters together with a run folder, for Δ-learning,
    and for a path that does not end in `.png`.
    """
    if path.suffix != ".png":
        raise UserError(f"The graph is written as PNG, so name a file *.png, not {path}.")
    folder = RunFolder(Path(name))
    if folder.file("experiment.json").exists():
        if preset is not None or overrides:
            raise UserError(f"{name} has hyperparameters of its own; leave --preset and --set out.")
        settings = folder.read_settings()
        experiment, hyperparameters = settings.experiment, settings.hyperparameters
    else:
        experiment = get_experiment(name, levels=levels)
        hyperparameters = get_hyperparameters(preset or "quick", overrides)
        hyperparameters = strategy_hyperparameters(experiment, hyperparameters, overrides or {})
    if experiment.strategy.has_second_network:
        raise UserError(f"{experiment.name} has two networks; the picture shows one.")
    labels = experiment.resolved_labels
    figure = draw_model_graph(
        build_model(hyperparameters, labels).heads, labels, name=experiment.name
    )
    make_folder(path.parent)
    return save_figure(figure, path)
