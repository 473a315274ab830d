"""The script that tries other heads and losses: what they compute, and that they train."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch
from conftest import assert_close
from tiny import evaluate, labelled_batch, tiny_model

from hippynn_mf.levels import CC, DZ
from hippynn_mf.model.heads import Heads
from hippynn_mf.model.losses import build_loss
from hippynn_mf.runs.train import train_run

LABELS = {"DZ": "EF", "CC": "E"}
SIZES = {"n_features": 4, "n_atom_layers": 1, "max_epochs": 1}


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent.parent / "scripts")
        return importlib.import_module("try_head_variants")


@pytest.mark.usefixtures("float64")
def test_the_ridge_is_the_sum_of_the_squared_weights_of_the_correction(script):
    model = tiny_model(LABELS, coupling="delta")
    batch = labelled_batch(model)
    plain, _ = evaluate(build_loss(model.heads), model, batch)
    loss, own = script.loss_of("ridge", model.heads)
    value, gradients = evaluate(loss, model, batch)
    layers = model.heads[CC].energy.torch_module.layers[1:]
    squares = sum((layer.weight**2).sum() for layer in layers)
    assert_close(value, plain + script.RIDGE * squares.detach())
    assert own == []
    _, before = evaluate(build_loss(model.heads), model, batch)
    name = f"heads.{CC.id}.layers.1.weight"
    assert_close(gradients[name] - before[name], 2 * script.RIDGE * layers[0].weight.detach())
    low = f"heads.{DZ.id}.layers.1.weight"
    assert_close(gradients[low], before[low])


@pytest.mark.usefixtures("float64")
def test_learned_weights_scale_the_loss_of_their_level(script):
    model = tiny_model(LABELS)
    batch = labelled_batch(model)
    loss, scales = script.loss_of("learned", model.heads)
    with torch.no_grad():
        for place, scale in enumerate(scales):
            scale.fill_(0.5 + place)
    value, _ = evaluate(loss, model, batch)
    expected = 0.0
    for place, (level_id, head) in enumerate(model.heads.items()):
        of_level, _ = evaluate(
            build_loss(Heads({level_id: head}, model.heads.network)), model, batch
        )
        expected = expected + torch.exp(torch.tensor(-(0.5 + place))) * of_level + 0.5 + place
    assert_close(value, expected)


def test_hidden_layers_are_put_behind_the_atomic_energies(script):
    model = tiny_model(LABELS)
    zeroth = model.heads[CC].energy.torch_module.layers[0]
    script.hide(model)
    layers = model.heads[CC].energy.torch_module.layers
    assert layers[0] is zeroth
    features = torch.randn(5, layers[1].first.in_features)
    scaled = layers[1](2 * features) - layers[1](features)
    assert not torch.allclose(scaled, layers[1](features) - layers[1](0 * features))


def test_every_variant_trains_and_is_evaluated_like_a_run(script, tmp_path, monkeypatch):
    original = script.settings_of

    def small(seed, fraction):
        settings = original(seed, fraction)
        sizes = settings.hyperparameters.model_copy(update=SIZES)
        return settings.model_copy(update={"hyperparameters": sizes})

    monkeypatch.setattr(script, "settings_of", small)
    rows = []
    for variant in script.VARIANTS:
        folder = tmp_path / variant
        script.train(variant, 0, 0.3, folder)
        valid = json.loads((folder / "valid.json").read_text())
        metrics = script.evaluate(variant, 0, 0.3, folder)
        assert metrics["sets"]["heldout"][CC.id][CC.id]["n_energies"] > 100
        assert metrics["sets"]["cc-forces"][CC.id][CC.id]["n_force_components"] > 1000
        assert (f"log_scale.{CC.id}" in valid) is (variant == "learned")
        rows.append({"variant": variant, "seed": 0, "valid": valid, "metrics": metrics})
    lines = script.table(rows).splitlines()
    titles = [line.split(" | ")[0].removeprefix("| ") for line in lines[2:]]
    assert titles[:3] == ["linear", "coupled (less linear)", "hidden (less linear)"]
    assert titles[3:] == ["learned (less linear)", "ridge (less coupled)"]
    folder = train_run(small(0, 0.3), tmp_path / "package")  # the same training
    expected, found = (m["sets"]["heldout"] for m in (folder.read_metrics(), rows[0]["metrics"]))
    for level_id, references in expected.items():
        errors, others = references[level_id], found[level_id][level_id]
        numbers = {name: error for name, error in errors.items() if isinstance(error, float)}
        assert {name: others[name] for name in numbers} == pytest.approx(numbers, rel=1e-4)
    energy = found[CC.id][CC.id]["energy_rmse_kcal_per_mol"]
    assert lines[2].split(" | ")[2] == f"{energy:.2f} (one seed)"


def test_differences_are_paired_by_seed_and_beside_the_right_variant(script):
    energies = {"linear": [1.0, 2.0, 4.0], "coupled": [0.5, 1.0, 3.0], "ridge": [0.25, 1.0, 3.5]}
    rows = [
        {"variant": v, "seed": seed, "valid": {f"energy_rmse.{CC.id}": energy}, "metrics": {}}
        for v, of_seeds in energies.items()
        for seed, energy in enumerate(of_seeds)
    ]
    cells = {
        line.split(" | ")[0]: line.split(" | ")[1] for line in script.table(rows).splitlines()[2:]
    }
    assert cells["| linear"] == "2.33 ± 3.79"
    assert cells["| coupled (less linear)"] == "1.50 ± 3.29 (−0.83 ± 0.72)"
    assert cells["| ridge (less coupled)"] == "1.58 ± 4.23 (+0.08 ± 0.95)"
