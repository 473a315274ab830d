"""The only conversion factors of the package.

HDF5 files hold hartree and hartree/Å; training, losses and metrics use kcal/mol and kcal/mol/Å;
extended XYZ files, and what users do with trained models, are in eV, Å and eV/Å, ASE's units.
Stress is in the unit of energy per Å³, and errors of it are also in GPa.
"""

from collections.abc import Mapping
from types import MappingProxyType

from ase import units

KCAL_PER_MOL_PER_HARTREE: float = units.Hartree / (units.kcal / units.mol)
EV_PER_HARTREE: float = units.Hartree
EV_PER_KCAL_PER_MOL: float = units.kcal / units.mol
GPA_PER_EV_PER_ANGSTROM3: float = 1 / units.GPa

# What files of others are in, by the names that messages, run files and options use.
ENERGY_UNITS: Mapping[str, float] = MappingProxyType(  # per hartree
    {
        "hartree": 1.0,
        "eV": EV_PER_HARTREE,
        "kcal/mol": KCAL_PER_MOL_PER_HARTREE,
        "kJ/mol": units.Hartree / (units.kJ / units.mol),
    }
)
LENGTH_UNITS: Mapping[str, float] = MappingProxyType(  # per Å
    {"Å": 1.0, "bohr": 1 / units.Bohr, "nm": 0.1, "pm": 100.0}
)
