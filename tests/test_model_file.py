"""Model files: what is written is what is read, and nothing else is read at all."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from made_runs import exit_code, heldout_errors, make_run, run_metrics, write_metrics
from potentials import random_potential, trained_run
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hippynn_mf import MultiFidelityCalculator
from hippynn_mf.data.embedded import MINI_ANI1X
from hippynn_mf.data.formats.ani1x import labels_in_file
from hippynn_mf.data.loading import file_hash, load_splits
from hippynn_mf.data.structures import atomic_energy_sum
from hippynn_mf.errors import UserError
from hippynn_mf.labels import with_all_forces
from hippynn_mf.levels import DZ, PAPER_LEVELS, Level
from hippynn_mf.model.model import build_model
from hippynn_mf.model.predicting import predict_arrays
from hippynn_mf.potentials import model_file
from hippynn_mf.potentials.evaluator import Evaluator
from hippynn_mf.potentials.model_file import SHIPPED
from hippynn_mf.potentials.potential import Potential
from hippynn_mf.potentials.systems import Systems
from hippynn_mf.runs.exporting import export_runs
from hippynn_mf.runs.models import load_best
from hippynn_mf.units import EV_PER_HARTREE, EV_PER_KCAL_PER_MOL, KCAL_PER_MOL_PER_HARTREE

DATA = Path(__file__).parent / "data"
IN_NEW_PROCESS = """
import sys, numpy as np
from ase.build import molecule
from hippynn_mf import MultiFidelityCalculator
atoms = molecule("CH3OH")
for level in ("DZ", "CC"):
    atoms.calc = MultiFidelityCalculator(sys.argv[1], level=level)
    print(repr(atoms.get_potential_energy()), *map(repr, atoms.get_forces().ravel().tolist()))
