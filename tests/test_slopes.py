import re
from dataclasses import replace

import numpy as np
import planted
import pytest
from planted import conformers, energy, forces, numbers_of, write_ani1x
from scipy.spatial.transform import Rotation

from hippynn_mf.data.checks.forces import check_forces, judge_forces
from hippynn_mf.data.checks.slopes import MIN_PAIRS, find_slope
from hippynn_mf.data.checks.units import FileUnits
from hippynn_mf.data.formats.ani1x import read_ani1x
from hippynn_mf.data.structures import Block, Structures, join_blocks
from hippynn_mf.labels import parse_labels
from hippynn_mf.levels import DZ, TZ

HARTREE = FileUnits("hartree")
LABELS = parse_labels({"DZ": "EF", "TZ": "EF"})
LINEAR = {
    "atom": ("H", [(0, 0, 0)]),
    "diatomic": ("NN", [(0, 0, 0), (0, 0, 1.1)]),
    "linear": ("CHN", [(0, 0, 0), (0, 0, -1.07), (0, 0, 1.16)]),
}


@pytest.fixture
def structures(ani1x_file):
    """Every planted conformer, 5 groups of 40, with forces at two levels."""
    return read_ani1x(ani1x_file, LABELS)[0]


def with_forces(structures, values, level=DZ):
    return replace(structures, forces={**structures.forces, level.id: values})


def one_molecule(symbols, positions):
    """Structures of one molecule with energies and forces of DZ."""
    numbers = numbers_of(symbols)
    block = Block(
        name="molecule",
        numbers=numbers,
        kept=np.ones(len(positions), bool),
        positions=positions,
        energies={DZ.id: energy(numbers, positions, DZ.id)},
        forces={DZ.id: forces(numbers, positions, DZ.id)},
    )
    return join_blocks([block])


def turned(structures: Structures, seed: int) -> Structures:
    """Positions and forces turned together by a random rotation, positions also shifted."""
    rng = np.random.default_rng(seed)
    rotations = Rotation.from_quat(rng.normal(size=(len(structures), 4))).as_matrix()
    shifts = rng.normal(scale=5.0, size=(len(structures), 1, 3))
    mask = structures.atom_mask[:, :, None]
    return replace(
        structures,
        positions=np.where(mask, structures.positions[:] @ rotations + shifts, 0.0),
        forces={level: values @ rotations for level, values in structures.forces.items()},
    )


@pytest.mark.parametrize("level", [DZ, TZ], ids=["DZ", "TZ"])
def test_true_forces_are_recognised(structures, level):
    sign = find_slope(structures, level)
    assert sign.verdict == "forces"
    assert sign.slope == pytest.approx(1.0, abs=0.05)
    assert sign.correlation > 0.99
    assert sign.n_pairs >= MIN_PAIRS
    assert check_forces([structures], level, HARTREE).verdict == "passed"


def test_gradients_are_recognised_and_refused(structures):
    forces_sign = find_slope(structures, DZ)
    negated = with_forces(structures, -structures.forces[DZ.id][:])
    sign = find_slope(negated, DZ)
    assert sign.verdict == "gradient"
    assert sign.slope == pytest.approx(-forces_sign.slope)
    assert sign.correlation == pytest.approx(-forces_sign.correlation)
    message = (
        r"the forces of level wb97x_dz have the wrong sign.*slope -.*"
        r"correlation -1\.00 over \d+ pairs.*Negate them in the file; in a COMP6 key map"
    )
    outcome = check_forces([negated], DZ, HARTREE)
    assert outcome.verdict == "refused"
    assert re.search(message, outcome.text)


def test_the_levels_are_judged_apart(structures):
    mixed = with_forces(structures, -structures.forces[TZ.id][:], TZ)
    assert find_slope(mixed, DZ).verdict == "forces"
    assert find_slope(mixed, TZ).verdict == "gradient"


@pytest.mark.parametrize("seed", range(3))
def test_the_verdict_does_not_depend_on_orientation_or_position(structures, seed):
    sign, moved = find_slope(structures, DZ), find_slope(turned(structures, seed), DZ)
    assert moved.verdict == "forces"
    assert moved.n_pairs == sign.n_pairs
    assert moved.slope == pytest.approx(sign.slope, rel=1e-4)
    assert moved.correlation == pytest.approx(sign.correlation, rel=1e-4)


def test_forces_that_are_not_turned_with_their_conformer_are_no_proof(structures):
    unturned = replace(turned(structures, 0), forces=structures.forces)
    assert find_slope(unturned, DZ).verdict == "undecided"


def noise(structures, rng):
    scale = structures.forces[DZ.id].values.std()
    return rng.normal(scale=scale, size=structures.positions.shape)


def shuffled(structures, rng):
    """Forces of each molecule dealt out anew among its conformers and atoms."""
    values = structures.forces[DZ.id][:]
    for group in np.unique(structures.groups):
        members = (structures.groups == group)[:, None] & structures.atom_mask
        values[members] = rng.permutation(values[members])
    return values


def random_signs(structures, rng):
    return structures.forces[DZ.id][:] * rng.choice([-1, 1], len(structures))[:, None, None]


def zeros(structures, rng):
    return np.zeros_like(structures.positions)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("wrong", [noise, shuffled, random_signs, zeros])
