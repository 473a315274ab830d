import itertools

import h5py
import numpy as np
import planted
import pytest

from hippynn_mf.data.embedded import MINI_COMP6_KEYS
from hippynn_mf.data.formats.ani1x import labels_in_file, read_ani1x
from hippynn_mf.data.formats.comp6 import read_comp6, read_key_map
from hippynn_mf.errors import UserError
from hippynn_mf.evaluation.scoring import comp6_metrics, cutting_energies, heldout_metrics
from hippynn_mf.evaluation.test_sets import comp6_set, heldout_set, load_comp6
from hippynn_mf.hyperparameters import Hyperparameters
from hippynn_mf.labels import parse_labels
from hippynn_mf.levels import CC, DZ, MP2, TZ
from hippynn_mf.model.model import build_model
from hippynn_mf.runs.settings import Comp6Source

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
    for species, positions in zip(structures.species, structures.positions, strict=True):
        numbers, place = species[species > 0], positions[species > 0][None].astype(float)
        total = sum(planted.energy(numbers, place, part)[0] for part in PARTS[level])
        values.append(KCAL * (total - sum(planted.SELF_ENERGIES[z] for z in numbers)))
    return np.array(values)


def true_forces(structures, level):
    """Forces in kcal/mol/Å by the planted formula, 0 for padding."""
    values = np.zeros((*structures.species.shape, 3))
    for i, (species, positions) in enumerate(
        zip(structures.species, structures.positions, strict=True)
    ):
        numbers, place = species[species > 0], positions[species > 0][None].astype(float)
        total = sum(planted.forces(numbers, place, part)[0] for part in PARTS[level])
        values[i, species > 0] = KCAL * total
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


@pytest.fixture
def heldout(tmp_path):
    """40 structures of 2 to 5 atoms; three lack the TZ energy and five the TZ forces."""
    missing = {"H2O": {"wb97x_tz.energy": slice(0, 3), "wb97x_tz.forces": slice(2, 7)}}
    path = planted.write_ani1x(tmp_path / "heldout.h5", 8, missing=missing)
    structures, _ = read_ani1x(
        path, parse_labels({"DZ": "EF", "TZ": "EF"}), references=labels_in_file(path)
    )
    return structures


def test_heldout_errors_are_those_that_were_planted(heldout):
    predicted, errors = predictions_with_errors(heldout, [DZ, TZ])
    metrics = heldout_metrics(predicted, heldout_set(heldout), [DZ, TZ])["heldout"]
    assert_metrics(metrics["wb97x_dz"], ENERGY, statistics(errors["wb97x_dz.energy"]))
    atoms = heldout.species > 0
    assert 0 < atoms.sum() < atoms.size  # pooled over atoms: padding would dominate everything
    assert_metrics(metrics["wb97x_dz"], FORCE, statistics(errors["wb97x_dz.forces"][atoms]))


def test_references_that_are_missing_do_not_enter_the_errors(heldout):
    predicted, errors = predictions_with_errors(heldout, [DZ, TZ])
    metrics = heldout_metrics(predicted, heldout_set(heldout), [DZ, TZ])["heldout"]["wb97x_tz"]
    waters = np.flatnonzero(
        [name == "H2O" for name in np.array(heldout.group_names)[heldout.groups]]
    )
    labelled = np.ones(len(heldout), bool)
    labelled[waters[0:3]] = False
    assert_metrics(metrics, ENERGY, statistics(errors["wb97x_tz.energy"][labelled]))
    with_forces = heldout.species > 0
    with_forces[waters[2:7]] = False
    assert_metrics(metrics, FORCE, statistics(errors["wb97x_tz.forces"][with_forces]))


def test_cross_errors_compare_every_head_with_every_reference_of_the_file(heldout):
    predicted, _ = predictions_with_errors(heldout, [DZ, CC])
    cross = heldout_metrics(predicted, heldout_set(heldout), [DZ, CC])["cross"]
    atoms = heldout.species > 0
    for head, reference in itertools.product((DZ, CC), (DZ, TZ, MP2, CC)):
        entry = cross[head.id][reference.id]
        errors = predicted[head.energy_name] - true_energies(heldout, reference)
        labelled = np.isfinite(heldout.energies[reference.id])
        assert_metrics(entry, ENERGY, statistics(errors[labelled]))
        if reference is DZ:
            errors = predicted[head.forces_name] - true_forces(heldout, reference)
            assert_metrics(entry, FORCE, statistics(errors[atoms]))


