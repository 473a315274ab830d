import json
import re

import h5py
import made_xyz
import numpy as np
import pytest
from ase.build import molecule
from planted import ANI1X_ENERGIES, DEPTH, MOLECULES, replace, write_ani1x

from hippynn_mf.data.info import describe_file, format_description
from hippynn_mf.errors import UserError
from hippynn_mf.levels import CC, DZ, MP2, PAPER_LEVELS, TZ, Levels

PAPER = Levels(PAPER_LEVELS)

HOLES = {
    "CH4": {"ccsd(t)_cbs.energy": slice(5, 25), "wb97x_tz.energy": slice(20, 30)},
    "H2O": {"wb97x_tz.forces": slice(0, 30)},
    "N2": dict.fromkeys((*ANI1X_ENERGIES, "wb97x_dz.forces", "wb97x_tz.forces"), slice(0, 4)),
}


@pytest.fixture
def holey_file(tmp_path):
    """A planted file with missing labels: 5 groups of 40, four conformers without any label."""
    return write_ani1x(tmp_path / "holey.h5", missing=HOLES)


def test_a_complete_file_is_described_completely(ani1x_file):
    info = describe_file(ani1x_file, levels=PAPER)
    assert info["file"] == str(ani1x_file)
    assert (info["n_structures"], info["n_unlabelled"], info["n_common"]) == (200, 0, 200)
    assert info["n_groups"] == 5
    assert info["elements"] == ["H", "C", "N", "O"]
    assert info["atoms_per_structure"] == [2, 5]
    assert info["common_levels"] == [level.id for level in PAPER_LEVELS]
    for level in PAPER_LEVELS:
        entry = info["levels"][level.id]
        assert (entry["label"], entry["energy"]) == (level.label, 200)
        assert entry["forces"] == (200 if level in (DZ, TZ) else 0)
    assert set(info["overlap"].values()) == {200}
    assert set(info["problems"].values()) == {0}


def test_missing_labels_are_counted_per_level(holey_file):
    info = describe_file(holey_file, levels=PAPER)
    assert (info["n_structures"], info["n_unlabelled"]) == (200, 4)
    counted = {name: (entry["energy"], entry["forces"]) for name, entry in info["levels"].items()}
    assert counted == {
        "wb97x_dz": (196, 196),
        "wb97x_tz": (186, 166),
        "mp2_tz": (196, 0),
        "ccsd(t)_cbs": (176, 0),
    }
    assert info["n_common"] == 200 - 4 - 25


def test_overlaps_are_counted_for_every_pair_of_levels(holey_file):
    assert describe_file(holey_file, levels=PAPER)["overlap"] == {
        "wb97x_dz & wb97x_tz": 186,
        "wb97x_dz & mp2_tz": 196,
        "wb97x_dz & ccsd(t)_cbs": 176,
        "wb97x_tz & mp2_tz": 186,
        "wb97x_tz & ccsd(t)_cbs": 171,
        "mp2_tz & ccsd(t)_cbs": 176,
    }


def test_levels_that_the_file_does_not_have_are_left_out(ani1x_file):
    for name in MOLECULES:
        replace(ani1x_file, name, "mp2_tz.corr_energy", None)
        replace(ani1x_file, name, "wb97x_tz.forces", None)
    info = describe_file(ani1x_file, levels=PAPER)
    assert list(info["levels"]) == info["common_levels"] == [DZ.id, TZ.id, CC.id]
    assert info["levels"][TZ.id]["forces"] == 0
    assert "force_check" not in info["levels"][TZ.id]
    assert len(info["overlap"]) == 3


def test_repetitions_are_counted_however_they_are_written(ani1x_file):
    with h5py.File(ani1x_file, "r+") as file:
        water, hcn = file["H2O/coordinates"], file["CHN/coordinates"]
        water[7:10] = water[3]
        water[20] = water[21]
        hcn[4] = water[5]  # the same positions of other atoms
        water[30] = -water[31][[0, 2, 1]] + np.float32(0.5)  # turned, reordered and moved
        water[33] = water[34] * np.float32(1.001)  # stretched
    problems = describe_file(ani1x_file)["problems"]
    assert problems["duplicates"] == 5
    assert problems["contradicting_labels"] > 0  # those of the conformers that were there


