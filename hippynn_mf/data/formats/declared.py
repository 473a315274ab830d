"""What a user says of data files: which names hold which labels, and in which units.

Keys are a table level → property → name in the file, as `--key DFT.energy=dft_energy` or

    [keys]
    DFT.energy = "dft_energy"
    DFT.gradient = "dft_gradient"

and units a table quantity → unit, for all files or for a level:

    [units]
    energy = "kcal/mol"
    CC.energy = "hartree"
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hippynn_mf.data.formats.kinds import KINDS, PROPERTIES
from hippynn_mf.errors import UserError, unknown_name_message
from hippynn_mf.keys import ENERGY, FORCES, STRESS
from hippynn_mf.levels import Level, Levels
from hippynn_mf.units import (
    ENERGY_UNITS,
    EV_PER_HARTREE,
    GPA_PER_EV_PER_ANGSTROM3,
    LENGTH_UNITS,
)

KeyTable = Mapping[str, Mapping[str, str]]
UnitTable = Mapping[str, str | Mapping[str, str]]

POSITIONS = "positions"
QUANTITIES = (ENERGY, POSITIONS, FORCES, STRESS)
STRESS_UNITS = {  # per eV/Å³
    "eV/Å³": 1.0,
    "GPa": GPA_PER_EV_PER_ANGSTROM3,
    "kbar": 10 * GPA_PER_EV_PER_ANGSTROM3,
    "bar": 1e4 * GPA_PER_EV_PER_ANGSTROM3,
    "hartree/bohr³": 1 / (EV_PER_HARTREE * LENGTH_UNITS["bohr"] ** 3),
}
EVERY_LEVEL = ""
SPELLINGS = {"angstrom": "Å", "Angstrom": "Å", "Ang": "Å", "A": "Å", "Ha": "hartree"}


@dataclass(frozen=True)
class Units:
    """Units of the numbers in a file.

    Attributes:
        energy: a name of `ENERGY_UNITS`; None if the file does not say, and nobody has.
        positions: a name of `LENGTH_UNITS`.
        forces: as `hartree/bohr`; None for the unit of energies per that of positions.
        stress: a name of `STRESS_UNITS`; None for the unit of energies per volume.
    """

    energy: str | None
    positions: str = "Å"
    forces: str | None = None
    stress: str | None = None

    @property
    def length(self) -> float:
        """Å per unit of positions."""
        return 1 / LENGTH_UNITS[self.positions]

    @property
    def force(self) -> str:
        """The unit of forces."""
        return self.forces or f"{self.energy}/{self.positions}"

    def of(self, kind: str) -> str:
        """The unit of a kind of labels, for messages."""
        if kind == STRESS:
            return self.stress or f"{self.energy}/{self.positions}³"
        return str(self.energy) if kind == ENERGY else self.force

    def per_hartree(self, kind: str) -> float:
        """The unit of energies per hartree, that of forces per hartree/Å, of stress per its Å³."""
        if kind == ENERGY:
            return ENERGY_UNITS[str(self.energy)]
        if kind == STRESS:
            if self.stress is not None:
                return STRESS_UNITS[self.stress] * EV_PER_HARTREE
            return ENERGY_UNITS[str(self.energy)] / LENGTH_UNITS[self.positions] ** 3
        energy, _, length = self.force.rpartition("/")
        return ENERGY_UNITS[energy] / LENGTH_UNITS[length]

    def saying(self, said: Mapping[str, str]) -> Units:
        """These units with others for some quantities.

        Forces and stress of a format that are in other units than its energies per length stay so
        only where neither is said otherwise.
        """
        changed = (
            replace(self, forces=None, stress=None) if {"energy", POSITIONS} & set(said) else self
        )
        return replace(changed, **said)


@dataclass(frozen=True)
class Label:
    """What a name in a file stands for.

    Attributes:
        level: whose labels they are; None of parts of levels, as of `hf_tz.energy`.
        kind: which, a name of `KINDS`.
        sign: −1 of gradients, which are read as forces, and of virials, which are as stress.
        part: the dataset of the ANI-1x layout, where it is none of a level.
        virial: whether a stress is there as a virial, −V times it.
    """

    level: Level | None
    kind: str
    sign: float = 1.0
    part: str | None = None
    virial: bool = False

    @property
    def dataset(self) -> str:
        """The dataset of the ANI-1x layout that the labels are read into."""
        return self.part or KINDS[self.kind].dataset(self.level)  # type: ignore[arg-type]

    @property
    def shown(self) -> str:
        """As it is declared: `DFT.energy`."""
        return str(self.part) if self.level is None else f"{self.level.label}.{self.kind}"


@dataclass(frozen=True)
class Declared:
    """Keys and units that a user has declared, in a form that can be compared and hashed.

    Attributes:
        keys: (level, property, name in the file); levels by id or label.
        units: (level or `EVERY_LEVEL`, quantity, unit).
    """

    keys: tuple[tuple[str, str, str], ...] = ()
    units: tuple[tuple[str, str, str], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.keys or self.units)

    @classmethod
    def of(cls, keys: KeyTable | None = None, units: UnitTable | None = None) -> Declared:
        """From tables. Raises UserError for a property, a quantity or a unit that is unknown."""
        entries = tuple(_key_entries(keys or {}))
        return cls(entries, tuple(_unit_entries(units or {})))

    def labels(self, level: Level | None, levels: Levels) -> dict[str, Label]:
        """Name in a file → what it stands for; of a file of one `level`, its names alone.

        Raises UserError for an unknown level, and for a name or a label that is declared twice.
        """
        found: dict[str, Label] = {}
        names: dict[tuple[str, str], str] = {}
        for level_name, spelt, name in self.keys:
            of_level = levels.get(level_name)
            if level is not None and of_level != level:
                continue
            meant = PROPERTIES[spelt]
            kind = meant.kind
            label = Label(of_level, kind, meant.sign, virial=meant.virial)
            shown = f"{of_level.label}.{spelt}"
            other = names.setdefault((of_level.id, kind), name)
            if other != name:
                raise UserError(
                    f"Two keys are declared for the {kind} of {of_level.label}: {other} and {name}."
                    " A label has one key; leave one out."
                )
            if name in found and found[name] != label:
                raise UserError(
                    f"The key {name} is declared for {found[name].shown} and for {shown}. One name "
                    "in a file is one label."
                )
            found[name] = label
        return found

    def units_of(self, default: Units, level: Level | None, levels: Levels) -> Units:
        """The units of a file, or of the labels of a level in it."""
        said = {quantity: unit for name, quantity, unit in self.units if name == EVERY_LEVEL}
        if level is not None:
            said |= {
                quantity: unit
                for name, quantity, unit in self.units
                if name != EVERY_LEVEL and levels.get(name) == level
            }
        return default.saying(said) if said else default


NOTHING_DECLARED = Declared()


@dataclass(frozen=True)
class Told:
    """What a reader of a file is told.

    Attributes:
        level: the level of labels that name none; None if labels have to name their levels.
        levels: those that labels may name.
        declared: names and units that the user has declared.
    """

    level: Level | None
    levels: Levels
    declared: Declared = NOTHING_DECLARED

    def labels(self) -> dict[str, Label]:
        """Name → label of the names that are declared for this file."""
        return self.declared.labels(self.level, self.levels)

    def units(self, default: Units, level: Level | None = None) -> Units:
        """The units of the file, and of the labels of a level."""
        return self.declared.units_of(default, level or self.level, self.levels)


@dataclass(frozen=True)
class DeclaredData:
    """Data with what is declared of them: `load_database(DeclaredData(...), ...)`.

    Attributes:
        files: a file or folder, or level → file.
        declared: names and units.
    """

    files: Path | Mapping[str, Path]
    declared: Declared

    @classmethod
    def of(
        cls,
        files: Path | str | Mapping[str, Path],
        *,
        keys: KeyTable | None = None,
        units: UnitTable | None = None,
    ) -> DeclaredData:
        """Data with keys and units as tables, see the top of this module."""
        plain = Path(files) if isinstance(files, str) else files
        return cls(plain, Declared.of(keys, units))


def _key_entries(keys: KeyTable) -> Iterator[tuple[str, str, str]]:
    for level, of_level in keys.items():
        if not isinstance(of_level, Mapping):
            raise UserError(
                f'keys: {level} = {of_level!r}; expected {{"<level>": {{"energy": "<key>"}}}}.'
            )
        for spelt, name in of_level.items():
            if spelt not in PROPERTIES:
                raise UserError(
                    f"key {level}.{spelt}: {unknown_name_message('property', spelt, PROPERTIES)}"
                )
            if not isinstance(name, str) or not name:
                raise UserError(f"key {level}.{spelt}: a name in the file was expected.")
            yield level, spelt, name


def _unit_entries(units: UnitTable) -> Iterator[tuple[str, str, str]]:
    for name, value in units.items():
        of_level = value if isinstance(value, Mapping) else {name: value}
        level = name if isinstance(value, Mapping) else EVERY_LEVEL
        for quantity, unit in of_level.items():
            if quantity not in QUANTITIES or (level and quantity == POSITIONS):
                known = [each for each in QUANTITIES if not level or each != POSITIONS]
                message = unknown_name_message("quantity", quantity, known)
                raise UserError(f"units of {level or 'the data'}: {message}")
            yield level, quantity, _checked_unit(quantity, str(unit))


def _checked_unit(quantity: str, text: str) -> str:
    """A unit by its known name; an unknown one is a UserError that lists the known ones."""
    if quantity == STRESS:
        name = text.replace("^3", "³").replace("angstrom", "Å").replace("/A³", "/Å³")
        if name not in STRESS_UNITS:
            raise UserError(f"units: {unknown_name_message('unit of stress', text, STRESS_UNITS)}")
        return name
    energy, _, length = text.rpartition("/") if quantity == "forces" else (text, "", text)
    energy, length = SPELLINGS.get(energy, energy), SPELLINGS.get(length, length)
    if quantity == "forces" and (energy not in ENERGY_UNITS or length not in LENGTH_UNITS):
        raise UserError(
            f"units: forces in {text!r}; an energy per length was expected, as hartree/bohr. "
            f"Energies: {', '.join(ENERGY_UNITS)}; lengths: {', '.join(LENGTH_UNITS)} or angstrom."
        )
    if quantity == "energy" and energy not in ENERGY_UNITS:
        raise UserError(f"units: {unknown_name_message('unit of energies', text, ENERGY_UNITS)}")
    if quantity == POSITIONS and length not in LENGTH_UNITS:
        raise UserError(
            f"units: {unknown_name_message('unit of positions', text, [*LENGTH_UNITS, 'angstrom'])}"
        )
    if quantity == "forces":
        return f"{energy}/{length}"
    return energy if quantity == "energy" else length
