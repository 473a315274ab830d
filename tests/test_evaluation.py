import itertools

import h5py
import numpy as np
import planted
import pytest

from hippynn_mf.data import convert
from hippynn_mf.data.checks.report import NOTHING, Accepted
from hippynn_mf.data.convert import convert_data
from hippynn_mf.data.embedded import MINI_COMP6_KEYS
from hippynn_mf.data.formats.ani1x import labels_in_file, read_ani1x
from hippynn_mf.data.formats.comp6 import PUBLIC_KEYS, read_key_map
from hippynn_mf.errors import UserError
from hippynn_mf.evaluation.layouts import find_layout
from hippynn_mf.evaluation.schema import SetErrors
from hippynn_mf.evaluation.scoring import cutting_energies, score_set
from hippynn_mf.evaluation.test_sets import heldout_set, read_test_set, refuse_trained_on
from hippynn_mf.labels import parse_labels
from hippynn_mf.levels import CC, DZ, MP2, TZ

KCAL = 627.509474  # kcal/mol per hartree
PARTS = {DZ: ["wb97x_dz"], TZ: ["wb97x_tz"], MP2: ["hf_tz", "mp2_tz"], CC: ["ccsd(t)_cbs"]}
ENERGY = ("energy_rmse_kcal_per_mol", "energy_mae_kcal_per_mol", "n_energies")
FORCE = (
    "force_rmse_kcal_per_mol_per_angstrom",
    "force_mae_kcal_per_mol_per_angstrom",
    "n_force_components",
)
DELTA_E = ("delta_e_rmse_kcal_per_mol", "delta_e_mae_kcal_per_mol", "n_pairs")
NEAR = 0.02  # Å: planted conformers so similar that all are within 100 kcal/mol


def true_energies(structures, level):
    """Energies in kcal/mol by the planted formula, without the self energies."""
    values = []
    for numbers, positions in zip(structures.species, structures.positions, strict=True):
        place = positions[None].astype(float)
        total = sum(planted.energy(numbers, place, part)[0] for part in PARTS[level])
        values.append(KCAL * (total - sum(planted.SELF_ENERGIES[z] for z in numbers)))
    return np.array(values)


def true_forces(structures, level):
    """Forces in kcal/mol/Å by the planted formula, 0 for padding."""
    values = np.zeros((*structures.species.shape, 3))
    for i, (numbers, positions) in enumerate(
        zip(structures.species, structures.positions, strict=True)
    ):
        place = positions[None].astype(float)
        total = sum(planted.forces(numbers, place, part)[0] for part in PARTS[level])
        values[i, : len(numbers)] = KCAL * total[0] if total.ndim == 3 else KCAL * total
    return values


def predictions_with_errors(structures, levels, seed=0):
    """The truth plus known errors, which for padded atoms are huge; and the errors."""
    rng = np.random.default_rng(seed)
    predicted, errors = {}, {}
    for level in levels:
        shape = structures.species.shape
        errors[level.energy_name] = rng.normal(1.0, 2.0, len(structures))
        errors[level.forces_name] = rng.normal(0.5, 3.0, (*shape, 3))
        predicted[level.energy_name] = true_energies(structures, level) + errors[level.energy_name]
        predicted[level.forces_name] = true_forces(structures, level) + np.where(
            structures.atom_mask[..., None], errors[level.forces_name], 1e9
        )
    return predicted, errors


def statistics(errors):
    return [np.sqrt(np.mean(errors**2)), np.mean(np.abs(errors)), errors.size]


def assert_metrics(found, names, expected):
    __tracebackhide__ = True
    np.testing.assert_allclose([found[name] for name in names], expected, rtol=1e-5)


SPECIES = (0, 1, 6, 7, 8)
MISSING = {"H2O": {"wb97x_tz.energy": slice(0, 3), "wb97x_tz.forces": slice(2, 7)}}


def score(predicted, test, heads):
    """Errors of a set, which are whole."""
    errors = score_set(predicted, test.labels, heads)
    for of_head in errors.values():
        for entry in of_head.values():
            SetErrors.model_validate(entry)
    return errors


# Sets without a cut: held-out structures and files.


