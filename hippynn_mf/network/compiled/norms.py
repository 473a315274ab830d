"""What an interaction layer makes of an atom's sums A over its neighbours; symbols as in `sums.py`.

o_a = A_0a + Σ_l w_la N_la with N_l = √(Σ_(c of order l) A_c² + ε), for one atom i. A and norms have
their rows (n_atoms * n_components or ℓ, n_features) one after another.
"""

from __future__ import annotations

from hippynn_mf.network.compiled.geometry import Array
from hippynn_mf.network.compiled.kernels import kernel
from hippynn_mf.network.compiled.registers import lanes, load, store, valid, zero
from hippynn_mf.network.compiled.vectors import (
    add,
    add_product,
    product,
    ratio,
    root,
    same,
    subtract_product,
)


@kernel
def norms_forward(i: int, A: Array, scales: Array, cusp: float, norms: Array, out: Array) -> None:
    """Set norms and out."""
    orders, n_features = len(scales), out.shape[1]
    row = i * (orders + 1) ** 2
    for a in range(0, n_features, lanes(out)):
        mask = valid(out, n_features - a)
        o = load(A, row, a, mask)
        for order in range(orders):
            square = same(out, cusp)
            for c in range((order + 1) ** 2, (order + 2) ** 2):
                of_c = load(A, row + c, a, mask)
                square = add_product(square, of_c, of_c)
            norm = root(square)
            store(norms, i * orders + order, a, mask, norm)
            o = add_product(o, load(scales, order, a, mask), norm)
        store(out, i, a, mask, o)


@kernel
def norms_adjoint(
    i: int, A: Array, scales: Array, norms: Array, out_bar: Array, A_bar: Array,
    scales_bar: Array, is_added: bool,
) -> None:  # fmt: skip
    """Set A_bar, or add to it; add to scales_bar."""
    orders, n_features = len(scales), out_bar.shape[1]
    row = i * (orders + 1) ** 2
    for a in range(0, n_features, lanes(A)):
        mask = valid(A, n_features - a)
        o = load(out_bar, i, a, mask)
        store(A_bar, row, a, mask, add(load(A_bar, row, a, mask), o) if is_added else o)
        for order in range(orders):
            norm = load(norms, i * orders + order, a, mask)
            of_scale = load(scales_bar, order, a, mask)
            store(scales_bar, order, a, mask, add_product(of_scale, o, norm))
            per_A = ratio(product(o, load(scales, order, a, mask)), norm)
            for c in range((order + 1) ** 2, (order + 2) ** 2):
                start = load(A_bar, row + c, a, mask) if is_added else zero(A, mask)
                of_c = load(A, row + c, a, mask)
                store(A_bar, row + c, a, mask, add_product(start, per_A, of_c))


@kernel
def norms_tangent(
    i: int, A: Array, A_dot: Array, scales: Array, norms: Array, out_bar: Array, out_dot: Array,
    A_source: Array, scales_source: Array, is_added: bool,
) -> None:  # fmt: skip
    """Set out_dot along A_dot (n_components, n_features).

    Sets A_source, or adds to it, and adds to scales_source: the change of `norms_adjoint`.
    """
    orders, n_features = len(scales), out_dot.shape[1]
    row = i * (orders + 1) ** 2
    for a in range(0, n_features, lanes(A)):
        mask = valid(A, n_features - a)
        o, bar = load(A_dot, 0, a, mask), load(out_bar, i, a, mask)
        if not is_added:
            store(A_source, row, a, mask, zero(A, mask))
        for order in range(orders):
            norm, scale = load(norms, i * orders + order, a, mask), load(scales, order, a, mask)
            norm_dot = zero(A, mask)
            for c in range((order + 1) ** 2, (order + 2) ** 2):
                of_c = load(A, row + c, a, mask)
                norm_dot = add_product(norm_dot, of_c, load(A_dot, c, a, mask))
            norm_dot = ratio(norm_dot, norm)
            o = add_product(o, scale, norm_dot)
            of_scale = load(scales_source, order, a, mask)
            store(scales_source, order, a, mask, add_product(of_scale, bar, norm_dot))
            per_A, per_norm = ratio(product(bar, scale), norm), ratio(norm_dot, norm)
            for c in range((order + 1) ** 2, (order + 2) ** 2):
                start = load(A_source, row + c, a, mask) if is_added else zero(A, mask)
                of_c = load(A, row + c, a, mask)
                change = subtract_product(load(A_dot, c, a, mask), of_c, per_norm)
                store(A_source, row + c, a, mask, add_product(start, per_A, change))
        store(out_dot, i, a, mask, o)
