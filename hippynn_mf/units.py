"""The only conversion factors of the package.

HDF5 files hold hartree and hartree/Å, extended XYZ files eV and eV/Å; training, losses and metrics
use kcal/mol and kcal/mol/Å.
"""

from ase import units

KCAL_PER_MOL_PER_HARTREE: float = units.Hartree / (units.kcal / units.mol)
EV_PER_HARTREE: float = units.Hartree
