import json
import sys
import warnings

import numpy as np
import pytest
import torch
from conftest import assert_close
from hippynn.experiment.controllers import PatienceController
from made_runs import build_settings
from planted import write_ani1x
from tiny import train_model

from hippynn_mf import KNOWN_LEVELS, UserError
from hippynn_mf.data.database import build_database
from hippynn_mf.data.loading import load_splits
from hippynn_mf.evaluation.errors import energy_metrics, force_metrics
from hippynn_mf.hyperparameters import get_hyperparameters
from hippynn_mf.model.model import build_model
from hippynn_mf.model.predicting import predict_arrays
from hippynn_mf.network.device import choose_device
from hippynn_mf.runs.experiment import Experiment
from hippynn_mf.runs.models import load_best
from hippynn_mf.runs.preflight import check_inputs
from hippynn_mf.runs.train import train_run
from hippynn_mf.training import loop as training
from hippynn_mf.training.loop import build_scheduler

# Training may move the first sensitivity beyond a distance, and hippynn warns about that.
pytestmark = pytest.mark.filterwarnings("ignore:Provided distances are underneath:UserWarning")

# A network that trains in seconds.
TINY = {
    "n_interaction_layers": 1,
    "n_atom_layers": 1,
    "n_features": 4,
    "n_sensitivities": 4,
    "dist_soft_min": 0.5,
    "learning_rate": 2e-2,
    "scheduler": "plateau",
    "max_epochs": 4,
    "fraction_train_eval": 1.0,
}
EXPERIMENT = Experiment(labels={"DZ": "EF", "CC": "E"})
NO_CC = {"CH4": {"ccsd(t)_cbs.energy": slice(0, 30)}, "N2": {"ccsd(t)_cbs.energy": slice(5, None)}}

TIMES = ("wall_s", "cpu_s")


@pytest.fixture(scope="module")
def partly_labelled_file(tmp_path_factory):
    """120 conformers; some have no CC energy, so that training must mask."""
    return write_ani1x(tmp_path_factory.mktemp("data") / "part.h5", 24, missing=NO_CC)


def settings_of(path, *, seed=0, device="cpu", **overrides):
    return build_settings(
        [EXPERIMENT],
        [seed],
        data=path,
        preset="quick",
        overrides=TINY | overrides,
        rows="all",
        device=device,
    )[0]


def parts_of(settings):
    return load_splits(
        settings.data.path,
        settings.experiment.resolved_labels,
        common_levels=settings.experiment.common_levels,
        rows=settings.rows,
        split_seed=settings.split_seed,
    )


@pytest.fixture(scope="module")
def finished(partly_labelled_file, tmp_path_factory):
    """A finished run with seed 0, and its settings."""
    settings = settings_of(partly_labelled_file)
    return train_run(settings, tmp_path_factory.mktemp("out")), settings


def without_times(epochs):
    return [{name: v for name, v in epoch.items() if name not in TIMES} for epoch in epochs]


def test_training_lowers_the_loss(partly_labelled_file):
    settings = settings_of(partly_labelled_file, learning_rate=5e-2, max_epochs=15)
    labels = settings.experiment.resolved_labels
    torch.manual_seed(0)
    model = build_model(settings.hyperparameters, labels)
    database = build_database(parts_of(settings), labels)
    tracker = train_model(model, database, settings.hyperparameters)
    first, last = (tracker.epoch_metric_values[epoch]["train"] for epoch in (0, -1))
    assert len(tracker.epoch_metric_values) == 15
    assert last["loss"] < 0.8 * first["loss"]
    assert last["force_rmse.wb97x_dz"] < 0.8 * first["force_rmse.wb97x_dz"]


def test_the_same_seed_gives_the_same_run(finished, tmp_path):
    folder, settings = finished
    again = train_run(settings, tmp_path)
    assert without_times(again.read_epochs()) == without_times(folder.read_epochs())
    costs = {"training": None, "inference": None}
    first, second = (f.read_metrics() | costs for f in (folder, again))
    assert first == second


def test_another_seed_changes_the_weights_but_not_the_split(finished, tmp_path):
    folder, settings = finished
    other = train_run(settings.model_copy(update={"seed": 1}), tmp_path)
    with np.load(folder.file("split.npz")) as first, np.load(other.file("split.npz")) as second:
        assert set(first) == set(second) == {"train", "valid", "test"}
        assert all(np.array_equal(first[name], second[name]) for name in first)
    first, second = (torch.load(f.file("model.pt"), weights_only=True) for f in (folder, other))
    assert first.keys() == second.keys()
    e0 = "heads.wb97x_dz.layers.0.weight"
    assert torch.equal(first[e0], second[e0])
    trunk = "network.blocks.0.0.base_layer.int_weights"
    assert not torch.equal(first[trunk], second[trunk])


def test_a_finished_run_is_not_trained_again(finished, monkeypatch):
    folder, settings = finished
    monkeypatch.setattr("hippynn_mf.runs.phases.prepare_training", None)
    assert train_run(settings, folder.path.parents[2]) == folder


