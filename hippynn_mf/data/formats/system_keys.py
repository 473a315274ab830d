"""Names by which files give charge, spin, weight and periodicity of a whole structure."""

CHARGES = ("charge", "total_charge", "net_charge")
# Whether the name means the multiplicity, 1 for a singlet; else S, 2S or the multiplicity.
SPINS = {
    "spin": False,
    "total_spin": False,
    "multiplicity": True,
    "spin_multiplicity": True,
    "mult": True,
}
WEIGHTS = ("config_weight", "config_energy_weight", "config_forces_weight")
# Of the atoms of crystals, which may have an order of them; ASE's names, and those of results.
MOMENTS = ("initial_magmoms", "magmoms", "magmom", "initial_charges")
LEAST_MOMENT = 0.01  # of charges and moments, which programs write with an error
PERIODIC = ("pbc",)
KEPT = (*CHARGES, *SPINS, *WEIGHTS)  # what extended XYZ hands on as datasets of these names
