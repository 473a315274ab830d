"""Energies and hierarchicalities of linear heads, by structure.

The atoms' energies e (n_terms, n_atoms, n_heads) are those of every block's features, the first
those of the species. E = Σ e, and hippynn's hierarchicality is
H = Σ_i Σ_l e_l² / (e_l² + e_(l−1)²).
"""

from __future__ import annotations

from hippynn_mf.network.compiled.geometry import Array
from hippynn_mf.network.compiled.kernels import kernel
from hippynn_mf.network.compiled.ordering import Indices


@kernel
def sum_atoms(e: Array, structures: Indices, E: Array, H: Array) -> None:
    """E and H (n_heads, n_structures), given the structure (n_atoms,) of every atom."""
    E[:] = 0
    H[:] = 0
    n_terms, n_atoms, n_heads = e.shape
    for i in range(n_atoms):
        structure = structures[i]
        for head in range(n_heads):
            energy = e[0, i, head]
            for term in range(1, n_terms):
                q, p = e[term, i, head], e[term - 1, i, head]
                energy += q
                H[head, structure] += q * q / (q * q + p * p)
            E[head, structure] += energy


@kernel
def sum_atoms_adjoint(
    e: Array, structures: Indices, E_bar: Array, H_bar: Array, e_bar: Array
) -> None:
    """The derivative of E_bar·E + H_bar·H by e."""
    n_terms, n_atoms, n_heads = e.shape
    for i in range(n_atoms):
        structure = structures[i]
        for head in range(n_heads):
            for term in range(n_terms):
                e_bar[term, i, head] = E_bar[head, structure]
            outer = 2 * H_bar[head, structure]
            for term in range(1, n_terms):
                q, p = e[term, i, head], e[term - 1, i, head]
                q2, p2 = q * q, p * p
                share = outer / ((q2 + p2) * (q2 + p2))
                e_bar[term, i, head] += share * q * p2
                e_bar[term - 1, i, head] -= share * p * q2
