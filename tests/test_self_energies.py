"""Elements and self energies that nobody declares: found in the data, and kept with the run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import planted
import pytest
import torch
from ase import Atoms, units
from ase.io import read, write
from made_runs import TINY_OPTIONS, exit_code

from hippynn_mf.data.arrays import training_arrays
from hippynn_mf.data.checks.gate import check_structures
from hippynn_mf.data.formats.ani1x import labels_in_file, read_ani1x
from hippynn_mf.data.formats.held_elements import elements_in, isolated_atoms
from hippynn_mf.data.self_energies import LEFT_TO_HEAD, find_self_energies
from hippynn_mf.errors import UserError
from hippynn_mf.evaluation.test_sets import reference_labels
from hippynn_mf.labels import parse_labels
from hippynn_mf.level_records import levels_of_records
from hippynn_mf.levels import CC, DZ, KNOWN_LEVELS, Level
from hippynn_mf.potentials.calculator import MultiFidelityCalculator
from hippynn_mf.potentials.potential import Potential
from hippynn_mf.runs.build import build_settings
from hippynn_mf.runs.experiment import parse_experiment
from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.runs.request import Request

# Atomic energies in hartree of two levels, of elements beyond those that the known levels declare.
LOW = {1: -0.4, 6: -37.1, 7: -54.2, 8: -74.3, 9: -99.1, 16: -397.6, 17: -459.7}
HIGH = {number: energy - 0.01 * number for number, energy in LOW.items()}
MOLECULES = {
    "HF": [(0, 0, 0), (0, 0, 0.92)],
    "ClH": [(0, 0, 0), (0, 0, 1.28)],
    "SHH": [(0, 0, 0), (1.34, 0, 0), (-0.05, 1.34, 0)],
    "OHH": planted.WATER[1],
    "CHHHH": planted.METHANE[1],
    "NHHH": planted.AMMONIA[1],
    "CHN": planted.HCN[1],
    "CHHHF": [*planted.METHANE[1][:4], (0.8, -0.8, -0.8)],
    "CHHHCl": [*planted.METHANE[1][:4], (1.03, -1.03, -1.03)],
}
UNDECLARED = Level(
    "mine", "MINE", "made up", "", 5.0, ("mine.energy",), "mine.forces", self_energies={}
)


def morse(atoms: Atoms, own: dict[int, float], scale: float = 1.0) -> tuple[float, np.ndarray]:
    """Total energy in eV, forces in eV/Å, of the planted bonds between all atoms."""
    forces = np.zeros_like(atoms.positions)
    energy = sum(own[number] for number in atoms.numbers)
    for i in range(len(atoms)):
        for j in range(i):
            bond = atoms.positions[i] - atoms.positions[j]
            length = np.linalg.norm(bond)
            decay = np.exp(-planted.WIDTH * (length - planted.LENGTH))
            energy += scale * planted.DEPTH * (1 - decay) ** 2
            slope = 2 * scale * planted.DEPTH * planted.WIDTH * (1 - decay) * decay
            forces[i] -= slope * bond / length
            forces[j] += slope * bond / length
    return energy * units.Hartree, forces * units.Hartree


def molecules(n: int, names=MOLECULES, *, seed: int = 100) -> list[Atoms]:
    """`n` conformers of each molecule in random order, without labels."""
    rng = np.random.default_rng(seed)
    made = []
    for name in names:
        symbols = list(Atoms(name).symbols)
        for _ in range(n):
            noise = rng.normal(scale=0.05, size=(len(symbols), 3))
            made.append(Atoms(symbols, np.array(MOLECULES[name], float) + noise))
    return [made[i] for i in rng.permutation(len(made))]


def labelled(structures, key: str, own=LOW, scale=1.0, *, more=()) -> list[Atoms]:
    """Copies with `energy_KEY` and `forces_KEY`; `more` are isolated atoms with their symbols."""
    copies = []
    for atoms in structures:
        copy = atoms.copy()
        energy, forces = morse(copy, own, scale)
        copy.info[f"energy_{key}"], copy.arrays[f"forces_{key}"] = energy, forces
        copies.append(copy)
    for symbol in more:
        atom = Atoms(symbol, info={"config_type": "IsolatedAtom"})
        atom.info[f"energy_{key}"] = own[int(atom.numbers[0])] * units.Hartree
        copies.append(atom)
    return copies


def raised(energies: dict[int, float]) -> dict[int, float]:
    """What is left to the head is not subtracted."""
    return {number: energy + LEFT_TO_HEAD for number, energy in energies.items()}


def save(path: Path, structures) -> Path:
    write(path, structures, format="extxyz")
    return path


@pytest.fixture
def mine_file(tmp_path):
    return save(tmp_path / "mine.xyz", labelled(molecules(14), "MINE"))


@pytest.fixture
def levels_file(tmp_path):
    path = tmp_path / "levels.json"
    record = {"id": "mine", "label": "MINE", "method": "made up", "basis": "", "rank": 5}
    record |= {"energy_keys": ["mine.energy"], "force_key": "mine.forces"}
    path.write_text(json.dumps([record | {"self_energies_hartree": {}}]))
    return path


def structures_of(path, level=UNDECLARED):
    known = KNOWN_LEVELS.including([level])
    labels = parse_labels({level: "EF"})
    return read_ani1x(path, labels, levels=known)[0], labels, known


# Species.


def request_of(data, **asked):
    return build_settings(Request.of({"experiments": ["SF-DZ/E"], "data": data} | asked))


def test_species_are_the_union_over_all_files_for_every_experiment(tmp_path):
    ordered = {"N2": 8, "H2O": 8}
    data = planted.write_ani1x(tmp_path / "data.h5", ordered)
    test = planted.write_comp6(tmp_path / "comp6.h5")
    valid = save(tmp_path / "valid.xyz", labelled(molecules(2, ["HF"]), "DZ"))
    asked = {"experiments": ["SF-DZ/E", "MF-DZ/EF-CC/E"], "rows": "all"}
    found = [run.hyperparameters.species for run in request_of(data, **asked)]
    assert found == [(0, 1, 7, 8)] * 2
    found = [
        run.hyperparameters.species
        for run in request_of(data, **asked, valid=valid, tests={"comp6": {"path": test}})
    ]
    assert found == [(0, 1, 6, 7, 8, 9)] * 2


@pytest.mark.parametrize("preset", ["quick", "paper"])
def test_presets_of_the_paper_keep_its_species(tmp_path, preset):
    data = planted.write_ani1x(tmp_path / "data.h5", {"N2": 8, "H2O": 8})
    (run,) = request_of(data, preset=preset)
    assert run.hyperparameters.species == (0, 1, 6, 7, 8)


def test_species_that_are_asked_for_are_those(tmp_path):
    data = planted.write_ani1x(tmp_path / "data.h5", {"N2": 8, "H2O": 8})
    (run,) = request_of(data, hyperparameters={"species": [0, 1, 7, 8, 9]})
    assert run.hyperparameters.species == (0, 1, 7, 8, 9)


def test_the_elements_of_a_folder_are_those_of_its_files(tmp_path):
    planted.write_comp6(tmp_path / "a.h5")
    assert elements_in(tmp_path) == {1, 6, 7, 8}


# Self energies.


@pytest.mark.parametrize("seed", [100, 101])
def test_a_fit_recovers_what_compositions_determine_in_any_order(tmp_path, seed):
    """Without bonds, atomic energies are all that there is."""
    made = labelled(molecules(6, seed=seed), "MINE", scale=0.0)
    structures, labels, _ = structures_of(save(tmp_path / "a.xyz", made))
    found = find_self_energies(structures, labels, {})["mine"]
    assert found.origin == dict.fromkeys(sorted(LOW), "fitted")
    assert found.hartree == pytest.approx(raised(LOW), abs=1e-6)
    assert (found.n_fitted, found.rank) == (len(made), len(LOW))
    order = np.random.default_rng(seed).permutation(len(structures))
    assert find_self_energies(structures[order], labels, {})["mine"] == found


def test_what_is_declared_stays_and_the_rest_is_fitted_to_what_it_leaves(tmp_path):
    declared = {z: LOW[z] for z in (1, 6, 7, 8)}
    level = replace(UNDECLARED, self_energies=declared)
    made = labelled(molecules(6), "MINE", scale=0.0, more=["Cl"])
    structures, labels, known = structures_of(save(tmp_path / "a.xyz", made), level)
    atoms = isolated_atoms(tmp_path / "a.xyz", labels, known)
    assert atoms == {"mine": {17: pytest.approx(LOW[17], abs=1e-9)}}
    found = find_self_energies(structures, labels, atoms)["mine"]
    assert {z: found.hartree[z] for z in declared} == declared
    assert found.of("isolated_atom") == {17}
    assert found.of("fitted") == {9, 16}
    fitted = raised({z: LOW[z] for z in (9, 16)})
    assert found.hartree == pytest.approx(LOW | fitted, abs=1e-6)
    assert found.text() == (
        f"H, C, N, O declared; Cl of isolated atoms; F, S fitted to {6 * 3} training energies"
    )


@pytest.mark.parametrize(
    "tag",
    [
        {"config_type": "IsolatedAtom"},
        {"config_type": "isolated_atom"},
        {"isolated_atom": True},
        {},
    ],
)
def test_isolated_atoms_are_known_by_any_of_their_names(tmp_path, tag):
    atom = Atoms("F", info=tag | {"energy_MINE": LOW[9] * units.Hartree})
    path = save(tmp_path / "a.xyz", [*labelled(molecules(3), "MINE"), atom])
    structures, labels, known = structures_of(path)
    assert isolated_atoms(path, labels, known)["mine"] == {9: pytest.approx(LOW[9])}
    n_single = int((structures.atom_mask.sum(axis=1) == 1).sum())
    assert n_single == (0 if tag else 1)  # one without a name is a structure like others, too


def test_a_charged_atom_has_no_self_energy(tmp_path):
    atom = Atoms("F", info={"config_type": "IsolatedAtom", "charge": -1, "energy_MINE": -2700.0})
    path = save(tmp_path / "a.xyz", [*labelled(molecules(3), "MINE"), atom])
    _, labels, known = structures_of(path)
    assert isolated_atoms(path, labels, known) == {}


def test_isolated_atoms_that_contradict_each_other_are_refused(tmp_path):
    made = labelled(molecules(3), "MINE", more=["F", "F"])
    made[-1].info["energy_MINE"] += 0.5
    path = save(tmp_path / "a.xyz", made)
    _, labels, known = structures_of(path)
    with pytest.raises(UserError, match=r"a\.xyz: isolated atoms of F have energies of level mine"):
        isolated_atoms(path, labels, known)


def test_compositions_that_determine_nothing_give_the_fit_of_least_norm(tmp_path):
    structures, labels, _ = structures_of(
        save(tmp_path / "a.xyz", labelled(molecules(9, ["OHH"]), "MINE", scale=0.0))
    )
    found = find_self_energies(structures, labels, {})["mine"]
    whole = LOW[8] + 2 * LOW[1]
    assert found.is_undetermined
    assert found.hartree == pytest.approx(raised({1: whole * 2 / 5, 8: whole / 5}), abs=1e-6)


def test_self_energies_are_subtracted_before_the_cast(tmp_path, mine_file):
    """A float32 of −460 hartree would be off by 0.02 kcal/mol."""
    structures, labels, _ = structures_of(mine_file)
    found = find_self_energies(structures, labels, {})["mine"]
    level = replace(UNDECLARED, self_energies=found.hartree)
    arrays = training_arrays(structures, parse_labels({level: "E"}))
    expected = structures.energies["mine"] - [
        sum(found.hartree[z] for z in row if z) for row in structures.species[:].tolist()
    ]
    targets = arrays["mine.energy"][:, 0]
    assert targets == pytest.approx(expected * 627.5094740631, abs=1e-4)
    assert abs(targets).max() < 100 + 5 * LEFT_TO_HEAD * 628


def test_references_of_a_level_without_self_energies_are_not_compared(tmp_path, caplog):
    """It is not trained: what its total energies mean beside another level's, nothing tells."""
    path = save(tmp_path / "a.xyz", labelled(molecules(3), "DZ"))
    structures, _ = read_ani1x(path, labels_in_file(path))
    labels = reference_labels(structures)
    has_others = np.isin(structures.species, [9, 16, 17]).any(axis=1)
    assert (np.isnan(labels["wb97x_dz.energy"]) == has_others).all()
    assert (
        f"{int(has_others.sum())} energies of level wb97x_dz (DZ) are not compared" in caplog.text
    )


