"""How `hippynn-mf train` ends: errors, those of the composition alone, the epoch kept."""

import logging
import shlex
from types import SimpleNamespace

import numpy as np
import pytest
from made_runs import heldout_errors, make_run, run_metrics
from tiny import structures, tiny_model

from hippynn_mf.cli.main import _Once
from hippynn_mf.evaluation.scoring import NO_FORCES
from hippynn_mf.hyperparameters import Hyperparameters
from hippynn_mf.potentials.card import format_card
from hippynn_mf.potentials.potential import Potential
from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.runs.summary import (
    composition_errors,
    format_errors,
    kept_epoch,
    next_commands,
    summarize,
)
from hippynn_mf.training.initial_heads import atomic_energies, initialize_heads

LABELS = {"low": "LO", "mid": "MI", "high": "HI"}
FORCE = {
    "force_rmse_kcal_per_mol_per_angstrom": 2.0,
    "force_label_rms_kcal_per_mol_per_angstrom": 30.0,
}
NO_FORCE = {
    "force_rmse_kcal_per_mol_per_angstrom": None,
    "force_label_rms_kcal_per_mol_per_angstrom": None,
}


def energies(value, **forces):
    return {"energy_rmse_kcal_per_mol": value, **forces}


METRICS = {
    "format": 2,
    "sets": {
        "heldout": {
            "low": {"low": energies(1.5, **FORCE), "mid": energies(7.5), "high": energies(9)},
            "high": {"low": energies(8.5), "mid": energies(3.25), "high": energies(2, **NO_FORCE)},
        },
        "mine": {"low": {"mid": energies(5)}, "high": {"mid": energies(4)}},
        "comp6": {
            "high": {
                "high": {
                    "delta_e_rmse_kcal_per_mol": 0.5,
                    "delta_e_label_rms_kcal_per_mol": 8,
                    **FORCE,
                }
            }
        },
    },
    "training": None,
    "inference": None,
}


def test_errors_of_every_level_on_every_test_set():
    alone = {("heldout", "low", "low"): 100.0, ("heldout", "high", "high"): 90.0}
    alone |= {("heldout", "high", "mid"): 95.0, ("heldout", "low", "mid"): 1.0}
    *lines, _, _ = format_errors(METRICS, ["low", "high"], LABELS, alone)
    assert [line.split() for line in lines] == [
        ["test", "set", "level", "RMSE", "composition", "alone"],
        ["heldout", "LO", "energy", "1.50", "100.00", "kcal/mol"],
        ["heldout", "LO", "force", "2.00", "30.00", "kcal/mol/Å"],
        ["heldout", "MI", "energy,", "head", "HI", "3.25", "95.00", "kcal/mol"],
        ["heldout", "HI", "energy", "2.00", "90.00", "kcal/mol"],
        ["mine", "MI", "energy,", "head", "HI", "4.00", "kcal/mol"],
        ["comp6", "HI", "conformer", "energy", "0.50", "8.00", "kcal/mol"],
        ["comp6", "HI", "force", "2.00", "30.00", "kcal/mol/Å"],
    ]
    assert len({line.index("kcal") for line in lines[1:]}) == 1


def test_a_run_that_was_tested_on_nothing_has_no_table():
    assert format_errors({"format": 2, "sets": {}}, ["low"], LABELS) == []


def test_what_composition_alone_is_wrong_by():
    species = np.array([[1, 1, 8], [1, 1, 0], [6, 0, 0]])
    fitted = {"low": {1: -1.0, 6: -5.0, 8: -10.0}, "high": {1: -2.0, 6: 0.0, 8: 0.0}}
    stored = {
        "mine.species": species,
        # Of the atomic energies of the low head, −12, −2 and −5, off by 3 and by −4.
        "mine.reference.low.energy": np.array([-9.0, -6.0, np.nan]),
        "mine.reference.high.energy": np.full(3, np.nan),
    }
    errors = composition_errors(stored, fitted, LABELS)
    assert errors == {
        ("mine", "low", "low"): pytest.approx(np.sqrt((3**2 + 4**2) / 2)),
        ("mine", "high", "low"): pytest.approx(np.sqrt((5**2 + 2**2) / 2)),
    }


