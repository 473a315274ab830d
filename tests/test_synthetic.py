"""The synthetic file has the layout and the counts of ANI-1x, and passes every check of data."""

from __future__ import annotations

import importlib
import json
from collections import namedtuple
from pathlib import Path

import h5py
import numpy as np
import pytest
from made_runs import TINY_OPTIONS, exit_code

from hippynn_mf.data.composite import published_ccsd_t_cbs
from hippynn_mf.data.embedded import MINI_ANI1X
from hippynn_mf.data.info import describe_file
from hippynn_mf.errors import UserError

SCRIPTS = Path(__file__).parent.parent / "scripts"
ENERGIES = {
    *("wb97x_dz.energy", "wb97x_tz.energy", "ccsd(t)_cbs.energy"),
    *(f"hf_{basis}.energy" for basis in ("dz", "tz", "qz")),
    *(f"mp2_{basis}.corr_energy" for basis in ("dz", "tz", "qz")),
    *(f"npno_ccsd(t)_{basis}.corr_energy" for basis in ("dz", "tz")),
    "tpno_ccsd(t)_dz.corr_energy",
}


@pytest.fixture(scope="module")
def synthetic():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)
        yield importlib.import_module("make_synthetic_ani1x")


@pytest.fixture(scope="module")
def sparse_file(synthetic, tmp_path_factory):
    """1,000 conformers, a tenth of them with CC labels, as in the whole of ANI-1x."""
    path = tmp_path_factory.mktemp("synthetic") / "sparse.h5"
    synthetic.write_file(path, 1000, n_whole=synthetic.N_FULL)
    return path


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("n", "n_whole"), [(1_000_000, 1_000_000), (4_956_005, 4_956_005)])
def test_the_counts_are_those_of_the_published_file(synthetic, n, n_whole, seed):
    plan = synthetic.plan_file(n, n_whole, np.random.default_rng(seed))
    assert len(plan.n_atoms) == 3114
    assert (plan.n_atoms.min(), plan.n_atoms.max()) == (2, 63)
    assert plan.n_cc.sum() == 489_571
    assert plan.n_cc @ plan.n_atoms == 6_763_288
    assert (plan.n_cc + plan.n_other).sum() == n
    assert plan.n_cc.min() == 0
    assert plan.n_other.min() >= 1
    formulas = synthetic.choose_formulas(plan.n_atoms, np.random.default_rng(seed))
    assert [formula.total() for formula in formulas] == plan.n_atoms.tolist()
    assert len({tuple(sorted(formula.items())) for formula in formulas}) == 3114


@pytest.mark.parametrize("n", [1000, 1234, 10_000, 123_457])
@pytest.mark.parametrize("n_whole", [1_000_000, 4_956_005])
def test_smaller_files_have_counts_in_proportion(synthetic, n, n_whole):
    plan = synthetic.plan_file(n, n_whole, np.random.default_rng(1))
    share = n / n_whole
    assert len(plan.n_atoms) == max(12, round(3114 * share))
    assert plan.n_cc.sum() == round(489_571 * share)
    assert plan.n_cc @ plan.n_atoms == round(6_763_288 * share)
    assert (plan.n_cc + plan.n_other).sum() == n


def test_counts_that_no_groups_can_have_are_refused(synthetic):
    with pytest.raises(UserError, match="10 conformers with 1000 atoms cannot be made"):
        synthetic.draw_counts(np.array([2, 3, 5]), np.ones(3), 10, 1000)


def test_the_layout_is_that_of_the_published_file(sparse_file):
    with h5py.File(sparse_file) as file:
        for group in file.values():
            n, n_atoms = group["coordinates"].shape[:2]
            expected = {"atomic_numbers": ((n_atoms,), "uint8")}
            expected["coordinates"] = ((n, n_atoms, 3), "float32")
            expected |= dict.fromkeys(ENERGIES, ((n,), "float64"))
            for level in ("wb97x_dz", "wb97x_tz"):
                expected[f"{level}.forces"] = ((n, n_atoms, 3), "float32")
            assert {k: (v.shape, v.dtype.name) for k, v in group.items()} == expected


