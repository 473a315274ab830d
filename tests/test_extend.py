"""A finished model that is extended: what stays, what begins, and what is refused."""

from __future__ import annotations

import shutil

import h5py
import made_xyz
import numpy as np
import planted
import pytest
import torch
from made_runs import TINY, exit_code, files_below
from tiny import outputs, structures, tiny_model

from hippynn_mf.data.joining import join_structures, sorted_into
from hippynn_mf.data.matching import find_shared
from hippynn_mf.data.structures import elements_of
from hippynn_mf.errors import UserError
from hippynn_mf.evaluation.worsening import compare_rmse
from hippynn_mf.hyperparameters import Hyperparameters
from hippynn_mf.labels import Properties, parse_labels
from hippynn_mf.levels import CC, DZ, MP2, TZ
from hippynn_mf.model.model import build_model
from hippynn_mf.potentials.potential import Potential
from hippynn_mf.runs.checkpoints import Checkpoints
from hippynn_mf.runs.exporting import export_runs
from hippynn_mf.runs.extended_model import extended_model
from hippynn_mf.runs.extending import build_extension
from hippynn_mf.runs.folder import RunFolder, find_runs
from hippynn_mf.runs.preflight import load_inputs
from hippynn_mf.runs.request import Request
from hippynn_mf.training.extension import extend_model

# Not as many features as elements, of which there are three and four.
OPTIONS = [text for name, value in (TINY | {"n_features": 6}).items()
           for text in ("--set", f"{name}={value}")]  # fmt: skip
