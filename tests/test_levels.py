import numpy as np
import pytest
from planted import WATER, conformers, energy, forces, numbers_of, replace, write_ani1x

from hippynn_mf import levels
from hippynn_mf.data.database import reference_energies
from hippynn_mf.data.formats.ani1x import labels_in_file, read_ani1x
from hippynn_mf.errors import UserError
from hippynn_mf.labels import Properties, join_labels, parse_labels, plain_labels
from hippynn_mf.levels import CC, DZ, MP2, TZ, Level, get_level, register_level
from hippynn_mf.units import KCAL_PER_MOL_PER_HARTREE


def user_level(name="gfn2_xtb", label="GFN2", rank=5.0, **changes):
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
    assert get_level(name) is level
    assert get_level(label) is level
    assert get_level(level) is level
    assert (level.energy_name, level.forces_name) == (f"{name}.energy", f"{name}.forces")


def test_the_paper_levels_are_ordered_by_accuracy():
    assert levels.PAPER_LEVELS == (DZ, TZ, MP2, CC)
    assert [level for level in levels.known_levels() if level in levels.PAPER_LEVELS] == [
        DZ,
        TZ,
        MP2,
        CC,
    ]
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
        get_level(name)
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
        get_level(name)


def test_a_name_like_no_other_gets_no_suggestion():
    with pytest.raises(UserError) as caught:
        get_level("qqqqqq")
    assert "Did you mean" not in str(caught.value)


def test_a_user_level_is_found_and_takes_its_place_by_rank(registry):
    level = register_level(user_level())
    assert get_level("GFN2") is get_level("gfn2_xtb") is level
    assert levels.known_levels()[0] is level
    assert list(parse_labels({"CC": "E", "GFN2": "EF"})) == [level, CC]


def test_a_user_level_is_read_from_a_file_with_its_own_self_energies(registry, tmp_path):
    numbers = numbers_of(WATER[0])
    path = write_ani1x(tmp_path / "user.h5", {"H2O": 5})
    positions = conformers(WATER, 5, seed=0)
    replace(path, "H2O", "gfn2_xtb.energy", energy(numbers, positions, "wb97x_dz"))
    replace(path, "H2O", "gfn2_xtb.forces", forces(numbers, positions, "wb97x_dz"))
    level = register_level(user_level(self_energies={1: -0.25, 8: -70.0}))

    assert labels_in_file(path)[level] is Properties.EF
    structures, _ = read_ani1x(path, parse_labels({"GFN2": "EF"}))
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
def test_a_name_already_taken_is_refused(registry, name, label, taken):
    before = dict(registry)
    with pytest.raises(UserError, match=f"named '{taken}' exists already"):
        register_level(user_level(name, label))
    assert registry == before


@pytest.mark.parametrize("name", ["", "a.b"])
def test_an_id_that_files_and_modules_cannot_hold_is_refused(registry, name):
    with pytest.raises(UserError, match="non-empty names without dots"):
        register_level(user_level(name, "new"))


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