def test_labels_are_missing_per_conformer(sparse_file):
    n_cc = n_tz = 0
    with h5py.File(sparse_file) as file:
        for group in file.values():
            has = {k: np.isfinite(group[k][()].reshape(len(group[k]), -1)) for k in group}
            assert has["coordinates"].all()
            assert has["wb97x_dz.energy"].all()
            assert has["wb97x_dz.forces"].all()
            has_cc = has["ccsd(t)_cbs.energy"]
            for key in ENERGIES - {"wb97x_dz.energy", "wb97x_tz.energy"}:
                np.testing.assert_array_equal(has[key], has_cc)
            has_tz = has["wb97x_tz.energy"]
            np.testing.assert_array_equal(has["wb97x_tz.forces"].all(axis=1), has_tz[:, 0])
            np.testing.assert_array_equal(has["wb97x_tz.forces"].any(axis=1), has_tz[:, 0])
            assert has_tz[has_cc].all()
            n_cc, n_tz = n_cc + int(has_cc.sum()), n_tz + int(has_tz.sum())
    assert n_cc == round(489_571 * 1000 / 4_956_005) == 99
    assert 920 < n_tz < 990


def test_the_checks_of_data_find_nothing_wrong(sparse_file):
    info = describe_file(sparse_file)
    assert info["atoms_per_structure"] == [2, 63]
    assert info["elements"] == ["H", "C", "N", "O"]
    assert (info["n_structures"], info["n_unlabelled"], info["n_common"]) == (1000, 0, 99)
    # Among diatomics, which have one coordinate, three pairs happen to have one bond length.
    assert info["problems"].pop("duplicates") == 3
    assert set(info["problems"].values()) == {0}
    for level in ("wb97x_dz", "wb97x_tz"):
        entry = info["levels"][level]
        assert entry["force_check"]["verdict"] == "passed"
        assert entry["force_check"]["slope"] == pytest.approx(1.0, abs=0.1)
        assert entry["largest_force_hartree_per_angstrom"] < 1.0
    for entry in info["levels"].values():
        assert entry["atomic_energy_fit"]["rank"] == 4
        assert entry["atomic_energy_fit"]["residual_rmse_kcal_per_mol"] < 20


def test_forces_are_the_derivative_of_the_energy(synthetic):
    numbers = np.array([8, 6, 6, 1, 1, 1, 1, 1, 1])
    rest, bonds, lengths = synthetic.grow_molecule(numbers, np.random.default_rng(0))
    assert sorted(bonds[:, 1]) == list(range(1, 9))
    np.testing.assert_allclose(
        np.linalg.norm(rest[bonds[:, 0]] - rest[bonds[:, 1]], axis=1), lengths
    )
    assert set(lengths) <= {1.3, 1.09, 0.96}
    positions = rest + 0.05 * np.random.default_rng(1).normal(size=(1, 9, 3))
    _, forces = synthetic.bond_energies(positions, bonds, lengths)
    step = 1e-5
    for atom in range(9):
        for axis in range(3):
            moved = np.repeat(positions, 2, axis=0)
            moved[:, atom, axis] += (-step, step)
            lower, upper = synthetic.bond_energies(moved, bonds, lengths)[0]
            assert forces[0, atom, axis] == pytest.approx((lower - upper) / (2 * step), abs=1e-8)


def test_cc_energies_are_the_composite_of_the_other_keys(sparse_file):
    with h5py.File(sparse_file) as file:
        for group in file.values():
            composite = published_ccsd_t_cbs(
                hf_tz=group["hf_tz.energy"][()],
                hf_qz=group["hf_qz.energy"][()],
                mp2_tz=group["mp2_tz.corr_energy"][()],
                mp2_qz=group["mp2_qz.corr_energy"][()],
                npno_tz=group["npno_ccsd(t)_tz.corr_energy"][()],
                npno_dz=group["npno_ccsd(t)_dz.corr_energy"][()],
                tpno_dz=group["tpno_ccsd(t)_dz.corr_energy"][()],
            )
            np.testing.assert_array_equal(group["ccsd(t)_cbs.energy"][()], composite)


