"""What a model file says about its model, as JSON beside the parameters."""

from __future__ import annotations

from typing import Any, Literal

from ase.data import chemical_symbols

from hippynn_mf.hyperparameters import Hyperparameters
from hippynn_mf.labels import Labels, Properties, parse_labels
from hippynn_mf.levels import Level
from hippynn_mf.metrics_schema import Strict


class LevelCard(Strict):
    """A level of theory of a model.

    `self_energies_hartree` are subtracted before training and added to predictions;
    `atomic_energies_kcal_per_mol` (E0) are what the head adds for each atom of an element, with the
    trunk's part left out. Both are by atomic number. `trained` are the labels it was trained on.
    """

    id: str
    label: str
    method: str
    basis: str
    rank: float
    energy_keys: tuple[str, ...]
    force_key: str | None
    self_energies_hartree: dict[int, float]
    atomic_energies_kcal_per_mol: dict[int, float]
    trained: tuple[Literal["energy", "forces"], ...]

    @property
    def level(self) -> Level:
        """The level itself; it need not be registered."""
        return Level(
            id=self.id,
            label=self.label,
            method=self.method,
            basis=self.basis,
            rank=self.rank,
            energy_keys=self.energy_keys,
            force_key=self.force_key,
            self_energies=self.self_energies_hartree,
        )


class Training(Strict):
    """What the members were trained on: an experiment, and the data by its SHA-256."""

    experiment: str
    preset: str
    rows: str
    split_seed: int
    common_levels: tuple[str, ...]
    data_sha256: str
    n_structures: dict[str, int]


class MemberCard(Strict):
    """One member: its seed, and its metrics as in the run's `metrics.json`."""

    seed: int
    metrics: dict[str, Any]


class Units(Strict):
    """Units of the parameters: what the heads return, and what the trunk is given."""

    energy: Literal["kcal/mol"] = "kcal/mol"
    length: Literal["angstrom"] = "angstrom"


class Card(Strict):
    """Everything about a model but its parameters."""

    format: Literal[1] = 1
    levels: tuple[LevelCard, ...]
    hyperparameters: Hyperparameters
    units: Units = Units()
    # Numbers of modules that hippynn keeps beside the parameters, the same for all members.
    constants: dict[str, dict[str, float]]
    training: Training
    members: tuple[MemberCard, ...]
    versions: dict[str, str]

    @property
    def architecture(self) -> Hyperparameters:
        """Hyperparameters of the stored parameters: heads are stored without coupling."""
        return self.hyperparameters.model_copy(update={"coupling": "independent"})

    @property
    def species(self) -> list[int]:
        """Atomic numbers that the model knows."""
        return [number for number in self.hyperparameters.species if number]

    @property
    def labels(self) -> Labels:
        """Every level with forces: a head predicts forces that it was not trained on."""
        return parse_labels({card.level: Properties.EF for card in self.levels})


def format_card(card: Card) -> str:
    """A card in lines for a terminal: levels, elements, training, and errors of the members."""
    training = card.training
    symbols = ", ".join(chemical_symbols[number] for number in card.species)
    seeds = ", ".join(str(member.seed) for member in card.members)
    lines = [
        f"{len(card.members)} members (seeds {seeds}) of {training.experiment}, "
        f"preset {training.preset}, rows {training.rows}",
        f"elements {symbols}; data {training.data_sha256[:12]}…, split seed {training.split_seed}",
    ]
    for level in card.levels:
        line = f"{level.label:<5}{level.id:<14}{level.method}/{level.basis}, trained on "
        line += " and ".join(level.trained)
        errors = [m.metrics.get("heldout", {}).get(level.id, {}) for m in card.members]
        found = [e.get("energy_rmse_kcal_per_mol") for e in errors]
        if all(value is not None for value in found):
            line += f"; held-out energy RMSE {sum(found) / len(found):.2f} kcal/mol"
        lines.append(line)
    return "\n".join(lines)