@pytest.mark.parametrize("reference", ["mp2_tz", "ccsd(t)_cbs"])
def test_force_errors_are_null_with_a_reason_where_the_file_has_no_forces(heldout, reference):
    predicted, _ = predictions_with_errors(heldout, [DZ])
    entry = heldout_metrics(predicted, heldout_set(heldout), [DZ])["cross"]["wb97x_dz"][reference]
    assert [entry[name] for name in FORCE[:2]] == [None, None]
    assert entry["force_reason"] == "the file has no forces of this level"
    assert entry["energy_rmse_kcal_per_mol"] > 0


def test_errors_of_a_level_that_the_file_lacks_are_null_with_a_reason(tmp_path):
    path = planted.write_ani1x(tmp_path / "dz.h5", 4)
    structures, _ = read_ani1x(path, parse_labels({"DZ": "EF"}))
    predicted, _ = predictions_with_errors(structures, [DZ, CC])
    metrics = heldout_metrics(predicted, heldout_set(structures), [DZ, CC])
    assert set(metrics["cross"]["ccsd(t)_cbs"]) == {"wb97x_dz"}
    assert metrics["heldout"]["ccsd(t)_cbs"] == {
        "energy_rmse_kcal_per_mol": None,
        "energy_mae_kcal_per_mol": None,
        "energy_reason": "the file has no energies of this level",
        "force_rmse_kcal_per_mol_per_angstrom": None,
        "force_mae_kcal_per_mol_per_angstrom": None,
        "force_reason": "the file has no forces of this level",
    }


def test_errors_against_a_level_without_a_label_here_are_null_with_a_reason(heldout):
    waters = heldout[np.array(heldout.group_names)[heldout.groups] == "H2O"][2:3]
    predicted, _ = predictions_with_errors(waters, [TZ])
    entry = heldout_metrics(predicted, heldout_set(waters), [TZ])["heldout"]["wb97x_tz"]
    assert entry["n_energies"] == entry["n_force_components"] == 0
    assert entry["energy_rmse_kcal_per_mol"] is None
    assert entry["energy_reason"] == "none of these structures has an energy of this level"
    assert entry["force_rmse_kcal_per_mol_per_angstrom"] is None
    assert entry["force_reason"] == "none of these structures has forces of this level"


def comp6_source(path, keys=None, cut=100.0):
    keys = read_key_map(MINI_COMP6_KEYS) if keys is None else keys
    return Comp6Source(path=path, sha256="", keys=keys, energy_cut_kcal_per_mol=cut)


def comp6_of(source):
    return read_comp6(source.path, source.keys)


def comp6_errors(predicted, structures, levels, source):
    references = comp6_set(structures, source)
    return comp6_metrics(predicted, references, levels, source.energy_cut_kcal_per_mol)


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


@pytest.mark.parametrize(
    ("levels", "heads"),
    [
        ([DZ], {"wb97x_dz": DZ, "mp2_tz": DZ, "ccsd(t)_cbs": DZ}),
        ([DZ, CC], {"wb97x_dz": DZ, "mp2_tz": CC, "ccsd(t)_cbs": CC}),
        ([DZ, MP2], {"wb97x_dz": DZ, "mp2_tz": MP2, "ccsd(t)_cbs": MP2}),
        ([CC, TZ], {"wb97x_dz": CC, "mp2_tz": CC, "ccsd(t)_cbs": CC}),
    ],
    ids=["DZ", "DZ-CC", "DZ-MP2", "CC-TZ"],
)
def test_comp6_is_predicted_by_the_references_own_head_or_the_highest(tmp_path, levels, heads):
    path = planted.write_comp6(tmp_path / "comp6.h5", spread=NEAR)
    source = comp6_source(path)
    structures = comp6_of(source)
    predicted, _ = predictions_with_errors(structures, levels)
    metrics = comp6_errors(predicted, structures, levels, source)
    assert {name: entry["predicted_by"] for name, entry in metrics.items()} == {
        name: head.id for name, head in heads.items()
    }
    kept, atoms = np.ones(len(structures), bool), structures.species > 0
    for reference in (DZ, MP2, CC):
        entry, head = metrics[reference.id], heads[reference.id]
        errors = predicted[head.energy_name] - true_energies(structures, reference)
        expected = statistics(delta_e_errors(errors, structures.groups, kept))
        assert expected[-1] == 5 * 15  # all pairs of six conformers of five molecules, pooled
        assert_metrics(entry, DELTA_E, expected)
        assert entry["n_conformers"] == 30
        if reference is not CC:
            errors = predicted[head.forces_name] - true_forces(structures, reference)
            assert_metrics(entry, FORCE, statistics(errors[atoms]))
    assert metrics["ccsd(t)_cbs"]["force_rmse_kcal_per_mol_per_angstrom"] is None
    assert metrics["ccsd(t)_cbs"]["force_reason"] == "the file has no forces of this level"