def content(path):
    with h5py.File(path) as file:
        return {f"{g}/{k}": v[()].tobytes() for g in file for k, v in file[g].items()}


def test_the_seed_decides_everything(synthetic, tmp_path):
    for name, seed in (("a.h5", 0), ("b.h5", 0), ("c.h5", 1)):
        synthetic.write_file(tmp_path / name, 1000, seed=seed)
    first, second, third = (content(tmp_path / name) for name in ("a.h5", "b.h5", "c.h5"))
    assert first == second
    assert first != third


@pytest.mark.parametrize("n", [0, 999, 1_000_001])
def test_impossible_numbers_are_refused(synthetic, tmp_path, n):
    with pytest.raises(UserError, match=rf"{n} conformers cannot be made; choose 1000 to 1000000"):
        synthetic.write_file(tmp_path / "file.h5", n)


def test_a_full_disk_is_refused_before_anything_is_written(synthetic, tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(synthetic.shutil, "disk_usage", lambda folder: usage(500_000))
    with pytest.raises(UserError, match=r"would take 0\.0 GB; 0\.0 GB are free"):
        synthetic.write_file(tmp_path / "file.h5", 1000)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_does_not_exist_is_named(synthetic, tmp_path):
    with pytest.raises(UserError, match=r"No folder .*absent for file\.h5"):
        synthetic.write_file(tmp_path / "absent" / "file.h5", 1000)


def test_a_file_is_complete_or_not_there(synthetic, tmp_path, monkeypatch):
    def fail(*arguments):
        raise KeyboardInterrupt

    path = tmp_path / "file.h5"
    path.write_text("the old one")
    monkeypatch.setattr(synthetic, "make_group", fail)
    with pytest.raises(KeyboardInterrupt):
        synthetic.write_file(path, 1000)
    assert path.read_text() == "the old one"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.filterwarnings("ignore:Provided distances are underneath:UserWarning")
@pytest.mark.parametrize("which", ["embedded", "synthetic"])
def test_all_rows_train_by_the_same_command(which, sparse_file, tmp_path):
    """Few conformers have CC labels: the masks do the rest, and every label counts once."""
    path = MINI_ANI1X if which == "embedded" else sparse_file
    options = [*TINY_OPTIONS, "--set", "batch_size=100"]
    options += ["--data", path, "--rows", "all"]
    assert exit_code("train", "MF-DZ/EF-CC/E", "--out", tmp_path, *options) == 0
    (folder,) = tmp_path.glob("runs/*/seed-0")
    heldout = json.loads((folder / "metrics.json").read_text())["sets"]["heldout"]

    with h5py.File(path) as file:
        groups = list(file.values())
        n_atoms = [len(group["atomic_numbers"]) for group in groups]
        sizes = np.repeat(n_atoms, [len(group["coordinates"]) for group in groups])
        has_cc = np.concatenate([np.isfinite(g["ccsd(t)_cbs.energy"][()]) for g in groups])
    with np.load(folder / "split.npz") as split:
        members = {name: split[name] for name in split}
    copies = describe_file(path)["problems"]["duplicates"]
    assert copies < 4
    # every conformer has DZ labels, and counts once
    assert sum(map(len, members.values())) == len(sizes) - copies
    test = members["test"]
    assert 0 < has_cc[test].sum() < len(test) / 2
    for rows in members.values():
        assert has_cc[rows].mean() == pytest.approx(has_cc.mean(), abs=0.02)
    cc, dz = (heldout[level][level] for level in ("ccsd(t)_cbs", "wb97x_dz"))
    assert (cc["n_energies"], dz["n_energies"]) == (has_cc[test].sum(), len(test))
    assert dz["n_force_components"] == 3 * sizes[test].sum()
    for entry in (cc, dz):
        assert np.isfinite(entry["energy_rmse_kcal_per_mol"])
    epochs = [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]
    for name in ("energy_rmse.ccsd(t)_cbs", "energy_rmse.wb97x_dz", "force_rmse.wb97x_dz"):
        assert np.isfinite([epoch["valid"][name] for epoch in epochs]).all()
