"""Errors over the labelled part of a batch, as plain torch modules.

NaN in a target means that the label is missing. A missing label contributes neither value nor
gradient, and every mean is over the valid labels. Without any, value and gradient are zero. All is
done with tensors on their device: no step waits for a number to come back from it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def masked_errors(predicted: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """Errors with zeros for missing labels, in the shape of `true`, and the number of valid ones.

    `predicted` and `true` have one shape; a mismatch is an error, because broadcasting would
    compare every structure with every other.
    """
    refuse_other_shape(predicted, true)
    valid = torch.isfinite(true)
    # The mask comes before any arithmetic: zero times NaN is NaN.
    errors = torch.where(valid, predicted - torch.where(valid, true, 0), 0)
    return errors, valid.sum()


def refuse_other_shape(predicted: Tensor, true: Tensor) -> None:
    """Raise ValueError if the tensors differ in shape."""
    if predicted.shape != true.shape:
        raise ValueError(
            f"Predicted {tuple(predicted.shape)} and true {tuple(true.shape)} differ in shape."
        )


class MaskedAverage(torch.nn.Module):
    """An average over valid labels: of a sum and a count, which batches can add up first."""

    def forward(self, predicted: Tensor, true: Tensor) -> Tensor:
        """Scalar, zero without a valid label; `predicted` and `true` have one shape."""
        return self.from_sum(*self.sum_and_count(predicted, true))

    def sum_and_count(self, predicted: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
        """The sum over a batch's valid labels, and their number. Both are scalars."""
        raise NotImplementedError

    def from_sum(self, total: Tensor, n_valid: Tensor) -> Tensor:
        """The average over all batches, given their sums and counts added up."""
        return total / n_valid.clamp(min=1)


class MaskedMSE(MaskedAverage):
    """Mean squared error over valid labels, in the squared unit of the labels."""

    def sum_and_count(self, predicted: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of the squared errors, and the number of valid labels."""
        errors, n_valid = masked_errors(predicted, true)
        return errors.square().sum(), n_valid


class MaskedMAE(MaskedAverage):
    """Mean absolute error over valid labels, in the unit of the labels."""

    def sum_and_count(self, predicted: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of the absolute errors, and the number of valid labels."""
        errors, n_valid = masked_errors(predicted, true)
        return errors.abs().sum(), n_valid


class MaskedHuber(MaskedAverage):
    """Mean Huber loss over valid labels: half the square up to `delta`, then linear.

    In the squared unit of the labels; `delta` is in that of the labels.
    """

    def __init__(self, delta: float = 1.0) -> None:
        super().__init__()
        self.delta = delta

    def sum_and_count(self, predicted: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of the losses, and the number of valid labels."""
        errors, n_valid = masked_errors(predicted, true)
        zeros = torch.zeros_like(errors)
        total = torch.nn.functional.huber_loss(errors, zeros, reduction="sum", delta=self.delta)
        return total, n_valid


class MaskedRMSE(MaskedMSE):
    """Root mean squared error over valid labels, in the unit of the labels."""

    def from_sum(self, total: Tensor, n_valid: Tensor) -> Tensor:
        """Scalar; zero with zero gradient where there is no error."""
        mean_square = super().from_sum(total, n_valid)
        # The root has an infinite slope at zero, which would turn a zero gradient into NaN. A
        # mean square that is NaN is not zero: a diverged model must not look perfect.
        zero = mean_square == 0
        return torch.where(zero, 0, torch.where(zero, 1, mean_square).sqrt())


class MaskedMean(MaskedAverage):
    """Mean of a predicted quantity over the structures that have a label.

    `true` only says which structures are labelled; the unit is that of `predicted`.
    """

    def sum_and_count(self, predicted: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
        """Sum over the labelled structures, and their number."""
        refuse_other_shape(predicted, true)
        valid = torch.isfinite(true)
        return torch.where(valid, predicted, 0).sum(), valid.sum()
