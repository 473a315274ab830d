"""A trained model, or an ensemble of them, with what is known about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from hippynn_mf.errors import UserError, unknown_name_message
from hippynn_mf.levels import Level
from hippynn_mf.models import Model, build_model
from hippynn_mf.potentials.card import Card
from hippynn_mf.potentials.files import read_model_file, write_model_file


def split_constants(
    state: Mapping[str, Any],
) -> tuple[dict[str, Tensor], dict[str, dict[str, float]]]:
    """Parameters of a state dict, and what it keeps beside them (hippynn's `_extra_state`)."""
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    constants = {name: dict(value) for name, value in state.items() if name not in tensors}
    return tensors, constants


@dataclass(frozen=True)
class Potential:
    """Members that differ in their parameters only, and their card.

    `Potential.load("model.safetensors")` reads a file, `Potential.load("mini-ani1x")` the one that
    ships with the package.
    """

    card: Card
    members: tuple[Model, ...]

    @classmethod
    def load(cls, model: str | Path) -> Potential:
        """Read a model file, or a shipped model by its name. No code of the file is run.

        Raises UserError for a missing, truncated, damaged, foreign or newer file.
        """
        card, states = read_model_file(model)
        members = []
        for state in states:
            member = build_model(card.architecture, card.labels)
            (dtype,) = {tensor.dtype for tensor in state.values()}  # not torch's default
            member.parameters.to(dtype)
            try:
                member.parameters.load_state_dict({**state, **card.constants})
            except RuntimeError as error:
                raise UserError(f"{model}: parameters do not fit the model ({error}).") from None
            members.append(member)
        return cls(card, tuple(members))

    def save(self, path: Path) -> None:
        """Write a model file, complete or not at all."""
        states = [member.parameters.state_dict() for member in self.members]
        write_model_file(path, self.card, [split_constants(state)[0] for state in states])

    @property
    def levels(self) -> list[Level]:
        """The levels, from the lowest to the highest rank."""
        return self.members[0].heads.levels

    def level(self, name: str | Level | None) -> Level:
        """The level of this id or label; None is the only level of a model that has one.

        Raises UserError listing the levels for any other name, and for None if there are several.
        """
        heads = self.members[0].heads
        if name is not None:
            return heads[name].level
        if len(heads) == 1:
            return heads.levels[0]
        known = ", ".join(f"{level.label} ({level.id})" for level in heads.levels)
        raise UserError(f"This model has several levels: {known}. Name one of them as the level.")

    def only(self, levels: Sequence[str | Level]) -> Potential:
        """The same members with these levels alone, and no parameters of others."""
        chosen = [self.level(name).id for name in levels]
        if not chosen or len(set(chosen)) < len(chosen):
            raise UserError(f"Expected levels, each once; found: {', '.join(chosen) or 'none'}.")
        cards = tuple(card for card in self.card.levels if card.id in chosen)
        card = self.card.model_copy(update={"levels": cards})
        members = []
        for member in self.members:
            kept = build_model(card.architecture, card.labels)
            state = member.parameters.state_dict()
            kept.parameters.to(next(member.parameters.parameters()).dtype)
            kept.parameters.load_state_dict({k: state[k] for k in kept.parameters.state_dict()})
            members.append(kept)
        return Potential(card, tuple(members))

    def member(self, seed: int) -> Potential:
        """The member of this seed alone; a UserError lists the seeds otherwise."""
        seeds = [member.seed for member in self.card.members]
        if seed not in seeds:
            message = unknown_name_message("seed of this model", str(seed), map(str, seeds))
            raise UserError(message)
        number = seeds.index(seed)
        card = self.card.model_copy(update={"members": (self.card.members[number],)})
        return Potential(card, (self.members[number],))
