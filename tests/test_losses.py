import io

import pytest
import torch
from conftest import assert_close
from hippynn.experiment import assemble_for_training
from hippynn.graphs.nodes.loss import MAELoss, Mean, MSELoss
from tiny import evaluate, labelled_batch, tiny_model

from hippynn_mf import LossWeights, UserError, build_loss, build_metrics
from hippynn_mf.hyperparameters import Hyperparameters
from hippynn_mf.levels import CC, DZ, TZ
from hippynn_mf.model.predicting import build_predictor

pytestmark = pytest.mark.usefixtures("float64")

NAN = float("nan")
LABELS = [
    pytest.param({"DZ": "E"}, id="one-energy"),
    pytest.param({"CC": "EF"}, id="one-forces"),
    pytest.param({"DZ": "EF", "CC": "E"}, id="two"),
    pytest.param({"DZ": "EF", "TZ": "EF", "MP2": "E", "CC": "E"}, id="four"),
]


def stock_errors(node):
    return MSELoss.of_node(node) ** (1 / 2) + MAELoss.of_node(node)


def stock_energy_terms(head):
    return stock_errors(head.energy) + Mean.of_node(head.energy.hierarchicality)


def stock_loss(heads):
    """Equation 1 as hippynn writes it, where every label is present."""
    terms = [stock_energy_terms(head) for head in heads.values()]
    terms += [stock_errors(head.forces) for head in heads.values() if head.forces is not None]
    return sum(terms[1:], start=terms[0])


def assert_same_gradients(actual, expected):
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient is not None, name
        assert_close(actual[name], gradient)


def rows_of(batch, rows):
    return {name: array[rows] for name, array in batch.items()}


@pytest.mark.parametrize("labels", LABELS)
def test_a_fully_labelled_loss_is_the_stock_equation(labels):
    model = tiny_model(labels)
    batch = labelled_batch(model)
    loss, gradients = evaluate(build_loss(model.heads), model, batch)
    expected, expected_gradients = evaluate(stock_loss(model.heads), model, batch)
    assert_close(loss, expected)
    assert_same_gradients(gradients, expected_gradients)


@pytest.mark.parametrize("missing", ["DZ", "TZ", "CC"])
def test_a_level_without_labels_in_the_batch_leaves_the_loss_of_the_others(missing):
    labels = {"DZ": "EF", "TZ": "EF", "CC": "E"}
    model = tiny_model(labels)
    batch = labelled_batch(model)
    absent = model.heads[missing].level.id
    for name in batch:
        if name.startswith(f"{absent}."):
            batch[name] = torch.full_like(batch[name], NAN)
    loss, gradients = evaluate(build_loss(model.heads), model, batch)

    others = tiny_model({name: value for name, value in labels.items() if name != missing})
    others.parameters.load_state_dict(model.parameters.state_dict(), strict=False)
    expected, expected_gradients = evaluate(build_loss(others.heads), others, batch)
    assert_close(loss, expected)
    for name, gradient in gradients.items():
        if name.startswith(f"heads.{absent}."):
            assert torch.equal(gradient, torch.zeros_like(gradient)), name
        else:
            assert_close(gradient, expected_gradients[name])


def test_a_batch_without_any_label_has_zero_loss_and_zero_gradients():
    model = tiny_model({"DZ": "EF", "CC": "E"})
    batch = labelled_batch(model)
    batch |= {name: array * NAN for name, array in batch.items() if "." in name}
    loss, gradients = evaluate(build_loss(model.heads), model, batch)
    assert loss == 0
    assert all(torch.equal(value, torch.zeros_like(value)) for value in gradients.values())


