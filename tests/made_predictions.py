"""Run folders with planted predictions, and the metrics that follow from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from made_runs import COMP6, make_run, make_settings

from hippynn_mf.files import write_npz
from hippynn_mf.report.stored_predictions import heads_of, score_arrays
from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.runs.sources import TestSource

ENERGIES = {
    "heldout": ("wb97x_dz", "wb97x_tz", "mp2_tz", "ccsd(t)_cbs"),
    "comp6": ("wb97x_dz", "mp2_tz", "ccsd(t)_cbs"),
}
FORCES = {"heldout": ("wb97x_dz", "wb97x_tz"), "comp6": ("wb97x_dz", "mp2_tz")}
N_ATOMS = {"heldout": [3, 3, 2, 3, 2], "comp6": [4, 4, 4, 3, 3, 3, 3]}
CC_FORCES = TestSource(name="cc-forces", path=Path("/data/cc-forces.h5"), sha256="5" * 64)
TESTED = {"tests": (COMP6, CC_FORCES)}  # settings of runs that were tested on both
GROUPS = np.array([0, 0, 0, 1, 1, 1, 1])
LAST_IS_FAR = 500.0  # kcal/mol: the last COMP6 conformer is beyond the cut of 100


def references() -> dict[str, np.ndarray]:
    """Structures and references of heldout and COMP6; padded forces are 0."""
    rng = np.random.default_rng(7)
    arrays: dict[str, np.ndarray] = {}
    for part, counts in N_ATOMS.items():
        atoms = np.arange(max(counts)) < np.array(counts)[:, None]
        arrays[f"{part}.species"] = np.where(atoms, 6, 0)
        for level in ENERGIES[part]:
            arrays[f"{part}.reference.{level}.energy"] = rng.normal(0, 10, len(counts))
        for level in FORCES[part]:
            forces = rng.normal(0, 20, (*atoms.shape, 3)) * atoms[..., None]
            arrays[f"{part}.reference.{level}.forces"] = forces
    for level in ENERGIES["comp6"]:
        arrays[f"comp6.reference.{level}.energy"][-1] += LAST_IS_FAR
    return arrays | {"heldout.rows": np.arange(5), "comp6.groups": GROUPS}


def with_cc_forces(
    arrays: dict[str, np.ndarray], seed: int = 0, name: str = "cc-forces"
) -> dict[str, np.ndarray]:
    """The arrays of a run, and those on a test set of the same structures as the held-out ones.

    The set has CC forces besides the held-out references; the predictions are others.
    """
    parts = {n: v for n, v in arrays.items() if n.startswith("heldout.")}
    rng = np.random.default_rng((11, seed))
    arrays = {**arrays}
    for key, values in parts.items():
        own = key.replace("heldout.", f"{name}.")
        is_predicted = "reference" not in key and key.endswith((".energy", ".forces"))
        shift = rng.normal(0, 5, values.shape) if is_predicted else 0
        arrays[own] = (values + shift).astype(values.dtype)
    species = arrays[f"{name}.species"]
    forces = np.random.default_rng(8).normal(0, 20, (*species.shape, 3))
    arrays[f"{name}.reference.ccsd(t)_cbs.forces"] = forces * (species > 0)[..., None]
    return arrays


def predictions(name: str, seed: int) -> dict[str, np.ndarray]:
    """What a planted model of an experiment predicts, in float32, beside the references."""
    rng = np.random.default_rng((seed, len(name)))
    arrays = references()
    for part, counts in N_ATOMS.items():
        shape = arrays[f"{part}.species"].shape
        for head in heads_of(make_settings(name)):
            near = arrays.get(f"{part}.reference.{head.id}.energy", np.zeros(len(counts)))
            energies = near + rng.normal(0.3, 1, len(counts))
            arrays[f"{part}.{head.energy_name}"] = energies.astype(np.float32)
            forces = rng.normal(0, 20, (*shape, 3))
            arrays[f"{part}.{head.forces_name}"] = forces.astype(np.float32)
    return arrays


def predicted_run(
    out: Path, name: str, seed: int, arrays: dict[str, np.ndarray] | None = None, **changes: Any
) -> RunFolder:
    """A finished run folder of these predictions, by default the planted ones."""
    arrays = predictions(name, seed) if arrays is None else arrays
    sets = score_arrays(arrays, make_settings(name, seed, **changes), {})
    metrics = {"format": 2, "sets": sets, "training": None, "inference": None}
    folder = make_run(out, name, seed, metrics, **changes)
    write_npz(folder.file("predictions.npz"), arrays)
    return folder
