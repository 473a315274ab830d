"""Prediction of files: the same numbers as the calculator's, in order, whatever comes in."""

from __future__ import annotations

import gzip
import subprocess
import sys
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from ase.stress import full_3x3_to_voigt_6_stress
from made_runs import exit_code
from potentials import random_potential

from hippynn_mf import MultiFidelityCalculator
from hippynn_mf.errors import UserError
from hippynn_mf.potentials import batch, evaluator, predicting, structure_files
from hippynn_mf.potentials.card import Seen
from hippynn_mf.potentials.evaluator import Evaluator
from hippynn_mf.potentials.outside import find_outside
from hippynn_mf.potentials.potential import Potential
from hippynn_mf.potentials.predicted_labels import PredictedLabels
from hippynn_mf.potentials.predicting import predict, predict_file
from hippynn_mf.potentials.seen import distances_of, spread_quantiles
from hippynn_mf.potentials.systems import Systems

LABELS = {"DZ": "EF", "CC": "E"}
FLOAT32_EV = 2e-3  # of random parameters with energies of 10⁴ eV


@pytest.fixture(scope="module")
def ensemble() -> Potential:
    return random_potential(LABELS, n_members=2)


@pytest.fixture
def single(ensemble) -> Evaluator:
    """As the command line evaluates, unless told otherwise."""
    import torch

    return Evaluator(ensemble, dtype=torch.float32)


