"""Reading extended XYZ that ASE has written: labels by name and level, and what is refused."""

import re

import made_xyz
import numpy as np
import planted
import pytest
from ase import Atoms, units

from hippynn_mf.data.formats.extxyz import read_extxyz
from hippynn_mf.data.formats.extxyz_keys import (
    energy_dataset,
    energy_key,
    extxyz_key,
    forces_dataset,
    forces_key,
)
from hippynn_mf.errors import UserError
from hippynn_mf.levels import CC, DZ, MP2, PAPER_LEVELS, TZ, Level, Levels

WATERS = made_xyz.molecules(3, names=["H2O"])


@pytest.mark.parametrize("level", PAPER_LEVELS, ids=lambda level: level.label)
def test_a_level_is_read_by_its_id_and_by_its_short_label(level):
    assert energy_key(level) == f"energy_{level.id}"
    assert forces_key(level) == f"forces_{level.id}"
    assert energy_dataset(f"energy_{level.label}") == energy_dataset(energy_key(level))
    assert forces_dataset(f"forces_{level.label}") == f"{level.id}.forces"
    assert extxyz_key(energy_dataset(energy_key(level))) == energy_key(level)
    assert extxyz_key(f"{level.id}.forces") == forces_key(level)


def test_parts_of_levels_have_names_and_other_keys_none():
    assert energy_dataset("energy_hf_tz") == "hf_tz.energy"
    assert energy_dataset("corr_energy_mp2_tz") == "mp2_tz.corr_energy"
    assert extxyz_key("mp2_tz.corr_energy") == "corr_energy_mp2_tz"
    for key in ("energy", "energy_", "REF_energy", "free_energy", "forces_wb97x_dz", "dipole"):
        assert energy_dataset(key) is None
    for dataset in ("sample", "wb97x_dz.dipole", "coordinates", ".energy"):
        assert extxyz_key(dataset) is None


def test_datasets_that_a_level_of_ones_own_declares_are_used():
    level = Level("gfn", "GFN", "GFN2", "", 1.0, energy_keys=("tb.e",), force_key="tb.f")
    levels = Levels([level])
    assert energy_dataset("energy_gfn", levels) == energy_dataset("energy_GFN", levels) == "tb.e"
    assert energy_dataset("corr_energy_GFN", levels) == "gfn.corr_energy"
    assert forces_dataset("forces_GFN", levels) == "tb.f"
    keys = [extxyz_key(dataset, levels) for dataset in ("tb.e", "tb.f", "gfn.corr_energy")]
    assert keys == ["energy_gfn", "forces_gfn", "corr_energy_gfn"]
    assert energy_dataset("energy_gfn") == "gfn.energy"


@pytest.mark.parametrize("names", [(level.id for level in PAPER_LEVELS), ("DZ", "TZ", "MP2", "CC")])
def test_labels_of_every_level_are_read_in_hartree(tmp_path, names):
    """Names with parentheses included, which ASE writes and reads unquoted."""
    sums = list(made_xyz.ENERGIES.values())
    energies = {f"energy_{name}": parts for name, parts in zip(names, sums, strict=True)}
    columns = {"forces_ccsd(t)_cbs": ("ccsd(t)_cbs",), "forces_DZ": ("wb97x_dz",)}
    path = made_xyz.save(tmp_path / "a.xyz", made_xyz.label(WATERS, energies, columns))
    content = read_extxyz(path)
    assert [frame.number for frame in content.frames] == [1, 2, 3]
    for frame, atoms in zip(content.frames, WATERS, strict=True):
        np.testing.assert_array_equal(frame.numbers, atoms.numbers)
        np.testing.assert_allclose(frame.positions, atoms.positions, rtol=0, atol=1e-12)
        positions = atoms.positions[None]
        for level, parts in zip(PAPER_LEVELS, sums, strict=True):
            (expected,) = sum(planted.energy(atoms.numbers, positions, part) for part in parts)
            found = frame.energies[f"{level.id}.energy"]
            assert found == pytest.approx(expected, rel=0, abs=1e-9 / units.Hartree)
        for level in (DZ, CC):
            (expected,) = planted.forces(atoms.numbers, positions, level.id)
            found = frame.forces[f"{level.id}.forces"]
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8 / units.Hartree)
    assert content.others == {}


