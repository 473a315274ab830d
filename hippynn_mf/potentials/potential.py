"""A trained model, or an ensemble of them, with what is known about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hippynn_mf.errors import UserError, errors_about, unknown_name_message
from hippynn_mf.levels import Level
from hippynn_mf.model.model import Model, build_model, trunk_of_state
from hippynn_mf.potentials.card import Card
from hippynn_mf.potentials.model_file import read_model_file, write_model_file

MOST_SAID = 500  # characters of what torch says, which names every parameter


def split_constants(
    state: Mapping[str, Any],
) -> tuple[dict[str, Tensor], dict[str, dict[str, float]]]:
    """Parameters of a state dict, and what it keeps beside them (hippynn's `_extra_state`)."""
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    constants = {name: dict(value) for name, value in state.items() if name not in tensors}
    return tensors, constants


def _restore(card: Card, state: Mapping[str, Tensor]) -> Model:
    """A member of its parameters, which are checked before anything is built of their sizes."""
    dtypes = {tensor.dtype for tensor in state.values()}
    if len(dtypes) != 1 or not all(torch.isfinite(tensor).all() for tensor in state.values()):
        raise UserError("parameters are missing, not finite, or of several kinds of numbers.")
    sizes = card.architecture
    shape, n = trunk_of_state(state)
    expected = (sizes.n_sensitivities, sizes.n_features, len(card.species))
    if shape != expected:
        raise UserError(f"parameters do not fit the model: {shape} where {expected} was expected.")
    n_layers = sizes.n_interaction_layers * (sizes.n_atom_layers + 1)
    if n != n_layers:
        raise UserError(f"parameters do not fit the model: {n} layers, not {n_layers}.")
    member = _empty_member(card, dtypes.pop())
    _, constants = split_constants(member.parameters.state_dict())
    names_in_file = {name: list(values) for name, values in card.constants.items()}
    if names_in_file != {name: list(values) for name, values in constants.items()} or any(
        value < 0 for values in card.constants.values() for value in values.values()
    ):
        raise UserError(f"its constants do not fit the model; expected those of {constants}.")
    try:
        member.parameters.load_state_dict({**state, **card.constants})
    except RuntimeError as error:
        raise UserError(f"parameters do not fit the model ({str(error)[:MOST_SAID]}).") from None
    return member


def _empty_member(card: Card, dtype: torch.dtype) -> Model:
    """A member to load parameters into; torch's random numbers go on as if it were not made."""
    with torch.random.fork_rng(devices=[]):
        member = build_model(card.architecture, card.labels)
    member.parameters.to(dtype=dtype)  # not torch's default
    return member


def atomic_energies(member: Model, level: Level) -> dict[int, float]:
    """E0 of a level's head in kcal/mol, by atomic number."""
    # One-hot species are the first block, without the padding: hippynn's encoder leaves it out.
    weights = member.heads[level].energy.torch_module.layers[0].weight.detach()[0].tolist()
    return dict(zip([z for z in member.species_set if z], weights, strict=True))


def _refuse_other_atoms(card: Card, member: Model) -> None:
    """Raise UserError unless the card's atomic energies are those of the first member."""
    for level in card.levels:
        if level.atomic_energies_kcal_per_mol != atomic_energies(member, level.level):
            raise UserError(f"the atomic energies of {level.id} are not those of its head.")


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
        with errors_about(model):
            members = tuple(_restore(card, state) for state in states)
            _refuse_other_atoms(card, members[0])
        return cls(card, members)

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
        """The same members with these levels alone, and no parameters or metrics of others.

        What the card says of the training stays: the levels of the experiment were trained.
        """
        chosen = [self.level(name).id for name in levels]
        if not chosen or len(set(chosen)) < len(chosen):
            raise UserError(f"Expected levels, each once; found: {', '.join(chosen) or 'none'}.")
        cards = tuple(card for card in self.card.levels if card.id in chosen)
        member_cards = tuple(member.only(chosen) for member in self.card.members)
        seen = self.card.seen and self.card.seen.only(chosen)
        update = {"levels": cards, "members": member_cards, "seen": seen}
        card = self.card.model_copy(update=update)
        members = []
        for member in self.members:
            kept = _empty_member(card, next(member.parameters.parameters()).dtype)
            state = member.parameters.state_dict()
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
        member = self.members[number]
        levels = tuple(
            level.model_copy(
                update={"atomic_energies_kcal_per_mol": atomic_energies(member, level.level)}
            )
            for level in self.card.levels
        )
        seen = self.card.seen and self.card.seen.only(())  # one member has no spread
        changes = {"members": (self.card.members[number],), "levels": levels, "seen": seen}
        return Potential(self.card.model_copy(update=changes), (member,))
