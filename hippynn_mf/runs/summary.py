"""What a finished run has come to, for the end of `hippynn-mf train`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hippynn_mf.errors import UserError
from hippynn_mf.evaluation.errors import rmse
from hippynn_mf.evaluation.scoring import NO_ENERGIES, NO_FORCES
from hippynn_mf.hyperparameters import Hyperparameters
from hippynn_mf.labels import Labels
from hippynn_mf.runs.checkpoints import MODEL
from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.runs.kept import kept_number
from hippynn_mf.runs.models import trained_model
from hippynn_mf.runs.settings import RunSettings
from hippynn_mf.training.initial_heads import atomic_energies

# Head id → atomic number → energy.
AtomicEnergies = Mapping[str, Mapping[int, float]]
# Test set, head, reference → RMSE of the head's atomic energies, kcal/mol.
Compositions = dict[tuple[str, str, str], float]

BASELINE = "composition alone"
MEANING = (
    f"{BASELINE}: atomic energies fitted on the training data, without the network, which",
    "know no geometry: of forces and of differences of conformers they predict zero.",
)
# Quantities of a test set: title, unit, and the fields of error and labels.
QUANTITIES = {
    "energy": ("kcal/mol", "energy_rmse_kcal_per_mol", ""),  # its baseline: from predictions
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
    "stress": ("GPa", "stress_rmse_gpa", "stress_label_rms_gpa"),
}


def summarize(folder: RunFolder) -> str:
    """Errors of every level on every test set beside those of its composition, and the epoch kept.

    Label energies hold energies of bonds that grow with the molecule, so that an error beside that
    of predicting zero always looks small. What counts is what the network adds to the atomic
    energies that are fitted before it is trained. Of forces and of differences of conformers,
    which depend on the geometry alone, that is the error of predicting zero.

    Raises UserError if the run is not finished.
    """
    settings = folder.read_settings()
    labels = {level.id: level.label for level in settings.known}
    trained = settings.model_labels
    lines = [kept_epoch(folder.read_epochs(), settings.hyperparameters)]
    metrics = folder.read_metrics()
    composition: Compositions = {}
    gone = [name for name in ("predictions.npz", MODEL) if not folder.file(name).exists()]
    if gone:
        lines.append(f"No {BASELINE} of energies: {' and '.join(gone)} missing in the folder.")
    else:
        fitted = fitted_atomic_energies(settings, folder, trained)
        composition = composition_errors(folder.read_predictions(), fitted, labels)
    lines += format_errors(metrics, [level.id for level in trained], labels, composition)
    return "\n".join(f"  {line}" for line in lines)


def fitted_atomic_energies(
    settings: RunSettings, folder: RunFolder, labels: Labels
) -> AtomicEnergies:
    """The atomic energies of every head of a run, from its trained model, where they are frozen.

    In kcal/mol, without self energies.
    """
    heads = trained_model(settings, folder).heads
    elements = [number for number in settings.hyperparameters.species if number]
    return {
        level.id: dict(zip(elements, atomic_energies(heads, level).tolist(), strict=True))
        for level in labels
    }


def composition_errors(
    stored: Mapping[str, np.ndarray], fitted: AtomicEnergies, references: Mapping[str, str]
) -> Compositions:
    """RMSE of atomic energies alone, of every head against every level of every test set.

    `stored` has the arrays of `predictions.npz`: `<set>.species` (n, n_atoms_max), and
    `<set>.reference.<level>.energy` (n,) in kcal/mol without self energies, NaN for no label.
    """
    errors: Compositions = {}
    for name in (key.removesuffix(".species") for key in stored if key.endswith(".species")):
        species = stored[f"{name}.species"]
        for head, energies in fitted.items():
            of_atoms = sum(
                energy * np.count_nonzero(species == number, axis=1)
                for number, energy in energies.items()
            )
            for level in references:
                if (key := f"{name}.reference.{level}.energy") in stored:
                    differences = stored[key] - of_atoms
                    error = rmse(differences[np.isfinite(differences)])
                    if error is not None:
                        errors[name, head, level] = error
    return errors


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
    composition: Compositions | None = None,
) -> list[str]:
    """A table of errors from metrics in format 2, for levels by rank with their labels.

    Below it stands why an error is missing although the test set has labels for it.
    """
    rows = [("test set", "level", "RMSE", BASELINE, "")]
    missing: list[str] = []
    for name, heads in metrics["sets"].items():
        for head, level in _heads_of(heads, trained, labels):
            entry = heads[head][level]
            beyond = (composition or {}).get((name, head, level))
            by_other = "" if head == level else f", head {labels[head]}"
            rows += [
                (name, f"{labels[level]} {quantity}{by_other}", *cells)
                for quantity, *cells in _rows_of(entry, beyond)
            ]
            missing += [
                f"{name}: no error of {labels[level]} {what}: {reason}."
                for what, reason in _reasons(entry)
            ]
    if len(rows) == 1:
        return missing
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = [
        f"{s:<{widths[0]}}  {level:<{widths[1]}}  {error:>{widths[2]}}  {base:>{widths[3]}}  {unit}"
        for s, level, error, base, unit in rows
    ]
    return [*(line.rstrip() for line in table), *MEANING, *missing]


def next_commands(folders: Sequence[RunFolder], out: Path) -> str:
    """What to do with finished runs."""
    if not folders:
        raise UserError("No run was asked for.")
    last = folders[-1].path
    of_last = [folder.path for folder in folders if folder.path.parent == last.parent]
    runs = " ".join(shlex.quote(str(path)) for path in of_last)
    return "\n".join(
        [
            "Next:",
            f"  hippynn-mf report {shlex.quote(str(out))}",
            f"  hippynn-mf evaluate {runs} --test NAME=FILE",
            f"  hippynn-mf export {runs} --out model.safetensors",
        ]
    )


def _heads_of(
    heads: Mapping[str, Any], trained: Sequence[str], labels: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Every level with its own head; one without a head with the highest that predicts it."""
    references = {reference for of_head in heads.values() for reference in of_head}
    for level in labels:
        candidates = [level] if level in trained else list(reversed(trained))
        head = next((head for head in candidates if level in heads.get(head, {})), None)
        if level in references and head is not None:
            yield head, level


def _rows_of(
    entry: Mapping[str, Any], composition: float | None
) -> Iterator[tuple[str, str, str, str]]:
    """Quantity, error, error of the composition alone, and unit, of one head against one level."""
    for quantity, (unit, error, label_rms) in QUANTITIES.items():
        if entry.get(error) is not None:
            beside = composition if quantity == "energy" else entry.get(label_rms)
            shown = "" if beside is None else f"{beside:.2f}"
            yield quantity, f"{entry[error]:.2f}", shown, unit


def _reasons(entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Why there is no error of labels that the test set has."""
    for what, field in (("energies", "energy"), ("conformers", "delta_e"), ("forces", "force")):
        reason = entry.get(f"{field}_reason")
        if reason and reason not in (NO_ENERGIES, NO_FORCES):
            yield what, reason
