"""The sums over neighbours of one interaction layer, with adjoint and tangent.

For pairs p = (i, j), groups g of senders with the same y, components c and features a:

    t_pa = Σ_ν s_pν y_gνa,   A_ica = Σ_p R_pc t_pa,   o_ia = A_i0a + Σ_l w_la N_ila,

where N_l = √(Σ_(c of order l) A_c² + ε). The group of a pair is its sender, or in the first layer
the sender's element. Everything that belongs to one sender or receiver stays in the fastest cache
while its pairs are worked through.

`first` (n_atoms + 1,) says which of the pairs `order` are those of every receiver, `group_first`
which of `group_rows` are those of every group. Arrays are s (n_pairs, ν), R (n_pairs, c),
y (n_groups, ν, a), t (n_pairs, a), A (n_atoms, c, a), norms (n_atoms, l, a), scales w (l, a) and
out (n_atoms, a).
"""

from __future__ import annotations

import numpy as np

from hippynn_mf.network.compiled.geometry import Array
from hippynn_mf.network.compiled.kernels import kernel
from hippynn_mf.network.compiled.norms import norms_adjoint, norms_forward, norms_tangent
from hippynn_mf.network.compiled.ordering import Indices
from hippynn_mf.network.compiled.tiles import collect, multiply, spread


@kernel
def _rows(array: Array) -> Array:
    """The rows of an array (m, n, a), one after another."""
    return array.reshape(array.shape[0] * array.shape[1], array.shape[2])


@kernel
def sums_forward(
    order: Indices,
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
    """Set t, A, norms and out."""
    n_sensitivities, n_components = s.shape[1], R.shape[1]
    all_y, all_A, all_norms = _rows(y), _rows(A), _rows(norms)
    for group in range(len(group_first) - 1):
        start, end = group_first[group], group_first[group + 1]
        spread(group_rows, start, end, s, all_y, group * n_sensitivities, t, 0, False)
    for i in range(len(out)):
        collect(order, first[i], first[i + 1], R, t, all_A, i * n_components, 0, False)
        norms_forward(i, all_A, scales, cusp, all_norms, out)


@kernel
def sums_adjoint(
    order: Indices,
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
    n_sensitivities, n_components = s.shape[1], R.shape[1]
    all_y, all_y_bar, all_A, all_A_bar = _rows(y), _rows(y_bar), _rows(A), _rows(A_bar)
    all_norms = _rows(norms)
    for i in range(len(out_bar)):
        start, end, row = first[i], first[i + 1], i * n_components
        norms_adjoint(i, all_A, scales, all_norms, out_bar, all_A_bar, scales_bar, has_sources)
        spread(order, start, end, R, all_A_bar, row, t_bar, 0, has_sources)
        if needs_R and n_components > 1:
            multiply(order, start, end, t, all_A_bar, row, R_bar, 1, True)
    for group in range(len(group_first) - 1):
        start, end, row = group_first[group], group_first[group + 1], group * n_sensitivities
        multiply(group_rows, start, end, t_bar, all_y, row, s_bar, 0, has_sources)
        if needs_y:
            collect(group_rows, start, end, s, t_bar, all_y_bar, row, 0, has_sources)


@kernel
def sums_tangent(
    order: Indices,
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
    n_sensitivities, n_components = s.shape[1], R.shape[1]
    is_added = not is_first
    all_y, all_y_dot, all_y_source = _rows(y), _rows(y_dot), _rows(y_source)
    all_A, all_A_bar, all_A_source = _rows(A), _rows(A_bar), _rows(A_source)
    all_norms, A_dot = _rows(norms), np.empty((n_components, out_dot.shape[1]), t.dtype)
    if is_first and not has_y_dot:
        s_source[:] = 0
    for group in range(len(group_first) - 1):
        start, end, row = group_first[group], group_first[group + 1], group * n_sensitivities
        spread(group_rows, start, end, s_dot, all_y, row, t_dot, 0, False)
        if has_y_dot:
            spread(group_rows, start, end, s, all_y_dot, row, t_dot, 0, True)
            multiply(group_rows, start, end, t_bar, all_y_dot, row, s_source, 0, is_added)
        collect(group_rows, start, end, s_dot, t_bar, all_y_source, row, 0, is_added)
    for i in range(len(out_dot)):
        start, end, row = first[i], first[i + 1], i * n_components
        collect(order, start, end, R, t_dot, A_dot, 0, 0, False)
        if n_components > 1:
            collect(order, start, end, R_dot, t, A_dot, 0, 1, True)
        norms_tangent(
            i, all_A, A_dot, scales, all_norms, out_bar, out_dot, all_A_source, scales_source,
            is_added,
        )  # fmt: skip
        spread(order, start, end, R_dot, all_A_bar, row, t_source, 1, is_added)
        if needs_R and n_components > 1:
            multiply(order, start, end, t_dot, all_A_bar, row, R_source, 1, True)
