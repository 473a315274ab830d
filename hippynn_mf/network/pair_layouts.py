"""The directed pairs of a batch in padded layouts: by sending and by receiving atom."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hippynn_mf.network.batched_products import Runs, rearrange

MAX_RUNS = 8
SLOTS_WORTH_A_RUN = 400  # an estimate: one call more costs about as much as this many rows


@dataclass(frozen=True)
class Slots:
    """Rows for the pairs of every atom, atom after atom, some of them empty.

    Atoms come in `runs` with the same number of rows each, see `products.py`. `slot_of_pair`
    (n_pairs,) and `pair_of_slot` (n_slots,) index each other; `empty` (n_slots, 1) marks slots
    without a pair, and is None if there are none.
    """

    runs: Runs
    slot_of_pair: Tensor
    pair_of_slot: Tensor
    empty: Tensor | None

    @classmethod
    def of(cls, atom_of_pair: Tensor, n_atoms: int) -> Slots:
        """Slots of pairs by the atom (n_pairs,) of each."""
        n_pairs, device = len(atom_of_pair), atom_of_pair.device
        counts = torch.bincount(atom_of_pair, minlength=n_atoms)
        runs = _runs_of_similar_width(counts)
        widths = [torch.full((n,), width, device=device) for n, width in runs]
        width_of_atom = torch.cat(widths) if widths else counts
        first_slot = width_of_atom.cumsum(0) - width_of_atom
        order, place = sorting(atom_of_pair)
        first_pair = counts.cumsum(0) - counts
        slot_of_pair = (first_slot - first_pair)[atom_of_pair] + place
        n_slots = sum(n * width for n, width in runs)
        pair_of_slot = torch.zeros(n_slots, dtype=order.dtype, device=device)
        pair_of_slot[slot_of_pair] = torch.arange(n_pairs, device=device)
        empty = None
        if n_slots > n_pairs:
            empty = torch.ones(n_slots, 1, dtype=torch.bool, device=device)
            empty[slot_of_pair] = False
        return cls(runs, slot_of_pair, pair_of_slot, empty)

    def fill(self, rows: Tensor) -> Tensor:
        """Rows of pairs (n_pairs, k) in their slots (n_slots, k), zero where empty."""
        return rearrange(rows, self.pair_of_slot, self.slot_of_pair, self.empty)

    @property
    def n_slots(self) -> int:
        """Number of slots, with the empty ones."""
        return len(self.pair_of_slot)

    def repeated(self, n: int) -> Slots:
        """Slots of `n` copies of the atoms and pairs, one copy after another."""
        runs = list(self.runs) * n
        if len(self.runs) == 1:
            ((n_atoms, width),) = self.runs
            runs = [(n * n_atoms, width)]
        return Slots(
            runs,
            shifted(self.slot_of_pair, n, self.n_slots),
            shifted(self.pair_of_slot, n, len(self.slot_of_pair)),
            None if self.empty is None else self.empty.repeat(n, 1),
        )


def shifted(indices: Tensor, n: int, size: int) -> Tensor:
    """Indices into `n` copies of an array of `size` rows, one copy after another."""
    shifts = size * torch.arange(n, device=indices.device)
    return (indices + shifts.unsqueeze(1)).flatten()


def _runs_of_similar_width(counts: Tensor) -> Runs:
    """Runs of atoms, each as wide as its largest count, where shorter ones save many slots."""
    n_atoms = len(counts)
    if n_atoms == 0:
        return []
    size = -(-n_atoms // MAX_RUNS)
    chunks = torch.nn.functional.pad(counts, (0, size * MAX_RUNS - n_atoms)).view(MAX_RUNS, size)
    sizes = [max(0, min(size, n_atoms - k * size)) for k in range(MAX_RUNS)]
    runs: list[tuple[int, int]] = []
    for n, width in zip(sizes, chunks.amax(dim=1).tolist(), strict=True):
        if runs:
            n_before, width_before = runs[-1]
            merged = max(width, width_before)
            saved = n_before * (merged - width_before) + n * (merged - width)
            if saved < SLOTS_WORTH_A_RUN:
                runs[-1] = (n_before + n, merged)
                continue
        runs.append((n, width))
    return runs


@dataclass(frozen=True)
class PairList:
    """Directed pairs as hippynn's pair finders give them, of any kind.

    `receivers` and `senders` (n_pairs,) number atoms, of which there may be different numbers: the
    list may hold one direction only, several images of one pair, and atoms without any.
    `distances` (n_pairs,) and `vectors` (n_pairs, 3) from receiver to sender are in Å.
    """

    receivers: Tensor
    senders: Tensor
    distances: Tensor
    vectors: Tensor | None
    n_receivers: int
    n_senders: int


@dataclass(frozen=True)
class Pairs:
    """Pairs as interaction layers need them.

    `distances` (n_pairs,) in Å; `components` (n_slots, 1, 4 or 9) are the scalar, vector and
    quadrupole components of r̂ in the slots of the receiving atoms.
    """

    distances: Tensor
    components: Tensor
    senders: Slots
    receivers: Slots
    sender_slot: Tensor  # of every receiver slot
    receiver_slot: Tensor  # of every sender slot

    @classmethod
    def of(cls, pair_list: PairList, tensor_order: int) -> Pairs:
        """Layouts of a list; components up to ℓ = `tensor_order`."""
        with torch.no_grad():
            receivers = Slots.of(pair_list.receivers, pair_list.n_receivers)
            senders = Slots.of(pair_list.senders, pair_list.n_senders)
            sender_slot = senders.slot_of_pair[receivers.pair_of_slot]
            receiver_slot = receivers.slot_of_pair[senders.pair_of_slot]
        components = tensor_components(pair_list.distances, pair_list.vectors, tensor_order)
        return cls(
            pair_list.distances,
            receivers.fill(components),
            senders,
            receivers,
            sender_slot,
            receiver_slot,
        )

    def repeated(self, n: int) -> Pairs:
        """Pairs of `n` copies of the atoms, one copy after another."""
        return Pairs(
            self.distances.repeat(n),
            self.components.repeat(n, 1),
            self.senders.repeated(n),
            self.receivers.repeated(n),
            shifted(self.sender_slot, n, self.senders.n_slots),
            shifted(self.receiver_slot, n, self.receivers.n_slots),
        )

    def sent_to_received(self, messages: Tensor) -> Tensor:
        """Messages (n_slots, k) in the senders' slots, moved to the receivers' slots."""
        return rearrange(
            messages,
            self.sender_slot,
            self.receiver_slot,
            self.receivers.empty,
            self.senders.empty,
        )


@dataclass(frozen=True)
class Elements:
    """Pairs sorted by the element of the sending atom.

    `counts` are the pairs of every element, `order` (n_pairs,) the pair at every place and `place`
    its inverse; `place_of_slot` and `slot_of_place` connect places with the receivers' slots.
    """

    counts: list[int]
    order: Tensor
    place: Tensor
    place_of_slot: Tensor
    slot_of_place: Tensor

    @classmethod
    def of(cls, one_hot: Tensor, senders: Tensor, receivers: Slots) -> Elements:
        """Elements of a list by the one-hot species (n_senders, n_elements) of its atoms."""
        element_of_pair = one_hot.to(torch.uint8).argmax(dim=1)[senders]
        counts = torch.bincount(element_of_pair, minlength=one_hot.shape[1]).tolist()
        order, place = sorting(element_of_pair)
        return cls(
            counts, order, place, place[receivers.pair_of_slot], receivers.slot_of_pair[order]
        )

    def repeated(self, n: int, pairs: Pairs) -> Elements:
        """Elements of `n` copies of the pairs: those of one element are together in all of them."""
        n_pairs = len(self.order)
        by_element = torch.split(self.order, self.counts)
        order = torch.cat([shifted(part, n, n_pairs) for part in by_element])
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)
        pair_of_slot = shifted(pairs.receivers.pair_of_slot, n, n_pairs)
        slot_of_pair = shifted(pairs.receivers.slot_of_pair, n, pairs.receivers.n_slots)
        counts = [n * count for count in self.counts]
        return Elements(counts, order, place, place[pair_of_slot], slot_of_pair[order])


def is_one_hot(features: Tensor) -> bool:
    """Whether every row is a single True among False, as hippynn's encoder gives the species."""
    return features.dtype == torch.bool and bool((features.sum(dim=1) == 1).all())


