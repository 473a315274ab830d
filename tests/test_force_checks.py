"""What bonds of hydrogen, balance and digits say of labels, and what is made of it."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest
from ase import Atoms, units
from planted import write_ani1x

from hippynn_mf.data.checks.balance import check_balance, imbalance
from hippynn_mf.data.checks.bonds import (
    BONDS,
    EXPONENT,
    find_bonds,
    find_stiffness,
    plainly_right,
    wrong_groups,
)
from hippynn_mf.data.checks.distances import check_distances
from hippynn_mf.data.checks.energies import check_energies
from hippynn_mf.data.checks.forces import check_forces
from hippynn_mf.data.checks.gate import check_structures
from hippynn_mf.data.checks.owners import check_owners
from hippynn_mf.data.checks.report import NOTHING, Accepted
from hippynn_mf.data.checks.rounding import check_rounding
from hippynn_mf.data.checks.slopes import find_slope
from hippynn_mf.data.checks.units import FileUnits
from hippynn_mf.data.embedded import MINI_ANI1X
from hippynn_mf.data.formats.ani1x import read_ani1x
from hippynn_mf.data.structures import Block, Structures, join_blocks
from hippynn_mf.labels import parse_labels
from hippynn_mf.levels import CC, DZ, KNOWN_LEVELS, Level
from hippynn_mf.units import EV_PER_HARTREE

HARTREE = FileUnits("hartree")


@pytest.fixture(scope="module")
def embedded() -> Structures:
    """Embedded conformers with DZ forces and CC energies."""
    structures = read_ani1x(MINI_ANI1X, parse_labels({"DZ": "EF", "CC": "E"}))[0]
    kept = structures.has_energy(CC) & structures.has_forces(DZ)
    return structures[np.flatnonzero(kept)]


def first_of_groups(structures: Structures, n: int) -> Structures:
    """The first n conformers of every group."""
    place = np.arange(len(structures)) - np.searchsorted(structures.groups, structures.groups)
    return structures[place < n]


def with_forces(structures: Structures, values: np.ndarray) -> Structures:
    return replace(structures, forces={DZ.id: values.astype(np.float32)})


def hydride(heavy: int, n: int = 30, *, constant: float = 1.0) -> Structures:
    """A diatomic of hydrogen with the known bond times a constant."""
    rest, known = BONDS[heavy]
    lengths = rest + np.random.default_rng(heavy).normal(scale=0.05, size=n)
    decay = np.exp(-EXPONENT * (lengths - rest))
    pull = constant * known * (1 - decay) * decay / EXPONENT / EV_PER_HARTREE
    positions, forces = np.zeros((n, 2, 3)), np.zeros((n, 2, 3))
    positions[:, 1, 2], forces[:, 1, 2], forces[:, 0, 2] = lengths, -pull, pull
    block = Block(
        name="hydride",
        numbers=np.array([heavy, 1]),
        kept=np.ones(n, bool),
        positions=positions,
        energies={DZ.id: np.zeros(n)},
        forces={DZ.id: forces},
    )
    return join_blocks([block])


@pytest.mark.parametrize("constant", [1.0, -1.0, 0.5, 3.0])
@pytest.mark.parametrize("heavy", BONDS)
def test_the_known_bond_has_the_stiffness_that_it_was_given(heavy, constant):
    found = find_stiffness(hydride(heavy, constant=constant), DZ)
    assert found.ratio == pytest.approx(constant, rel=1e-3)
    assert found.correlation == pytest.approx(np.sign(constant), abs=1e-4)
    assert found.verdict == {1.0: "forces", -1.0: "gradient"}.get(constant, "unit")


def test_the_stiffness_does_not_depend_on_orientation(embedded):
    some = first_of_groups(embedded, 10)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turned = replace(
        some,
        positions=(some.positions[:] @ turn).astype(np.float32),
        forces={DZ.id: (some.forces[DZ.id][:] @ turn).astype(np.float32)},
    )
    found, expected = find_stiffness(turned, DZ), find_stiffness(some, DZ)
    assert found.ratio == pytest.approx(expected.ratio, rel=1e-4)
    assert found.n_bonds == expected.n_bonds


@pytest.mark.parametrize("n", [1, 2, 20])
def test_single_conformers_prove_what_pairs_cannot(embedded, n):
    """One conformer of a molecule has no pair, and its bonds are enough."""
    some = first_of_groups(embedded, n)
    outcome = check_forces([some], DZ, HARTREE)
    assert outcome.verdict == "passed"
    if n == 1:
        assert find_slope(some, DZ).verdict == "undecided"
    for factor in (-1.0, units.Bohr, 1 / units.Bohr, units.Hartree, 627.5, 1 / 27.2):
        wrong = with_forces(some, factor * some.forces[DZ.id][:])
        assert check_forces([wrong], DZ, HARTREE).verdict == "refused"


@pytest.mark.parametrize(
    ("factor", "text"),
    [
        (units.Bohr, "They are in hartree/bohr. Give forces in hartree/Å."),
        (units.Hartree, "They are in eV/Å. Give forces in hartree/Å."),
        (-1.0, "have the wrong sign"),
        (-units.Bohr, "They are in hartree/bohr."),
    ],
)
def test_a_refusal_by_bonds_names_the_unit(embedded, factor, text):
    some = first_of_groups(embedded, 1)
    wrong = with_forces(some, factor * some.forces[DZ.id][:])
    outcome = check_forces([wrong], DZ, HARTREE, has_energies=False)
    assert outcome.verdict == "refused"
    assert text in outcome.text


def test_molecules_without_hydrogen_are_undecided_as_before():
    nitrogen = hydride(7)
    nitrogen = replace(nitrogen, species=np.full_like(nitrogen.species, 7))
    assert find_stiffness(nitrogen, DZ).verdict == "undecided"
    outcome = check_forces([nitrogen], DZ, HARTREE)
    assert outcome.verdict == "undecided"
    assert "0 bonds of hydrogen are too few" in outcome.text


def test_forces_that_follow_energies_but_not_bonds_are_used_and_it_is_said(embedded):
    """Another model of atoms, with energies and forces that fit each other."""
    scaled = replace(
        embedded,
        energies={DZ.id: 1.8 * embedded.energies[DZ.id]},
        forces={DZ.id: 1.8 * embedded.forces[DZ.id][:]},
    )
    outcome = check_forces([scaled], DZ, HARTREE)
    assert outcome.verdict == "undecided"
    assert "but not what is known of bonds" in outcome.text
    absurd = replace(
        embedded,
        energies={DZ.id: 27.2 * embedded.energies[DZ.id]},
        forces={DZ.id: 27.2 * embedded.forces[DZ.id][:]},
    )
    assert check_forces([absurd], DZ, HARTREE).verdict == "refused"


@pytest.mark.parametrize("factor", [-1.0, units.Bohr])
def test_one_molecule_with_other_forces_is_named(embedded, factor):
    names = np.array(embedded.group_names)[embedded.groups]
    values = embedded.forces[DZ.id][:]
    values[names == "CH4O"] *= factor
    wrong = with_forces(embedded, values)
    assert not wrong_groups(find_bonds([embedded], DZ))
    outcome = check_forces([wrong], DZ, HARTREE)
    assert outcome.verdict == "refused"
    assert "CH4O" in outcome.text


def molecule_of(symbols: str, positions: np.ndarray) -> Structures:
    numbers = Atoms(symbols).numbers
    block = Block(
        name=symbols,
        numbers=numbers,
        kept=np.ones(1, bool),
        positions=positions[None],
        energies={},
        forces={DZ.id: np.ones((1, len(numbers), 3))},
    )
    return join_blocks([block])


@pytest.mark.parametrize(("apart", "n_bonds"), [(1.25, 0), (1.6, 1)])
def test_hydrogen_between_two_atoms_has_no_known_bond(apart, n_bonds):
    positions = np.array([[0, 0, 0], [1.0, 0, 0], [1.0 + apart, 0, 0]])
    assert len(find_bonds([molecule_of("OHO", positions)], DZ).kinds) == n_bonds


def test_bonds_of_carbon_with_more_neighbours_are_of_another_kind():
    acetylene = np.array([[0, 0, 0], [1.2, 0, 0], [-1.06, 0, 0], [2.26, 0, 0]])
    methane = 1.09 * np.array([[0, 0, 0], [1, 1, 1], [-1, -1, 1], [-1, 1, -1], [1, -1, -1]])
    methane[1:] /= 3**0.5
    both = [molecule_of("C2H2", acetylene), molecule_of("CH4", methane)]
    kinds = find_bonds(both, DZ).kinds
    assert len(kinds) == 6
    assert len(np.unique(kinds[:2])) == len(np.unique(kinds[2:])) == 1
    assert kinds[0] != kinds[2]


def soft_and_stiff(energies: bool) -> Structures:
    """A diatomic whose bond is half as stiff as known, beside one that is as known."""
    parts = []
    for name, heavy, constant in (("soft", 6, 0.5), ("stiff", 7, 1.0)):
        part = hydride(heavy, constant=constant)
        rest, known = BONDS[heavy]
        places = part.positions[:].astype(np.float64)
        lengths = places[:, 1, 2] - places[:, 0, 2] - rest
        depth = constant * known / (2 * EXPONENT**2) / EV_PER_HARTREE
        energy = depth * np.square(1 - np.exp(-EXPONENT * lengths))
        parts.append(
            Block(
                name=name,
                numbers=np.array([heavy, 1]),
                kept=np.ones(len(part), bool),
                positions=part.positions[:],
                energies={DZ.id: energy if energies else np.full(len(part), np.nan)},
                forces={DZ.id: part.forces[DZ.id][:]},
            )
        )
    return join_blocks(parts)


def test_a_molecule_of_soft_bonds_is_used_where_its_energies_agree():
    outcome = check_forces([soft_and_stiff(energies=True)], DZ, HARTREE)
    assert outcome.verdict == "passed"


def test_what_only_bonds_refuse_can_be_accepted():
    structures = soft_and_stiff(energies=False)
    outcome = check_forces([structures], DZ, HARTREE)
    assert outcome.verdict == "refused"
    assert "soft (+0.50)" in outcome.text
    assert "--accept-outliers" in outcome.text
    accepted = check_forces([structures], DZ, HARTREE, accepted=Accepted(outliers=True))
    assert accepted.verdict == "accepted"
    alone = hydride(6, constant=0.5)
    assert check_forces([alone], DZ, HARTREE).verdict == "refused"
    assert (
        check_forces([alone], DZ, HARTREE, accepted=Accepted(outliers=True)).verdict == "accepted"
    )


def test_forces_that_contradict_energies_cannot_be_accepted(embedded):
    wrong = with_forces(embedded, -embedded.forces[DZ.id][:])
    outcome = check_forces([wrong], DZ, HARTREE, accepted=Accepted(outliers=True))
    assert outcome.verdict == "refused"
    assert "--accept-outliers" not in outcome.text


# Balance


def test_right_forces_balance_whatever_the_frame(embedded):
    shares, _ = imbalance(embedded, DZ)
    assert np.median(shares) < 0.001
    assert shares.max() < 0.05
    (outcome,) = check_balance([embedded], DZ, NOTHING)
    assert outcome.verdict == "passed"


@pytest.mark.parametrize("wrong", ["atoms", "axes", "frame", "conformers", "pushed"])
def test_forces_of_something_else_do_not_balance(embedded, wrong):
    values = embedded.forces[DZ.id][:]
    if wrong == "atoms":
        values[:, [0, 1]] = values[:, [1, 0]]
    elif wrong == "axes":
        values = values[:, :, ::-1]
    elif wrong == "frame":
        values = values @ np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    elif wrong == "conformers":
        values = np.roll(values, 1, axis=0)
        values = np.where(embedded.atom_mask[:, :, None], values, 0)
    else:
        values = values + 0.02 * embedded.atom_mask[:, :, None]
    outcome, *_ = check_balance([with_forces(embedded, values)], DZ, NOTHING)
    assert outcome.verdict == "refused"
    assert "do not balance" in outcome.text


@pytest.mark.parametrize("size", [0.3, 0.03, 0.003], ids=["warm", "cold", "at rest"])
def test_noise_of_forces_near_a_minimum_is_no_other_order(embedded, size):
    generator = np.random.default_rng(5)
    values = size * embedded.forces[DZ.id][:]
    noise = generator.normal(scale=0.003 / EV_PER_HARTREE, size=values.shape)
    values = np.where(embedded.atom_mask[:, :, None], values + noise, 0)
    outcomes = check_balance([with_forces(embedded, values)], DZ, NOTHING)
    assert [outcome.verdict for outcome in outcomes] == ["passed"]


def test_forces_out_of_balance_can_be_accepted(embedded):
    turned = with_forces(embedded, embedded.forces[DZ.id][:, :, ::-1])
    assert "--accept-outliers" in check_balance([turned], DZ, NOTHING)[0].text
    (accepted,) = check_balance([turned], DZ, Accepted(outliers=True))
    assert accepted.verdict == "accepted"


def test_few_structures_out_of_balance_are_outliers(embedded):
    values = embedded.forces[DZ.id][:]
    values[:5] += 0.1 * embedded.atom_mask[:5, :, None]
    wrong = with_forces(embedded, values)
    passed, outliers = check_balance([wrong], DZ, NOTHING)
    assert (passed.verdict, outliers.verdict) == ("passed", "refused")
    assert "5 of" in outliers.text
    assert check_balance([wrong], DZ, Accepted(outliers=True))[1].verdict == "accepted"


# Digits


@pytest.mark.parametrize(
    ("rounded", "verdict"),
    [
        (lambda e: e.astype(np.float16).astype(float), "refused"),
        (lambda e: np.round(e, 0), "refused"),
        (lambda e: np.round(e, 2), "refused"),
        (lambda e: np.round(e, 3), "refused"),
        (lambda e: np.round(e, 4), "noted"),
        (lambda e: np.round(e, 6), None),
        (lambda e: e.astype(np.float32).astype(float), None),
        # Of heavy atoms: steps of 1.2e-4 and 9.8e-4 hartree.
        (lambda e: (e - 1500).astype(np.float32).astype(float), "noted"),
        (lambda e: (e - 9000).astype(np.float32).astype(float), "refused"),
        (lambda e: e - 9000, None),
    ],
)
def test_energies_with_too_few_digits(embedded, rounded, verdict):
    energies = rounded(embedded.energies[DZ.id])
    found = check_rounding(np.append(energies, np.nan), DZ, HARTREE)
    assert [outcome.verdict for outcome in found] == ([] if verdict is None else [verdict])


def test_energies_with_too_few_digits_can_be_accepted(embedded):
    energies = np.round(embedded.energies[DZ.id], 2)
    (refused,) = check_rounding(energies, DZ, HARTREE)
    assert "--accept-outliers" in refused.text
    (accepted,) = check_rounding(energies, DZ, HARTREE, Accepted(outliers=True))
    assert accepted.verdict == "accepted"


def test_digits_are_those_of_the_unit_of_the_file(embedded):
    energies = np.round(embedded.energies[DZ.id] * EV_PER_HARTREE, 1) / EV_PER_HARTREE
    (outcome,) = check_rounding(energies, DZ, FileUnits("eV"))
    assert outcome.verdict == "refused"
    assert "steps of 0.1 eV, 2.3 kcal/mol" in outcome.text
    assert not check_rounding(energies, DZ, HARTREE)


# All together


def test_a_level_written_under_two_names_is_refused(embedded):
    same = replace(embedded, energies={**embedded.energies, CC.id: embedded.energies[DZ.id].copy()})
    outcome = check_structures(same, KNOWN_LEVELS, MINI_ANI1X).of("levels", CC.id)
    assert outcome.verdict == "refused"
    assert "are the same" in outcome.text


def test_one_molecule_in_bohr_is_named(embedded):
    names = np.array(embedded.group_names)[embedded.groups]
    positions = embedded.positions[:]
    positions[names == "CH4"] /= units.Bohr
    wrong = replace(embedded, positions=positions)
    outcome = check_structures(wrong, KNOWN_LEVELS, MINI_ANI1X).of("distances")
    assert outcome.verdict == "refused"
    assert "CH4 (1.9" in outcome.text


def test_a_scan_of_a_bond_is_in_angstrom(tmp_path):
    """Atoms that leave each other are far apart, and near at the start."""
    path = write_ani1x(tmp_path / "planted.h5", 30)
    structures = read_ani1x(path, parse_labels({"DZ": "EF"}))[0]
    names = np.array(structures.group_names)[structures.groups]
    positions = structures.positions[:]
    rows = np.flatnonzero(names == "N2")
    positions[rows, 1, 2] = positions[rows, 0, 2] + np.linspace(1.0, 4.0, len(rows))
    scan = replace(structures, positions=positions)
    assert check_structures(scan, KNOWN_LEVELS, path).of("distances").verdict == "passed"


def test_everything_embedded_passes(embedded):
    report = check_structures(embedded, KNOWN_LEVELS, MINI_ANI1X)
    assert {o.verdict for o in report.outcomes if o.check != "unused"} == {"passed"}


def test_atoms_that_are_not_bound_can_be_accepted():
    n = 30
    positions = np.zeros((n, 2, 3))
    positions[:, 1, 0] = np.linspace(3.4, 4.4, n)  # of argon, whose radii are 1.06 Å
    block = Block(
        name="argon",
        numbers=np.array([18, 18]),
        kept=np.ones(n, bool),
        positions=positions,
        energies={},
        forces={},
    )
    argon = [join_blocks([block])]
    (refused,), unit = check_distances(argon, NOTHING)
    assert (refused.verdict, unit) == ("refused", "bohr")
    assert "--accept-outliers" in refused.text
    (accepted,), unit = check_distances(argon, Accepted(outliers=True))
    assert (accepted.verdict, unit) == ("accepted", None)


def test_bonds_that_are_broken_can_be_accepted():
    """Energies of nitrogen that is pulled apart spread by more than those of molecules do."""
    n = 40
    positions = np.zeros((n, 2, 3))
    positions[:, 1, 0] = np.linspace(0.9, 2.5, n)
    depth = 9.9 / EV_PER_HARTREE  # of a Morse potential
    energies = depth * ((1 - np.exp(-2.7 * (positions[:, 1, 0] - 1.1))) ** 2 - 1)
    energies += 2 * DZ.self_energies[7]
    counts, own = np.full((n, 1), 2), np.full(n, 2 * DZ.self_energies[7])
    arguments = energies, [str(i) for i in range(n)], counts, own, DZ, HARTREE
    (refused,), _ = check_energies(*arguments, NOTHING)
    assert refused.verdict == "refused"
    assert "--accept-outliers" in refused.text
    (accepted,), _ = check_energies(*arguments, Accepted(outliers=True))
    assert accepted.verdict == "accepted"


def exchanged(structures: Structures, one: Level, other: Level) -> Structures:
    """The same with the energies of two levels exchanged."""
    energies = structures.energies
    return replace(
        structures, energies={**energies, one.id: energies[other.id], other.id: energies[one.id]}
    )


@pytest.mark.parametrize("n", [5, 100])  # conformers of each molecule
def test_exchanged_energies_are_told_by_the_forces(embedded, n):
    some = first_of_groups(embedded, n)
    (right,) = check_owners([some], DZ, [CC], NOTHING)
    assert right.verdict == "passed"
    assert right.values[f"share_{CC.id}"] < 0.1
    (wrong,) = check_owners([exchanged(some, DZ, CC)], DZ, [CC], NOTHING)
    assert wrong.verdict == "refused"
    assert f"follow the energies of {CC.id} rather than its own energies in" in wrong.text
    (kept,) = check_owners([exchanged(some, DZ, CC)], DZ, [CC], Accepted(outliers=True))
    assert kept.verdict == "accepted"
    assert "--accept-outliers" not in kept.text


@pytest.mark.parametrize("lower", ["DZ", "TZ"])
@pytest.mark.parametrize("higher", ["DZ", "TZ", "MP2", "CC"])
def test_forces_of_every_level_are_its_own(lower, higher):
    of_lower, of_higher = map(KNOWN_LEVELS.get, (lower, higher))
    if lower == higher:
        return
    structures = read_ani1x(MINI_ANI1X, parse_labels({lower: "EF", higher: "E"}))[0]
    (right,) = check_owners([structures], of_lower, [of_higher], NOTHING)
    assert right.verdict == "passed"
    (wrong,) = check_owners(
        [exchanged(structures, of_lower, of_higher)], of_lower, [of_higher], NOTHING
    )
    assert wrong.verdict == "refused"
    assert right.values[f"share_{of_higher.id}"] < 0.1
    assert wrong.values[f"share_{of_higher.id}"] > 0.9


def test_what_no_pair_tells_is_not_judged(embedded):
    assert check_owners([first_of_groups(embedded, 1)], DZ, [CC], NOTHING) == []
    same = replace(embedded, energies={**embedded.energies, CC.id: embedded.energies[DZ.id] - 1})
    assert check_owners([same], DZ, [CC], NOTHING) == []


def test_a_file_with_exchanged_keys_is_refused(embedded, tmp_path):
    """As in a file where somebody wrote each column under the name of the other."""
    with h5py.File(MINI_ANI1X) as source, h5py.File(tmp_path / "data.h5", "w") as target:
        for name, group in list(source.items())[:12]:
            target.copy(group, name)
            for here, there in ((DZ, CC), (CC, DZ)):
                del target[name][here.energy_keys[0]]
                target[name][here.energy_keys[0]] = group[there.energy_keys[0]][()]
    labels = parse_labels({"DZ": "EF", "CC": "E"})
    structures = read_ani1x(tmp_path / "data.h5", labels)[0]
    report = check_structures([structures], KNOWN_LEVELS, tmp_path / "data.h5")
    assert [o.check for o in report.outcomes if o.verdict == "refused"] == ["owners"]


def test_only_right_groups_are_passed_over(embedded):
    """What a plain regression finds right need not be looked at; what is wrong is."""
    bonds = find_bonds([embedded], DZ)
    assert plainly_right(bonds).all()
    for wrong in (-1.0, units.Bohr, 1 / units.Bohr):
        bad = bonds.groups == 3
        given = np.where(bad, wrong * bonds.given, bonds.given)
        is_right = plainly_right(replace(bonds, given=given))
        assert not is_right[3]
        assert is_right.sum() == len(is_right) - 1
    shuffled = np.random.default_rng(0).permutation(len(bonds.given))
    assert not plainly_right(replace(bonds, given=bonds.given[shuffled])).any()
