"""Every number of a training, with the presets `quick`, `paper` and `robust`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from hippynn_mf import keys
from hippynn_mf.errors import UserError, unknown_name_message
from hippynn_mf.levels import Level
from hippynn_mf.schema import Strict, describe_errors

# How heads are connected. `independent`: one linear head per level, the paper's. `delta`: every
# level but the lowest is the next lower one plus a linear correction, a chain by rank.
Coupling = Literal["independent", "delta"]

# Upper bounds, far above what trains: beyond them a slip of the finger asks for more memory than
# there is, or for a training without end, and fails late or never.
MOST_LAYERS = 64
MOST_FEATURES = 4096  # the paper has 120; weights go with the square
MOST_SENSITIVITIES = 256  # the paper has 20
LONGEST_DISTANCE = 100.0  # Å; with such a cut-off every atom of a molecule sees every other
MOST_STRUCTURES = 2**20  # of a batch; ANI-1x has 4,956,005 conformers
MOST_EPOCHS = 10**6  # a year of epochs of half a minute
LARGEST_WEIGHT = 1e6
LARGEST_NUMBER = 118  # the heaviest element that is known

SUM = "sum"  # the stopping metric that is the sum of the heads' energy RMSEs

# Which epoch's weights a model has: that of the least value of `stopping_key`, or the last.
KeptEpoch = Literal["best_energy", "best_loss", "best_robust", "last"]


class Hyperparameters(Strict):
    """Hyperparameters of network, loss and optimisation. Lengths in Å, energies in kcal/mol.

    The defaults are the paper's, from the authors' public hippynn example.
    """

    # network
    tensor_order: Literal[0, 1, 2] = Field(
        2, description="Largest order of tensors that atoms see of each other, 0 for HIP-NN."
    )
    n_interaction_layers: PositiveInt = Field(
        2, le=MOST_LAYERS, description="Layers in which atoms interact."
    )
    n_atom_layers: PositiveInt = Field(
        4, le=MOST_LAYERS, description="Atom layers after each interaction layer."
    )
    n_features: PositiveInt = Field(
        120, le=MOST_FEATURES, description="Features of an atom: the network's width."
    )
    n_sensitivities: PositiveInt = Field(
        20, le=MOST_SENSITIVITIES, description="Functions of the distance of two atoms."
    )
    dist_soft_min: PositiveFloat = Field(
        0.75, le=LONGEST_DISTANCE, description="Shortest distance resolved, Å."
    )
    dist_soft_max: PositiveFloat = Field(
        5.5, le=LONGEST_DISTANCE, description="Longest distance resolved, Å."
    )
    dist_hard_max: PositiveFloat = Field(
        6.5, le=LONGEST_DISTANCE, description="Distance from which atoms do not see each other, Å."
    )
    species: tuple[Annotated[int, Field(le=LARGEST_NUMBER)], ...] = Field(
        (0, 1, 6, 7, 8),
        description="0, for padding, and the atomic numbers of all elements. With the preset "
        "robust those of all files, where nothing else is asked for.",
    )
    interaction: Literal["auto", "compiled", "fast", "traced", "stock"] = Field(
        "auto",
        description="compiled, with derivatives written by hand, for CPUs; fast; traced, fast "
        "compiled by torch while it trains; stock, hippynn's own; or auto, compiled where that is "
        "possible, else fast: the same function, same parameters.",
    )

    # heads: see `model/heads.py`
    coupling: Coupling = Field(
        "independent",
        description="independent: a linear head for each level, the paper's; delta: every level "
        "but the lowest is the next lower one plus a linear correction.",
    )

    # loss, equation 1
    energy_weight: float = Field(
        1.0, le=LARGEST_WEIGHT, ge=0, description="Of energy errors in the loss."
    )
    force_weight: float = Field(
        1.0, le=LARGEST_WEIGHT, ge=0, description="Of force errors in the loss."
    )
    stress_weight: float = Field(
        100.0,
        le=LARGEST_WEIGHT,
        gt=0,
        description="Of stress errors in the loss, kcal/mol/Å³, where a level is trained on it.",
    )
    hierarchicality_weight: float = Field(
        1.0,
        le=LARGEST_WEIGHT,
        ge=0,
        description="Of the terms that keep later layers' contributions small.",
    )

    # optimisation with Adam
    batch_size: PositiveInt = Field(
        256, le=MOST_STRUCTURES, description="Structures of a training step."
    )
    eval_batch_size: PositiveInt = Field(
        1024, le=MOST_STRUCTURES, description="Structures at a time in validation."
    )
    # without a bound: a rate too high diverges, which ends a training with a message of its own
    learning_rate: PositiveFloat = Field(1e-3, description="Of Adam, at the start.")
    max_epochs: PositiveInt = Field(2000, le=MOST_EPOCHS, description="Epochs, at most.")
    scheduler: Literal["plateau", "cosine"] = Field(
        "plateau",
        description="plateau halves the learning rate after patience epochs without improvement, "
        "cosine lowers it to zero over max_epochs.",
    )
    patience: PositiveInt = Field(20, le=MOST_EPOCHS, description="Epochs, see scheduler.")
    termination_patience: PositiveInt = Field(
        40, le=MOST_EPOCHS, description="Epochs without improvement after which training ends."
    )
    stopping_metric: str = Field(
        SUM,
        description="What chooses the best epoch: the validation energy RMSE of one level, by its "
        "label or id, or the sum over the levels.",
    )
    kept_epoch: KeptEpoch = Field(
        "best_energy",
        description="Whose weights are the model's, by validation: best_energy, the epoch of the "
        "least stopping_metric, the paper's; best_loss, of the least loss (equation 1); "
        "best_robust, of the least sum over the levels of mean absolute errors of energies and "
        "trained forces; last, the last epoch.",
    )
    ema_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Validate and keep an exponential moving average of the weights over the "
        "training steps, as 0.99, with less memory at the start; 0 for the weights themselves.",
    )
    fraction_train_eval: float = Field(
        0.1, gt=0, le=1, description="Part of the training set that each epoch is measured on."
    )
    precompute_pairs: bool = Field(
        True,
        description="Find the neighbours once, not in every step; the same numbers to rounding.",
    )

    # strategies of several phases, see `strategies.py`; the values are ours
    fine_tuning_factor: float = Field(
        0.5, gt=0, le=1, description="Of the learning rate, in fine-tuning (TL, TLF)."
    )
    meta_steps: PositiveInt = Field(
        5, le=MOST_EPOCHS, description="On one level before the next (META)."
    )
    meta_rate: float = Field(1.0, gt=0, le=1, description="Step towards adapted weights (META).")
    meta_adam: Literal["fresh", "persistent"] = Field(
        "fresh",
        description="fresh: Adam begins anew with every task and has no momentum; persistent: "
        "ordinary Adam, which goes on from level to level (META).",
    )

    @model_validator(mode="after")
    def _check_together(self) -> Hyperparameters:
        if self.dist_soft_min >= self.dist_soft_max or self.dist_soft_max > self.dist_hard_max:
            raise ValueError("expected dist_soft_min < dist_soft_max <= dist_hard_max")
        unique = len(set(self.species)) == len(self.species)
        if len(self.species) < 2 or self.species[0] != 0 or min(self.species) < 0 or not unique:
            raise ValueError("species must be 0, for padding, and then atomic numbers, each once")
        if self.stopping_metric != SUM and self.kept_epoch in ("best_loss", "best_robust"):
            raise ValueError(
                f"stopping_metric={self.stopping_metric} goes with kept_epoch=best_energy or last; "
                f"found kept_epoch={self.kept_epoch}, which measures all levels"
            )
        if self.interaction == "traced" and not self.precompute_pairs:
            raise ValueError("interaction=traced goes with precompute_pairs=true; found false")
        return self

    def stopping_key(self, levels: Iterable[Level]) -> str:
        """The validation metric that chooses the best epoch of a training of these levels.

        It also ends a training early, and lowers the rate of the plateau schedule; where the last
        epoch is kept, the best one is that of the energies.

        Raises UserError listing the choices if the stopping metric is neither the sum over the
        heads nor the id or label of one of the levels.
        """
        if self.kept_epoch == "best_loss":
            return keys.LOSS
        if self.kept_epoch == "best_robust":
            return keys.MAE_SUM
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


PRESETS: dict[str, Hyperparameters] = {
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
    # The paper's, unchanged: a GPU and hundreds of thousands of structures.
    "paper": Hyperparameters(),
}
# Those of `quick`, with weights and a kept epoch chosen for data of any kind, see
# docs/kept-epoch.md: not the paper's, whose table is made with the other presets.
PRESETS["robust"] = PRESETS["quick"].model_copy(update={"force_weight": 4.0, "kept_epoch": "last"})


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
