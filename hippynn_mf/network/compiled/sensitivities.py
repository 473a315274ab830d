"""hippynn's inverse sensitivities with the cosine cutoff, s_ν(r), and their derivatives.

s = g c,  g = exp(−½ δ² σ²),  δ = 1/r − 1/μ,  c = cos²(π r / 2 r_c) up to r_c and 0 beyond.
"""

from __future__ import annotations

import math

import numpy as np

from hippynn_mf.network.compiled.activations import exponentials
from hippynn_mf.network.compiled.geometry import Array
from hippynn_mf.network.compiled.kernels import kernel
from hippynn_mf.network.compiled.registers import lanes, load, store, valid, zero
from hippynn_mf.network.compiled.vectors import add_scaled


@kernel
def sensitivities(
    r: Array,
    mu: Array,
    sigma: Array,
    cutoff: float,
    c: Array,
    g: Array,
    s: Array,
    s1: Array,
) -> None:
    """Set c with its derivative (n_pairs, 2); g, s and s1 = ds/dr (n_pairs, n_sensitivities)."""
    one, half = r.dtype.type(1), r.dtype.type(-0.5)
    k = math.pi / 2 / cutoff
    for p in range(len(r)):
        inverse = one / r[p]
        for n in range(len(mu)):
            t = (inverse - one / mu[n]) * sigma[n]
            s[p, n] = half * t * t
        c[p, 0], c[p, 1] = r.dtype.type(0), r.dtype.type(0)
        if not r[p] > cutoff:  # NaN stays NaN
            angle = r.dtype.type(k * r[p])
            cosine, sine = np.cos(angle), np.sin(angle)
            c[p, 0] = cosine * cosine
            c[p, 1] = r.dtype.type(-2 * k) * sine * cosine
    exponentials(s.ravel(), g.ravel())
    for p in range(len(r)):
        inverse = one / r[p]
        cp, cp1 = c[p, 0], c[p, 1]
        for n in range(len(mu)):
            slope = (inverse - one / mu[n]) * sigma[n] * sigma[n] * inverse * inverse
            s[p, n] = g[p, n] * cp
            s1[p, n] = g[p, n] * (slope * cp + cp1)


@kernel
def distance_adjoint(s1: Array, s_bar: Array, r_bar: Array) -> None:
    """Add Σ_ν s_bar s' to r_bar."""
    for p in range(len(r_bar)):
        total = r_bar[p]
        for n in range(s1.shape[1]):
            total += s_bar[p, n] * s1[p, n]
        r_bar[p] = total


@kernel
def distance_tangent(
    s1: Array, s_bar: Array, r_dot: Array, s_dot: Array, s1_source: Array, is_first: bool
) -> None:
    """Set s_dot along r_dot; s1_source = s_bar r_dot if `is_first`, or else added to it."""
    n = s1.shape[1]
    for p in range(len(r_dot)):
        for k in range(0, n, lanes(s1)):
            mask = valid(s1, n - k)
            store(s_dot, p, k, mask, add_scaled(zero(s1, mask), r_dot, 0, p, load(s1, p, k, mask)))
            start = zero(s1, mask) if is_first else load(s1_source, p, k, mask)
            source = add_scaled(start, r_dot, 0, p, load(s_bar, p, k, mask))
            store(s1_source, p, k, mask, source)


@kernel
def slope_adjoint(
    r: Array, mu: Array, sigma: Array, cutoff: float, g: Array, s1_bar: Array, r_bar: Array
) -> None:
    """Add Σ_ν s1_bar s'' to r_bar."""
    k = math.pi / 2 / cutoff
    for p in range(len(r)):
        if r[p] > cutoff:
            continue
        i = 1 / r[p]
        c = np.cos(k * r[p]) ** 2
        c1, c2 = -k * np.sin(2 * k * r[p]), -2 * k * k * np.cos(2 * k * r[p])
        total = 0.0
        for n in range(len(mu)):
            d, square = i - 1 / mu[n], sigma[n] * sigma[n]
            q = d * square * i * i * c + c1
            q1 = square * i * i * (d * c1 - i * i * c - 2 * d * i * c) + c2
            total += s1_bar[p, n] * g[p, n] * (d * square * i * i * q + q1)
        r_bar[p] += total


@kernel
def parameter_adjoint(
    r: Array,
    mu: Array,
    sigma: Array,
    c: Array,
    g: Array,
    s: Array,
    s1: Array,
    s_bar: Array,
    s1_bar: Array,
    mu_bar: Array,
    sigma_bar: Array,
) -> None:
    """Add derivatives of s_bar·s + s1_bar·s' by μ and σ; `s1_bar` may have no rows, for none."""
    one, two = r.dtype.type(1), r.dtype.type(2)
    by_mu, by_sigma = np.zeros_like(mu), np.zeros_like(sigma)
    for p in range(len(r)):
        i = one / r[p]
        if len(s1_bar) == 0:
            for n in range(len(mu)):
                d = i - one / mu[n]
                a = s_bar[p, n] * s[p, n] * d
                by_mu[n] -= a
                by_sigma[n] -= a * d
        else:
            ic = i * i * c[p, 0]
            for n in range(len(mu)):
                d = i - one / mu[n]
                b = s1_bar[p, n]
                a = (s_bar[p, n] * s[p, n] + b * s1[p, n]) * d
                slope = b * g[p, n] * ic
                by_mu[n] += slope - a
                by_sigma[n] += d * (two * slope - a)
    for n in range(len(mu)):
        mu_bar[n] += by_mu[n] * sigma[n] * sigma[n] / (mu[n] * mu[n])
        sigma_bar[n] += by_sigma[n] * sigma[n]
