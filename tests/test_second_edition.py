"""The embedded data's second edition: its lists, its plan, and the job that computes it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("pyscf", reason="needs the extra qm")
pytest.importorskip("tblite", reason="needs the extra qm")
pytest.importorskip("rdkit", reason="needs the extra qm")

from ase.data import vdw_radii
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator
from scipy.spatial.distance import cdist, pdist

RECORDS = Path(__file__).parent.parent / "scripts" / "second_edition"


def canonical(smiles):
    """Canonical SMILES without stereochemistry."""
    return Chem.MolToSmiles(Chem.MolFromSmiles(smiles), isomericSmiles=False)


@pytest.fixture
def molecules(generator_scripts):
    import qm_molecules

    return qm_molecules


@pytest.fixture
def conformers(generator_scripts):
    import qm_conformers

    return qm_conformers


@pytest.fixture
def edition(generator_scripts):
    import qm_second_edition

    return qm_second_edition


@pytest.fixture
def records(generator_scripts):
    import qm_records

    return qm_records


def cc_force_smiles(molecules):
    return {name: molecules.FIRST_COMP6[name] for name in molecules.CC_FORCE_MOLECULES}


def promised(edition):
    """What is planned without that which waits for spare time."""
    stages = edition.plan_stages()
    stages.pop("more training")
    return [sample for samples in stages.values() for sample in samples]


def test_plan_holds_the_promised_counts(edition, molecules):
    samples = promised(edition)
    counts = Counter((sample.kind, sample.molecule) for sample in samples)
    assert sum(counts["full", name] >= 12 for name in molecules.TRAINING) >= 40
    assert sum(counts["low", name] >= 25 for name in molecules.TRAINING) >= 60
    assert {counts["delta_e", name] for name in molecules.TEST} == {4}
    assert len(molecules.TEST) == 20
    kinds = Counter(sample.kind for sample in samples)
    assert kinds["cc_forces"] == 12
    assert kinds["comp6"] + kinds["cc_forces"] >= 40  # both with MP2 gradients
    dimers = {sample.molecule for sample in samples} & set(molecules.DIMERS)
    assert len(dimers) >= 8


def test_plan_holds_every_conformer_once_and_none_of_the_first_edition(edition):
    import generate_mini_dataset

    samples = edition.plan_samples()
    names = {sample.name for sample in samples}
    assert len(names) == len(samples)
    assert len({sample.seed for sample in samples}) == len(samples)
    assert not names & {sample.name for sample in generate_mini_dataset.plan_samples()}


def test_stages_follow_one_another_in_the_order_of_the_plan(edition):
    kinds = [sample.kind for sample in promised(edition)]
    assert list(dict.fromkeys(kinds)) == ["full", "low", "delta_e", "comp6", "cc_forces"]
    last_of_training = max(i for i, kind in enumerate(kinds) if kind in ("full", "low"))
    assert last_of_training < kinds.index("delta_e")


def test_a_prefix_as_long_as_the_list_of_molecules_holds_every_group(edition, molecules):
    samples = edition.plan_samples()[: len(molecules.FULLY_LABELLED)]
    assert {sample.kind for sample in samples} == {"full"}
    groups = set()
    for sample in samples:
        groups |= molecules.groups_of(molecules.SMILES[sample.molecule])
    assert groups == set(molecules.FUNCTIONAL_GROUPS)


def test_labels_grow_evenly_over_the_molecules(edition, molecules):
    samples = edition.plan_stages()["training"]
    for end in range(0, len(samples), 97):
        counts = Counter((sample.kind, sample.molecule) for sample in samples[:end])
        full = [counts["full", name] for name in molecules.FULLY_LABELLED]
        low = [counts["low", name] for name in molecules.TRAINING]
        assert max(full) - min(full) <= 1
        assert max(low) - min(low) <= 1
        assert max(low) <= 25 / 12 * max(full) + 1


def test_molecules_have_the_stated_numbers_of_heavy_atoms(molecules):
    def sizes(table):
        return {molecules.n_heavy(smiles) for smiles in table.values()}

    assert sizes(molecules.THREE_HEAVY) == {3}
    assert sizes(molecules.FOUR_HEAVY) == {4}
    assert sizes(molecules.LOW_LEVEL_ONLY) == {3, 4}
    assert sizes(molecules.TEST_FOUR_HEAVY) == {4}
    assert sizes(molecules.TEST_FIVE_HEAVY) == {5}
    assert sizes(cc_force_smiles(molecules)) == {3}


def test_groups_of_the_test_molecules_occur_in_training(molecules):
    trained = {
        group
        for smiles in molecules.FULLY_LABELLED.values()
        for group in molecules.groups_of(smiles)
    }
    assert trained == set(molecules.FUNCTIONAL_GROUPS)
    tested = {
        name: molecules.groups_of(smiles)
        for name, smiles in (molecules.TEST | cc_force_smiles(molecules)).items()
    }
    assert all(groups and groups <= trained for groups in tested.values())
    # Carbon dioxide and nitrous oxide are groups of one molecule each.
    assert set().union(*tested.values()) == trained - {"carbon dioxide", "nitrous oxide"}


def test_no_test_molecule_is_a_training_molecule_or_nearly_one(molecules):
    training = [*molecules.TRAINING.values(), *molecules.FIRST_TRAINING.values()]
    tests = [*molecules.TEST.values(), *cc_force_smiles(molecules).values()]
    assert not set(map(canonical, training)) & set(map(canonical, tests))
    assert len(set(map(canonical, tests))) == len(tests)
    distinct = [*molecules.TRAINING.values()]
    assert len(set(map(canonical, distinct))) == len(distinct)

    # Nor has any the same atoms in the same surroundings, whatever bond orders and charges say.
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, useBondTypes=False)

    def fingerprint(smiles):
        return generator.GetSparseCountFingerprint(Chem.AddHs(Chem.MolFromSmiles(smiles)))

    known = [fingerprint(smiles) for smiles in training]
    for smiles in tests:
        assert max(DataStructs.BulkTanimotoSimilarity(fingerprint(smiles), known)) < 1, smiles


def test_of_the_first_comp6_file_only_carbon_dioxide_is_in_training(molecules):
    import generate_mini_dataset as first

    assert set(molecules.FIRST_TRAINING) == set(first.TRAINING_MOLECULES)
    assert set(molecules.FIRST_COMP6) == set(first.COMP6_MOLECULES)
    training = set(map(canonical, molecules.TRAINING.values()))
    shared = [
        name for name, smiles in molecules.FIRST_COMP6.items() if canonical(smiles) in training
    ]
    assert shared == ["CO2"]


def test_smiles_of_the_first_edition_agree_with_its_structures(molecules):
    from qm_costs import symbols_of
    from qm_starts import starting_structure

    for name in molecules.FIRST_TRAINING | molecules.FIRST_COMP6:
        assert Counter(symbols_of(name)) == Counter(starting_structure(name).symbols)


@pytest.mark.parametrize(
    ("molecule", "n_rotors"),
    [("ethanol", 2), ("propargyl-alcohol", 1), ("cyclopropane", 0), ("cyanamide", 0)],
)
def test_rotors_are_the_single_bonds_that_turn_something(conformers, molecules, molecule, n_rotors):
    atoms, rotors = conformers.embed(molecules.SMILES[molecule])
    assert len(rotors) == n_rotors
    assert list(atoms.symbols) == sorted(atoms.symbols)
    for rotor in rotors:
        assert not {rotor.start, rotor.end} & set(rotor.moving)


def test_a_turn_changes_the_torsion_and_no_bond_or_angle(conformers):
    from ase import Atoms

    from hippynn_mf.labelling.torsions import Rotor, turn

    peroxide = Atoms("OOHH", [(0, 0, 0), (1.4, 0, 0), (-0.2, 0.9, 0.1), (1.7, -0.5, 0.8)])
    turned = peroxide.copy()
    turned.positions = turn(peroxide.positions, Rotor(0, 1, (3,)), np.radians(50.0))
    chain = (2, 0, 1, 3)
    assert (turned.get_dihedral(*chain) - peroxide.get_dihedral(*chain)) % 360 == pytest.approx(50)
    np.testing.assert_array_equal(turned.positions[:3], peroxide.positions[:3])
    before, after = (pdist(atoms.positions[[0, 1, 3]]) for atoms in (peroxide, turned))
    np.testing.assert_allclose(after, before)


def test_geometries_depend_on_the_name_alone(conformers, edition):
    from qm_samples import Sample

    for name in ("formaldoxime", "nitrogen+water"):
        samples = [Sample("full", name, index) for index in range(3)]
        drawn = [conformers.source(name).draw(sample.seed) for sample in samples]
        conformers.source.cache_clear()
        again = [conformers.source(name).draw(sample.seed) for sample in reversed(samples)]
        np.testing.assert_array_equal(drawn, again[::-1])
        assert len({positions.tobytes() for positions in drawn}) == 3
        np.testing.assert_array_equal(drawn, np.float32(drawn))


def test_torsions_are_sampled_within_the_energy_cap(conformers):
    from ase import Atoms

    from hippynn_mf.labelling.harmonic import HIGHEST_ENERGY, xtb_energy

    oxime = conformers.source("formaldoxime")
    lowest = xtb_energy(oxime.numbers, oxime.minimum.positions)
    (rotor,) = oxime.rotors
    nitrogen, oxygen = (oxime.numbers.tolist().index(number) for number in (7, 8))
    assert {rotor.start, rotor.end} == {nitrogen, oxygen}
    carbon = oxime.numbers.tolist().index(6)
    (hydrogen,) = np.flatnonzero(
        (oxime.numbers == 1)
        & (cdist(oxime.minimum.positions, oxime.minimum.positions)[oxygen] < 1.1)
    )
    chain = (carbon, nitrogen, oxygen, hydrogen)
    drawn = [oxime.draw((7, index)) for index in range(24)]
    assert all(xtb_energy(oxime.numbers, p) - lowest <= HIGHEST_ENERGY for p in drawn)
    angles = [Atoms(oxime.numbers, p).get_dihedral(*chain) for p in drawn]
    turned = [angle for angle in angles if 40 < angle < 140 or 220 < angle < 320]
    assert len(turned) >= 4


def test_molecules_of_a_dimer_touch_at_distances_that_were_drawn(conformers):
    dimer = conformers.source("carbon-dioxide+water")
    first, second = dimer.first, dimer.second
    rng = np.random.default_rng(0)
    radii = np.add.outer(vdw_radii[first.numbers], vdw_radii[second.numbers])
    n = len(first.numbers)
    contacts = []
    for _ in range(200):
        placed = dimer._place(first.positions, second.positions, rng)
        contacts.append((cdist(placed[:n], placed[n:]) / radii).min())
        np.testing.assert_allclose(pdist(placed[:n]), pdist(first.positions))
        np.testing.assert_allclose(pdist(placed[n:]), pdist(second.positions))
    low, high = conformers.CONTACTS
    assert low <= min(contacts) < low + 0.05
    assert high - 0.05 < max(contacts) <= high + 1e-9


def test_a_line_holds_every_digit(records):
    rng = np.random.default_rng(3)
    arrays = {
        "atomic_numbers": np.array([8, 1]),
        "coordinates": rng.normal(size=(2, 3)).astype("f4").astype("f8"),
        "wb97x_dz.energy": np.array(-76.0 + rng.normal()),
        "wb97x_dz.forces": rng.normal(size=(2, 3)) * 1e-7,
    }
    record = json.loads(records.to_line("full/x/00000", arrays))
    read = records.to_arrays(record)
    assert read.keys() == arrays.keys()
    for key, values in arrays.items():
        np.testing.assert_array_equal(read[key], values)
    with pytest.raises(ValueError, match="JSON"):
        records.to_line("full/x/00000", arrays | {"wb97x_dz.energy": np.array(np.nan)})
    with pytest.raises(ValueError, match="float32"):
        records.to_line("full/x/00000", arrays | {"coordinates": np.full((2, 3), 0.1)})


def test_a_line_damaged_amid_the_file_is_named(records, tmp_path):
    path = tmp_path / "full.jsonl"
    path.write_text('{"sample": "a"}\n{"sam{"sample": "b"}\n{"sample": "c"}\n')
    with pytest.raises(ValueError, match=r"full\.jsonl, line 2"):
        records.read_records(path)


@pytest.fixture
def fake_labels(edition, monkeypatch):
    """Labels that cost nothing, and the list of samples that they were asked for."""
    asked = []

    def labels_of(sample, numbers, positions, guesses):
        assert guesses == {}
        asked.append(sample)
        return {"wb97x_dz.energy": np.array(float(sum(sample.seed)))}

    def source(name):
        def draw(seed):
            return np.float32(np.random.default_rng(seed).normal(size=(2, 3))).astype(float)

        return SimpleNamespace(numbers=np.array([6, 8]), draw=draw)

    monkeypatch.setattr(edition, "source", source)
    monkeypatch.setattr(edition, "compute_labels", labels_of)
    return asked


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def names_in(folder, kind="full"):
    return [record["sample"] for record in lines_of(folder / f"{kind}.jsonl")]


def test_job_continues_from_the_text_files_alone(edition, fake_labels, tmp_path):
    plan = [sample.name for sample in edition.plan_samples()]
    edition.run(tmp_path / "text", tmp_path / "work", limit=3)
    edition.run(tmp_path / "text", tmp_path / "another machine", limit=2)
    assert names_in(tmp_path / "text") == plan[:5]
    assert [sample.name for sample in fake_labels] == plan[:5]
    assert not [*tmp_path.rglob("*.npz")]


def test_a_line_cut_short_is_computed_again(edition, fake_labels, tmp_path):
    edition.run(tmp_path / "text", tmp_path / "work", limit=4)
    path = tmp_path / "text" / "full.jsonl"
    whole = path.read_bytes()
    for n_cut in (1, 20):
        path.write_bytes(whole[:-n_cut])
        assert edition.missing_samples(tmp_path / "text")[0] == edition.plan_samples()[3]
        edition.run(tmp_path / "text", tmp_path / "work", limit=1)
        edition.run(tmp_path / "text", tmp_path / "work", limit=1)
        names = [sample.name for sample in edition.plan_samples()]
        assert names_in(tmp_path / "text") == names[:5]


def test_work_folder_may_hold_more_or_less_than_the_text_files(edition, fake_labels, tmp_path):
    text, work = tmp_path / "text", tmp_path / "work"
    plan = edition.plan_samples()
    for sample in (plan[0], plan[2]):  # computed, and killed before they were appended
        edition.compute(sample, work)
    edition.run(text, work, limit=1)
    assert names_in(text) == [plan[0].name, plan[2].name, plan[1].name]
    edition.compute(plan[0], work)  # killed before it was removed
    edition.run(text, work, limit=1)
    assert names_in(text) == [plan[k].name for k in (0, 2, 1, 3)]
    assert not [*work.rglob("*.npz")]


def test_a_failed_conformer_is_noted_and_drawn_again(edition, fake_labels, monkeypatch, tmp_path):
    plan = edition.plan_samples()[:3]
    monkeypatch.setattr(edition, "plan_samples", lambda: plan)
    labels_of = edition.compute_labels

    def labels_or_not(sample, *rest):
        if sample.name == plan[0].name or (sample.name, sample.attempt) == (plan[1].name, 0):
            raise edition.np.linalg.LinAlgError("singular")
        return labels_of(sample, *rest)

    monkeypatch.setattr(edition, "compute_labels", labels_or_not)
    edition.run(tmp_path, tmp_path / "work")
    found = lines_of(tmp_path / "full.jsonl")
    assert [(record["sample"], record["attempt"]) for record in found] == [
        (plan[2].name, 0),
        (plan[1].name, 1),
    ]
    failures = lines_of(tmp_path / "failures.jsonl")
    assert Counter(failure["sample"] for failure in failures) == {
        plan[0].name: edition.MOST_ATTEMPTS,
        plan[1].name: 1,
    }
    assert failures[0]["reason"] == "LinAlgError: singular"
    assert fake_labels[-1].seed != plan[1].seed  # another geometry


def test_many_failures_in_a_row_end_the_job(edition, fake_labels, monkeypatch, tmp_path):
    def nothing(*rest):
        raise OSError("disk full")

    monkeypatch.setattr(edition, "compute_labels", nothing)
    with pytest.raises(RuntimeError, match="disk full"):
        edition.run(tmp_path, tmp_path / "work")


def test_a_second_job_on_the_same_folder_is_refused(edition, fake_labels, tmp_path):
    from filelock import FileLock, Timeout

    (tmp_path / "work").mkdir()
    with FileLock(tmp_path / "work" / "lock"), pytest.raises(Timeout):
        edition.run(tmp_path, tmp_path / "work", limit=1)


def test_hours_of_the_plan_come_from_what_was_measured(edition, fake_labels, tmp_path):
    table = edition.describe_plan(tmp_path).splitlines()
    assert len(table) == 9
    assert int(table[-1].split()[1]) == len(edition.plan_samples())
    plan = edition.plan_stages()["training"]
    full = [sample for sample in plan if sample.kind == "full"]
    from qm_costs import effort, estimate_seconds

    finished = {full[0].name: {"seconds": 7.0}}
    seconds = estimate_seconds(plan, finished)
    assert seconds[full[0]] == 7.0
    assert seconds[full[1]] == pytest.approx(7.0 * effort(full[1]) / effort(full[0]))


def test_gradients_of_several_energies_are_those_of_each(generator_scripts):
    from hippynn_mf.labelling.reference import gradient_by_differences

    positions = np.random.default_rng(5).normal(size=(4, 3))

    def energies(moved):
        return np.array([(moved**2).sum(), moved[0, 0] * moved[1, 2]])

    both = gradient_by_differences(energies, positions, directions=np.eye(12), step=1e-3)
    for k, gradient in enumerate(both):
        alone = gradient_by_differences(
            lambda moved, k=k: energies(moved)[k], positions, directions=np.eye(12), step=1e-3
        )
        np.testing.assert_allclose(gradient, alone, rtol=0, atol=1e-12)
    np.testing.assert_allclose(both[0], 2 * positions, atol=1e-8)


def test_committed_conformers_are_of_the_plan_and_of_their_molecules(edition, records):
    from qm_costs import symbols_of

    samples = {sample.name: sample for sample in edition.plan_samples()}
    for name, record in edition.finished(RECORDS).items():
        arrays = records.to_arrays(record)
        numbers = [
            Chem.GetPeriodicTable().GetAtomicNumber(s) for s in symbols_of(samples[name].molecule)
        ]
        assert Counter(arrays["atomic_numbers"].tolist()) == Counter(numbers), name
        assert all(np.isfinite(values).all() for values in arrays.values()), name
        assert arrays["coordinates"].shape == arrays["wb97x_dz.forces"].shape
        assert ("wb97x_tz.energy" in arrays) == (samples[name].kind in ("full", "cc_forces"))
        assert ("ccsd(t)_dz.corr_energy" in arrays) == (samples[name].kind != "low")


def test_committed_conformers_are_drawn_again_to_the_last_bit(conformers, records):
    from qm_samples import Sample

    drawn = ("full/ethanol/00000", "full/water+water/00000", "low/acetone/00000")
    for name in drawn:
        kind, molecule, number = name.split("/")
        record = records.read_records(RECORDS / f"{kind}.jsonl")[name]
        sample = Sample(kind, molecule, int(number), record["attempt"])
        expected = records.to_arrays(record)["coordinates"]
        np.testing.assert_array_equal(conformers.source(molecule).draw(sample.seed), expected)
