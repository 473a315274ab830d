"""What a model file says about its model, as JSON beside the parameters."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Literal, Self

from ase.data import chemical_symbols
from pydantic import Field, model_validator

from hippynn_mf.hyperparameters import Hyperparameters
from hippynn_mf.labels import Labels, Properties, parse_labels
from hippynn_mf.level_records import AtomicNumber, LevelRecord
from hippynn_mf.schema import Strict

Length = Annotated[float, Field(ge=0)]


class Distances(Strict):
    """Distances in the training set, in Å, by chemical symbols.

    Attributes:
        shortest: of two elements, as `H-C` with the lighter first, in one molecule.
        farthest_neighbour: of an element, the longest distance of an atom from its nearest
            neighbour; none of elements that occur as single atoms only.
    """

    shortest: dict[str, Length]
    farthest_neighbour: dict[str, Length]


class Seen(Strict):
    """Distances, where they are known, and spreads by level id.

    `spreads_ev_per_atom` are quantiles (`SPREAD_QUANTILE`) over held-out structures of the standard
    deviation (n − 1) of the members' energies per atom; none of a single member.
    """

    distances: Distances | None = None
    spreads_ev_per_atom: dict[str, Annotated[float, Field(ge=0)]] = Field({})

    def only(self, level_ids: Collection[str]) -> Seen:
        """The same without spreads of other levels."""
        spreads = {k: v for k, v in self.spreads_ev_per_atom.items() if k in level_ids}
        return self.model_copy(update={"spreads_ev_per_atom": spreads})


class LevelCard(LevelRecord):
    """A level of theory of a model.

    `self_energies_hartree` are subtracted before training and added to predictions;
    `atomic_energies_kcal_per_mol` (E0) are what the first member's head adds for each atom of an
    element, with the trunk's part left out. Both are by atomic number. `trained` are the labels it
    was trained on; none of a head whose trunk was fine-tuned on another level afterwards.
    `elements` are those for which its labels, or those of the level that its head is coupled to,
    tell the atomic energy: it predicts no others. None, of an older file: all of the model.
    `self_energies_origin` says where self energies that the level did not declare are from, by
    atomic number: isolated atoms of the data, a fit to the training energies, or the level below.
    """

    atomic_energies_kcal_per_mol: dict[AtomicNumber, float]
    trained: tuple[Literal["energy", "forces", "stress"], ...]
    elements: tuple[AtomicNumber, ...] | None = None
    self_energies_origin: dict[AtomicNumber, Literal["isolated_atom", "fitted", "lower_level"]] = (
        Field({})
    )


class TrainedOn(Strict):
    """What the members were trained on: an experiment, and the data by its SHA-256."""

    experiment: str
    preset: str
    rows: str
    split_seed: int
    common_levels: tuple[str, ...]
    data_sha256: str
    n_structures: dict[str, int]


class MemberCard(Strict):
    """One member: its seed, its metrics as in the run's `metrics.json`, and package versions."""

    seed: int
    metrics: dict[str, Any]
    versions: dict[str, str]

    def only(self, level_ids: Collection[str]) -> MemberCard:
        """The card without metrics of other levels' heads or against other levels."""
        if "sets" not in self.metrics:
            return self._only_of_format_1(level_ids)
        sets = {
            name: {
                head: {reference: e for reference, e in errors.items() if reference in level_ids}
                for head, errors in by_head.items()
                if head in level_ids
            }
            for name, by_head in self.metrics["sets"].items()
        }
        metrics = self.metrics | {"sets": sets}
        if (metrics.get("inference") or {}).get("level") not in level_ids:
            metrics.pop("inference", None)
        return self.model_copy(update={"metrics": metrics})

    def heldout_energy_rmse(self, level_id: str) -> float | None:
        """Error of a head against its own level on held-out structures, in kcal/mol, if known."""
        if "sets" in self.metrics:
            by_reference = self.metrics["sets"].get("heldout", {}).get(level_id, {})
        else:
            by_reference = self.metrics.get("heldout", {})
        error: float | None = by_reference.get(level_id, {}).get("energy_rmse_kcal_per_mol")
        return error

    def _only_of_format_1(self, level_ids: Collection[str]) -> MemberCard:
        """As `only`, for a model file of 0.1.0."""

        def kept(by_level: Any) -> Any:
            return by_level and {k: found for k, found in by_level.items() if k in level_ids}

        by_level = ("heldout", "cross", "comp6", "test_file")
        metrics = {k: kept(v) if k in by_level else v for k, v in self.metrics.items()}
        if (metrics.get("inference") or {}).get("level") not in level_ids:
            metrics.pop("inference", None)
        for part in ("cross", "test_file"):
            for head, found in (metrics.get(part) or {}).items():
                metrics[part][head] = kept(found)
        # On COMP6 a level without a head is compared with the predictions of another.
        for level_id, found in dict(metrics.get("comp6") or {}).items():
            if found["predicted_by"] not in level_ids:
                del metrics["comp6"][level_id]
        return self.model_copy(update={"metrics": metrics})


