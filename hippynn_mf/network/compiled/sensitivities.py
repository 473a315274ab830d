"""hippynn's inverse sensitivities with the cosine cutoff, s_ν(r), and their derivatives.

s = g c,  g = exp(−½ δ² σ²),  δ = 1/r − 1/μ,  c = cos²(π r / 2 r_c) up to r_c and 0 beyond.
"""

from __future__ import annotations

import math

import numpy as np

from hippynn_mf.network.compiled.geometry import Array
from hippynn_mf.network.compiled.kernels import kernel


@kernel
def exponents(r: Array, mu: Array, sigma: Array, least: float, exponent: Array) -> None:
    """−½ δ² σ²: (n_pairs, n_sensitivities), not below `least`.

    Beside the others what is left then is nothing; denormal numbers would make arithmetic slow.
    """
    one = r.dtype.type(1)
    half = r.dtype.type(-0.5)
    lowest = r.dtype.type(least)
    for p in range(len(r)):
        inverse = one / r[p]
        for n in range(len(mu)):
            t = (inverse - one / mu[n]) * sigma[n]
            value = half * t * t
            exponent[p, n] = lowest if value < lowest else value  # NaN stays NaN


@kernel
def sensitivities(
    r: Array, mu: Array, sigma: Array, cutoff: float, g: Array, s: Array, s1: Array
) -> None:
    """S and s1 = ds/dr, given g."""
    one = r.dtype.type(1)
    k = math.pi / 2 / cutoff
    for p in range(len(r)):
        inverse = one / r[p]
        c, c1 = r.dtype.type(0), r.dtype.type(0)
        if not r[p] > cutoff:  # NaN stays NaN
            c = r.dtype.type(np.cos(k * r[p]) ** 2)
            c1 = r.dtype.type(-k * np.sin(2 * k * r[p]))
        for n in range(len(mu)):
            slope = (inverse - one / mu[n]) * sigma[n] * sigma[n] * inverse * inverse
            s[p, n] = g[p, n] * c
            s1[p, n] = g[p, n] * (slope * c + c1)


@kernel
def distance_adjoint(s1: Array, s_bar: Array, r_bar: Array) -> None:
    """Add Σ_ν s_bar s' to r_bar."""
    for p in range(len(r_bar)):
        total = r_bar[p]
        for n in range(s1.shape[1]):
            total += s_bar[p, n] * s1[p, n]
        r_bar[p] = total


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
    cutoff: float,
    g: Array,
    s: Array,
    s1: Array,
    s_bar: Array,
    s1_bar: Array,
    mu_bar: Array,
    sigma_bar: Array,
) -> None:
    """Derivatives of s_bar·s + s1_bar·s' by μ and σ; `s1_bar` may have no rows, for none."""
    one, two = r.dtype.type(1), r.dtype.type(2)
    k = math.pi / 2 / cutoff
    mu_bar[:] = 0
    sigma_bar[:] = 0
    for p in range(len(r)):
        i = one / r[p]
        if len(s1_bar) == 0:
            for n in range(len(mu)):
                d = i - one / mu[n]
                a = s_bar[p, n] * s[p, n] * d
                mu_bar[n] -= a
                sigma_bar[n] -= a * d
        else:
            c = r.dtype.type(0)
            if not r[p] > cutoff:
                c = i * i * r.dtype.type(np.cos(k * r[p]) ** 2)
            for n in range(len(mu)):
                d = i - one / mu[n]
                b = s1_bar[p, n]
                a = (s_bar[p, n] * s[p, n] + b * s1[p, n]) * d
                slope = b * g[p, n] * c
                mu_bar[n] += slope - a
                sigma_bar[n] += d * (two * slope - a)
    for n in range(len(mu)):
        mu_bar[n] *= sigma[n] * sigma[n] / (mu[n] * mu[n])
        sigma_bar[n] *= sigma[n]