@pytest.mark.parametrize(
    "experiment", ["MF-MINE/EF-BEST/E", "MFC-MINE/EF-BEST/E", "DELTA-MINE/EF-BEST/E"]
)
def test_atomic_energies_of_heads_are_far_from_zero(tmp_path, experiment):
    """Hierarchicality divides by them; with heads of differences by those of the differences."""
    made = labelled(molecules(14), "MINE")
    for atoms in made:
        atoms.info["energy_BEST"] = morse(atoms, HIGH, 1.2)[0]
    out = tmp_path / "out"
    options = (experiment, "--levels", "MINE,BEST")
    assert train(save(tmp_path / "mine.xyz", made), out, *options) == 0
    folder = RunFolder(next(out.glob("runs/*/seed-0")))
    states = [torch.load(path, weights_only=True) for path in folder.path.rglob("model.pt")]
    first = [
        values
        for state in states
        for name, values in state.items()
        if name.startswith("heads.") and name.endswith("layers.0.weight")
    ]
    assert len(first) >= 2
    assert all((values.abs() > 30).all() for values in first)  # kcal/mol


# The checks of total energies.


def outcome_of(path, level):
    structures, _, known = structures_of(path, level)
    (found,) = [
        o for o in check_structures(structures, known, path).outcomes if o.check == "energies"
    ]
    return found