@pytest.fixture(params=["held out", "a file in the ANI-1x layout", "an extended XYZ file"])
def whole(request, tmp_path):
    """40 structures of 2 to 5 atoms; three lack the TZ energy and five the TZ forces."""
    path = planted.write_ani1x(tmp_path / "whole.h5", 8, missing=MISSING)
    if request.param == "held out":
        labels = parse_labels({"DZ": "EF", "TZ": "EF"})
        structures, _ = read_ani1x(path, labels, references=labels_in_file(path))
        return heldout_set(structures, path)
    if "XYZ" in request.param:
        convert_data(path, tmp_path / "whole.xyz")
        path = tmp_path / "whole.xyz"
    return read_test_set("whole", path, species=SPECIES)


def test_errors_are_those_that_were_planted(whole):
    predicted, errors = predictions_with_errors(whole.structures, [DZ, TZ])
    entry = score(predicted, whole, [DZ, TZ])["wb97x_dz"]["wb97x_dz"]
    assert_metrics(entry, ENERGY, statistics(errors["wb97x_dz.energy"]))
    atoms = whole.structures.atom_mask
    assert 0 < atoms.sum() < atoms.size  # pooled over atoms: padding would dominate everything
    assert_metrics(entry, FORCE, statistics(errors["wb97x_dz.forces"][atoms]))
    assert entry["n_structures"] == 40
    assert "cut_by" not in entry


def waters_of(structures):
    return np.flatnonzero(np.array(structures.group_names)[structures.groups] == "H2O")


def test_references_that_are_missing_do_not_enter_the_errors(whole):
    predicted, errors = predictions_with_errors(whole.structures, [DZ, TZ])
    entry = score(predicted, whole, [DZ, TZ])["wb97x_tz"]["wb97x_tz"]
    waters = waters_of(whole.structures)
    labelled = np.ones(40, bool)
    labelled[waters[0:3]] = False
    assert_metrics(entry, ENERGY, statistics(errors["wb97x_tz.energy"][labelled]))
    with_forces = whole.structures.atom_mask
    with_forces[waters[2:7]] = False
    assert_metrics(entry, FORCE, statistics(errors["wb97x_tz.forces"][with_forces]))


def test_every_head_is_compared_with_every_level_of_the_set(whole):
    structures = whole.structures
    predicted, _ = predictions_with_errors(structures, [DZ, CC])
    errors = score(predicted, whole, [DZ, CC])
    atoms = structures.atom_mask
    for head, reference in itertools.product((DZ, CC), (DZ, TZ, MP2, CC)):
        entry = errors[head.id][reference.id]
        of_energies = predicted[head.energy_name] - true_energies(structures, reference)
        labelled = np.isfinite(structures.energies[reference.id])
        assert_metrics(entry, ENERGY, statistics(of_energies[labelled]))
        if reference is DZ:
            of_forces = predicted[head.forces_name] - true_forces(structures, reference)
            assert_metrics(entry, FORCE, statistics(of_forces[atoms]))
        if reference in (MP2, CC):
            assert [entry[name] for name in FORCE[:2]] == [None, None]
            assert entry["force_reason"] == "the file has no forces of this level"


def test_a_level_that_the_file_lacks_is_no_reference(tmp_path):
    path = planted.write_ani1x(tmp_path / "dz.h5", 4)
    structures, _ = read_ani1x(path, parse_labels({"DZ": "EF"}))
    test = heldout_set(structures, path)
    predicted, _ = predictions_with_errors(structures, [DZ, CC])
    assert {head: set(of) for head, of in score(predicted, test, [DZ, CC]).items()} == {
        "wb97x_dz": {"wb97x_dz"},
        "ccsd(t)_cbs": {"wb97x_dz"},
    }


def test_errors_against_a_level_without_a_label_here_are_null_with_a_reason(whole):
    water = heldout_set(whole.structures[waters_of(whole.structures)[2:3]], whole.path)
    predicted, _ = predictions_with_errors(water.structures, [TZ])
    entry = score(predicted, water, [TZ])["wb97x_tz"]["wb97x_tz"]
    assert entry["n_energies"] == entry["n_force_components"] == 0
    assert entry["energy_rmse_kcal_per_mol"] is None
    assert entry["energy_reason"] == "none of these structures has an energy of this level"
    assert entry["force_rmse_kcal_per_mol_per_angstrom"] is None
    assert entry["force_reason"] == "none of these structures has forces of this level"