def test_conformers_with_atoms_that_nearly_touch_are_counted(ani1x_file):
    with h5py.File(ani1x_file, "r+") as file:
        file["N2/coordinates"][3] = [[0, 0, 0], [0, 0, 0.49]]
        file["N2/coordinates"][4] = [[0, 0, 0], [0, 0, 0.51]]
        file["CH4/coordinates"][8, 4] = file["CH4/coordinates"][8, 3] + np.float32(0.2)
        file["CH4/coordinates"][8, 2] = file["CH4/coordinates"][8, 3]  # counts once
        file["H2O/coordinates"][:, 0] = 0.0  # where the padding of a narrower molecule lies
    problems = describe_file(ani1x_file)["problems"]
    assert problems["shorter_than_0.5_angstrom"] == 2


def test_close_atoms_are_found_in_the_last_conformer_of_the_last_group(ani1x_file):
    with h5py.File(ani1x_file, "r+") as file:
        for name in (min(file), max(file)):
            file[name]["coordinates"][39] = 0.0
    assert describe_file(ani1x_file)["problems"]["shorter_than_0.5_angstrom"] == 2


def test_wrong_signs_are_reported_for_their_level(ani1x_file):
    with h5py.File(ani1x_file, "r+") as file:
        for group in file.values():
            group["wb97x_dz.forces"][...] *= -1
    signs = {
        name: describe_file(ani1x_file)["levels"][name]["force_check"] for name in (DZ.id, TZ.id)
    }
    assert signs[DZ.id]["verdict"] == "refused"
    assert signs[DZ.id]["slope"] == pytest.approx(-1, abs=0.05)
    assert signs[TZ.id]["verdict"] == "passed"
    assert signs[TZ.id]["slope"] == pytest.approx(1, abs=0.05)


def test_the_largest_force_is_that_of_one_atom(ani1x_file):
    with h5py.File(ani1x_file, "r+") as file:
        for group in file.values():
            group["wb97x_dz.forces"][...] = 0.7  # of every component: longer than 1 in all
            group["wb97x_tz.forces"][...] = 0.5
        file["H2O/wb97x_tz.forces"][3, 1] = [2.0, 3.0, 6.0]
        file["N2/wb97x_tz.forces"][5, 0] = [0.0, 0.0, -1.5]
    levels = describe_file(ani1x_file)["levels"]
    largest, above = (
        "largest_force_hartree_per_angstrom",
        "forces_above_1.0_hartree_per_angstrom",
    )
    assert levels[DZ.id][largest] == pytest.approx(0.7 * 3**0.5)
    assert levels[DZ.id][above] == 200
    assert levels[TZ.id][largest] == pytest.approx(7.0)
    assert levels[TZ.id][above] == 2


@pytest.mark.parametrize(
    ("counts", "n_elements", "rank"),
    [
        ({"H2O": 20}, 2, 1),
        ({"N2": 20}, 1, 1),
        ({"H2O": 10, "CH4": 10}, 3, 2),
        ({"H2O": 10, "CH4": 10, "H3N": 10}, 4, 3),
        ({"CH4": 5, "H2O": 5, "H3N": 5, "CHN": 5, "N2": 5}, 4, 4),
    ],
    ids=["one formula", "one element", "two formulas", "three formulas", "five formulas"],
)
def test_atomic_energies_are_determined_by_as_many_formulas_as_elements(
    tmp_path, counts, n_elements, rank
):
    info = describe_file(write_ani1x(tmp_path / "file.h5", counts))
    fit = info["levels"][DZ.id]["atomic_energy_fit"]
    assert (fit["n_elements"], fit["rank"]) == (n_elements, rank)
    if rank < n_elements:
        assert fit["condition"] is None
        assert "singular" in format_description(info)
    else:
        assert 1 <= fit["condition"] < 1e3


def test_the_fit_counts_the_labelled_structures_of_its_level_only(tmp_path):
    holes = {"CH4": {"ccsd(t)_cbs.energy": slice(None)}}
    path = write_ani1x(tmp_path / "file.h5", {"CH4": 10, "N2": 10}, missing=holes)
    levels = describe_file(path)["levels"]
    assert levels[DZ.id]["atomic_energy_fit"]["n_elements"] == 3
    assert levels[CC.id]["atomic_energy_fit"]["n_elements"] == 1


def test_the_residual_of_the_fit_is_the_spread_of_the_bonds_alone(tmp_path):
    """Of one formula with two energies ±x from their mean, whatever the atoms cost."""
    path = write_ani1x(tmp_path / "file.h5", {"N2": 20})
    with h5py.File(path, "r+") as file:
        file["N2/wb97x_dz.energy"][:10] = -108.0 + DEPTH
        file["N2/wb97x_dz.energy"][10:] = -108.0 - DEPTH
    fit = describe_file(path)["levels"][DZ.id]["atomic_energy_fit"]
    assert fit["residual_rmse_kcal_per_mol"] == pytest.approx(DEPTH * 627.5094740631, rel=1e-6)
    assert fit["condition"] == 1