def test_energies_without_self_energies_are_compared_by_composition(mine_file):
    found = outcome_of(mine_file, UNDECLARED)
    assert found.verdict == "passed"
    assert found.values["n_without_self_energies"] == found.values["n"]
    assert "compared by composition alone" in found.text
    assert "per bond (median)" not in found.text
    declared = outcome_of(mine_file, replace(UNDECLARED, self_energies=LOW))
    assert "compared by composition" not in declared.text
    assert declared.values["spread_per_bond_ev"] == found.values["spread_per_bond_ev"]


def test_isolated_atoms_are_what_total_energies_are_held_against(tmp_path):
    path = save(
        tmp_path / "a.xyz",
        labelled(molecules(6), "MINE", more=["H", "C", "N", "O", "F", "S", "Cl"]),
    )
    assert "per bond (median)" in outcome_of(path, UNDECLARED).text


def test_another_unit_is_refused_without_self_energies_too(tmp_path):
    """In eV where hartree were meant: what compositions leave is 27 times as much."""
    made = labelled(molecules(14), "MINE")
    for atoms in made:
        atoms.info["energy_MINE"] *= units.Hartree
    found = outcome_of(save(tmp_path / "a.xyz", made), UNDECLARED)
    assert found.verdict == "refused"
    assert "beyond their composition they spread" in found.text