# Sets with a cut: COMP6.

COMP6_KEYS = read_key_map(MINI_COMP6_KEYS)


def cut_set(path, keys=COMP6_KEYS, cut=100.0, accepted=NOTHING):
    return read_test_set(
        "comp6", path, species=SPECIES, keys=keys, energy_cut_kcal_per_mol=cut, accepted=accepted
    )


def delta_e_errors(errors, groups, kept):
    """Errors of the energy differences of all pairs of a molecule's kept conformers."""
    return np.array(
        [
            errors[i] - errors[j]
            for i in range(len(errors))
            for j in range(i)
            if groups[i] == groups[j] and kept[i] and kept[j]
        ]
    )


def relative(energies, groups):
    return energies - np.array([energies[groups == group].min() for group in groups])


@pytest.mark.parametrize("heads", [[DZ], [DZ, CC], [CC, TZ]], ids=["DZ", "DZ-CC", "CC-TZ"])
def test_every_head_is_compared_with_every_level_of_comp6(tmp_path, heads):
    test = cut_set(planted.write_comp6(tmp_path / "comp6.h5", spread=NEAR))
    structures = test.structures
    predicted, _ = predictions_with_errors(structures, heads)
    metrics = score(predicted, test, heads)
    assert list(metrics) == [head.id for head in heads]
    kept, atoms = np.ones(len(structures), bool), structures.atom_mask
    for head, reference in itertools.product(heads, (DZ, MP2, CC)):
        entry = metrics[head.id][reference.id]
        errors = predicted[head.energy_name] - true_energies(structures, reference)
        expected = statistics(delta_e_errors(errors, structures.groups, kept))
        assert expected[-1] == 5 * 15  # all pairs of six conformers of five molecules, pooled
        assert_metrics(entry, DELTA_E, expected)
        assert (entry["n_structures"], entry["cut_by"]) == (30, "ccsd(t)_cbs")
        if reference is CC:
            assert entry["force_rmse_kcal_per_mol_per_angstrom"] is None
            assert entry["force_reason"] == "the file has no forces of this level"
        else:
            errors = predicted[head.forces_name] - true_forces(structures, reference)
            assert_metrics(entry, FORCE, statistics(errors[atoms]))


def test_comp6_without_a_cut_is_scored_like_any_file(tmp_path):
    test = cut_set(planted.write_comp6(tmp_path / "comp6.h5"), PUBLIC_KEYS, cut=None)
    predicted, errors = predictions_with_errors(test.structures, [DZ])
    entry = score(predicted, test, [DZ])["wb97x_dz"]["wb97x_dz"]
    assert_metrics(entry, ENERGY, statistics(errors["wb97x_dz.energy"]))
    atoms = test.structures.atom_mask
    assert_metrics(entry, FORCE, statistics(errors["wb97x_dz.forces"][atoms]))


def test_the_cut_by_coupled_cluster_removes_the_one_conformer_above_100_kcal_per_mol(tmp_path):
    path = planted.write_comp6(tmp_path / "comp6.h5", spread=NEAR)
    with h5py.File(path, "r+") as file:
        energies = file["planted/H2O/ccsd(t)_cbs.energy"]
        *_, below, above = np.argsort(energies)
        energies[above] = energies[()].min() + 100.1 / KCAL
        energies[below] = energies[()].min() + 99.9 / KCAL
    test = cut_set(path, accepted=Accepted(outliers=True))
    structures = test.structures
    predicted, errors = predictions_with_errors(structures, [DZ, MP2])
    metrics = score(predicted, test, [DZ, MP2])

    kept = np.ones(len(structures), bool)
    water = structures.group_names.index("planted/H2O")
    kept[np.flatnonzero(structures.groups == water)[above]] = False
    for level in (DZ, MP2):  # the other references lose the same conformer
        entry = metrics[level.id][level.id]
        assert (entry["cut_by"], entry["n_structures"]) == ("ccsd(t)_cbs", 29)
        of_pairs = delta_e_errors(errors[level.energy_name], structures.groups, kept)
        assert_metrics(entry, DELTA_E, statistics(of_pairs))
        of_atoms = errors[level.forces_name][structures.atom_mask & kept[:, None]]
        assert_metrics(entry, FORCE, statistics(of_atoms))


