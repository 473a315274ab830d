"""What is done to features of atoms (n_atoms, n_features), one by one."""

from __future__ import annotations

import numpy as np

from hippynn_mf.network.compiled.geometry import Array
from hippynn_mf.network.compiled.kernels import kernel
from hippynn_mf.network.compiled.ordering import Indices
from hippynn_mf.network.compiled.registers import lanes, load, store, valid
from hippynn_mf.network.compiled.vectors import add


@kernel
def copy(x: Array, out: Array) -> None:
    """Out = x, of one shape and consecutive."""
    x_, out_ = x.ravel(), out.ravel()
    for k in range(len(out_)):
        out_[k] = x_[k]


@kernel
def set_rows(row: Array, out: Array) -> None:
    """Every row of out = row."""
    for a in range(0, out.shape[1], lanes(out)):
        mask = valid(out, out.shape[1] - a)
        of_a = load(row, 0, a, mask)
        for i in range(len(out)):
            store(out, i, a, mask, of_a)


@kernel
def add_to_rows(x: Array, row: Array, out: Array) -> None:
    """Every row of out = that of x + row; out may be x."""
    for a in range(0, out.shape[1], lanes(out)):
        mask = valid(out, out.shape[1] - a)
        of_a = load(row, 0, a, mask)
        for i in range(len(out)):
            store(out, i, a, mask, add(load(x, i, a, mask), of_a))


@kernel
def add_sum(rows: Array, out: Array) -> None:
    """Add the sum over the rows."""
    for a in range(0, len(out), lanes(out)):
        mask = valid(out, len(out) - a)
        sum_ = load(out, 0, a, mask)
        for i in range(len(rows)):
            sum_ = add(sum_, load(rows, i, a, mask))
        store(out, 0, a, mask, sum_)


@kernel
def by_element(columns: Array) -> Array:
    """Columns (n_features, n_elements) as rows."""
    rows = np.empty((columns.shape[1], columns.shape[0]), columns.dtype)
    for e in range(len(rows)):
        for a in range(rows.shape[1]):
            rows[e, a] = columns[a, e]
    return rows


@kernel
def add_of_element(of_element: Array, elements: Indices, out: Array) -> None:
    """Add to every row that of its element."""
    for a in range(0, out.shape[1], lanes(out)):
        mask = valid(out, out.shape[1] - a)
        for i in range(len(out)):
            of_i = load(of_element, elements[i], a, mask)
            store(out, i, a, mask, add(load(out, i, a, mask), of_i))


@kernel
def add_sum_by_element(rows: Array, elements: Indices, out: Array) -> None:
    """Add the sum over every element's rows to its column of out (n_features, n_elements)."""
    sums = np.zeros((out.shape[1], out.shape[0]), out.dtype)
    for a in range(0, rows.shape[1], lanes(rows)):
        mask = valid(rows, rows.shape[1] - a)
        for i in range(len(rows)):
            sum_ = add(load(sums, elements[i], a, mask), load(rows, i, a, mask))
            store(sums, elements[i], a, mask, sum_)
    for e in range(len(sums)):
        for a in range(sums.shape[1]):
            out[a, e] += sums[e, a]


@kernel
def times_slope(by_h: Array, slope: Array) -> None:
    """ū = σ h̄, in place."""
    by_h_, slope_ = by_h.ravel(), slope.ravel()
    for k in range(len(by_h_)):
        by_h_[k] *= slope_[k]


@kernel
def times_slope_and_source(by_h: Array, slope: Array, source: Array) -> None:
    """ū = σ h̄ and its source, in place."""
    by_h_, slope_, source_ = by_h.ravel(), slope.ravel(), source.ravel()
    for k in range(len(by_h_)):
        by_h_[k] = by_h_[k] * slope_[k] + source_[k]


@kernel
def activated(
    u_dot: Array, slope: Array, u_bar: Array, source: Array, h_dot: Array, is_first: bool
) -> None:
    """The change of softplus(u); its slope's change acts on the adjoint: σ' = σ (1 − σ)."""
    # u_bar is σ times the derivative by the value, and h_dot is σ u_dot.
    u_dot_, slope_, u_bar_ = u_dot.ravel(), slope.ravel(), u_bar.ravel()
    source_, h_dot_ = source.ravel(), h_dot.ravel()
    for k in range(len(u_dot_)):
        h_dot_[k] = slope_[k] * u_dot_[k]
    if is_first:
        for k in range(len(u_dot_)):
            source_[k] = u_bar_[k] * (u_dot_[k] - h_dot_[k])
    else:
        for k in range(len(u_dot_)):
            source_[k] += u_bar_[k] * (u_dot_[k] - h_dot_[k])