# From a file of a chemist to a potential.


def train(data, out, *options):
    return exit_code("train", *options, "--data", data, "--out", out, *TINY_OPTIONS)


def test_from_a_file_with_other_elements_to_a_potential(
    tmp_path, mine_file, levels_file, capsys, caplog
):
    out = tmp_path / "out"
    assert train(mine_file, out, "SF-MINE/EF", "--levels", levels_file) == 0
    said = capsys.readouterr().err
    assert "Elements H, C, N, O, F, S, Cl." in said
    said = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert sum("self energies H, C, N, O, F, S, Cl fitted to" in text for text in said) == 1
    folder = RunFolder(next(out.glob("runs/*/seed-0")))
    stored = folder.read_self_energies()["mine"]
    assert stored.of("fitted") == set(LOW)
    assert folder.read_settings().levels[0].self_energies_hartree == {}  # what was asked for

    metrics = folder.file("metrics.json").read_text()
    assert exit_code("evaluate", folder.path) == 0
    before, after = (
        json.loads(text)["sets"] for text in (metrics, folder.file("metrics.json").read_text())
    )
    assert after == before

    model = tmp_path / "model.safetensors"
    assert exit_code("export", folder.path, "--out", model) == 0
    (card,) = Potential.load(model).card.levels
    assert card.self_energies_hartree == stored.hartree
    assert set(card.self_energies_origin.values()) == {"fitted"}

    structures = molecules(2, seed=300)
    unlabelled = save(tmp_path / "new.xyz", structures)
    assert exit_code("predict", model, unlabelled, "--out", tmp_path / "predicted.xyz") == 0
    predicted = read(tmp_path / "predicted.xyz", ":")
    calculator = MultiFidelityCalculator(model)
    for atoms, found in zip(structures, predicted, strict=True):
        atoms.calc = calculator
        total = atoms.get_potential_energy()
        assert found.info["energy_mine"] == pytest.approx(total, abs=1e-3)
        # A network of a few steps is wrong, but by electronvolts, not by thousands of them.
        assert total == pytest.approx(morse(atoms, LOW)[0], abs=5)


