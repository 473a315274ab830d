"""For which elements a level's atomic energies are known from its labels."""

from __future__ import annotations

from collections.abc import Mapping

from ase.data import chemical_symbols

from hippynn_mf.data.structures import Structures, elements_of
from hippynn_mf.labels import Labels
from hippynn_mf.levels import Level

Elements = Mapping[Level, frozenset[int]]


def fitted_elements(train: Structures, labels: Labels, *, coupled: bool) -> Elements:
    """Level → atomic numbers whose atomic energies its training labels determine.

    A head of its own is fitted to the level's energies. A `coupled` one is fitted to differences
    from the next lower level, on structures with both energies if there are any, and has the lower
    level's atomic energy for an element without its own labels.
    """
    found: dict[Level, frozenset[int]] = {}
    base: Level | None = None
    for level in labels:
        has_energy = train.has_energy(level)
        own = frozenset(elements_of(train[has_energy].species)) - {0}
        if coupled and base is not None:
            has_both = (has_energy & train.has_energy(base)).any()
            # With differences alone, an element that the lower level lacks stays without.
            own = found[base] if has_both else found[base] | own
        found[level], base = own, level
    return found


def labelled_elements(train: Structures, level: Level) -> frozenset[int]:
    """Atomic numbers in the structures with energies of a level."""
    return frozenset(elements_of(train[train.has_energy(level)].species)) - {0}


def symbols(numbers: frozenset[int] | set[int]) -> str:
    """Elements in words, as `H, C`."""
    return ", ".join(chemical_symbols[number] for number in sorted(numbers))
