"""How `hippynn-mf train` ends: errors beside predicting zero, the epoch kept, next commands."""

import logging

import pytest

from hippynn_mf.cli.main import _Once
from hippynn_mf.hyperparameters import Hyperparameters
from hippynn_mf.potentials.card import format_card
from hippynn_mf.potentials.potential import Potential
from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.runs.summary import format_errors, kept_epoch, next_commands

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
    zeros = {("heldout", "low"): 100.0, ("heldout", "high"): 90.0}
    lines = format_errors(METRICS, ["low", "high"], LABELS, zeros)
    assert [line.split() for line in lines] == [
        ["test", "set", "level", "RMSE", "predicting", "zero"],
        ["heldout", "LO", "energy", "1.50", "100.00", "kcal/mol"],
        ["heldout", "LO", "force", "2.00", "30.00", "kcal/mol/Å"],
        ["heldout", "MI", "energy,", "head", "HI", "3.25", "kcal/mol"],
        ["heldout", "HI", "energy", "2.00", "90.00", "kcal/mol"],
        ["mine", "MI", "energy,", "head", "HI", "4.00", "kcal/mol"],
        ["comp6", "HI", "conformer", "energy", "0.50", "8.00", "kcal/mol"],
        ["comp6", "HI", "force", "2.00", "30.00", "kcal/mol/Å"],
    ]
    assert len({line.index("kcal") for line in lines[1:]}) == 1


def test_a_run_that_was_tested_on_nothing_has_no_table():
    assert format_errors({"format": 2, "sets": {}}, ["low"], LABELS) == []


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
    folder = RunFolder(tmp_path / "runs" / "a" / "seed-0")
    lines = next_commands([folder], tmp_path).splitlines()
    assert lines[0] == "Next:"
    for command, line in zip(("export", "evaluate", "tables"), lines[1:], strict=True):
        assert line.startswith(f"  hippynn-mf {command} {tmp_path}")


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
