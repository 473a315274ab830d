"""Levels of theory: their names, where files keep their labels, and strict look-up.

A level is looked up by its id or by its short label, never guessed:

    >>> KNOWN_LEVELS.get("CC").id
    'ccsd(t)_cbs'

Those of a user stand beside them, and are handed to whatever resolves names (the command line has
`--levels` for it, see `level_records.py`)::

    mine = Level("gfn2_xtb", label="GFN2", method="GFN2-xTB", basis="minimal", rank=5.0,
                 energy_keys=("gfn2_xtb.energy",), force_key="gfn2_xtb.forces")
    load_database("mine.h5", {"GFN2": "EF"}, levels=KNOWN_LEVELS.including([mine]))
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType

import numpy as np

from hippynn_mf import keys
from hippynn_mf.errors import UserError, unknown_name_message

# Ids are parts of keys in files, of parameters' names and of names of folders. Labels are for
# people, and for command lines and run files.
NAME_PATTERN = r"[\w()+*-]+"
LABEL_PATTERN = r"[\w()+*/-]([\w()+*/ -]*[\w()+*/-])?"

# Self energies (hartree) that the authors subtract at every level, so that one float32 step of a
# target is far below chemical accuracy. Source: the authors' public hippynn example.
SELF_ENERGIES = MappingProxyType({1: -0.4993212, 6: -37.764142, 7: -54.4628753, 8: -74.940046})


@dataclass(frozen=True)
class Level:
    """A level of theory.

    Attributes:
        id: name in files, metrics and models, as in `ani1x-release.h5`.
        label: the paper's short name, an alias of `id`, which may have `/` and spaces.
        method, basis: for people.
        rank: levels are ordered by it, the highest rank being the most accurate level.
        energy_keys: dataset names whose sum is the energy (hartree).
        force_key: dataset name of the forces (hartree/Å), None where no file has them.
        self_energies: hartree per atomic number, subtracted from every energy before training; of
            elements that are not there they are found in the data, of all with `{}`.
    """

    id: str
    label: str
    method: str
    basis: str
    rank: float
    energy_keys: tuple[str, ...]
    force_key: str | None = None
    self_energies: Mapping[int, float] = field(default_factory=lambda: SELF_ENERGIES, repr=False)

    def __post_init__(self) -> None:
        for name, pattern in ((self.id, NAME_PATTERN), (self.label, LABEL_PATTERN)):
            if not re.fullmatch(pattern, name):
                raise UserError(
                    f"A level's id and label must be non-empty names without dots, of letters, "
                    f"digits and _()+*-, a label also of / and spaces inside; found {name!r}."
                )
        # A copy that nobody can change; how dataclasses themselves set fields that are frozen.
        object.__setattr__(self, "self_energies", MappingProxyType(dict(self.self_energies)))

    def __hash__(self) -> int:
        """Of the id alone: a mapping has none."""
        return hash(self.id)

    def __reduce__(self) -> tuple[type[Level], tuple[object, ...]]:
        """Let worker processes have levels of the user's own: a mapping proxy is not pickled."""
        *values, self_energies = (getattr(self, item.name) for item in fields(self))
        return Level, (*values, dict(self_energies))

    def self_energies_of(self, numbers: np.ndarray) -> np.ndarray:
        """Self energies of atoms, hartree, in the shape of their atomic `numbers`; 0 for padding.

        Raises UserError naming the elements for which the level has no self energy.
        """
        unknown = set(np.unique(numbers).tolist()) - {0, *self.self_energies}
        if unknown:
            raise UserError(
                f"Atomic numbers {sorted(unknown)} have no self energy at level {self.id}, "
                f"which knows {sorted(self.self_energies)}. Remove these structures, or declare a "
                "level with their self energies."
            )
        table = np.zeros(max(self.self_energies, default=0) + 1)
        for number, energy in self.self_energies.items():
            table[number] = energy
        return table[numbers]

    def differences(self, other: Level) -> list[str]:
        """What differs, field by field: this level's value, then the other's."""
        texts = []
        for item in fields(self):
            mine, theirs = getattr(self, item.name), getattr(other, item.name)
            if mine != theirs:
                if isinstance(mine, Mapping):
                    mine, theirs = dict(mine), dict(theirs)
                texts.append(f"{item.name} is {mine!r}, not {theirs!r}")
        return texts

    @property
    def energy_name(self) -> str:
        """Name (`db_name`) of the energy in a database and of its node in a graph."""
        return keys.energy(self.id)

    @property
    def forces_name(self) -> str:
        """Name (`db_name`) of the forces in a database and of their node in a graph."""
        return keys.forces(self.id)

    @property
    def stress_name(self) -> str:
        """Name (`db_name`) of the stress in files, in a database and of its node in a graph."""
        return keys.stress(self.id)


