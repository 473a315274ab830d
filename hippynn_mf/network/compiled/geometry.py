"""Distances r and tensor components R of pair vectors v, with their derivatives.

R is 1, then the unit vector u, then the five components of the traceless u uᵀ in the orthonormal
basis of `pair_layouts.quadrupole_basis`. For ℓ = 0, R is 1 alone, and v
may have one column, the distance.

`v_bar` (n_pairs, 3 or 1) is in the order of the given list, everything else sorted by receiver.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from hippynn_mf.network.compiled.kernels import kernel
from hippynn_mf.network.compiled.ordering import Indices

Array = npt.NDArray[np.floating]

S2 = math.sqrt(2.0)
S6 = math.sqrt(6.0)


@kernel
def pair_vectors(positions: Array, pairs: Indices, v: Array) -> None:
    """v_p = x_j − x_i of pairs (n_pairs, 2) of receivers i and senders j: (n_pairs, 3)."""
    for p in range(len(pairs)):
        i, j = pairs[p, 0], pairs[p, 1]
        for a in range(3):
            v[p, a] = positions[j, a] - positions[i, a]


@kernel
def pair_vectors_adjoint(v_bar: Array, pairs: Indices, positions_bar: Array) -> None:
    """The derivative of v_bar·v by the positions."""
    positions_bar[:] = 0
    for p in range(len(pairs)):
        i, j = pairs[p, 0], pairs[p, 1]
        for a in range(3):
            positions_bar[j, a] += v_bar[p, a]
            positions_bar[i, a] -= v_bar[p, a]


@kernel
def add_virials(v: Array, v_bar: Array, structures: Indices, virials: Array) -> None:
    """Add the symmetric part of Σ v v_barᵀ over the pairs of each structure: (n, 3, 3)."""
    for p in range(len(v)):
        virial = virials[structures[p]]
        for a in range(3):
            for b in range(3):
                virial[a, b] += (v[p, a] * v_bar[p, b] + v[p, b] * v_bar[p, a]) / 2


@kernel
def add_virials_adjoint(v: Array, structures: Indices, virials_bar: Array, v_bar: Array) -> None:
    """Add the derivative of Σ virials_bar·virials by v_bar, whose place it takes: (n_pairs, 3)."""
    for p in range(len(v)):
        bar = virials_bar[structures[p]]
        for a in range(3):
            for b in range(3):
                v_bar[p, a] += (bar[a, b] + bar[b, a]) / 2 * v[p, b]


@kernel
def _components(u: Array, R: Array) -> None:
    if len(R) == 1:
        return
    x, y, z = u[0], u[1], u[2]
    R[1], R[2], R[3] = x, y, z
    if len(R) == 9:
        R[4], R[5], R[6] = S2 * x * y, S2 * x * z, S2 * y * z
        R[7] = (x * x - y * y) / S2
        R[8] = (2 * z * z - x * x - y * y) / S6


@kernel
def _times_quadrupole(R: Array, x: float, y: float, z: float) -> tuple[float, float, float]:
    """2 M (x, y, z), where uᵀ M u is the quadrupole's part of R_bar·R(u)."""
    if len(R) < 9:
        return 0.0, 0.0, 0.0
    along = 2 / S6 * R[8]
    return (
        S2 * (R[4] * y + R[5] * z + R[7] * x) - along * x,
        S2 * (R[4] * x + R[6] * z - R[7] * y) - along * y,
        S2 * (R[5] * x + R[6] * y) + 2 * along * z,
    )


@kernel
def geometry(v: Array, given: Indices, r: Array, u: Array, R: Array) -> None:
    """r, u and R of the vectors v."""
    for p in range(len(given)):
        vp, up = v[given[p]], u[p]
        R[p, 0] = 1
        if len(vp) == 1:
            r[p] = vp[0]
            up[0] = 1
        else:
            r[p] = np.sqrt(vp[0] * vp[0] + vp[1] * vp[1] + vp[2] * vp[2])
            for a in range(3):
                up[a] = vp[a] / r[p]
            _components(up, R[p])