def test_epochs_are_recorded_with_every_metric(finished):
    folder, _ = finished
    epochs = folder.read_epochs()
    assert [epoch["epoch"] for epoch in epochs] == [0, 1, 2, 3]
    expected = {
        *(f"{kind}.wb97x_dz" for kind in ("energy_rmse", "energy_mae", "force_rmse", "force_mae")),
        *(f"{kind}.ccsd(t)_cbs" for kind in ("energy_rmse", "energy_mae")),
        "energy_rmse_sum",
        "mae_sum",
        "loss",
    }
    for epoch in epochs:
        assert set(epoch["train"]) == set(epoch["valid"]) == expected


@pytest.mark.parametrize(
    ("stopping_metric", "name"),
    [("sum", "energy_rmse_sum"), ("CC", "energy_rmse.ccsd(t)_cbs"), ("DZ", "energy_rmse.wb97x_dz")],
)
def test_the_stopping_metric_decides_which_epoch_is_best(
    partly_labelled_file, tmp_path, stopping_metric, name
):
    settings = settings_of(
        partly_labelled_file,
        stopping_metric=stopping_metric,
        energy_weight=1e-9,  # so that energies go up and down while the loss falls
        learning_rate=5e-2,
        max_epochs=10,
    )
    epochs = train_run(settings, tmp_path).read_epochs()
    errors = [epoch["valid"][name] for epoch in epochs]
    expected = [error < min(errors[:n], default=float("inf")) for n, error in enumerate(errors)]
    assert [epoch["best"] for epoch in epochs] == expected


@pytest.mark.parametrize("stopping_metric", ["sum", "CC"])
def test_the_model_file_holds_the_best_epoch(
    partly_labelled_file, tmp_path, monkeypatch, stopping_metric
):
    def disturbing(optimizer, hyperparameters):
        """Train as usual for three epochs, then at a rate that spoils the model."""
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 1 if n < 3 else 1000)

    monkeypatch.setattr(training, "build_scheduler", disturbing)
    settings = settings_of(partly_labelled_file, max_epochs=5, stopping_metric=stopping_metric)
    folder = train_run(settings, tmp_path)
    epochs = folder.read_epochs()
    best = [epoch for epoch in epochs if epoch["best"]][-1]
    name = "energy_rmse_sum" if stopping_metric == "sum" else "energy_rmse.ccsd(t)_cbs"
    assert best["epoch"] < 4
    assert best["valid"][name] < 0.5 * epochs[-1]["valid"][name]

    model = build_model(settings.hyperparameters, settings.experiment.resolved_labels)
    load_best(model, folder)
    valid = parts_of(settings)["valid"]
    arrays = build_database({"train": valid}, settings.experiment.resolved_labels).splits["train"]
    predicted = predict_arrays(model, valid.species, valid.positions, batch_size=100)
    for level in ("wb97x_dz", "ccsd(t)_cbs"):
        true = arrays[f"{level}.energy"].numpy()[:, 0]
        found = energy_metrics(predicted[f"{level}.energy"], true)
        assert found["energy_rmse_kcal_per_mol"] == pytest.approx(
            best["valid"][f"energy_rmse.{level}"], rel=1e-4
        )
    forces = arrays["wb97x_dz.forces"].numpy()
    found = force_metrics(predicted["wb97x_dz.forces"], forces, valid.atom_mask)
    assert found["force_rmse_kcal_per_mol_per_angstrom"] == pytest.approx(
        best["valid"]["force_rmse.wb97x_dz"], rel=1e-4
    )


def test_a_diverging_run_is_refused_and_is_not_finished(partly_labelled_file, tmp_path):
    settings = settings_of(partly_labelled_file, learning_rate=1e20)
    with pytest.raises(UserError, match=r"diverged in epoch 1.*Lower learning_rate"):
        train_run(settings, tmp_path)
    assert not list(tmp_path.rglob("metrics.json"))
    assert not list(tmp_path.rglob("model.pt"))


def test_training_stops_after_epochs_without_improvement(partly_labelled_file):
    settings = settings_of(
        partly_labelled_file, learning_rate=1e-30, max_epochs=9, termination_patience=2
    )
    labels = settings.experiment.resolved_labels
    model = build_model(settings.hyperparameters, labels)
    database = build_database(parts_of(settings), labels)
    tracker = train_model(model, database, settings.hyperparameters)
    assert len(tracker.epoch_metric_values) == 3


def test_inputs_are_checked_without_a_network_and_without_random_numbers(
    partly_labelled_file, monkeypatch
):
    def build(*arguments, **keywords):
        raise AssertionError("a network was built")

    for name, module in list(sys.modules.items()):
        if name.startswith("hippynn_mf.") and hasattr(module, "build_model"):
            monkeypatch.setattr(module, "build_model", build)
    before = torch.get_rng_state()
    check_inputs([settings_of(partly_labelled_file, stopping_metric="CC")])
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(UserError, match="Unknown stopping criterion 'TZ'"):
        check_inputs([settings_of(partly_labelled_file, stopping_metric="TZ")])