def test_two_splits_have_self_energies_of_their_own(tmp_path, mine_file, levels_file):
    out = tmp_path / "out"
    options = ("SF-MINE/E", "--levels", levels_file)
    assert train(mine_file, out, *options) == 0
    assert train(mine_file, out, *options, "--split-seed", "1") == 0
    folders = [RunFolder(path) for path in sorted(out.glob("runs/*/seed-0*"))]
    first, second = (folder.read_self_energies()["mine"].hartree for folder in folders)
    assert first != second
    assert first == pytest.approx(second, abs=0.1)
    before = [json.loads(folder.file("metrics.json").read_text())["sets"] for folder in folders]
    assert exit_code("evaluate", *(folder.path for folder in folders)) == 0
    after = [json.loads(folder.file("metrics.json").read_text())["sets"] for folder in folders]
    assert before == after


def test_a_run_goes_on_with_the_self_energies_that_it_began_with(tmp_path, mine_file, levels_file):
    out = tmp_path / "out"
    options = ("SF-MINE/E", "--levels", levels_file)
    assert train(mine_file, out, *options) == 0
    folder = RunFolder(next(out.glob("runs/*/seed-0")))
    path = folder.file("experiment.json")
    content = json.loads(path.read_text())
    content["self_energies"]["mine"]["hartree"]["17"] -= 0.25
    path.write_text(json.dumps(content))
    folder.file("metrics.json").unlink()
    assert train(mine_file, out, *options) == 0
    assert json.loads(path.read_text())["self_energies"] == content["self_energies"]


def test_members_with_other_self_energies_are_no_ensemble(tmp_path, mine_file, levels_file, capsys):
    out = tmp_path / "out"
    options = ("SF-MINE/E", "--levels", levels_file, "--seeds", "0,1")
    assert exit_code("campaign", "--experiments", *options, "--data", mine_file, "--out", out,
                     "--engine", "pool", "--workers", "1", *TINY_OPTIONS) == 0  # fmt: skip
    folders = sorted(out.glob("runs/*/seed-*"))
    assert exit_code("export", *folders, "--out", tmp_path / "good.safetensors") == 0
    path = folders[1] / "experiment.json"
    content = json.loads(path.read_text())
    content["self_energies"]["mine"]["hartree"]["17"] -= 0.25
    path.write_text(json.dumps(content))
    capsys.readouterr()
    assert exit_code("export", *folders, "--out", tmp_path / "bad.safetensors") == 2
    assert "have other self energies of level mine" in capsys.readouterr().err


@pytest.mark.parametrize(
    "experiment", ["MF-DZ/EF-CC/E", "MFC-DZ/EF-CC/E", "DELTA-DZ/EF-CC/E", "TL-DZ/EF-CC/E"]
)
def test_known_levels_take_any_element(tmp_path, experiment, caplog):
    """Those that they declare stay; of isolated atoms where there are any, else fitted."""
    own = dict(DZ.self_energies) | {z: LOW[z] for z in (9, 16, 17)}
    made = labelled(molecules(14), "DZ", own, more=["S"])
    for atoms in made:
        scaled = morse(atoms, own, 1.2)[0] if len(atoms) > 1 else atoms.info["energy_DZ"]
        atoms.info["energy_CC"] = scaled - 0.01 * units.Hartree * len(atoms)
    data, out = save(tmp_path / "data.xyz", made), tmp_path / "out"
    assert train(data, out, experiment, "--rows", "all") == 0
    folder = RunFolder(next(out.glob("runs/*/seed-0")))
    found = folder.read_self_energies()
    for level in (DZ, CC):
        of_level = found[level.id]
        assert of_level.of("declared") == {1, 6, 7, 8}
        assert of_level.of("isolated_atom") == {16}
        assert of_level.of("fitted") == {9, 17}
        assert {z: of_level.hartree[z] for z in (1, 6, 7, 8)} == dict(level.self_energies)
    assert (
        "level wb97x_dz (DZ): self energies H, C, N, O declared; S of isolated atoms; F, Cl fitted "
        "to" in caplog.text
    )