def test_a_missing_label_is_an_absent_key(tmp_path):
    structures = made_xyz.label(WATERS, {"energy_DZ": ("wb97x_dz",)}, {"forces_DZ": ("wb97x_dz",)})
    del structures[1].info["energy_DZ"], structures[2].arrays["forces_DZ"]
    first, second, third = read_extxyz(made_xyz.save(tmp_path / "a.xyz", structures)).frames
    assert (set(first.energies), set(first.forces)) == ({"wb97x_dz.energy"}, {"wb97x_dz.forces"})
    assert (set(second.energies), set(second.forces)) == (set(), {"wb97x_dz.forces"})
    assert (set(third.energies), set(third.forces)) == ({"wb97x_dz.energy"}, set())


@pytest.mark.parametrize("level", [DZ, CC], ids=lambda level: level.label)
@pytest.mark.parametrize("names", ["REF", "ASE", "id", "label"])
def test_the_labels_of_one_level_have_the_names_of_mace_of_ase_or_its_own(tmp_path, level, names):
    parts = (level.id,)
    if names == "REF":
        structures = made_xyz.label_mace(WATERS, level.id)
    elif names == "ASE":
        structures = made_xyz.label_results(WATERS, level.id)
    else:
        own = getattr(level, names)
        structures = made_xyz.label(WATERS, {f"energy_{own}": parts}, {f"forces_{own}": parts})
    content = read_extxyz(made_xyz.save(tmp_path / "a.xyz", structures), level)
    assert content.others == {}
    for frame, atoms in zip(content.frames, WATERS, strict=True):
        expected = made_xyz.energy(atoms, parts) / units.Hartree
        assert frame.energies[f"{level.id}.energy"] == pytest.approx(expected, abs=1e-10)
        expected = made_xyz.forces(atoms, parts) / units.Hartree
        np.testing.assert_allclose(frame.forces[f"{level.id}.forces"], expected, atol=1e-9)


def test_the_names_of_mace_come_before_those_of_ase_and_names_of_levels_last(tmp_path):
    structures = made_xyz.label_results(WATERS, "wb97x_tz")
    for atoms, of_dz in zip(structures, made_xyz.label_mace(WATERS, "wb97x_dz"), strict=True):
        atoms.info |= of_dz.info | {"energy_wb97x_dz": -1.0}
        atoms.arrays["REF_forces"] = of_dz.arrays["REF_forces"]
    content = read_extxyz(made_xyz.save(tmp_path / "a.xyz", structures), DZ)
    for frame, atoms in zip(content.frames, WATERS, strict=True):
        expected = made_xyz.energy(atoms, ["wb97x_dz"]) / units.Hartree
        assert frame.energies["wb97x_dz.energy"] == pytest.approx(expected, abs=1e-10)
    assert content.others == {"energy": 3, "forces": 3, "energy_wb97x_dz": 3}


def test_names_of_ase_beside_those_of_mace_fill_no_gap(tmp_path):
    """`energy` may be of another method there, or a prediction."""
    structures = made_xyz.label_results(WATERS, "wb97x_tz")
    structures[0].info["REF_energy"] = made_xyz.energy(WATERS[0], ["wb97x_dz"])
    with pytest.raises(UserError, match=r"1 structures have both REF_energy.* and 2 the latter"):
        read_extxyz(made_xyz.save(tmp_path / "a.xyz", structures), DZ)


def test_isolated_atoms_are_left_out_and_single_atoms_are_not(tmp_path):
    atom = Atoms("H", info={"config_type": "IsolatedAtom", "REF_energy": -13.6})
    other = Atoms("H", info={"REF_energy": -13.6})
    structures = [atom, other, *made_xyz.label_mace(WATERS, "wb97x_dz")]
    content = read_extxyz(made_xyz.save(tmp_path / "a.xyz", structures), DZ)
    assert content.isolated_atoms == [(1, {"wb97x_dz.energy": pytest.approx(-0.5, abs=1e-3)})]
    assert [frame.number for frame in content.frames] == [2, 3, 4, 5]


