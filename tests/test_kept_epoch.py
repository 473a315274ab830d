"""The weights that a run keeps: of the best epoch by several rules, the last, or an average."""

import pytest
import torch
from made_runs import build_settings
from planted import write_ani1x
from tiny import tiny_model

from hippynn_mf import UserError
from hippynn_mf.data.database import build_database
from hippynn_mf.hyperparameters import Hyperparameters, get_hyperparameters
from hippynn_mf.labels import parse_labels
from hippynn_mf.runs.checkpoints import BEST, LAST, MODEL
from hippynn_mf.runs.experiment import Experiment
from hippynn_mf.runs.models import model_of
from hippynn_mf.runs.preflight import load_parts
from hippynn_mf.runs.train import train_run
from hippynn_mf.training.averaging import WeightAverage
from hippynn_mf.training.loop import prepare_training

pytestmark = pytest.mark.filterwarnings("ignore:Provided distances are underneath:UserWarning")

TINY = {
    "n_interaction_layers": 1,
    "n_atom_layers": 1,
    "n_features": 4,
    "n_sensitivities": 4,
    "dist_soft_min": 0.5,
    "learning_rate": 0.8,  # so that epochs get better and worse
    "scheduler": "cosine",
    "max_epochs": 6,
}
DZ, CC = "wb97x_dz", "ccsd(t)_cbs"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_ani1x(tmp_path_factory.mktemp("data") / "planted.h5", 24)


def settings_of(path, **overrides):
    experiment = Experiment(labels={"DZ": "EF", "CC": "E"})
    return build_settings([experiment], [0], data=path, overrides=TINY | overrides, device="cpu")[0]


def states_of(folder):
    return {name: torch.load(folder.file(name), weights_only=True) for name in (MODEL, BEST, LAST)}


def same(first, second):
    tensors = [name for name, value in first.items() if isinstance(value, torch.Tensor)]
    assert tensors
    return all(torch.equal(first[name], second[name]) for name in tensors)


MEASURES = {
    "best_energy": lambda v: v[f"energy_rmse.{DZ}"] + v[f"energy_rmse.{CC}"],
    "best_loss": lambda v: v["loss"],
    "best_robust": lambda v: v[f"energy_mae.{DZ}"] + v[f"energy_mae.{CC}"] + v[f"force_mae.{DZ}"],
    "last": lambda v: v[f"energy_rmse.{DZ}"] + v[f"energy_rmse.{CC}"],
}


@pytest.mark.parametrize("rule", list(MEASURES))
def test_a_rule_keeps_the_epoch_of_its_measure(data, tmp_path, rule):
    settings = settings_of(data, kept_epoch=rule)
    folder = train_run(settings, tmp_path)
    epochs = folder.read_epochs()
    values = [MEASURES[rule](epoch["valid"]) for epoch in epochs]
    best = min(range(len(values)), key=values.__getitem__)
    assert [n for n, epoch in enumerate(epochs) if epoch["best"]][-1] == best
    assert best < len(epochs) - 1, "data and rate are such that the last epoch is not the best"
    states = states_of(folder)
    assert not same(states[BEST], states[LAST])
    assert same(states[MODEL], states[LAST if rule == "last" else BEST])
    kept = folder.read_metrics()["training"]
    assert kept["kept_by"] == rule
    assert kept["kept_epoch"] == (len(epochs) if rule == "last" else best + 1)


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_what_is_kept_is_what_was_validated(data, tmp_path, decay):
    settings = settings_of(data, kept_epoch="last", ema_decay=decay, max_epochs=3)
    folder = train_run(settings, tmp_path)
    labels = settings.experiment.resolved_labels
    model = model_of(settings)
    database = build_database(load_parts(settings, labels), labels)
    plain = settings.hyperparameters.model_copy(update={"ema_decay": 0.0})
    training = prepare_training(model, database, plain)
    model.parameters.load_state_dict(states_of(folder)[LAST])
    batches = database.make_generator("valid", "eval", 1024)
    found = training.modules.evaluator.evaluate(batches, eval_type="valid", when=0)
    expected = folder.read_epochs()[-1]["valid"]
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-4)


def test_an_average_changes_what_is_validated_and_not_what_is_trained(data, tmp_path):
    plain = train_run(settings_of(data, max_epochs=3), tmp_path / "plain")
    averaged = train_run(settings_of(data, max_epochs=3, ema_decay=0.9), tmp_path / "averaged")
    first, second = plain.read_epochs(), averaged.read_epochs()
    assert first[-1]["valid"]["loss"] != pytest.approx(second[-1]["valid"]["loss"], rel=1e-4)
    assert not same(states_of(plain)[LAST], states_of(averaged)[LAST])


def test_the_average_is_the_mean_until_it_is_exponential():
    parameter = torch.nn.Parameter(torch.tensor([100.0], dtype=torch.float64))
    module = torch.nn.ParameterDict({"a": parameter})
    average = WeightAverage(module, 0.75)
    for value in (1.0, 2.0, 6.0, 3.0):  # means while n/(n + 1) ≤ 0.75
        with torch.no_grad():
            parameter.fill_(value)
        average.update()
    assert average.values["a"].item() == pytest.approx(3.0)
    with torch.no_grad():
        parameter.fill_(7.0)
    average.update()
    assert average.values["a"].item() == pytest.approx(0.75 * 3.0 + 0.25 * 7.0)
    with average.in_place():
        assert parameter.item() == pytest.approx(4.0)
    assert parameter.item() == 7.0


def test_weights_are_given_back_when_an_evaluation_fails():
    parameter = torch.nn.Parameter(torch.tensor([1.0]))
    average = WeightAverage(torch.nn.ParameterDict({"a": parameter}), 0.5)
    average.values["a"].fill_(9.0)
    with pytest.raises(ZeroDivisionError), average.in_place():
        raise ZeroDivisionError
    assert parameter.item() == 1.0


def test_frozen_parameters_are_not_averaged():
    model = tiny_model({"DZ": "EF"})
    for parameter in model.heads.network.torch_module.parameters():
        parameter.requires_grad_(requires_grad=False)
    names = WeightAverage(model.parameters, 0.9).parameters
    assert names
    assert all(name.startswith("heads.") for name in names)


def test_a_measure_of_all_levels_has_no_stopping_metric_of_one():
    for rule in ("best_loss", "best_robust"):
        with pytest.raises(UserError, match=f"stopping_metric=CC goes with .*kept_epoch={rule}"):
            get_hyperparameters("quick", {"stopping_metric": "CC", "kept_epoch": rule})
    levels = parse_labels({"DZ": "EF", "CC": "E"})
    of_cc = Hyperparameters(stopping_metric="CC", kept_epoch="last")
    assert of_cc.stopping_key(levels) == f"energy_rmse.{CC}"


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_is_from_zero_to_below_one(decay):
    with pytest.raises(UserError, match="ema_decay"):
        get_hyperparameters("quick", {"ema_decay": decay})