@dataclass(frozen=True)
class Difference:
    """The energies of a level minus those of a lower one, which are learned as a level's."""

    higher: Level
    lower: Level

    @property
    def level(self) -> Level:
        """The difference as a level, whose labels no file has."""
        higher, lower = self.higher, self.lower
        return Level(
            f"{higher.id}-{lower.id}",
            label=f"{higher.label}-{lower.label}",
            method=f"{higher.method} − {lower.method}",
            basis="",
            rank=higher.rank,
            energy_keys=(),
            self_energies={
                z: energy - lower.self_energies[z]
                for z, energy in higher.self_energies.items()
                if z in lower.self_energies
            },
        )


class Levels:
    """The levels that are known in one place: fixed, each name once, from the lowest rank up.

    They are handed to whatever looks a name up; nothing is known beside them.
    """

    def __init__(self, levels: Iterable[Level] = ()) -> None:
        by_name: dict[str, Level] = {}
        for level in levels:
            for name in dict.fromkeys((level.id, level.label)):
                known = by_name.setdefault(name, level)
                if known.id != level.id:
                    raise UserError(
                        f"Two levels of theory are named {name!r}, {known.id} and {level.id}; "
                        "every name is taken once. Choose another one of them."
                    )
                if known != level:
                    raise UserError(
                        f"Another level is known as {level.id}: "
                        f"{'; '.join(level.differences(known))}. What is another level needs "
                        "another id and label."
                    )
        self._by_name = MappingProxyType(by_name)
        self._levels = tuple(sorted(dict.fromkeys(by_name.values()), key=lambda level: level.rank))

    def __iter__(self) -> Iterator[Level]:
        """The levels, from the lowest to the highest rank."""
        return iter(self._levels)

    def __len__(self) -> int:
        return len(self._levels)

    def __eq__(self, other: object) -> bool:
        return self._levels == other._levels if isinstance(other, Levels) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._levels)

    def __reduce__(self) -> tuple[type[Levels], tuple[tuple[Level, ...]]]:
        """For worker processes: a mapping proxy is not pickled."""
        return Levels, (self._levels,)

    def __repr__(self) -> str:
        return f"Levels({', '.join(level.label for level in self)})"

    def get(self, name: str | Level) -> Level:
        """The level with this id or label. Raises UserError listing the known ones otherwise.

        A level itself is what it is, known or not.
        """
        if isinstance(name, Level):
            return name
        level = self.find(name)
        if level is None:
            known = [text for level in self for text in (level.label, level.id)]
            message = unknown_name_message("level of theory", name, known)
            raise UserError(
                f"{message} Others are declared first, as --levels LABEL,... or --levels FILE."
            )
        return level

    def find(self, name: str) -> Level | None:
        """The level with this id or label; None if there is none."""
        return self._by_name.get(name)

    def including(self, more: Iterable[Level]) -> Levels:
        """These and more; a UserError for a level that is another than the one of its name."""
        return Levels((*self, *more))


def highest_level(levels: Iterable[Level]) -> Level:
    """The level of highest rank."""
    return max(levels, key=lambda level: level.rank)


DZ = Level(
    "wb97x_dz",
    label="DZ",
    method="ωB97X",
    basis="6-31G(d)",
    rank=10.0,
    energy_keys=("wb97x_dz.energy",),
    force_key="wb97x_dz.forces",
)
TZ = Level(
    "wb97x_tz",
    label="TZ",
    method="ωB97X",
    basis="def2-TZVPP",
    rank=20.0,
    energy_keys=("wb97x_tz.energy",),
    force_key="wb97x_tz.forces",
)
MP2 = Level(
    "mp2_tz",
    label="MP2",
    method="MP2",
    basis="cc-pVTZ",
    rank=30.0,
    energy_keys=("hf_tz.energy", "mp2_tz.corr_energy"),
)
CC = Level(
    "ccsd(t)_cbs",
    label="CC",
    method="CCSD(T)",
    basis="CBS",
    rank=40.0,
    energy_keys=("ccsd(t)_cbs.energy",),
    force_key="ccsd(t)_cbs.forces",  # of few files; ani1x-release.h5 has none
)

# The levels of the paper's Table 1; conformers with all four energies are its reduced data set.
PAPER_LEVELS = (DZ, TZ, MP2, CC)
KNOWN_LEVELS = Levels(PAPER_LEVELS)