def test_what_is_no_label_is_counted(tmp_path):
    structures = made_xyz.label(WATERS)
    structures[0].info |= {"config_type": "md", "REF_energy": -1.0}
    structures[1].info["config_type"] = "md"
    structures[2].arrays["charges"] = np.zeros(3)
    content = read_extxyz(made_xyz.save(tmp_path / "a.xyz", structures))
    assert content.others == {"config_type": 2, "REF_energy": 1, "charges": 1}


# What is refused: changes of the text of a good file, and what the message says.


def good_text(tmp_path):
    structures = made_xyz.label(WATERS, {"energy_DZ": ("wb97x_dz",)}, {"forces_DZ": ("wb97x_dz",)})
    return made_xyz.save(tmp_path / "good.xyz", structures).read_text()


def comment(addition):
    """Add to the comment of the second structure."""
    return lambda text: _edit_line(text, 6, lambda line: f"{line} {addition}")


def periodic(lattice):
    """Make the second structure periodic with these lattice vectors."""
    cell = f'Lattice="{lattice}" pbc="T T T"'
    return lambda text: _edit_line(
        text, 6, lambda line: f"{re.sub(' pbc=.F F F.', '', line)} {cell}"
    )


def atom(place, value):
    """Replace a field of the first atom of the second structure; None removes it."""

    def edit(line):
        fields = line.split()
        fields[place : place + 1] = [] if value is None else [value]
        return " ".join(fields)

    return lambda text: _edit_line(text, 7, edit)


def _edit_line(text, number, edit):
    lines = text.splitlines()
    lines[number] = edit(lines[number])
    return "\n".join(lines) + "\n"


def energy(value):
    return lambda text: _edit_line(
        text,
        6,
        lambda line: " ".join(
            f"energy_DZ={value}" if "=" in p and "energy" in p else p for p in line.split()
        ),
    )