@pytest.mark.parametrize("counts", [40, 2, {"H2O": 1}], ids=["many", "few", "one"])
def test_the_description_is_strict_json(tmp_path, counts):
    info = describe_file(write_ani1x(tmp_path / "file.h5", counts))
    assert json.loads(json.dumps(info, allow_nan=False)) == info
    assert {"n_structures", "n_groups", "elements", "levels", "overlap"} <= set(info)


def test_an_undecided_sign_has_no_slope(tmp_path):
    info = describe_file(write_ani1x(tmp_path / "file.h5", 1))
    expected = {"verdict": "undecided", "slope": None, "correlation": None, "n_pairs": 0}
    expected |= {"slope_error": None, "slope_bias": None, "reach_angstrom": 0}
    expected |= {"bond_correlation": None, "bond_stiffness": None, "bond_stiffness_error": None}
    expected |= {"n_bonds": 10}
    assert info["levels"][DZ.id]["force_check"] == expected


def test_a_level_without_any_label_is_described(tmp_path):
    holes = {"H2O": dict.fromkeys(("wb97x_tz.energy", "wb97x_tz.forces"), slice(None))}
    info = describe_file(write_ani1x(tmp_path / "file.h5", {"H2O": 12}, missing=holes))
    entry = info["levels"][TZ.id]
    assert (entry["energy"], entry["forces"], entry["atomic_energy_fit"]) == (0, 0, None)
    assert entry["largest_force_hartree_per_angstrom"] == 0
    assert entry["force_check"]["verdict"] == "undecided"
    assert info["n_common"] == 0
    assert "no labels" in format_description(info)
    json.dumps(info, allow_nan=False)


def test_a_file_without_any_label_is_described(tmp_path):
    keys = (*ANI1X_ENERGIES, "wb97x_dz.forces", "wb97x_tz.forces")
    holes = {"H2O": dict.fromkeys(keys, slice(None))}
    info = describe_file(write_ani1x(tmp_path / "file.h5", {"H2O": 12}, missing=holes))
    assert (info["n_structures"], info["n_unlabelled"], info["n_common"]) == (12, 12, 0)
    assert info["atoms_per_structure"] == [0, 0]
    assert {entry["energy"] for entry in info["levels"].values()} == {0}
    json.dumps(info, allow_nan=False)
    assert "12 without any label" in format_description(info)


def test_a_file_of_no_known_level_is_refused_with_the_keys_that_it_has(comp6_file, tmp_path):
    with pytest.raises(
        UserError, match=r"labels name no level.*LEVEL=.*--key LEVEL\.energy=energies"
    ):
        describe_file(comp6_file)
    water = molecule("H2O")
    water.info["energy_gfn1"] = -100.0
    path = made_xyz.save(tmp_path / "own.xyz", [water])
    with pytest.raises(UserError, match=r"Found: .*gfn1\.energy.*Looked for: .*--levels"):
        describe_file(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"No file .*absent\.h5"):
        describe_file(tmp_path / "absent.h5")


def test_the_text_says_what_the_json_says(holey_file):
    info = describe_file(holey_file, levels=PAPER)
    text = format_description(info)
    for level in (DZ, TZ, MP2, CC):
        entry = info["levels"][level.id]
        columns = rf"{re.escape(level.id)} +{entry['energy']} +{entry['forces']} +rank 4 of 4"
        assert re.search(columns, text)
    for pair, count in info["overlap"].items():
        assert f"{pair}: {count} in common" in text
    assert "200 structures in 5 groups, 2 to 5 atoms of H, C, N, O; 4 without any label" in text
    assert "the forces of level wb97x_dz follow its energies" in text
    assert "duplicates: 0" in text


def test_damaged_values_are_counted_instead_of_refused(ani1x_file):
    with h5py.File(ani1x_file, "r+") as file:
        file["H2O/coordinates"][3, 0, 0] = np.nan
        file["CH4/wb97x_dz.energy"][[1, 2]] = np.inf
        file["CH4/wb97x_tz.forces"][5, 0, 0] = -np.inf
        file["CH4/wb97x_tz.forces"][6, 0, 0] = np.nan
    info = describe_file(ani1x_file)
    assert info["problems"]["bad_coordinates"] == 1
    assert info["problems"]["infinite_labels"] == 3
    assert info["problems"]["partial_forces"] == 1
    assert info["n_structures"] == 200
    assert info["levels"]["wb97x_dz"]["energy"] == 200 - 1 - 2
    assert info["levels"]["wb97x_tz"]["forces"] == 200 - 1 - 2
