import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import assert_close
from tiny import TINY, outputs, structures, tiny_model

from hippynn_mf import UserError, parse_labels
from hippynn_mf.hyperparameters import (
    PRESETS,
    Hyperparameters,
    get_hyperparameters,
    validate_hyperparameters,
)
from hippynn_mf.labels import Properties, with_all_forces
from hippynn_mf.levels import CC, DZ
from hippynn_mf.model.model import build_model
from hippynn_mf.model.predicting import build_predictor, predict_arrays

# The predictions of a saved model in a process that builds another model before it, with kernels
# of hippynn that need no compilation.
PREDICT_IN_NEW_PROCESS = """
import sys
import numpy as np
import torch
torch.set_default_dtype(torch.float64)
from hippynn_mf.hyperparameters import Hyperparameters
from hippynn_mf.labels import parse_labels
from hippynn_mf.model.model import build_model
from hippynn_mf.model.predicting import predict_arrays
build_model(Hyperparameters(n_features=3), parse_labels({"TZ": "E"}))
torch.manual_seed(99)
hyperparameters = Hyperparameters.model_validate_json(sys.argv[1])
model = build_model(hyperparameters, parse_labels({"DZ": "EF", "CC": "EF"}))
model.parameters.load_state_dict(torch.load("model.pt", weights_only=True))
inputs = np.load("inputs.npz")
outputs = predict_arrays(model, inputs["species"], inputs["positions"], batch_size=4)
np.savez("outputs.npz", **outputs)
"""


def test_parameters_have_names_of_the_trunk_and_of_levels():
    names = set(tiny_model({"DZ": "EF", "CC": "E"}).parameters.state_dict())
    heads = {name.rsplit(".", 2)[0] for name in names if not name.startswith("network.")}
    assert heads == {"heads.wb97x_dz.layers", "heads.ccsd(t)_cbs.layers"}
    assert any(name.startswith("network.") for name in names)


def test_names_of_parameters_do_not_depend_on_the_graph():
    with_forces = tiny_model({"DZ": "EF", "CC": "EF"})
    build_predictor(with_forces)
    without = tiny_model({"CC": "E", "DZ": "E"})
    assert list(with_forces.parameters.state_dict()) == list(without.parameters.state_dict())
    three = tiny_model({"DZ": "E", "TZ": "E", "CC": "E"})
    assert set(without.parameters.state_dict()) < set(three.parameters.state_dict())


def test_loaded_parameters_are_those_of_the_nodes():
    first, second = (tiny_model({"DZ": "EF", "CC": "EF"}, seed=seed) for seed in (1, 2))
    expected = outputs(first, *structures())
    assert not torch.equal(outputs(second, *structures())[CC.energy_name], expected[CC.energy_name])
    second.parameters.load_state_dict(first.parameters.state_dict())
    for name, value in outputs(second, *structures()).items():
        assert torch.equal(value, expected[name]), name


def test_a_trained_model_does_not_depend_on_the_interaction(float64):
    labels = {"DZ": "EF", "CC": "EF"}
    fast = tiny_model(labels, interaction="fast")
    stock = tiny_model(labels, seed=1, interaction="stock")
    assert type(fast.heads.network) is not type(stock.heads.network)
    stock.parameters.load_state_dict(fast.parameters.state_dict())
    expected = outputs(stock, *structures())
    for name, value in outputs(fast, *structures()).items():
        assert_close(value, expected[name])


def test_an_unknown_interaction_is_refused():
    with pytest.raises(
        UserError, match=r"interaction: .* 'fast', 'traced' or 'stock', found 'slow'"
    ):
        get_hyperparameters("quick", {"interaction": "slow"})


def test_a_new_process_predicts_the_same(float64, tmp_path):
    labels = {"DZ": "EF", "CC": "EF"}
    model = tiny_model(labels)
    torch.save(model.parameters.state_dict(), tmp_path / "model.pt")
    species, positions = (array.numpy() for array in structures())
    np.savez(tmp_path / "inputs.npz", species=species, positions=positions)
    subprocess.run(
        [sys.executable, "-c", PREDICT_IN_NEW_PROCESS, Hyperparameters(**TINY).model_dump_json()],
        cwd=tmp_path,
        env=os.environ | {"HIPPYNN_USE_CUSTOM_KERNELS": "sparse"},
        check=True,
        capture_output=True,
    )
    expected = predict_arrays(model, species, positions, batch_size=4)
    with np.load(tmp_path / "outputs.npz") as found:
        assert set(found) == set(expected)
        for name, value in expected.items():
            assert_close(torch.as_tensor(found[name]), torch.as_tensor(value))


def test_predictions_have_names_shapes_and_zeros_for_padding(float64):
    model = tiny_model({"DZ": "EF", "CC": "E"})
    species, positions = (array.numpy() for array in structures())
    before = positions.copy()
    predicted = predict_arrays(model, species, positions, batch_size=100)
    shapes = {name: value.shape for name, value in predicted.items()}
    assert shapes == {
        DZ.energy_name: (10,),
        DZ.forces_name: (10, 5, 3),
        CC.energy_name: (10,),
    }
    assert (predicted[DZ.forces_name][species == 0] == 0).all()
    assert (positions == before).all()


def test_predictions_do_not_depend_on_the_batch(float64):
    model = tiny_model({"DZ": "EF", "CC": "E"})
    species, positions = (array.numpy() for array in structures())
    expected = predict_arrays(model, species, positions, batch_size=100)
    for name, value in predict_arrays(model, species, positions, batch_size=3).items():
        assert_close(torch.as_tensor(value), torch.as_tensor(expected[name]))