def test_every_term_is_normalised_by_its_own_labels():
    """Energies and forces of one level, and energies of another, are on different structures."""
    model = tiny_model({"DZ": "EF", "CC": "E"})
    batch = labelled_batch(model)
    rows = {
        DZ.energy_name: torch.tensor([0, 1, 2, 5, 6, 7, 9]),
        DZ.forces_name: torch.tensor([1, 3, 4, 8, 9]),
        CC.energy_name: torch.tensor([2, 7]),
    }
    heads = model.heads
    terms = {
        DZ.energy_name: stock_energy_terms(heads["DZ"]),
        DZ.forces_name: stock_errors(heads["DZ"].forces),
        CC.energy_name: stock_energy_terms(heads["CC"]),
    }
    parts = [evaluate(terms[name], model, rows_of(batch, rows[name])) for name in rows]
    for name, labelled in rows.items():
        kept = torch.zeros(len(batch["species"]), dtype=torch.bool)
        kept[labelled] = True
        batch[name][~kept] = NAN
    loss, gradients = evaluate(build_loss(heads), model, batch)
    assert_close(loss, sum(part[0] for part in parts))
    for name, gradient in gradients.items():
        assert_close(gradient, sum(part[1][name] for part in parts if part[1][name] is not None))


def test_padding_does_not_enter_the_mean_of_the_forces():
    model = tiny_model({"DZ": "EF"})
    batch = labelled_batch(model)
    wider = dict(batch)
    for name in ("species", "positions", DZ.forces_name):
        wider[name] = torch.cat([batch[name], torch.zeros_like(batch[name])], dim=1)
    loss, _ = evaluate(build_loss(model.heads), model, batch)
    assert_close(evaluate(build_loss(model.heads), model, wider)[0], loss)


def test_weights_act_linearly_on_every_level_and_term():
    model = tiny_model({"DZ": "EF", "CC": "EF"})
    batch = labelled_batch(model)
    zero = {"energy": 0.0, "forces": 0.0, "hierarchicality": 0.0}
    factors = iter([0.5, 2.0, 3.0, 0.0, 7.0, 11.0])
    weights, expected = {"DZ": dict(zero), "CC": dict(zero)}, 0.0
    for level, chosen in weights.items():
        for term in zero:
            other = "CC" if level == "DZ" else "DZ"
            alone = {level: LossWeights(**(zero | {term: 1.0})), other: LossWeights(**zero)}
            value, _ = evaluate(build_loss(model.heads, alone), model, batch)
            assert value > 0
            chosen[term] = next(factors)
            expected += chosen[term] * value
    weighted = {level: LossWeights(**values) for level, values in weights.items()}
    assert_close(evaluate(build_loss(model.heads, weighted), model, batch)[0], expected)


def test_levels_that_are_not_weighted_have_weight_one():
    model = tiny_model({"DZ": "EF", "CC": "E"})
    batch = labelled_batch(model)
    twice = {"CC": LossWeights(energy=2.0)}
    spelled_out = twice | {DZ.id: LossWeights(energy=1.0, forces=1.0, hierarchicality=1.0)}
    first, second = (
        evaluate(build_loss(model.heads, weights), model, batch)[0]
        for weights in (twice, spelled_out)
    )
    assert torch.equal(first, second)
    assert first != evaluate(build_loss(model.heads), model, batch)[0]


@pytest.mark.parametrize(
    ("name", "match"),
    [
        pytest.param("TZ", r"Unknown weighted level 'TZ'. Known: wb97x_dz", id="without-head"),
        pytest.param("XX", r"Unknown weighted level 'XX'", id="unknown"),
    ],
)
def test_a_weight_of_a_level_without_head_is_refused(name, match):
    with pytest.raises(UserError, match=match):
        build_loss(tiny_model({"DZ": "E"}).heads, {name: LossWeights()})


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("labels", LABELS)
def test_every_trainable_parameter_gets_a_gradient(labels, order):
    model = tiny_model(labels, tensor_order=order)
    _, gradients = evaluate(build_loss(model.heads), model, labelled_batch(model))
    for name, parameter in model.parameters.named_parameters():
        assert parameter.requires_grad
        assert gradients[name] is not None, name
        assert gradients[name].any(), name