def test_a_coupled_level_without_labels_of_an_element_has_the_energy_of_the_level_below(tmp_path):
    own = dict(DZ.self_energies) | {z: LOW[z] for z in (9, 16, 17)}
    made = labelled(molecules(14), "DZ", own)
    for atoms in made:
        if "S" not in atoms.symbols:
            atoms.info["energy_CC"] = morse(atoms, own, 1.2)[0]
    data, out = save(tmp_path / "data.xyz", made), tmp_path / "out"
    assert train(data, out, "MFC-DZ/EF-CC/E", "--rows", "all") == 0
    found = RunFolder(next(out.glob("runs/*/seed-0"))).read_self_energies()
    assert found[CC.id].of("lower_level") == {16}
    assert found[CC.id].hartree[16] == found[DZ.id].hartree[16]


def test_an_element_of_the_test_structures_alone_is_refused(tmp_path, levels_file, capsys):
    data = save(tmp_path / "data.xyz", labelled(molecules(14, ["OHH", "CHHHH", "NHHH"]), "MINE"))
    test = save(tmp_path / "test.xyz", labelled(molecules(3, ["HF"], seed=7), "MINE"))
    code = train(
        data, tmp_path / "out", "SF-MINE/E", "--levels", levels_file, "--test", f"mine={test}"
    )
    assert code == 2
    message = capsys.readouterr().err
    assert "test.xyz: 3 structures hold F, and SF-MINE/E has no label of MINE" in message
    assert "supply training labels" in message


def test_data_info_says_where_self_energies_will_be_from(tmp_path, levels_file, capsys):
    data = save(tmp_path / "data.xyz", labelled(molecules(5), "MINE", more=["S", "Cl"]))
    assert exit_code("data", "info", data, "--levels", levels_file) == 0
    assert (
        "self energies of mine: S, Cl of isolated atoms; H, C, N, O, F fitted in training"
        in capsys.readouterr().out
    )


# Labels as people write them.


def test_a_label_with_slashes_and_spaces_goes_all_the_way(tmp_path, capsys):
    """Its id, in files and metrics, has neither."""
    label, path = "PBE/def2-SVP (D3)", tmp_path / "mine.xyz"
    made = labelled(molecules(14), "PBE_def2-SVP_(D3)")
    for atoms in made:
        atoms.info["energy_BEST"] = morse(atoms, HIGH, 1.2)[0]
    out = tmp_path / "out"
    name = f"MF-{label}/EF-BEST/E"
    assert train(save(path, made), out, name, "--levels", f"{label},BEST") == 0
    (folder,) = map(RunFolder, out.glob("runs/*/seed-0"))
    assert folder.read_settings().name == name
    assert folder.path.parent.name.startswith("mf_pbe_def2_svp_(d3)_ef_best_e-")
    assert set(folder.read_metrics()["sets"]["heldout"]) == {"PBE_def2-SVP_(D3)", "BEST"}
    assert exit_code("tables", out) == 0
    assert exit_code("figures", out) == 0
    model = tmp_path / "model.safetensors"
    assert exit_code("export", folder.path, "--out", model) == 0
    potential = Potential.load(model)
    assert [level.label for level in potential.levels] == [label, "BEST"]
    atoms = molecules(1)[0]
    atoms.calc = MultiFidelityCalculator(potential, level=label)
    assert np.isfinite(atoms.get_potential_energy())


def test_a_name_that_can_be_read_in_two_ways_is_refused():
    labels = ["A", "B", "A/E-B"]
    known = KNOWN_LEVELS.including(levels_of_records(labels, "here"))
    with pytest.raises(UserError, match=r"can be read in several ways: A/E and B/E; or A/E-B/E"):
        parse_experiment("MF-A/E-B/E", levels=known)
    assert parse_experiment("SF-A_E-B/E", levels=known).name == "SF-A/E-B/E"


@pytest.mark.parametrize("label", [" A", "A ", "", "A.B", "A\nB", "A:B"])
def test_other_labels_are_refused(label):
    with pytest.raises(UserError, match="label"):
        levels_of_records([{"label": label}], "here")
