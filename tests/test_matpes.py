"""Records of pymatgen structures, in the layout in which MatPES is published."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
from ase import units
from made_crystals import crystals, labels_of
from made_runs import exit_code

from hippynn_mf import UserError
from hippynn_mf.data.formats.ani1x import read_ani1x
from hippynn_mf.data.formats.matpes import is_matpes, read_matpes
from hippynn_mf.data.formats.sources import with_declared
from hippynn_mf.labels import parse_labels
from hippynn_mf.levels import CC, DZ, KNOWN_LEVELS
from hippynn_mf.runs.request import Request
from hippynn_mf.units import EV_PER_HARTREE

KBAR_PER_EV_PER_ANGSTROM3 = 1602.176634
LEVELS = Request.of({"levels": ("PBE", "R2SCAN")}).known
TRUE = {"PBE": DZ, "r2SCAN": CC}


def record(atoms, functional="PBE", **changes):
    """A record as its owners write it: the stress in kbar, with VASP's sign, in Voigt's order."""
    energy, forces, stress = labels_of(atoms, TRUE[functional])
    sites = [
        {
            "species": [{"element": symbol, "occu": 1}],
            "abc": scaled.tolist(),
            "xyz": position.tolist(),
            "properties": {"magmom": 0.0},
            "label": symbol,
        }
        for symbol, scaled, position in zip(
            atoms.symbols, atoms.get_scaled_positions(wrap=False), atoms.positions, strict=True
        )
    ]
    voigt = stress.ravel()[[0, 4, 8, 5, 2, 1]]
    return {
        "matpes_id": "matpes-1",
        "functional": functional,
        "structure": {
            "@module": "pymatgen.core.structure",
            "@class": "Structure",
            "charge": 0,
            "lattice": {"matrix": atoms.cell.array.tolist(), "pbc": [True, True, True]},
            "sites": sites,
        },
        "energy": energy,
        "forces": forces.tolist(),
        "stress": (-KBAR_PER_EV_PER_ANGSTROM3 * voigt).tolist(),
        "bandgap": 0.0,
        "cohesive_energy_per_atom": -1.0,
        **changes,
    }


def write_records(path, records):
    text = json.dumps(records)
    if "jsonl" in path.name:
        text = "\n".join(map(json.dumps, records)) + "\n"
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["a.json", "a.json.gz", "a.jsonl", "a.jsonl.gz"])
def test_both_functionals_are_read_as_published(tmp_path, name):
    atoms = crystals(4)
    records = [record(each, name) for each in atoms for name in TRUE]
    path = write_records(tmp_path / name, records)
    assert is_matpes(path)
    labels = parse_labels({"PBE": "EFS", "R2SCAN": "EFS"}, levels=LEVELS)
    found, _ = read_ani1x(path, labels, levels=LEVELS)
    assert len(found) == 4  # the same structure at both levels is one
    for level, functional in zip(labels, TRUE, strict=True):
        for k, each in enumerate(atoms):
            energy, forces, stress = labels_of(each, TRUE[functional])
            assert found.energies[level.id][k] * EV_PER_HARTREE == pytest.approx(energy)
            np.testing.assert_allclose(
                found.forces[level.id][k] * EV_PER_HARTREE, forces, atol=1e-5
            )
            np.testing.assert_allclose(
                found.stress[level.id][k] * EV_PER_HARTREE, stress, atol=1e-8
            )
            np.testing.assert_allclose(found.cells[k], each.cell.array, atol=1e-8)


def test_the_unit_of_the_stress_is_that_of_ase():
    assert pytest.approx(KBAR_PER_EV_PER_ANGSTROM3) == 1 / (0.1 * units.GPa)


def test_a_file_of_one_level_needs_no_known_functional(tmp_path):
    (atoms,) = crystals(1)
    path = write_records(tmp_path / "a.json", [record(atoms)])
    (frame,) = read_matpes(path, DZ, levels=KNOWN_LEVELS).frames
    assert set(frame.energies) == {DZ.energy_name}
    assert set(frame.stress) == {DZ.stress_name}


def test_a_functional_of_no_level_lists_those_that_are_known(tmp_path):
    (atoms,) = crystals(1)
    path = write_records(tmp_path / "a.json", [record(atoms)])
    with pytest.raises(
        UserError, match=r"functional=PBE names no level; known are DZ.*--levels PBE"
    ):
        read_matpes(path, levels=KNOWN_LEVELS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"structure": {}}, "no structure of pymatgen with lattice and sites"),
        ({"stress": [1, 2, 3]}, "3 × 3 numbers"),
        ({"energy": "low"}, "with numbers was expected"),
        ({"forces": [[0, 0, 0]]}, "forces"),
        ("disordered", "only ordered structures"),
        ("unknown", "only ordered structures of known elements"),
        ("flat", "flat"),
        ("charged", "charge"),
    ],
)
def test_wrong_records_are_one_message(tmp_path, change, message):
    (atoms,) = crystals(1)
    first, wrong = record(atoms), record(atoms, "r2SCAN")
    structure = wrong["structure"]
    if change == "disordered":
        structure["sites"][0]["species"][0]["occu"] = 0.5
    elif change == "unknown":
        structure["sites"][0]["species"][0]["element"] = "Qq"
    elif change == "flat":
        structure["lattice"]["matrix"][2] = [0, 0, 1e-3]
    elif change == "charged":
        structure["charge"] = 2
    else:
        wrong |= change
    path = write_records(tmp_path / "a.json", [first, wrong])
    if change == "charged":  # judged with all others, see the checks
        (frame,) = read_matpes(path, levels=LEVELS).frames[1:]
        assert frame.system["charge"] == 2
        return
    with pytest.raises(UserError, match=f"a.json, structure 2.*{message}"):
        read_matpes(path, levels=LEVELS)


def test_damaged_files_are_said_to_be(tmp_path):
    (atoms,) = crystals(1)
    path = write_records(tmp_path / "a.json.gz", [record(atoms)] * 3)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"a\.json\.gz is damaged, or no JSON"):
        read_matpes(path, DZ)
    other = tmp_path / "b.json"
    other.write_text('{"a": 1}')
    assert not is_matpes(other)


def test_units_cannot_be_declared_for_what_says_its_own(tmp_path):
    path = write_records(tmp_path / "a.json", [record(atoms) for atoms in crystals(3)])
    source = with_declared({"DZ": path}, units={"stress": "kbar"})
    with pytest.raises(UserError, match="units cannot be declared"):
        read_ani1x(source, parse_labels({"DZ": "EFS"}))


@pytest.mark.parametrize(
    ("change", "message"), [({"charge": 1}, "charge"), ({"energy": True}, "the energy is True")]
)
def test_a_charge_of_a_record_and_an_energy_that_is_none_are_refused(
    tmp_path, capsys, change, message
):
    records = [record(atoms, **change) for atoms in crystals(6)]
    path = write_records(tmp_path / "a.json", records)
    out = tmp_path / "out"
    assert exit_code("train", "SF-DZ/EF", "--train", f"DZ={path}", "--out", out) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("key", ["energy", "matrix", "element"])
def test_a_key_that_is_there_twice_is_refused(tmp_path, key):
    text = json.dumps([record(atoms) for atoms in crystals(2)])
    place = text.rindex(f'"{key}"')
    (tmp_path / "a.json").write_text(f'{text[:place]}"{key}": 1, {text[place:]}')
    with pytest.raises(UserError, match=rf"a\.json.*an object has '{key}' twice"):
        read_matpes(tmp_path / "a.json", DZ)


def _moved(one):
    one["structure"]["sites"][2]["xyz"][0] += 0.2


def _lattice(name, value):
    return lambda one: one["structure"]["lattice"].__setitem__(name, value)


CONTRADICTIONS = {
    "places of a site": (_moved, "xyz and abc of site 3 are 0.2 Å apart"),
    "a length": (_lattice("b", 9.5), "the lattice says b=9.5, and its matrix has 3"),
    "an angle": (_lattice("gamma", 60), "the lattice says gamma=60, and its matrix has"),
    "the volume": (_lattice("volume", 56.0), "the lattice says volume=56, and its matrix has [23]"),
    "two tensors": (
        lambda one: one.update(stress_matrix=[[1, 0, 0], [0, 2, 0], [0, 0, 3]]),
        "stress and stress_matrix are different",
    ),
    "two functionals": (
        lambda one: one.update(functional="SCAN"),
        "functional is pbe in structure 1 and scan in structure 3, and all are read as level PBE",
    ),
}


@pytest.mark.parametrize(("change", "message"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_records_that_contradict_themselves_are_refused(tmp_path, change, message):
    records = [record(atoms) for atoms in crystals(4)]
    change(records[2])
    path = write_records(tmp_path / "a.json", records)
    with pytest.raises(UserError, match=message) as caught:
        read_matpes(path, LEVELS.get("PBE"), levels=LEVELS)
    assert str(path) in str(caught.value)


def test_what_says_the_same_twice_is_read(tmp_path):
    """With lengths, angles and volume of pymatgen, and a site in another image of the cell."""
    records = []
    for atoms in crystals(4):
        one = record(atoms)
        lattice = one["structure"]["lattice"]
        names = ("a", "b", "c", "alpha", "beta", "gamma")
        lattice |= dict(zip(names, atoms.cell.cellpar(), strict=True))
        lattice["volume"] = atoms.get_volume()
        one["structure"]["sites"][1]["abc"][2] += 1
        records.append(one)
    path = write_records(tmp_path / "a.json", records)
    frames = read_matpes(path, LEVELS.get("PBE"), levels=LEVELS).frames
    for frame, atoms in zip(frames, crystals(4), strict=True):
        np.testing.assert_array_equal(frame.positions, atoms.positions)


def test_moments_and_charges_of_sites_are_said_to_be_unused(tmp_path):
    records = [record(atoms) for atoms in crystals(4)]
    records[1]["structure"]["sites"][0]["properties"]["magmom"] = 2.1
    records[2]["structure"]["sites"][0]["properties"] = {"magmom": [0.0, 0.0, -1.5], "charge": 0.4}
    path = write_records(tmp_path / "a.json", records)
    content = read_matpes(path, LEVELS.get("PBE"), levels=LEVELS)
    assert {"initial_magmoms", "initial_charges"} <= set(content.others)
    moments, charges = content.remarks
    assert moments.startswith("2 structures have magnetic moments (initial_magmoms)")
    assert charges.startswith("1 structures have charges (initial_charges)")
    assert not read_matpes(
        write_records(tmp_path / "b.json", records[:1]), LEVELS.get("PBE"), levels=LEVELS
    ).remarks


def test_a_functional_of_another_name_than_the_level_is_said(tmp_path):
    path = write_records(tmp_path / "a.json", [record(atoms) for atoms in crystals(4)])
    assert not read_matpes(path, LEVELS.get("PBE"), levels=LEVELS).remarks
    (remark,) = read_matpes(path, CC, levels=KNOWN_LEVELS).remarks
    assert remark == "functional=pbe is read as level CC"