SHORT = ["--set", "max_epochs=2"]
WITHOUT_CARBON = {"H2O": 20, "H3N": 20, "N2": 20}
SAME = 1e-6  # kcal/mol, and per Å


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data of the lower levels without carbon, and a run and a model file of them."""
    where = tmp_path_factory.mktemp("extend")
    planted.write_ani1x(where / "low.h5", WITHOUT_CARBON)
    for path, counts, seed in (
        ("more.h5", WITHOUT_CARBON, 5),
        ("carbon.h5", {"H2O": 10, "CH4": 20, "CHN": 20}, 6),
    ):
        planted.write_ani1x(where / path, counts, seed=seed)
    _only_keys(where / "more.h5", "ccsd(t)_cbs")
    _only_keys(where / "carbon.h5", "ccsd(t)_cbs")
    data = ["--data", where / "low.h5", "--out", where / "parents", "--seeds", "0,1"]
    assert exit_code("train", "MF-DZ/EF-TZ/E", *data, *OPTIONS) == 0
    runs = [run.path for run in find_runs(where / "parents")]
    assert exit_code("export", *runs, "--out", where / "parent.safetensors") == 0
    return where


def _only_keys(path, *starts):
    with h5py.File(path, "a") as file:
        for group in file.values():
            for key in [key for key in group if "." in key and not key.startswith(starts)]:
                del group[key]


def extended(folder, out, *options, parent="parent.safetensors", data="more.h5", code=0):
    """Run the command on one seed; the folder of the run."""
    named = [] if data is None else ["--data", folder / data]
    words = [folder / parent, *named, "--out", out, *SHORT, *options]
    assert exit_code("extend", *words) == code
    runs = find_runs(out) if out.exists() and (out / "runs").exists() else []
    return runs[0] if runs else None


def predictions(potential, species, positions):
    """Energies and forces of every head of the first member."""
    model = build_model(potential.card.architecture, potential.card.labels)
    model.parameters.load_state_dict(potential.members[0].parameters.state_dict())
    return outputs(model, species, positions)


def differences(one, other, levels, **where):
    """The largest difference of energies and forces of some levels of two potentials."""
    species, positions = structures(4, seed=9)
    keep = (species != 6).all(dim=1)
    found = [predictions(each, species[keep], positions[keep]) for each in (one, other)]
    names = [name for level in levels for name in (level.energy_name, level.forces_name)]
    return max(float((found[0][n] - found[1][n]).abs().max()) for n in names)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_model_with_a_new_level_and_a_new_element_predicts_what_its_parent_does(dtype):
    # In single precision sums over one more element may be taken in another order.
    tolerance = SAME if dtype is torch.float64 else 1e-4
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        parent = tiny_model({"DZ": "EF", "TZ": "EF"}, seed=3)
        labels = parse_labels({"DZ": "EF", "TZ": "EF", "CC": "EF"})
        hyperparameters = Hyperparameters(n_features=4, n_sensitivities=4, n_atom_layers=1,
                                          species=(0, 1, 5, 6, 7, 8, 9))  # fmt: skip
        child = build_model(hyperparameters, labels, bases={CC: TZ})
        state = parent.parameters.state_dict()
        axes = extend_model(child, state, [1, 6, 7, 8], {CC: TZ})
        grown = child.parameters.state_dict()
        species, positions = structures(4)
        found, expected = (outputs(each, species, positions) for each in (child, parent))
    finally:
        torch.set_default_dtype(before)
    for name, values in expected.items():
        assert float((found[name] - values).abs().max()) < tolerance, name
    assert float(expected[DZ.forces_name].abs().max()) > 1e-3
    assert float((found[CC.forces_name] - found[TZ.forces_name]).abs().max()) < 1e-2
    assert torch.equal(grown["network.blocks.0.0.adjust_layer.weight"][:, [0, 2, 3, 4]],
                       torch.eye(4, dtype=dtype))  # fmt: skip
    columns = torch.tensor([0, 2, 3, 4])
    for name, axis in axes.items():
        # With as many features as elements one layer is missing, which is then the identity.
        if name in state:
            assert torch.equal(grown[name].index_select(axis, columns), state[name])


def test_heads_without_data_stay_as_they_are_below_a_frozen_trunk(folder, tmp_path, capsys):
    run = extended(folder, tmp_path / "out", "--seeds", "1")
    terminal = capsys.readouterr()
    assert "Labels CC/E: all that the data have" in terminal.err
    assert "Trunk frozen: DZ, TZ have no labels here" in terminal.err
    assert "New level CC: TZ plus a correction." in terminal.err
    parent, child = Potential.load(folder / "parent.safetensors"), export_runs([run.path])
    assert differences(parent.member(1), child, [DZ, TZ]) < SAME
    old = parent.member(1).members[0].parameters.state_dict()
    new = child.members[0].parameters.state_dict()
    assert all(torch.equal(new[name], value) for name, value in old.items()
               if isinstance(value, torch.Tensor))  # fmt: skip
    # The new head has learned something: it is not the one that it began as.
    names = [f"heads.{CC.id}.layers.1.weight", f"heads.{TZ.id}.layers.1.weight"]
    assert not torch.allclose(new[names[0]], new[names[1]], atol=1e-3)
    assert [level.trained for level in child.card.levels] == [
        ("energy", "forces"), ("energy",), ("energy",),
    ]  # fmt: skip
    # A model file like any other, which can be extended again.
    child.save(tmp_path / "child.safetensors")
    again = extended(tmp_path, tmp_path / "again", data=folder / "more.h5",
                     parent="child.safetensors")  # fmt: skip
    assert differences(child, export_runs([again.path]), [DZ, TZ]) < SAME


def test_before_the_first_step_the_parent_predicts_and_labels_give_atomic_energies(
    folder, tmp_path
):
    request = Request(data=folder / "more.h5", out=tmp_path)
    (settings,) = build_extension(request, [folder / "parent.safetensors"]).settings[:1]
    parts = load_inputs([settings])
    from hippynn_mf.runs.parent_files import keep_parent
    from hippynn_mf.runs.self_energies import self_energies_of_run

    run = RunFolder(tmp_path)
    keep_parent(run, settings)
    whole = settings.with_self_energies(self_energies_of_run(settings, parts["train"]))
    model, _ = extended_model(run, whole, parts["train"])
    from hippynn_mf.data.arrays import reference_energies
    from hippynn_mf.model.predicting import predict_arrays

    train = parts["train"]
    level = whole.known.get("CC")
    predicted = predict_arrays(model, train.species, train.positions, batch_size=64)
    parent = Potential.load(folder / "parent.safetensors").member(0).members[0]
    expected = predict_arrays(parent, train.species, train.positions, batch_size=64)
    for name in (DZ.energy_name, TZ.energy_name):
        assert np.abs(predicted[name] - expected[name]).max() < 1e-4  # of 60, in single precision
    residuals = reference_energies(train, level) - predicted[level.energy_name]
    water = (train.species[:] == 8).any(axis=1)
    nitrogen = (train.species[:] > 0).sum(axis=1) == 2
    for chosen in (water, nitrogen, ~water & ~nitrogen):  # as many compositions as elements
        assert abs(residuals[chosen].mean()) < 0.05
    assert np.abs(residuals).max() > 0.1
    frozen = {name for name, p in model.parameters.named_parameters() if not p.requires_grad}
    assert any(name.startswith("network.") for name in frozen)
    assert f"heads.{CC.id}.layers.0.weight" in frozen
    assert f"heads.{CC.id}.layers.1.weight" not in frozen


def test_replay_trains_the_trunk_and_keeps_the_splits_of_the_parent(
    folder, tmp_path, capsys, caplog
):
    parent = "parents/runs/mf_dz_ef_tz_e/seed-0"
    _copy_some(folder / "low.h5", folder / "copies.h5", 20)
    run = extended(folder, tmp_path / "out", "--replay", parent=parent, data="copies.h5")
    terminal = capsys.readouterr()
    assert "Trunk trained: every level of the parent is trained, too." in terminal.err
    assert "60 of its 60 structures are in the data of the parent" in caplog.text
    settings = run.read_settings()
    assert settings.labels == {DZ.id: "EF", TZ.id: "E", CC.id: "E"}
    parts = load_inputs([settings])
    before = load_inputs([RunFolder(folder / parent).read_settings()])
    assert len(parts["train"]) == len(before["train"])  # one conformer is one structure
    assert parts["train"].has_energy(CC).all()
    for split in ("valid", "test"):
        assert not find_shared(parts["train"], before[split]).any()
        assert find_shared(before[split], parts[split]).all()
    changes = run.read_metrics()["parent"]["heldout"]
    assert set(changes) == {DZ.id, TZ.id}
    assert set(changes[DZ.id]) == {"energy", "force"}
    assert "level of the parent" in terminal.out
    assert not any("nan" in text for text in run.read_metrics()["warnings"])
    state = torch.load(run.file("model.pt"), weights_only=True)
    old = torch.load(folder / parent / "model.pt", weights_only=True)
    name = "network.blocks.0.0.base_layer.int_weights"
    assert not torch.equal(state[name], old[name])
    # Without replay, what tested the parent still tests, and none of it is trained on.
    alone = extended(folder, tmp_path / "alone", parent=parent, data="copies.h5")
    parts = load_inputs([alone.read_settings()])
    assert not find_shared(parts["train"], before["test"]).any()
    assert find_shared(before["test"], parts["test"]).all()
    # Evaluated again, it still says what became of the parent's levels.
    assert exit_code("evaluate", alone.path) == 0
    assert set(alone.read_metrics()["parent"]["heldout"]) == {DZ.id, TZ.id}


def _copy_some(source, target, n):
    """The same structures with CC labels alone, moved."""
    with h5py.File(source) as old, h5py.File(target, "w") as new:
        for name, group in old.items():
            made = new.create_group(name)
            made["atomic_numbers"] = group["atomic_numbers"][()]
            made["coordinates"] = group["coordinates"][:n] + np.float32(0.5)
            made["ccsd(t)_cbs.energy"] = group["ccsd(t)_cbs.energy"][:n]


def test_a_new_element_leaves_the_others_as_they_are(folder, tmp_path, capsys):
    run = extended(folder, tmp_path / "out", data="carbon.h5")
    assert "New elements: C." in capsys.readouterr().err
    parent, child = Potential.load(folder / "parent.safetensors").member(0), export_runs([run.path])
    assert child.card.species == [1, 6, 7, 8]
    assert child.card.species_of(CC.id) == [1, 6, 7, 8]
    assert child.card.species_of(DZ.id) == child.card.species_of(TZ.id) == [1, 7, 8]
    assert differences(parent, child, [DZ, TZ]) < 2e-5  # of 60, in single precision
    name = "network.blocks.0.0.base_layer.int_weights"
    old, new = (each.members[0].parameters.state_dict()[name] for each in (parent, child))
    assert torch.equal(new[..., [0, 2, 3]], old)
    assert not torch.equal(new[..., 1], old.mean(dim=-1))  # which is trained
    # Its held-out structures hold carbon, of which the heads of the parent say nothing.
    assert set(run.read_metrics()["sets"]["heldout"]) == {CC.id}
    assert "heldout" in run.read_metrics()["parent"] or not run.read_metrics()["parent"]


def test_an_extension_goes_on_without_its_parent_and_refuses_another(
    folder, tmp_path, monkeypatch, capsys, caplog
):
    shutil.copy(folder / "parent.safetensors", tmp_path / "parent.safetensors")
    shutil.copy(folder / "more.h5", tmp_path / "more.h5")
    whole = extended(tmp_path, tmp_path / "whole", "--seeds", "0")
    save = Checkpoints.__call__

    def stop_after_one(self, epoch, better):
        save(self, epoch, better)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "__call__", stop_after_one)
        begun = extended(tmp_path, tmp_path / "out", "--seeds", "0", code=130)
    assert not begun.is_finished
    assert begun.n_epochs == 1
    (tmp_path / "parent.safetensors").unlink()
    run = extended(tmp_path, tmp_path / "out", "--seeds", "0")
    assert "is not there any more" in caplog.text
    states = [torch.load(each.file("model.pt"), weights_only=True) for each in (whole, run)]
    assert all(torch.equal(states[1][k], v) for k, v in states[0].items()
               if isinstance(v, torch.Tensor))  # fmt: skip
    capsys.readouterr()
    other = Potential.load(folder / "parent.safetensors")
    with torch.no_grad():
        next(other.members[0].parameters.parameters()).add_(0.1)
    other.save(tmp_path / "parent.safetensors")
    before = files_below(tmp_path / "out")
    extended(tmp_path, tmp_path / "out", "--seeds", "0", code=2)
    assert "parent.safetensors has changed since" in capsys.readouterr().err
    assert files_below(tmp_path / "out") == before


def test_members_and_seeds(folder, tmp_path):
    def of(*names, **values):
        request = Request(data=folder / "more.h5", out=tmp_path, **values)
        return build_extension(request, [folder / name for name in names])

    both = of("parents/runs/mf_dz_ef_tz_e/seed-0", "parents/runs/mf_dz_ef_tz_e/seed-1")
    assert [run.seed for run in both.settings] == [0, 1]
    assert both.settings[0].parent.run is not None
    file = of("parent.safetensors", seeds=(1, 7))
    assert [run.parent.member(run.seed) for run in file.settings] == [1, 1]
    assert "Seed 7 starts from member 1." in file.lines
    assert file.settings[0].parent.members == both.settings[0].parent.members
    assert file.settings[0].hyperparameters.n_features == 6
    assert file.settings[0].preset == "robust"


def test_a_level_below_all_others_begins_as_a_copy(folder, tmp_path):
    levels = [{"label": "XTB", "rank": 1.0, "energy_keys": ["ccsd(t)_cbs.energy"],
               "self_energies_hartree": dict(CC.self_energies)}]  # fmt: skip
    request = Request(data=folder / "more.h5", out=tmp_path, levels=levels, labels={"XTB": "E"})
    asked = build_extension(request, [folder / "parent.safetensors"])
    assert "New level XTB: a copy of DZ, there being no lower one." in asked.lines
    assert asked.settings[0].coupled == {}
    assert [level.label for level in asked.settings[0].model_labels] == ["XTB", "DZ", "TZ"]


@pytest.mark.parametrize(
    ("options", "parent", "data", "said"),
    [
        ([], "nothing.safetensors", "more.h5", "No model file"),
        (["--set", "n_features=9"], None, "more.h5", "n_features is 6; found --set n_features=9"),
        (["--set", "dist_hard_max=9.0"], None, "more.h5", "dist_hard_max is 6.5"),
        (["--label", "PBE=E"], None, "more.h5", "PBE"),
        (["--label", "MP2=E"], None, "more.h5", "has no labels MP2/E. It has: CC/E"),
        (["--label", "CC=EF"], None, "more.h5", "has no labels CC/EF. It has: CC/E"),
        ([], None, None, "is a model file, which has no data"),
        (["--replay"], None, "more.h5", "is a model file, which has none"),
        (["--base", "TZ=DZ"], None, "more.h5", "TZ is no new level of this extension. New: CC"),
        (["--base", "CC=PBE"], None, "more.h5", "level of the model"),
        (["--base", "CC"], None, "more.h5", "--base expects NEW=LEVEL"),
        (["--label", "DZ=E", "--label", "CC=E"], None, "elements.h5", "for the element C"),
    ],
)  # fmt: skip
def test_what_cannot_be_extended_is_refused_in_one_message(
    folder, tmp_path, capsys, options, parent, data, said
):
    if data == "elements.h5":  # DZ labels of water alone
        planted.write_ani1x(folder / data, {"H2O": 10, "CH4": 10})
        _only_keys(folder / data, "ccsd(t)_cbs", "wb97x_dz.energy")
        with h5py.File(folder / data, "a") as file:
            file["CH4"]["wb97x_dz.energy"][:] = np.nan
    extended(folder, tmp_path / "out", *options, parent=parent or "parent.safetensors", data=data,
             code=2)  # fmt: skip
    error = capsys.readouterr().err
    assert said in error
    assert error.count("hippynn-mf: ") == 1
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_a_network_does_not_get_as_many_elements_as_features(folder, tmp_path):
    options = ["--data", folder / "low.h5", "--out", tmp_path, *OPTIONS, "--set", "n_features=4"]
    assert exit_code("train", "SF-DZ/E", *options) == 0
    request = Request(data=folder / "carbon.h5", out=tmp_path)
    with pytest.raises(UserError, match="4 features cannot get to 4 elements"):
        build_extension(request, [tmp_path / "runs" / "sf_dz_e" / "seed-0"])


def test_other_self_energies_of_a_level_of_the_parent_are_refused(folder, tmp_path):
    planted_levels = [{"id": TZ.id, "label": "TZ", "rank": TZ.rank,
                       "self_energies_hartree": {1: -0.6}}]  # fmt: skip
    request = Request(data=folder / "more.h5", out=tmp_path, levels=planted_levels)
    with pytest.raises(UserError, match=r"self energy of element 1 at level TZ is -0.6 hartree"):
        build_extension(request, [folder / "parent.safetensors"])


def test_a_declared_level_without_a_place_is_above_those_of_the_parent(folder, tmp_path):
    structures_of_water = made_xyz.molecules(12, seed=4, names=["H2O", "H3N", "N2"])
    made_xyz.save(
        tmp_path / "best.xyz",
        made_xyz.label(structures_of_water, {"energy": ("ccsd(t)_cbs",)}, {}),
    )
    request = Request(data={"BEST": tmp_path / "best.xyz"}, out=tmp_path, levels=["BEST"])
    asked = build_extension(request, [folder / "parent.safetensors"])
    assert "New level BEST: TZ plus a correction." in asked.lines
    request = Request(
        data={"BEST": tmp_path / "best.xyz"}, out=tmp_path, levels=["DZ", "BEST", "TZ"]
    )
    asked = build_extension(request, [folder / "parent.safetensors"], bases={"BEST": "TZ"})
    assert asked.settings[0].parent.bases == {"BEST": TZ.id}
    assert asked.settings[0].coupled == {}  # TZ is above it
    with pytest.raises(UserError, match="no new level"):
        build_extension(request, [folder / "parent.safetensors"], bases={"MP2": "TZ"})
    assert MP2.rank > TZ.rank


def test_changes_of_errors_have_intervals_of_pairs():
    random = np.random.default_rng(3)
    errors = random.normal(size=200)
    same = compare_rmse(errors**2, errors**2)
    assert same.before == pytest.approx(np.sqrt(np.mean(errors**2)))
    assert (same.low, same.high, same.verdict) == (0.0, 0.0, "unchanged")
    worse = compare_rmse(errors**2, (1.2 * errors) ** 2)
    assert worse.now == pytest.approx(1.2 * worse.before)
    # Paired: twenty percent are seen where each error's own interval is wider than that.
    assert 0.1 * worse.before < worse.low < 0.2 * worse.before < worse.high < 0.3 * worse.before
    assert worse.verdict == "worse"
    assert compare_rmse((1.2 * errors) ** 2, errors**2).verdict == "better"
    noise = compare_rmse(errors**2, random.permutation(errors) ** 2)
    assert noise.verdict == "no sure change"
    assert compare_rmse(np.ones(2), 2 * np.ones(2)).verdict == "too few structures"
    # Components are counted, not structures.
    counted = compare_rmse(np.array([3.0, 12.0]), np.array([3.0, 12.0]), np.array([3.0, 12.0]))
    assert counted.before == pytest.approx(1.0)


def test_joined_structures_keep_their_labels_and_go_where_they_were(folder):
    from hippynn_mf.data.formats.ani1x import read_ani1x

    high, _ = read_ani1x(folder / "more.h5", {CC: Properties.E})
    low, _ = read_ani1x(folder / "low.h5", {DZ: Properties.EF})
    both = join_structures([high, low])
    assert len(both) == len(high) + len(low) == 120
    assert both.has_energy(CC).sum() == len(high)
    assert np.array_equal(both.energies[DZ.id][len(high) :], low.energies[DZ.id])
    assert np.array_equal(
        both.positions[:][len(high) :, : low.positions.shape[1]], low.positions[:]
    )
    assert both.has_forces(DZ).sum() == len(low)
    assert elements_of(both.species) == elements_of(low.species)
    assert [name for name, _ in both.by_group()] == list(both.group_names)
    before = {"train": low[:40], "valid": low[40:50], "test": low[50:]}
    mixed = {"train": low[45:55], "valid": high[:5], "test": low[:2]}
    found, counts = sorted_into(mixed, before)
    assert {k: len(v) for k, v in found.items()} == {"train": 2, "valid": 10, "test": 5}
    assert counts == {"train": 2, "valid": 5, "test": 5}