@kernel
def geometry_adjoint(
    given: Indices, r: Array, u: Array, r_bar: Array, R_bar: Array, v_bar: Array
) -> None:
    """Add the derivative of r_bar·r + R_bar·R by v to `v_bar`."""
    for p in range(len(given)):
        vp, up, q = v_bar[given[p]], u[p], R_bar[p]
        if len(up) == 1:
            vp[0] += r_bar[p]
            continue
        x, y, z = up[0], up[1], up[2]
        if len(q) == 1:
            vp[0] += x * r_bar[p]
            vp[1] += y * r_bar[p]
            vp[2] += z * r_bar[p]
            continue
        wx, wy, wz = _times_quadrupole(q, x, y, z)
        wx, wy, wz = wx + q[1], wy + q[2], wz + q[3]
        radial = r_bar[p] - (wx * x + wy * y + wz * z) / r[p]
        vp[0] += x * radial + wx / r[p]
        vp[1] += y * radial + wy / r[p]
        vp[2] += z * radial + wz / r[p]


@kernel
def geometry_tangent(
    given: Indices, r: Array, u: Array, v_dot: Array, r_dot: Array, R_dot: Array
) -> None:
    """r_dot and R_dot along v_dot, which is in the order of the given list."""
    for p in range(len(given)):
        dv, up, q = v_dot[given[p]], u[p], R_dot[p]
        q[0] = 0
        if len(up) == 1:
            r_dot[p] = dv[0]
            continue
        x, y, z = up[0], up[1], up[2]
        d = x * dv[0] + y * dv[1] + z * dv[2]
        r_dot[p] = d
        if len(q) == 1:
            continue
        ax, ay, az = (dv[0] - x * d) / r[p], (dv[1] - y * d) / r[p], (dv[2] - z * d) / r[p]
        q[1], q[2], q[3] = ax, ay, az
        if len(q) == 9:
            q[4] = S2 * (x * ay + y * ax)
            q[5] = S2 * (x * az + z * ax)
            q[6] = S2 * (y * az + z * ay)
            q[7] = S2 * (x * ax - y * ay)
            q[8] = 2 / S6 * (2 * z * az - x * ax - y * ay)


@kernel
def geometry_adjoint_tangent(
    given: Indices, r: Array, u: Array, v_dot: Array, r_bar: Array, R_bar: Array, v_bar: Array
) -> None:
    """Add the change of `geometry_adjoint` along v_dot, with r_bar and R_bar fixed, to `v_bar`."""
    for p in range(len(given)):
        up = u[p]
        if len(up) == 1:
            continue  # the adjoint does not depend on the distance
        vp, dv, q = v_bar[given[p]], v_dot[given[p]], R_bar[p]
        x, y, z = up[0], up[1], up[2]
        d = x * dv[0] + y * dv[1] + z * dv[2]
        ax, ay, az = (dv[0] - x * d) / r[p], (dv[1] - y * d) / r[p], (dv[2] - z * d) / r[p]
        if len(q) == 1:
            vp[0] += ax * r_bar[p]
            vp[1] += ay * r_bar[p]
            vp[2] += az * r_bar[p]
            continue
        wx, wy, wz = _times_quadrupole(q, x, y, z)
        wx, wy, wz = wx + q[1], wy + q[2], wz + q[3]
        w_dx, w_dy, w_dz = _times_quadrupole(q, ax, ay, az)
        c = wx * x + wy * y + wz * z
        c_dot = wx * ax + wy * ay + wz * az + w_dx * x + w_dy * y + w_dz * z
        radial = r_bar[p] - c / r[p]
        radial_dot = (c * d / r[p] - c_dot) / r[p]
        vp[0] += ax * radial + x * radial_dot + (w_dx - wx * d / r[p]) / r[p]
        vp[1] += ay * radial + y * radial_dot + (w_dy - wy * d / r[p]) / r[p]
        vp[2] += az * radial + z * radial_dot + (w_dz - wz * d / r[p]) / r[p]
