"""The only conversion factors of the package.

Files hold hartree and hartree/Å; training, losses and metrics use kcal/mol and kcal/mol/Å.
"""

from ase import units

KCAL_PER_MOL_PER_HARTREE: float = units.Hartree / (units.kcal / units.mol)