def sorting(keys: Tensor) -> tuple[Tensor, Tensor]:
    """The index at every place of the sorted keys (n,), and the place of every index."""
    order = torch.argsort(keys, stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    return order, place


def tensor_components(distances: Tensor, vectors: Tensor | None, tensor_order: int) -> Tensor:
    """Components of r̂ (n_pairs, 1, 4 or 9) up to ℓ = `tensor_order`.

    The five components of the traceless quadrupole are in an orthonormal basis: the sum of their
    squares is the squared norm of the 3 x 3 tensor r̂r̂ᵀ − 1/3. Without `vectors` only ℓ = 0 can be
    had; a higher one is a ValueError.
    """
    scalar = torch.ones_like(distances).unsqueeze(1)
    if tensor_order == 0:
        return scalar
    if vectors is None:
        raise ValueError(f"A network of tensor order {tensor_order} needs pair_coord.")
    unit = vectors / distances.unsqueeze(1)
    if tensor_order == 1:
        return torch.cat([scalar, unit], dim=1)
    products = (unit.unsqueeze(2) * unit.unsqueeze(1)).flatten(1)
    return torch.cat([scalar, unit, products @ quadrupole_basis(unit)], dim=1)


def quadrupole_basis(like: Tensor) -> Tensor:
    """Orthonormal basis (9, 5) of the symmetric traceless 3 x 3 matrices."""
    basis = torch.zeros(5, 3, 3, dtype=torch.float64)
    for k, (i, j) in enumerate([(0, 1), (0, 2), (1, 2)]):
        basis[k, i, j] = basis[k, j, i] = math.sqrt(1 / 2)
    basis[3] = torch.diag(torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64)) / math.sqrt(2)
    basis[4] = torch.diag(torch.tensor([-1.0, -1.0, 2.0], dtype=torch.float64)) / math.sqrt(6)
    return basis.flatten(1).t().to(like)
