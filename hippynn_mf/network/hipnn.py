"""HIP-NN-TS networks of this package: hippynn's parameters and numbers, in less time.

`FastHipnnQuad("hipnn", (species, positions), module_kwargs=...)` stands where hippynn's `HipnnQuad`
does; a `state_dict` of one loads into the other. So does `CompiledHipnnQuad`, whose derivatives are
written by hand; see docs/compiled-step.md.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from typing import Any

import torch
from hippynn.graphs.nodes import networks as stock_nodes
from hippynn.networks import hipnn as stock_modules
from torch import Tensor

from hippynn_mf.errors import UserError
from hippynn_mf.network.interaction import (
    FastInteractLayer,
    FastInteractLayerQuad,
    FastInteractLayerVec,
    InBlocks,
    NeighbourSums,
    WholeSystem,
)
from hippynn_mf.network.pair_layouts import PairList, is_one_hot

log = logging.getLogger(__name__)

# Why a network that could be compiled is not.
NOT_A_CPU = "it is for CPUs, and this is a device of type "
IN_BLOCKS = "atoms are worked through in blocks"


@functools.cache
def say_fast(reason: str) -> None:
    """Say once in this process that a network which could be compiled is not, and why.

    As a warning, where nobody has chosen that.
    """
    is_chosen = reason == IN_BLOCKS or reason.startswith(NOT_A_CPU)
    level = logging.INFO if is_chosen else logging.WARNING
    log.log(level, "interaction=fast instead of compiled: %s", reason)


def refuse_autocast(tensor: Tensor) -> None:
    """Raise UserError inside `torch.autocast`: total energies have more digits than half precision.

    Their derivatives would be those of rounded numbers.
    """
    if torch.is_autocast_enabled(tensor.device.type):
        raise UserError(
            "This network computes in single or double precision, and is called inside "
            "torch.autocast. Leave autocast out (in Lightning precision='32-true' or '64-true'), "
            "or take hippynn's own network, as HipnnQuad."
        )


class _FastForward:
    """The forward pass of a hippynn network over fast interaction layers.

    `atoms_per_block`, None at first, makes it work through the atoms in blocks of that many, for
    systems that do not fit into memory otherwise; see `InBlocks` for what that saves.
    """

    _interaction_class: Any
    atoms_per_block: int | None = None

    def forward(
        self: Any,
        features: Tensor,
        pair_first: Tensor,
        pair_second: Tensor,
        pair_dist: Tensor,
        pair_coord: Tensor | None = None,
    ) -> list[Tensor]:
        """Features of every block (n_atoms, n_features), from the one-hot species on."""
        refuse_autocast(features)
        pair_list = PairList(
            pair_first,
            pair_second,
            pair_dist.reshape(-1),
            None if pair_coord is None else pair_coord.reshape(-1, 3),
            n_receivers=len(features),
            n_senders=len(features),
        )
        tensor_order = self._interaction_class.tensor_order
        neighbours: NeighbourSums
        if self.atoms_per_block is None:
            neighbours = WholeSystem.of(pair_list, features, tensor_order)
        else:
            neighbours = InBlocks.of(pair_list, features, tensor_order, self.atoms_per_block)
        return self.through_blocks(features.to(pair_dist.dtype), neighbours)

    def through_blocks(self: Any, features: Tensor, neighbours: NeighbourSums) -> list[Tensor]:
        """Features of every block (n_atoms, n_features), given the sums over neighbours."""
        outputs = [features]
        for interaction, *atom_layers in self.blocks:
            hidden = self._activated(interaction(outputs[-1], neighbours))
            for layer in atom_layers:
                hidden = self._activated(layer(hidden))
            outputs.append(hidden)
            neighbours = neighbours.after_first_layer()
        return outputs

    def _activated(self: Any, features: Tensor) -> Tensor:
        """Residual layers apply the activation themselves."""
        return features if self.resnet else self.activation(features)


class FastHipnnModule(_FastForward, stock_modules.Hipnn):
    """hippynn's `Hipnn` module (ℓ = 0)."""

    _interaction_class = FastInteractLayer


class FastHipnnVecModule(_FastForward, stock_modules.HipnnVec):
    """hippynn's `HipnnVec` module (ℓ = 1)."""

    _interaction_class = FastInteractLayerVec


class FastHipnnQuadModule(_FastForward, stock_modules.HipnnQuad):
    """hippynn's `HipnnQuad` module (ℓ = 2)."""

    _interaction_class = FastInteractLayerQuad