"""


def surfaces(potential: Potential, systems: list[Atoms]):
    evaluator = Evaluator(potential)
    levels = potential.levels
    return evaluator(Systems.of(systems, evaluator.cutoff, evaluator.species), levels)


def test_a_run_gives_the_same_numbers_from_its_file_in_a_new_process(tmp_path, float64):
    folder = trained_run(tmp_path)
    settings = folder.read_settings()
    model = build_model(
        settings.hyperparameters, with_all_forces(settings.experiment.resolved_labels)
    )
    load_best(model, folder)
    atoms = molecule("CH3OH")
    labels = predict_arrays(model, atoms.numbers[None], atoms.positions[None], batch_size=1)

    path = tmp_path / "model.safetensors"
    assert exit_code("export", folder.path, "--out", path) == 0
    finished = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IN_NEW_PROCESS, path],
        capture_output=True,
        text=True,
        check=True,
    )
    for level, line in zip(("wb97x_dz", "ccsd(t)_cbs"), finished.stdout.splitlines(), strict=True):
        energy, *forces = map(float, line.split())
        own = atomic_energy_sum(atoms.numbers[None], model.heads[level].level)[0]
        expected = labels[f"{level}.energy"][0] + own * KCAL_PER_MOL_PER_HARTREE
        assert energy / EV_PER_KCAL_PER_MOL == pytest.approx(expected, rel=0, abs=1e-6)
        np.testing.assert_allclose(
            np.reshape(forces, (-1, 3)) / EV_PER_KCAL_PER_MOL,
            labels[f"{level}.forces"][0],
            rtol=0,
            atol=1e-5,
        )
        assert np.abs(forces).max() > 1e-3


def test_coupled_heads_are_stored_independent_with_the_same_energies(tmp_path, float64):
    folder = trained_run(tmp_path, coupling="delta")
    settings = folder.read_settings()
    assert settings.hyperparameters.coupling == "delta"
    model = build_model(settings.hyperparameters, settings.experiment.resolved_labels)
    load_best(model, folder)
    atoms, path = molecule("CH3OH"), tmp_path / "model.safetensors"
    expected = predict_arrays(model, atoms.numbers[None], atoms.positions[None], batch_size=1)
    export_runs([folder.path]).save(path)
    potential = Potential.load(path)
    assert potential.card.hyperparameters.coupling == "delta"  # what was trained
    found = surfaces(potential, [atoms])
    for level in potential.levels:
        own = atomic_energy_sum(atoms.numbers[None], level) * KCAL_PER_MOL_PER_HARTREE
        energies = found.energies[level.id] / EV_PER_KCAL_PER_MOL
        np.testing.assert_allclose(energies[0] - own, expected[level.energy_name], atol=1e-6)


def test_an_ensemble_keeps_the_members_of_its_runs(tmp_path):
    folders = [trained_run(tmp_path, seed=seed) for seed in (3, 1)]
    path = tmp_path / "model.safetensors"
    export_runs([folder.path for folder in folders]).save(path)
    potential = Potential.load(path)
    assert [member.seed for member in potential.card.members] == [3, 1]
    together = surfaces(potential, [molecule("H2O")]).energies["ccsd(t)_cbs"]
    for number, folder in enumerate(folders):
        alone = surfaces(export_runs([folder.path]), [molecule("H2O")]).energies["ccsd(t)_cbs"]
        np.testing.assert_allclose(together[number], alone[0], rtol=1e-12)
        of_seed = surfaces(potential.member(potential.card.members[number].seed), [molecule("H2O")])
        np.testing.assert_array_equal(of_seed.energies["ccsd(t)_cbs"], alone)
    assert together[0] != together[1]


def test_a_member_alone_is_a_whole_model(tmp_path):
    """Members may differ in their atomic energies, as these random ones do."""
    path = tmp_path / "model.safetensors"
    potential = random_potential({"DZ": "EF", "CC": "E"}, n_members=2)
    potential.member(1).save(path)
    alone, atoms = Potential.load(path), [molecule("H2O")]
    expected = surfaces(potential, atoms).energies["ccsd(t)_cbs"][1]
    np.testing.assert_allclose(surfaces(alone, atoms).energies["ccsd(t)_cbs"][0], expected)


def test_the_card_says_what_the_run_was(tmp_path):
    folder = trained_run(tmp_path)
    settings = folder.read_settings()
    path = tmp_path / "model.safetensors"
    export_runs([folder.path]).save(path)
    card = Potential.load(path).card
    assert card.hyperparameters == settings.hyperparameters
    assert card.training.data_sha256 == settings.data.sha256
    assert card.training.split_seed == settings.split_seed
    assert [level.id for level in card.levels] == ["wb97x_dz", "ccsd(t)_cbs"]
    assert [level.trained for level in card.levels] == [("energy", "forces"), ("energy",)]
    assert card.members[0].metrics == folder.read_metrics()
    assert card.members[0].versions == {"torch": "2"}
    head = torch.load(folder.file("model.pt"), weights_only=True)["heads.wb97x_dz.layers.0.weight"]
    atomic = card.levels[0].atomic_energies_kcal_per_mol
    assert list(atomic) == [1, 6, 7, 8]
    np.testing.assert_allclose(list(atomic.values()), head[0].numpy())


def test_levels_need_not_be_registered(tmp_path, monkeypatch):
    own = Level("gfn9", label="G9", method="GFN9", basis="none", rank=1.0, energy_keys=("g",))
    potential = random_potential({own: "E", PAPER_LEVELS[0]: "E"})  # type: ignore[dict-item]
    path = tmp_path / "model.safetensors"
    potential.save(path)
    loaded = Potential.load(path)
    assert loaded.level("G9") == own
    assert loaded.level("gfn9").self_energies == own.self_energies
    with pytest.raises(UserError, match=r"Unknown level of this model 'CC'.*Known: G9, gfn9, DZ"):
        loaded.level("CC")


def test_loading_runs_no_code(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    potential = random_potential({"DZ": "EF"})
    potential.save(path)

    def refuse(*arguments, **keywords):
        raise AssertionError("a model file was unpickled")

    for module, name in ((torch, "load"), (pickle, "load"), (pickle, "loads")):
        monkeypatch.setattr(module, name, refuse)
    loaded = Potential.load(path)
    for name, parameter in loaded.members[0].parameters.named_parameters():
        assert torch.equal(parameter, potential.members[0].parameters.get_parameter(name))


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_exporting_unpickles_no_code(tmp_path):
    folder, trace = trained_run(tmp_path), tmp_path / "code-ran"
    torch.save({"network": Payload(trace)}, folder.file("model.pt"))
    with pytest.raises(UserError, match="is not a model of this run"):
        export_runs([folder.path])
    assert not trace.exists()
    torch.load(folder.file("model.pt"), weights_only=False)
    assert trace.exists()  # the payload works


def damaged(tmp_path, change) -> str:
    path = tmp_path / "model.safetensors"
    random_potential({"DZ": "EF"}).save(path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError) as refusal:
        Potential.load(path)
    assert str(path) in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize("size", [0, 9, 200, -1, -50])
def test_a_truncated_file_says_so(tmp_path, size):
    assert "truncated" in damaged(tmp_path, lambda content: content[:size])


def test_a_changed_parameter_is_noticed(tmp_path):
    def flip(content: bytes) -> bytes:
        return content[:-100] + bytes([content[-100] ^ 1]) + content[-99:]

    assert "is damaged: its content does not have its SHA-256" in damaged(tmp_path, flip)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"just some text, longer than a header", "it is not safetensors"),
        (b"short", "it is not safetensors"),
        (b"PK\x03\x04 a zip, as torch.save writes it", "pickled file"),
        (pickle.dumps({"a": 1}), "pickled file"),
    ],
    ids=["text", "short", "torch", "pickle"],
)
def test_a_foreign_file_says_what_it_is(tmp_path, content, expected):
    assert expected in damaged(tmp_path, lambda _: content)


def test_safetensors_of_something_else_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match="safetensors file of something else"):
        Potential.load(path)


def rewrite_card(path, **changes):
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    card = json.loads(header["hippynn_mf"]) | changes
    save_file(load_file(path), path, metadata=header | {"hippynn_mf": json.dumps(card)})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"format": 3}, "model format 3, newer than 2.*Install a newer hippynn_mf"),
        ({"format": 0}, "card is not valid"),
        ({"surprise": 1}, "card is not valid"),
        ({"members": []}, "card is not valid"),
    ],
)
def test_another_card_is_refused(tmp_path, changes, expected):
    path = tmp_path / "model.safetensors"
    random_potential({"DZ": "EF"}).save(path)
    rewrite_card(path, **changes)
    with pytest.raises(UserError, match=expected):
        Potential.load(path)


def resealed(path, potential, change) -> str:
    """Refusal of a file with another card or parameters, and the right checksum."""
    potential.save(path)
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    card, tensors = json.loads(header["hippynn_mf"]), load_file(path)
    change(card, tensors)
    text = json.dumps(card)
    seal = model_file.checksum(text, tensors)
    save_file(tensors, path, metadata={"hippynn_mf": text, "sha256": seal})
    with pytest.raises(UserError) as refusal:
        Potential.load(path)
    assert str(path) in str(refusal.value)
    return str(refusal.value)


def first_tensor(value):
    def change(card, tensors):
        name = "0.network.blocks.0.0.base_layer.int_weights"
        tensors[name] = value(tensors[name]).contiguous()

    return change


def of_card(*keys, value):
    def change(card, tensors):
        inner = card
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value

    return change


SELF = ("levels", 0, "self_energies_hartree")
CONSTANTS = ("constants", "network.blocks.0.0.base_layer._extra_state")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (first_tensor(lambda t: t * float("nan")), "not finite"),
        (first_tensor(lambda t: t.double()), "several kinds of numbers"),
        (first_tensor(lambda t: t.int()), "parameters of torch.int32"),
        (first_tensor(lambda t: t[:-1]), "where (5, 6, 4) was expected"),
        (lambda card, tensors: tensors.pop("0.heads.wb97x_dz.layers.1.bias"), "do not fit"),
        (lambda card, tensors: tensors.clear(), "parameters are missing"),
        (of_card("hyperparameters", "n_features", value=10**9), "n_features: Input should be less"),
        (of_card("hyperparameters", "n_features", value=4096), "where (5, 4096, 4)"),
        (of_card("hyperparameters", "n_atom_layers", value=64), "4 layers, not 130"),
        (of_card(*CONSTANTS, value={}), "constants do not fit"),
        (of_card(*CONSTANTS, value={"cusp_reg": -1.0}), "constants do not fit"),
        (of_card(*SELF, value={"-1": 0.0}), "card is not valid"),
        (of_card("levels", 1, "label", value="DZ"), "a level is there twice"),
        (of_card("levels", 1, "label", value="a:b"), "card is not valid"),
        (of_card("levels", 0, "atomic_energies_kcal_per_mol", "1", value=3.0), "atomic energies"),
        (lambda card, tensors: card["members"].append(card["members"][0]), "a seed is there twice"),
    ],
)
def test_what_cannot_be_a_model_is_refused_before_it_is_built(tmp_path, change, expected):
    potential = random_potential({"DZ": "EF", "CC": "E"})
    assert expected in resealed(tmp_path / "model.safetensors", potential, change)


def test_a_changed_card_is_noticed(tmp_path):
    def change(content: bytes) -> bytes:
        assert b"-37.764142" in content
        return content.replace(b"-37.764142", b"-37.764143")

    assert "does not have its SHA-256" in damaged(tmp_path, change)


def test_loading_leaves_torchs_random_numbers_alone(tmp_path):
    path = tmp_path / "model.safetensors"
    random_potential({"DZ": "EF"}).save(path)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    Potential.load(path)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


def test_a_model_file_has_the_levels_that_its_run_records(tmp_path):
    folder = trained_run(tmp_path)
    stored = json.loads(folder.file("experiment.json").read_text())
    low = stored["settings"]["levels"][0]
    assert low["id"] == DZ.id
    low["self_energies_hartree"]["1"] = -0.6
    folder.file("experiment.json").write_text(json.dumps(stored))
    assert export_runs([folder.path]).levels[0].self_energies[1] == -0.6


def seen_run(out, seed, energies):
    """A run with distances of its training set and predictions of held-out structures."""
    run = trained_run(out, seed=seed)
    path = run.file("experiment.json")
    distances = {"shortest": {"H-O": 0.9}, "farthest_neighbour": {"H": 1.1, "O": 1.0}}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"distances": distances}))
    arrays = {f"heldout.{level}.energy": values for level, values in energies.items()}
    species = np.array([[8, 1, 1], [8, 1, 0]])
    np.savez(
        run.file("predictions.npz"),
        **arrays,
        **{"heldout.species": species, "heldout.rows": [1, 2]},
    )
    return run


def test_a_model_file_says_what_its_runs_have_seen(tmp_path):
    energies = [
        {"wb97x_dz": np.array([0.0, 1.0]), "ccsd(t)_cbs": np.array([3.0, 2.0])},
        {"wb97x_dz": np.array([6.0, 2.0]), "ccsd(t)_cbs": np.array([3.0, 2.0])},
    ]
    runs = [seen_run(tmp_path, seed, values) for seed, values in enumerate(energies)]
    export_runs([run.path for run in runs]).save(tmp_path / "m.safetensors")
    potential = Potential.load(tmp_path / "m.safetensors")
    seen = potential.card.seen
    assert seen.distances.shortest == {"H-O": 0.9}
    spreads = (
        np.array([6 / 3, 1 / 2]) / np.sqrt(2) * EV_PER_KCAL_PER_MOL
    )  # of two members, per atom
    expected = {"wb97x_dz": pytest.approx(np.quantile(spreads, 0.99)), "ccsd(t)_cbs": 0.0}
    assert seen.spreads_ev_per_atom == expected
    assert set(potential.only(["CC"]).card.seen.spreads_ev_per_atom) == {"ccsd(t)_cbs"}
    assert potential.member(0).card.seen.spreads_ev_per_atom == {}
    assert export_runs([runs[0].path]).card.seen.spreads_ev_per_atom == {}


def test_runs_of_before_have_no_distances(tmp_path):
    seen = export_runs([trained_run(tmp_path).path]).card.seen
    assert (seen.distances, seen.spreads_ev_per_atom) == (None, {})


def test_damaged_facts_of_a_run_are_named(tmp_path):
    folder = trained_run(tmp_path)
    stored = json.loads(folder.file("experiment.json").read_text())
    del stored["n_structures"]
    folder.file("experiment.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match=r"experiment\.json is damaged"):
        export_runs([folder.path])
    with pytest.raises(UserError, match="at least one run folder"):
        export_runs([])


def test_a_missing_file_lists_the_shipped_models(tmp_path):
    with pytest.raises(UserError, match="mini-ani1x"):
        Potential.load("mini-ani2x")
    with pytest.raises(UserError, match="is a folder"):
        Potential.load(tmp_path)


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"named \*\.safetensors; found model\.pt"):
        random_potential({"DZ": "EF"}).save(tmp_path / "model.pt")
    assert not list(tmp_path.iterdir())


def test_runs_that_are_no_ensemble_are_refused(tmp_path, capsys):
    one = trained_run(tmp_path)
    out = tmp_path / "model.safetensors"
    assert exit_code("export", one.path, one.path, "--out", out) == 2
    assert "have the same seed 0" in capsys.readouterr().err
    other = trained_run(tmp_path, "SF-CC/E", seed=1)
    assert exit_code("export", one.path, other.path, "--out", out) == 2
    assert "name: 'MF-DZ/EF-CC/E' → 'SF-CC/E'" in capsys.readouterr().err
    split = trained_run(tmp_path / "b", seed=1, split_seed=4)
    assert exit_code("export", one.path, split.path, "--out", out) == 2
    assert "split_seed: 0 → 4" in capsys.readouterr().err
    unfinished = make_run(tmp_path / "c", "SF-CC/E", 0, None)
    assert exit_code("export", unfinished.path, "--out", out) == 2
    assert "not a finished run" in capsys.readouterr().err
    assert not out.exists()


def test_a_diverged_model_is_not_exported(tmp_path):
    folder = trained_run(tmp_path)
    state = torch.load(folder.file("model.pt"), weights_only=True)
    state["heads.wb97x_dz.layers.1.bias"][0] = float("nan")
    torch.save(state, folder.file("model.pt"))
    with pytest.raises(UserError, match=r"heads\.wb97x_dz\.layers\.1\.bias is not finite"):
        export_runs([folder.path])


def test_an_existing_file_is_kept(tmp_path, capsys):
    folder, out = trained_run(tmp_path), tmp_path / "model.safetensors"
    out.write_text("precious")
    assert exit_code("export", folder.path, "--out", out) == 2
    assert "--force" in capsys.readouterr().err
    assert out.read_text() == "precious"
    assert exit_code("export", folder.path, "--out", out, "--force") == 0
    Potential.load(out)


def test_the_shipped_model_has_the_errors_that_its_card_states():
    """In eV of total energies and eV/Å: units, signs, self energies and split at once."""
    potential = Potential.load("mini-ani1x")
    card = potential.card
    assert card.training.data_sha256 == file_hash(MINI_ANI1X)
    test = load_splits(
        MINI_ANI1X,
        labels_in_file(MINI_ANI1X),
        common_levels=PAPER_LEVELS,
        rows=card.training.rows,
        split_seed=card.training.split_seed,
    )["test"]
    systems = [
        Atoms(numbers[numbers > 0], positions[numbers > 0])
        for numbers, positions in zip(test.species, test.positions, strict=True)
    ]
    found = surfaces(potential, systems)
    for level in ("wb97x_dz", "wb97x_tz", "ccsd(t)_cbs"):
        reference = test.energies[level] * EV_PER_HARTREE
        errors = (found.energies[level] - reference) / EV_PER_KCAL_PER_MOL
        for member, of_member in zip(card.members, errors, strict=True):
            stated = member.metrics["heldout"][level]["energy_rmse_kcal_per_mol"]
            assert np.sqrt(np.mean(of_member**2)) == pytest.approx(stated, rel=1e-3)
    forces = test.forces["wb97x_dz"][:][test.atom_mask] * EV_PER_HARTREE
    errors = (found.forces["wb97x_dz"] - forces) / EV_PER_KCAL_PER_MOL
    for member, of_member in zip(card.members, errors, strict=True):
        stated = member.metrics["heldout"]["wb97x_dz"]["force_rmse_kcal_per_mol_per_angstrom"]
        assert np.sqrt(np.mean(of_member**2)) == pytest.approx(stated, rel=1e-3)


def test_every_shipped_model_loads():
    for name in SHIPPED:
        assert Potential.load(name).members


def test_the_card_is_shown(tmp_path, capsys):
    folder, out = trained_run(tmp_path), tmp_path / "model.safetensors"
    metrics = run_metrics(heldout={"wb97x_dz": heldout_errors(energy=1.234)})
    write_metrics(folder, metrics)
    export_runs([folder.path]).save(out)
    assert exit_code("card", out) == 0
    shown = capsys.readouterr().out
    for text in ("MF-DZ/EF-CC/E", "H, C, N, O", "trained on energy and forces; held-out energy"):
        assert text in shown
    assert "RMSE 1.23 kcal/mol" in shown
    assert exit_code("card", out, "--json") == 0
    stored = json.loads(capsys.readouterr().out)
    assert stored["members"][0]["metrics"] == metrics


@pytest.mark.parametrize("level", ["DZ", "CC"])
@pytest.mark.parametrize("name", ["H2O", "CH3OH"])
def test_a_file_of_version_0_1_0_predicts_what_it_predicted_then(level, name):
    """Written by that version, with the energies and forces that it gave (coupled heads)."""
    before = json.loads((DATA / "model-0.1.0.json").read_text())[level][name]
    atoms = molecule(name)
    atoms.rattle(0.05, seed=1)
    atoms.calc = MultiFidelityCalculator(DATA / "model-0.1.0.safetensors", level)
    assert atoms.get_potential_energy() == pytest.approx(before["energy_ev"], abs=1e-9)
    np.testing.assert_allclose(
        atoms.get_forces(), before["forces_ev_per_angstrom"], rtol=0, atol=1e-9
    )