def test_metrics_are_named_by_level_and_computed_over_its_labels():
    model = tiny_model({"DZ": "EF", "CC": "E"})
    batch = labelled_batch(model)
    batch[CC.energy_name][3:] = NAN
    loss = build_loss(model.heads)
    metrics = build_metrics(model.heads, loss)
    assert list(metrics) == [
        "energy_rmse.wb97x_dz",
        "energy_mae.wb97x_dz",
        "force_rmse.wb97x_dz",
        "force_mae.wb97x_dz",
        "energy_rmse.ccsd(t)_cbs",
        "energy_mae.ccsd(t)_cbs",
        "energy_rmse_sum",
        "mae_sum",
        "loss",
    ]
    modules, names = assemble_for_training(loss, metrics)
    predictions = modules.model(*(batch[name].clone() for name in names["inputs"]))
    targets = [batch[name] for name in names["targets"]]
    values = dict(
        zip(modules.evaluator.loss_names, modules.evaluator.loss(*predictions, *targets),
            strict=True)
    )  # fmt: skip

    predicted = build_predictor(model)(species=batch["species"], positions=batch["positions"])
    atoms = batch["species"] > 0
    errors = {
        "energy": (predicted[DZ.energy_name] - batch[DZ.energy_name]),
        "force": (predicted[DZ.forces_name] - batch[DZ.forces_name])[atoms],
    }
    for kind, error in errors.items():
        assert_close(values[f"{kind}_rmse.{DZ.id}"].detach(), error.square().mean().sqrt())
        assert_close(values[f"{kind}_mae.{DZ.id}"].detach(), error.abs().mean())
    error = (predicted[CC.energy_name] - batch[CC.energy_name])[:3]
    assert_close(values[f"energy_rmse.{CC.id}"].detach(), error.square().mean().sqrt())
    assert_close(values[f"energy_mae.{CC.id}"].detach(), error.abs().mean())
    rmse_sum = values[f"energy_rmse.{DZ.id}"] + values[f"energy_rmse.{CC.id}"]
    assert_close(values["energy_rmse_sum"].detach(), rmse_sum.detach())
    absolute = [values[f"energy_mae.{DZ.id}"], values[f"energy_mae.{CC.id}"]]
    absolute.append(values[f"force_mae.{DZ.id}"])
    assert_close(values["mae_sum"].detach(), sum(absolute).detach())
    assert_close(values["loss"].detach(), evaluate(loss, model, batch)[0])


def test_metrics_of_one_level_can_be_assembled():
    heads = tiny_model({"TZ": "E"}).heads
    loss = build_loss(heads)
    modules, _ = assemble_for_training(loss, build_metrics(heads, loss))
    assert set(modules.evaluator.loss_names) == {
        "energy_rmse.wb97x_tz", "energy_mae.wb97x_tz", "energy_rmse_sum",
        "mae_sum", "loss",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "metric"),
    [("sum", "energy_rmse_sum"), ("CC", f"energy_rmse.{CC.id}"), (DZ.id, f"energy_rmse.{DZ.id}")],
)
def test_a_best_model_is_chosen_by_the_sum_or_by_one_level(name, metric):
    heads = tiny_model({"DZ": "EF", "CC": "E"}).heads
    assert Hyperparameters(stopping_metric=name).stopping_key(heads.levels) == metric
    assert metric in build_metrics(heads, build_loss(heads))


@pytest.mark.parametrize("name", ["TZ", TZ.id, "summ", "loss"])
def test_another_stopping_criterion_is_refused(name):
    heads = tiny_model({"DZ": "EF", "CC": "E"}).heads
    match = r"Unknown stopping criterion.*Known: sum, DZ, wb97x_dz, CC, ccsd\(t\)_cbs\."
    with pytest.raises(UserError, match=match):
        Hyperparameters(stopping_metric=name).stopping_key(heads.levels)


def test_assembled_modules_can_be_pickled_as_hippynn_checkpoints_are():
    model = tiny_model({"DZ": "EF", "CC": "E"})
    batch = labelled_batch(model)
    batch[CC.energy_name][4:] = NAN
    loss = build_loss(model.heads, {"CC": LossWeights(energy=3.0)})
    modules, names = assemble_for_training(loss, build_metrics(model.heads, loss))
    file = io.BytesIO()
    torch.save(modules, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    values = []
    for graph, loss_graph, _ in (modules, loaded):
        predictions = graph(*(batch[name].clone() for name in names["inputs"]))
        values.append(loss_graph(*predictions, *(batch[name] for name in names["targets"]))[0])
    assert torch.equal(*values)
    assert loaded.evaluator.loss_names == modules.evaluator.loss_names