@pytest.fixture(params=["inline", "process"])
def way(request, monkeypatch):
    """Files of any size take each of the two ways."""
    least = 0 if request.param == "process" else float("inf")
    monkeypatch.setattr(structure_files, "LARGE_FILE", least)
    return request.param


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
    systems = several()
    found = list(
        predict(
            Evaluator(ensemble),
            iter(systems),
            ["CC", "DZ"],
            ensemble_std=True,
            batch_size=batch_size,
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
            assert labelled.info[f"std_energy_{level}"] == pytest.approx(spread, abs=1e-8)
            spread = atoms.calc.get_property("forces_std", atoms)
            np.testing.assert_allclose(labelled.arrays[f"std_forces_{level}"], spread, atol=1e-8)
            assert (f"std_stress_{level}" in labelled.info) == atoms.pbc.all()
            if atoms.pbc.all():
                spread = atoms.calc.get_property("stress_std", atoms)
                found_stress = full_3x3_to_voigt_6_stress(labelled.info[f"std_stress_{level}"])
                np.testing.assert_allclose(found_stress, spread, atol=1e-8)
        if atoms.pbc.all():
            of_main = labelled.info["std_stress_ccsd(t)_cbs"]
            np.testing.assert_array_equal(labelled.info["stress_std"], of_main)


def test_a_file_is_predicted_in_its_order(tmp_path, ensemble, model_file, capsys, way):
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


def test_formats_of_ase_are_read(tmp_path, model_file, way):
    for name in ("in.traj", "in.xyz", "in.json", "in.pdb"):
        source, target = tmp_path / name, tmp_path / f"{name}.extxyz"
        write(source, molecule("CH3OH"))
        assert exit_code("predict", model_file, source, "--level", "DZ", "--out", target) == 0
        assert np.isfinite(read(target).info["energy_wb97x_dz"])


def test_labels_of_the_file_are_kept_as_references(single, tmp_path):
    """A file of predictions must not pass for one of labels, nor lose what it is compared with."""
    atoms = molecule("H2O")
    atoms.info |= {"energy_CC": -1.0, "energy_wb97x_dz": -2.0, "std_energy_ccsd(t)_cbs": 42.0}
    atoms.arrays["forces_ccsd(t)_cbs"] = np.full((3, 3), 7.0)
    atoms.calc = SinglePointCalculator(atoms, energy=-55.5, forces=np.ones((3, 3)))
    (found,) = predict(single, [atoms], ["CC"])
    write(tmp_path / "out.extxyz", found)
    read_again = read(tmp_path / "out.extxyz")
    assert read_again.info["REF_energy_CC"] == -1.0
    assert read_again.info["energy_wb97x_dz"] == -2.0  # not predicted
    assert "energy_CC" not in read_again.info
    assert not any(key.startswith("std_") for key in read_again.info)
    assert np.abs(read_again.info["energy_ccsd(t)_cbs"]) > 100
    np.testing.assert_array_equal(read_again.arrays["REF_forces_ccsd(t)_cbs"], 7.0)
    assert read_again.info["REF_energy"] == -55.5
    np.testing.assert_array_equal(read_again.arrays["REF_forces"], 1.0)
    assert read_again.get_potential_energy() == read_again.info["energy_ccsd(t)_cbs"]


def test_batches_end_at_a_number_of_atoms(single, monkeypatch):
    monkeypatch.setattr(batch, "MOST_ATOMS", 10)
    sizes = []
    whole = predicting.Systems.from_batch

    def from_batch(batch, *arguments, first):
        sizes.append((first, batch.sizes.sum()))
        return whole(batch, *arguments, first=first)

    monkeypatch.setattr(predicting.Systems, "from_batch", from_batch)
    systems = [molecule(name) for name in ("H2O", "CH4", "H2O", "C6H6", "H2O")]
    assert len(list(predict(single, systems, ["CC"]))) == 5
    assert sizes == [(0, 8), (2, 3), (3, 12), (4, 3)]


def test_a_part_of_a_file_is_predicted(tmp_path, model_file, way):
    source, target = tmp_path / "in.xyz", tmp_path / "out.extxyz"
    write(source, several())
    command = ["predict", model_file, f"{source}@1:3", "--level", "CC", "--out", target]
    assert exit_code(*command) == 0
    found = read(target, ":")
    assert [len(atoms) for atoms in found] == [len(atoms) for atoms in several()[1:3]]
    at_sign = tmp_path / "a@0.xyz"
    write(tmp_path / "plain.xyz", several()[:2])
    (tmp_path / "plain.xyz").rename(at_sign)
    assert exit_code(*command[:2], at_sign, *command[3:], "--force") == 0
    assert len(read(target, ":")) == 2


def test_text_that_extended_xyz_cannot_hold_is_refused(tmp_path, model_file, capsys):
    atoms = molecule("H2O")
    atoms.info["note"] = 'a "quoted" word'
    (found,) = predict(Evaluator(Potential.load(model_file)), [atoms], ["CC"])
    write(tmp_path / "quoted.extxyz", found)
    assert read(tmp_path / "quoted.extxyz").info["note"] == 'a "quoted" word'
    atoms.info["note"] = "two\nlines"
    write(tmp_path / "in.traj", atoms)
    out = tmp_path / "out.extxyz"
    assert (
        exit_code("predict", model_file, tmp_path / "in.traj", "--level", "CC", "--out", out) == 2
    )
    assert "note='two\\nlines' has a line break" in capsys.readouterr().err


def test_wrong_arguments_are_refused(single):
    for levels, options in ((["CC", "CC"], {}), ([], {}), (["CC"], {"batch_size": 0})):
        with pytest.raises(UserError, match=r"Expected levels|at least one structure"):
            next(predict(single, [molecule("H2O")], levels, **options))


def test_float32_is_near_float64(ensemble):
    import torch

    energies = [
        [
            atoms.info["energy_ccsd(t)_cbs"]
            for atoms in predict(Evaluator(ensemble, dtype=d), several(), ["CC"])
        ]
        for d in (torch.float32, torch.float64)
    ]
    np.testing.assert_allclose(*energies, rtol=0, atol=FLOAT32_EV)
    assert energies[0] != energies[1]


@pytest.fixture
def endless():
    """Structures without end, and how many of them were taken."""
    taken = []

    def structures():
        while True:
            taken.append(len(taken))
            yield molecule("H2O")

    return structures(), taken


def test_reading_is_lazy(single, endless):
    """A trajectory larger than memory can be predicted."""
    structures, taken = endless
    predicted = predict(single, structures, ["DZ"], batch_size=4)
    next(predicted)
    assert len(taken) == 5  # a batch is full when the next structure comes


def test_structures_are_written_in_the_order_they_were_read(tmp_path, endless, monkeypatch):
    """However many batches are read before the first labels come; and no further than asked."""
    structures, taken = endless
    monkeypatch.setattr(structure_files, "read_structures", lambda path: structures)
    out = tmp_path / "out.xyz"
    labelling = structure_files.Labelling(tmp_path / "in.xyz", out, [], None, 4)
    for number in range(1, 4):
        assert len(labelling.read()) == 4
        assert len(taken) == 4 * number + 1
    for number in range(1, 3):
        labelling.write(PredictedLabels({"number": np.full(4, number)}, {}))
        assert [atoms.info["number"] for atoms in read(out, ":")][-1] == number
    assert len(read(out, ":")) == 8


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "several levels: DZ (wb97x_dz), CC (ccsd(t)_cbs)"),
        (["--level", "TZ"], "Unknown level of this model 'TZ'. Known: DZ, wb97x_dz, CC"),
        (["--level", "CC,"], "--level expects names with commas between; found 'CC,'"),
        (["--level", "CC", "--device", "tpu"], "tpu"),
    ],
)
def test_wrong_options_are_refused(tmp_path, model_file, capsys, arguments, expected):
    source, target = tmp_path / "in.xyz", tmp_path / "out.extxyz"
    write(source, molecule("H2O"))
    assert exit_code("predict", model_file, source, *arguments, "--out", target) == 2
    assert expected in capsys.readouterr().err
    assert not target.exists()