WRONG_TEXTS = {
    "empty": (lambda text: "", r"is empty: it holds no structure"),
    "blank lines": (lambda text: "\n\n", r"is empty"),
    "no xyz": (
        lambda text: "conformer,energy\n",
        r"line 1: a number of atoms was expected, found 'c",
    ),
    "half": (lambda text: text[: len(text) // 2], r"truncated: structure 2, .* have 3 atoms"),
    "last atom": (lambda text: "".join(text.splitlines(True)[:-1]), r"truncated: structure 3"),
    "last digits": (lambda text: text[:-4], r"does not end with a line break"),
    "blank between": (
        lambda text: _edit_line(text, 4, lambda line: line + "\n"),
        r"line 6 is blank",
    ),
    "no atoms": (lambda text: "0\n\n" + text, r"line 1: a number of atoms was expected, found '0'"),
    "missing column": (
        atom(6, None),
        r"structure 2: line 8 has 6 columns, and Properties in line 7 say 7",
    ),
    "column that nothing names": (
        lambda text: text.replace(":forces_DZ:R:3", ""),
        r"structure 1: line 3 has 7 columns, and Properties in line 2 say 4",
    ),
    "text for a number": (atom(2, "abc"), r"structure 2: ASE cannot read it"),
    "unknown element": (atom(0, "Qq"), r"structure 2: ASE cannot read it"),
    "no element": (atom(0, "X"), r"structure 2 has atoms without an element"),
    "position": (atom(3, "nan"), r"structure 2 has NaN or infinite positions"),
    "force": (atom(4, "inf"), r"structure 2: NaN or infinite values in forces_DZ"),
    "energy nan": (
        energy("nan"),
        r"structure 2: energy_DZ is nan; an energy in eV .* leave the key",
    ),
    "energy inf": (energy("-inf"), r"structure 2: energy_DZ is -inf"),
    "energy text": (energy("-1.0D+02"), r"structure 2: energy_DZ is -1.0D\+02"),
    "two energies": (energy('"-1.0 -2.0"'), r"structure 2: energy_DZ is"),
    "no value": (comment("energy_CC"), r"structure 2: energy_CC is True"),
    "twice": (comment("energy_wb97x_dz=-1.0"), r"energy_DZ and energy_wb97x_dz are the same label"),
    "no cell": (
        periodic("9 0 0 0 9 0 0 0 0"),
        r"structure 2: periodic \(pbc\) along an axis without a cell vector",
    ),
    "left-handed cell": (
        periodic("9 0 0 0 9 0 0 0 -9"),
        r"structure 2: the cell is left-handed",
    ),
    "forces of a structure": (comment("forces_CC=1.0"), r"forces_CC has shape \(\)"),
}


@pytest.mark.parametrize("name", WRONG_TEXTS)
def test_a_wrong_file_is_refused_by_name_and_structure(tmp_path, name):
    change, message = WRONG_TEXTS[name]
    text = good_text(tmp_path)
    path = tmp_path / "wrong.xyz"
    path.write_text(change(text))
    assert path.read_text() != text
    with pytest.raises(UserError, match=message) as refusal:
        read_extxyz(path)
    assert str(path) in str(refusal.value)


def test_the_good_file_of_these_tests_is_good(tmp_path):
    (tmp_path / "a.xyz").write_text(good_text(tmp_path))
    assert len(read_extxyz(tmp_path / "a.xyz").frames) == 3


def test_forces_in_two_columns_are_refused(tmp_path):
    structures = made_xyz.label(WATERS)
    structures[2].arrays["forces_wb97x_dz"] = np.zeros((3, 2))
    path = made_xyz.save(tmp_path / "a.xyz", structures)
    with pytest.raises(
        UserError, match=r"structure 3: forces_wb97x_dz has shape \(3, 2\).*\(3, 3\)"
    ):
        read_extxyz(path)


def test_a_molecule_in_a_box_that_is_not_periodic_is_read(tmp_path):
    for atoms in (structures := made_xyz.label(WATERS)):
        atoms.cell = [9, 9, 9]
    assert len(read_extxyz(made_xyz.save(tmp_path / "a.xyz", structures)).frames) == 3


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"No file .*absent.xyz"):
        read_extxyz(tmp_path / "absent.xyz")
    (tmp_path / "folder.xyz").mkdir()
    with pytest.raises(UserError, match=r"folder.xyz is a folder"):
        read_extxyz(tmp_path / "folder.xyz")
    binary = tmp_path / "binary.xyz"
    binary.write_bytes(bytes(range(256)))
    with pytest.raises(UserError, match="is not a text file"):
        read_extxyz(binary)


def test_python_objects_in_a_file_are_not_loaded(tmp_path):
    """ASE would guess the format of an unnamed one by its content, a pickle included."""
    path = planted.write_ani1x(tmp_path / "really-hdf5.xyz")
    with pytest.raises(UserError, match=r"not a text file|number of atoms was expected"):
        read_extxyz(path)


def test_labels_without_a_level_are_refused_with_the_remedy(tmp_path):
    path = made_xyz.save(tmp_path / "a.xyz", made_xyz.label_mace(WATERS, "wb97x_dz"))
    message = r"names its level.*It holds REF_energy .*, REF_forces .*DZ=.*a.xyz.*--train"
    with pytest.raises(UserError, match=message):
        read_extxyz(path)


def test_a_level_without_labels_is_refused(tmp_path):
    energies = {"energy_DZ": ("wb97x_dz",)}
    path = made_xyz.save(tmp_path / "a.xyz", made_xyz.label(WATERS, energies, {}))
    message = r"no labels of level wb97x_tz \(TZ\)\. It holds energy_DZ .*Looked for REF_energy, "
    with pytest.raises(UserError, match=message):
        read_extxyz(path, TZ)
    path = made_xyz.save(tmp_path / "b.xyz", WATERS)
    with pytest.raises(UserError, match=r"level mp2_tz.*It holds positions only"):
        read_extxyz(path, MP2)
