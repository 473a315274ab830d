"""The interaction of HIP-NN-TS, with its sums in the order that costs least.

An interaction layer computes, for atom i, tensor component m and output feature a,

    Σ_j Σ_ν Σ_b R_m(r̂_ij) s_ν(r_ij) V_ab^ν z_jb.

hippynn sums over neighbours first and multiplies by V last, once per tensor component. Here V comes
first, once per atom: y_j = V z_j, then t_ij = Σ_ν s_ν(r_ij) y_jν per pair, then Σ_j R_m(r̂_ij) t_ij.
The same numbers for about a ninth of the products at ℓ = 2. All is plain PyTorch, differentiable
any number of times. The layers are hippynn's own, with their parameters; only the order of the sums
differs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from hippynn.layers.hiplayers import InteractLayer, InteractLayerQuad, InteractLayerVec
from torch import Tensor

from hippynn_mf.products import product, rearrange


@dataclass(frozen=True)
class Slots:
    """Places of the pairs in a padded array of (atom, place among the pairs of that atom).

    `slot_of_pair` (n_pairs,) and `pair_of_slot` (n_atoms * width,) index each other; `empty`
    (n_atoms * width, 1) marks places without a pair, and is None if there are none.
    """

    n_atoms: int
    width: int
    slot_of_pair: Tensor
    pair_of_slot: Tensor
    empty: Tensor | None

    @classmethod
    def of(cls, atom_of_pair: Tensor, n_atoms: int) -> Slots:
        """Slots of pairs by the atom (n_pairs,) of each."""
        n_pairs = len(atom_of_pair)
        counts = torch.bincount(atom_of_pair, minlength=n_atoms)
        width = int(counts.max()) if n_pairs else 0
        order = torch.argsort(atom_of_pair, stable=True)
        first_of_atom = counts.cumsum(0) - counts
        sorted_atoms = atom_of_pair[order]
        place = torch.arange(n_pairs, device=order.device) - first_of_atom[sorted_atoms]
        slot_of_pair = torch.empty_like(order)
        slot_of_pair[order] = sorted_atoms * width + place
        pair_of_slot = torch.zeros(n_atoms * width, dtype=order.dtype, device=order.device)
        pair_of_slot[slot_of_pair] = torch.arange(n_pairs, device=order.device)
        empty = None
        if n_atoms * width > n_pairs:
            empty = torch.ones(n_atoms * width, 1, dtype=torch.bool, device=order.device)
            empty[slot_of_pair] = False
        return cls(n_atoms, width, slot_of_pair, pair_of_slot, empty)

    def fill(self, rows: Tensor) -> Tensor:
        """Rows of pairs (n_pairs, k) in their slots (n_atoms, width, k), zero where empty."""
        filled = rearrange(rows, self.pair_of_slot, self.slot_of_pair, self.empty, None)
        return filled.view(self.n_atoms, self.width, rows.shape[1])


@dataclass(frozen=True)
class Pairs:
    """The directed pairs of a batch, as interaction layers need them.

    `distances` (n_pairs,) in Å; `components` (n_atoms, 1, 4 or 9, width) are the scalar, vector and
    quadrupole components of r̂ in the slots of the receiving atoms.
    """

    distances: Tensor
    components: Tensor
    senders: Slots
    receivers: Slots
    sender_slot: Tensor  # of every receiver slot
    receiver_slot: Tensor  # of every sender slot

    @classmethod
    def of(
        cls,
        pair_first: Tensor,
        pair_second: Tensor,
        distances: Tensor,
        vectors: Tensor | None,
        *,
        tensor_order: int,
        n_atoms: int,
    ) -> Pairs:
        """Pairs of hippynn's pair finders: receiving atom, sending atom, distance and vector.

        The list may be of any kind: several images of one pair, pairs in one direction only,
        atoms without any.
        """
        with torch.no_grad():
            receivers = Slots.of(pair_first, n_atoms)
            senders = Slots.of(pair_second, n_atoms)
            sender_slot = senders.slot_of_pair[receivers.pair_of_slot]
            receiver_slot = receivers.slot_of_pair[senders.pair_of_slot]
        components = tensor_components(distances, vectors, tensor_order)
        return cls(
            distances,
            receivers.fill(components).transpose(1, 2),
            senders,
            receivers,
            sender_slot,
            receiver_slot,
        )

    def sent_to_received(self, messages: Tensor) -> Tensor:
        """Messages (n_atoms, width, k) in the senders' slots, moved to the receivers' slots."""
        moved = rearrange(
            messages.flatten(0, 1),
            self.sender_slot,
            self.receiver_slot,
            self.receivers.empty,
            self.senders.empty,
        )
        return moved.view(self.receivers.n_atoms, self.receivers.width, messages.shape[2])


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
    return torch.cat([scalar, unit, products @ _quadrupole_basis(unit)], dim=1)


def _quadrupole_basis(like: Tensor) -> Tensor:
    """Orthonormal basis (9, 5) of the symmetric traceless 3 x 3 matrices."""
    basis = torch.zeros(5, 3, 3, dtype=torch.float64)
    for k, (i, j) in enumerate([(0, 1), (0, 2), (1, 2)]):
        basis[k, i, j] = basis[k, j, i] = math.sqrt(1 / 2)
    basis[3] = torch.diag(torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64)) / math.sqrt(2)
    basis[4] = torch.diag(torch.tensor([-1.0, -1.0, 2.0], dtype=torch.float64)) / math.sqrt(6)
    return basis.flatten(1).t().to(like)


def _neighbour_sums(layer: InteractLayer, features: Tensor, pairs: Pairs) -> Tensor:
    """Σ_j Σ_ν Σ_b R_m s_ν V_ab^ν z_jb: (n_atoms, n_components, nf_out)."""
    weights = layer.int_weights.reshape(-1, layer.nf_in)
    weighted = (features @ weights.t()).view(len(features), layer.n_dist, layer.nf_out)
    sensitivities = pairs.senders.fill(layer.sensitivity(pairs.distances))
    messages = product(sensitivities, weighted)
    return product(pairs.components, pairs.sent_to_received(messages))


def _norm(components: Tensor, cusp_reg: float) -> Tensor:
    """Norm over the second axis, rounded at zero as hippynn does."""
    return torch.sqrt(components.square().sum(dim=1) + cusp_reg)


class FastInteractLayer(InteractLayer):
    """hippynn's `InteractLayer` (ℓ = 0)."""

    tensor_order = 0

    def forward(self, in_features: Tensor, pairs: Pairs) -> Tensor:
        """Features (n_atoms, nf_out) from features (n_atoms, nf_in)."""
        scalar = _neighbour_sums(self, in_features, pairs)[:, 0]
        return scalar + self.selfint(in_features)


class FastInteractLayerVec(InteractLayerVec):
    """hippynn's `InteractLayerVec` (ℓ = 1)."""

    tensor_order = 1

    def forward(self, in_features: Tensor, pairs: Pairs) -> Tensor:
        """Features (n_atoms, nf_out) from features (n_atoms, nf_in)."""
        sums = _neighbour_sums(self, in_features, pairs)
        vector = _norm(sums[:, 1:4], self.cusp_reg) * self.vecscales
        return sums[:, 0] + vector + self.selfint(in_features)


class FastInteractLayerQuad(InteractLayerQuad):
    """hippynn's `InteractLayerQuad` (ℓ = 2)."""

    tensor_order = 2

    def forward(self, in_features: Tensor, pairs: Pairs) -> Tensor:
        """Features (n_atoms, nf_out) from features (n_atoms, nf_in)."""
        sums = _neighbour_sums(self, in_features, pairs)
        vector = _norm(sums[:, 1:4], self.cusp_reg) * self.vecscales
        quadrupole = _norm(sums[:, 4:], self.cusp_reg) * self.quadscales
        return sums[:, 0] + vector + quadrupole + self.selfint(in_features)