def test_without_coupled_cluster_each_reference_cuts_by_its_own_energies(tmp_path):
    path = planted.write_comp6(tmp_path / "comp6.h5", n=12)
    keys = {name: keys for name, keys in COMP6_KEYS.items() if name != CC.id}
    test = cut_set(path, keys, cut=12.0)
    structures = test.structures
    predicted, errors = predictions_with_errors(structures, [DZ, MP2])
    metrics = score(predicted, test, [DZ, MP2])
    kept = {
        level: relative(true_energies(structures, level), structures.groups) <= 12.0
        for level in (DZ, MP2)
    }
    assert (kept[DZ] != kept[MP2]).any()
    for level, near in kept.items():
        entry = metrics[level.id][level.id]
        assert (entry["cut_by"], entry["n_structures"]) == (level.id, near.sum())
        of_pairs = delta_e_errors(errors[level.energy_name], structures.groups, near)
        assert_metrics(entry, DELTA_E, statistics(of_pairs))
        of_atoms = errors[level.forces_name][structures.atom_mask & near[:, None]]
        assert_metrics(entry, FORCE, statistics(of_atoms))


@pytest.mark.parametrize("cut", [3.0, 30.0, 1e4])
def test_the_cut_is_an_option(tmp_path, cut):
    test = cut_set(planted.write_comp6(tmp_path / "comp6.h5"), cut=cut)
    structures = test.structures
    predicted, _ = predictions_with_errors(structures, [CC])
    near = relative(true_energies(structures, CC), structures.groups) <= cut
    entry = score(predicted, test, [CC])[CC.id]["ccsd(t)_cbs"]
    assert entry["n_structures"] == near.sum()


def test_a_cut_that_leaves_no_pair_gives_null_with_a_reason(tmp_path):
    test = cut_set(planted.write_comp6(tmp_path / "comp6.h5"), cut=0.0)
    structures = test.structures
    predicted, _ = predictions_with_errors(structures, [CC])
    entry = score(predicted, test, [CC])[CC.id]["ccsd(t)_cbs"]
    assert (entry["n_structures"], entry["n_pairs"]) == (5, 0)
    assert entry["delta_e_rmse_kcal_per_mol"] is None
    assert "no two conformers" in entry["delta_e_reason"]


def test_a_key_map_without_a_level_gives_no_metrics_of_it(tmp_path):
    keys = {"ccsd(t)_cbs": {"energy": "ccsd(t)_cbs.energy"}}
    test = cut_set(planted.write_comp6(tmp_path / "comp6.h5"), keys)
    structures = test.structures
    predicted, _ = predictions_with_errors(structures, [DZ, CC])
    assert [set(of) for of in score(predicted, test, [DZ, CC]).values()] == [{"ccsd(t)_cbs"}] * 2


def test_forces_without_energies_are_proved_by_bonds_of_hydrogen(tmp_path, caplog):
    keys = {"mp2_tz": {"gradient": "mp2_tz_grad"}}
    test = cut_set(planted.write_comp6(tmp_path / "comp6.h5"), keys)
    predicted, errors = predictions_with_errors(test.structures, [MP2])
    entry = score(predicted, test, [MP2])[MP2.id]["mp2_tz"]
    assert entry["cut_by"] is None
    atoms = test.structures.atom_mask
    assert_metrics(entry, FORCE, statistics(errors[MP2.forces_name][atoms]))
    assert "forces of level mp2_tz" not in caplog.text  # the bonds of hydrogen prove them
    assert entry["delta_e_rmse_kcal_per_mol"] is None
    assert entry["delta_e_reason"] == "the file has no energies of this level"


def test_forces_of_too_few_conformers_are_used_though_their_sign_is_not_proved(tmp_path, caplog):
    test = cut_set(planted.write_comp6(tmp_path / "comp6.h5", n=2, spread=NEAR))
    predicted, errors = predictions_with_errors(test.structures, [DZ])
    entry = score(predicted, test, [DZ])[DZ.id]["wb97x_dz"]
    atoms = test.structures.atom_mask
    assert_metrics(entry, FORCE, statistics(errors[DZ.forces_name][atoms]))
    reason = "sign and unit of the forces of level wb97x_dz (5 pairs of close conformers, 10 are"
    assert reason in caplog.text