class Units(Strict):
    """Units of the parameters: what the heads return, and what the trunk is given."""

    energy: Literal["kcal/mol"] = "kcal/mol"
    length: Literal["angstrom"] = "angstrom"


class Card(Strict):
    """Everything about a model but its parameters."""

    format: Literal[1, 2] = 2  # 2: with `seen`
    levels: tuple[LevelCard, ...] = Field(min_length=1)
    hyperparameters: Hyperparameters
    units: Units = Units()
    # Numbers of modules that hippynn keeps beside the parameters, the same for all members.
    constants: dict[str, dict[str, float]]
    training: TrainedOn
    members: tuple[MemberCard, ...] = Field(min_length=1)
    seen: Seen | None = None  # not in files of before 0.2

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [name for level in self.levels for name in {level.id, level.label}]
        seeds = [member.seed for member in self.members]
        for what, values in (("level", names), ("seed", seeds)):
            if len(set(values)) < len(values):
                raise ValueError(f"a {what} is there twice: {values}")
        return self

    @property
    def architecture(self) -> Hyperparameters:
        """Hyperparameters of the stored parameters: heads are stored without coupling.

        A model in use takes the compiled interaction where there is one, whichever of this
        package's it was trained with; hippynn's own stays.
        """
        interaction = self.hyperparameters.interaction
        if interaction != "stock":
            interaction = "auto"
        update = {"coupling": "independent", "interaction": interaction}
        return self.hyperparameters.model_copy(update=update)

    @property
    def species(self) -> list[int]:
        """Atomic numbers that the model knows."""
        return [number for number in self.hyperparameters.species if number]

    def species_of(self, level_id: str) -> list[int]:
        """Atomic numbers that a level of the model predicts."""
        found = next(card.elements for card in self.levels if card.id == level_id)
        return self.species if found is None else [z for z in self.species if z in found]

    @property
    def members_text(self) -> str:
        """How many members there are, in words of a sentence."""
        return f"{len(self.members)} member{'s' * (len(self.members) != 1)}"

    @property
    def labels(self) -> Labels:
        """Every level with forces: a head predicts forces that it was not trained on."""
        return parse_labels({card.level: Properties.EF for card in self.levels})


def format_card(card: Card) -> str:
    """A card in lines for a terminal: levels, elements, training, and errors of the members."""
    training = card.training
    symbols = ", ".join(chemical_symbols[number] for number in card.species)
    seeds = "seed" + "s" * (len(card.members) != 1)
    seeds += " " + ", ".join(str(member.seed) for member in card.members)
    lines = [
        f"{card.members_text} ({seeds}) of {training.experiment}, "
        f"preset {training.preset}, rows {training.rows}",
        f"elements {symbols}; data {training.data_sha256[:12]}…, split seed {training.split_seed}",
    ]
    # A level whose id is its label in small letters is named once.
    ids = ["" if c.id.casefold() == c.label.casefold() else c.id for c in card.levels]
    width, id_width = max(len(c.label) for c in card.levels), max(map(len, ids))
    for level, level_id in zip(card.levels, ids, strict=True):
        name = f"{level.label:<{width}}  {level_id:<{id_width}}".strip()
        method = "/".join(filter(None, (level.method, level.basis)))
        line = f"{name:<{width + 2 + id_width}}  {method}, trained on "
        kinds = [", ".join(level.trained[:-1]), *level.trained[-1:]]
        trained = " and ".join(filter(None, kinds))
        line += trained or "nothing since the trunk was fine-tuned"
        species = card.species_of(level.id)
        if species != card.species:
            line += f" of {', '.join(chemical_symbols[number] for number in species)}"
        rmses = [member.heldout_energy_rmse(level.id) for member in card.members]
        known = [value for value in rmses if value is not None]
        if len(known) == len(rmses):
            line += f"; held-out energy RMSE {sum(known) / len(known):.2f} kcal/mol"
        lines.append(line)
    return "\n".join(lines)
