"""The sums over neighbours of one interaction layer, with adjoint and tangent.

For pairs p = (i, j), groups g of senders with the same y, components c and features a:

    t_pa = Σ_ν s_pν y_gνa,   A_ica = Σ_p R_pc t_pa,   o_ia = A_i0a + Σ_l w_la N_ila,

where N_l = √(Σ_(c of order l) A_c² + ε). The group of a pair is its sender, or in the first layer
the sender's element. Everything that belongs to one sender or receiver stays in the fastest cache
while its pairs are worked through.
"""

from __future__ import annotations

import numpy as np

from hippynn_mf.network.compiled.geometry import Array
from hippynn_mf.network.compiled.kernels import kernel
from hippynn_mf.network.compiled.ordering import Indices


@kernel
def _add_rows(out: Array, weights: Array, rows: Array) -> None:
    """out_a += Σ_k weights_k rows_ka."""
    n, n_features = len(weights), len(out)
    k = 0
    while k + 8 <= n:
        w0, w1, w2, w3 = weights[k], weights[k + 1], weights[k + 2], weights[k + 3]
        w4, w5, w6, w7 = weights[k + 4], weights[k + 5], weights[k + 6], weights[k + 7]
        x0, x1, x2, x3 = rows[k], rows[k + 1], rows[k + 2], rows[k + 3]
        x4, x5, x6, x7 = rows[k + 4], rows[k + 5], rows[k + 6], rows[k + 7]
        for a in range(n_features):
            low = w0 * x0[a] + w1 * x1[a] + w2 * x2[a] + w3 * x3[a]
            out[a] += low + w4 * x4[a] + w5 * x5[a] + w6 * x6[a] + w7 * x7[a]
        k += 8
    while k + 4 <= n:
        w0, w1, w2, w3 = weights[k], weights[k + 1], weights[k + 2], weights[k + 3]
        x0, x1, x2, x3 = rows[k], rows[k + 1], rows[k + 2], rows[k + 3]
        for a in range(n_features):
            out[a] += w0 * x0[a] + w1 * x1[a] + w2 * x2[a] + w3 * x3[a]
        k += 4
    while k < n:
        w0, x0 = weights[k], rows[k]
        for a in range(n_features):
            out[a] += w0 * x0[a]
        k += 1


@kernel
def _add_consecutive(
    out: Array, weights: Array, rows: Array, column: int, start: int, end: int
) -> None:
    """out_a += Σ_p weights_pc rows_pa over p from `start` to before `end`, c being the column."""
    n_features, p = len(out), start
    while p + 4 <= end:
        w0, w1 = weights[p, column], weights[p + 1, column]
        w2, w3 = weights[p + 2, column], weights[p + 3, column]
        x0, x1, x2, x3 = rows[p], rows[p + 1], rows[p + 2], rows[p + 3]
        for a in range(n_features):
            out[a] += w0 * x0[a] + w1 * x1[a] + w2 * x2[a] + w3 * x3[a]
        p += 4
    while p < end:
        w0, x0 = weights[p, column], rows[p]
        for a in range(n_features):
            out[a] += w0 * x0[a]
        p += 1


@kernel
def _add_outer(out: Array, weights: Array, rows: Array, places: Indices) -> None:
    """out_ka += Σ_q weights_qk rows_qa over the rows q in `places`."""
    n, n_features = len(places), out.shape[1]
    q = 0
    while q + 4 <= n:
        p0, p1, p2, p3 = places[q], places[q + 1], places[q + 2], places[q + 3]
        x0, x1, x2, x3 = rows[p0], rows[p1], rows[p2], rows[p3]
        for k in range(len(out)):
            w0, w1, w2, w3 = weights[p0, k], weights[p1, k], weights[p2, k], weights[p3, k]
            row = out[k]
            for a in range(n_features):
                row[a] += w0 * x0[a] + w1 * x1[a] + w2 * x2[a] + w3 * x3[a]
        q += 4
    while q < n:
        p0 = places[q]
        x0 = rows[p0]
        for k in range(len(out)):
            w0, row = weights[p0, k], out[k]
            for a in range(n_features):
                row[a] += w0 * x0[a]
        q += 1


@kernel
def _add_products(out: Array, row: Array, rows: Array) -> None:
    """out_k += Σ_a row_a rows_ka."""
    n, n_features = len(out), len(row)
    k = 0
    while k + 4 <= n:
        x0, x1, x2, x3 = rows[k], rows[k + 1], rows[k + 2], rows[k + 3]
        s0, s1, s2, s3 = out[k], out[k + 1], out[k + 2], out[k + 3]
        for a in range(n_features):
            s0 += row[a] * x0[a]
            s1 += row[a] * x1[a]
            s2 += row[a] * x2[a]
            s3 += row[a] * x3[a]
        out[k], out[k + 1], out[k + 2], out[k + 3] = s0, s1, s2, s3
        k += 4
    while k < n:
        x0, s0 = rows[k], out[k]
        for a in range(n_features):
            s0 += row[a] * x0[a]
        out[k] = s0
        k += 1


@kernel
def sums_forward(
    first: Indices,
    group_first: Indices,
    group_rows: Indices,
    s: Array,
    R: Array,
    y: Array,
    scales: Array,
    cusp: float,
    t: Array,
    A: Array,
    norms: Array,
    out: Array,
) -> None:
    """T (n_pairs, a), A (n, c, a), norms (n, ℓ, a) and out (n, a)."""
    for group in range(len(group_first) - 1):
        for place in range(group_first[group], group_first[group + 1]):
            p = group_rows[place]
            t[p] = 0
            _add_rows(t[p], s[p], y[group])
    n_features, n_components = out.shape[1], R.shape[1]
    for i in range(len(out)):
        Ai, o = A[i], out[i]
        Ai[:] = 0
        for c in range(n_components):
            _add_consecutive(Ai[c], R, t, c, first[i], first[i + 1])
        for a in range(n_features):
            o[a] = Ai[0, a]
        for order in range(len(scales)):
            for a in range(n_features):
                square = out.dtype.type(cusp)
                for c in range((order + 1) ** 2, (order + 2) ** 2):
                    square += Ai[c, a] * Ai[c, a]
                norm = np.sqrt(square)
                norms[i, order, a] = norm
                o[a] += scales[order, a] * norm


