"""The embedded coupled-cluster forces: sign, symmetry, and conformers of their own."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from hippynn_mf.data.embedded import MINI_ANI1X, MINI_CC_FORCES, MINI_COMP6
from hippynn_mf.units import KCAL_PER_MOL_PER_HARTREE

FORCES = "ccsd(t)_cbs.forces"


def groups():
    with h5py.File(MINI_CC_FORCES) as file:
        return {name: {key: group[key][()] for key in group} for name, group in file.items()}


def all_forces(key: str) -> np.ndarray:
    return np.concatenate([group[key].ravel() for group in groups().values()])


def test_there_are_at_least_sixty_conformers_of_all_training_molecules():
    names = [name.decode() for group in groups().values() for name in group["sample"]]
    assert len(names) >= 60
    assert len({name.split("/")[1] for name in names}) == 20
    assert {name.split("/")[0] for name in names} == {"cc_forces"}
    for group in groups().values():
        for key in (FORCES, "wb97x_dz.forces", "wb97x_tz.forces", "ccsd(t)_cbs.energy"):
            assert np.isfinite(group[key]).all()


def test_they_are_forces_near_those_of_density_functional_theory():
    ours, theirs = all_forces(FORCES), all_forces("wb97x_dz.forces")
    slope = (ours @ theirs) / (theirs @ theirs)
    assert slope == pytest.approx(1, abs=0.1)  # a gradient would have −1
    difference = np.sqrt(np.mean((ours - theirs) ** 2)) * KCAL_PER_MOL_PER_HARTREE
    assert 1 < difference < 15


def test_they_neither_push_nor_turn_a_molecule():
    for group in groups().values():
        forces, positions = group[FORCES].astype(float), group["coordinates"].astype(float)
        np.testing.assert_allclose(forces.sum(axis=1), 0, atol=1e-5)
        np.testing.assert_allclose(np.cross(positions, forces).sum(axis=1), 0, atol=1e-5)


def test_the_estimated_error_is_far_below_that_of_a_model():
    errors = np.concatenate([group[f"{FORCES}_error"] for group in groups().values()])
    estimated = errors[np.isfinite(errors)]
    assert len(estimated) == 20  # the first conformer of every molecule
    assert estimated.max() * KCAL_PER_MOL_PER_HARTREE < 0.1


def test_no_model_has_seen_these_conformers():
    def shapes(file):
        for group in file.get("mini-comp6", file).values():
            for positions in group["coordinates"][()]:
                yield tuple(np.sort(distances(positions)).round(6))

    def distances(positions):
        first, second = np.triu_indices(len(positions), 1)
        return np.linalg.norm(positions[first] - positions[second], axis=1)

    seen: set = set()
    for path in (MINI_ANI1X, MINI_COMP6):
        with h5py.File(path) as file:
            seen.update(shapes(file))
    with h5py.File(MINI_CC_FORCES) as file:
        own = list(shapes(file))
    assert len(set(own)) == len(own)
    assert not seen & set(own)
