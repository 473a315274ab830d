"""One conformer of the embedded data set, from its name to its labels on disk."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from hippynn_mf.files import write_npz
from hippynn_mf.labelling.harmonic import Minimum, draw_conformer, internal_directions
from hippynn_mf.labelling.reference import (
    NotConvergedError,
    all_labels,
    cbs_and_mp2_tz_energies,
    correlated_labels,
    gradient_by_differences,
    low_level_labels,
    mp2_tz_energy,
)

log = logging.getLogger(__name__)

# In this order: a sample's seed holds the number of its kind.
Kind = Literal["full", "low", "comp6", "cc_forces", "delta_e"]

SEED = 20261122
GRADIENT_STEP = 0.002  # Å along a unit vector of all Cartesian coordinates

# What is differentiated for a kind of conformer: the gradients' keys (hartree/Å), and the energies.
DIFFERENTIATED = {
    "comp6": (("mp2_tz_grad",), mp2_tz_energy),
    "cc_forces": (("ccsd(t)_cbs_grad", "mp2_tz_grad"), cbs_and_mp2_tz_energies),
}

# Densities of the last conformer of a molecule that this process computed, by molecule and basis.
GUESSES: defaultdict[str, dict[str, np.ndarray]] = defaultdict(dict)


@dataclass(frozen=True)
class Sample:
    """One conformer to compute: its molecule, what to compute, and its number in that series.

    `attempt` counts the geometries that failed before.
    """

    kind: Kind
    molecule: str
    index: int
    attempt: int = 0

    @property
    def name(self) -> str:
        """Name in the files, as `full/CH4/00012`."""
        return f"{self.kind}/{self.molecule}/{self.index:05d}"

    @property
    def seed(self) -> tuple[int, ...]:
        """Seed of its geometry alone: adding conformers changes no other."""
        kind = get_args(Kind).index(self.kind)
        again = (self.attempt,) if self.attempt else ()
        return (SEED, *self.molecule.encode(), kind, self.index, *again)

    def path(self, work: Path) -> Path:
        """Where the finished conformer lies in the work folder."""
        return work / f"{self.name}.npz"


def compute_sample(sample: Sample, minimum: Minimum, work: Path) -> None:
    """Compute one conformer and write it; one that does not converge is named and left out."""
    numbers, positions = minimum.numbers, draw_conformer(minimum, sample.seed)
    try:
        labels = compute_labels(sample, numbers, positions, GUESSES[sample.molecule])
    except NotConvergedError as error:
        log.warning("%s did not converge: %s", sample.name, error)
        return
    write_sample(sample.path(work), {"atomic_numbers": numbers, "coordinates": positions, **labels})


def compute_labels(
    sample: Sample, numbers: np.ndarray, positions: np.ndarray, guesses: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The labels of a sample's kind. `guesses` holds densities by basis and is updated."""
    if sample.kind in ("full", "cc_forces"):
        labels = all_labels(numbers, positions, guesses)
    else:
        labels = low_level_labels(numbers, positions, guesses)
    if sample.kind in ("comp6", "delta_e"):
        labels |= correlated_labels(numbers, positions, guesses)
    if sample.kind in DIFFERENTIATED:
        keys, energies = DIFFERENTIATED[sample.kind]
        directions = internal_directions(positions, np.ones(len(numbers)))
        # The first conformer of a molecule also with twice the step, to estimate the error.
        steps = [GRADIENT_STEP, 2 * GRADIENT_STEP] if sample.index == 0 else [GRADIENT_STEP]
        gradients = [
            gradient_by_differences(
                lambda moved: energies(numbers, moved, guesses),
                positions,
                directions=directions,
                step=step,
            ).reshape(len(keys), -1, 3)
            for step in steps
        ]
        labels |= dict(zip(keys, gradients[0], strict=True))
        if len(gradients) > 1:  # the error of the smaller step is a third of the difference
            errors = np.abs(gradients[1] - gradients[0]).max(axis=(1, 2)) / 3
            labels |= {f"{key}_error": error for key, error in zip(keys, errors, strict=True)}
    return labels


def write_sample(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write one conformer's arrays, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_npz(path, arrays)


def read_sample(path: Path) -> dict[str, np.ndarray]:
    """Read one conformer's arrays."""
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)
