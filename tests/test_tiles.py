"""Small products with sums in registers, beside NumPy's."""

from __future__ import annotations

import numpy as np
import pytest

from hippynn_mf.network.compiled.tiles import AT_ONCE, collect, multiply, spread

# Fewer and more than a register, tile and block have; the last are none.
SIZES = [(1, 1, 1), (7, 3, 5), (48, 16, 8), (20, 9, AT_ONCE + 3), (33, 5, 4), (8, 4, 0)]
both_types = pytest.mark.parametrize("dtype", [np.float32, np.float64])
all_sizes = pytest.mark.parametrize(("n_features", "n", "n_places"), SIZES)


def arrays(n_features, n, n_places, dtype, seed=0):
    """Weights and rows of pairs, other rows, and places that lie apart, with some before them."""
    rng = np.random.default_rng(seed)
    n_pairs, first = 2 * n_places + 3, 2
    weights, pairs = rng.normal(size=(n_pairs, n)), rng.normal(size=(n_pairs, n_features))
    rows = rng.normal(size=(n + 5, n_features))
    places = rng.permutation(n_pairs)[: n_places + 1]
    return (*(each.astype(dtype) for each in (weights, pairs, rows)), places, first)


def assert_equal(found, expected):
    tolerance = 1e-4 if found.dtype == np.float32 else 1e-12
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@both_types
@all_sizes
@pytest.mark.parametrize("is_added", [False, True])
def test_products_are_those_of_matrices(n_features, n, n_places, dtype, is_added):
    weights, pairs, rows, places, first = arrays(n_features, n, n_places, dtype)
    start, end = 1, n_places + 1
    chosen, part = places[start:end], slice(first, first + n)
    before = int(is_added)

    found, expected = pairs.copy(), pairs.copy()
    expected[chosen] = before * pairs[chosen] + weights[chosen] @ rows[part]
    spread(places, start, end, weights, rows, first, found, 0, is_added)
    assert_equal(found, expected)

    found, expected = rows.copy(), rows.copy()
    expected[part] = before * rows[part] + weights[chosen].T @ pairs[chosen]
    collect(places, start, end, weights, pairs, found, first, 0, is_added)
    assert_equal(found, expected)

    found, expected = weights.copy(), weights.copy()
    expected[chosen] = before * weights[chosen] + pairs[chosen] @ rows[part].T
    multiply(places, start, end, pairs, rows, first, found, 0, is_added)
    assert_equal(found, expected)


@both_types
def test_nan_stays_where_it_is(dtype):
    weights, pairs, rows, places, first = arrays(9, 3, 6, dtype)
    pairs[places[2], 4] = np.nan
    collect(places, 0, 6, weights, pairs, rows, first, 0, False)
    assert np.isnan(rows[first : first + 3, 4]).all()
    rows[:, 4] = 0
    assert np.isfinite(rows).all()
    multiply(places, 0, 6, pairs, rows, first, weights, 0, False)
    assert np.isnan(weights[places[2]]).all()
    assert np.isfinite(np.delete(weights, places[2], axis=0)).all()
