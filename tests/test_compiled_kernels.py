"""Parts of the compiled kernels: products by BLAS, exponentials, softplus."""

from __future__ import annotations

import importlib.util
import pickle
from pathlib import Path

import numba
import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

from hippynn_mf.network.compiled import activations, preparing, products

LEAST = {np.float32: activations.SINGLE.least, np.float64: activations.DOUBLE.least}
every_precision = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(np.float32, 4e-7), (np.float64, 1e-15)]
)


@every_precision
@pytest.mark.parametrize("n", [1, 7, 16, 1001])
def test_exponentials(dtype, tolerance, n):
    least = LEAST[dtype]
    x = -np.linspace(0, -least, n).astype(dtype)
    found = np.empty_like(x)
    activations.exponentials(x, found)
    np.testing.assert_allclose(found, np.exp(x.astype(np.longdouble)), rtol=tolerance)


@every_precision
def test_exponentials_that_are_not_numbers_or_are_nothing(dtype, tolerance):
    x = np.array([np.nan, -np.inf, -1e4, 0], dtype)
    found = np.empty_like(x)
    activations.exponentials(x, found)
    assert np.isnan(found[0])
    np.testing.assert_allclose(found[1:3], np.exp(LEAST[dtype]), rtol=10 * tolerance)
    assert found[3] == 1


@every_precision
def test_softplus_and_slope_are_torchs(dtype, tolerance):
    u = np.linspace(-40, 40, 3003).astype(dtype).reshape(3, 7, 143)
    u[0, 0, :4] = np.nan, np.inf, 20.0, -np.inf
    value, slope = np.empty_like(u), np.empty_like(u)
    activations.softplus(u, value, slope)
    exact = torch.from_numpy(u).double().requires_grad_(True)
    expected = torch.nn.functional.softplus(exact)
    (by_u,) = torch.autograd.grad(expected.sum(), exact)
    kept = np.isfinite(u)
    for ours, theirs in ((value, expected.detach()), (slope, by_u)):
        np.testing.assert_allclose(ours[kept], theirs.numpy()[kept], rtol=10 * tolerance)
    assert np.isnan(value[0, 0, 0])
    assert np.isnan(slope[0, 0, 0])
    assert (value[0, 0, 1], slope[0, 0, 1]) == (np.inf, 1)
    assert value[0, 0, 3] < 1e-20


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (5, 3, 7), (0, 3, 7), (5, 0, 7), (64, 48, 33)])
def test_products(dtype, sizes):
    n, m, k = sizes
    rng = np.random.default_rng(0)
    x, weight = rng.random((n, m)).astype(dtype), rng.random((k, m)).astype(dtype)
    turned, rows = np.ascontiguousarray(weight.T), rng.random((n, k)).astype(dtype)
    for function, arguments, expected, is_added in (
        (products.rows_by_columns, (x, weight), x @ weight.T, False),
        (products.add_rows_by_columns, (x, weight), x @ weight.T, True),
        (products.product, (x, turned), x @ turned, False),
        (products.add_product, (x, turned), x @ turned, True),
        (products.add_outer, (x, rows), x.T @ rows, True),
    ):
        start = np.full_like(expected, 2)
        found = start.copy()
        function(*arguments, found)
        np.testing.assert_allclose(found, expected + start * is_added, rtol=1e-5)


def test_blas_has_as_many_threads_as_torch():
    assert preparing.why_not_compiled(torch.float32) is None
    pools = [each for each in threadpool_info() if each["user_api"] == "blas"]
    assert pools
    assert all(each["num_threads"] <= torch.get_num_threads() for each in pools)


def test_kernels_that_an_earlier_version_kept_with_types_of_its_own(tmp_path):
    """Their index is read before numba sees that the files have changed."""
    module = tmp_path / "of_a_version.py"
    module.write_text(
        "from hippynn_mf.network.compiled.kernels import kernel\n"
        "@kernel\ndef twice(x):\n    return 2 * x\n"
    )
    spec = importlib.util.spec_from_file_location("of_a_version", module)
    of_a_version = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(of_a_version)
    kept = of_a_version.twice._cache._cache_file
    Path(kept._index_path).parent.mkdir(exist_ok=True)
    gone = b"cno_such_module\nThing\n."  # what pickle calls a type of a module
    Path(kept._index_path).write_bytes(pickle.dumps(numba.__version__) + gone)
    assert of_a_version.twice(3) == 6
    assert kept._load_index()  # it was written anew
