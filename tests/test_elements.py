"""A level predicts the elements that its labels cover, and no others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from made_runs import TINY
from planted import MOLECULES, write_ani1x
from potentials import random_potential

from hippynn_mf.data.database import training_arrays
from hippynn_mf.data.elements import fitted_elements
from hippynn_mf.data.formats.ani1x import read_ani1x
from hippynn_mf.data.loading import load_splits
from hippynn_mf.errors import UserError
from hippynn_mf.hyperparameters import Hyperparameters
from hippynn_mf.labels import parse_labels
from hippynn_mf.levels import CC, DZ, PAPER_LEVELS
from hippynn_mf.model.model import build_model
from hippynn_mf.potentials.calculator import MultiFidelityCalculator
from hippynn_mf.potentials.card import format_card
from hippynn_mf.potentials.potential import Potential, atomic_energies
from hippynn_mf.runs.build import build_settings
from hippynn_mf.runs.exporting import export_runs
from hippynn_mf.runs.preflight import check_inputs
from hippynn_mf.runs.request import Request
from hippynn_mf.runs.train import train_run
from hippynn_mf.training.initial_heads import initialize_heads

SF = parse_labels({"DZ": "E"})
LABELS = parse_labels({"DZ": "EF", "CC": "E"})
NO_CC = {"ccsd(t)_cbs.energy": slice(None)}
WITH_N = [name for name in MOLECULES if "N" in name]


@pytest.fixture
def no_nitrogen_at_cc(tmp_path):
    """DZ labels of all planted molecules, CC labels of those without nitrogen."""
    return write_ani1x(tmp_path / "data.h5", 20, missing=dict.fromkeys(WITH_N, NO_CC))


def settings_for(data, experiment="MF-DZ/EF-CC/E", **asked):
    overrides = {**TINY, "max_epochs": 1, "batch_size": 16} | asked.pop("set", {})
    values = {"experiments": [experiment], "data": data, "rows": "all", "device": "cpu"}
    return build_settings(Request.of(values | {"hyperparameters": overrides} | asked))


@pytest.mark.parametrize("experiment", ["MF-DZ/EF-CC/E", "TL-DZ/EF-CC/E"])
def test_a_head_of_its_own_without_labels_of_an_element_is_refused(no_nitrogen_at_cc, experiment):
    options = {"coupling": "independent"}
    with pytest.raises(UserError) as error:
        check_inputs(settings_for(no_nitrogen_at_cc, experiment, set=options))
    message = str(error.value)
    for part in (r"level CC (ccsd(t)_cbs)", "the element N", "MFC", "leave these structures out"):
        assert part in message


@pytest.mark.parametrize("experiment", ["MFC-DZ/EF-CC/E", "DELTA-DZ/EF-CC/E"])
def test_a_coupled_head_inherits_and_says_so(no_nitrogen_at_cc, experiment, caplog):
    check_inputs(settings_for(no_nitrogen_at_cc, experiment))
    assert "level CC has no label for N; its atomic energy is that of DZ there" in caplog.text


def test_what_is_inherited_is_the_atomic_energy_of_the_lower_level(no_nitrogen_at_cc):
    structures, _ = read_ani1x(no_nitrogen_at_cc, LABELS)
    torch.manual_seed(0)
    model = build_model(Hyperparameters(n_features=4, n_sensitivities=4, coupling="delta"), LABELS)
    arrays = training_arrays(structures, LABELS)
    rows = {name: torch.as_tensor(values[:]) for name, values in arrays.items()}
    database = type("Rows", (), {"splits": {"train": rows}})()
    initialize_heads(model.heads, database)
    assert atomic_energies(model, DZ)[7] != 0
    assert atomic_energies(model, CC)[7] == pytest.approx(0, abs=1e-9)  # the correction
    assert abs(atomic_energies(model, CC)[6]) > 1e-3


def test_a_level_alone_with_an_element_has_nothing_to_add_to(tmp_path):
    """Coupled heads are fitted to differences: none tells N, which DZ has nowhere."""
    lost = {
        name: {"wb97x_dz.energy": slice(None), "wb97x_dz.forces": slice(None)} for name in WITH_N
    }
    path = write_ani1x(tmp_path / "data.h5", 20, missing=lost)
    with pytest.raises(UserError, match=r"level DZ \(wb97x_dz\) for the element N"):
        check_inputs(settings_for(path, "MFC-DZ/EF-CC/E"))


def test_an_element_of_one_other_split_alone_is_refused(tmp_path):
    """The one structure with nitrogen is drawn for test or validation, by some split seed."""
    path = write_ani1x(tmp_path / "data.h5", {"H2O": 15, "CH4": 15, "N2": 1})
    found = set()
    for seed in range(12):
        parts = load_splits(path, SF, common_levels=PAPER_LEVELS, rows="all", split_seed=seed)
        (split,) = [name for name, part in parts.items() if (part.species[:] == 7).any()]
        found.add(split)
        settings = settings_for(path, "SF-DZ/E", split_seed=seed)
        if split == "train":
            check_inputs(settings)
            continue
        message = rf"element N in.* 1 structures of the {split} split hold it.*another --split-seed"
        with pytest.raises(UserError, match=message):
            check_inputs(settings)
    assert len(found) > 1


def test_an_element_of_a_test_set_alone_is_refused(tmp_path):
    data = write_ani1x(tmp_path / "data.h5", {"H2O": 20, "CH4": 20})
    other = write_ani1x(tmp_path / "test.h5", {"N2": 5, "H2O": 5}, seed=3)
    with pytest.raises(UserError, match=r"test\.h5: 5 structures hold N, and SF-DZ/E has no label"):
        check_inputs(settings_for(data, "SF-DZ/E", tests={"mine": other}))


def test_elements_follow_from_labels_alone(no_nitrogen_at_cc):
    structures, _ = read_ani1x(no_nitrogen_at_cc, LABELS)
    alone = fitted_elements(structures, LABELS, coupled=False)
    assert alone == {DZ: {1, 6, 7, 8}, CC: {1, 6, 8}}
    assert fitted_elements(structures, LABELS, coupled=True) == {DZ: {1, 6, 7, 8}, CC: {1, 6, 7, 8}}


def test_a_model_file_lists_the_elements_of_its_levels(tmp_path):
    data = write_ani1x(tmp_path / "data.h5", {"H2O": 20, "CH4": 20})
    (settings,) = settings_for(data, "SF-DZ/E", set={"species": (0, 1, 6, 7, 8)})
    folder = train_run(settings, tmp_path / "out")
    export_runs([folder.path]).save(tmp_path / "model.safetensors")
    potential = Potential.load(tmp_path / "model.safetensors")
    assert potential.card.levels[0].elements == (1, 6, 8)
    assert potential.card.species == [1, 6, 7, 8]
    assert "trained on energy of H, C, O" in format_card(potential.card)
    atoms = Atoms("N2", [[0, 0, 0], [0, 0, 1.1]])
    atoms.calc = MultiFidelityCalculator(potential)
    with pytest.raises(UserError, match=r"Level DZ .* was not trained on N, only on H, C, O"):
        atoms.get_potential_energy()
    atoms = Atoms("OH2", [[0, 0, 0], [0, 0, 1], [0, 1, 0]], calculator=atoms.calc)
    assert np.isfinite(atoms.get_potential_energy())


def test_a_level_predicts_what_another_one_of_the_model_does_not():
    potential = random_potential({"DZ": "EF", "CC": "E"})
    levels = tuple(
        card.model_copy(update={"elements": (1, 6, 8)}) if card.id == CC.id else card
        for card in potential.card.levels
    )
    potential = Potential(potential.card.model_copy(update={"levels": levels}), potential.members)
    atoms = Atoms("N2", [[0, 0, 0], [0, 0, 1.1]])
    atoms.calc = MultiFidelityCalculator(potential, level="DZ")
    assert np.isfinite(atoms.get_forces()).all()
    energies = atoms.calc.get_level_energies(atoms)
    assert np.isfinite(energies[DZ.id]).all()
    assert np.isnan(energies[CC.id]).all()
    with pytest.raises(UserError, match="was not trained on N"):
        MultiFidelityCalculator(potential, level="CC").get_potential_energy(atoms)


def test_runs_of_several_split_seeds_lie_side_by_side(tmp_path):
    data = write_ani1x(tmp_path / "data.h5", 20)
    runs = settings_for(data, "SF-DZ/E", split_seeds=[0, 1, 2], seeds=[0, 5])
    folders = [train_run(run, tmp_path / "out") for run in runs]
    names = [folder.path.name for folder in folders]
    assert names == ["seed-0", "seed-5", "seed-0-split-1", "seed-5-split-1", "seed-0-split-2", "seed-5-split-2"]  # fmt: skip  # noqa: E501
    tested = {np.load(folder.file("split.npz"))["test"].tobytes() for folder in folders}
    assert len(tested) == 3
    again = settings_for(data, "SF-DZ/E", split_seed=1)
    assert train_run(again[0], tmp_path / "out").path == folders[2].path


def test_a_run_folder_of_an_older_version_keeps_its_split(tmp_path):
    data = write_ani1x(tmp_path / "data.h5", 20)
    (settings,) = settings_for(data, "SF-DZ/E", split_seed=3)
    folder = train_run(settings, tmp_path / "out")
    older = folder.path.rename(folder.path.with_name("seed-0"))
    assert train_run(settings, tmp_path / "out").path == older


def test_the_validation_file_of_a_run_is_recorded(tmp_path):
    data = write_ani1x(tmp_path / "data.h5", 20)
    other = write_ani1x(tmp_path / "valid.h5", 5, seed=4)
    (settings,) = settings_for(data, "SF-DZ/E", valid=other)
    folder = train_run(settings, tmp_path / "out")
    stored = folder.read_settings()
    assert stored.valid == settings.valid
    assert stored.sources["valid"].path == other
    (plain,) = settings_for(data, "SF-DZ/E")
    with pytest.raises(UserError, match=r"holds another run: .*valid"):
        train_run(plain, tmp_path / "out")
    write_ani1x(other, 5, seed=6)
    with pytest.raises(UserError, match=r"valid\.h5 has changed"):
        train_run(settings, tmp_path / "other")
