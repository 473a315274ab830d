"""Prediction of files: the same numbers as the calculator's, in order, whatever comes in."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import read, write
from made_runs import exit_code
from potentials import random_potential

from hippynn_mf import MultiFidelityCalculator
from hippynn_mf.errors import UserError
from hippynn_mf.potentials import evaluator, predicting
from hippynn_mf.potentials.potential import Potential
from hippynn_mf.potentials.predicting import predict

LABELS = {"DZ": "EF", "CC": "E"}
FLOAT32_EV = 2e-3  # of random parameters with energies of 10⁴ eV


@pytest.fixture(scope="module")
def ensemble() -> Potential:
    return random_potential(LABELS, n_members=2)


@pytest.fixture
def model_file(tmp_path, ensemble):
    path = tmp_path / "model.safetensors"
    ensemble.save(path)
    return path


def several() -> list[Atoms]:
    """Molecules of several sizes, a cell, and a lone atom, with what must be kept."""
    systems = [molecule(name) for name in ("CH3OH", "H2O", "CH4", "C2H6")]
    systems += [bulk("C", cubic=True), Atoms("O"), molecule("NH3")]
    for number, atoms in enumerate(systems):
        if len(atoms) > 1:
            atoms.rattle(0.05, seed=number)
        atoms.info["name"] = f"number {number}"
        atoms.arrays["tag"] = np.arange(len(atoms))
    return systems


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_predictions_are_those_of_the_calculator(ensemble, batch_size):
    import torch

    systems = several()
    found = list(
        predict(
            ensemble,
            iter(systems),
            ["CC", "DZ"],
            ensemble_std=True,
            batch_size=batch_size,
            dtype=torch.float64,
        )
    )
    assert len(found) == len(systems)
    for atoms, labelled in zip(systems, found, strict=True):
        assert labelled.info["name"] == atoms.info["name"]
        np.testing.assert_array_equal(labelled.arrays["tag"], atoms.arrays["tag"])
        assert "energy_ccsd(t)_cbs" not in atoms.info
        for level in ("wb97x_dz", "ccsd(t)_cbs"):
            atoms.calc = MultiFidelityCalculator(ensemble, level)
            expected = atoms.get_potential_energy(), atoms.get_forces()
            assert labelled.info[f"energy_{level}"] == pytest.approx(expected[0], abs=1e-8)
            np.testing.assert_allclose(labelled.arrays[f"forces_{level}"], expected[1], atol=1e-8)
            spread = atoms.calc.get_property("energy_std", atoms)
            assert labelled.info[f"energy_{level}_std"] == pytest.approx(spread, abs=1e-8)
            spread = atoms.calc.get_property("forces_std", atoms)
            np.testing.assert_allclose(labelled.arrays[f"forces_{level}_std"], spread, atol=1e-8)


def test_a_file_is_predicted_in_its_order(tmp_path, ensemble, model_file, capsys):
    source, target = tmp_path / "in.extxyz", tmp_path / "out.extxyz"
    systems = several()
    write(source, systems, format="extxyz")
    arguments = ["predict", model_file, source, "--level", "CC", "--out", target]
    assert exit_code(*arguments, "--batch-size", 2, "--dtype", "float64", "--device", "cpu") == 0
    assert f"{target}: {len(systems)} structures" in capsys.readouterr().out
    found = read(target, index=":", format="extxyz")
    for atoms, labelled in zip(systems, found, strict=True):
        atoms.calc = MultiFidelityCalculator(ensemble, "CC")
        assert labelled.symbols.get_chemical_formula() == atoms.symbols.get_chemical_formula()
        assert labelled.info["name"] == atoms.info["name"]
        np.testing.assert_array_equal(labelled.pbc, atoms.pbc)
        energy = labelled.info["energy_ccsd(t)_cbs"]
        assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
        forces = labelled.arrays["forces_ccsd(t)_cbs"]
        np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-4)
        assert not any("wb97x" in key for key in [*labelled.info, *labelled.arrays])


def test_formats_of_ase_are_read(tmp_path, model_file):
    for name in ("in.traj", "in.xyz", "in.json", "in.pdb"):
        source, target = tmp_path / name, tmp_path / f"{name}.extxyz"
        write(source, molecule("CH3OH"))
        assert exit_code("predict", model_file, source, "--level", "DZ", "--out", target) == 0
        assert np.isfinite(read(target).info["energy_wb97x_dz"])


def test_float32_is_near_float64(ensemble):
    import torch

    energies = [
        [
            atoms.info["energy_ccsd(t)_cbs"]
            for atoms in predict(ensemble, several(), ["CC"], dtype=d)
        ]
        for d in (torch.float32, torch.float64)
    ]
    np.testing.assert_allclose(*energies, rtol=0, atol=FLOAT32_EV)
    assert energies[0] != energies[1]


def test_reading_is_lazy_and_ahead(ensemble):
    """A trajectory larger than memory can be predicted, and files are read meanwhile."""
    taken = []

    def endless():
        for number in range(10_000):
            taken.append(number)
            yield molecule("H2O")

    predicted = predict(ensemble, endless(), ["DZ"], batch_size=4)
    next(predicted)
    predicted.close()
    assert 4 <= len(taken) <= 4 * (2 + predicting.BATCHES_AHEAD)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "several levels: DZ (wb97x_dz), CC (ccsd(t)_cbs)"),
        (["--level", "TZ"], "Unknown level of this model 'TZ'. Known: DZ, wb97x_dz, CC"),
        (["--level", "CC,"], "Unknown level of this model ''"),
        (["--level", "CC", "--device", "tpu"], "tpu"),
    ],
)
def test_wrong_options_are_refused(tmp_path, model_file, capsys, arguments, expected):
    source, target = tmp_path / "in.xyz", tmp_path / "out.extxyz"
    write(source, molecule("H2O"))
    assert exit_code("predict", model_file, source, *arguments, "--out", target) == 2
    assert expected in capsys.readouterr().err
    assert not target.exists()


def test_wrong_files_are_refused_and_leave_nothing(tmp_path, model_file, capsys):
    good, bad, target = tmp_path / "good.xyz", tmp_path / "bad.xyz", tmp_path / "out.extxyz"
    write(good, [molecule("H2O")] * 5)
    fluorine = molecule("CH3Cl")
    write(bad, [*[molecule("H2O")] * 70, fluorine])
    options = ["--level", "CC", "--out", target]
    truncated = tmp_path / "cut.xyz"
    truncated.write_bytes(good.read_bytes()[:-60])
    empty, text = tmp_path / "empty.xyz", tmp_path / "notes.qqq"
    empty.write_text("")
    text.write_text("no structure at all")
    cases = {
        bad: f"{bad}: structure 70 (CClH3): Atomic numbers [17] are outside the species",
        tmp_path / "none.xyz": "No file",
        truncated: f"{truncated}: ASE cannot read it",
        empty: str(empty),
        text: f"{text}: ASE cannot read it",
    }
    for source, expected in cases.items():
        assert exit_code("predict", model_file, source, *options) == 2
        assert expected in capsys.readouterr().err
        assert not list(tmp_path.glob("*out*"))


def test_outputs_are_not_overwritten(tmp_path, model_file, capsys):
    source, target = tmp_path / "in.xyz", tmp_path / "out.extxyz"
    write(source, molecule("H2O"))
    target.write_text("precious")
    options = ["predict", model_file, source, "--level", "CC", "--out"]
    assert exit_code(*options, target) == 2
    assert "--force" in capsys.readouterr().err
    assert target.read_text() == "precious"
    assert exit_code(*options, tmp_path / "out.csv") == 2
    assert "extended XYZ" in capsys.readouterr().err
    assert exit_code(*options, tmp_path / "nowhere" / "out.extxyz") == 2
    assert "no folder" in capsys.readouterr().err
    assert exit_code(*options, target, "--force") == 0
    assert read(target).info["energy_ccsd(t)_cbs"]


def test_a_single_member_has_no_spread(ensemble):
    with pytest.raises(UserError, match="one member"):
        next(predict(ensemble.member(0), [molecule("H2O")], ["CC"], ensemble_std=True))


def test_large_batches_go_member_by_member(ensemble, monkeypatch):
    expected = [atoms.info["energy_wb97x_dz"] for atoms in predict(ensemble, several(), ["DZ"])]
    monkeypatch.setattr(evaluator, "LARGEST_ARRAY", 0)
    found = [atoms.info["energy_wb97x_dz"] for atoms in predict(ensemble, several(), ["DZ"])]
    np.testing.assert_allclose(found, expected, rtol=0, atol=FLOAT32_EV)
