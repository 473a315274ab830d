"""A batch in shares of consecutive structures, each computed by a thread of its own.

Kernels hold no lock, and structures have nothing to do with each other, so threads need not wait
but at the end, where the derivatives of the shares are added in their order: numbers depend on how
many threads torch has, not on which is first.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from threadpoolctl import ThreadpoolController

from hippynn_mf.network.compiled.geometry import Array
from hippynn_mf.network.compiled.ordering import Indices
from hippynn_mf.network.compiled.whole import (
    Cells,
    Parameters,
    WholeNetwork,
    WholePass,
    run_vectors,
    run_whole,
    whole_gradients,
)

T = TypeVar("T")

# Weighted features (atoms × features × sensitivities) of a share, at least: a pass of fewer is
# mostly Python, which threads take in turn.
LEAST_SHARE = 2**18


@dataclass(frozen=True)
class SharedPass:
    """The passes of all shares, which begin and end at `bounds`.

    `energies` and `hierarchicalities` are (n_heads, n), `forces` (n, n_atoms_max, 3) and `stress`
    (n, 3, 3) by level.
    """

    passes: list[WholePass]
    bounds: Indices
    energies: Array
    hierarchicalities: Array
    forces: dict[int, Array]
    stress: dict[int, Array]

    def gradients(
        self,
        by_energies: Array,
        by_hierarchicalities: Array,
        by_forces: Sequence[Array | None],
        by_stress: Sequence[Array | None] = (),
    ) -> Array:
        """As `whole_gradients`, of all shares together."""
        if len(self.passes) == 1:
            by = by_energies, by_hierarchicalities, by_forces, by_stress
            return whole_gradients(self.passes[0], *by)

        def of_share(k: int) -> Array:
            part = slice(self.bounds[k], self.bounds[k + 1])
            forces = [None if each is None else each[part] for each in by_forces]
            return whole_gradients(
                self.passes[k],
                np.ascontiguousarray(by_energies[:, part]),
                np.ascontiguousarray(by_hierarchicalities[:, part]),
                forces,
                [None if each is None else each[part] for each in by_stress],
            )

        total, *others = _in_threads(of_share, len(self.passes))
        for gradients in others:
            total += gradients
        return total


def run_shares(
    network: WholeNetwork,
    parameters: Parameters,
    species: Indices,
    positions: Array,
    pairs: Indices,
    cells: Cells | None = None,
) -> SharedPass:
    """A pass of a padded batch (n, n_atoms_max), in as many shares as torch has threads.

    `pairs` (n_pairs, 2) number the places of the batch. Small batches have fewer shares.
    """
    n_shares = min(_n_shares(network, int(np.count_nonzero(species))), max(1, len(species)))
    bounds, parts, chosen = _cut(species, pairs, n_shares)

    def of_share(k: int) -> WholePass:
        part = slice(bounds[k], bounds[k + 1])
        of_part = None
        if cells is not None:
            shifts = cells.shifts if len(parts) == 1 else cells.shifts[chosen[k]]
            of_part = Cells(shifts, cells.volume_shares[part])
        return run_whole(network, parameters, species[part], positions[part], parts[k], of_part)

    passes = _in_threads(of_share, len(parts))
    levels, with_stress = network.readout.with_forces, network.readout.with_stress
    if len(passes) == 1:
        (only,) = passes
        forces = dict(zip(levels, only.forces, strict=True))
        stress = dict(zip(with_stress, only.stress, strict=True))
        return SharedPass(passes, bounds, only.energies, only.hierarchicalities, forces, stress)
    return SharedPass(
        passes,
        bounds,
        np.concatenate([each.energies for each in passes], axis=1),
        np.concatenate([each.hierarchicalities for each in passes], axis=1),
        {
            level: np.concatenate([each.forces[k] for each in passes])
            for k, level in enumerate(levels)
        },
        {
            level: np.concatenate([each.stress[k] for each in passes])
            for k, level in enumerate(with_stress)
        },
    )


def run_systems(
    network: WholeNetwork,
    parameters: Parameters,
    elements: Indices,
    pairs: Indices,
    vectors: Array,
    sizes: Sequence[int],
    slopes_of: Sequence[int],
) -> tuple[Array, Array]:
    """As `run_vectors`, in shares of whole systems of `sizes` atoms, one after another.

    Pairs of a system come before those of the next one.
    """
    n_shares = min(_n_shares(network, len(elements)), len(sizes))
    if n_shares == 1:
        return run_vectors(network, parameters, elements, pairs, vectors, slopes_of)
    ends = np.cumsum(sizes)
    inner = np.searchsorted(ends, ends[-1] * np.arange(1, n_shares) / n_shares) + 1
    systems = np.unique([0, *inner, len(sizes)])
    atoms = np.concatenate([[0], ends])[systems]
    first_pairs = np.searchsorted(np.searchsorted(ends, pairs[:, 0], side="right"), systems)

    def of_share(k: int) -> tuple[Array, Array]:
        part = slice(atoms[k], atoms[k + 1])
        of_pairs = slice(first_pairs[k], first_pairs[k + 1])
        own_pairs = pairs[of_pairs] - atoms[k]
        return run_vectors(
            network, parameters, elements[part], own_pairs, vectors[of_pairs], slopes_of
        )

    energies, slopes = zip(*_in_threads(of_share, len(atoms) - 1), strict=True)
    return np.concatenate(energies, axis=1), np.concatenate(slopes, axis=1)


def _n_shares(network: WholeNetwork, n_atoms: int) -> int:
    """As many as torch has threads; fewer of a small batch."""
    width = network.layout.blocks[-1].interaction.weights
    n_wanted = n_atoms * width.shape[0] * width.shape[1] // LEAST_SHARE
    return max(1, min(torch.get_num_threads(), int(n_wanted)))


def _cut(
    species: Indices, pairs: Indices, n_shares: int
) -> tuple[Indices, list[Indices], list[Indices]]:
    """Bounds (n_shares + 1,) between structures, and the pairs of each share, by its own places.

    And which of the pairs they are; of a single share, that is left out.
    """
    n_structures, width = species.shape
    if n_shares == 1:
        return np.array([0, n_structures]), [pairs], []
    structure_of_pair = pairs[:, 0] // width
    # A structure counts by its pairs and, where atoms are alone, by its atoms.
    counts = np.bincount(structure_of_pair, minlength=n_structures) + np.count_nonzero(species, 1)
    until = np.cumsum(counts)
    inner = np.searchsorted(until, until[-1] * np.arange(1, n_shares) / n_shares) + 1
    bounds = np.unique([0, *inner, n_structures])
    share_of_pair = np.searchsorted(bounds[1:], structure_of_pair, side="right")
    chosen = [np.flatnonzero(share_of_pair == k) for k in range(len(bounds) - 1)]
    parts = [
        np.ascontiguousarray(pairs[of_share] - bounds[k] * width)
        for k, of_share in enumerate(chosen)
    ]
    return bounds, parts, chosen


def _in_threads(function: Callable[[int], T], n: int) -> list[T]:
    """The results for 0 to n - 1, each by a thread; matrix products take one thread then."""
    if n == 1:
        return [function(0)]
    with _blas().limit(limits=1):
        return list(_threads(n).map(function, range(n)))


@functools.cache
def _blas() -> ThreadpoolController:
    controller: ThreadpoolController = ThreadpoolController().select(user_api="blas")
    return controller


@functools.cache
def _threads(n: int) -> ThreadPoolExecutor:
    os.register_at_fork(after_in_child=_threads.cache_clear)  # a child has none of them
    return ThreadPoolExecutor(n, thread_name_prefix="hippynn_mf")
