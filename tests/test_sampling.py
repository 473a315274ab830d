"""`hippynn-mf sample`: conformers by normal modes, torsions and short dynamics."""

from __future__ import annotations

import hashlib
from pathlib import Path

import networkx
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.io import read, write
from made_runs import exit_code
from springs import Springs

from hippynn_mf import labelling
from hippynn_mf.cli import labelling as cli
from hippynn_mf.errors import UserError
from hippynn_mf.labelling import drawing
from hippynn_mf.labelling.drawing import energy_cut, find_start, wrong_geometry
from hippynn_mf.labelling.harmonic import Minimum, draw_harmonic, minimum_near
from hippynn_mf.labelling.torsions import Rotor, bonds_of, rotors_of, turn, turn_at_random
from hippynn_mf.units import EV_PER_KCAL_PER_MOL

SPRINGS = f"{Path(__file__).with_name('springs.py')}:factory"
NAMES = ("H2O", "CH3OH", "H2O2")
# Of `planted_positions`: what the generator of the embedded data draws must not change.
PLANTED_SHA256 = "aab5795918af3790ad9d7836d498d3c69a1ff1fa29ffcbce594b23a648243b81"


@pytest.fixture(autouse=True)
def short_dynamics(request, monkeypatch):
    """A tenth of the steps, in this process."""
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr(drawing, "N_STEPS", drawing.N_STEPS // 10)


@pytest.fixture
def molecules(tmp_path):
    """A file of three molecules."""
    write(tmp_path / "molecules.xyz", [molecule(name) for name in NAMES], format="extxyz")
    return tmp_path / "molecules.xyz"


def sample(molecules, name="pool.xyz", **more):
    values = {"calculator": SPRINGS, "per": 4, "progress": False, **more}
    return labelling.sample(molecules, out=molecules.with_name(name), **values)


def planted_positions():
    """Positions of a made-up molecule whose modes are no result of a program."""
    n = 5
    modes = np.eye(3 * n)[:9].reshape(9, n, 3)
    minimum = Minimum(
        numbers=np.array([6, 8, 1, 1, 1]),
        positions=np.arange(3.0 * n).reshape(n, 3) % 4,
        masses=np.array([12.0, 16.0, 1.0, 1.0, 1.0]),
        modes=modes,
        curvatures=np.linspace(0.001, 3.0, 9),
    )
    rng = np.random.default_rng((20261122, 7, 1))
    drawn = [draw_harmonic(minimum, rng) for _ in range(5)]
    rotors = [Rotor(0, 1, (2, 3)), Rotor(1, 0, (4,))]
    return np.array([turn_at_random(positions, rotors, rng) for positions in drawn])


# What is drawn -------------------------------------------------------------


def test_the_generators_draws_are_what_they_were():
    # To 1e-9 Å: libraries of other processors differ in the last bit of a rotation.
    text = planted_positions().round(9).tobytes()
    assert hashlib.sha256(text).hexdigest() == PLANTED_SHA256


def test_modes_hold_half_a_kt_each_by_the_calculator_itself():
    temperature, n = 100.0, 400
    atoms = molecule("H2O")
    minimum = minimum_near(atoms, "water", calculator=Springs())
    assert len(minimum.modes) == 3
    rng = np.random.default_rng(3)
    lowest = atoms.get_potential_energy()
    energies = []
    for _ in range(n):
        atoms.positions = draw_harmonic(minimum, rng, temperatures=(temperature, temperature))
        energies.append(atoms.get_potential_energy() - lowest)
    expected = 3 * units.kB * temperature / 2
    # The width of the mean is √(2/3) of it over √n; anharmonicity is smaller at 100 K.
    assert np.mean(energies) == pytest.approx(expected, rel=4 * np.sqrt(2 / 3 / n))


def test_a_minimum_is_one_of_the_calculator_and_its_modes_are_orthonormal():
    minimum = minimum_near(molecule("CH3OH"), "methanol", calculator=Springs())
    again = Atoms(minimum.numbers, minimum.positions, calculator=Springs())
    assert np.abs(again.get_forces()).max() < 1e-3
    modes = minimum.modes.reshape(12, -1)
    np.testing.assert_allclose(modes @ modes.T, np.eye(12), atol=1e-10)


@pytest.mark.parametrize(
    ("name", "n_rotors"),
    [
        *(("H2O", 0), ("CH3OH", 1), ("CH3CH2OH", 2), ("H2O2", 1), ("CH3COOH", 2), ("HCOOCH3", 2)),
        *(("C2H4", 0), ("CH3CN", 0), ("C6H6", 0), ("C3H6_D3h", 0), ("CH3CONH2", 2), ("C2H2", 0)),
        ("trans-butane", 3),
    ],
)
def test_rotors_are_the_single_bonds_that_turn_something(name, n_rotors):
    atoms = molecule(name)
    rotors = rotors_of(atoms)
    assert len(rotors) == n_rotors
    bonds = bonds_of(atoms.numbers, atoms.positions)
    for rotor in rotors:
        assert bonds.has_edge(rotor.start, rotor.end)
        assert not {rotor.start, rotor.end} & set(rotor.moving)


def test_turns_keep_bonds_and_angles():
    atoms = molecule("CH3CH2OH")
    before = atoms.get_all_distances()
    bonds = bonds_of(atoms.numbers, atoms.positions)
    lengths = dict(networkx.all_pairs_shortest_path_length(bonds, cutoff=2))
    near = [(a, b) for a in bonds for b in lengths[a]]
    for rotor in rotors_of(atoms):
        turned = atoms.copy()
        turned.positions = turn(atoms.positions, rotor, 1.0)
        after = turned.get_all_distances()
        for pair in near:
            assert after[pair] == pytest.approx(before[pair], abs=1e-12)
        assert np.abs(after - before).max() > 0.1


def test_conformers_are_the_molecules_and_say_how_they_were_drawn(molecules):
    sampled = sample(molecules)
    assert sampled.n == 12
    assert sampled.by_method == {"modes": 6, "torsions": 3, "dynamics": 3}
    drawn = read(sampled.out, ":")
    for k, atoms in enumerate(drawn):
        given = molecule(NAMES[k // 4])
        np.testing.assert_array_equal(atoms.numbers, given.numbers)
        bonds = bonds_of(given.numbers, given.positions)
        assert set(bonds.edges) <= set(bonds_of(atoms.numbers, atoms.positions).edges)
        text = atoms.info["provenance_positions"]
        assert f"molecule {k // 4 + 1}, conformer {k % 4 + 1}, " in text
        np.testing.assert_array_equal(atoms.positions, np.float32(atoms.positions))
    # A turned bond of peroxide, which springs do not hold: they are the same on both sides.
    angles = {round(a.get_dihedral(2, 0, 1, 3)) for a in drawn[8:]}
    assert len(angles) > 1


def test_a_conformer_depends_on_seed_molecule_and_number_alone(molecules):
    first = read(sample(molecules).out, ":")
    again = read(sample(molecules, "again.xyz", block=3).out, ":")
    larger = read(sample(molecules, "larger.xyz", per=5).out, ":")
    other = read(sample(molecules, "other.xyz", seed=1).out, ":")
    of_larger = [atoms for k, atoms in enumerate(larger) if k % 5 < 4]
    for one, two, three, four in zip(first, again, of_larger, other, strict=True):
        np.testing.assert_array_equal(one.positions, two.positions)
        np.testing.assert_array_equal(one.positions, three.positions)
        assert np.abs(one.positions - four.positions).max() > 1e-4
    assert len({atoms.positions.tobytes() for atoms in first}) == 12


def test_temperature_and_energy_cut_are_respected(molecules):
    sampled = sample(molecules, temperatures=(300.0, 300.0), methods=("modes",), per=20)
    for atoms in read(sampled.out, ":"):
        assert "modes at 300.0 K" in atoms.info["provenance_positions"]
    low = sample(molecules, "low.xyz", energy_cut_kcal_per_mol=3.0, methods=("modes",), per=20)
    assert low.refused["high"] > 0
    for atoms in read(low.out, ":"):
        atoms.calc = Springs()
        assert atoms.get_potential_energy() / EV_PER_KCAL_PER_MOL <= 3.0 + 1e-6


def test_the_cut_grows_with_temperature_and_modes():
    minima = [minimum_near(molecule(name), name, calculator=Springs()) for name in ("H2O", "CH3OH")]
    cuts = [[energy_cut(minimum, t) for t in (100.0, 1000.0)] for minimum in minima]
    assert cuts[0][0] < cuts[0][1] < cuts[1][1]
    # Three modes at 1000 K: a mean of 2.98 kcal/mol, a width of 2.43, and 10 for a barrier.
    assert cuts[0][1] == pytest.approx(2.98 + 4 * 2.43 + 10, abs=0.05)


def test_clashes_and_broken_bonds_are_told_apart():
    start = find_start(molecule("CH3OH"), Springs())
    places = start.minimum.positions
    assert wrong_geometry(start, places) is None
    torn, squeezed, near = places.copy(), places.copy(), places.copy()
    torn[3] += 3 * (torn[3] - torn[1])
    squeezed[3] = squeezed[1] + 0.4 * (squeezed[3] - squeezed[1])
    near[5] = near[4] + 0.2
    assert wrong_geometry(start, torn) == "broken"
    assert wrong_geometry(start, squeezed) == "clash"
    assert wrong_geometry(start, near) is not None
    assert wrong_geometry(start, np.full_like(places, np.nan)) == "broken"


# Interrupts and wrong input ------------------------------------------------


def test_an_interrupted_command_continues_and_draws_the_same(molecules, tmp_path):
    whole = read(sample(molecules, "whole.xyz").out, ":")
    file, marker = tmp_path / "mine.py", tmp_path / "stop"
    marker.touch()
    file.write_text(
        Path(SPRINGS.partition(":")[0]).read_text()
        + "\n\nclass Stops(Springs):\n    n = 0\n\n    def calculate(self, *args, **more):\n"
        + "        super().calculate(*args, **more)\n        self.n += 1\n"
        + f"        if self.n > 150 and Path({str(marker)!r}).exists():\n"
        + "            raise KeyboardInterrupt\n\n\ndef factory():\n    return Stops()\n"
    )
    with pytest.raises(KeyboardInterrupt):
        sample(molecules, calculator=f"{file}:factory")
    assert not (tmp_path / "pool.xyz").exists()
    n = sum(p.read_text().count('"positions"') for p in tmp_path.glob("pool.xyz.work/*.jsonl"))
    assert 0 < n < 12
    marker.unlink()
    drawn = read(sample(molecules, calculator=f"{file}:factory").out, ":")
    for one, two in zip(whole, drawn, strict=True):
        np.testing.assert_array_equal(one.positions, two.positions)


REFUSED = {
    "temperatures": ({"temperatures": (500.0, 100.0)}, "temperatures rise.*found 500:100"),
    "cold": ({"temperatures": (0.0, 100.0)}, "are above 0"),
    "method": ({"methods": ("mode",)}, "methods.0: Input should be 'modes', 'torsions' or"),
    "none": ({"per": 0}, "per: Input should be greater than or equal to 1"),
    "forces": ({"arguments": {"properties": []}}, "has no forces"),
    "seed": ({"seed": -1}, "seed: Input should be greater"),
}


@pytest.mark.parametrize(("values", "message"), REFUSED.values(), ids=list(REFUSED))
def test_wrong_input_is_refused(molecules, values, message):
    with pytest.raises(UserError, match=message):
        sample(molecules, **values)


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        (bulk("Cu"), "are periodic, and conformers are drawn of molecules"),
        (molecule("CH3"), "are charged or have unpaired electrons"),
        (Atoms("He"), "nothing can be drawn.*single atom, which has no conformers"),
    ],
    ids=["periodic", "radical", "atom"],
)
def test_what_has_no_conformers_is_refused(molecules, structure, message):
    write(molecules, structure, format="extxyz")
    with pytest.raises(UserError, match=message):
        sample(molecules)


def test_a_molecule_that_cannot_be_drawn_is_named_and_the_others_are(molecules):
    structures = [molecule("H2O"), Atoms("He"), molecule("CH3OH")]
    write(molecules, structures, format="extxyz")
    sampled = sample(molecules)
    assert sampled.n == 8
    (text,) = sampled.failures
    assert text.startswith("structure 2 (He): 4 of 4 conformers: RuntimeError: it is a single atom")


def test_without_tblite_the_default_calculator_is_refused(molecules, monkeypatch):
    monkeypatch.setattr("hippynn_mf.labelling.registry.importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"tblite:GFN2-xTB needs the package tblite.*\[qm\]"):
        labelling.sample(molecules, out=molecules.with_name("pool.xyz"))


def test_the_command_says_what_it_draws_with(molecules, monkeypatch, capsys):
    monkeypatch.setattr(cli, "make_engine", lambda *arguments: None)
    out = molecules.with_name("pool.xyz")
    options = ["--per", "4", "--temperature", "100:500", "--out", out]
    assert exit_code("sample", molecules, *options, "--with", SPRINGS) == 0
    said = capsys.readouterr()
    assert f"Calculator {SPRINGS}: as asked for." in said.err
    assert said.out == f"{out}: 12 conformers, 6 by modes, 3 by torsions, 3 by dynamics\n"
    for text in ("100", "x:3", "1:2:3"):
        code = exit_code("sample", molecules, "--out", out, "--force", "--temperature", text,
                         "--with", SPRINGS, "--per", "1")  # fmt: skip
        assert code == (0 if text == "100" else 2)
        if code:
            assert "--temperature expects LOW:HIGH in K" in capsys.readouterr().err


@pytest.mark.parametrize("engine", ["pool"])
@pytest.mark.slow
def test_processes_draw_what_one_process_draws(molecules, engine):
    out = molecules.with_name("pool.xyz")
    options = ["--per", "4", "--engine", engine, "--workers", "2", "--with", SPRINGS]
    assert exit_code("sample", molecules, "--out", out, *options) == 0
    for one, two in zip(read(sample(molecules, "one.xyz").out, ":"), read(out, ":"), strict=True):
        np.testing.assert_array_equal(one.positions, two.positions)
