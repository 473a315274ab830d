"""Members on stacked weights: the same energies and slopes as hippynn's modules give each."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from hippynn.layers.hiplayers import InteractLayer
from hippynn.layers.hiplayers.sensitivity import InverseSensitivityModule
from potentials import random_potential

from hippynn_mf.network.compiled import shares
from hippynn_mf.network.interaction import WholeSystem
from hippynn_mf.network.pair_layouts import PairList, tensor_components
from hippynn_mf.potentials import evaluator
from hippynn_mf.potentials.evaluator import Evaluator
from hippynn_mf.potentials.members import Compiled, vector_slopes
from hippynn_mf.potentials.systems import Systems

LABELS = {"DZ": "EF", "CC": "E"}
CUTOFF = 6.5


@pytest.fixture(autouse=True)
def no_warnings(monkeypatch):
    """hippynn warns of distances below its shortest sensitivity."""
    import hippynn

    monkeypatch.setattr(hippynn.settings, "WARN_LOW_DISTANCES", False)


def some_systems(potential):
    """Molecules of different sizes, an atom alone, and a small cell with images of itself."""
    cell = bulk("C", "diamond", a=3.6, cubic=False)
    cell.rattle(0.05, seed=1)
    water, atom = molecule("H2O"), molecule("H2O")[:1]
    systems = [water, cell, atom, molecule("CH3CH2OH"), water]
    return Systems.of(systems, CUTOFF, potential.card.species)


@pytest.mark.parametrize("interaction", ["fast", "auto"])
@pytest.mark.parametrize("at_once", [1, 2, 3])
@pytest.mark.parametrize("tensor_order", [0, 1, 2])
def test_members_are_those_of_hippynn(monkeypatch, tensor_order, at_once, interaction):
    fast = random_potential(LABELS, n_members=3, tensor_order=tensor_order, interaction=interaction)
    stock = random_potential(LABELS, n_members=3, tensor_order=tensor_order, interaction="stock")
    for ours, theirs in zip(fast.members, stock.members, strict=True):
        theirs.parameters.load_state_dict(ours.parameters.state_dict())
    systems, levels = some_systems(fast), fast.levels
    sizes = fast.card.hyperparameters
    per_member = len(systems.numbers) * sizes.n_features * sizes.n_sensitivities
    monkeypatch.setattr(evaluator, "LARGEST_ARRAY", at_once * per_member)
    of_groups = Evaluator(fast)
    found = of_groups(systems, levels, virials=True)
    groups = {1: [(0, 1), (1, 2), (2, 3)], 2: [(0, 2), (2, 3)], 3: [(0, 3)]}[at_once]
    # Compiled, members go together all at once or not at all.
    assert list(of_groups.stacked) == (groups if interaction == "fast" or at_once == 3 else [])
    # Blocks go through the members as they are; hippynn's own modules round some constants.
    alone = Evaluator(fast, atoms_per_block=7)(systems, levels, virials=True)
    of_hippynn = Evaluator(stock)(systems, levels, virials=True)
    for expected, tolerance in ((alone, 1e-12), (of_hippynn, 2e-8)):
        for what in ("energies", "atomic_energies", "forces", "virials"):
            for level in levels:
                ours, theirs = getattr(found, what)[level.id], getattr(expected, what)[level.id]
                assert np.ptp(theirs, axis=0).max() > 1e-6, "the members must differ"
                np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=tolerance)


@pytest.mark.parametrize("n_threads", [2, 3, 9])
def test_shares_of_systems_are_the_systems(monkeypatch, n_threads):
    potential = random_potential(LABELS, interaction="auto")
    systems, levels = some_systems(potential), potential.levels
    expected = Evaluator(potential)(systems, levels, virials=True)
    n_shares = []
    in_threads = shares._in_threads

    def counted(function, n):
        n_shares.append(n)
        return in_threads(function, n)

    monkeypatch.setattr(shares, "LEAST_SHARE", 1)
    monkeypatch.setattr(shares, "_in_threads", counted)
    monkeypatch.setattr(torch, "get_num_threads", lambda: n_threads)
    evaluator_of_shares = Evaluator(potential)
    assert isinstance(evaluator_of_shares.alone[0], Compiled)
    found = evaluator_of_shares(systems, levels, virials=True)
    (n,) = n_shares
    assert 1 < n <= n_threads
    for level in levels:
        for name in ("energies", "atomic_energies", "forces", "virials"):
            one, other = getattr(found, name)[level.id], getattr(expected, name)[level.id]
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_energies_alone_are_the_same():
    potential = random_potential(LABELS, n_members=2)
    systems = some_systems(potential)
    both = Evaluator(potential)(systems, potential.levels)
    alone = Evaluator(potential)(systems)
    for name, energies in alone.energies.items():
        np.testing.assert_allclose(energies, both.energies[name], rtol=1e-12)
    assert not alone.forces


def test_the_members_are_left_as_they_were():
    potential = random_potential(LABELS, n_members=2)
    before = [{k: v.clone() for k, v in m.parameters.named_parameters()} for m in potential.members]
    Evaluator(potential, dtype=torch.float64)(some_systems(potential), potential.levels)
    for member, values in zip(potential.members, before, strict=True):
        found = dict(member.parameters.named_parameters())
        assert all(torch.equal(found[k], v) and found[k].requires_grad for k, v in values.items())
        layers = member.heads.network.torch_module.interaction_layers
        assert all(isinstance(layer, InteractLayer) for layer in layers)
        assert all(isinstance(layer.sensitivity, InverseSensitivityModule) for layer in layers)


@pytest.mark.parametrize("tensor_order", [0, 1, 2])
def test_slopes_by_vectors_are_those_of_autograd(float64, tensor_order):
    n_components = (tensor_order + 1) ** 2
    vectors = torch.randn(11, 3, requires_grad=True)
    of_distances, of_components = torch.randn(2, 11), torch.randn(2, 11, n_components)
    found = vector_slopes(vectors.detach(), of_distances, of_components)
    distances = vectors.norm(dim=1)
    components = tensor_components(distances, vectors, tensor_order)
    for k in range(2):
        scalar = (of_distances[k] * distances).sum() + (of_components[k] * components).sum()
        (expected,) = torch.autograd.grad(scalar, vectors, retain_graph=True)
        torch.testing.assert_close(found[k], expected)


@pytest.mark.parametrize("counts", [[3, 3, 3, 3], [40, 1, 0, 7] * 30], ids=["one run", "several"])
def test_repeated_layouts_are_those_of_repeated_atoms(float64, counts):
    """Any order of slots will do; each pair must meet its own atoms, elements and vector."""
    generator = torch.Generator().manual_seed(0)
    receivers = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    senders = torch.randint(len(counts), receivers.shape, generator=generator)
    vectors = torch.randn(len(receivers), 3, generator=generator)
    n_atoms = len(counts)
    pair_list = PairList(receivers, senders, vectors.norm(dim=1), vectors, n_atoms, n_atoms)
    species = torch.nn.functional.one_hot(torch.arange(n_atoms) % 3, 4).bool()
    repeated = WholeSystem.of(pair_list, species, 2).repeated(3)
    sums = {"receivers": receivers, "senders": senders}
    rows = torch.randn(3 * len(receivers), 2, generator=generator)
    for name, atoms in sums.items():
        slots = getattr(repeated.pairs, name)
        filled = slots.fill(rows)
        widths = torch.cat([torch.full((n,), width) for n, width in slots.runs])
        atom_of_slot = torch.arange(3 * n_atoms).repeat_interleave(widths)
        found = torch.zeros(3 * n_atoms, 2).index_add(0, atom_of_slot, filled)
        every = (atoms + n_atoms * torch.arange(3)[:, None]).flatten()
        torch.testing.assert_close(found, torch.zeros(3 * n_atoms, 2).index_add(0, every, rows))
    sent = repeated.pairs.senders.fill(rows)
    moved = repeated.pairs.sent_to_received(sent)
    torch.testing.assert_close(moved, repeated.pairs.receivers.fill(rows))
    elements = repeated.elements
    element_of_pair = (senders % 3).repeat(3)
    assert torch.equal(element_of_pair[elements.order], element_of_pair.sort().values)
    by_place = rows[elements.order]
    torch.testing.assert_close(by_place[elements.place], rows)
    slots = repeated.pairs.receivers
    occupied = by_place[elements.place_of_slot]
    if slots.empty is not None:
        occupied = occupied.masked_fill(slots.empty, 0)
    torch.testing.assert_close(occupied, slots.fill(rows))
    torch.testing.assert_close(slots.fill(rows)[elements.slot_of_place], by_place)
