"""The parameters of a model by their parts: trunk, heads, and second networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

State = dict[str, Any]

NETWORK, HEADS, CORRECTIONS = "network", "heads", "corrections"


@dataclass(frozen=True)
class Parts:
    """A state dict of `Model.parameters`, taken apart.

    Attributes:
        network: parameter of the trunk → value.
        heads: level id → parameter of its head → value.
        corrections: level id → parameter of the network of its own → value.
    """

    network: State
    heads: Mapping[str, State]
    corrections: Mapping[str, State] = field(default_factory=dict)

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Parts:
        """The parts of a state dict; level ids have no dots."""
        network: State = {}
        by_level: dict[str, dict[str, State]] = {HEADS: {}, CORRECTIONS: {}}
        for name, value in state.items():
            part, rest = name.split(".", maxsplit=1)
            if part == NETWORK:
                network[rest] = value
            else:
                level_id, parameter = rest.split(".", maxsplit=1)
                by_level[part].setdefault(level_id, {})[parameter] = value
        return cls(network, by_level[HEADS], by_level[CORRECTIONS])

    def state(self) -> State:
        """The state dict."""
        whole = {f"{NETWORK}.{name}": value for name, value in self.network.items()}
        for part, by_level in ((HEADS, self.heads), (CORRECTIONS, self.corrections)):
            for level_id, values in by_level.items():
                whole |= {f"{part}.{level_id}.{name}": value for name, value in values.items()}
        return whole


def fold(state: Mapping[str, Any], bases: Mapping[str, str]) -> dict[str, Any]:
    """State dict of the model with independent heads that computes the same energies.

    `state` is that of `Model.parameters`; `bases` are the levels of its coupled heads by the ids of
    their levels, from the lowest to the highest: each correction is added to the head it belongs
    to.
    """
    parts = Parts.of(state)
    heads = dict(parts.heads)
    for level_id, base in bases.items():
        heads[level_id] = {
            name: value + heads[base][name] for name, value in heads[level_id].items()
        }
    return replace(parts, heads=heads).state()
