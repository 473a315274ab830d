import pytest
import torch
from conftest import assert_close
from torch.autograd import gradcheck, gradgradcheck

from hippynn_mf.model.masked_errors import MaskedMAE, MaskedMean, MaskedMSE, MaskedRMSE

pytestmark = pytest.mark.usefixtures("float64")

NAN = float("nan")


def root_mean_square(predicted, true):
    return torch.nn.functional.mse_loss(predicted, true).sqrt()


ERRORS = [
    pytest.param(MaskedMSE(), torch.nn.functional.mse_loss, id="mse"),
    pytest.param(MaskedRMSE(), root_mean_square, id="rmse"),
    pytest.param(MaskedMAE(), torch.nn.functional.l1_loss, id="mae"),
]
SHAPES = [pytest.param((9, 1), id="energies"), pytest.param((9, 3), id="forces")]
LAYERS = [*(parameters.values[0] for parameters in ERRORS), MaskedMean()]
all_layers = pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)


def random_pair(shape=(9, 1), seed=0):
    generator = torch.Generator().manual_seed(seed)
    predicted = torch.randn(shape, generator=generator).requires_grad_()
    return predicted, torch.randn(shape, generator=generator)


def gradient(value, predicted):
    return torch.autograd.grad(value, predicted)[0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("layer", "plain"), ERRORS)
def test_fully_labelled_error_is_the_plain_error(layer, plain, shape):
    predicted, true = random_pair(shape)
    masked, expected = layer(predicted, true), plain(predicted, true)
    assert_close(masked, expected)
    assert_close(gradient(masked, predicted), gradient(expected, predicted))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("layer", "plain"), ERRORS)
def test_partly_labelled_error_is_the_plain_error_of_the_labelled_rows(layer, plain, shape):
    predicted, true = random_pair(shape)
    labelled = torch.tensor([True, False, True, True, False, False, True, False, True])
    expected = plain(predicted[labelled], true[labelled])
    true[~labelled] = NAN
    masked = layer(predicted, true)
    assert_close(masked, expected)
    assert_close(gradient(masked, predicted), gradient(expected, predicted))
    assert (gradient(layer(predicted, true), predicted)[~labelled] == 0).all()


@all_layers
def test_without_any_label_value_and_gradient_are_exactly_zero(layer):
    predicted, true = random_pair()
    value = layer(predicted, torch.full_like(true, NAN))
    assert value == 0
    assert torch.equal(gradient(value, predicted), torch.zeros_like(predicted))


@all_layers
def test_without_any_structure_the_value_is_zero(layer):
    predicted, true = random_pair((0, 1))
    assert layer(predicted, true) == 0


@pytest.mark.parametrize(("layer", "plain"), ERRORS)
def test_a_zero_error_has_zero_gradient(layer, plain):
    predicted, _ = random_pair()
    value = layer(predicted, predicted.detach().clone())
    assert value == 0
    assert torch.equal(gradient(value, predicted), torch.zeros_like(predicted))


@all_layers
def test_a_nan_prediction_without_a_label_does_not_matter(layer):
    predicted, true = random_pair()
    true[0] = NAN
    expected = layer(predicted, true)
    broken = predicted.detach().clone()
    broken[0] = NAN
    assert_close(layer(broken, true), expected.detach())


@all_layers
def test_a_nan_prediction_with_a_label_is_not_hidden(layer):
    predicted, true = random_pair()
    broken = predicted.detach().clone()
    broken[0] = NAN
    assert layer(broken, true).isnan()


@all_layers
@pytest.mark.parametrize("shape", [(9,), (1, 9), (8, 1), (9, 3)], ids=str)
def test_other_shapes_are_refused(layer, shape):
    predicted, _ = random_pair((9, 1))
    with pytest.raises(ValueError, match=r"Predicted \(9, 1\) and true .* differ in shape"):
        layer(predicted, torch.zeros(shape))


@all_layers
@pytest.mark.parametrize("n_missing", [0, 4])
def test_first_and_second_derivatives_are_right(layer, n_missing):
    predicted, true = random_pair()
    true[:n_missing] = NAN
    assert gradcheck(layer, (predicted, true))
    assert gradgradcheck(layer, (predicted, true))


def test_masked_mean_is_over_the_labelled_structures():
    values = torch.tensor([[1.0], [2.0], [4.0], [8.0]])
    true = torch.tensor([[0.0], [NAN], [-7.0], [NAN]])
    assert_close(MaskedMean()(values, true), torch.tensor(2.5))


def test_masked_mean_ignores_the_values_of_labels():
    predicted, true = random_pair()
    assert torch.equal(MaskedMean()(predicted, true), MaskedMean()(predicted, 5 * true + 1))


@all_layers
def test_sums_of_parts_give_the_average_of_the_whole(layer):
    predicted, true = random_pair((9, 3))
    true[[0, 4, 5]] = NAN  # the second part has no label
    parts = [
        layer.sum_and_count(predicted[rows], true[rows])
        for rows in ([0, 1, 2, 3], [4, 5], [6, 7, 8])
    ]
    totals = [sum(values) for values in zip(*parts, strict=True)]
    assert totals[1] == 18
    together, whole = layer.from_sum(*totals), layer(predicted, true)
    assert_close(together, whole)
    assert_close(gradient(together, predicted), gradient(whole, predicted))
