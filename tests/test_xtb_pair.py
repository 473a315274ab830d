"""The pair of xTB levels: signs and units by differences, the same file again, and its levels."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from made_runs import NO_COMPILER, TINY_OPTIONS, exit_code

from hippynn_mf.data.formats.ani1x import labels_in_file
from hippynn_mf.data.loading import load_splits
from hippynn_mf.labels import Properties, parse_labels
from hippynn_mf.level_records import read_levels
from hippynn_mf.levels import Levels
from hippynn_mf.report.table_data import TableData
from hippynn_mf.units import KCAL_PER_MOL_PER_HARTREE

ase = pytest.importorskip("ase")
TBLite = pytest.importorskip("tblite.ase", reason="needs the extra qm").TBLite

TOP = Path(__file__).parent.parent
SCRIPTS = TOP / "scripts"
METHODS = {"gfn1_xtb": "GFN1-xTB", "gfn2_xtb": "GFN2-xTB"}
GROUND_STATES = {1: 2, 6: 3, 7: 4, 8: 3}  # multiplicities
N = 40


@pytest.fixture(scope="module")
def generator():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        before = set(sys.modules)
        import generate_xtb_pair

        # Few small molecules are enough here, and their minima are found at once.
        patch.setattr(generate_xtb_pair, "MOLECULES", ("H2O", "HCN", "H2CO", "CH3OH"))
        yield generate_xtb_pair
        for name in set(sys.modules) - before:
            if name.startswith(("qm_", "generate_")):
                del sys.modules[name]


@pytest.fixture(scope="module")
def pair_file(generator, tmp_path_factory):
    path = tmp_path_factory.mktemp("xtb") / "pair.h5"
    generator.write_pair(path, N, progress=False)
    return path


def contents(path):
    with h5py.File(path) as file:
        return {f"{group}/{key}": file[group][key][()] for group in file for key in file[group]}


def energy(method, numbers, positions, **options):
    """Energy in hartree."""
    atoms = ase.Atoms(numbers, positions)
    atoms.calc = TBLite(method=method, verbosity=0, accuracy=0.01, **options)
    return atoms.get_potential_energy() / ase.units.Hartree


@pytest.mark.parametrize("level", METHODS)
@pytest.mark.parametrize("group", ["H2O", "CH2O", "CH4O"])
def test_forces_are_minus_the_gradient_of_the_energy_in_hartree_per_angstrom(
    pair_file, group, level
):
    data = {key: values for key, values in contents(pair_file).items() if key.startswith(group)}
    numbers = data[f"{group}/atomic_numbers"]
    positions = data[f"{group}/coordinates"].astype(float)
    row, step = 1, 5e-4
    stored = data[f"{group}/{level}.energy"][row]
    assert energy(METHODS[level], numbers, positions[row]) == pytest.approx(stored, abs=1e-8)
    expected = np.empty_like(positions[row])
    for index in np.ndindex(expected.shape):
        moved = []
        for sign in (1, -1):
            shifted = positions[row].copy()
            shifted[index] += sign * step
            moved.append(energy(METHODS[level], numbers, shifted))
        expected[index] = -(moved[0] - moved[1]) / (2 * step)
    forces = data[f"{group}/{level}.forces"][row]
    np.testing.assert_allclose(forces, expected, rtol=1e-6, atol=1e-6)
    assert abs(expected).max() > 1e-2  # the comparison says something


def test_both_levels_are_alike_but_not_the_same(pair_file):
    data = contents(pair_file)
    forces = {
        level: np.concatenate([v.ravel() for k, v in data.items() if k.endswith(f"{level}.forces")])
        for level in METHODS
    }
    low, high = forces["gfn1_xtb"], forces["gfn2_xtb"]
    assert 0.02 < np.std(low - high) / np.std(high) < 0.5
    assert np.corrcoef(low, high)[0, 1] > 0.9


def test_the_same_seed_gives_the_same_file_and_another_one_others(generator, pair_file, tmp_path):
    first = contents(pair_file)
    generator.write_pair(tmp_path / "again.h5", N, progress=False)
    again = contents(tmp_path / "again.h5")
    assert first.keys() == again.keys()
    for key, values in first.items():
        np.testing.assert_array_equal(values, again[key])
    generator.write_pair(tmp_path / "other.h5", N, seed=1, progress=False)
    other = contents(tmp_path / "other.h5")
    assert not np.isclose(first["H2O/coordinates"], other["H2O/coordinates"]).any()


def test_a_larger_file_begins_with_a_smaller_one(generator, pair_file, tmp_path):
    generator.write_pair(tmp_path / "small.h5", N // 2, progress=False)
    small, large = contents(tmp_path / "small.h5"), contents(pair_file)
    for key, values in small.items():
        rows = large[key] if key.endswith("atomic_numbers") else large[key][: len(values)]
        np.testing.assert_array_equal(values, rows)


def test_no_conformer_is_above_the_stated_energy_or_torn(generator, pair_file):
    data = contents(pair_file)
    minima = [generator.find_minimum(name) for name in generator.MOLECULES]
    kcal = ase.units.mol / ase.units.kcal * ase.units.Hartree
    for minimum in minima:
        group = str(ase.Atoms(minimum.numbers).symbols.get_chemical_formula(mode="hill"))
        lowest = energy("GFN2-xTB", minimum.numbers, minimum.positions)
        above = (data[f"{group}/gfn2_xtb.energy"] - lowest) * kcal
        assert len(above) == N // len(minima)
        assert above.min() > 0
        assert above.max() < generator.HIGHEST_ENERGY
        bonds = np.linalg.norm(minimum.positions[:, None] - minimum.positions, axis=-1)
        bonded = (bonds > 0) & (bonds < 1.6)
        for positions in data[f"{group}/coordinates"]:
            distances = np.linalg.norm(positions[:, None] - positions, axis=-1)
            assert (distances[bonded] / bonds[bonded]).max() < 1.7


def test_the_levels_beside_the_script_read_the_file(pair_file):
    known = read_levels(SCRIPTS / "xtb_levels.json")
    low, high = (known.get(name) for name in METHODS)
    assert labels_in_file(pair_file, levels=known) == {low: Properties.EF, high: Properties.EF}
    labels = parse_labels({"GFN1": "EF", "GFN2": "E"}, levels=known)
    parts = load_splits(
        pair_file, labels, common_levels=(low, high), rows="common", split_seed=0, levels=known
    )
    assert [len(parts[name].species) for name in ("train", "valid", "test")] == [32, 4, 4]
    test = parts["test"]
    assert np.isfinite(test.energies["gfn1_xtb"]).all()
    assert {"gfn1_xtb", "gfn2_xtb"} <= test.forces.keys()


def test_the_declared_self_energies_are_those_of_free_atoms():
    levels = read_levels(SCRIPTS / "xtb_levels.json", Levels())
    assert [level.id for level in levels] == list(METHODS)
    for level in levels:
        assert level.self_energies.keys() == GROUND_STATES.keys()
        for number, multiplicity in GROUND_STATES.items():
            free = energy(level.method, [number], [[0, 0, 0]], multiplicity=multiplicity)
            assert level.self_energies[number] == pytest.approx(free, abs=1e-6)


def test_the_commands_of_the_documentation_train_and_compare_both_levels(
    generator, tmp_path, monkeypatch, capsys
):
    section = (TOP / "docs" / "own-levels.md").read_text().split("## The pair of xTB levels")[1]
    text = "\n".join(re.findall(r"^    (.*)$", section, flags=re.MULTILINE))
    commands = [shlex.split(line) for line in text.replace("\\\n", "").splitlines()]
    assert [command[:2] for command in commands] == [
        ["python", "scripts/generate_xtb_pair.py"],
        ["hippynn-mf", "data"],
        ["hippynn-mf", "campaign"],
        ["hippynn-mf", "tables"],
    ]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scripts").symlink_to(SCRIPTS)
    for name, value in NO_COMPILER.items():
        monkeypatch.setenv(name, value)
    generator.write_pair(Path(commands[0][2]), N, progress=False)
    quick = [*TINY_OPTIONS, "--engine", "pool", "--workers", "1"]
    assert exit_code(*commands[1][1:]) == 0
    assert "40 carry the energies of all of gfn1_xtb, gfn2_xtb" in capsys.readouterr().out
    assert exit_code(*commands[2][1:], *quick) == 0
    printed = capsys.readouterr().out

    assert exit_code(*commands[3][1:]) == 0
    assert printed.startswith(capsys.readouterr().out.rstrip())
    content = json.loads((tmp_path / "xtb" / "tables" / "experiments.json").read_text())
    tables = [TableData.model_validate(table) for table in content["tables"]]
    low, high, strategies, labels, heads = tables
    both = ["MF-GFN1/EF-GFN2/E", "MFC-GFN1/EF-GFN2/E"]
    assert [row.model for row in high.rows] == ["SF-GFN2/E", *both]
    assert [row.model for row in low.rows] == both
    assert all([row.model for row in t.rows] == both for t in (strategies, labels, heads))
    assert all(c.mean.value > 0 for table in tables for row in table.rows for c in row.cells)
    known = read_levels(SCRIPTS / "xtb_levels.json")
    labelled = parse_labels({"GFN1": "EF", "GFN2": "EF"}, levels=known)
    test = load_splits(
        tmp_path / commands[0][2],
        labelled,
        common_levels=list(labelled),
        rows="common",
        split_seed=0,
        levels=known,
    )["test"]
    gfn1, gfn2 = (test.forces[name][:].astype(float)[test.atom_mask] for name in METHODS)
    apart = np.sqrt(np.mean((gfn2 - gfn1) ** 2)) * KCAL_PER_MOL_PER_HARTREE
    for row in labels.rows:
        assert row.cells[0].reference == pytest.approx(apart)
    splits = []
    for folder in sorted((tmp_path / "xtb" / "runs").glob("*/seed-*")):
        recorded = json.loads((folder / "experiment.json").read_text())
        assert recorded["settings"]["common_levels"] == list(METHODS)
        levels = {level["id"] for level in recorded["settings"]["levels"]}
        assert levels >= set(METHODS)
        with np.load(folder / "split.npz") as rows:
            splits.append({name: rows[name].tolist() for name in rows})
    assert len(splits) == 6
    assert all(split == splits[0] for split in splits)
