"""Small products of matrices some of whose rows lie apart, with the sums kept in registers.

`places[start:end]` are rows p of `weights` (n, k), and of a matrix with features a; `first` is the
first of k consecutive rows of another one. `begin` is the first k that counts.

Sums are of four rows at a time, and of two registers of features where registers are short. Where
rows are fewer, the last one is done again instead, which changes nothing.
"""

from __future__ import annotations

from typing import Any

from hippynn_mf.network.compiled.geometry import Array
from hippynn_mf.network.compiled.kernels import inner_kernel, kernel
from hippynn_mf.network.compiled.ordering import Indices
from hippynn_mf.network.compiled.registers import (
    AVX512,
    REGISTER,
    lanes,
    load,
    one,
    store,
    two,
    valid,
    zero,
)
from hippynn_mf.network.compiled.vectors import add_product, add_scaled, put_sums

AT_ONCE = 32  # rows that stay in the fastest cache
IN_TWOS = REGISTER < AVX512


@kernel
def spread(
    places: Indices, start: int, end: int, weights: Array, x: Array, first: int, out: Array,
    begin: int, is_added: bool,
) -> None:  # fmt: skip
    """out_pa = Σ_k weights_pk x_ka, or added to it."""
    n, step = out.shape[1], lanes(out)
    inner = n // (2 * step) * (2 * step) if IN_TWOS else 0
    if inner > 0:
        which = two(out)
        _spread(
            places, start, end, weights, x, first, out, begin, is_added, 0, inner, 2 * step, which
        )
    for a in range(inner, n, step):
        mask = valid(out, n - a)
        _spread(
            places, start, end, weights, x, first, out, begin, is_added, a, a + step, step, mask
        )


@inner_kernel
def _spread(
    places: Indices, start: int, end: int, weights: Array, x: Array, first: int, out: Array,
    begin: int, is_added: bool, since: int, until: int, step: int, which: Any,
) -> None:  # fmt: skip
    """Of the columns from `since` to `until`, `step` at a time, of which those of `which` count."""
    last = end - 1
    for q in range(start, end, 4):
        p0, p1 = places[q], places[min(q + 1, last)]
        p2, p3 = places[min(q + 2, last)], places[min(q + 3, last)]
        for a in range(since, until, step):
            o0, o1, o2, o3 = zero(out, which), zero(out, which), zero(out, which), zero(out, which)
            if is_added:
                o0, o1 = load(out, p0, a, which), load(out, p1, a, which)
                o2, o3 = load(out, p2, a, which), load(out, p3, a, which)
            for k in range(begin, weights.shape[1]):
                row = load(x, first + k, a, which)
                o0 = add_scaled(o0, weights, p0, k, row)
                o1 = add_scaled(o1, weights, p1, k, row)
                o2 = add_scaled(o2, weights, p2, k, row)
                o3 = add_scaled(o3, weights, p3, k, row)
            store(out, p0, a, which, o0)
            store(out, p1, a, which, o1)
            store(out, p2, a, which, o2)
            store(out, p3, a, which, o3)


@kernel
def collect(
    places: Indices, start: int, end: int, weights: Array, x: Array, out: Array, first: int,
    begin: int, is_added: bool,
) -> None:  # fmt: skip
    """out_ka = Σ_p weights_pk x_pa, or added to it."""
    n, step, since = out.shape[1], lanes(out), start
    inner = n // (2 * step) * (2 * step) if IN_TWOS else 0
    while True:  # once where there is nothing, for the zeros
        until = min(end, since + AT_ONCE)
        added = is_added or since > start
        if inner > 0:
            which = two(out)
            _collect(
                places, since, until, weights, x, out, first, begin, added, 0, inner, 2 * step,
                which,
            )  # fmt: skip
        for a in range(inner, n, step):
            mask = valid(out, n - a)
            _collect(
                places, since, until, weights, x, out, first, begin, added, a, a + step, step, mask
            )
        since = until
        if since >= end:
            break


