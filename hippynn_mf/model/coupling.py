"""Coupled heads: a level's energy as a lower level's plus a learned linear correction.

Both heads are linear in the same features, so their sum is a linear head again: coupling changes
how a model is trained (what starts small, and what the hierarchicality holds down), not what it can
represent. `fold` makes independent heads of coupled ones, with the same numbers.

In experiments with eight seeds on two pairs of levels (docs/coupled-heads.md) that improves the
forces of a level that has energies alone. A possible reason: independent heads have to learn from
energies which combination of features makes a force; a coupled one begins with the lower level's
forces and has to learn what is wrong with them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from hippynn.graphs import find_unique_relative
from hippynn.graphs.nodes.indexers import PaddingIndexer
from hippynn.graphs.nodes.tags import Network
from hippynn.graphs.nodes.targets import HEnergyNode
from hippynn.layers.targets import HEnergy
from torch import Tensor


class CoupledHEnergy(HEnergy):
    """hippynn's `HEnergy`, added to the energy of a lower level.

    Its layers hold the correction, and hierarchicality is that of the correction alone.
    """

    def forward(
        self,
        all_features: list[Tensor],
        mol_index: Tensor,
        n_molecules: int,
        lower_energies: Tensor,
        lower_atom_energies: Tensor,
    ) -> tuple[Any, ...]:
        """What `HEnergy` returns, with the lower energies in those of structures and atoms."""
        energies, of_atoms, terms, *hierarchicalities = super().forward(
            all_features, mol_index, n_molecules
        )
        return (
            energies + lower_energies,
            of_atoms + lower_atom_energies,
            [term + lower_energies for term in terms],
            *hierarchicalities,
        )


class CoupledHEnergyNode(HEnergyNode):
    """Node of a level's energy, `CoupledHEnergyNode(name, (network, energy of a lower level))`."""

    _input_names = (*HEnergyNode._input_names, "lower_energies", "lower_atom_energies")
    _auto_module_class = CoupledHEnergy

    @_parent_expander.match(Network, HEnergyNode)  # type: ignore  # noqa: F821
    def expansion_coupled(
        self, network: Any, lower: HEnergyNode, **keywords: Any
    ) -> tuple[Any, ...]:
        """Features of the network, and the energies of the lower level."""
        self.module_kwargs.setdefault("feature_sizes", network.torch_module.feature_sizes)
        indexer = find_unique_relative(network, PaddingIndexer)
        return (
            network,
            indexer.mol_index,
            indexer.n_molecules,
            lower.main_output,
            lower.atom_energies,
        )


def fold(state: Mapping[str, Any], level_ids: list[str]) -> dict[str, Any]:
    """State dict of the model with independent heads that computes the same energies.

    `state` is that of `Model.parameters` with coupled heads of the levels `level_ids`, from the
    lowest to the highest: each correction is added to the head below it.
    """
    folded = dict(state)
    for lower, level in itertools.pairwise(level_ids):
        prefix = f"heads.{level}."
        for name in [name for name in state if name.startswith(prefix)]:
            folded[name] = state[name] + folded[f"heads.{lower}." + name.removeprefix(prefix)]
    return folded
