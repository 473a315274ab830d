import pickle

import numpy as np
import pytest
from planted import WATER, conformers, energy, forces, numbers_of, replace, write_ani1x

from hippynn_mf import levels
from hippynn_mf.data.arrays import reference_energies
from hippynn_mf.data.formats.ani1x import labels_in_file, read_ani1x
from hippynn_mf.errors import UserError
from hippynn_mf.labels import Properties, join_labels, parse_labels, plain_labels
from hippynn_mf.levels import CC, DZ, KNOWN_LEVELS, MP2, TZ, Level, Levels
from hippynn_mf.units import KCAL_PER_MOL_PER_HARTREE


def user_level(name="gfn2_xtb", label="GFN2", rank=-5.0, **changes):
    keys = {"energy_keys": (f"{name}.energy",), "force_key": f"{name}.forces"} | changes
    return Level(name, label=label, method="GFN2-xTB", basis="minimal", rank=rank, **keys)


@pytest.mark.parametrize(
    ("level", "name", "label"),
    [
        (DZ, "wb97x_dz", "DZ"),
        (TZ, "wb97x_tz", "TZ"),
        (MP2, "mp2_tz", "MP2"),
        (CC, "ccsd(t)_cbs", "CC"),
    ],
    ids=["DZ", "TZ", "MP2", "CC"],
)
def test_a_paper_level_is_found_by_id_and_by_label(level, name, label):
    assert KNOWN_LEVELS.get(name) is KNOWN_LEVELS.find(name) is level
    assert KNOWN_LEVELS.get(label) is KNOWN_LEVELS.find(label) is level
    assert KNOWN_LEVELS.get(level) is level
    assert (level.energy_name, level.forces_name) == (f"{name}.energy", f"{name}.forces")


def test_the_paper_levels_are_ordered_by_accuracy():
    assert levels.PAPER_LEVELS == (DZ, TZ, MP2, CC)
    assert list(Levels([CC, TZ, MP2, DZ])) == [DZ, TZ, MP2, CC]
    assert [level for level in KNOWN_LEVELS if level in levels.PAPER_LEVELS] == [DZ, TZ, MP2, CC]
    assert DZ.rank < TZ.rank < MP2.rank < CC.rank
    assert levels.highest_level([TZ, CC, DZ]) is CC
    assert levels.highest_level([TZ, DZ]) is TZ


def test_only_mp2_is_a_sum_of_two_keys():
    assert MP2.energy_keys == ("hf_tz.energy", "mp2_tz.corr_energy")
    assert all(len(level.energy_keys) == 1 for level in (DZ, TZ, CC))


def test_all_levels_but_mp2_may_have_forces():
    assert [level.force_key for level in levels.PAPER_LEVELS] == [
        "wb97x_dz.forces",
        "wb97x_tz.forces",
        None,
        "ccsd(t)_cbs.forces",
    ]


def test_self_energies_cannot_be_changed():
    with pytest.raises(TypeError, match="does not support item assignment"):
        DZ.self_energies[6] = 0.0


@pytest.mark.parametrize("name", ["dz", "", "wb97x", "CCSD", "wb97x_dz.energy"])
def test_an_unknown_level_is_an_error_that_lists_the_known_ones(name):
    with pytest.raises(UserError, match=r"Unknown level of theory") as caught:
        KNOWN_LEVELS.get(name)
    listed = str(caught.value).split("Known: ")[1]
    for level in levels.PAPER_LEVELS:
        assert level.id in listed
        assert level.label in listed


@pytest.mark.parametrize(
    ("name", "near"),
    [("wb97x_ds", "wb97x_dz"), ("MP", "MP2"), ("ccsd(t)", r"ccsd\(t\)_cbs")],
)
def test_an_unknown_level_is_answered_with_the_nearest_names(name, near):
    with pytest.raises(UserError, match=f"Did you mean .*{near}.*\\? Known"):
        KNOWN_LEVELS.get(name)


def test_a_name_like_no_other_gets_no_suggestion():
    with pytest.raises(UserError) as caught:
        KNOWN_LEVELS.get("qqqqqq")
    assert "Did you mean" not in str(caught.value)


def test_a_user_level_is_found_and_takes_its_place_by_rank():
    level = user_level()
    known = KNOWN_LEVELS.including([level])
    assert known.get("GFN2") is known.get("gfn2_xtb") is level
    assert list(known) == [level, *KNOWN_LEVELS]
    assert list(parse_labels({"CC": "E", "GFN2": "EF"}, levels=known)) == [level, CC]


def test_levels_are_known_only_where_they_are_handed_down():
    KNOWN_LEVELS.including([user_level()])
    assert KNOWN_LEVELS.find("GFN2") is None
    with pytest.raises(UserError, match="Unknown level of theory 'GFN2'"):
        parse_labels({"GFN2": "E"})
    assert list(parse_labels({user_level(): "E"})) == [user_level()]  # a level needs no look-up


def test_the_same_level_again_changes_nothing_and_collections_of_the_same_are_equal():
    known = KNOWN_LEVELS.including([user_level()])
    again = known.including([user_level(), CC])
    assert again == known == Levels([user_level(), *KNOWN_LEVELS])
    assert hash(again) == hash(known)
    assert known != KNOWN_LEVELS
    assert pickle.loads(pickle.dumps(known)) == known


