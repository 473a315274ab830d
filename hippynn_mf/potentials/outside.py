"""Which structures lie outside what a model has seen, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from ase.data import chemical_symbols

from hippynn_mf.levels import Level
from hippynn_mf.potentials.card import Distances
from hippynn_mf.potentials.evaluator import Surfaces
from hippynn_mf.potentials.potential import Potential
from hippynn_mf.potentials.seen import DISTANCE_TOLERANCE, SPREAD_QUANTILE, pair_name
from hippynn_mf.potentials.systems import Systems

ELEMENT, DISTANCE, SPREAD = "element", "distance", "spread"
TITLES = {
    ELEMENT: "with elements that the training set lacks",
    DISTANCE: "with distances beyond those of the training set",
    SPREAD: f"with a spread of the members above the {SPREAD_QUANTILE:.0%} quantile of held-out "
    "structures",
}


def find_outside(
    potential: Potential, systems: Systems, surfaces: Surfaces, levels: Sequence[Level]
) -> list[tuple[str, ...]] | None:
    """Why each system lies outside, by `TITLES`; None if the model file does not tell.

    Elements and spread are those of the `levels`.
    """
    seen = potential.card.seen
    if seen is None or seen.distances is None:
        return None
    reasons: list[set[str]] = [set() for _ in range(len(systems))]
    _add_distances(reasons, systems, seen.distances)
    sizes = np.array(systems.sizes)
    numbers, system_of_atom = systems.numbers.numpy(), systems.system_of_atom.numpy()
    for level in levels:
        known = np.isin(numbers, potential.card.species_of(level.id))
        _add(reasons, system_of_atom[~known], ELEMENT)
        energies, limit = surfaces.energies[level.id], seen.spreads_ev_per_atom.get(level.id)
        if limit is not None and len(energies) > 1:
            spreads = energies.std(axis=0, ddof=1) / sizes
            for number in np.flatnonzero(spreads > limit):
                reasons[number].add(SPREAD)
    return [tuple(name for name in TITLES if name in found) for found in reasons]


def _add_distances(reasons: list[set[str]], systems: Systems, known: Distances) -> None:
    """Note elements and distances that the training set lacks."""
    numbers = systems.numbers.numpy()
    system_of_atom = systems.system_of_atom.numpy()
    receivers, senders = systems.receivers.numpy(), systems.senders.numpy()
    lengths = np.linalg.norm(systems.vectors.numpy(), axis=1)
    elements = [int(z) for z in np.unique(numbers)]
    symbols = {symbol for pair in known.shortest for symbol in pair.split("-")}
    nearest = np.full(len(numbers), np.inf)
    np.minimum.at(nearest, receivers, lengths)
    is_alone = np.array(systems.sizes)[system_of_atom] == 1
    for z in elements:
        is_element = numbers == z
        symbol = chemical_symbols[z]
        if symbol not in symbols:
            _add(reasons, system_of_atom[is_element & ~is_alone], ELEMENT)
            continue
        limit = known.farthest_neighbour.get(symbol, np.inf) + DISTANCE_TOLERANCE
        far = is_element & (nearest > limit) & ~is_alone
        _add(reasons, system_of_atom[far], DISTANCE)
        for other in elements:
            if chemical_symbols[other] not in symbols:
                continue  # which is said of the element
            least = known.shortest.get(pair_name(z, other), np.inf) - DISTANCE_TOLERANCE
            short = is_element[receivers] & (numbers[senders] == other) & (lengths < least)
            _add(reasons, system_of_atom[receivers[short]], DISTANCE)


def _add(reasons: list[set[str]], systems: np.ndarray, reason: str) -> None:
    for number in np.unique(systems):
        reasons[number].add(reason)


@dataclass
class Outside:
    """A count of structures that lie outside, over a whole file.

    Attributes:
        n: structures so far.
        n_outside: of them, outside; they may lie outside for several reasons.
        is_known: whether the model file tells.
    """

    n: int = 0
    n_outside: int = 0
    is_known: bool = True
    by_reason: Counter[str] = field(default_factory=Counter)

    def add(self, n: int, reasons: Sequence[tuple[str, ...]] | None) -> None:
        """Count `n` structures."""
        self.n += n
        if reasons is None:
            self.is_known = False
            return
        self.n_outside += sum(bool(found) for found in reasons)
        self.by_reason.update(name for found in reasons for name in found)

    def __str__(self) -> str:
        """One line for a terminal."""
        if not self.is_known:
            return (
                "outside what the model has seen: unknown for this model file, which does not say "
                "what its training set holds. Export it again from runs of this version."
            )
        line = f"outside what the model has seen: {self.n_outside} of {self.n} structures"
        parts = [f"{self.by_reason[k]} {v}" for k, v in TITLES.items() if self.by_reason[k]]
        return f"{line} ({', '.join(parts)}), marked outside=T" if parts else line