def test_unknown_elements_are_refused():
    species, positions = (array.numpy() for array in structures())
    species[species == 7] = 16
    match = r"Atomic numbers \[16\] are outside the species of the model, \[0, 1, 6, 7, 8\]"
    with pytest.raises(UserError, match=match):
        predict_arrays(tiny_model({"DZ": "E"}), species, positions, batch_size=10)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_evaluation_adds_forces_but_no_parameters(order):
    labels = parse_labels({"DZ": "E", "CC": "EF"})
    assert dict(with_all_forces(labels)) == {DZ: Properties.EF, CC: Properties.EF}
    trained = tiny_model({"DZ": "E", "CC": "EF"}, tensor_order=order)
    full = build_model(Hyperparameters(**TINY, tensor_order=order), with_all_forces(labels))
    full.parameters.load_state_dict(trained.parameters.state_dict())
    expected, found = outputs(trained, *structures()), outputs(full, *structures())
    assert set(found) == {*expected, DZ.forces_name}
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_the_papers_network_has_575612_parameters_with_two_heads():
    model = build_model(PRESETS["paper"], parse_labels({"DZ": "EF", "CC": "E"}))
    assert sum(parameter.numel() for parameter in model.parameters.parameters()) == 575_612


def test_the_paper_preset_is_the_authors_example():
    assert PRESETS["paper"].model_dump() == PAPER


def test_the_quick_preset_is_that_of_the_published_tables():
    assert PRESETS["quick"].model_dump() == PAPER | {
        "n_features": 48,
        "n_sensitivities": 16,
        "n_atom_layers": 3,
        "batch_size": 32,
        "learning_rate": 4e-3,
        "max_epochs": 80,
        "termination_patience": 80,
        "scheduler": "cosine",
        "fraction_train_eval": 0.05,
    }


def test_the_robust_preset_has_the_network_and_the_schedule_of_quick():
    robust, quick = (PRESETS[name].model_dump() for name in ("robust", "quick"))
    changed = {name for name, value in robust.items() if value != quick[name]}
    assert changed <= {"force_weight", "kept_epoch", "ema_decay", "coupling"}
    assert changed


PAPER = {
    "tensor_order": 2,
    "n_interaction_layers": 2,
    "n_atom_layers": 4,
    "n_features": 120,
    "n_sensitivities": 20,
    "dist_soft_min": 0.75,
    "dist_soft_max": 5.5,
    "dist_hard_max": 6.5,
    "species": (0, 1, 6, 7, 8),
    "interaction": "auto",
    "coupling": "independent",
    "precompute_pairs": True,
    "energy_weight": 1.0,
    "force_weight": 1.0,
    "hierarchicality_weight": 1.0,
    "stress_weight": 100.0,  # of periodic data, which the paper has not
    "batch_size": 256,
    "eval_batch_size": 1024,
    "learning_rate": 1e-3,
    "max_epochs": 2000,
    "scheduler": "plateau",
    "patience": 20,
    "termination_patience": 40,
    "stopping_metric": "sum",
    "kept_epoch": "best_energy",
    "ema_decay": 0.0,
    "fraction_train_eval": 0.1,
    # of strategies that the paper does not train, ours
    "fine_tuning_factor": 0.5,
    "meta_steps": 5,
    "meta_rate": 1.0,
    "meta_adam": "fresh",
}


def test_hyperparameters_reach_the_network():
    lengths = {"dist_soft_min": 0.5, "dist_soft_max": 3.0, "dist_hard_max": 4.0}
    model = tiny_model({"DZ": "E"}, species=(0, 1, 8), n_interaction_layers=1, **lengths)
    module = model.heads.network.torch_module
    assert module.species_set.tolist() == [0, 1, 8]
    assert (module.nf, module.ni, module.n_sensitivities) == (4, 1, 4)
    assert module.dist_hard_max == 4.0


@pytest.mark.parametrize("preset", list(PRESETS))
def test_overrides_change_what_they_name_and_nothing_else(preset):
    changed = get_hyperparameters(preset, {"n_features": 7, "species": [0, 1, 8]})
    expected = PRESETS[preset].model_dump() | {"n_features": 7, "species": (0, 1, 8)}
    assert changed.model_dump() == expected
    assert validate_hyperparameters(changed.model_dump(mode="json")) == changed
    assert get_hyperparameters(preset) == PRESETS[preset]


def test_an_unknown_preset_is_refused():
    with pytest.raises(UserError, match=r"Unknown preset 'papers'\. Did you mean paper\?"):
        get_hyperparameters("papers")


def test_an_unknown_hyperparameter_is_refused():
    match = r"Unknown hyperparameter 'learning_rat'\. Did you mean learning_rate"
    with pytest.raises(UserError, match=match):
        get_hyperparameters("quick", {"learning_rat": 1.0})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_features", 0),
        ("n_features", 20.5),
        ("n_features", "20"),
        ("tensor_order", 3),
        ("learning_rate", -1e-3),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("force_weight", -0.1),
        ("force_weight", float("nan")),
        ("scheduler", "linear"),
        ("fraction_train_eval", 0.0),
        ("fraction_train_eval", 1.5),
        ("species", [0, 1.5]),
        ("stopping_metric", None),
    ],
    ids=str,
)
def test_a_wrong_value_is_refused_by_name(name, value):
    with pytest.raises(UserError, match=rf"Wrong hyperparameter: {name}"):
        get_hyperparameters("quick", {name: value})