def test_the_cut_by_coupled_cluster_removes_the_one_conformer_above_100_kcal_per_mol(tmp_path):
    path = planted.write_comp6(tmp_path / "comp6.h5", spread=NEAR)
    with h5py.File(path, "r+") as file:
        energies = file["planted/H2O/ccsd(t)_cbs.energy"]
        *_, below, above = np.argsort(energies)
        energies[above] = energies[()].min() + 100.1 / KCAL
        energies[below] = energies[()].min() + 99.9 / KCAL
    source = comp6_source(path)
    structures = comp6_of(source)
    predicted, errors = predictions_with_errors(structures, [DZ, MP2])
    metrics = comp6_errors(predicted, structures, [DZ, MP2], source)

    kept = np.ones(len(structures), bool)
    water = structures.group_names.index("planted/H2O")
    kept[np.flatnonzero(structures.groups == water)[above]] = False
    for level in (DZ, MP2):  # the other references lose the same conformer
        entry = metrics[level.id]
        assert (entry["cut_by"], entry["n_conformers"]) == ("ccsd(t)_cbs", 29)
        of_pairs = delta_e_errors(errors[level.energy_name], structures.groups, kept)
        assert_metrics(entry, DELTA_E, statistics(of_pairs))
        of_atoms = errors[level.forces_name][(structures.species > 0) & kept[:, None]]
        assert_metrics(entry, FORCE, statistics(of_atoms))


def test_without_coupled_cluster_each_reference_cuts_by_its_own_energies(tmp_path):
    path = planted.write_comp6(tmp_path / "comp6.h5", n=12)
    keys = {name: keys for name, keys in read_key_map(MINI_COMP6_KEYS).items() if name != CC.id}
    source = comp6_source(path, keys, cut=12.0)
    structures = comp6_of(source)
    predicted, errors = predictions_with_errors(structures, [DZ, MP2])
    metrics = comp6_errors(predicted, structures, [DZ, MP2], source)
    kept = {
        level: relative(true_energies(structures, level), structures.groups) <= 12.0
        for level in (DZ, MP2)
    }
    assert (kept[DZ] != kept[MP2]).any()
    for level, near in kept.items():
        entry = metrics[level.id]
        assert (entry["cut_by"], entry["n_conformers"]) == (level.id, near.sum())
        of_pairs = delta_e_errors(errors[level.energy_name], structures.groups, near)
        assert_metrics(entry, DELTA_E, statistics(of_pairs))
        of_atoms = errors[level.forces_name][(structures.species > 0) & near[:, None]]
        assert_metrics(entry, FORCE, statistics(of_atoms))


@pytest.mark.parametrize("cut", [3.0, 30.0, 1e4])
def test_the_cut_is_an_option(tmp_path, cut):
    source = comp6_source(planted.write_comp6(tmp_path / "comp6.h5"), cut=cut)
    structures = comp6_of(source)
    predicted, _ = predictions_with_errors(structures, [CC])
    near = relative(true_energies(structures, CC), structures.groups) <= cut
    entry = comp6_errors(predicted, structures, [CC], source)["ccsd(t)_cbs"]
    assert entry["n_conformers"] == near.sum()