@pytest.mark.parametrize("coupling", ["independent", "delta"])
def test_atomic_energies_are_those_that_were_fitted_on_training_data(coupling):
    """Of the model without its network, so that the summary's column needs no training data."""
    model = tiny_model({"DZ": "E", "CC": "E"}, coupling=coupling)
    species, positions = structures(3)
    planted = {"wb97x_dz": (-1.0, 3.0, 5.0, 7.0), "ccsd(t)_cbs": (-2.0, 4.0, 4.0, 8.0)}
    rows = {"species": species, "positions": positions}
    for level, values in planted.items():
        energies = sum(
            value * (species == number).sum(dim=1, keepdim=True)
            for number, value in zip((1, 6, 7, 8), values, strict=True)
        )
        rows[f"{level}.energy"] = energies.to(positions.dtype)
    initialize_heads(model.heads, SimpleNamespace(splits={"train": rows}))
    for level in model.heads.levels:
        fitted = atomic_energies(model.heads, level)
        assert fitted.tolist() == pytest.approx(planted[level.id], abs=1e-4)


def test_labels_without_an_error_are_named_with_the_reason():
    unproved = {**energies(1.0), **NO_FORCE, "force_reason": "the sign is not proved"}
    absent = {**energies(1.0), **NO_FORCE, "force_reason": NO_FORCES}
    metrics = {"sets": {"mine": {"low": {"low": unproved}, "high": {"high": absent}}}}
    lines = format_errors(metrics, ["low", "high"], LABELS)
    assert lines[-1] == "mine: no error of LO forces: the sign is not proved."
    assert sum("no error" in line for line in lines) == 1


@pytest.mark.parametrize(
    ("best", "values", "text"),
    [
        ([1, 0, 1, 0], {"max_epochs": 4}, "Epoch 3 of 4 was kept (best_energy)."),
        ([1, 0], {}, "Epoch 1 of 2 was kept (best_energy); at most 2000 were planned."),
        ([1, 0, 1, 0], {"max_epochs": 4, "kept_epoch": "last"}, "Epoch 4 of 4 was kept (last)."),
        (
            [1, 0, 1],
            {"max_epochs": 3, "kept_epoch": "best_robust", "ema_decay": 0.99},
            "Epoch 3 of 3 was kept (best_robust, weights averaged with decay 0.99).",
        ),
    ],
)
def test_the_epoch_that_was_kept(best, values, text):
    epochs = [{"epoch": n, "best": bool(is_best)} for n, is_best in enumerate(best)]
    assert kept_epoch(epochs, Hyperparameters(**values)) == text


def test_the_next_commands(tmp_path):
    out = tmp_path / "my results"
    folders = [RunFolder(out / "runs" / name) for name in ("b/seed-0", "a/seed-0", "a/seed-1")]
    first, *commands = next_commands(folders, out).splitlines()
    assert first == "Next:"
    words = [shlex.split(line) for line in commands]
    seeds = [str(folder.path) for folder in folders[1:]]  # an ensemble is of one experiment
    assert words == [
        ["hippynn-mf", "report", str(out)],
        ["hippynn-mf", "evaluate", *seeds, "--test", "NAME=FILE"],
        ["hippynn-mf", "export", *seeds, "--out", "model.safetensors"],
    ]


def test_a_warning_is_shown_once():
    once = _Once()
    records = [logging.makeLogRecord({"msg": "%s is odd", "args": (n,)}) for n in (1, 1, 2)]
    assert [once.filter(record) for record in records] == [True, False, True]


def test_a_card_names_a_level_once_and_keeps_names_apart():
    card = Potential.load("mini-ani1x").card
    b3lyp = {"label": "B3LYP", "id": "b3lyp", "method": "B3LYP", "basis": "6-31G*"}
    renamed = card.levels[0].model_copy(update=b3lyp)
    lines = format_card(
        card.model_copy(update={"levels": (renamed, *card.levels[1:])})
    ).splitlines()
    assert lines[2].split()[:2] == ["B3LYP", "B3LYP/6-31G*,"]
    assert len({line.index(", trained on") - len(line.split(", trained")[0].split()[-1])
                for line in lines[2:]}) == 1  # fmt: skip


def test_what_is_missing_for_the_composition_is_said(tmp_path):
    errors = run_metrics({"wb97x_tz": heldout_errors(1.0, 2.0)})
    folder = make_run(tmp_path, "SF-TZ/E", 0, errors)
    folder.write_epochs([{"epoch": 0, "best": True, "train": {}, "valid": {}}])
    said = "No composition alone of energies: predictions.npz and model.pt missing in the folder."
    assert said in summarize(folder)
