"""Self energies that a level does not declare: of isolated atoms, else fitted to training energies.

They are subtracted from total energies in float64, before the cast to float32, and added to what a
model predicts. What a level declares stays as it is. Unlike the atomic energies of a head (E0),
which are fitted to what is left, they are facts of a run: a fit depends on its training structures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Literal

import numpy as np

from hippynn_mf.data.elements import Elements, labelled_elements, symbols
from hippynn_mf.data.formats.held_elements import AtomEnergies
from hippynn_mf.data.structures import Structures, atomic_energy_sum, composition
from hippynn_mf.labels import Labels
from hippynn_mf.level_records import AtomicNumber
from hippynn_mf.levels import Level
from hippynn_mf.schema import Strict

Origin = Literal["declared", "isolated_atom", "fitted", "lower_level"]

# Hartree per atom that a fit leaves to the head, about what an atom gains by its bonds. Without it
# atomic energies of the head would be 0 but for rounding, and hierarchicality, which compares later
# terms with them as E₁²/(E₁² + E₀²), would have gradients of up to 0.65/E₀, without bound.
LEFT_TO_HEAD = 0.1
# Of a fitted value: far below what a label says, and far above how sums in another order differ.
DECIMALS = 8


class SelfEnergies(Strict):
    """The self energies of a level in a run.

    Attributes:
        hartree: by atomic number.
        origin: by atomic number: declared with the level; of an isolated atom of the data; fitted;
            or, of an element without labels of the level, that of the next lower one.
        n_fitted: training energies that the fitted ones were fitted to.
        rank: how many of the fitted ones their compositions determine; where that is not all, the
            fit is the one of least norm.
    """

    hartree: dict[AtomicNumber, float]
    origin: dict[AtomicNumber, Origin]
    n_fitted: int = 0
    rank: int = 0

    def of(self, origin: Origin) -> set[int]:
        """The atomic numbers with this origin."""
        return {number for number, each in self.origin.items() if each == origin}

    @property
    def is_declared(self) -> bool:
        """Whether the level declares all of them."""
        return len(self.of("declared")) == len(self.origin)

    @property
    def is_undetermined(self) -> bool:
        """Whether the compositions leave some of the fitted ones open."""
        return self.rank < len(self.of("fitted"))

    def text(self) -> str:
        """Where they are from, in words."""
        said: dict[Origin, str] = {
            "declared": "declared",
            "isolated_atom": "of isolated atoms",
            "fitted": f"fitted to {self.n_fitted} training energies",
            "lower_level": "of the level below",
        }
        texts = [
            f"{symbols(numbers)} {how}"
            for origin, how in said.items()
            if (numbers := self.of(origin))
        ]
        return "; ".join(texts)


def find_self_energies(
    train: Structures,
    labels: Labels,
    atoms: AtomEnergies,
    *,
    known: Elements | None = None,
    coupled: bool = False,
    bases: Mapping[Level, Level] = MappingProxyType({}),
) -> dict[str, SelfEnergies]:
    """Level id → self energies of every element in the training labels of the level.

    Args:
        train: the training structures, whose order does not matter.
        labels: the levels, from the lowest to the highest.
        atoms: energies of isolated atoms, for elements without a declared self energy.
        known: the elements of each level, also those that a coupled head has of the level below.
        coupled: heads learn the difference from the level below, to which as much is left.
        bases: the level that a level is a correction of, where that need not be the one below it
            among `labels`.

    The least squares are in float64, on total energies less the self energies that are known; a
    self energy is `LEFT_TO_HEAD` above the fit, of coupled levels so much more for every level.
    """
    found: dict[str, SelfEnergies] = {}
    below: Mapping[int, float] = {}
    for place, level in enumerate(labels, 1):
        elements = labelled_elements(train, level)
        wanted = elements if known is None else elements | known.get(level, frozenset())
        hartree = dict(level.self_energies)
        origin: dict[int, Origin] = dict.fromkeys(hartree, "declared")
        for number in sorted(wanted - set(hartree)):
            if number in atoms.get(level.id, {}):
                hartree[number], origin[number] = atoms[level.id][number], "isolated_atom"
        n_fitted = rank = 0
        if missing := sorted(elements - set(hartree)):
            values, n_fitted, rank = _fit(train, replace(level, self_energies=hartree), missing)
            left = LEFT_TO_HEAD * (place if coupled else 2 if level in bases else 1)
            hartree |= {z: value + left for z, value in zip(missing, values, strict=True)}
            origin.update(dict.fromkeys(missing, "fitted"))
        if (base := bases.get(level)) is not None:
            below = found[base.id].hartree if base.id in found else base.self_energies
        for number in sorted(wanted - set(hartree)):
            hartree[number], origin[number] = below[number], "lower_level"
        found[level.id] = SelfEnergies(hartree=hartree, origin=origin, n_fitted=n_fitted, rank=rank)
        below = hartree
    return found


def with_self_energies(level: Level, self_energies: Mapping[int, float]) -> Level:
    """The level with these self energies beside its own."""
    return replace(level, self_energies={**self_energies, **level.self_energies})


def lacking_elements(level: Level, numbers: Iterable[int]) -> set[int]:
    """Those of some atomic numbers that the level declares no self energy for; 0 is padding."""
    return set(numbers) - {0, *level.self_energies}


def _fit(train: Structures, level: Level, missing: list[int]) -> tuple[list[float], int, int]:
    """The fit of the `missing` elements, the number of energies, and the rank.

    Structures of the same composition are one equation with their mean energy and their weight, so
    that neither the order nor the number of structures matters to the rounding.
    """
    labelled = train.has_energy(level)
    some = train[labelled]
    species, energies = some.species, some.energies[level.id]
    known = atomic_energy_sum(species, with_self_energies(level, dict.fromkeys(missing, 0.0)))
    counts = composition(species, missing)
    has_any = counts.any(axis=1)
    kinds, kind_of, sizes = np.unique(
        counts[has_any], axis=0, return_inverse=True, return_counts=True
    )
    means = np.bincount(kind_of.ravel(), weights=(energies - known)[has_any]) / sizes
    weights = np.sqrt(sizes / sizes.sum())
    solution, _, rank, _ = np.linalg.lstsq(kinds * weights[:, None], means * weights, rcond=None)
    rounded = [round(float(value), DECIMALS) for value in solution]
    return rounded, int(has_any.sum()), int(rank)
