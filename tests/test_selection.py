"""Which structures are chosen for labels, against the definitions of the criteria."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import read, write
from made_runs import exit_code
from potentials import random_potential

from hippynn_mf.errors import UserError
from hippynn_mf.levels import DZ
from hippynn_mf.potentials.evaluator import Evaluator
from hippynn_mf.potentials.systems import Systems
from hippynn_mf.uncertainty.features import features_of
from hippynn_mf.uncertainty.selection import CRITERIA, farthest, select

LABELS = {"DZ": "EF", "CC": "E"}


@pytest.fixture(scope="module")
def evaluator() -> Evaluator:
    return Evaluator(random_potential(LABELS, n_members=3))


@pytest.fixture(scope="module")
def pool() -> list[Atoms]:
    rng = np.random.default_rng(0)
    structures = []
    for name in ("H2O", "CH4", "NH3", "CH3OH"):
        for _ in range(6):
            atoms = molecule(name)
            atoms.positions += rng.normal(scale=0.08, size=atoms.positions.shape)
            structures.append(atoms)
    return structures


def turned(atoms: Atoms) -> Atoms:
    """The same structure in another place, frame and order."""
    other = atoms[::-1]
    other.rotate(73.0, (1, 2, 3))
    other.translate((3.0, -4.0, 5.0))
    return other


def energies_of(evaluator, pool, level):
    systems = Systems.of(pool, evaluator.cutoff, evaluator.species)
    return evaluator(systems).energies[evaluator.potential.level(level).id]


def test_spread_is_that_of_the_members_per_root_of_atoms(evaluator, pool):
    chosen = select(evaluator, pool, "CC", 5, by="spread")
    sizes = np.array([len(atoms) for atoms in pool])
    expected = energies_of(evaluator, pool, "CC").std(axis=0, ddof=1) / np.sqrt(sizes)
    assert chosen.rows.tolist() == np.argsort(-expected)[:5].tolist()
    np.testing.assert_allclose(chosen.scores, np.sort(expected)[::-1][:5])


def test_difference_of_levels_is_without_atomic_contributions(evaluator, pool):
    """A sum of atomic energies more between the levels changes nothing."""
    chosen = select(evaluator, pool, "CC", 6, by="difference")
    apart = (energies_of(evaluator, pool, "CC") - energies_of(evaluator, pool, "DZ")).mean(axis=0)
    counts = np.array([[(a.numbers == z).sum() for z in (1, 6, 7, 8)] for a in pool], float)
    fit, *_ = np.linalg.lstsq(counts, apart, rcond=None)
    expected = np.abs(apart - counts @ fit) / np.sqrt(counts.sum(axis=1))
    assert chosen.rows.tolist() == np.argsort(-expected)[:6].tolist()
    np.testing.assert_allclose(chosen.scores, np.sort(expected)[::-1][:6])


def test_energies_are_linear_in_the_features(evaluator, pool):
    """What differs between two levels' energies is a weighted sum of features and elements."""
    systems = Systems.of(pool, evaluator.cutoff, evaluator.species)
    features = features_of(evaluator, systems)
    first = energies_of(evaluator, pool, "CC")[0]
    counts = np.array([[(a.numbers == z).sum() for z in (1, 6, 7, 8)] for a in pool], float)
    design = np.hstack([features, counts])
    fit, *_ = np.linalg.lstsq(design, first, rcond=None)
    assert np.abs(design @ fit - first).max() < 1e-6 * np.abs(first).max()


def test_features_do_not_depend_on_place_frame_and_order(evaluator, pool):
    for atoms in pool[::5]:
        both = Systems.of([atoms, turned(atoms)], evaluator.cutoff, evaluator.species)
        one, other = features_of(evaluator, both)
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


def test_farthest_points_are_those_of_the_definition():
    rng = np.random.default_rng(4)
    features, labelled = rng.normal(size=(30, 3)), rng.normal(size=(2, 3))
    rows, scores = farthest(features, 6, labelled, rng)
    known = list(labelled)
    for row, score in zip(rows, scores, strict=True):
        nearest = np.min([np.linalg.norm(features - k, axis=1) for k in known], axis=0)
        assert row == nearest.argmax()
        assert score == pytest.approx(nearest.max())
        known.append(features[row])
    assert len({*rows.tolist()}) == 6


