"""Every name of an array and of a metric, with shape and unit.

A structure set has n structures, padded to n_atoms_max atoms. A missing label is NaN. The database
of hippynn, the nodes of a graph (`db_name`) and predictions use the same names.
"""

from __future__ import annotations

from typing import Final

# Inputs of a network.
SPECIES: Final = "species"  # (n, n_atoms_max) atomic numbers, 0 = padding; uint8, int64 in batches
POSITIONS: Final = "positions"  # (n, n_atoms_max, 3) Å, 0 for padding
PAIRS: Final = "pairs"  # (n_pairs, 2) int64 of a batch, as of `NeighbourLists.batch_pairs`
CELL: Final = "cell"  # (n, 3, 3) Å, rows are lattice vectors, 0 along an axis without periodicity
PAIR_SHIFTS: Final = "pair_shifts"  # (n_pairs, 3) Å, what lattice vectors add to x_j − x_i

# Labels of a level, `<level id>.<kind>`: see `energy`, `forces` and `stress`.
ENERGY: Final = "energy"
FORCES: Final = "forces"
STRESS: Final = "stress"

# Where the structures of a test set come from.
ROWS: Final = "rows"  # (n,) int64 position of each structure in its file
GROUPS: Final = "groups"  # (n,) int64 which molecule each is a conformer of

# Validation metrics.
LOSS: Final = "loss"  # equation 1, a number without unit
ENERGY_RMSE_SUM: Final = "energy_rmse_sum"  # kcal/mol, over the heads
MAE_SUM: Final = "mae_sum"  # over the heads, energies in kcal/mol and trained forces in kcal/mol/Å


def energy(level_id: str) -> str:
    """Name of the energies of a level, kcal/mol without self energies.

    (n, 1) float32 in a database and as output of a graph, (n,) as predictions and references.
    """
    return f"{level_id}.{ENERGY}"


def forces(level_id: str) -> str:
    """Name of the forces of a level, −dE/dR, (n, n_atoms_max, 3) in kcal/mol/Å, 0 for padding."""
    return f"{level_id}.{FORCES}"


def stress(level_id: str) -> str:
    """Name of the stress of a level, V⁻¹ dE/dε as ASE's, (n, 3, 3) in kcal/mol/Å³."""
    return f"{level_id}.{STRESS}"


def split_label(name: str) -> tuple[str, str] | None:
    """Level id and kind (`ENERGY`, `FORCES` or `STRESS`) of a label; None for another array."""
    level_id, dot, kind = name.rpartition(".")
    return (level_id, kind) if dot and kind in (ENERGY, FORCES, STRESS) else None


def is_per_atom(name: str) -> bool:
    """Whether the second axis of the array of this name counts atoms."""
    label = split_label(name)
    return name in (SPECIES, POSITIONS) if label is None else label[1] == FORCES


def energy_rmse(level_id: str) -> str:
    """Name of the metric of a head's energies, kcal/mol."""
    return f"energy_rmse.{level_id}"


def energy_mae(level_id: str) -> str:
    """Name of the metric of a head's energies, kcal/mol."""
    return f"energy_mae.{level_id}"


def force_rmse(level_id: str) -> str:
    """Name of the metric of a head's force components, kcal/mol/Å."""
    return f"force_rmse.{level_id}"


def force_mae(level_id: str) -> str:
    """Name of the metric of a head's force components, kcal/mol/Å."""
    return f"force_mae.{level_id}"


def stress_rmse(level_id: str) -> str:
    """Name of the metric of a head's stress components, kcal/mol/Å³."""
    return f"stress_rmse.{level_id}"


def stress_mae(level_id: str) -> str:
    """Name of the metric of a head's stress components, kcal/mol/Å³."""
    return f"stress_mae.{level_id}"
