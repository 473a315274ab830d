"""The interaction of HIP-NN-TS, with its sums in the order that costs least.

An interaction layer computes, for atom i, tensor component m and output feature a,

    Σ_j Σ_ν Σ_b R_m(r̂_ij) s_ν(r_ij) V_ab^ν z_jb.

hippynn sums over neighbours first and multiplies by V last, once per tensor component. Here V comes
first, once per atom: y_j = V z_j, then t_ij = Σ_ν s_ν(r_ij) y_jν per pair, then Σ_j R_m(r̂_ij) t_ij.
The same numbers for about a ninth of the products at ℓ = 2. All is PyTorch without kernels of its
own, differentiable by autograd any number of times; `torch.func` cannot transform it. The layers
are hippynn's own, with their parameters; only the order of the sums differs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hippynn.layers.hiplayers import InteractLayer, InteractLayerQuad, InteractLayerVec
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from hippynn_mf.network.batched_products import outer, rearrange, times
from hippynn_mf.network.pair_layouts import Elements, PairList, Pairs, Slots, is_one_hot, sorting


@dataclass(frozen=True)
class WholeSystem:
    """Neighbour sums of all atoms at once.

    `elements` is there for the first layer, whose features are the species: y_j is one of a few
    matrices then, and the pairs of an element share it.
    """

    pairs: Pairs
    elements: Elements | None

    @classmethod
    def of(cls, pair_list: PairList, species: Tensor, tensor_order: int) -> WholeSystem:
        """Sums over a list; `species` (n_senders, n_elements) as hippynn's encoder gives them."""
        pairs = Pairs.of(pair_list, tensor_order)
        elements = None
        if is_one_hot(species):
            elements = Elements.of(species, pair_list.senders, pairs.receivers)
        return cls(pairs, elements)

    def after_first_layer(self) -> WholeSystem:
        """The sums of layers whose features are not the species."""
        return WholeSystem(self.pairs, None)

    def repeated(self, n: int) -> WholeSystem:
        """The sums over `n` copies of the atoms and pairs, one copy after another."""
        elements = None if self.elements is None else self.elements.repeated(n, self.pairs)
        return WholeSystem(self.pairs.repeated(n), elements)

    def neighbour_sums(self, layer: InteractLayer, features: Tensor) -> Tensor:
        """Σ_j Σ_ν Σ_b R_m s_ν V_ab^ν z_jb: (n_receivers, n_components, nf_out)."""
        pairs, sensitivities = self.pairs, layer.sensitivity(self.pairs.distances)
        if self.elements is None:
            weights = layer.int_weights.flatten(-3, -2).transpose(-1, -2)
            weighted = by_member(features, weights).view(-1, layer.n_dist, layer.nf_out)
            sent = times(pairs.senders.fill(sensitivities), weighted, pairs.senders.runs)
            received = pairs.sent_to_received(sent)
        else:
            received = _messages_by_element(layer, sensitivities, self.elements, pairs.receivers)
        return outer(pairs.components, received, pairs.receivers.runs)


def _messages_by_element(
    layer: InteractLayer, sensitivities: Tensor, elements: Elements, receivers: Slots
) -> Tensor:
    """Σ_ν Σ_b s_ν V_ab^ν z_jb of one-hot z, in the receivers' slots: (n_slots, nf_out)."""
    by_element = rearrange(sensitivities, elements.order, elements.place)
    weights = layer.int_weights.movedim(-1, 0).contiguous()
    groups = zip(torch.split(by_element, elements.counts), weights, strict=True)
    messages = torch.cat([by_member(group, weight) for group, weight in groups])
    return rearrange(messages, elements.place_of_slot, elements.slot_of_place, receivers.empty)


def by_member(rows: Tensor, weights: Tensor) -> Tensor:
    """Rows (n, k) times weights (k, l).

    Or rows (n_members * n, k), member after member, times weights (n_members, k, l) of each; see
    `potentials/stacking.py`.
    """
    if weights.dim() == 2:
        return rows @ weights
    members = rows.view(len(weights), -1, rows.shape[1])
    return torch.bmm(members, weights).flatten(0, 1)


