"""Initial weights of the heads: atomic energies from labelled rows, then decaying layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from hippynn.graphs import find_unique_relative
from hippynn.graphs.nodes.inputs import SpeciesNode
from hippynn.graphs.nodes.tags import Encoder
from hippynn.pretraining import hierarchical_energy_initialization

from hippynn_mf import keys
from hippynn_mf.errors import UserError
from hippynn_mf.levels import Level
from hippynn_mf.model.heads import Heads
from hippynn_mf.ragged import Ragged, blocks_of

DECAY_FACTOR = 1e-2  # of the first interacting layer; the second gets its square. Authors' example


@dataclass(frozen=True)
class _TrainingRows:
    """What hippynn's initialisation reads of a database."""

    splits: Mapping[str, Mapping[str, torch.Tensor]]


class _ElementCounts(torch.nn.Module):
    """An encoder of species that adds up the atoms of a structure at once, which saves memory.

    hippynn hands it on what it finds as the species of a database, padded or not.
    """

    def __init__(self, encoder: torch.nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, species: torch.Tensor | Ragged) -> tuple[torch.Tensor, None]:
        """Atoms per element, (n, 1, n_elements), of species (n, n_atoms_max) of any integer."""
        counts = [
            self.encoder(torch.as_tensor(species[rows], dtype=torch.int64))[0].sum(
                dim=1, keepdim=True
            )
            for rows in blocks_of(len(species))
        ]
        return torch.cat(counts), None


def require_labels(heads: Heads, database: Any, split: str = "train") -> None:
    """Raise UserError if a split lacks an array, or every label, that a head is trained on."""
    rows = database.splits[split]
    for head in heads.values():
        for kind, node in ((keys.ENERGY, head.energy.main_output), (keys.FORCES, head.forces)):
            if node is None:
                continue
            if node.db_name not in rows:
                raise UserError(
                    f"The database has no array {node.db_name!r}, which the head of level "
                    f"{head.level.id} is trained on. It has: {', '.join(sorted(rows))}."
                )
            if not _any_complete(rows[node.db_name]):
                raise UserError(
                    f"Level {head.level.id} has no {kind} label in the {split} split "
                    f"({len(rows[node.db_name])} structures). Remove the level from the "
                    "experiment, or supply data that carries it."
                )


def _any_complete(array: torch.Tensor | Ragged) -> bool:
    """Whether any row of an array is finite throughout; a few rows are usually enough to tell."""
    blocks = (torch.as_tensor(array[rows]) for rows in blocks_of(len(array)))
    return any(bool(torch.isfinite(rows).flatten(1).all(dim=1).any()) for rows in blocks)


def initialize_heads(heads: Heads, database: Any, *, decay_factor: float = DECAY_FACTOR) -> None:
    """Fit each level's atomic energies on its labelled training rows; shrink the other layers.

    Least squares on species counts in float64, frozen afterwards; the weights of later head
    layers are multiplied by 10⁻², then 10⁻⁴. A coupled head is fitted to the differences of
    energies, on the rows that have both, and without such rows to what its energies are beyond the
    atomic energies of the lower levels. The fit and the decay are hippynn's own
    `hierarchical_energy_initialization`, which on its own turns every value into NaN if one label
    is missing.

    Args:
        heads: the model's heads.
        database: a split hippynn database; NaN energies are missing labels.
        decay_factor: 10⁻² by default; with 1 all but the atomic energies stay as they are.

    Raises:
        UserError: if a level has no label in the training split.
    """
    require_labels(heads, database)
    for head in heads.values():
        species = find_unique_relative(head.energy, SpeciesNode, "atomic energies").db_name
        rows = database.splits["train"]
        encoder = find_unique_relative(head.energy, Encoder, "atomic energies").torch_module
        counts = _ElementCounts(encoder)
        name = head.energy.main_output.db_name
        energies = rows[name]
        if head.base is not None:
            difference = energies - rows[heads[head.base].energy.main_output.db_name]
            if torch.isfinite(difference).any():
                energies = difference
            else:  # no structure has both levels
                energies = energies - _sums(heads, head.base, counts, rows[species])
        labelled = torch.isfinite(energies).reshape(len(energies))
        of_labelled = rows[species]
        if isinstance(of_labelled, Ragged):
            of_labelled = of_labelled.at(of_labelled.places[labelled.numpy()])
        else:
            of_labelled = of_labelled[labelled]
        labelled_rows = {species: of_labelled, name: energies[labelled]}
        hierarchical_energy_initialization(
            head.energy,
            database=_TrainingRows({"train": labelled_rows}),
            encoder=counts,
            trainable_after=False,
            decay_factor=decay_factor,
        )


def atomic_energies(heads: Heads, level: Level) -> torch.Tensor:
    """Fitted atomic energies of a level, (n_elements,) in kcal/mol without self energies.

    In the order of the model's species; with those of the levels that it is coupled to.
    """
    weights = heads[level].energy.torch_module.layers[0].weight.detach()[0]
    base = heads[level].base
    return weights if base is None else weights + atomic_energies(heads, base)


def _sums(
    heads: Heads, level: Level, counts: _ElementCounts, species: torch.Tensor | Ragged
) -> torch.Tensor:
    """The atomic energies of a level added up over structures, (n, 1)."""
    values = atomic_energies(heads, level)
    return counts(species)[0][:, 0].to(values.dtype) @ values[:, None]