# What is refused in any set, and what no set can be.


def wrong_sign(path):
    with h5py.File(path, "r+") as file:
        for group in file.values():
            if "wb97x_dz.forces" in group:
                group["wb97x_dz.forces"][...] *= -1
    return {"keys": {"wb97x_dz": {"energy": "energies", "forces": "forces"}}}


def unknown_element(path):
    return {"species": (0, 1, 6, 7)}


REFUSED = {
    "wrong sign": (wrong_sign, r"the forces of level wb97x_dz have the wrong sign"),
    "unknown element": (unknown_element, r"Atomic numbers \[8\] are outside"),
}


@pytest.mark.parametrize("layout", ["ani1x", "comp6", "frames"])
@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=list(REFUSED))
def test_what_is_wrong_with_a_set_is_refused_with_its_file(
    tmp_path, layout, change, message, monkeypatch
):
    monkeypatch.setattr(convert, "_check", lambda *_: [])  # which would refuse to write it
    if layout == "comp6":
        path = planted.write_comp6(tmp_path / "wrong.h5")
        options = {"keys": PUBLIC_KEYS} | change(path)
    else:
        path = planted.write_ani1x(tmp_path / "wrong.h5", 8)
        options = change(path)
        options.pop("keys", None)
    if layout == "frames":
        convert_data(path, tmp_path / "wrong.xyz")
        path = tmp_path / "wrong.xyz"
    assert find_layout(path) == layout
    match = rf"wrong\.\w+: .*{message}" if "sign" in message else rf"wrong\.\w+: {message}"
    with pytest.raises(UserError, match=match):
        read_test_set("wrong", path, **{"species": SPECIES} | options)


def test_conformers_that_were_trained_on_are_refused_in_any_layout(tmp_path):
    path = planted.write_ani1x(tmp_path / "data.h5", 12)
    parts = {"train": read_ani1x(path, labels_in_file(path))[0]}
    planted.write_comp6(tmp_path / "comp6.h5")
    with h5py.File(path) as data, h5py.File(tmp_path / "comp6.h5", "r+") as comp6:
        for molecule in ("CH4", "N2"):
            comp6[f"planted/{molecule}/coordinates"][1:3] = data[molecule]["coordinates"][4:6]
    keys = {"wb97x_dz": {"energy": "energies"}}
    match = r"comp6\.h5: 4 of its 30 conformers are also in .*data\.h5.*planted/CH4, planted/N2"
    with pytest.raises(UserError, match=match):
        refuse_trained_on(cut_set(tmp_path / "comp6.h5", keys), parts, path)
    other = cut_set(planted.write_comp6(tmp_path / "other.h5"), keys)
    refuse_trained_on(other, parts, path)


def write_flat(path):
    with h5py.File(path, "w") as file:
        file["energies"] = np.zeros(3)
        file.create_group("empty")
    return path


NO_LAYOUT = {
    "neither layout": (write_flat, r"flat has no layout that can be read.*found empty, energies"),
    "no HDF5": (lambda path: path.write_text("a") and path, "flat is not an HDF5 file"),
    "no file": (lambda path: path, "No file .*flat"),
    "an empty folder": (lambda path: path.mkdir() or path, r"flat holds no \.h5 files"),
}


@pytest.mark.parametrize(("write", "message"), NO_LAYOUT.values(), ids=list(NO_LAYOUT))
def test_what_has_no_layout_is_one_clear_error(tmp_path, write, message):
    with pytest.raises(UserError, match=message):
        find_layout(write(tmp_path / "flat"))


def test_a_folder_of_comp6_files_is_found(tmp_path):
    planted.write_comp6(tmp_path / "a.h5", 2)
    assert find_layout(tmp_path) == "comp6"


def test_molecules_without_coupled_cluster_energies_are_cut_by_the_reference():
    groups = np.array([0, 0, 1, 1])
    cc = np.array([5.0, np.nan, np.nan, np.nan])
    reference = np.array([1.0, 2.0, 3.0, 4.0])
    found = cutting_energies([cc, reference], groups)
    np.testing.assert_array_equal(found, [5.0, np.nan, 3.0, 4.0])
    np.testing.assert_array_equal(cutting_energies([reference], groups), reference)
