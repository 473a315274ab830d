"""Weights of the loss by level and term, from the command line to equation 1 and the tables."""

import json

import pytest
import torch
from conftest import assert_close
from made_runs import TINY_OPTIONS, exit_code, make_run, make_settings, run_metrics
from tiny import evaluate, labelled_batch, tiny_model

from hippynn_mf import LossWeights, UserError, build_loss
from hippynn_mf.hyperparameters import get_hyperparameters
from hippynn_mf.report.recipe import recipe_text
from hippynn_mf.runs.build import build_settings
from hippynn_mf.runs.phases import loss_weights
from hippynn_mf.runs.request import Request
from hippynn_mf.runs.run_file import merged
from hippynn_mf.runs.weights import parse_weights

DZ, CC = "wb97x_dz", "ccsd(t)_cbs"


def settings_of(weights, *experiments, **more):
    names = experiments or ("MF-DZ/EF-CC/E",)
    return build_settings(Request(experiments=names, weights=weights, **more))


@pytest.mark.usefixtures("float64")
def test_the_loss_is_the_weighted_sum_of_the_levels_terms():
    (settings,) = settings_of(
        {"DZ": {"forces": 4, "energy": 0.5}, CC: {"hierarchicality": 0}},
        hyperparameters={"energy_weight": 3.0},
    )
    (phase,) = settings.experiment.phases
    weights = loss_weights(phase, settings, phase.hyperparameters(settings.hyperparameters))
    assert weights == {
        DZ: LossWeights(energy=0.5, forces=4.0, hierarchicality=1.0, stress=100.0),
        CC: LossWeights(energy=3.0, forces=1.0, hierarchicality=0.0, stress=100.0),
    }
    model = tiny_model({"DZ": "EF", "CC": "E"})
    batch = labelled_batch(model)
    none = {DZ: LossWeights(0, 0, 0), CC: LossWeights(0, 0, 0)}
    terms = {
        "dz energy": (0.5, none | {DZ: LossWeights(1, 0, 0)}),
        "dz forces": (4.0, none | {DZ: LossWeights(0, 1, 0)}),
        "dz hierarchicality": (1.0, none | {DZ: LossWeights(0, 0, 1)}),
        "cc energy": (3.0, none | {CC: LossWeights(1, 0, 0)}),
    }
    expected = sum(
        (weight * evaluate(build_loss(model.heads, only), model, batch)[0]
         for weight, only in terms.values()),
        start=torch.zeros(()),
    )  # fmt: skip
    assert_close(evaluate(build_loss(model.heads, weights), model, batch)[0], expected)


def test_a_difference_has_the_weights_of_its_higher_level():
    (settings,) = settings_of({"CC": {"energy": 7}}, "DELTA-DZ/EF-CC/E")
    low, difference = settings.experiment.phases
    weights = [loss_weights(p, settings, settings.hyperparameters) for p in (low, difference)]
    assert weights[0] == {DZ: LossWeights(stress=100.0)}
    assert [each.energy for each in weights[1].values()] == [7.0]


def test_experiments_without_the_level_take_part_in_a_campaign_with_weights():
    runs = settings_of({"DZ": {"forces": 4}}, "SF-CC/E", "SF-DZ/E", "MF-DZ/EF-CC/E")
    assert [run.weights for run in runs] == 3 * [{DZ: {"forces": 4.0}}]


WRONG = {
    "a level that is not trained": ({"TZ": {"energy": 2}}, "weight of TZ.*It trains on: DZ, CC"),
    "forces that are not trained": ({"CC": {"forces": 2}}, "only CC energies are trained on"),
    "an unknown level": ({"DX": {"energy": 2}}, r"\[weights\]: Unknown level of theory 'DX'"),
    "a level twice": ({"DZ": {"energy": 2}, DZ: {"energy": 2}}, "there twice"),
    "nothing": ({"DZ": {}}, r"\[weights.DZ\] has no weight"),
    "all zero": ({"DZ": {"energy": 0, "forces": 0}}, "weights of all labels of DZ are 0"),
    "zero of a level with energies": ({"CC": {"energy": 0}}, "weights of all labels of CC are 0"),
}


@pytest.mark.parametrize(("weights", "message"), WRONG.values(), ids=list(WRONG))
def test_wrong_weights_are_refused(weights, message):
    with pytest.raises(UserError, match=message):
        settings_of(weights)


