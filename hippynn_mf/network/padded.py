"""Batches of one shape: atoms, and slots for their neighbours, filled up to sizes known before.

The sums are those of `interaction.py`, with one run of slots for all atoms. No size depends on the
numbers of a batch, and pairs move by gathers alone, also in derivatives: what a compiler needs, and
a GPU, on which adding up row by row has no fixed order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from hippynn.layers.hiplayers import InteractLayer
from torch import Tensor

from hippynn_mf.neighbours import NeighbourLists
from hippynn_mf.network.batched_products import rearrange
from hippynn_mf.network.pair_layouts import sorting, tensor_components
from hippynn_mf.ragged import blocks_of

USUAL_SPREADS = 2.0  # standard deviations: one batch in fifty is larger
ATOMS_STEP = 64
STEPS_PER_USUAL = 8
WIDTH_STEP = 4
STRUCTURES_AT_ONCE = 10_000


class Sizes(NamedTuple):
    """Structures, atoms, and slots for the neighbours of every atom, in a padded batch."""

    n_structures: int
    n_atoms: int
    width: int


class PaddedBatch(NamedTuple):
    """The real atoms of a batch and their pairs, filled up to `Sizes`.

    `positions` (n_atoms, 3) in Å, `species` (n_atoms,), and `structure` (n_atoms,), which for atoms
    that fill up is the number after the last one. Every atom has `width` slots for the pairs in
    which it receives and as many for those in which it sends; `sender_slot` and `receiver_slot`
    (n_atoms * width,) lead from the ones to the others, `no_receiver` and `no_sender`
    (n_atoms * width, 1) mark slots without a pair.
    """

    positions: Tensor
    species: Tensor
    structure: Tensor
    sender_slot: Tensor
    receiver_slot: Tensor
    no_receiver: Tensor
    no_sender: Tensor

    @classmethod
    def of(cls, species: Tensor, positions: Tensor, pairs: Tensor, sizes: Sizes) -> PaddedBatch:
        """Of species (n, n_atoms_max), positions (n, n_atoms_max, 3) and pairs as in `StoredPairs`.

        They must fit; see `sizes_needed`. Filling atoms are copies of the first one, without pairs.
        """
        places, atoms, n_found = atoms_of_places(species, sizes.n_atoms)
        structure = places // species.shape[1]
        structure[n_found:] = sizes.n_structures
        receivers, senders = atoms[pairs].unbind(dim=1)
        of_receivers, of_senders = _slots(receivers, sizes), _slots(senders, sizes)
        sender_slot = pairs.new_zeros(sizes.n_atoms * sizes.width)
        sender_slot[of_receivers] = of_senders
        receiver_slot = torch.zeros_like(sender_slot)
        receiver_slot[of_senders] = of_receivers
        no_receiver = torch.ones(len(sender_slot), 1, dtype=torch.bool, device=pairs.device)
        no_sender = no_receiver.clone()
        no_receiver[of_receivers] = False
        no_sender[of_senders] = False
        return cls(
            positions.flatten(0, 1)[places],
            species.flatten()[places],
            structure,
            sender_slot,
            receiver_slot,
            no_receiver,
            no_sender,
        )

    def sent_to_received(self, rows: Tensor) -> Tensor:
        """Rows (n_slots, k) in the senders' slots, moved to the receivers' slots."""
        return rearrange(
            rows, self.sender_slot, self.receiver_slot, self.no_receiver, self.no_sender
        )

    def received_to_sent(self, rows: Tensor) -> Tensor:
        """The way back of `sent_to_received`."""
        return rearrange(
            rows, self.receiver_slot, self.sender_slot, self.no_sender, self.no_receiver
        )


def atoms_of_places(species: Tensor, n_atoms: int) -> tuple[Tensor, Tensor, int]:
    """The place (n_atoms,) of every atom among the species, the atom of every place (n,).

    The first atom stands for those that there are not; how many there are is the third.
    """
    is_atom = (species > 0).flatten()
    atoms = (is_atom.cumsum(0) - 1).clamp(min=0)
    (found,) = is_atom.nonzero(as_tuple=True)
    first = found[:1] if len(found) else found.new_zeros(1)
    places = torch.cat([found, first.expand(n_atoms - len(found))])
    return places, atoms, len(found)


def sizes_needed(species: Tensor, pairs: Tensor) -> Sizes:
    """The smallest sizes of a batch; one slot at least."""
    columns = [_counts(column, species.numel()).amax() for column in pairs.unbind(dim=1)]
    # At once: a GPU is waited for.
    n_atoms, *widths = torch.stack([(species > 0).sum(), *columns]).tolist()
    return Sizes(len(species), n_atoms, max(1, *widths))


def _counts(numbers: Tensor, n: int) -> Tensor:
    """How often each of 0 … n - 1 is there: `bincount`, for which a GPU need not be waited for."""
    return numbers.new_zeros(n).scatter_add_(0, numbers, torch.ones_like(numbers))


def _slots(atom_of_pair: Tensor, sizes: Sizes) -> Tensor:
    """The slot of every pair (n_pairs,) among those of its atom, in the order of the pairs."""
    counts = _counts(atom_of_pair, sizes.n_atoms)
    first_pair = counts.cumsum(0) - counts
    _, place = sorting(atom_of_pair)
    return atom_of_pair * sizes.width + place - first_pair[atom_of_pair]


@dataclass(frozen=True)
class PaddedSums:
    """Sums over the neighbours of a padded batch, as layers of `interaction.py` take them."""

    batch: PaddedBatch
    distances: Tensor  # (n_slots,) in Å, of the receivers' slots
    components: Tensor  # (n_atoms, width, 1, 4 or 9)

    @classmethod
    def of(cls, batch: PaddedBatch, positions: Tensor, tensor_order: int) -> PaddedSums:
        """Of `positions` (n_atoms, 3), by which the sums are differentiable."""
        width = len(batch.sender_slot) // len(positions)
        own = positions.unsqueeze(1).expand(-1, width, -1).flatten(0, 1)
        vectors = batch.sent_to_received(own) - own
        # Away from zero, where the derivative of a norm is not a number.
        vectors = torch.where(batch.no_receiver, 1.0, vectors)
        distances = vectors.norm(dim=1)
        components = tensor_components(distances, vectors, tensor_order)
        components = components.masked_fill(batch.no_receiver, 0)
        return cls(batch, distances, components.view(len(positions), width, -1))

    def after_first_layer(self) -> PaddedSums:
        """The same sums: the species are features like others here."""
        return self

    def neighbour_sums(self, layer: InteractLayer, features: Tensor) -> Tensor:
        """Σ_j Σ_ν Σ_b R_m s_ν V_ab^ν z_jb: (n_atoms, n_components, nf_out)."""
        n_atoms, width, _ = self.components.shape
        sensitivities = self.batch.received_to_sent(layer.sensitivity(self.distances))
        weights = layer.int_weights.flatten(0, 1).t()
        weighted = (features @ weights).view(n_atoms, layer.n_dist, layer.nf_out)
        sent = torch.bmm(sensitivities.view(n_atoms, width, -1), weighted)
        received = self.batch.sent_to_received(sent.flatten(0, 1)).view(n_atoms, width, -1)
        return torch.bmm(self.components.transpose(1, 2), received)


@dataclass(frozen=True)
class SizeSteps:
    """The few sizes that the batches of a training are filled up to: each is compiled once.

    `usual` fits about all batches of the batch size, and those that are smaller. They depend on
    data and batch size alone, so that a batch has the same size whichever came before it.
    """

    usual: Sizes

    @classmethod
    def of(cls, counts: np.ndarray, pairs: NeighbourLists, batch_size: int) -> SizeSteps:
        """Of the numbers of atoms (n,) of the structures of a training set, and its pairs."""
        n_structures = max(1, min(batch_size, len(counts)))
        spread = counts.std() * n_structures**0.5
        n_atoms = int(counts.mean() * n_structures + USUAL_SPREADS * spread)
        return cls(Sizes(n_structures, _up(n_atoms, ATOMS_STEP), _most_neighbours(pairs)))

    def at_least(self, needed: Sizes) -> Sizes:
        """The smallest of the sizes that a batch fits into."""
        usual = self.usual
        step = max(ATOMS_STEP, _up(usual.n_atoms // STEPS_PER_USUAL, ATOMS_STEP))
        return Sizes(
            _up(needed.n_structures, usual.n_structures),
            usual.n_atoms + _up(needed.n_atoms - usual.n_atoms, step),
            usual.width + _up(needed.width - usual.width, WIDTH_STEP),
        )


def _up(number: int, step: int) -> int:
    """A multiple of the step, no less than the number nor zero."""
    return max(0, -(-number // step)) * step


def _most_neighbours(pairs: NeighbourLists) -> int:
    """Of one atom of a data set; one at least."""
    most = 1
    for rows in blocks_of(len(pairs.places), STRUCTURES_AT_ONCE):
        places = pairs.places[rows]
        atoms = pairs.atoms[places.rows()].astype(np.int64)
        if len(atoms):
            width = int(atoms.max()) + 1
            structure = np.repeat(np.arange(len(places)), places.sizes)
            for column in atoms.T:
                most = max(most, int(np.bincount(structure * width + column).max()))
    return most
