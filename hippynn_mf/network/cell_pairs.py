"""Pairs of atoms and their images, for molecules and crystals in one batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hippynn.graphs.indextypes import IdxType
from hippynn.graphs.nodes.base import AutoNoKw, MultiNode, SingleNode
from hippynn.graphs.nodes.tags import PairIndexer
from torch import Tensor

from hippynn_mf.neighbours import NeighbourLists


def pair_geometry(
    coordinates: Tensor,
    real_atoms: Tensor,
    inv_real_atoms: Tensor,
    pairs: Tensor,
    shifts: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What hippynn's pair finders return: distances, receivers, senders, vectors x_j − x_i + shift.

    `pairs` (n_pairs, 2) number the places of a padded batch, `shifts` (n_pairs, 3) are in Å.
    """
    pair_first, pair_second = inv_real_atoms[pairs].unbind(dim=1)
    atoms = coordinates.flatten(0, 1)[real_atoms]
    vectors = atoms[pair_second] - atoms[pair_first]
    if shifts is not None:
        vectors = vectors + shifts
    return vectors.norm(dim=1), pair_first, pair_second, vectors


class CellPairs(torch.nn.Module):
    """Finds all pairs of atoms and images nearer than a cut-off, in cells of any shape and size."""

    def __init__(self, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff

    def forward(
        self,
        coordinates: Tensor,
        nonblank: Tensor,
        real_atoms: Tensor,
        inv_real_atoms: Tensor,
        cell: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See `pair_geometry`; `cell` (n, 3, 3) is of `Structures`, zeros of molecules."""
        cells = cell.numpy(force=True).astype(np.float64)
        lists = NeighbourLists.of(
            nonblank.numpy(force=True), coordinates.numpy(force=True), self.cutoff, cells
        )
        rows = np.arange(len(nonblank))
        pairs = lists.batch_pairs(rows, nonblank.shape[1]).to(coordinates.device)
        shifts = lists.batch_shifts(rows, cells)
        return pair_geometry(coordinates, real_atoms, inv_real_atoms, pairs, shifts.to(coordinates))


class CellPairIndexer(AutoNoKw, PairIndexer, MultiNode):
    """Node of `CellPairs`: parents positions, nonblank, real_atoms, inv_real_atoms and cell."""

    _input_names = "coordinates", "nonblank", "real_atoms", "inv_real_atoms", "cell"
    _auto_module_class = CellPairs

    def __init__(self, name: str, parents: tuple[Any, ...], dist_hard_max: float) -> None:
        self.dist_hard_max = dist_hard_max
        super().__init__(name, parents)

    def auto_module(self) -> CellPairs:
        """The module of the node."""
        return CellPairs(self.dist_hard_max)


def volume_shares(cell: Tensor) -> Tensor:
    """1/V (n,) of cells (n, 3, 3); 0 of structures that are not periodic along all axes."""
    volumes = torch.linalg.det(cell).abs()
    is_whole = cell.ne(0).any(dim=2).all(dim=1)
    return torch.where(is_whole, 1 / torch.where(is_whole, volumes, 1), 0)


class PairStress(torch.nn.Module):
    """Stress V⁻¹ dE/dε, the sum over pairs of their vector times the derivative by it, over V.

    That is the whole derivative, for energies depend on vectors of pairs alone.
    """

    is_final = False

    def forward(
        self,
        energies: Tensor,
        pair_coord: Tensor,
        pair_first: Tensor,
        mol_index: Tensor,
        n_molecules: int,
        cell: Tensor,
    ) -> Tensor:
        """Stress (n, 3, 3) with ASE's sign; 0 of what is not periodic along all axes."""
        (slopes,) = torch.autograd.grad(
            energies.sum(), pair_coord, create_graph=not self.is_final, retain_graph=True
        )
        products = pair_coord.unsqueeze(2) * slopes.unsqueeze(1)
        sums = products.new_zeros(int(n_molecules), 3, 3)
        virials = sums.index_add(0, mol_index[pair_first], products)
        symmetric = (virials + virials.transpose(1, 2)) / 2
        return symmetric * volume_shares(cell).view(-1, 1, 1)


class FinalPairStress(PairStress):
    """A stress that is final: it cannot be differentiated."""

    is_final = True


class PairStressNode(AutoNoKw, SingleNode):
    """Node of a level's stress: parents its energies, and what `PairStress` takes."""

    _input_names = "energies", "pair_coord", "pair_first", "mol_index", "n_molecules", "cell"
    _index_state = IdxType.Molecules
    _auto_module_class = PairStress

    def __init__(self, name: str, parents: tuple[Any, ...], **keywords: Any) -> None:
        super().__init__(name, parents, module="auto", **keywords)


class FinalPairStressNode(PairStressNode):
    """Node of a stress for predictions: a loss over it has no gradient."""

    _auto_module_class = FinalPairStress