def test_unrelated_forces_are_undecided_by_energies_and_refused_by_bonds(structures, wrong, seed):
    changed = with_forces(structures, wrong(structures, np.random.default_rng(seed)))
    assert find_slope(changed, DZ).verdict == "undecided"
    outcome = check_forces([changed], DZ, HARTREE)
    assert outcome.verdict == "refused"
    assert "are not those of these structures" in outcome.text
    assert "Rows may be shuffled" in outcome.text


def test_too_few_pairs_are_undecided(tmp_path):
    path = write_ani1x(tmp_path / "few.h5", 2)
    structures = read_ani1x(path, LABELS)[0]
    sign = find_slope(structures, DZ)
    assert sign.n_pairs == 5 < MIN_PAIRS
    assert sign.verdict == "undecided"
    assert np.isnan(sign.slope)
    negated = with_forces(structures, -structures.forces[DZ.id][:])
    assert find_slope(negated, DZ).verdict == "undecided"


def test_only_labelled_conformers_are_compared(tmp_path):
    holes = {name: {"wb97x_dz.energy": slice(2, None)} for name in ("CH4", "CHN", "H2O", "H3N")}
    holes["N2"] = {"wb97x_dz.forces": slice(1, None)}
    structures = read_ani1x(write_ani1x(tmp_path / "holey.h5", missing=holes), LABELS)[0]
    assert find_slope(structures, DZ).n_pairs == 4
    assert find_slope(structures, TZ).verdict == "forces"


def test_a_level_without_any_label_is_undecided(structures):
    nothing = with_forces(structures, np.full_like(structures.positions, np.nan))
    sign = find_slope(nothing, DZ)
    assert (sign.verdict, sign.n_pairs) == ("undecided", 0)


def test_one_conformer_per_molecule_is_undecided(tmp_path):
    structures = read_ani1x(write_ani1x(tmp_path / "single.h5", 1), LABELS)[0]
    assert find_slope(structures, DZ).n_pairs == 0


def test_equal_conformers_are_undecided():
    water = np.repeat(conformers(planted.WATER, 1, 0), 30, axis=0)
    assert find_slope(one_molecule("OHH", water), DZ).verdict == "undecided"


@pytest.mark.parametrize("place", [0, 7.5], ids=["at the origin", "elsewhere"])
@pytest.mark.parametrize("name", LINEAR)
def test_atoms_and_linear_molecules_are_superposed_without_a_warning(name, place):
    symbols, reference = LINEAR[name]
    along = np.array(reference, float)
    stretched = along * (1 + 0.1 * np.random.default_rng(1).random((40, 1, 1))) + place
    molecule = one_molecule(symbols, stretched)
    expected = "undecided" if name == "atom" else "forces"
    for structures in (molecule, turned(molecule, 3)):
        assert find_slope(structures, DZ).verdict == expected


def test_molecules_differ_in_size_without_their_padding_counting(structures):
    padded = replace(
        structures,
        species=np.pad(structures.species, ((0, 0), (0, 4))),
        positions=np.pad(structures.positions, ((0, 0), (0, 4), (0, 0))),
        forces={
            level: np.pad(values, ((0, 0), (0, 4), (0, 0)))
            for level, values in structures.forces.items()
        },
    )
    assert find_slope(padded, DZ) == find_slope(structures, DZ)


def hot(spread, seed, n=40):
    """Structures of methane so far from each other that a straight line misleads."""
    rng = np.random.default_rng(seed)
    positions = np.array(planted.METHANE[1]) + rng.normal(scale=spread, size=(n, 5, 3))
    return one_molecule(planted.METHANE[0], positions)


@pytest.mark.parametrize("factor", [1.0, 0.529177, 1.889726, 27.2114, -1.0])
@pytest.mark.parametrize("spread", [0.03, 0.1, 0.2, 0.3])
def test_pairs_however_far_prove_nothing_wrong(spread, factor):
    """Right forces are never refused, others never pass, and near pairs decide."""
    verdicts = []
    for seed in range(10):
        molecule = hot(spread, seed)
        found = find_slope(with_forces(molecule, factor * molecule.forces[DZ.id][:]), DZ)
        verdicts.append(found.verdict)
    expected = {1.0: "forces", -1.0: "gradient"}.get(factor, "unit")
    assert set(verdicts) <= {expected, "undecided"}
    if spread <= 0.05:
        assert verdicts == [expected] * 10


def test_the_slope_at_no_distance_has_less_of_the_bias_of_far_pairs():
    far = [find_slope(hot(0.2, seed), DZ) for seed in range(10)]
    near = [find_slope(hot(0.02, seed), DZ) for seed in range(10)]
    for found in near:
        assert abs(found.slope - 1) <= max(found.error, 0.01)
        assert found.error < 0.05
    assert np.mean([f.error for f in far]) > 3 * np.mean([f.error for f in near])
    assert np.mean([abs(f.slope - 1) <= f.error + 0.1 for f in far]) >= 0.8


def test_an_interval_that_holds_right_and_wrong_units_is_undecided_and_says_so():
    molecule = hot(0.2, 1)
    scaled = with_forces(molecule, 0.7 * molecule.forces[DZ.id][:])
    found = find_slope(scaled, DZ)
    outcome = judge_forces(found, None, DZ, HARTREE)
    assert found.slope > 1.25 > found.slope - found.error - found.bias
    assert found.correlation > 0.9
    assert (found.verdict, outcome.verdict) == ("undecided", "undecided")
    assert "the interval holds right and wrong units alike" in outcome.text