def test_unknown_stopping_metric_is_refused_before_anything_is_written(
    partly_labelled_file, tmp_path
):
    settings = settings_of(partly_labelled_file, stopping_metric="TZ")
    with pytest.raises(UserError, match="Unknown stopping criterion 'TZ'"):
        train_run(settings, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("cuda:99", r"Device cuda:99 is not here: torch sees \d+ CUDA devices\. Use --device cpu"),
        ("tpu", r"Unknown device 'tpu'\. Known: auto, cpu, cuda"),
        ("meta", r"Unknown device 'meta'"),
        ("", r"Unknown device ''"),
    ],
)
def test_a_device_that_is_not_there_is_refused(name, match):
    with pytest.raises(UserError, match=match):
        choose_device(name)


def test_auto_takes_cuda_where_there_is_one():
    assert choose_device("cpu") == torch.device("cpu")
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device("auto").type == expected


def controlled_optimizer(**overrides):
    """An optimizer at rate 1 with the schedule of a training, and hippynn's controller of both."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    hyperparameters = get_hyperparameters("paper", overrides)
    controller = PatienceController(
        optimizer=optimizer,
        scheduler=build_scheduler(optimizer, hyperparameters),
        batch_size=hyperparameters.batch_size,
        max_epochs=hyperparameters.max_epochs,
        stopping_key="energy_rmse_sum",
        termination_patience=hyperparameters.termination_patience,
        quiet=True,
    )
    return optimizer, controller


def rates_of(optimizer, controller, metrics):
    """The learning rate after each epoch with these stopping metrics."""
    rates = []
    for epoch, metric in enumerate(metrics):
        optimizer.step()
        controller.push_epoch(
            epoch, better_model=metric == min(metrics[: epoch + 1]), metric=metric
        )
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def test_plateau_halves_the_rate_after_patience_epochs_without_improvement():
    optimizer, controller = controlled_optimizer(patience=3)
    metrics = [5.0, 4.0, 4.5, 4.5, 4.5, 4.5, 4.5, 4.5, 4.5, 4.5, 1.0]
    expected = [1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]
    assert rates_of(optimizer, controller, metrics) == expected
    assert controller.batch_size == 256


def test_cosine_lowers_the_rate_to_zero_in_the_last_epoch():
    optimizer, controller = controlled_optimizer(scheduler="cosine", max_epochs=4)
    rates = torch.tensor(rates_of(optimizer, controller, [4.0, 3.0, 2.0, 1.0]), dtype=torch.float64)
    angles = torch.arange(1, 5, dtype=torch.float64) * torch.pi / 4
    assert_close(rates, (1 + torch.cos(angles)) / 2)


def test_a_schedule_is_built_without_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, controller = controlled_optimizer()
    assert len(controller.scheduler_list) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_trains_as_the_cpu_does(partly_labelled_file, tmp_path):
    runs = {}
    for device in ("cpu", "cuda"):
        settings = settings_of(partly_labelled_file, device=device, max_epochs=2)
        folder = train_run(settings, tmp_path / device)
        with np.load(folder.file("predictions.npz")) as file:
            predictions = {name: file[name] for name in file}
        weights = torch.load(folder.file("model.pt"), map_location="cpu", weights_only=True)
        facts = json.loads(folder.file("experiment.json").read_text())
        assert torch.device(facts["device_used"]).type == device
        assert facts["interaction_used"] == {"cpu": "compiled", "cuda": "fast"}[device]
        runs[device] = folder.read_epochs(), weights, folder.read_metrics(), predictions
    epochs, weights, metrics, predictions = zip(*runs.values(), strict=True)

    # Two epochs of float32 in another order of summation.
    for on_cpu, on_cuda in zip(*epochs, strict=True):
        for split in ("train", "valid"):
            assert on_cuda[split] == pytest.approx(on_cpu[split], rel=1e-2)
    for level in ("wb97x_dz", "ccsd(t)_cbs"):
        e0 = f"heads.{level}.layers.0.weight"
        torch.testing.assert_close(weights[1][e0], weights[0][e0], rtol=1e-5, atol=1e-3)
        on_cpu, on_cuda = (result["heldout"][level] for result in metrics)
        assert on_cuda == pytest.approx(on_cpu, rel=1e-2)
        for count in ("n_energies", "n_force_components"):
            assert on_cuda.get(count) == on_cpu.get(count)
        energy = f"heldout.{KNOWN_LEVELS.get(level).energy_name}"
        np.testing.assert_allclose(
            predictions[1][energy], predictions[0][energy], rtol=1e-2, atol=1
        )
    for name in ("heldout.rows", "heldout.species", "heldout.reference.ccsd(t)_cbs.energy"):
        np.testing.assert_array_equal(predictions[1][name], predictions[0][name])
