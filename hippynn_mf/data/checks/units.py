"""Units that files are in by mistake, and which of them explains a factor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from hippynn_mf.units import ENERGY_UNITS, LENGTH_UNITS

ENERGIES, LENGTHS = ENERGY_UNITS, LENGTH_UNITS

NAMED = math.log(1.2)  # a unit explains a factor if it is nearer than this; 1.89 is 3.5 times it


@dataclass(frozen=True)
class FileUnits:
    """The energy unit of a format, with what other checks found its numbers to be in.

    Attributes:
        energy: hartree, or eV of extended XYZ; lengths are in Å.
        found_energy, found_length: units that the energies and positions are in.
    """

    energy: str
    found_energy: str | None = None
    found_length: str | None = None

    @property
    def force(self) -> str:
        """The unit of forces."""
        return f"{self.energy}/Å"


def name_energy_unit(ratio: float, units: FileUnits) -> str | None:
    """The unit of energies that are `ratio` times what they should be."""
    choices = {name: value / ENERGIES[units.energy] for name, value in ENERGIES.items()}
    return _nearest(ratio, choices)


def name_length_unit(ratio: float) -> str | None:
    """The unit of positions whose distances are `ratio` times what they should be in Å."""
    return _nearest(ratio, LENGTHS)


def name_force_unit(slope: float, units: FileUnits) -> str:
    """A sentence that says which unit of forces explains a slope, given those of the others."""
    energy = ENERGIES[units.found_energy or units.energy] / ENERGIES[units.energy]
    length = LENGTHS[units.found_length or "Å"]
    choices = {
        f"{name}/{per}": energy / (value / ENERGIES[units.energy] / LENGTHS[per] * length)
        for name, value in ENERGIES.items()
        for per in ("Å", "bohr")
    }
    named = _nearest(slope, choices)
    if units.found_energy or units.found_length:
        others = " and ".join(
            text
            for text, is_found in (
                (f"energies in {units.found_energy}", units.found_energy),
                (f"positions in {units.found_length}", units.found_length),
            )
            if is_found
        )
        return f"Beside {others}, they are in {named or 'an unknown unit'}."
    if named == units.force:
        return "The slope is none of a known unit."
    if named is None:
        return "No known unit explains the slope."
    return f"They are in {named}."


def _nearest(ratio: float, choices: Mapping[str, float]) -> str | None:
    if not ratio > 0:
        return None
    apart = {name: abs(math.log(ratio / value)) for name, value in choices.items()}
    name = min(apart, key=apart.__getitem__)
    return name if apart[name] <= NAMED else None
