"""The only conversion factors of the package.

Files of the ANI-1x kind hold hartree and hartree/Å; training, losses and metrics use kcal/mol and
kcal/mol/Å; what users do with trained models is in eV, Å and eV/Å, ASE's units.
"""

from ase import units

KCAL_PER_MOL_PER_HARTREE: float = units.Hartree / (units.kcal / units.mol)
EV_PER_HARTREE: float = units.Hartree
EV_PER_KCAL_PER_MOL: float = units.kcal / units.mol
