"""What a run was trained with, in a few words."""

from __future__ import annotations

from hippynn_mf.runs.settings import RunSettings
from hippynn_mf.runs.weights import weights_text


def recipe_text(settings: RunSettings, *, stress: bool = False) -> str:
    """The preset of a run, followed by what the paper has otherwise: weights 1, its kept epoch.

    With `stress`, its weight is among them.
    """
    hyperparameters = settings.hyperparameters
    parts = [settings.preset]
    if weights := weights_text(hyperparameters, settings.weights, settings.known, stress=stress):
        parts.append(f"weights {weights}")
    if hyperparameters.kept_epoch != "best_energy":
        parts.append(f"kept epoch {hyperparameters.kept_epoch}")
    if hyperparameters.ema_decay:
        parts.append(f"average of weights {hyperparameters.ema_decay:g}")
    return ", ".join(parts)