class CompiledForward:
    """The forward pass of a hippynn network, compiled; the fast one where that is not possible.

    That is on other devices than the CPU, in blocks of atoms, for features that are no species, for
    networks with hooks or options that have no compiled form, and where numba cannot compile. The
    log says so once for every reason.
    """

    def forward(
        self: Any,
        features: Tensor,
        pair_first: Tensor,
        pair_second: Tensor,
        pair_dist: Tensor,
        pair_coord: Tensor | None = None,
    ) -> list[Tensor]:
        """Features of every block (n_atoms, n_features), from the one-hot species on."""
        refuse_autocast(features)
        tensor_order = self._interaction_class.tensor_order
        vectors = pair_dist if tensor_order == 0 else pair_coord
        if vectors is None:
            reason: str | None = "vectors of pairs are missing"
        else:
            reason = self.why_fast(vectors.device, vectors.dtype)
        if reason is None and not is_one_hot(features):
            reason = "it has features that are no species"
        if reason is not None:
            say_fast(reason)
            arguments = (features, pair_first, pair_second, pair_dist, pair_coord)
            fast: list[Tensor] = super().forward(*arguments)  # type: ignore[misc]
            return fast
        from hippynn_mf.network.compiled.functions import features_of_species

        assert vectors is not None
        vectors = vectors.reshape(len(pair_first), 1 if tensor_order == 0 else 3)
        compiled = features_of_species(
            self, features, pair_first, pair_second, vectors, tensor_order
        )
        return [features.to(vectors.dtype), *compiled]

    def why_fast(self: Any, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why it is not compiled for vectors of this kind; None if it is. The first call compiles.

        Of species: other features are another reason.
        """
        if device.type != "cpu":
            return NOT_A_CPU + device.type
        if self.atoms_per_block is not None:
            return IN_BLOCKS
        # Not loaded by processes that have no such network.
        from hippynn_mf.network.compiled.blocks import why_unsupported
        from hippynn_mf.network.compiled.preparing import why_not_compiled

        unsupported = why_unsupported(self, dtype)
        return why_not_compiled(dtype) if unsupported is None else f"it has {unsupported}"


class CompiledHipnnModule(CompiledForward, FastHipnnModule):
    """hippynn's `Hipnn` module (ℓ = 0)."""


class CompiledHipnnVecModule(CompiledForward, FastHipnnVecModule):
    """hippynn's `HipnnVec` module (ℓ = 1)."""


class CompiledHipnnQuadModule(CompiledForward, FastHipnnQuadModule):
    """hippynn's `HipnnQuad` module (ℓ = 2)."""


class FastHipnn(stock_nodes.Hipnn):
    """Node of HIP-NN (ℓ = 0) with the fast interaction; arguments as hippynn's `Hipnn`."""

    _auto_module_class = FastHipnnModule


class FastHipnnVec(stock_nodes.HipnnVec):
    """Node of HIP-NN-TS with vectors (ℓ = 1); arguments as hippynn's `HipnnVec`."""

    _auto_module_class = FastHipnnVecModule


class FastHipnnQuad(stock_nodes.HipnnQuad):
    """Node of HIP-NN-TS with quadrupoles (ℓ = 2); arguments as hippynn's `HipnnQuad`."""

    _auto_module_class = FastHipnnQuadModule


class CompiledHipnn(FastHipnn):
    """Node of HIP-NN (ℓ = 0) with the compiled interaction; arguments as hippynn's `Hipnn`."""

    _auto_module_class = CompiledHipnnModule


class CompiledHipnnVec(FastHipnnVec):
    """Node of HIP-NN-TS with vectors (ℓ = 1); arguments as hippynn's `HipnnVec`."""

    _auto_module_class = CompiledHipnnVecModule


class CompiledHipnnQuad(FastHipnnQuad):
    """Node of HIP-NN-TS with quadrupoles (ℓ = 2); arguments as hippynn's `HipnnQuad`."""

    _auto_module_class = CompiledHipnnQuadModule


_FAST = (FastHipnn, FastHipnnVec, FastHipnnQuad)
_COMPILED = (CompiledHipnn, CompiledHipnnVec, CompiledHipnnQuad)
# Network nodes by the name of their interaction and by ℓ; see `choice.py`.
NETWORKS: Mapping[str, tuple[type, type, type]] = {
    "auto": _COMPILED,
    "compiled": _COMPILED,
    "fast": _FAST,
    "traced": _FAST,  # and a training's graph is replaced, see `model/traced_model.py`
    "stock": (stock_nodes.Hipnn, stock_nodes.HipnnVec, stock_nodes.HipnnQuad),
}