@inner_kernel
def _collect(
    places: Indices, start: int, end: int, weights: Array, x: Array, out: Array, first: int,
    begin: int, is_added: bool, since: int, until: int, step: int, which: Any,
) -> None:  # fmt: skip
    """Of columns as in `_spread`."""
    last = weights.shape[1] - 1
    for k0 in range(begin, last + 1, 4):
        k1, k2, k3 = min(k0 + 1, last), min(k0 + 2, last), min(k0 + 3, last)
        r0, r1, r2, r3 = first + k0, first + k1, first + k2, first + k3
        for a in range(since, until, step):
            o0, o1, o2, o3 = zero(out, which), zero(out, which), zero(out, which), zero(out, which)
            if is_added:
                o0, o1 = load(out, r0, a, which), load(out, r1, a, which)
                o2, o3 = load(out, r2, a, which), load(out, r3, a, which)
            for q in range(start, end):
                p = places[q]
                row = load(x, p, a, which)
                o0 = add_scaled(o0, weights, p, k0, row)
                o1 = add_scaled(o1, weights, p, k1, row)
                o2 = add_scaled(o2, weights, p, k2, row)
                o3 = add_scaled(o3, weights, p, k3, row)
            store(out, r0, a, which, o0)
            store(out, r1, a, which, o1)
            store(out, r2, a, which, o2)
            store(out, r3, a, which, o3)


@kernel
def multiply(
    places: Indices, start: int, end: int, x: Array, y: Array, first: int, out: Array,
    begin: int, is_added: bool,
) -> None:  # fmt: skip
    """out_pk = Σ_a x_pa y_ka, or added to it; k are the columns of `out`."""
    n, last, n_features = out.shape[1], end - 1, x.shape[1]
    step, all_ = lanes(x), one(x)
    rest = n_features % step
    mask = valid(x, rest)
    for q in range(start, end, 2):
        p, p_ = places[q], places[min(q + 1, last)]
        for k in range(begin, n, 4):
            r0, r1 = first + k, first + min(k + 1, n - 1)
            r2, r3 = first + min(k + 2, n - 1), first + min(k + 3, n - 1)
            o0, o1, o2, o3 = zero(x, all_), zero(x, all_), zero(x, all_), zero(x, all_)
            o0_, o1_, o2_, o3_ = zero(x, all_), zero(x, all_), zero(x, all_), zero(x, all_)
            for a in range(0, n_features - rest, step):
                row, row_ = load(x, p, a, all_), load(x, p_, a, all_)
                y0, y1 = load(y, r0, a, all_), load(y, r1, a, all_)
                y2, y3 = load(y, r2, a, all_), load(y, r3, a, all_)
                o0, o0_ = add_product(o0, row, y0), add_product(o0_, row_, y0)
                o1, o1_ = add_product(o1, row, y1), add_product(o1_, row_, y1)
                o2, o2_ = add_product(o2, row, y2), add_product(o2_, row_, y2)
                o3, o3_ = add_product(o3, row, y3), add_product(o3_, row_, y3)
            if rest > 0:
                a = n_features - rest
                row, row_ = load(x, p, a, mask), load(x, p_, a, mask)
                y0, y1 = load(y, r0, a, mask), load(y, r1, a, mask)
                y2, y3 = load(y, r2, a, mask), load(y, r3, a, mask)
                o0, o0_ = add_product(o0, row, y0), add_product(o0_, row_, y0)
                o1, o1_ = add_product(o1, row, y1), add_product(o1_, row_, y1)
                o2, o2_ = add_product(o2, row, y2), add_product(o2_, row_, y2)
                o3, o3_ = add_product(o3, row, y3), add_product(o3_, row_, y3)
            put_sums(out, p, k, n - k, is_added, o0, o1, o2, o3)
            if q < last:
                put_sums(out, p_, k, n - k, is_added, o0_, o1_, o2_, o3_)
