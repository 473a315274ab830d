"""One conformer is one, however it is turned, mirrored, moved, reordered or rounded."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from planted import MOLECULES, conformers, numbers_of
from tiny import structures as planted_structures

from hippynn_mf.data.copies import join_copies
from hippynn_mf.data.matching import Batch, find_copies, find_first, find_shared
from hippynn_mf.data.structures import Structures
from hippynn_mf.data.superposition import SAME_POSITION, superpose


def collection(parts, n_labels=0, seed=0):
    """Structures of (numbers, positions) with random energies and forces, each a group."""
    rng = np.random.default_rng(seed)
    width = max(len(numbers) for numbers, _ in parts)
    species = np.zeros((len(parts), width), np.uint8)
    positions = np.zeros((len(parts), width, 3), np.float32)
    forces = np.zeros((len(parts), width, 3), np.float32)
    for row, (numbers, of_row) in enumerate(parts):
        species[row, : len(numbers)], positions[row, : len(numbers)] = numbers, of_row
        forces[row, : len(numbers)] = rng.normal(size=(len(numbers), 3))
    return Structures(
        species=species,
        positions=positions,
        energies={"dz": rng.normal(size=len(parts))},
        forces={"dz": forces},
        groups=np.arange(len(parts)),
        rows=np.arange(len(parts)),
        group_names=tuple(map(str, range(len(parts)))),
    )


def disguised(rng, numbers, positions):
    order = rng.permutation(len(numbers))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return numbers[order], np.round(positions[order] @ turn + 2 * rng.normal(size=3), 5)


def planted(n, seed=0):
    return [
        (numbers_of(molecule[0]), positions)
        for molecule in MOLECULES.values()
        for positions in conformers(molecule, n, seed=seed)
    ]


def test_disguised_copies_are_found_and_nothing_else():
    rng = np.random.default_rng(0)
    originals = planted(20)
    chosen = rng.permutation(len(originals))[:60]
    copies = [disguised(rng, *originals[index]) for index in chosen]
    first = find_copies(collection([*originals, *copies]))
    np.testing.assert_array_equal(first[: len(originals)], np.arange(len(originals)))
    np.testing.assert_array_equal(first[len(originals) :], chosen)


def test_a_disguised_copy_in_a_test_set_is_shared():
    rng = np.random.default_rng(1)
    data = planted(10)
    others = planted(4, seed=77)
    test = collection([*others, *(disguised(rng, *data[index]) for index in (3, 17, 42))])
    shared = find_shared(test, collection(data))
    assert np.flatnonzero(shared).tolist() == [len(others), len(others) + 1, len(others) + 2]


@pytest.mark.parametrize(
    ("numbers", "positions"),
    [
        ([6] * 6, [[np.cos(k * np.pi / 3), np.sin(k * np.pi / 3), 0] for k in range(6)]),
        ([1] * 8, list(itertools.product((0.0, 1.0), repeat=3))),
        ([8, 6, 8], [[-1.2, 0, 0], [0, 0, 0], [1.2, 0, 0]]),
        (
            [6, 1, 9, 17, 35],
            [[0, 0, 0], [1, 0, 0], [-0.4, 1.3, 0], [-0.5, -0.9, 1.4], [-0.6, -1, -1.5]],
        ),
        ([2], [[0.3, 0.2, 0.1]]),
    ],
    ids=["ring", "cube", "line", "chiral", "atom"],
)  # fmt: skip
def test_symmetric_and_mirrored_structures_are_superposed_on_their_elements(numbers, positions):
    rng = np.random.default_rng(2)
    numbers, positions = np.array(numbers), np.array(positions, float)
    for _ in range(5):
        of_copy, moved = disguised(rng, numbers, positions)
        found = superpose((numbers, of_copy), positions[None], moved[None])
        assert found.is_same.all()
        order, turn = found.orders[0], found.turns[0]
        np.testing.assert_array_equal(of_copy[order], numbers)
        laid = (moved - moved.mean(axis=0))[order] @ turn
        np.testing.assert_allclose(laid, positions - positions.mean(axis=0), atol=2e-5)
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)


@pytest.mark.parametrize("height", [3e-3, 1e-2])
def test_a_planar_structure_is_not_one_that_is_a_little_bent(height):
    """Bent out of the plane by 0.01 Å, distances change by 2e-5 Å alone: superposition tells."""
    numbers = np.array([6, 1, 1, 1])
    angles = 2 * np.pi * np.arange(3) / 3
    flat = np.vstack([[0, 0, 0], np.column_stack([np.cos(angles), np.sin(angles), 0 * angles])])
    bent = flat.copy()
    bent[0, 2] = height
    pairs = np.triu_indices(4, 1)
    lengths = [np.linalg.norm(x[pairs[0]] - x[pairs[1]], axis=1) for x in (flat, bent)]
    assert np.abs(lengths[0] - lengths[1]).max() < 6e-5
    assert not superpose((numbers, numbers), flat[None], bent[None]).is_same.any()


@pytest.mark.parametrize(("apart", "is_same"), [(1.9e-5, True), (2.4e-5, False), (1e-3, False)])
def test_two_bonds_are_one_up_to_what_five_digits_leave(apart, is_same):
    bonds = np.array([[[0, 0, 0], [0, 0, 1.1]], [[0, 0, 0], [0, 0, 1.1 + apart]]])
    found = superpose((np.array([7, 7]),) * 2, bonds[:1], bonds[1:])
    assert found.is_same[0] == is_same == (apart / np.sqrt(2) <= SAME_POSITION + 1e-7)


def test_a_scan_of_a_bond_is_no_chain_of_copies():
    lengths = 1.0 + 1e-5 * np.arange(200)
    positions = np.zeros((200, 2, 3))
    positions[:, 1, 2] = lengths
    first = find_first([Batch(np.array([7, 7]), 200, positions.__getitem__)])
    assert np.abs(lengths - lengths[first]).max() < 2.2e-5
    assert len(np.unique(first)) > 60


@pytest.mark.parametrize("seed", range(3))
def test_rounding_at_the_sides_of_cells_parts_no_pair(seed):
    """Pairs as far apart as the tolerance, at any place: each is found."""
    rng = np.random.default_rng(seed)
    positions = rng.normal(size=(2000, 4, 3))
    nudged = positions + 1e-5 * rng.uniform(-1, 1, positions.shape)
    both = np.concatenate([positions, nudged])
    first = find_first([Batch(np.array([6, 1, 1, 8]), len(both), both.__getitem__)])
    np.testing.assert_array_equal(first[2000:], np.arange(2000))


def all_pairs(numbers, positions):
    """(n, n) whether structures of the same atoms are one conformer, each with each."""
    n = len(positions)
    one, two = np.triu_indices(n, 1)
    same = np.eye(n, dtype=bool)
    same[one, two] = superpose((numbers, numbers), positions[one], positions[two]).is_same
    return same | same.T


@pytest.mark.parametrize("offset", [0.0, 300.0], ids=["near", "far"])
@pytest.mark.parametrize("kind", ["scattered", "scan", "outlier", "few"])
def test_candidates_leave_out_no_copy_that_superposing_all_would_find(kind, offset):
    """Dense scans, far outliers that stretch the range of a mark, and coordinates far away."""
    rng = np.random.default_rng(len(kind))
    numbers = np.array([8, 6, 1, 1])
    base = rng.normal(size=(1, 4, 3))
    if kind == "scattered":
        steps = rng.normal(scale=2e-5, size=(80, 4, 3))
    elif kind == "scan":
        steps = np.zeros((80, 4, 3))
        steps[:, 3, 2] = 1.3e-5 * np.arange(80)
    elif kind == "outlier":
        steps = rng.normal(scale=3e-3, size=(80, 4, 3))
        steps[40:] = steps[:40] + rng.uniform(-1e-5, 1e-5, (40, 4, 3))
        steps[7] += 50 * rng.normal(size=(4, 3))
    else:
        steps = rng.uniform(-6e-6, 6e-6, (3, 4, 3))
    turns = np.linalg.qr(rng.normal(size=(len(steps), 3, 3)))[0]
    positions = ((base + steps) @ turns + offset).astype(np.float32)
    same = all_pairs(numbers, positions)
    first = find_first([Batch(numbers, len(positions), positions.__getitem__)])
    assert same[np.arange(len(first)), first].all()
    firsts = np.unique(first)
    np.testing.assert_array_equal(first[firsts], firsts)
    assert (same[np.ix_(firsts, firsts)] == np.eye(len(firsts), dtype=bool)).all()


def test_many_copies_of_one_are_found_in_little_time():
    rng = np.random.default_rng(0)
    positions = np.repeat(rng.normal(size=(1, 5, 3)), 3000, axis=0)
    first = find_first([Batch(np.array([6, 1, 1, 1, 1]), 3000, positions.__getitem__)])
    assert not first.any()


def test_copies_join_their_labels_and_contradictions_are_named():
    rng = np.random.default_rng(5)
    numbers, positions = planted(1)[1]  # methane
    other = disguised(rng, numbers, positions)
    whole = collection([(numbers, positions), other, planted(1)[0]])
    joined = join_copies(whole)
    assert (len(joined.structures), joined.n_copies) == (2, 1)
    kinds = {each.kind for each in joined.contradictions}
    assert kinds == {"energy", "force"}  # both are random
    whole.energies["dz"][0] = np.nan
    whole = replace(whole, forces={"dz": whole.forces["dz"].replaced({0: np.nan})})
    joined = join_copies(whole)
    assert not joined.contradictions
    assert np.isnan(whole.forces["dz"][0]).all()  # what is joined is another array
    assert joined.structures.energies["dz"][0] == whole.energies["dz"][1]
    turned = np.linalg.norm(joined.structures.forces["dz"][0], axis=1)
    lengths = np.linalg.norm(whole.forces["dz"][1], axis=1)
    np.testing.assert_allclose(np.sort(turned), np.sort(lengths), rtol=1e-5)


def test_damaged_positions_are_nobodys_copies():
    positions = np.zeros((4, 2, 3))
    positions[:2] = np.nan
    positions[2:, 1, 0] = 1.1
    first = find_first([Batch(np.array([7, 7]), 4, positions.__getitem__)])
    assert first.tolist() == [0, 1, 2, 2]


def test_padded_and_planted_structures_have_no_copies():
    species, positions = planted_structures(3)
    whole = collection(
        [(s[s > 0], p[s > 0]) for s, p in zip(species.numpy(), positions.numpy(), strict=True)]
    )
    np.testing.assert_array_equal(find_copies(whole), np.arange(len(whole)))  # fmt: skip