@dataclass(frozen=True)
class InBlocks:
    """Neighbour sums block by block of sending atoms, computed again for every derivative.

    Between forward and backward, what is kept grows with the atoms and with a few numbers per pair,
    not with pairs × features: several times larger systems fit, for more time. Nothing is saved
    where forces are made to be differentiated again, as in training and in hippynn's own
    calculator; `FastCalculator` and `Model.predictor` make final ones.
    """

    pair_list: PairList  # sorted by sender
    pairs_per_block: list[int]
    species: Tensor | None
    tensor_order: int
    atoms_per_block: int

    @classmethod
    def of(
        cls, pair_list: PairList, species: Tensor, tensor_order: int, atoms_per_block: int
    ) -> InBlocks:
        """Sums over a list in blocks of `atoms_per_block` atoms."""
        if atoms_per_block < 1:
            raise ValueError(f"Found atoms_per_block = {atoms_per_block}; expected at least 1.")
        with torch.no_grad():
            order, place = sorting(pair_list.senders)
            block_of_pair = pair_list.senders // atoms_per_block
            n_blocks = max(1, -(-pair_list.n_senders // atoms_per_block))
            pairs_per_block = torch.bincount(block_of_pair, minlength=n_blocks).tolist()
        distances = rearrange(pair_list.distances.unsqueeze(1), order, place)
        vectors = pair_list.vectors
        ordered = PairList(
            pair_list.receivers[order],
            pair_list.senders[order],
            distances.squeeze(1),
            None if vectors is None else rearrange(vectors, order, place),
            pair_list.n_receivers,
            pair_list.n_senders,
        )
        return cls(ordered, pairs_per_block, species, tensor_order, atoms_per_block)

    def after_first_layer(self) -> InBlocks:
        """The sums of layers whose features are not the species."""
        return InBlocks(
            self.pair_list, self.pairs_per_block, None, self.tensor_order, self.atoms_per_block
        )

    def neighbour_sums(self, layer: InteractLayer, features: Tensor) -> Tensor:
        """Σ_j Σ_ν Σ_b R_m s_ν V_ab^ν z_jb: (n_receivers, n_components, nf_out)."""
        whole, sizes = self.pair_list, self.pairs_per_block
        n_components = (self.tensor_order + 1) ** 2
        sums = features.new_zeros(whole.n_receivers, n_components, layer.nf_out)
        blocks = zip(
            torch.split(whole.receivers, sizes),
            torch.split(whole.senders, sizes),
            torch.split(whole.distances, sizes),
            [None] * len(sizes) if whole.vectors is None else torch.split(whole.vectors, sizes),
            torch.split(features, self.atoms_per_block),
            torch.split(features if self.species is None else self.species, self.atoms_per_block),
            strict=True,
        )
        for number, (receivers, senders, distances, vectors, sending, species) in enumerate(blocks):
            block_receivers, local_receivers = _by_count(receivers)
            pair_list = PairList(
                local_receivers,
                senders - number * self.atoms_per_block,
                distances,
                vectors,
                len(block_receivers),
                len(sending),
            )
            part = checkpoint(
                self._sums_of_block,
                layer,
                pair_list,
                sending,
                species,
                use_reentrant=False,
                preserve_rng_state=False,
            )
            # Not index_add_, whose derivative would keep `part`.
            sums.index_put_((block_receivers,), part, accumulate=True)
        return sums

    def _sums_of_block(
        self, layer: InteractLayer, pair_list: PairList, features: Tensor, species: Tensor
    ) -> Tensor:
        whole_block = WholeSystem.of(pair_list, species, self.tensor_order)
        return whole_block.neighbour_sums(layer, features)


def _by_count(atoms: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct ones of the atoms (n,), rarest first, and the number of each among them."""
    distinct, numbers, counts = torch.unique(atoms, return_inverse=True, return_counts=True)
    order, place = sorting(counts)
    return distinct[order], place[numbers]


NeighbourSums = WholeSystem | InBlocks


def _scaled_norm(components: Tensor, cusp_reg: float, scales: Tensor) -> Tensor:
    """Norm over the second axis, rounded at zero as hippynn does, times scales (nf_out,)."""
    norm = torch.sqrt(components.square().sum(dim=1) + cusp_reg)
    if scales.dim() == 1:
        return norm * scales
    members = norm.view(len(scales), -1, norm.shape[1])  # as in `by_member`
    return (members * scales.unsqueeze(1)).flatten(0, 1)


class FastInteractLayer(InteractLayer):
    """hippynn's `InteractLayer` (ℓ = 0)."""

    tensor_order = 0

    def forward(self, in_features: Tensor, neighbours: NeighbourSums) -> Tensor:
        """Features (n_atoms, nf_out) from features (n_atoms, nf_in)."""
        scalar = neighbours.neighbour_sums(self, in_features)
        return scalar.squeeze(1) + self.selfint(in_features)


class FastInteractLayerVec(InteractLayerVec):
    """hippynn's `InteractLayerVec` (ℓ = 1)."""

    tensor_order = 1

    def forward(self, in_features: Tensor, neighbours: NeighbourSums) -> Tensor:
        """Features (n_atoms, nf_out) from features (n_atoms, nf_in)."""
        sums = neighbours.neighbour_sums(self, in_features)
        scalar, vector = torch.split(sums, [1, 3], dim=1)
        norm = _scaled_norm(vector, self.cusp_reg, self.vecscales)
        return scalar.squeeze(1) + norm + self.selfint(in_features)


class FastInteractLayerQuad(InteractLayerQuad):
    """hippynn's `InteractLayerQuad` (ℓ = 2)."""

    tensor_order = 2

    def forward(self, in_features: Tensor, neighbours: NeighbourSums) -> Tensor:
        """Features (n_atoms, nf_out) from features (n_atoms, nf_in)."""
        sums = neighbours.neighbour_sums(self, in_features)
        scalar, vector, quadrupole = torch.split(sums, [1, 3, 5], dim=1)
        vector_norm = _scaled_norm(vector, self.cusp_reg, self.vecscales)
        quadrupole_norm = _scaled_norm(quadrupole, self.cusp_reg, self.quadscales)
        return scalar.squeeze(1) + vector_norm + quadrupole_norm + self.selfint(in_features)
