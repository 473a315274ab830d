"""Every number of a training, with the presets `quick` and `paper`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from hippynn_mf import keys
from hippynn_mf.errors import UserError, unknown_name_message
from hippynn_mf.levels import Level
from hippynn_mf.schema import Strict, describe_errors

# How heads are connected. `independent`: one linear head per level, the paper's. `delta`: every
# level but the lowest is the next lower one plus a linear correction, a chain by rank.
Coupling = Literal["independent", "delta"]

SUM = "sum"  # the stopping metric that is the sum of the heads' energy RMSEs


class Hyperparameters(Strict):
    """Hyperparameters of network, loss and optimisation. Lengths in Å, energies in kcal/mol.

    The defaults are the paper's, from the authors' public hippynn example.
    """

    # network
    tensor_order: Literal[0, 1, 2] = 2
    n_interaction_layers: PositiveInt = 2
    n_atom_layers: PositiveInt = 4
    n_features: PositiveInt = 120
    n_sensitivities: PositiveInt = 20
    dist_soft_min: PositiveFloat = 0.75
    dist_soft_max: PositiveFloat = 5.5
    dist_hard_max: PositiveFloat = 6.5
    species: tuple[int, ...] = (0, 1, 6, 7, 8)
    # `fast` and `stock` are the same function of the same parameters, see `interaction.py`.
    interaction: Literal["fast", "stock"] = "fast"

    # heads: `independent` is the paper's; see `model/heads.py` for `delta`
    coupling: Coupling = "independent"

    # loss, equation 1
    energy_weight: float = Field(1.0, ge=0)
    force_weight: float = Field(1.0, ge=0)
    hierarchicality_weight: float = Field(1.0, ge=0)

    # optimisation with Adam
    batch_size: PositiveInt = 256
    eval_batch_size: PositiveInt = 1024
    learning_rate: PositiveFloat = 1e-3
    max_epochs: PositiveInt = 2000
    # `plateau` halves the rate after `patience` epochs without improvement of the stopping
    # metric, `cosine` lowers it to zero over `max_epochs`.
    scheduler: Literal["plateau", "cosine"] = "plateau"
    patience: PositiveInt = 20
    termination_patience: PositiveInt = 40
    # `sum` of the heads' energy RMSEs, or one level's label or id.
    stopping_metric: str = SUM
    fraction_train_eval: float = Field(0.1, gt=0, le=1)
    # Find the neighbours of the data once instead of in every step; the numbers are the same.
    precompute_pairs: bool = True

    # strategies of several phases, see `strategies.py`; the values are ours
    fine_tuning_factor: float = Field(0.5, gt=0, le=1)  # of the learning rate
    meta_steps: PositiveInt = 5  # on one level before the next
    meta_rate: float = Field(1.0, gt=0, le=1)

    @model_validator(mode="after")
    def _check_together(self) -> Hyperparameters:
        if self.dist_soft_min >= self.dist_soft_max or self.dist_soft_max > self.dist_hard_max:
            raise ValueError("expected dist_soft_min < dist_soft_max <= dist_hard_max")
        unique = len(set(self.species)) == len(self.species)
        if len(self.species) < 2 or self.species[0] != 0 or min(self.species) < 0 or not unique:
            raise ValueError("species must be 0, for padding, and then atomic numbers, each once")
        return self

    def stopping_key(self, levels: Iterable[Level]) -> str:
        """The validation metric that chooses the best epoch of a training of these levels.

        Raises UserError listing the choices if the stopping metric is neither the sum over the
        heads nor the id or label of one of the levels.
        """
        names = {SUM: keys.ENERGY_RMSE_SUM}
        for level in levels:
            names[level.label] = names[level.id] = keys.energy_rmse(level.id)
        if self.stopping_metric not in names:
            raise UserError(unknown_name_message("stopping criterion", self.stopping_metric, names))
        return names[self.stopping_metric]

    def network_arguments(self) -> dict[str, Any]:
        """Arguments of hippynn's network modules."""
        names = (
            "n_interaction_layers",
            "n_atom_layers",
            "n_features",
            "n_sensitivities",
            "dist_soft_min",
            "dist_soft_max",
            "dist_hard_max",
        )
        return {name: getattr(self, name) for name in names} | {
            "possible_species": list(self.species)
        }


PRESETS: Mapping[str, Hyperparameters] = {
    # The paper's, unchanged: a GPU and hundreds of thousands of structures.
    "paper": Hyperparameters(),
    # A small network and a short schedule for the embedded data on two CPU cores.
    "quick": Hyperparameters(
        n_features=48,
        n_sensitivities=16,
        n_atom_layers=3,
        batch_size=32,
        learning_rate=4e-3,
        max_epochs=80,
        termination_patience=80,
        scheduler="cosine",
        fraction_train_eval=0.05,
    ),
}


def get_hyperparameters(preset: str, overrides: Mapping[str, Any] | None = None) -> Hyperparameters:
    """A preset with overridden values; anything unknown or out of range is a UserError."""
    if preset not in PRESETS:
        raise UserError(unknown_name_message("preset", preset, PRESETS))
    known = Hyperparameters.model_fields
    for name in overrides or {}:
        if name not in known:
            raise UserError(unknown_name_message("hyperparameter", name, known))
    values = PRESETS[preset].model_dump() | dict(overrides or {})
    return validate_hyperparameters(values)


def validate_hyperparameters(values: Mapping[str, Any]) -> Hyperparameters:
    """Hyperparameters from plain values (as read from JSON), checked."""
    try:
        return Hyperparameters.model_validate_json(json.dumps(dict(values)))
    except ValidationError as error:
        raise UserError(f"Wrong hyperparameter: {describe_errors(error)}.") from None