def test_equal_features_are_chosen_once_each():
    rows, _ = farthest(np.zeros((4, 2)), 4, np.zeros((0, 2)), np.random.default_rng(0))
    assert sorted(rows.tolist()) == [0, 1, 2, 3]


def test_diverse_takes_every_molecule_before_a_second_conformer(evaluator, pool):
    chosen = select(evaluator, pool, "CC", 4, by="diverse")
    assert {pool[row].get_chemical_formula() for row in chosen.rows} == {
        "H2O", "CH4", "H3N", "CH4O"
    }  # fmt: skip
    near = [pool[i] for i in range(0, 24, 6)][:3]  # of water, methane and ammonia
    away = select(evaluator, pool, "CC", 1, by="diverse", labelled=near)
    assert pool[away.rows[0]].get_chemical_formula() == "CH4O"


@pytest.mark.parametrize("by", list(CRITERIA))
def test_copies_are_left_out_however_they_are_written(evaluator, pool, by):
    doubled = [*pool, turned(pool[2]), turned(pool[9])]
    labelled = [turned(pool[0]), turned(pool[20])]
    chosen = select(evaluator, doubled, "CC", 20, by=by, labelled=labelled)
    assert (chosen.n_pool, chosen.n_labelled, chosen.n_copies) == (26, 2, 2)
    assert not {0, 20, 24, 25} & {*chosen.rows.tolist()}
    assert len({*chosen.rows.tolist()}) == 20
    again = select(evaluator, doubled, "CC", 20, by=by, labelled=labelled)
    assert np.array_equal(again.rows, chosen.rows)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"by": "magic"}, r"Unknown criterion 'magic'.*Known: diverse, spread"),
        ({"level": "TZ"}, "Unknown level of this model 'TZ'"),
        ({"n": 0}, "At least one structure"),
        ({"n": 25}, "24 are left, and 25 are asked for"),
        ({"level": "DZ", "by": "difference"}, "lowest level has no level below"),
    ],
)
def test_what_cannot_be_chosen_is_refused(evaluator, pool, values, text):
    asked = {"level": "CC", "n": 3} | values
    with pytest.raises(UserError, match=text):
        select(evaluator, pool, **asked)


def test_one_member_has_no_spread(pool):
    alone = Evaluator(random_potential(LABELS, n_members=1))
    with pytest.raises(UserError, match="has one member, and no spread"):
        select(alone, pool, "CC", 3, by="spread")


def test_the_command_writes_the_choice_in_order(evaluator, pool, tmp_path, capsys):
    model, file, out = (tmp_path / name for name in ("m.safetensors", "pool.xyz", "next.xyz"))
    evaluator.potential.save(model)
    for number, atoms in enumerate(pool):
        atoms.info["name"] = f"conformer {number}"
    write(file, pool)
    write(tmp_path / "known.xyz", [turned(pool[3])])
    command = ["select", file, "--model", model, "--level", "CC", "--n", "5", "--out", out]
    known = ["--labelled", tmp_path / "known.xyz"]
    assert exit_code(*command, *known, "--by", "spread") == 0
    said = capsys.readouterr().out
    assert "5 of 24 structures, chosen by spread; 1 are labelled already" in said
    frames = read(out, ":")
    assert [atoms.info["select_rank"] for atoms in frames] == [1, 2, 3, 4, 5]
    scores = [atoms.info["select_score"] for atoms in frames]
    assert scores == sorted(scores, reverse=True)
    assert all(atoms.info["name"].startswith("conformer ") for atoms in frames)
    before = out.read_bytes()
    assert exit_code(*command) == 2  # it is there
    assert out.read_bytes() == before
    assert exit_code(*command, "--force", "--by", "nothing") == 2
    assert "Unknown criterion 'nothing'" in capsys.readouterr().err
    assert out.read_bytes() == before


def test_a_level_below_that_lacks_an_element_leaves_other_criteria(evaluator, pool, monkeypatch):
    """Its energies are NaN: difference is refused by a message, and diverse does without."""
    lacking = {**evaluator.is_known, DZ.id: evaluator.is_known[DZ.id] & False}
    monkeypatch.setattr(evaluator, "is_known", lacking)
    assert len(select(evaluator, pool, "CC", 3, by="diverse").rows) == 3
    with pytest.raises(UserError, match="does not know an element of the pool"):
        select(evaluator, pool, "CC", 3, by="difference")