def test_wrong_files_are_refused_and_leave_nothing(tmp_path, model_file, capsys, way):
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
        bad: f"{bad}: structure 71 (CClH3): Atomic numbers [17] are outside the species",
        tmp_path / "none.xyz": "No file",
        truncated: f"hippynn-mf: {truncated} is truncated: structure 5",
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
        next(predict(Evaluator(ensemble.member(0)), [molecule("H2O")], ["CC"], ensemble_std=True))


def test_large_batches_go_member_by_member(ensemble, single, monkeypatch):
    expected = [atoms.info["energy_wb97x_dz"] for atoms in predict(single, several(), ["DZ"])]
    monkeypatch.setattr(evaluator, "LARGEST_ARRAY", 0)
    found = [atoms.info["energy_wb97x_dz"] for atoms in predict(single, several(), ["DZ"])]
    np.testing.assert_allclose(found, expected, rtol=0, atol=FLOAT32_EV)


def test_the_file_is_as_ase_would_write_it(tmp_path, single, monkeypatch):
    """Whether or not a process of its own read and wrote it."""
    source, target = tmp_path / "in.extxyz", tmp_path / "out.extxyz"
    systems = several() * 5
    systems[3].calc = SinglePointCalculator(systems[3], energy=-1.5, forces=np.ones((8, 3)))
    write(source, systems)
    options = {"ensemble_std": True, "batch_size": 3}
    predicted = predict(single, read(source, ":"), ["CC", "DZ"], **options)
    write(tmp_path / "expected.extxyz", list(predicted))
    for least in (0, 2**40):
        monkeypatch.setattr(structure_files, "LARGE_FILE", least)
        assert predict_file(single, source, target, ["CC", "DZ"], **options).n == len(systems)
        assert target.read_bytes() == (tmp_path / "expected.extxyz").read_bytes()
        target.unlink()