def test_a_user_level_is_read_from_a_file_with_its_own_self_energies(tmp_path):
    numbers = numbers_of(WATER[0])
    path = write_ani1x(tmp_path / "user.h5", {"H2O": 5})
    positions = conformers(WATER, 5, seed=0)
    replace(path, "H2O", "gfn2_xtb.energy", energy(numbers, positions, "wb97x_dz"))
    replace(path, "H2O", "gfn2_xtb.forces", forces(numbers, positions, "wb97x_dz"))
    level = user_level(self_energies={1: -0.25, 8: -70.0})
    known = KNOWN_LEVELS.including([level])

    assert labels_in_file(path, levels=known)[level] is Properties.EF
    assert level not in labels_in_file(path)
    structures, _ = read_ani1x(path, parse_labels({"GFN2": "EF"}, levels=known))
    truth = energy(numbers, positions, "wb97x_dz")
    np.testing.assert_allclose(structures.energies["gfn2_xtb"], truth, rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        structures.forces["gfn2_xtb"], forces(numbers, positions, "wb97x_dz"), rtol=1e-6, atol=1e-7
    )
    np.testing.assert_allclose(
        reference_energies(structures, level),
        (truth + 70.0 + 2 * 0.25) * KCAL_PER_MOL_PER_HARTREE,
        rtol=1e-12,
    )


@pytest.mark.parametrize(
    ("name", "label", "taken"),
    [
        ("wb97x_dz", "new", "wb97x_dz"),
        ("new", "DZ", "DZ"),
        ("CC", "new", "CC"),
        ("new", "mp2_tz", "mp2_tz"),
    ],
    ids=["id as id", "label as label", "label as id", "id as label"],
)
def test_a_name_already_taken_is_refused(name, label, taken):
    with pytest.raises(UserError, match=f"known as {taken}: |levels of theory are named '{taken}'"):
        KNOWN_LEVELS.including([user_level(name, label)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 6.0}, r"known as gfn2_xtb: rank is 6\.0, not -5\.0\. What is another level"),
        ({"force_key": None}, r"force_key is None, not 'gfn2_xtb\.forces'"),
        ({"self_energies": {1: -0.5}}, r"known as gfn2_xtb: self_energies is \{1: -0\.5\}, not \{"),
    ],
    ids=["rank", "forces", "self energies"],
)
def test_another_level_of_a_known_name_is_refused_with_what_differs(changes, message):
    with pytest.raises(UserError, match=message):
        Levels([user_level(), user_level(**changes)])


@pytest.mark.parametrize("name", ["", "a.b"])
def test_an_id_that_files_and_modules_cannot_hold_is_refused(name):
    with pytest.raises(UserError, match="non-empty names without dots"):
        user_level(name, "new")


@pytest.mark.parametrize(
    "labels",
    [
        {"CC": "E", "DZ": "EF", "MP2": "E", "TZ": "E"},
        {"wb97x_tz": "E", "mp2_tz": "E", "ccsd(t)_cbs": "E", "wb97x_dz": "EF"},
        {MP2: Properties.E, DZ: Properties.EF, CC: Properties.E, TZ: Properties.E},
    ],
    ids=["labels", "ids", "levels"],
)
def test_labels_are_ordered_by_rank_however_they_are_named(labels):
    parsed = parse_labels(labels)
    assert list(parsed) == [DZ, TZ, MP2, CC]
    assert [properties.forces for properties in parsed.values()] == [True, False, False, False]
    assert parse_labels(parsed) == parsed


def test_parsed_labels_cannot_be_changed():
    with pytest.raises(TypeError, match="does not support item assignment"):
        parse_labels({"DZ": "E"})[CC] = Properties.E


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({}, "No labels: name at least one level"),
        ({"DZ": "F"}, r"Unknown property of a level 'F'.* Known: E, EF"),
        ({"DZ": "ef"}, r"Unknown property of a level 'ef'.* Known: E, EF"),
        ({"DZ": ""}, r"Unknown property of a level ''.* Known: E, EF"),
        ({"wb97x_dz": "E", "DZ": "EF"}, r"wb97x_dz \(DZ\) is named twice"),
        ({"DZ": "E", "XZ": "E"}, "Unknown level of theory 'XZ'"),
    ],
    ids=["none", "force only", "lower case", "empty", "twice", "unknown level"],
)
def test_wrong_labels_are_refused(labels, message):
    with pytest.raises(UserError, match=message):
        parse_labels(labels)


def test_labels_written_as_json_say_energy_and_forces():
    assert plain_labels(parse_labels({"CC": "E", "DZ": "EF"})) == {
        "wb97x_dz": ["energy", "forces"],
        "ccsd(t)_cbs": ["energy"],
    }


def test_joined_labels_hold_every_label_of_each():
    low, high = parse_labels({"DZ": "EF", "TZ": "E"}), parse_labels({"CC": "E", "DZ": "E"})
    for joined in (join_labels(low, high), join_labels(high, low)):
        assert dict(joined) == dict(parse_labels({"DZ": "EF", "TZ": "E", "CC": "E"}))
        assert list(joined) == [DZ, TZ, CC]
    assert dict(join_labels(low, {})) == dict(low)
