"""Predictions of all seeds of an experiment beside their references, as figures show them.

There is one comparison for each head, each set and each quantity, with the structures that the
metrics count: conformers beyond the energy cut and forces of unproved sign are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from hippynn_mf.evaluation.errors import pair_differences
from hippynn_mf.evaluation.scoring import NO_ENERGIES, NO_FORCES, LabelledSet
from hippynn_mf.keys import STRESS
from hippynn_mf.levels import Level
from hippynn_mf.report.columns import set_name
from hippynn_mf.report.ensemble import require_same_tests
from hippynn_mf.report.runs import Run
from hippynn_mf.report.stored_predictions import (
    heads_of,
    labelled_set,
    prediction_names,
    set_names,
    unproved_forces,
)
from hippynn_mf.units import EV_PER_KCAL_PER_MOL, GPA_PER_EV_PER_ANGSTROM3

Kind = Literal["energy", "forces", "delta_e", "stress"]
KIND_NAMES = {"energy": "energy", "forces": "forces", "delta_e": "ΔE", "stress": "stress"}
UNITS = {"energy": "kcal/mol", "forces": "kcal/mol/Å", "delta_e": "kcal/mol", "stress": "GPa"}
GPA = EV_PER_KCAL_PER_MOL * GPA_PER_EV_PER_ANGSTROM3  # per kcal/mol/Å³
NO_STRESS = "there is no stress of this level"


@dataclass(frozen=True)
class Quantity:
    """What is compared: energies, forces or stress of a test set."""

    part: str
    kind: Kind

    @property
    def heading(self) -> str:
        """Quantity and set as headings say them."""
        return f"{KIND_NAMES[self.kind]}, {set_name(self.part)}"

    @property
    def unit(self) -> str:
        """Unit of the values."""
        return UNITS[self.kind]


@dataclass(frozen=True)
class Comparison:
    """What a head predicts of a quantity, and the references of the same level.

    Attributes:
        level: of the head and of the references.
        quantity: energies in kcal/mol without self energies, force components in kcal/mol/Å,
            differences of the energies of all pairs of conformers of a molecule, or components of
            the stress in GPa.
        true: (n,) references.
        predicted: (n_seeds, n) predictions, float32 as stored.
        owners: (n,) the structure, or the pair, that a value belongs to, counted from 0.
        shift: (n,) for energies, the mean reference of the structures of the same composition,
            else 0. Compositions are hundreds of kcal/mol apart.
        reason: why there is nothing to compare, None where there is.
    """

    level: Level
    quantity: Quantity
    true: np.ndarray
    predicted: np.ndarray
    owners: np.ndarray
    shift: np.ndarray
    reason: str | None = None

    @cached_property
    def mean(self) -> np.ndarray:
        """(n,) mean prediction of the seeds."""
        return np.asarray(self.predicted.mean(axis=0, dtype=np.float64))

    @cached_property
    def errors(self) -> np.ndarray:
        """(n_owners,) error of the mean prediction; of components, their RMS."""
        return self._rms_of_owners((self.mean - self.true) ** 2)

    @cached_property
    def spreads(self) -> np.ndarray:
        """(n_owners,) standard deviation over seeds; of components, their RMS."""
        deviations = self.predicted - self.mean
        return self._rms_of_owners((deviations**2).sum(axis=0) / (len(self.predicted) - 1))

    def _rms_of_owners(self, squares: np.ndarray) -> np.ndarray:
        return np.sqrt(np.bincount(self.owners, squares) / np.bincount(self.owners))


def compare_predictions(members: Sequence[Run]) -> list[Comparison]:
    """Comparisons of all heads, sets and quantities of the members of one experiment.

    Heads are ordered by rank, sets as in the settings. Raises UserError if a member has no
    predictions, or if members were not tested on the same structures.
    """
    settings = members[0].settings
    references: dict[str, np.ndarray] = {}
    stacks: dict[str, list[np.ndarray]] = {}
    for member in members:
        arrays = member.require_folder().read_predictions()
        names = prediction_names(settings, arrays)
        labels_of_member = {name: array for name, array in arrays.items() if name not in names}
        references = references or labels_of_member
        require_same_tests(references, labels_of_member, members[0], member)
        for name in names:
            stacks.setdefault(name, []).append(arrays[name])
    predictions = {name: np.stack(stack) for name, stack in stacks.items()}
    unproved = unproved_forces(references, members[0].sets)
    tests = {
        part: labelled_set(references, part, settings, unproved) for part in set_names(settings)
    }
    return [
        _compare(level, Quantity(part, kind), test, predictions)
        for level in heads_of(settings)
        for part, test in tests.items()
        for kind in _kinds_of(part, test, predictions)
    ]


def _kinds_of(
    part: str, test: LabelledSet, predictions: Mapping[str, np.ndarray]
) -> tuple[Kind, ...]:
    """What is compared of a set; the stress where any head predicts it."""
    energies: Kind = "energy" if test.cut is None else "delta_e"
    any_stress = any(
        name.startswith(f"{part}.") and name.endswith(f".{STRESS}") for name in predictions
    )
    return (energies, "forces", "stress") if any_stress else (energies, "forces")


def _compare(
    level: Level,
    quantity: Quantity,
    test: LabelledSet,
    predictions: Mapping[str, np.ndarray],
) -> Comparison:
    if quantity.kind == "stress":
        return _compare_stress(level, quantity, test, predictions)
    name = level.forces_name if quantity.kind == "forces" else level.energy_name
    if name not in test.labels:
        return _nothing(level, quantity, NO_FORCES if quantity.kind == "forces" else NO_ENERGIES)
    if quantity.kind == "forces" and level.id in test.unproved:
        return _nothing(level, quantity, test.unproved[level.id])
    _, kept = test.kept(level)
    true, predicted = test.labels[name], predictions[f"{quantity.part}.{name}"]
    if quantity.kind == "forces":
        atoms = kept[:, None] & test.atom_mask & np.isfinite(true).all(axis=2)
        _, owners = np.unique(np.nonzero(atoms)[0], return_inverse=True)
        true, predicted = true[atoms].ravel(), predicted[:, atoms].reshape(len(predicted), -1)
        owners = np.repeat(owners, 3)
    else:
        labelled = kept & np.isfinite(true)
        true, predicted = true[labelled], predicted[:, labelled]
        if quantity.kind == "delta_e":
            true = pair_differences(true, test.groups[labelled])
            predicted = pair_differences(predicted.T, test.groups[labelled]).T
        owners = np.arange(len(true))
    if not len(true):
        return _nothing(level, quantity, "no structure here has a label")
    shift = np.zeros(len(true))
    if quantity.kind == "energy":
        shift = _means_of_compositions(test.species[labelled], true)
    return Comparison(level, quantity, true, predicted, owners, shift)


def _compare_stress(
    level: Level,
    quantity: Quantity,
    test: LabelledSet,
    predictions: Mapping[str, np.ndarray],
) -> Comparison:
    """All nine components of every stress, as the metrics count them."""
    true = test.labels.get(level.stress_name)
    predicted = predictions.get(f"{quantity.part}.{level.stress_name}")
    if true is None or predicted is None:
        return _nothing(level, quantity, NO_STRESS)
    _, kept = test.kept(level)
    labelled = kept & np.isfinite(true).all(axis=(1, 2))
    if not labelled.any():
        return _nothing(level, quantity, NO_STRESS)
    values = GPA * true[labelled].reshape(-1)
    return Comparison(
        level,
        quantity,
        values,
        GPA * predicted[:, labelled].reshape(len(predicted), -1),
        np.repeat(np.arange(int(labelled.sum())), 9),
        np.zeros(len(values)),
    )


def _nothing(level: Level, quantity: Quantity, reason: str) -> Comparison:
    empty = np.zeros(0)
    return Comparison(
        level, quantity, empty, empty[None], empty.astype(np.int64), empty, reason=reason
    )


def _means_of_compositions(species: np.ndarray, energies: np.ndarray) -> np.ndarray:
    """(n,) mean energy of the structures with the same atoms as each."""
    formulas = np.sort(species, axis=1)
    _, formula, counts = np.unique(formulas, axis=0, return_inverse=True, return_counts=True)
    means = np.bincount(formula.ravel(), weights=energies) / counts
    return np.asarray(means[formula.ravel()])
