"""Structures of several files, or repeated in one, become one conformer with all labels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from planted import AMMONIA, HCN, METHANE, NITROGEN, conformers, forces, numbers_of
from planted import WATER as WATER_MOLECULE

from hippynn_mf.data.formats.frames import Frame
from hippynn_mf.data.formats.merging import merge_frames
from hippynn_mf.errors import UserError
from hippynn_mf.units import EV_PER_HARTREE

WATER = np.array([8, 1, 1], np.uint8)


def frame(positions, energies=None, forces=None, *, numbers=WATER, path="a.xyz", number=1):
    return Frame(
        numbers, np.array(positions), energies or {}, forces or {}, None, Path(path), number
    )


def random_positions(n, n_atoms=3, seed=0):
    """Structures that differ in all coordinates but those of the first atom, as in many files."""
    positions = np.random.default_rng(seed).normal(size=(n, n_atoms, 3))
    positions[:, 0] = 0
    return positions


def test_the_same_structures_of_two_files_are_one_conformer_with_both_labels():
    positions = random_positions(30)
    first = [frame(p, {"dz": -1.0 * i}, number=i + 1) for i, p in enumerate(positions)]
    nudge = 1e-5 * np.random.default_rng(1).uniform(-1, 1, positions.shape)  # five digits, twice
    order = np.random.default_rng(2).permutation(30)[:20]
    second = [
        frame((positions + nudge)[i], {"cc": -2.0 * i}, path="b.xyz", number=k + 1)
        for k, i in enumerate(order)
    ]
    second += [frame(p, {"cc": 7.0}, path="b.xyz") for p in random_positions(5, seed=3)]
    merged = merge_frames([first, second])
    assert (merged.n_matched, merged.n_repeated) == (20, 0)
    assert len(merged.frames) == 35
    for i, conformer in enumerate(merged.frames[:30]):
        np.testing.assert_array_equal(conformer.positions, positions[i])
        expected = {"dz": -1.0 * i, "cc": -2.0 * i} if i in order else {"dz": -1.0 * i}
        assert conformer.energies == expected
    assert all(conformer.energies == {"cc": 7.0} for conformer in merged.frames[30:])


@pytest.mark.parametrize("atom", [0, 2])
@pytest.mark.parametrize(("distance", "n_conformers"), [(1e-5, 1), (1e-4, 2), (1e-3, 2)])
def test_a_bond_of_another_length_keeps_structures_apart(atom, distance, n_conformers):
    (positions,) = random_positions(1)
    other = positions.copy()
    away = positions[atom] - positions[1]
    other[atom] += distance * away / np.linalg.norm(away)
    assert len(merge_frames([[frame(positions)], [frame(other)]]).frames) == n_conformers


def changed(rng, numbers, positions, digits=5):
    """The same structure turned, mirrored perhaps, moved, reordered and rounded; and how."""
    order = rng.permutation(len(numbers))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return (
        numbers[order],
        np.round(positions[order] @ turn + rng.normal(size=3), digits),
        order,
        turn,
    )


@pytest.mark.parametrize("molecule", [WATER_MOLECULE, METHANE, AMMONIA, HCN, NITROGEN])
@pytest.mark.parametrize("spread", [0.0, 0.08], ids=["symmetric", "distorted"])
def test_copies_of_any_form_join_with_forces_in_the_frame_of_the_first(molecule, spread):
    rng = np.random.default_rng(3)
    numbers = numbers_of(molecule[0])
    (positions,) = conformers(molecule, 1, seed=1, spread=spread)
    own = forces(numbers, positions[None], "wb97x_tz")[0]
    files = [[frame(positions, {"dz": -1.0}, numbers=numbers.astype(np.uint8))]]
    for number in range(6):
        of_copy, moved, order, turn = changed(rng, numbers, positions)
        turned = own[order] @ turn
        name = f"tz{number}"
        files.append([frame(moved, {name: -2.0}, {name: turned}, numbers=of_copy.astype(np.uint8))])
    merged = merge_frames(files)
    (conformer,) = merged.frames
    assert merged.n_matched == 1
    np.testing.assert_array_equal(conformer.positions, positions)
    assert len(conformer.energies) == 7
    for turned in conformer.forces.values():
        # Symmetric atoms may be exchanged, which leaves forces as they are.
        np.testing.assert_allclose(turned, own, atol=2e-5)


def test_forces_of_a_turned_copy_that_are_another_frames_are_refused():
    rng = np.random.default_rng(4)
    numbers = numbers_of(METHANE[0])
    (positions,) = conformers(METHANE, 1, seed=1)
    own = forces(numbers, positions[None], "wb97x_dz")[0]
    of_copy, moved, order, _ = changed(rng, numbers, positions)
    frames = [
        frame(positions, forces={"dz": own}, numbers=numbers.astype(np.uint8)),
        frame(moved, forces={"dz": own[order]}, numbers=of_copy.astype(np.uint8), number=2),
    ]
    with pytest.raises(UserError, match=r"structure 2 repeats a\.xyz, structure 1, but dz differs"):
        merge_frames([frames])


def test_other_atoms_at_the_same_positions_are_other_conformers():
    (positions,) = random_positions(1)
    other = frame(positions, numbers=np.array([8, 6, 1], np.uint8))
    assert len(merge_frames([[frame(positions)], [other]]).frames) == 2


def test_atoms_exchanged_with_another_element_make_another_conformer():
    (positions,) = random_positions(1)
    other = frame(positions[[1, 0, 2]])  # oxygen where a hydrogen was
    assert len(merge_frames([[frame(positions)], [other]]).frames) == 2


def test_the_search_agrees_with_a_comparison_of_all_pairs():
    rng = np.random.default_rng(5)
    positions = random_positions(40, n_atoms=9)[rng.integers(40, size=300)]
    merged = merge_frames([[frame(p, numbers=np.full(9, 6, np.uint8)) for p in positions]])
    apart = np.abs(positions[:, None] - positions[None]).max(axis=(2, 3))
    first = np.unique((apart <= 1e-6).argmax(axis=1))
    assert len(merged.frames) == len(first) < 300
    for conformer, index in zip(merged.frames, first, strict=True):
        np.testing.assert_array_equal(conformer.positions, positions[index])
    assert (merged.n_matched, merged.n_repeated) == (0, 300 - len(first))


def test_labels_of_a_repeated_structure_are_joined_and_the_first_is_kept():
    (positions,) = random_positions(1)
    frames = [
        frame(positions, {"dz": -1.0}, {"dz": np.zeros((3, 3))}),
        frame(positions, {"dz": -1.0 + 1e-6, "cc": -2.0}, {"cc": np.ones((3, 3))}),
    ]
    merged = merge_frames([frames])
    (conformer,) = merged.frames
    assert conformer.energies == {"dz": -1.0, "cc": -2.0}
    assert set(conformer.forces) == {"dz", "cc"}
    assert merged.n_repeated == 1


@pytest.mark.parametrize(
    ("difference", "is_refused"), [(0.9e-3, False), (1.1e-3, True), (-1.1e-3, True)]
)
def test_energies_that_contradict_each_other_are_refused(difference, is_refused):
    (positions,) = random_positions(1)
    other = frame(positions, {"dz": -1.0 + difference / EV_PER_HARTREE}, path="b.xyz", number=8)
    files = [[frame(positions, {"dz": -1.0}, number=3)], [other]]
    if not is_refused:
        assert len(merge_frames(files).frames) == 1
        return
    message = r"b.xyz, structure 8 repeats a.xyz, structure 3, but dz differs by 0.0011 eV"
    with pytest.raises(UserError, match=message):
        merge_frames(files)


def test_forces_that_contradict_each_other_are_refused():
    (positions,) = random_positions(1)
    other = np.zeros((3, 3))
    other[2, 1] = -1
    frames = [
        frame(positions, forces={"dz": np.zeros((3, 3))}),
        frame(positions, forces={"dz": other}),
    ]
    with pytest.raises(UserError, match=r"but dz differs by 27.2 eV/Å\. Remove the wrong one"):
        merge_frames([frames])


def test_a_charge_that_one_file_leaves_out_is_no_contradiction():
    (positions,) = random_positions(1)
    said = replace(frame(positions, {"dz": -1.0}), system={"charge": 0.0})
    silent = frame(positions, {"cc": -2.0}, path="b.xyz")
    for files in ([[said], [silent]], [[silent], [said]]):
        (conformer,) = merge_frames(files).frames
        assert conformer.system == {"charge": 0.0}
        assert conformer.energies == {"dz": -1.0, "cc": -2.0}
    other = replace(silent, system={"charge": 1.0})
    with pytest.raises(UserError, match=r"one has charge=1 and the other charge=0"):
        merge_frames([[said], [silent], [other]])
