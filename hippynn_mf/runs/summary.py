"""What a finished run has come to, for the end of `hippynn-mf train`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hippynn_mf.errors import UserError
from hippynn_mf.hyperparameters import Hyperparameters
from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.runs.kept import kept_number

Zeros = dict[tuple[str, str], float]

# Quantities of a test set: title, unit, and the fields of error and labels.
QUANTITIES = {
    "energy": ("kcal/mol", "energy_rmse_kcal_per_mol", ""),  # its labels: from the predictions
    "conformer energy": (
        "kcal/mol",
        "delta_e_rmse_kcal_per_mol",
        "delta_e_label_rms_kcal_per_mol",
    ),
    "force": (
        "kcal/mol/Å",
        "force_rmse_kcal_per_mol_per_angstrom",
        "force_label_rms_kcal_per_mol_per_angstrom",
    ),
}


def summarize(folder: RunFolder) -> str:
    """Errors of every level on every test set beside those of predicting zero, and the epoch kept.

    Raises UserError if the run is not finished.
    """
    settings = folder.read_settings()
    labels = {level.id: level.label for level in settings.known}
    trained = [level.id for level in settings.experiment.resolved_labels]
    lines = [kept_epoch(folder.read_epochs(), settings.hyperparameters)]
    metrics = folder.read_metrics()
    zeros = _energy_zeros(folder, metrics["sets"], labels)
    lines += format_errors(metrics, trained, labels, zeros)
    return "\n".join(f"  {line}" for line in lines)


def kept_epoch(epochs: Sequence[Mapping[str, Any]], hyperparameters: Hyperparameters) -> str:
    """Which epoch's parameters are in the model, of the last phase of a run, and by what rule."""
    rule, planned = hyperparameters.kept_epoch, hyperparameters.max_epochs
    number = kept_number(epochs, rule)
    if number is None:
        raise UserError("No epoch is marked as the best one; train the run again.")
    kept = f"Epoch {number} of {len(epochs)} was kept ({rule}"
    if hyperparameters.ema_decay:
        kept += f", weights averaged with decay {hyperparameters.ema_decay:g}"
    return kept + (")." if len(epochs) == planned else f"); at most {planned} were planned.")


def format_errors(
    metrics: Mapping[str, Any],
    trained: Sequence[str],
    labels: Mapping[str, str],
    zeros: Zeros | None = None,
) -> list[str]:
    """A table of errors from metrics in format 2, for levels by rank with their labels.

    `zeros` are RMS energies (kcal/mol, without self energies) by test set and level.
    """
    rows = [("test set", "level", "RMSE", "predicting zero", "")]
    for name, heads in metrics["sets"].items():
        rows += _rows_of_set(name, heads, trained, labels, zeros or {})
    if len(rows) == 1:
        return []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        f"{s:<{widths[0]}}  {level:<{widths[1]}}  {error:>{widths[2]}}  {zero:>{widths[3]}}  {unit}"
        for s, level, error, zero, unit in rows
    ]


def _energy_zeros(folder: RunFolder, sets: Mapping[str, Any], levels: Iterable[str]) -> Zeros:
    """RMS of the reference energies of a run's test sets, which metrics do not have."""
    zeros: Zeros = {}
    path = folder.file("predictions.npz")
    if not path.exists():
        return zeros
    stored = folder.read_predictions()
    for name in sets:
        for level in levels:
            if (key := f"{name}.reference.{level}.energy") in stored:
                energies = stored[key]
                energies = energies[np.isfinite(energies)]
                if energies.size:
                    zeros[name, level] = float(np.sqrt(np.mean(energies**2)))
    return zeros


def next_commands(folders: Sequence[RunFolder], out: Path) -> str:
    """What to do with finished runs."""
    if not folders:
        raise UserError("No run was asked for.")
    path = folders[-1].path
    return "\n".join(
        [
            "Next:",
            f"  hippynn-mf export {path} --out model.safetensors",
            f"  hippynn-mf evaluate {path} --test NAME=FILE",
            f"  hippynn-mf tables {out} --partial",
        ]
    )


def _rows_of_set(
    name: str,
    heads: Mapping[str, Any],
    trained: Sequence[str],
    labels: Mapping[str, str],
    zeros: Zeros,
) -> Iterator[tuple[str, str, str, str, str]]:
    """Every level against its own head; one without a head against the highest that predicts it."""
    references = dict.fromkeys(
        reference for by_reference in heads.values() for reference in by_reference
    )
    for level in labels:
        if level not in references:
            continue
        candidates = [level] if level in trained else list(reversed(trained))
        head = next((head for head in candidates if level in heads.get(head, {})), None)
        if head is None:
            continue
        entry = heads[head][level]
        by_other = "" if head == level else f", head {labels[head]}"
        for quantity, (unit, error, label_rms) in QUANTITIES.items():
            if entry.get(error) is not None:
                zero = zeros.get((name, level)) if quantity == "energy" else entry.get(label_rms)
                shown = "" if zero is None else f"{zero:.2f}"
                title = f"{labels[level]} {quantity}{by_other}"
                yield name, title, f"{entry[error]:.2f}", shown, unit
