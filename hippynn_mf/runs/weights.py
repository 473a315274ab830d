"""Weights of the loss by level and term, `DZ.forces=4`: asked for, resolved, and of a phase."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from hippynn_mf.errors import UserError, unknown_name_message
from hippynn_mf.hyperparameters import Hyperparameters
from hippynn_mf.labels import Labels
from hippynn_mf.levels import KNOWN_LEVELS, Levels
from hippynn_mf.schema import StrictKeys

Term = Literal["energy", "forces", "hierarchicality", "stress"]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
WeightsOfLevel = dict[Term, Weight]
WeightsById = dict[str, WeightsOfLevel]  # by level id


class TermWeights(StrictKeys):
    """Weights of one level's terms; those that are not said are of the hyperparameters."""

    energy: Weight | None = Field(None, description="Of the level's energy errors.")
    forces: Weight | None = Field(None, description="Of the level's force errors.")
    hierarchicality: Weight | None = Field(None, description="Of the level's later layers.")
    stress: Weight | None = Field(None, gt=0, description="Of the level's stress errors.")


def parse_weights(pairs: list[str]) -> dict[str, dict[str, float]]:
    """Weights from LEVEL.TERM=WEIGHT; a UserError for another form, an unknown term, or twice."""
    weights: dict[str, dict[str, float]] = {}
    terms = list(TermWeights.model_fields)
    for pair in pairs:
        name, _, text = pair.rpartition("=")
        level, _, term = name.rpartition(".")
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not level or value != value:
            raise UserError(f"--weight expects LEVEL.TERM=WEIGHT, as DZ.forces=4; found {pair!r}.")
        if term not in terms:
            raise UserError(f"--weight {pair}: {unknown_name_message('term', term, terms)}")
        if term in weights.setdefault(level, {}):
            raise UserError(f"--weight names {name} twice.")
        weights[level][term] = value
    return weights


def resolve_weights(
    weights: Mapping[str, TermWeights], labels: Labels, *, levels: Levels = KNOWN_LEVELS
) -> WeightsById:
    """Weights by level id.

    `labels` are those of all experiments that are asked for together. Raises UserError for a level
    that none of them trains on, for the forces of one whose forces none trains on, for a level
    without a weight, and for one that is named twice.
    """
    resolved: WeightsById = {}
    for name, of_level in weights.items():
        level = levels.get(name)
        if level not in labels:
            raise UserError(
                f"A weight of {level.label} is asked for, which the experiment does not train on. "
                f"It trains on: {', '.join(each.label for each in labels)}."
            )
        if level.id in resolved:
            raise UserError(f"Weights of {level.label} are asked for twice, under two names.")
        said: WeightsOfLevel = of_level.model_dump(exclude_none=True)  # type: ignore[assignment]
        if not said:
            terms = ", ".join(TermWeights.model_fields)
            raise UserError(f"[weights.{name}] has no weight; name one of {terms}.")
        if "forces" in said and not labels[level].forces:
            raise UserError(
                f"A weight of {level.label} forces is asked for, and only {level.label} energies "
                f"are trained on. Ask for {level.label}/EF, or leave the weight out."
            )
        if "stress" in said and not labels[level].stress:
            raise UserError(
                f"A weight of the {level.label} stress is asked for, and the stress is not trained "
                f"on. Ask for {level.label}/EFS, or leave the weight out."
            )
        resolved[level.id] = said
    return resolved


def refuse_untrained(
    labels: Labels, weights: WeightsById, hyperparameters: Hyperparameters, name: str
) -> None:
    """Raise UserError if the weights leave nothing of a level's labels in an experiment's loss."""
    for level, properties in labels.items():
        of_level = weights_of_level(level.id, weights, hyperparameters)
        if not of_level["energy"] and not (properties.forces and of_level["forces"]):
            raise UserError(
                f"{name}: the weights of all labels of {level.label} are 0, so nothing would be "
                "learned of it. Leave the level out, or give it a weight."
            )


def weights_of_level(
    level_id: str, weights: WeightsById, hyperparameters: Hyperparameters
) -> dict[Term, float]:
    """All weights of a level: its own, or those that the hyperparameters have for every level."""
    shared: dict[Term, float] = {
        "energy": hyperparameters.energy_weight,
        "forces": hyperparameters.force_weight,
        "hierarchicality": hyperparameters.hierarchicality_weight,
        "stress": hyperparameters.stress_weight,
    }
    return shared | weights.get(level_id, {})


def weights_text(
    hyperparameters: Hyperparameters, weights: WeightsById, names: Levels, *, stress: bool = False
) -> str:
    """The weights of a run for people, empty if all are 1: `energy 1, forces 4; DZ energy 2`.

    That of the `stress` is among them where it is trained on.
    """
    shared = weights_of_level("", {}, hyperparameters)
    if not stress:
        del shared["stress"]
    parts = [_listed(shared)] if set(shared.values()) != {1.0} else []
    parts += [f"{names.get(name).label} {_listed(own)}" for name, own in weights.items()]
    return "; ".join(parts)


def _listed(weights: Mapping[Term, float]) -> str:
    return ", ".join(f"{term} {value:g}" for term, value in weights.items())
