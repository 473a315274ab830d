"""The data that ships with the package: layout, conventions, and agreement with itself."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from ase import Atoms

from hippynn_mf.data.checks.slopes import find_slope
from hippynn_mf.data.composite import canonical_ccsd_t_cbs
from hippynn_mf.data.embedded import FOLDER, MINI_ANI1X, MINI_COMP6, MINI_COMP6_KEYS
from hippynn_mf.data.formats.ani1x import labels_in_file, read_ani1x
from hippynn_mf.data.formats.comp6 import read_comp6, read_key_map
from hippynn_mf.data.matching import find_copies
from hippynn_mf.levels import CC, DZ, MP2, PAPER_LEVELS, TZ
from hippynn_mf.potentials.model_file import checksum, read_model_file

PARAMETERS_SHA256 = "db4e6478e7b7c5cd846d0f57e0442ca915a92bd3b103477d47487276bbc01723"
SCRIPTS = Path(__file__).parent.parent / "scripts"
ENERGY_KEYS = {
    "wb97x_dz.energy",
    "wb97x_tz.energy",
    "ccsd(t)_cbs.energy",
    *(f"hf_{size}.energy" for size in ("dz", "tz", "qz")),
    *(f"mp2_{size}.corr_energy" for size in ("dz", "tz", "qz")),
    "npno_ccsd(t)_dz.corr_energy",
    "npno_ccsd(t)_tz.corr_energy",
    "tpno_ccsd(t)_dz.corr_energy",
}
FORCE_KEYS = {"wb97x_dz.forces", "wb97x_tz.forces"}


def composite(group: h5py.Group) -> np.ndarray:
    """CCSD(T)/CBS of a group from its components."""
    return canonical_ccsd_t_cbs(
        hf_tz=group["hf_tz.energy"][()],
        hf_qz=group["hf_qz.energy"][()],
        mp2_tz=group["mp2_tz.corr_energy"][()],
        mp2_qz=group["mp2_qz.corr_energy"][()],
        mp2_dz=group["mp2_dz.corr_energy"][()],
        ccsd_t_dz=group["ccsd(t)_dz.corr_energy"][()],
    )


def test_training_file_has_every_energy_and_force_key_in_the_published_types():
    with h5py.File(MINI_ANI1X) as file:
        for group in file.values():
            n_conformers, n_atoms, _ = group["coordinates"].shape
            assert group["atomic_numbers"].shape == (n_atoms,)
            assert group["atomic_numbers"].dtype == np.uint8
            for key in ENERGY_KEYS | {"ccsd(t)_dz.corr_energy"}:
                assert group[key].shape == (n_conformers,)
                assert group[key].dtype == np.float64
            for key in FORCE_KEYS | {"coordinates"}:
                assert group[key].shape == (n_conformers, n_atoms, 3)
                assert group[key].dtype == np.float32


def test_groups_are_formulas_of_molecules_with_at_most_two_heavy_atoms():
    with h5py.File(MINI_ANI1X) as file:
        for name, group in file.items():
            atoms = Atoms(group["atomic_numbers"][()])
            assert atoms.get_chemical_formula() == name
            assert set(atoms.symbols) <= set("HCNO")
            assert (atoms.numbers > 1).sum() <= 2


def test_local_pair_natural_orbital_keys_are_all_missing():
    with h5py.File(MINI_ANI1X) as file:
        for group in file.values():
            for key in group:
                if "pno_" in key:
                    assert np.isnan(group[key][()]).all()


@pytest.mark.parametrize("path", [MINI_ANI1X, MINI_COMP6], ids=["training", "comp6"])
def test_coupled_cluster_energy_is_the_composite_of_its_components(path):
    with h5py.File(path) as file:
        groups = file["mini-comp6"] if path == MINI_COMP6 else file
        for group in groups.values():
            stored = group["ccsd(t)_cbs.energy"][()]
            np.testing.assert_allclose(stored, composite(group), rtol=0, atol=1e-11)


def test_low_level_is_complete_and_high_levels_are_all_there_or_all_missing():
    structures, is_common = read_ani1x(
        MINI_ANI1X, labels_in_file(MINI_ANI1X), common_levels=PAPER_LEVELS
    )
    assert structures.has_energy(DZ).all()
    assert structures.has_forces(DZ).all()
    for level in (TZ, MP2, CC):
        np.testing.assert_array_equal(structures.has_energy(level), is_common)
    np.testing.assert_array_equal(structures.has_forces(TZ), is_common)


def test_of_two_bonds_of_carbon_monoxide_one_is_within_the_tolerance():
    structures, is_common = read_ani1x(
        MINI_ANI1X, labels_in_file(MINI_ANI1X), common_levels=PAPER_LEVELS
    )
    first = find_copies(structures)
    (copy,) = np.flatnonzero(first != np.arange(len(first)))  # drawn apart, 1.5e-5 Å in the bond
    assert structures.group_names[structures.groups[copy]] == "CO"
    assert not is_common[copy]  # so no split of common structures changes


@pytest.mark.parametrize("level", [DZ, TZ], ids=lambda level: level.label)
def test_training_forces_have_the_sign_of_forces(level):
    structures, _ = read_ani1x(MINI_ANI1X, labels_in_file(MINI_ANI1X))
    sign = find_slope(structures, level)
    assert sign.verdict == "forces"
    assert sign.slope == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("level", [DZ, MP2], ids=lambda level: level.label)
def test_comp6_gradients_are_read_as_forces(level):
    structures = read_comp6(MINI_COMP6, read_key_map(MINI_COMP6_KEYS))
    sign = find_slope(structures, level)
    assert sign.verdict == "forces"
    assert sign.slope == pytest.approx(1, abs=0.1)


def test_forces_sum_to_zero():
    structures, _ = read_ani1x(MINI_ANI1X, labels_in_file(MINI_ANI1X))
    for values in structures.forces.values():
        net = np.nansum(values, axis=1)
        assert np.abs(net).max() < 1e-5  # hartree/Å: the float32 of the file


def test_comp6_mp2_gradients_carry_a_small_error_estimate():
    with h5py.File(MINI_COMP6) as file:
        for group in file["mini-comp6"].values():
            estimate = group["mp2_tz_grad_error"][()]
            assert np.isfinite(estimate).sum() == 1
            assert np.nanmax(estimate) < 1e-4  # hartree/Å, 0.06 kcal/mol/Å


def test_comp6_molecules_are_not_in_the_training_file():
    with h5py.File(MINI_ANI1X) as training, h5py.File(MINI_COMP6) as comp6:
        formulas = set(training)
        for group in comp6["mini-comp6"].values():
            symbols = [symbol.decode() for symbol in group["species"][()]]
            assert 3 <= sum(symbol != "H" for symbol in symbols) <= 4
            assert Atoms(symbols).get_chemical_formula() not in formulas


def test_files_are_small_enough_to_ship():
    assert sum(path.stat().st_size for path in FOLDER.glob("*.h5")) < 8e6


def test_embedded_data_set_has_its_announced_size():
    _, is_common = read_ani1x(MINI_ANI1X, labels_in_file(MINI_ANI1X), common_levels=PAPER_LEVELS)
    comp6 = read_comp6(MINI_COMP6, read_key_map(MINI_COMP6_KEYS))
    assert is_common.sum() >= 1200
    assert (~is_common).sum() >= 1500
    assert len(comp6.group_names) >= 10
    assert len(comp6) >= 60
    assert np.bincount(comp6.groups).min() >= 6


def test_the_shipped_model_says_what_its_training_set_holds(monkeypatch):
    """Elements, distances and spreads, as they follow from the embedded data."""
    monkeypatch.syspath_prepend(SCRIPTS)
    from describe_shipped_model import describe

    card, states = read_model_file("mini-ani1x")
    found = describe()
    assert found.model_copy(update={"seen": None}) == card.model_copy(update={"seen": None})
    assert card.seen is not None
    assert found.seen is not None
    assert found.seen.distances == card.seen.distances
    assert found.seen.spreads_ev_per_atom == pytest.approx(card.seen.spreads_ev_per_atom, rel=1e-4)
    assert {level.elements for level in card.levels} == {(1, 6, 7, 8)}
    # The parameters are those of the first release, bit by bit.
    assert checksum("", {f"{n}.{k}": v for n, s in enumerate(states) for k, v in s.items()}) == (
        PARAMETERS_SHA256
    )