@kernel
def sums_adjoint(
    first: Indices,
    group_first: Indices,
    group_rows: Indices,
    s: Array,
    R: Array,
    y: Array,
    scales: Array,
    t: Array,
    A: Array,
    norms: Array,
    out_bar: Array,
    A_bar: Array,
    t_bar: Array,
    s_bar: Array,
    y_bar: Array,
    R_bar: Array,
    scales_bar: Array,
    needs_R: bool,
    needs_y: bool,
    has_sources: bool,
) -> None:
    """Adjoint of `sums_forward`: derivatives of Σ out_bar·out.

    R_bar and scales_bar are added to. With `has_sources`, A_bar, t_bar, s_bar and y_bar are added
    to as well, instead of being set: they hold what `sums_tangent` put there.
    """
    n_features, n_components = out_bar.shape[1], R.shape[1]
    if not has_sources:
        s_bar[:] = 0
        if needs_y:
            y_bar[:] = 0
    for i in range(len(out_bar)):
        Ai, Bi, o = A[i], A_bar[i], out_bar[i]
        if not has_sources:
            Bi[:] = 0
        for a in range(n_features):
            Bi[0, a] += o[a]
        for order in range(len(scales)):
            norm, scale = norms[i, order], scales[order]
            for a in range(n_features):
                scales_bar[order, a] += o[a] * norm[a]
            for c in range((order + 1) ** 2, (order + 2) ** 2):
                for a in range(n_features):
                    Bi[c, a] += o[a] * scale[a] / norm[a] * Ai[c, a]
        for p in range(first[i], first[i + 1]):
            if not has_sources:
                t_bar[p] = 0
            _add_rows(t_bar[p], R[p], Bi)
            if needs_R and n_components > 1:
                _add_products(R_bar[p], t[p], Bi)
    for group in range(len(group_first) - 1):
        places = group_rows[group_first[group] : group_first[group + 1]]
        for p in places:
            _add_products(s_bar[p], t_bar[p], y[group])
        if needs_y:
            _add_outer(y_bar[group], s, t_bar, places)


@kernel
def sums_tangent(
    first: Indices,
    group_first: Indices,
    group_rows: Indices,
    s: Array,
    R: Array,
    y: Array,
    scales: Array,
    t: Array,
    A: Array,
    norms: Array,
    out_bar: Array,
    A_bar: Array,
    t_bar: Array,
    s_dot: Array,
    R_dot: Array,
    y_dot: Array,
    t_dot: Array,
    out_dot: Array,
    A_source: Array,
    t_source: Array,
    s_source: Array,
    y_source: Array,
    R_source: Array,
    scales_source: Array,
    has_y_dot: bool,
    needs_R: bool,
    is_first: bool,
) -> None:
    """Tangent of `sums_forward`, and what its adjoint has to start from.

    The sources are the change of `sums_adjoint` along the tangent with out_bar fixed, each with the
    quantities before it fixed too; they are added to, or set if `is_first`. `scales_source` and
    `R_source` are always added to.
    """
    n_features, n_components = out_dot.shape[1], R.shape[1]
    for group in range(len(group_first) - 1):
        places = group_rows[group_first[group] : group_first[group + 1]]
        if is_first:
            y_source[group] = 0
        for p in places:
            t_dot[p] = 0
            if is_first:
                s_source[p] = 0
                t_source[p] = 0
            _add_rows(t_dot[p], s_dot[p], y[group])
            if has_y_dot:
                _add_rows(t_dot[p], s[p], y_dot[group])
                _add_products(s_source[p], t_bar[p], y_dot[group])
        _add_outer(y_source[group], s_dot, t_bar, places)
    A_dot = np.empty_like(A[0]) if len(A) else np.empty((n_components, n_features), t.dtype)
    norm_dot = np.empty(n_features, t.dtype)
    for i in range(len(out_dot)):
        Ai, Bi, source, o, ob = A[i], A_bar[i], A_source[i], out_dot[i], out_bar[i]
        A_dot[:] = 0
        if is_first:
            source[:] = 0
        for c in range(n_components):
            _add_consecutive(A_dot[c], R, t_dot, c, first[i], first[i + 1])
            _add_consecutive(A_dot[c], R_dot, t, c, first[i], first[i + 1])
        for a in range(n_features):
            o[a] = A_dot[0, a]
        for order in range(len(scales)):
            norm, scale = norms[i, order], scales[order]
            norm_dot[:] = 0
            for c in range((order + 1) ** 2, (order + 2) ** 2):
                for a in range(n_features):
                    norm_dot[a] += Ai[c, a] * A_dot[c, a] / norm[a]
            for a in range(n_features):
                o[a] += scale[a] * norm_dot[a]
                scales_source[order, a] += ob[a] * norm_dot[a]
            for c in range((order + 1) ** 2, (order + 2) ** 2):
                for a in range(n_features):
                    change = A_dot[c, a] - Ai[c, a] * norm_dot[a] / norm[a]
                    source[c, a] += ob[a] * scale[a] / norm[a] * change
        if n_components > 1:
            for p in range(first[i], first[i + 1]):
                _add_rows(t_source[p], R_dot[p], Bi)
                if needs_R:
                    _add_products(R_source[p], t_dot[p], Bi)
