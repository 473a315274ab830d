"""Names of labels in extended XYZ files: `energy_<level>` per structure, `forces_<level>` per atom.

A level is written by its id and read by its id or its short label, so `energy_ccsd(t)_cbs` and
`energy_CC` are the same. What is no level's follows the same rule: the dataset `hf_tz.energy` of
the ANI-1x layout is `energy_hf_tz` here, and `mp2_tz.corr_energy` is `corr_energy_mp2_tz`. Energies
are in eV, forces in eV/Å. The stress `stress_<level>` is in eV/Å³ with ASE's sign, V⁻¹ dE/dε; it
may also be there as a virial, `virial_<level>`, −V times the stress in eV.
"""

from __future__ import annotations

from hippynn_mf import keys
from hippynn_mf.levels import KNOWN_LEVELS, Level, Levels

ENERGY_QUANTITIES = (keys.ENERGY, "corr_energy")  # of a structure
STD, REFERENCE = "std_", "REF_"  # before a key: of members, and what a prediction is compared with
FORCES = keys.FORCES  # of every atom
PROVENANCE = "provenance_"  # before a level: where its labels come from; for people
STRESS, VIRIAL = keys.STRESS, "virial"  # of a structure; a virial is −V times the stress


def energy_key(level: Level) -> str:
    """Key of a level's energy in the comment line (`atoms.info`), in eV."""
    return f"energy_{level.id}"


def forces_key(level: Level) -> str:
    """Name of the columns (`atoms.arrays`) with a level's forces, in eV/Å."""
    return f"forces_{level.id}"


def stress_key(level: Level) -> str:
    """Key of a level's stress in the comment line, 3 × 3 in eV/Å³."""
    return f"{STRESS}_{level.id}"


def level_datasets(level: Level) -> tuple[str, str]:
    """The datasets of the ANI-1x layout that a level's energies and forces are read into."""
    sole = level.energy_keys[0] if len(level.energy_keys) == 1 else None
    return sole or level.energy_name, level.force_key or level.forces_name


def energy_dataset(key: str, levels: Levels = KNOWN_LEVELS) -> str | None:
    """The dataset of the ANI-1x layout for an extended XYZ key; None if it names no energy."""
    for quantity in ENERGY_QUANTITIES:
        name = key.removeprefix(f"{quantity}_")
        if name not in ("", key):
            level = levels.find(name)
            if level is None:
                return f"{name}.{quantity}"
            is_energy = quantity == keys.ENERGY
            return level_datasets(level)[0] if is_energy else f"{level.id}.{quantity}"
    return None


def forces_dataset(key: str, levels: Levels = KNOWN_LEVELS) -> str | None:
    """The dataset of the ANI-1x layout for extended XYZ columns; None if they are no forces."""
    name = key.removeprefix(f"{FORCES}_")
    if name in ("", key):
        return None
    level = levels.find(name)
    return f"{name}.{FORCES}" if level is None else level_datasets(level)[1]


def stress_dataset(key: str, levels: Levels = KNOWN_LEVELS) -> str | None:
    """The dataset of the ANI-1x layout for the key of a stress or virial; None if it is neither."""
    for quantity in (STRESS, VIRIAL):
        name = key.removeprefix(f"{quantity}_")
        if name not in ("", key):
            level = levels.find(name)
            return f"{name}.{STRESS}" if level is None else level.stress_name
    return None


def extxyz_key(dataset: str, levels: Levels = KNOWN_LEVELS) -> str | None:
    """The extended XYZ key of a label in the ANI-1x layout; None if it has none."""
    for level in levels:
        energies, forces = level_datasets(level)
        if dataset == level.stress_name:
            return stress_key(level)
        if dataset in (energies, forces):
            return energy_key(level) if dataset == energies else forces_key(level)
    name, _, quantity = dataset.rpartition(".")
    return (
        f"{quantity}_{name}" if name and quantity in (*ENERGY_QUANTITIES, FORCES, STRESS) else None
    )