def test_weights_that_are_zero_for_every_level_are_refused():
    with pytest.raises(UserError, match="weights of all labels of CC are 0"):
        settings_of({}, "SF-CC/E", hyperparameters={"energy_weight": 0})


VALUES = {
    "negative": ({"DZ": {"forces": -1}}, "weights.DZ.forces = -1"),
    "not finite": ({"DZ": {"forces": float("inf")}}, "weights.DZ.forces"),
    "a term": ({"DZ": {"force": 1}}, r"\[weights.DZ\] has no key 'force'.*Did you mean forces"),
    "no table": ({"DZ": 4}, "weights.DZ = 4: a table was expected"),
}


@pytest.mark.parametrize(("weights", "message"), VALUES.values(), ids=list(VALUES))
def test_wrong_values_are_named_with_their_place(weights, message):
    with pytest.raises(UserError, match=message):
        Request.of({"experiments": ["SF-DZ/EF"], "weights": weights})


TEXTS = {
    "no term": ("DZ=4", "LEVEL.TERM=WEIGHT"),
    "no number": ("DZ.forces=many", "LEVEL.TERM=WEIGHT"),
    "nan": ("DZ.forces=nan", "LEVEL.TERM=WEIGHT"),
    "no weight": ("DZ.forces", "LEVEL.TERM=WEIGHT"),
    "unknown term": ("DZ.force=4", "Unknown term 'force'. Did you mean forces"),
}


@pytest.mark.parametrize(("text", "message"), TEXTS.values(), ids=list(TEXTS))
def test_a_wrong_option_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        parse_weights([text])


def test_options_are_weights_once_each():
    assert parse_weights(["DZ.forces=4", "DZ.energy=1", "my.level.energy=2"]) == {
        "DZ": {"forces": 4.0, "energy": 1.0},
        "my.level": {"energy": 2.0},
    }
    with pytest.raises(UserError, match=r"DZ\.forces twice"):
        parse_weights(["DZ.forces=4", "DZ.forces=5"])


def test_options_override_the_terms_of_a_run_file_that_they_name():
    before = Request.of({"weights": {"DZ": {"forces": 4, "energy": 2}, "CC": {"energy": 3}}})
    after = merged(before, {"weights": {"DZ": {"forces": 8}}}).weights
    said = {level: weights.model_dump(exclude_none=True) for level, weights in after.items()}
    assert said == {"DZ": {"forces": 8, "energy": 2}, "CC": {"energy": 3}}


def test_weights_are_recorded_and_change_the_training(ani1x_file, tmp_path):
    losses = []
    for name, weight in (("one", "1"), ("four", "4")):
        arguments = ["SF-DZ/EF", "--data", ani1x_file, "--out", tmp_path / name]
        assert exit_code("train", *arguments, "--weight", f"DZ.forces={weight}", *TINY_OPTIONS) == 0
        folder = tmp_path / name / "runs" / "sf_dz_ef" / "seed-0"
        stored = json.loads((folder / "experiment.json").read_text())["settings"]
        assert stored["weights"] == {DZ: {"forces": float(weight)}}
        epoch = json.loads((folder / "epochs.jsonl").read_text().splitlines()[0])
        losses.append(epoch["valid"]["loss"])
    assert losses[1] > 1.5 * losses[0]


def test_a_table_names_weights_and_what_else_is_not_the_papers(tmp_path):
    plain = make_settings("SF-DZ/EF")
    assert recipe_text(plain) == "quick"
    assert recipe_text(plain.model_copy(update={"weights": {DZ: {"forces": 4.0}}})) == (
        "quick, weights DZ forces 4"
    )
    values = {"force_weight": 4.0, "kept_epoch": "last", "ema_decay": 0.99}
    other = {"preset": "robust", "hyperparameters": get_hyperparameters("quick", values)}
    assert recipe_text(plain.model_copy(update=other)) == (
        "robust, weights energy 1, forces 4, hierarchicality 1, kept epoch last, "
        "average of weights 0.99"
    )
    make_run(tmp_path, "SF-DZ/EF", 0, run_metrics({}), weights={DZ: {"forces": 4.0}})
    assert exit_code("tables", tmp_path, "--partial") in (0, 2)
