"""Write into the shipped model's card what its training set holds; the parameters stay bit by bit.

    python scripts/describe_shipped_model.py            # writes hippynn_mf/embedded
    python scripts/describe_shipped_model.py --check    # only says whether the card is as it should

The model was exported before model files said which elements each level knows, which distances the
training set has, and how far the members are apart on held-out structures. The card names data
(by SHA-256), rows and split seed, so that all three follow from the embedded data.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from ase import Atoms

from hippynn_mf.data.elements import fitted_elements
from hippynn_mf.data.embedded import MINI_ANI1X
from hippynn_mf.data.loading import load_splits
from hippynn_mf.data.structures import Structures
from hippynn_mf.levels import KNOWN_LEVELS
from hippynn_mf.potentials.card import Card, Seen
from hippynn_mf.potentials.evaluator import Evaluator
from hippynn_mf.potentials.model_file import FORMAT, SHIPPED, read_model_file, write_model_file
from hippynn_mf.potentials.potential import Potential
from hippynn_mf.potentials.seen import distances_of, spread_quantiles
from hippynn_mf.potentials.systems import Systems
from hippynn_mf.runs.experiment import parse_experiment
from hippynn_mf.units import EV_PER_KCAL_PER_MOL

NAME = "mini-ani1x"
N_AT_ONCE = 60


def describe(model: str | Path = NAME, data: Path = MINI_ANI1X) -> Card:
    """The card of a model with what its training structures in the data say.

    Raises ValueError unless the data and the sizes of the splits are those that the card names.
    """
    potential = Potential.load(model)
    card, training = potential.card, potential.card.training
    experiment = parse_experiment(training.experiment)
    found = hashlib.sha256(data.read_bytes()).hexdigest()
    if found != training.data_sha256:
        raise ValueError(f"{data} has SHA-256 {found}, and the model's data {training.data_sha256}")
    labels = experiment.resolved_labels
    parts = load_splits(
        data,
        labels,
        common_levels=[KNOWN_LEVELS.get(name) for name in training.common_levels],
        rows=training.rows,  # type: ignore[arg-type]  # of a card it is any text
        split_seed=training.split_seed,
    )
    sizes = {name: len(part) for name, part in parts.items()}
    if sizes != training.n_structures:
        raise ValueError(f"the splits have {sizes}, and the model had {training.n_structures}")
    coupled = card.hyperparameters.coupling == "delta" or experiment.strategy.has_second_network
    known = {
        level.id: tuple(sorted(elements))
        for level, elements in fitted_elements(parts["train"], labels, coupled=coupled).items()
    }
    levels = tuple(level.model_copy(update={"elements": known[level.id]}) for level in card.levels)
    seen = Seen(
        distances=distances_of(parts["train"].species, parts["train"].positions),
        spreads_ev_per_atom=_spreads(potential, parts["test"]),
    )
    return card.model_copy(update={"format": FORMAT, "levels": levels, "seen": seen})


def _spreads(potential: Potential, test: Structures) -> dict[str, float]:
    evaluator = Evaluator(potential)
    systems = [
        Atoms(species, positions)
        for species, positions in zip(test.species, test.positions, strict=True)
    ]
    found: dict[str, list[np.ndarray]] = {level.id: [] for level in potential.levels}
    for start in range(0, len(systems), N_AT_ONCE):
        some = systems[start : start + N_AT_ONCE]
        surfaces = evaluator(Systems.of(some, evaluator.cutoff, evaluator.species))
        for name in found:
            found[name].append(surfaces.energies[name] / EV_PER_KCAL_PER_MOL)
    energies = {name: list(np.concatenate(parts, axis=1)) for name, parts in found.items()}
    return spread_quantiles(energies, test.n_atoms)


def main(
    check: Annotated[bool, typer.Option("--check", help="Write nothing.")] = False,
) -> None:
    """Write the card of the shipped model anew."""
    card, states = read_model_file(NAME)
    described = describe()
    if described == card:
        return
    typer.echo(f"{NAME}: the card differs from what the data say")
    if check:
        raise typer.Exit(1)
    write_model_file(SHIPPED[NAME], described, states)


if __name__ == "__main__":
    typer.run(main)