def test_a_cut_that_leaves_no_pair_gives_null_with_a_reason(tmp_path):
    source = comp6_source(planted.write_comp6(tmp_path / "comp6.h5"), cut=0.0)
    structures = comp6_of(source)
    predicted, _ = predictions_with_errors(structures, [CC])
    entry = comp6_errors(predicted, structures, [CC], source)["ccsd(t)_cbs"]
    assert (entry["n_conformers"], entry["n_pairs"]) == (5, 0)
    assert entry["delta_e_rmse_kcal_per_mol"] is None
    assert "no two conformers" in entry["delta_e_reason"]


def test_a_key_map_without_a_level_gives_no_metrics_of_it(tmp_path):
    keys = {"ccsd(t)_cbs": {"energy": "ccsd(t)_cbs.energy"}}
    source = comp6_source(planted.write_comp6(tmp_path / "comp6.h5"), keys)
    structures = comp6_of(source)
    predicted, _ = predictions_with_errors(structures, [DZ, CC])
    assert set(comp6_errors(predicted, structures, [DZ, CC], source)) == {"ccsd(t)_cbs"}


def test_forces_without_energies_give_null_because_their_sign_cannot_be_proved(tmp_path):
    keys = {"mp2_tz": {"gradient": "mp2_tz_grad"}}
    source = comp6_source(planted.write_comp6(tmp_path / "comp6.h5"), keys)
    structures = comp6_of(source)
    predicted, _ = predictions_with_errors(structures, [DZ])
    entry = comp6_errors(predicted, structures, [DZ], source)["mp2_tz"]
    assert entry["cut_by"] is None
    assert entry["force_rmse_kcal_per_mol_per_angstrom"] is None
    assert "cannot be proved without energies" in entry["force_reason"]
    assert entry["delta_e_rmse_kcal_per_mol"] is None
    assert entry["delta_e_reason"] == "the file has no energies of this level"


def test_forces_of_too_few_conformers_give_null_because_their_sign_is_not_proved(tmp_path):
    source = comp6_source(planted.write_comp6(tmp_path / "comp6.h5", n=2))
    structures = comp6_of(source)
    predicted, _ = predictions_with_errors(structures, [DZ])
    entry = comp6_errors(predicted, structures, [DZ], source)["wb97x_dz"]
    assert entry["force_rmse_kcal_per_mol_per_angstrom"] is None
    assert "not proved by the energies (5 pairs" in entry["force_reason"]


def test_a_gradient_that_the_key_map_calls_forces_is_refused(tmp_path):
    path = planted.write_comp6(tmp_path / "comp6.h5")
    source = comp6_source(path, {"wb97x_dz": {"energy": "energies", "forces": "forces"}})
    structures = comp6_of(source)
    predicted, _ = predictions_with_errors(structures, [DZ])
    message = r"comp6\.h5: the forces of level wb97x_dz.*wrong sign"
    with pytest.raises(UserError, match=message):
        load_comp6(source, small_model().species_set)
    with pytest.raises(UserError, match=message):
        comp6_errors(predicted, structures, [DZ], source)


def small_model(**changes):
    values = {"n_features": 4, "n_sensitivities": 4, "n_atom_layers": 1} | changes
    return build_model(Hyperparameters(**values), parse_labels({"DZ": "E"}))


def test_comp6_elements_that_the_model_does_not_know_are_refused_with_the_file(tmp_path):
    source = comp6_source(planted.write_comp6(tmp_path / "comp6.h5"))
    with pytest.raises(UserError, match=r"comp6\.h5: Atomic numbers \[8\] are outside"):
        load_comp6(source, small_model(species=(0, 1, 6, 7)).species_set)


def test_comp6_structures_that_can_be_evaluated_are_loaded(tmp_path):
    source = comp6_source(planted.write_comp6(tmp_path / "comp6.h5"))
    assert len(load_comp6(source, small_model().species_set)) == 30


def test_molecules_without_coupled_cluster_energies_are_cut_by_the_reference():
    groups = np.array([0, 0, 1, 1])
    cc = np.array([5.0, np.nan, np.nan, np.nan])
    reference = np.array([1.0, 2.0, 3.0, 4.0])
    found = cutting_energies([cc, reference], groups)
    np.testing.assert_array_equal(found, [5.0, np.nan, 3.0, 4.0])
    np.testing.assert_array_equal(cutting_energies([reference], groups), reference)
