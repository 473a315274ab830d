"""Names of labels in extended XYZ files: `energy_<level>` per structure, `forces_<level>` per atom.

A level is written by its id and read by its id or its short label, so `energy_ccsd(t)_cbs` and
`energy_CC` are the same. What is no level's follows the same rule: the dataset `hf_tz.energy` of
the ANI-1x layout is `energy_hf_tz` here, and `mp2_tz.corr_energy` is `corr_energy_mp2_tz`. Energies
are in eV, forces in eV/Å.
"""

from __future__ import annotations

from hippynn_mf.levels import Level, known_levels

ENERGY_QUANTITIES = ("energy", "corr_energy")  # of a structure
STD, REFERENCE = "std_", "REF_"  # before a key: of members, and what a prediction is compared with
FORCES = "forces"  # of every atom


def energy_key(level: Level) -> str:
    """Key of a level's energy in the comment line (`atoms.info`), in eV."""
    return f"energy_{level.id}"


def forces_key(level: Level) -> str:
    """Name of the columns (`atoms.arrays`) with a level's forces, in eV/Å."""
    return f"forces_{level.id}"


def energy_dataset(key: str) -> str | None:
    """The dataset of the ANI-1x layout for an extended XYZ key; None if it names no energy."""
    for quantity in ENERGY_QUANTITIES:
        name = key.removeprefix(f"{quantity}_")
        if name not in ("", key):
            return _dataset(name, quantity)
    return None


def forces_dataset(key: str) -> str | None:
    """The dataset of the ANI-1x layout for extended XYZ columns; None if they are no forces."""
    name = key.removeprefix(f"{FORCES}_")
    return None if name in ("", key) else _dataset(name, FORCES)


def extxyz_key(dataset: str) -> str | None:
    """The extended XYZ key of energies or forces in the ANI-1x layout; None if it has none."""
    for level in known_levels():
        for key, own in (
            (energy_key(level), energy_dataset(energy_key(level))),
            (forces_key(level), forces_dataset(forces_key(level))),
        ):
            if dataset == own:
                return key
    name, _, quantity = dataset.rpartition(".")
    return f"{quantity}_{name}" if name and quantity in (*ENERGY_QUANTITIES, FORCES) else None


def _dataset(name: str, quantity: str) -> str:
    """Name of a dataset; a level of one's own may have declared another than `<id>.<quantity>`."""
    for level in known_levels():
        if name in (level.id, level.label):
            name = level.id
            if quantity == "energy" and len(level.energy_keys) == 1:
                return level.energy_keys[0]
            if quantity == FORCES and level.force_key is not None:
                return level.force_key
    return f"{name}.{quantity}"
