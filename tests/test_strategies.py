"""Strategies: what each phase trains on and starts from, and the model that they make together."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from made_runs import TINY_OPTIONS, build_settings, exit_code, make_run, make_settings, run_metrics
from planted import write_ani1x
from test_checkpoints import Killed

from hippynn_mf import UserError
from hippynn_mf.campaign.status import read_status
from hippynn_mf.data.fractions import keep_labels
from hippynn_mf.data.loading import load_splits
from hippynn_mf.labels import Properties, parse_labels
from hippynn_mf.levels import CC, DZ, PAPER_LEVELS, TZ, Difference, Level
from hippynn_mf.model.model import build_model
from hippynn_mf.model.predicting import build_predictor
from hippynn_mf.paper.table1 import beyond_table1, get_experiment, table1
from hippynn_mf.potentials.card import format_card
from hippynn_mf.report.learning import make_learning_curves
from hippynn_mf.report.results import read_results
from hippynn_mf.runs import checkpoints, phases
from hippynn_mf.runs.experiment import Experiment
from hippynn_mf.runs.exporting import export_runs
from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.runs.models import load_best, model_of, read_state
from hippynn_mf.runs.phases import phase_database, start_from
from hippynn_mf.runs.teaching import with_taught_forces
from hippynn_mf.runs.train import train_run
from hippynn_mf.training.strategies import STRATEGIES, get_strategy
from hippynn_mf.units import KCAL_PER_MOL_PER_HARTREE

pytestmark = pytest.mark.filterwarnings("ignore:Provided distances are underneath:UserWarning")

N_EPOCHS = 3
CPU = torch.device("cpu")
SIZES = {
    "n_interaction_layers": 1,
    "n_atom_layers": 1,
    "n_features": 4,
    "n_sensitivities": 4,
    "dist_soft_min": 0.5,
    "batch_size": 16,
    "learning_rate": 0.05,
    "max_epochs": N_EPOCHS,
}
LABELS = {"DZ": "EF", "CC": "E"}
SEVERAL_PHASES = ["TL", "TLF", "DELTA", "META", "EKD"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_ani1x(tmp_path_factory.mktemp("data") / "planted.h5", 24)


def settings_of(prefix, data, labels=LABELS, seed=0, **changes):
    experiment = Experiment(labels=labels, prefix=prefix)
    options = {"overrides": SIZES | changes.pop("overrides", {}), "device": "cpu"} | changes
    return build_settings([experiment], [seed], data=data, **options)[0]


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """Finished runs of every strategy, by prefix: settings and folder."""
    out = tmp_path_factory.mktemp("out")
    settings = {prefix: settings_of(prefix, data) for prefix in (*SEVERAL_PHASES, "MFC", "MF")}
    settings["SF"] = settings_of("SF", data, {"DZ": "EF"})
    return {prefix: (each, train_run(each, out)) for prefix, each in settings.items()}


def parts_of(data, labels=LABELS):
    return load_splits(
        data, parse_labels(labels), common_levels=PAPER_LEVELS, rows="common", split_seed=0
    )


def inputs_of(part):
    return {
        "species": torch.as_tensor(part.species[:]).long(),
        "positions": torch.as_tensor(part.positions[:]),
    }


def of(state, prefix):
    return {name: value for name, value in state.items() if name.startswith(prefix)}


def assert_equal(state, other, prefix):
    assert of(state, prefix).keys() == of(other, prefix).keys() != set()
    for name, value in of(state, prefix).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, other[name]), name


def differs(state, other, prefix):
    return any(
        not torch.equal(value, other[name])
        for name, value in of(state, prefix).items()
        if isinstance(value, torch.Tensor)
    )


# Names


def test_every_strategy_beside_the_paper_s_has_a_script_on_the_same_labels():
    experiments = beyond_table1()
    base = get_experiment("MF-DZ/EF-CC/E")
    same = [e for e in experiments if e.resolved_labels == base.resolved_labels]
    assert {e.strategy.prefix for e in same} == set(STRATEGIES) - {"SF", "MF"}
    for experiment in experiments:
        assert get_experiment(experiment.name) == experiment == get_experiment(experiment.slug)
        assert experiment.script == f"experiments/strategies/{experiment.slug}.py"
    rows = [e.row for e in (*table1(), *experiments)]
    assert rows == list(range(1, len(rows) + 1))


def test_a_run_knows_its_strategy(data):
    for prefix in STRATEGIES:
        settings = settings_of(prefix, data, {"DZ": "EF"} if prefix == "SF" else LABELS)
        assert settings.strategy == prefix
        assert settings.experiment.strategy is STRATEGIES[prefix]
        assert settings.name.startswith(f"{prefix}-DZ/EF")


@pytest.mark.parametrize(
    ("prefix", "labels", "message"),
    [
        ("SF", LABELS, "SF (single-fidelity) learns 1 level; found 2: DZ, CC."),
        ("MF", {"DZ": "EF"}, "MF (multi-fidelity) learns at least 2 levels; found 1: DZ."),
        ("TL", {"CC": "E"}, "learns at least 2 levels; found 1: CC"),
        ("DELTA", LABELS | {"TZ": "E"}, "learns 2 levels; found 3: DZ, TZ, CC"),
        ("TF", LABELS, "Unknown strategy 'TF'"),
    ],
)
def test_wrong_strategies_are_refused(prefix, labels, message, data):
    with pytest.raises(UserError, match=re.escape(message)):
        settings_of(prefix, data, labels)


def test_a_difference_has_no_forces_to_learn(data):
    with pytest.raises(UserError, match=r"found CC/EF. Ask for CC/E"):
        _ = Experiment(labels={"DZ": "EF", "CC": "EF"}, prefix="DELTA").phases


def test_taught_forces_are_of_a_level_without(data):
    with pytest.raises(UserError, match=r"found CC/EF. Ask for CC/E, or for MF"):
        _ = Experiment(labels={"DZ": "EF", "CC": "EF"}, prefix="EKD").phases


def test_what_a_strategy_stands_for_is_not_overridden(data):
    assert settings_of("MFC", data).hyperparameters.coupling == "delta"
    assert settings_of("MF", data).hyperparameters.coupling == "independent"
    with pytest.raises(UserError, match="MFC-DZ/EF-CC/E stands for coupling=delta; found --set"):
        settings_of("MFC", data, overrides={"coupling": "independent"})


# Phases


def test_transfer_trains_every_lower_level_first():
    labels = parse_labels({"DZ": "EF", "TZ": "E", "CC": "E"})
    pretraining, tuning = get_strategy("TL").phases(labels)
    assert dict(pretraining.labels) == {DZ: Properties.EF, TZ: Properties.E}
    assert dict(tuning.labels) == {CC: Properties.E}
    assert tuning.starts_from == TZ


def test_pretraining_is_the_single_fidelity_training_of_the_low_level(runs):
    alone = read_state(runs["SF"][1])
    for prefix, name in (("TL", "pretraining"), ("TLF", "pretraining"), ("DELTA", "low-level")):
        assert_equal(read_state(runs[prefix][1].phase(name)), alone, "network.")
        assert_equal(read_state(runs[prefix][1].phase(name)), alone, "heads.")


def test_fine_tuning_starts_from_the_pretrained_weights(data, monkeypatch, tmp_path):
    started = []
    original = phases.prepare_training

    def prepare(model, database, hyperparameters, **keywords):
        training = original(model, database, hyperparameters, **keywords)
        state = model.parameters.state_dict()
        copied = {k: v.clone() if hasattr(v, "clone") else v for k, v in state.items()}
        started.append((copied, hyperparameters, database))
        return training

    monkeypatch.setattr(phases, "prepare_training", prepare)
    settings = settings_of("TL", data)
    folder = train_run(settings, tmp_path)
    before = read_state(folder.phase("pretraining"))
    state, hyperparameters, database = started[1]
    assert_equal(state, before, "network.")
    for layer in ("layers.1.weight", "layers.1.bias"):
        of_cc = state[f"heads.{CC.id}.{layer}"]
        assert torch.equal(of_cc, before[f"heads.{DZ.id}.{layer}"])
        assert of_cc.abs().max() > 0
    assert hyperparameters.learning_rate == pytest.approx(0.05 * 0.5)
    # Atomic energies are those that CC energies ask for, by least squares.
    train = database.splits["train"]
    counts = np.stack([(train["species"].numpy() == z).sum(axis=1) for z in (1, 6, 7, 8)], axis=1)
    energies = train[CC.energy_name].numpy()[:, 0].astype(float)
    found = state[f"heads.{CC.id}.layers.0.weight"][0].numpy()
    residual = energies - counts @ found
    assert np.abs(counts.T @ residual).max() < 1e-2 * np.abs(counts.T @ energies).max()


def test_transfer_changes_all_layers_and_frozen_transfer_only_the_others(runs):
    for prefix, frozen in (("TL", False), ("TLF", True)):
        before = read_state(runs[prefix][1].phase("pretraining"))
        after = read_state(runs[prefix][1])
        assert differs(after, before, "network.blocks.0.0.") is not frozen
        assert differs(after, before, "network.blocks.0.1.")
        assert_equal(after, before, f"heads.{DZ.id}.")


def test_each_phase_sees_its_labels_alone(data):
    parts = dict(parts_of(data))
    parts["train"] = keep_labels(parts["train"], parse_labels(LABELS), {CC: 0.25}, 0)
    settings = settings_of("TL", data)
    pretraining, tuning = settings.experiment.phases
    n = len(parts["train"])
    first = phase_database(pretraining, parts, settings).splits["train"]
    second = phase_database(tuning, parts, settings).splits["train"]
    assert len(first["species"]) == n
    assert CC.energy_name not in first
    assert len(second["species"]) == round(0.25 * n)
    assert torch.isfinite(second[CC.energy_name]).all()
    assert DZ.energy_name not in second


# Δ-learning


@pytest.mark.parametrize("prefix", ["TL", "TLF", "META"])
def test_strategies_that_train_a_head_alone_have_independent_ones(prefix, data):
    with pytest.raises(UserError, match=f"{prefix}-DZ/EF-CC/E stands for coupling=independent"):
        settings_of(prefix, data, overrides={"coupling": "delta"})


@pytest.mark.parametrize("prefix", ["TL", "TLF", "META"])
def test_the_assembled_high_level_is_that_of_the_last_phase(prefix, runs, data):
    settings, folder = runs[prefix]
    model = model_of(settings)
    load_best(model, folder)
    alone = build_model(settings.hyperparameters, parse_labels({"CC": "E"}))
    state = read_state(folder)
    alone.parameters.load_state_dict({k: v for k, v in state.items() if DZ.id not in k})
    values = inputs_of(parts_of(data)["test"])
    found, expected = (build_predictor(m)(**values)[CC.energy_name] for m in (model, alone))
    torch.testing.assert_close(found, expected)


def test_differences_need_structures_with_both_levels(tmp_path):
    groups = ("H2O", "CH4", "H3N", "CHN", "N2")
    lost = {name: {"ccsd(t)_cbs.energy": slice(0, 12)} for name in groups}
    for name in groups:
        lost[name]["wb97x_dz.energy"] = slice(12, 24)
    path = write_ani1x(tmp_path / "disjoint.h5", 24, missing=lost)
    settings = settings_of("DELTA", path, rows="all")
    with pytest.raises(UserError, match="energies of both CC and DZ; the train split has none"):
        train_run(settings, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_second_network_learns_the_difference_of_both_energies(data):
    settings = settings_of("DELTA", data)
    parts = parts_of(data)
    _, phase = settings.experiment.phases
    (level,) = phase.labels
    arrays = phase_database(phase, parts, settings).splits["train"]
    energies = parts["train"].energies
    expected = (energies[CC.id] - energies[DZ.id]) * KCAL_PER_MOL_PER_HARTREE
    np.testing.assert_allclose(arrays[level.energy_name].numpy()[:, 0], expected, rtol=1e-6)
    assert np.ptp(expected) > 1


def test_self_energies_of_a_difference_are_those_of_its_levels():
    low = Level("a", "A", "", "", 1, ("a.energy",), self_energies={1: -0.5, 6: -37.0})
    high = Level("b", "B", "", "", 2, ("b.energy",), self_energies={1: -0.6, 6: -38.0, 8: -75.0})
    assert Difference(high, low).level.self_energies == pytest.approx({1: -0.1, 6: -1.0})


def test_the_sum_of_both_networks_is_the_high_level_and_is_differentiated(runs, data):
    settings, folder = runs["DELTA"]
    test = parts_of(data)["test"]
    whole = model_of(settings, parse_labels({"DZ": "EF", "CC": "EF"}))
    load_best(whole, folder)
    low = build_model(settings.hyperparameters, parse_labels({"DZ": "EF"}))
    load_best(low, folder.phase("low-level"))
    level = Difference(CC, DZ).level
    own = build_model(settings.hyperparameters, {level: Properties.EF})
    state = read_state(folder)
    names = {f"corrections.{CC.id}.": "network.", f"heads.{CC.id}.": f"heads.{level.id}."}
    own.parameters.load_state_dict(
        {
            new + k.removeprefix(old): v
            for old, new in names.items()
            for k, v in of(state, old).items()
        }
    )
    values = inputs_of(test)
    found, below, above = (build_predictor(m)(**values) for m in (whole, low, own))
    for kind in ("energy", "forces"):
        torch.testing.assert_close(found[f"{DZ.id}.{kind}"], below[f"{DZ.id}.{kind}"])
        total = below[f"{DZ.id}.{kind}"] + above[f"{level.id}.{kind}"]
        torch.testing.assert_close(found[f"{CC.id}.{kind}"], total, rtol=1e-4, atol=1e-3)
        assert above[f"{level.id}.{kind}"].abs().max() > 1e-2


def test_a_sum_of_two_networks_does_not_fit_into_a_model_file(runs):
    with pytest.raises(UserError, match=r"has two networks .*Export another strategy"):
        export_runs([runs["DELTA"][1].path])
    for prefix in ("TL", "META", "MFC"):
        potential = export_runs([runs[prefix][1].path])
        dz, cc = potential.card.levels
        assert cc.trained == ("energy",)
        assert dz.trained == (("energy", "forces") if prefix == "MFC" else ())
        assert "nothing since the trunk was fine-tuned" in format_card(potential.card) or dz.trained


# Runs


def test_predictions_are_those_of_the_assembled_model(runs, data):
    test = parts_of(data)["test"]
    for prefix in SEVERAL_PHASES:
        settings, folder = runs[prefix]
        model = model_of(settings)
        load_best(model, folder)
        values = inputs_of(test)
        found = build_predictor(model)(**values)
        stored = folder.read_predictions()
        for level in (DZ, CC):
            np.testing.assert_allclose(
                stored[f"heldout.{level.energy_name}"], found[level.energy_name][:, 0], rtol=1e-5
            )
        metrics = folder.read_metrics()
        n_epochs = N_EPOCHS * len(settings.experiment.phases)
        assert metrics["training"]["n_epochs"] == n_epochs
        assert metrics["training"]["cpu_s"] > 0
        assert metrics["inference"]["level"] == CC.id


@pytest.mark.parametrize("prefix", SEVERAL_PHASES)
@pytest.mark.parametrize("n_epochs", [2, N_EPOCHS + 2], ids=["first phase", "last phase"])
def test_a_run_interrupted_in_any_phase_ends_with_the_same_weights(
    prefix, n_epochs, runs, data, tmp_path
):
    original = checkpoints.Checkpoints.__call__
    saved = []

    def save(self, epoch, better):
        original(self, epoch, better)
        saved.append(epoch)
        if len(saved) == n_epochs:
            raise Killed

    settings, whole = runs[prefix]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints.Checkpoints, "__call__", save)
        with pytest.raises(Killed):
            train_run(settings, tmp_path)
    folder = RunFolder.of(tmp_path, settings)
    assert folder.n_epochs == n_epochs
    (status,) = read_status(tmp_path)
    n_planned = N_EPOCHS * len(settings.experiment.phases)
    assert (status.state, status.n_epochs, status.max_epochs) == (
        *("interrupted", n_epochs),
        n_planned,
    )
    train_run(settings, tmp_path)
    expected, found = read_state(whole), read_state(folder)
    tensors = {k: v for k, v in expected.items() if isinstance(v, torch.Tensor)}
    torch.testing.assert_close({k: found[k] for k in tensors}, tensors, rtol=1e-6, atol=1e-6)
    assert folder.n_epochs == n_planned


def test_an_interrupted_reptile_goes_on_with_its_adam(data, tmp_path):
    settings = settings_of("META", data, overrides={"meta_adam": "persistent"})
    whole = train_run(settings, tmp_path / "whole")
    original, saved = checkpoints.Checkpoints.__call__, []

    def save(self, epoch, better):
        original(self, epoch, better)
        saved.append(epoch)
        if len(saved) == 2:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints.Checkpoints, "__call__", save)
        with pytest.raises(Killed):
            train_run(settings, tmp_path / "killed")
    expected, found = read_state(whole), read_state(train_run(settings, tmp_path / "killed"))
    tensors = {k: v for k, v in expected.items() if isinstance(v, torch.Tensor)}
    torch.testing.assert_close({k: found[k] for k in tensors}, tensors, rtol=1e-6, atol=1e-6)


def test_a_phase_without_its_epochs_is_trained_again(runs, tmp_path):
    settings, whole = runs["TL"]
    folder = RunFolder.of(tmp_path, settings)
    shutil.copytree(whole.path, folder.path)
    folder.file("metrics.json").unlink()
    folder.phase("pretraining").file("epochs.jsonl").unlink()
    train_run(settings, tmp_path)
    assert folder.n_epochs == folder.read_metrics()["training"]["n_epochs"] == 2 * N_EPOCHS


def test_heads_that_fine_tuning_leaves_aside_are_not_maintained():
    maintained = {p: get_experiment(f"{p}-DZ/EF-CC/E").maintained_levels for p in SEVERAL_PHASES}
    fine_tuned = {"TL": {CC}, "TLF": {CC}, "META": {CC}}
    assert maintained == fine_tuned | {"DELTA": {DZ, CC}, "EKD": {DZ, CC}}
    for name in ("MF-DZ/EF-CC/E", "MFC-DZ/EF-CC/E"):
        assert get_experiment(name).maintained_levels == {DZ, CC}


def test_phases_draw_their_weights_apart(runs):
    state = read_state(runs["DELTA"][1])
    name = "blocks.0.0.base_layer.int_weights"
    first, second = state[f"network.{name}"], state[f"corrections.{CC.id}.{name}"]
    assert (first - second).abs().max() > 1e-2


def test_start_from_takes_the_trunk_and_one_head(runs):
    settings, folder = runs["MF"]
    state = read_state(folder)
    model = build_model(settings.hyperparameters, parse_labels({"TZ": "E"}))
    start_from(model, state, DZ)
    found = model.parameters.state_dict()
    assert_equal(found, state, "network.")
    for name, value in of(found, f"heads.{TZ.id}.").items():
        assert torch.equal(value, state[name.replace(TZ.id, DZ.id)])


def test_a_cost_counts_every_phase():
    costs = {name: get_experiment(name).relative_cost for name in ("SF-DZ/EF", "SF-CC/E")}
    expected = sum(costs.values())
    assert get_experiment("TL-DZ/EF-CC/E").relative_cost == pytest.approx(expected)
    assert get_experiment("DELTA-DZ/EF-CC/E").relative_cost == pytest.approx(expected)
    joint = get_experiment("MF-DZ/EF-CC/E").relative_cost
    assert get_experiment("MFC-DZ/EF-CC/E").relative_cost == joint
    assert get_experiment("META-DZ/EF-CC/E").relative_cost == pytest.approx(
        joint + costs["SF-CC/E"]
    )


def test_couplings_share_a_table_and_other_settings_do_not(tmp_path):
    hyperparameters = make_settings("MF-DZ/EF-CC/E").hyperparameters
    coupled = hyperparameters.model_copy(update={"coupling": "delta"})
    make_run(tmp_path, "MF-DZ/EF-CC/E", 0, run_metrics())
    make_run(tmp_path, "MFC-DZ/EF-CC/E", 0, run_metrics(), hyperparameters=coupled)
    assert len(read_results(tmp_path).by_name) == 2
    other = coupled.model_copy(update={"n_features": 7})
    make_run(tmp_path, "MFC-DZ/EF-CC/E", 1, run_metrics(), hyperparameters=other)
    with pytest.raises(UserError, match=r"cannot share a table: hyperparameters.n_features"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    ("prefix", "panels"),
    [
        ("TL", {("DZ", "energy"): 1, ("DZ", "forces"): 1, ("CC", "energy"): N_EPOCHS + 1}),
        ("META", {("DZ", "energy"): 1, ("DZ", "forces"): 1, ("CC", "energy"): 1}),
        ("DELTA", {("DZ", "energy"): 1, ("DZ", "forces"): 1, ("CC-DZ", "energy"): N_EPOCHS + 1}),
    ],
)
def test_learning_curves_go_through_all_phases(prefix, panels, runs):
    _, folder = runs[prefix]
    results = read_results(folder.path.parents[2]).only([0])
    figure, data = make_learning_curves(results.members(runs[prefix][0].name))
    label = {level.id: level.label for level in (DZ, CC, Difference(CC, DZ).level)}
    found = {(label[c.level], c.kind): c.epochs[0] for c in data.curves}
    assert found == panels
    lengths = {(label[c.level], c.kind): len(c.median) for c in data.curves}
    expected = 2 * N_EPOCHS if prefix == "META" else N_EPOCHS
    assert lengths[list(panels)[-1]] == expected
    plt.close(figure)


def test_the_plan_and_the_command_know_strategies(data, tmp_path, capsys):
    out = ["--data", data, "--out", tmp_path / "out", *TINY_OPTIONS]
    names = "TL-DZ/EF-CC/E,DELTA-DZ/EF-CC/E"
    assert exit_code("campaign", "--experiments", names, "--seeds", "0", "--dry-run", *out) == 0
    said = capsys.readouterr().out
    assert "TL-DZ/EF-CC/E" in said
    assert "DELTA-DZ/EF-CC/E" in said
    assert exit_code("experiments") == 0
    said = capsys.readouterr().out
    assert "experiments/strategies/meta_dz_ef_cc_e.py" in said


# Taught forces


def test_a_student_learns_the_mean_forces_of_its_teachers(runs, data):
    settings, folder = runs["EKD"]
    *teachers, student = settings.experiment.phases
    assert [phase.labels for phase in teachers] == [settings.experiment.resolved_labels] * 4
    assert student.labels == {DZ: Properties.EF, CC: Properties.EF}
    states = [read_state(folder.phase(phase.name)) for phase in teachers]
    parts = parts_of(data)
    taught = with_taught_forces(
        parts, CC, settings.experiment.resolved_labels, states, settings.hyperparameters, CPU
    )
    assert not taught["test"].has_forces(CC).any()
    assert CC.id not in parts["test"].forces
    for name in ("train", "valid"):
        part = parts[name]
        means = []
        for state in states:
            model = build_model(settings.hyperparameters, parse_labels({"DZ": "EF", "CC": "EF"}))
            model.parameters.load_state_dict(state)
            out = build_predictor(model)(**inputs_of(part))
            means.append(out[CC.forces_name].detach().numpy())
        assert np.std(means, axis=0).max() > 1e-3  # teachers differ
        expected = np.mean(means, axis=0, dtype=np.float64) / KCAL_PER_MOL_PER_HARTREE
        found = taught[name].forces[CC.id][:]
        has_energy = part.has_energy(CC)
        np.testing.assert_allclose(
            found[has_energy], (expected * part.atom_mask[..., None])[has_energy], atol=1e-7
        )
        assert np.array_equal(taught[name].has_forces(CC), has_energy)
        for level, values in part.forces.items():
            assert np.array_equal(taught[name].forces[level][:], values[:], equal_nan=True)


def test_structures_without_the_energy_are_not_taught(runs, data):
    settings, folder = runs["EKD"]
    state = read_state(folder.phase("teacher-1"))
    parts = parts_of(data)
    energies = parts["train"].energies
    lacking = np.where(np.arange(len(parts["train"])) % 2, energies[CC.id], np.nan)
    train = replace(parts["train"], energies={**energies, CC.id: lacking})
    taught = with_taught_forces(
        {**parts, "train": train},
        CC,
        settings.experiment.resolved_labels,
        [state],
        settings.hyperparameters,
        CPU,
    )
    assert np.array_equal(taught["train"].has_forces(CC), np.isfinite(lacking))


def test_teaching_draws_nothing_of_the_student_s_weights(runs, data):
    """As if the teachers had not been asked: the student's first weights are those of its seed."""
    settings, folder = runs["EKD"]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with_taught_forces(
        parts_of(data),
        CC,
        settings.experiment.resolved_labels,
        [read_state(folder.phase("teacher-1"))],
        settings.hyperparameters,
        CPU,
    )
    assert torch.equal(torch.get_rng_state(), before)


def test_a_student_alone_needs_no_lower_level(data, tmp_path):
    settings = settings_of("EKD", data, {"CC": "E"}, overrides={"max_epochs": 1})
    folder = train_run(settings, tmp_path)
    assert settings.name == "EKD-CC/E"
    metrics = folder.read_metrics()
    assert list(metrics["sets"]["heldout"]) == [CC.id]
    kinds = {name.partition(".")[0] for name in folder.read_epochs()[-1]["valid"]}
    assert "force_rmse" in kinds  # of the teachers