def test_a_file_damaged_in_its_middle_is_refused(tmp_path, single, way):
    source, target = tmp_path / "in.extxyz", tmp_path / "out.extxyz"
    write(source, [molecule("CH4")] * 30)
    lines = source.read_text().splitlines(keepends=True)
    lines[20 * 7 + 3] = "C 0.0 zero 0.0\n"
    source.write_text("".join(lines))
    with pytest.raises(UserError, match=r"in\.extxyz: ASE cannot read it \(ValueError: could not"):
        predict_file(single, source, target, ["CC"], batch_size=4)
    assert [path.name for path in tmp_path.iterdir()] == ["in.extxyz"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
def test_a_full_disk_is_one_message(tmp_path, single, monkeypatch, way):
    source = tmp_path / "in.extxyz"
    write(source, [molecule("CH4")] * 30)
    monkeypatch.setattr(
        predicting, "replace_when_complete", lambda _: nullcontext(Path("/dev/full"))
    )
    with pytest.raises(UserError, match=r"in\.extxyz: The disk of /dev is full"):
        predict_file(single, source, tmp_path / "out.extxyz", ["CC"])


@pytest.mark.parametrize("what", ["interrupted", "killed"])
def test_no_process_stays_behind(tmp_path, single, monkeypatch, what):
    import psutil

    monkeypatch.setattr(structure_files, "LARGE_FILE", 0)
    source, target = tmp_path / "in.extxyz", tmp_path / "out.extxyz"
    write(source, [molecule("CH4")] * 30)
    labels = predicting._labels

    def workers():
        """But for the process that removes what they shared, which stays with this one."""
        found = []
        for process in psutil.Process().children():
            with suppress(psutil.Error):  # one that has ended meanwhile
                if "resource_tracker" not in str(process.cmdline()):
                    found.append(process)
        return found

    before, ended = workers(), []

    def end(*arguments):
        if not ended:  # later batches may come before it is missed
            (process,) = set(workers()) - set(before)
            if what == "interrupted":
                raise KeyboardInterrupt
            process.kill()
            ended.append(process)
        return labels(*arguments)

    monkeypatch.setattr(predicting, "_labels", end)
    expected = KeyboardInterrupt if what == "interrupted" else UserError
    match = None if what == "interrupted" else "ended unexpectedly"
    with pytest.raises(expected, match=match):
        predict_file(single, source, target, ["CC"], batch_size=4)
    assert workers() == before
    assert [path.name for path in tmp_path.iterdir()] == ["in.extxyz"]


def test_the_process_of_files_does_without_torch():
    """Which takes seconds to import."""
    command = "import sys, hippynn_mf.potentials.structure_files; print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert ran.stdout.strip() == "False", ran.stderr


# what is written, and what is said of it


@pytest.mark.parametrize("way_of_blank", ["extxyz", "gz"])
def test_a_blank_line_between_structures_ends_the_prediction(
    tmp_path, model_file, capsys, way_of_blank
):
    text = "".join("3\n\nO 0 0 0\nH 0.97 0 0\nH -0.24 0.94 0\n" + "\n" * n for n in (0, 1, 0))
    source = tmp_path / "in.xyz"
    source.write_text(text)
    if way_of_blank == "gz":
        source = tmp_path / "in.xyz.gz"
        source.write_bytes(gzip.compress(text.encode()))
    out = tmp_path / "out.extxyz"
    assert exit_code("predict", model_file, source, "--level", "CC", "--out", out) == 2
    assert "line 11 is blank, and more follows" in capsys.readouterr().err
    assert not out.exists()


def test_formats_that_ase_reads_in_part_are_refused(tmp_path, model_file, capsys):
    pdb = tmp_path / "in.pdb"
    write(pdb, [molecule("H2O"), molecule("CH4")])
    whole = pdb.read_text()
    out = tmp_path / "out.extxyz"
    command = ["predict", model_file, pdb, "--level", "CC", "--out", out]
    assert exit_code(*command) == 0
    assert len(read(out, ":")) == 2
    pdb.write_text(whole.rpartition("ENDMDL")[0])
    assert exit_code(*command, "--force") == 2
    assert "ASE reads 1 structures, and the file holds 2" in capsys.readouterr().err


def test_frames_have_the_labels_of_the_main_level(tmp_path, model_file, ensemble, way):
    source, out = tmp_path / "in.extxyz", tmp_path / "out.extxyz"
    atoms = molecule("H2O")
    atoms.calc = SinglePointCalculator(atoms, energy=-1.5, forces=np.ones((3, 3)))
    write(source, [atoms] * 3)
    command = ["predict", model_file, source, "--out", out, "--force", "--ensemble-std"]
    for options, level in (
        (["--level", "DZ"], "wb97x_dz"),
        (["--level", "DZ,CC"], "ccsd(t)_cbs"),
        (["--level", "DZ,CC", "--main", "DZ"], "wb97x_dz"),
    ):
        assert exit_code(*command, *options) == 0
        for found in read(out, ":"):
            assert found.get_potential_energy() == found.info[f"energy_{level}"] != -1.5
            np.testing.assert_array_equal(found.get_forces(), found.arrays[f"forces_{level}"])
            assert found.info["energy_std"] == found.info[f"std_energy_{level}"] > 0
            assert found.arrays["forces_std"].shape == (3, 3)
            assert found.info["REF_energy"] == -1.5
            np.testing.assert_array_equal(found.arrays["REF_forces"], 1.0)
    again = tmp_path / "again.extxyz"
    assert exit_code("predict", model_file, out, "--level", "CC", "--out", again) == 0
    assert read(again).info["REF_energy"] == -1.5  # the label, not the prediction before
    assert exit_code(*command, "--level", "DZ", "--main", "CC") == 2


def test_two_labels_that_would_become_one_are_refused(single):
    atoms = molecule("H2O")
    atoms.info["REF_energy"] = -3.0
    atoms.calc = SinglePointCalculator(atoms, energy=-1.5)
    with pytest.raises(UserError, match="has both energy and REF_energy"):
        next(predict(single, [atoms], ["CC"]))


def charged(**info) -> Atoms:
    atoms = molecule("H2O")
    atoms.info |= info
    return atoms


def partly_charged() -> Atoms:
    atoms = molecule("H2O")
    atoms.set_initial_charges([0.5, 0.25, 0.25])
    return atoms


CHARGED = [
    charged(charge=1),
    charged(total_charge=-1.0),
    charged(spin=2),
    charged(multiplicity=3),
    charged(charge="plus"),
    partly_charged(),
    molecule("OH"),  # of ASE, with magnetic moments
]


@pytest.mark.parametrize("atoms", CHARGED)
def test_charged_and_open_shell_structures_are_refused(tmp_path, ensemble, single, atoms, way):
    message = "neutral closed shells only"
    with pytest.raises(UserError, match=f"structure 2.*{message}"):
        list(predict(single, [molecule("H2O"), atoms], ["CC"]))
    calculator = MultiFidelityCalculator(ensemble, "CC")
    atoms.calc = calculator
    with pytest.raises(UserError, match=message):
        atoms.get_potential_energy()
    atoms.calc = None
    write(tmp_path / "in.extxyz", [molecule("H2O"), atoms])
    with pytest.raises(UserError, match=f"structure 2.*{message}"):
        predict_file(single, tmp_path / "in.extxyz", tmp_path / "out.extxyz", ["CC"])


@pytest.mark.parametrize("info", [{"charge": 0}, {"spin": 0}, {"spin": 1}, {"multiplicity": 1}])
def test_neutral_singlets_that_say_so_are_predicted(single, info):
    assert list(predict(single, [charged(**info)], ["CC"]))


def water(length: float = 0.97) -> Atoms:
    return Atoms("OHH", [(0, 0, 0), (length, 0, 0), (-0.24, 0.94, 0)])


def seen_potential(ensemble: Potential, limit: float) -> Potential:
    species = np.array([[8, 1, 1], [8, 1, 1]])
    positions = np.stack([water().positions, water(1.2).positions])
    seen = Seen(
        distances=distances_of(species, positions), spreads_ev_per_atom={"ccsd(t)_cbs": limit}
    )
    return Potential(ensemble.card.model_copy(update={"seen": seen}), ensemble.members)


def test_structures_outside_what_the_model_has_seen_are_marked(tmp_path, ensemble, capsys):
    path = tmp_path / "seen.safetensors"
    seen_potential(ensemble, 1e9).save(path)
    cases = [
        (water(), ""),
        (water(1.2), ""),
        (water(0.9), "distance"),  # nearer than any O and H
        (water(1.5), "distance"),  # farther than any H from its nearest neighbour
        (molecule("CH4"), "element"),
        (Atoms("O"), ""),  # a single atom has no distance
    ]
    write(tmp_path / "in.extxyz", [atoms for atoms, _ in cases])
    out = tmp_path / "out.extxyz"
    command = ["predict", path, tmp_path / "in.extxyz", "--level", "CC", "--out", out]
    assert exit_code(*command) == 0
    assert (
        "outside what the model has seen: 3 of 6 structures (1 with elements that the training "
        "set lacks, 2 with distances beyond those of the training set), marked outside=T"
    ) in capsys.readouterr().out
    for found, (_, reason) in zip(read(out, ":"), cases, strict=True):
        assert found.info["outside"] == bool(reason)
        assert found.info.get("outside_by", "") == reason


def test_an_element_that_the_labels_of_a_level_lack_is_outside_there(ensemble):
    potential = seen_potential(ensemble, 1e9)
    levels = tuple(
        card.model_copy(update={"elements": (1, 6, 7)}) if card.label == "CC" else card
        for card in potential.card.levels
    )
    potential = Potential(potential.card.model_copy(update={"levels": levels}), potential.members)
    evaluator = Evaluator(potential)
    systems = Systems.of([water()], evaluator.cutoff, evaluator.species)
    surfaces = evaluator(systems)
    assert find_outside(potential, systems, surfaces, [potential.level("CC")]) == [("element",)]
    assert find_outside(potential, systems, surfaces, [potential.level("DZ")]) == [()]


def test_a_spread_beyond_that_of_held_out_structures_is_outside(ensemble):
    potential = seen_potential(ensemble, 1e-12)
    (found,) = predict(Evaluator(potential), [water()], ["CC"])
    assert found.info["outside_by"] == "spread"
    (found,) = predict(Evaluator(potential), [water()], ["DZ"])  # whose spread is not known
    assert not found.info["outside"]
    (found,) = predict(Evaluator(potential.member(0)), [water()], ["CC"])
    assert not found.info["outside"]


def test_a_model_file_of_before_says_that_it_is_unknown(tmp_path, model_file, capsys):
    write(tmp_path / "in.extxyz", molecule("CH4"))
    out = tmp_path / "out.extxyz"
    assert (
        exit_code("predict", model_file, tmp_path / "in.extxyz", "--level", "CC", "--out", out) == 0
    )
    assert "unknown for this model file" in capsys.readouterr().out
    assert "outside" not in read(out).info


def test_distances_are_the_shortest_by_elements_and_the_farthest_neighbours():
    species = np.array([[8, 1, 1], [8, 1, 0], [2, 0, 0]])
    positions = np.zeros((3, 3, 3))
    positions[0] = [(0, 0, 0), (1, 0, 0), (0, 2, 0)]
    positions[1, 1] = (0, 0, 3)
    found = distances_of(species, positions)
    assert found.shortest == {"H-O": 1.0, "H-H": pytest.approx(5**0.5, abs=1e-4)}
    assert found.farthest_neighbour == {"H": 3.0, "O": 3.0}  # and none of the lone helium


def test_the_quantile_of_the_spread_is_numpys():
    rng = np.random.default_rng(0)
    energies, n_atoms = rng.normal(size=(4, 500)), rng.integers(1, 20, 500)
    found = spread_quantiles({"x": list(energies), "alone": [energies[0]]}, n_atoms)
    spread = energies.std(axis=0, ddof=1) / n_atoms * units.kcal / units.mol
    assert found == {"x": pytest.approx(np.quantile(spread, 0.99))}
