"""Weighted errors of predictions where there are labels, with their derivatives, in one pass.

Sums are taken in double precision. NaN or infinity as a label: it is missing; as a prediction it
stays what it is.
"""

from __future__ import annotations

import numpy as np

from hippynn_mf.network.compiled.geometry import Array
from hippynn_mf.network.compiled.kernels import kernel
from hippynn_mf.network.compiled.ordering import Indices


@kernel
def rmse_and_mae(
    predicted: Array, true: Array, species: Indices, weight: float, derivative: Array
) -> float:
    """Weight (RMSE + MAE) over the valid labels; sets its `derivative` by the predictions.

    All are flat. `species` may be none; otherwise there is one for every three numbers, 0 for what
    is no atom and does not count. Without a label, or without an error, the derivative is zero.
    """
    square, absolute, n_valid = 0.0, 0.0, 0
    for i in range(len(true)):
        error = predicted[i] - true[i]
        if np.isfinite(true[i]) and (len(species) == 0 or species[i // 3] > 0):
            n_valid += 1
            square += np.float64(error) * np.float64(error)
            absolute += abs(np.float64(error))
            derivative[i] = error
        else:
            derivative[i] = 0
    n = max(n_valid, 1)
    rmse = np.sqrt(square / n)
    of_sign = weight / n
    of_error = 0.0 if rmse == 0 else of_sign / rmse
    for i in range(len(derivative)):
        error = np.float64(derivative[i])
        derivative[i] = error * of_error + np.sign(error) * of_sign
    return weight * (rmse + absolute / n)


@kernel
def mean_of_labelled(predicted: Array, true: Array, weight: float, derivative: Array) -> float:
    """Weight times the mean prediction where a label is valid; sets its `derivative`."""
    total, n_valid = 0.0, 0
    for i in range(len(true)):
        if np.isfinite(true[i]):
            n_valid += 1
            total += predicted[i]
    share = weight / max(n_valid, 1)
    for i in range(len(true)):
        derivative[i] = share if np.isfinite(true[i]) else 0.0
    return total * share
