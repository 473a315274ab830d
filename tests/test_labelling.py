"""`hippynn-mf label`: labels of any calculator, resumed to the structure, failures kept apart."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import BrokenExecutor, Future
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.lj import LennardJones
from ase.io import read, write
from filelock import FileLock
from made_runs import NO_COMPILER, TINY_OPTIONS, exit_code
from springs import Springs

from hippynn_mf import KNOWN_LEVELS, labelling
from hippynn_mf.campaign.engines import LocalPool
from hippynn_mf.cli import labelling as cli
from hippynn_mf.data.formats.extxyz import read_extxyz
from hippynn_mf.data.formats.xyz_frames import _read_plain
from hippynn_mf.errors import UserError
from hippynn_mf.labelling.reference_calculator import ReferenceCalculator
from hippynn_mf.labelling.running import run_task
from hippynn_mf.units import EV_PER_HARTREE

SPRINGS = f"{Path(__file__).with_name('springs.py')}:factory"
NAMES = ("H2O", "CH4", "CH3OH", "NH3")


def displaced(names=NAMES, n=3, seed=0):
    """`n` structures of each molecule, in turn."""
    rng = np.random.default_rng(seed)
    structures = [molecule(name) for _ in range(n) for name in names]
    for atoms in structures:
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
    return structures


@pytest.fixture
def pool(tmp_path):
    """A pool of twelve structures of four molecules, with labels of another level."""
    structures = displaced()
    for k, atoms in enumerate(structures):
        atoms.info |= {"energy_DZ": -1.0 - k, "name": f"structure {k}"}
        atoms.arrays["forces_DZ"] = np.full((len(atoms), 3), 0.25)
    write(tmp_path / "pool.xyz", structures)
    return tmp_path / "pool.xyz"


def springs_label(pool, **more):
    values = {"level": "LOW", "calculator": SPRINGS, "out": pool.with_name("labelled.xyz")}
    return labelling.label(pool, **{**values, "progress": False, **more})


# Labels --------------------------------------------------------------------


def test_labels_are_those_of_the_calculator_and_read_in_hartree(pool):
    labelled = springs_label(pool)
    assert (labelled.n, labelled.failures) == (12, ())
    content = read_extxyz(labelled.out)
    assert len(content.frames) == 12
    for atoms, frame in zip(read(pool, ":"), content.frames, strict=True):
        atoms.calc = Springs()
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        assert frame.energies["LOW.energy"] * EV_PER_HARTREE == pytest.approx(energy, rel=1e-14)
        np.testing.assert_allclose(
            frame.forces["LOW.forces"] * EV_PER_HARTREE, forces, rtol=1e-12, atol=1e-14
        )
    assert not pool.with_name("labelled.xyz.work").exists()


def test_what_the_pool_says_stays_to_the_last_digit(pool):
    before = read(pool, ":")
    springs_label(pool)
    after = read(pool.with_name("labelled.xyz"), ":")
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old.positions, new.positions)
        assert {k: new.info[k] for k in old.info} == old.info
        np.testing.assert_array_equal(old.arrays["forces_DZ"], new.arrays["forces_DZ"])


def test_stress_is_that_of_crystals_alone(tmp_path):
    crystal = bulk("Ar", cubic=True)
    crystal.rattle(0.05, seed=1)
    write(tmp_path / "pool.xyz", [crystal, Atoms("Ar2", [(0, 0, 0), (0, 0, 3.8)])])
    labelling.label(
        tmp_path / "pool.xyz",
        level="LJ",
        calculator="ase:lj",
        arguments={"sigma": 3.4, "epsilon": 0.01, "rc": 8.0},
        properties="EFS",
        out=tmp_path / "out.xyz",
        progress=False,
    )
    first, second = read_extxyz(tmp_path / "out.xyz").frames
    (crystal, _) = read(tmp_path / "pool.xyz", ":")
    crystal.calc = LennardJones(sigma=3.4, epsilon=0.01, rc=8.0)
    expected = crystal.get_stress(voigt=False)
    assert np.abs(expected).max() > 1e-4
    np.testing.assert_allclose(first.stress["LJ.stress"] * EV_PER_HARTREE, expected, atol=1e-12)
    assert second.stress == {}
    assert second.energies["LJ.energy"] < 0


def test_energies_alone_are_asked_for_by_a_letter(pool):
    springs_label(pool, properties="E")
    (frame, *_) = read_extxyz(pool.with_name("labelled.xyz")).frames
    assert "LOW.energy" in frame.energies
    assert "LOW.forces" not in frame.forces


def test_known_levels_are_written_under_their_ids(pool):
    springs_label(pool, level="CC")
    assert {"energy_ccsd(t)_cbs", "provenance_ccsd(t)_cbs"} <= {
        *read(pool.with_name("labelled.xyz"), 0).info
    }
    (frame, *_) = read_extxyz(pool.with_name("labelled.xyz")).frames
    assert "ccsd(t)_cbs.energy" in frame.energies


def test_provenance_says_what_was_computed_and_nobody_stumbles_over_it(pool):
    labelled = springs_label(pool, arguments={"wait": 0.0})
    text = read(labelled.out, 0).info["provenance_LOW"]
    for part in (
        "springs.py:factory (wait=0.0)",
        "properties EF",
        "pool pool.xyz",
        "sha256",
        "ase",
    ):
        assert part in text
    assert str(pool.parent) not in labelled.out.read_text()
    count, comment, *lines = labelled.out.read_text().splitlines()
    plain = _read_plain(comment, lines[: int(count)])  # as fast as without
    assert plain is not None
    assert plain.info["provenance_LOW"] == text
    content = read_extxyz(labelled.out)
    assert [name for name in content.others if name.startswith("provenance")] == []


def test_the_labelled_file_trains(tmp_path, monkeypatch, capsys):
    for name, value in NO_COMPILER.items():
        monkeypatch.setenv(name, value)
    write(tmp_path / "pool.xyz", displaced(("H2O", "CH4", "NH3"), n=12))
    for level, source, properties, file in (
        ("LOW", "pool.xyz", "EF", "low.xyz"),
        ("HIGH", "low.xyz", "E", "all.xyz"),
    ):
        labelling.label(
            tmp_path / source,
            level=level,
            calculator=f"hippynn_mf:mini-ani1x#{'DZ' if level == 'LOW' else 'CC'}",
            properties=properties,
            out=tmp_path / file,
            progress=False,
        )
    options = [
        "--data",
        tmp_path / "all.xyz",
        "--levels",
        "LOW,HIGH",
        "--out",
        tmp_path / "results",
    ]
    assert exit_code("train", "MF-LOW/EF-HIGH/E", *options, *TINY_OPTIONS) == 0
    (metrics,) = (tmp_path / "results").rglob("metrics.json")
    heldout = json.dumps(json.loads(metrics.read_text())["sets"]["heldout"])
    assert "LOW" in heldout
    assert "HIGH" in heldout


# Failures ------------------------------------------------------------------

WRONG = {
    "raise": "RuntimeError: no 'convergence' in 100 steps",
    "exit": "SystemExit: 3",
    "nan": "the calculator gives NaN or infinite forces",
    "large": "the calculator gives energy beyond the range of float32",
    "shape": "the calculator gives forces of shape (3,)",
}


@pytest.mark.parametrize(("wrong", "reason"), WRONG.items(), ids=list(WRONG))
def test_a_structure_that_fails_is_named_and_kept_apart(pool, wrong, reason):
    labelled = springs_label(pool, arguments={"wrong": wrong, "formula": "H3N"})
    assert labelled.n == 9
    assert len(labelled.failures) == 3
    assert labelled.failures[0].startswith("structure 4 (NH3): ")
    failed = read(labelled.failed, ":")
    assert {atoms.get_chemical_formula() for atoms in failed} == {"H3N"}
    assert all(reason in atoms.info["failed_LOW"] for atoms in failed)
    assert all(atoms.info["energy_DZ"] < 0 for atoms in failed)
    assert "H3N" not in {a.get_chemical_formula() for a in read(labelled.out, ":")}
    # With a remedy, what has failed is a pool of its own.
    again = springs_label(labelled.failed, out=pool.with_name("rest.xyz"))
    assert again.n == 3
    assert "failed_LOW" not in read(again.out, 0).info


def test_if_all_fail_nothing_is_written_and_the_first_reason_is_said(tmp_path):
    write(tmp_path / "pool.xyz", displaced(("CH4",)))
    with pytest.raises(UserError, match=r"all 3 structures failed.*structure 1 \(CH4\): Runtime"):
        springs_label(tmp_path / "pool.xyz", arguments={"wrong": "raise", "formula": "CH4"})
    assert not (tmp_path / "labelled.xyz").exists()


# Interrupts, losses, changes -----------------------------------------------


def test_an_interrupted_command_continues_with_the_next_structure(pool, tmp_path):
    calls = tmp_path / "calls"
    source = Path(SPRINGS.partition(":")[0]).read_text()
    file = tmp_path / "mine.py"
    file.write_text(source)
    marker = tmp_path / "stop"
    marker.touch()
    file.write_text(
        source
        + "\n\nclass Stops(Springs):\n    def calculate(self, *args, **more):\n"
        + "        super().calculate(*args, **more)\n"
        + f"        n = Path({str(calls)!r}).read_text().count(chr(10))\n"
        + f"        if n == 6 and Path({str(marker)!r}).exists():\n"
        + "            raise KeyboardInterrupt\n\n\n"
        + f"def factory():\n    return Stops(calls={str(calls)!r})\n"
    )
    with pytest.raises(KeyboardInterrupt):
        springs_label(pool, calculator=f"{file}:factory")
    assert not (tmp_path / "labelled.xyz").exists()
    assert calls.read_text().count("\n") == 6
    marker.unlink()
    labelled = springs_label(pool, calculator=f"{file}:factory")
    assert (labelled.n, labelled.n_before) == (12, 5)
    assert calls.read_text().count("\n") == 13  # the interrupted one twice


def test_a_changed_pool_is_noticed_by_structure(pool, tmp_path):
    calls = tmp_path / "calls"
    arguments = {"calls": str(calls), "wrong": "interrupt", "formula": "CH4O"}
    with pytest.raises(KeyboardInterrupt):
        springs_label(pool, arguments=arguments)
    assert calls.read_text().split() == ["H2O", "CH4", "CH4O"]
    structures = read(pool, ":")
    structures[0].positions[0, 0] += 0.01
    kept = [a for a in structures if a.get_chemical_formula() != "CH4O"]
    write(pool, kept)
    calls.unlink()
    labelled = springs_label(pool, arguments=arguments)
    assert (labelled.n, labelled.n_before) == (9, 1)
    assert Counter(calls.read_text().split()) == {"H2O": 3, "CH4": 2, "H3N": 3}


@pytest.mark.parametrize(
    "changed",
    [
        {"arguments": {"wrong": "interrupt", "formula": "CH4O", "wait": 0.001}},
        {"calculator": "ase:lj", "arguments": {}},
        {"properties": "E"},
    ],
    ids=["argument", "calculator", "properties"],
)
def test_another_way_to_compute_is_refused_while_results_of_one_are_kept(pool, changed):
    values = {"arguments": {"wrong": "interrupt", "formula": "CH4O"}}
    with pytest.raises(KeyboardInterrupt):
        springs_label(pool, **values)
    with pytest.raises(UserError, match=r"xyz.work holds what was computed in another way"):
        springs_label(pool, **{**values, **changed})


def test_a_line_cut_short_is_computed_again(pool, caplog):
    with pytest.raises(KeyboardInterrupt):
        springs_label(pool, arguments={"wrong": "interrupt", "formula": "CH4O"})
    (records,) = pool.with_name("labelled.xyz.work").glob("*.jsonl")
    whole = records.read_text()
    records.write_text(whole[: whole.rindex('"energy"')])
    pool.with_name("labelled.xyz.work").joinpath("identity.json").unlink()
    assert springs_label(pool).n_before == 1


def test_a_second_command_on_the_same_file_is_refused(pool):
    work = pool.with_name("labelled.xyz.work")
    work.mkdir()
    with FileLock(work / "lock"), pytest.raises(UserError, match="Another 'hippynn-mf label'"):
        springs_label(pool)


class Losing:
    """An engine whose worker is lost with every structure of a formula."""

    n_at_once = 2
    n_threads = None
    n_workers = 2

    def __init__(self, formula, *, breaks):
        self.formula, self.breaks = formula, breaks
        self.n_opened = 0

    @contextmanager
    def open(self, out):
        self.n_opened += 1
        yield self

    def submit(self, function, make, settings, items, path, n_threads):
        assert function is run_task
        future = Future()
        for item in items:
            if item[1].get_chemical_formula() == self.formula:
                with Path(path).open("a") as stream:
                    stream.write(json.dumps({"begun": item[0]}) + "\n")
                future.set_exception(BrokenExecutor("gone") if self.breaks else OSError("lost"))
                return future
            assert run_task(make, settings, [item], path, n_threads) is None
        future.set_result(None)
        return future


@pytest.mark.parametrize("breaks", [True, False])
def test_a_structure_that_takes_its_worker_along_fails_alone(pool, capsys, breaks):
    engine = Losing("CH4O", breaks=breaks)
    labelled = springs_label(pool, engine=engine, block=4)
    assert labelled.n == 9
    assert {text.split(" (")[1][:5] for text in labelled.failures} == {"COH4)"}
    assert all("its worker was lost" in text for text in labelled.failures)
    assert (engine.n_opened > 1) == breaks


@pytest.mark.slow
def test_a_process_that_dies_is_replaced(pool):
    arguments = {"wrong": "die", "formula": "CH4O"}
    labelled = springs_label(pool, engine=LocalPool(2), arguments=arguments, block=2)
    assert labelled.n == 9
    assert len(labelled.failures) == 3


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["parsl", "pool"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_command_ends_soon_and_continues(pool, engine, number):
    calls = pool.with_name("calls")
    arguments = ["--arg", f"calls={calls}", "--arg", "wait=0.5", "--block", "2"]
    command = [sys.executable, "-m", "hippynn_mf.cli.start", "label", str(pool), "--level", "LOW"]
    command = [
        *(sys.executable, "-c", "from hippynn_mf.cli.start import main; main()", "label", pool),
        *("--level", "LOW", "--with", SPRINGS, "--out", pool.with_name("labelled.xyz")),
        *(*arguments, "--engine", engine, "--workers", "1"),
    ]
    process = subprocess.Popen([str(word) for word in command], start_new_session=True)
    stop = time.monotonic() + 120
    while not calls.exists() or calls.read_text().count("\n") < 4:
        assert time.monotonic() < stop
        assert process.poll() is None
        time.sleep(0.1)
    os.kill(process.pid, number)
    start = time.monotonic()
    process.wait(timeout=20)
    assert time.monotonic() - start < 10
    assert process.returncode == (130 if number == signal.SIGINT else -9)
    time.sleep(3)  # of a killed one, the guard ends the workers
    n = calls.read_text().count("\n")
    assert n < 12
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "12 structures with LOW/EF" in done.stdout
    assert calls.read_text().count("\n") <= 12 + 1 + 1  # tried before, and in progress


# Wrong input ---------------------------------------------------------------


def change_pool(**info):
    def change(pool):
        structures = read(pool, ":")
        structures[1].info |= info
        structures[4].info |= info
        write(pool, structures)

    return change


def write_radical(pool):
    write(pool, [molecule("CH4"), molecule("CH3")])


REFUSED = {
    "family": ({"calculator": "xtb:GFN2"}, r"no module 'xtb'\. Known: tblite:GFN1-xTB.*pyscf:CC"),
    "no name": ({"calculator": "tblite"}, "A calculator is FAMILY:NAME"),
    "ase": ({"calculator": "ase:emtt"}, r"Unknown calculator of ASE 'emtt'\. Did you mean emt"),
    "model": ({"calculator": "hippynn_mf:none.safetensors#CC"}, "No model file none.safetensors"),
    "model level": ({"calculator": "hippynn_mf:mini-ani1x#XX"}, "Unknown .*'XX'"),
    "several levels": ({"calculator": "hippynn_mf:mini-ani1x"}, "several levels: DZ"),
    "factory": ({"calculator": SPRINGS.replace("factory", "fctory")}, "Did you mean factory"),
    "no file": ({"calculator": "nothing.py:factory"}, "No file .*nothing.py"),
    "argument": ({"arguments": {"stiff": 3}}, "springs.py:factory fails: TypeError: .*'stiff'"),
    "no forces": ({"arguments": {"properties": []}}, "no forces; it has energy. Ask for.* E"),
    "no stress": ({"properties": "EFS"}, "has no stress; .* Ask for --properties EF"),
    "no crystal": ({"calculator": "ase:lj", "properties": "EFS"}, "periodic along all axes"),
    "properties": ({"properties": "EX"}, "properties: Input should be 'E', 'EF' or 'EFS'"),
    "level": ({"level": "a.b"}, "--level a.b is not a list of levels"),
    "near": ({"level": "cc"}, "Level 'cc' is nearly CC"),
    "out": ({"out": "labelled.h5"}, "labels are written as extended XYZ"),
    "no folder": ({"out": "/nowhere/labelled.xyz"}, "There is no folder /nowhere"),
    "labelled": ({"level": "DZ"}, r"structures 1 \(.*and 9 more have labels of DZ already"),
    "unknown field": ({"presision": 2}, "presision: Extra inputs are not permitted"),
}


@pytest.mark.parametrize(("values", "message"), REFUSED.values(), ids=list(REFUSED))
def test_wrong_input_is_refused_before_anything_is_computed(pool, values, message):
    with pytest.raises(UserError, match=message):
        springs_label(pool, **values)
    assert sorted(p.name for p in pool.parent.iterdir()) == ["pool.xyz"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No file .*pool.xyz"),
        ("", "pool.xyz: (there is no structure|ASE cannot read)"),
        ("2\n\nH 0 0 0\n", "pool.xyz is truncated: structure 1"),
        ('1\nProperties=species:S:1:pos:R:3 pbc="F F F"\nH nan 0 0\n', "NaN or infinite positions"),
        ('1\nProperties=species:S:1:pos:R:3 pbc="T T T"\nHe 0 0 0\n', "without a cell vector"),
    ],
    ids=["missing", "empty", "cut", "nan", "no cell"],
)
def test_a_wrong_pool_is_refused(pool, content, message):
    pool.unlink()
    if content is not None:
        pool.write_text(content)
    with pytest.raises(UserError, match=message):
        springs_label(pool)


@pytest.mark.parametrize(
    "change",
    [change_pool(charge=1), change_pool(multiplicity=3), write_radical],
    ids=["charge", "spin", "radical"],
)
def test_charges_and_open_shells_are_one_refusal_and_may_be_accepted(pool, change):
    change(pool)
    with pytest.raises(UserError, match=r"structures? 2 .*are charged or have unpaired electrons"):
        springs_label(pool)
    if change is not write_radical:
        assert springs_label(pool, accept_charged=True).n == 12


def test_what_is_there_is_replaced_with_force_alone(pool):
    springs_label(pool)
    with pytest.raises(UserError, match=r"labelled.xyz exists"):
        springs_label(pool)
    assert springs_label(pool, force=True).n == 12
    with pytest.raises(UserError, match="is what is read"):
        springs_label(pool, out=pool, force=True)


def test_a_missing_package_names_the_extra(pool, monkeypatch):
    monkeypatch.setattr("hippynn_mf.labelling.registry.importlib.util.find_spec", lambda name: None)
    for name in ("tblite:GFN2-xTB", "pyscf:TZ"):
        with pytest.raises(UserError, match=r"is not installed: pip install 'hippynn_mf\[qm\]'"):
            springs_label(pool, calculator=name, level=name.partition(":")[2])


# The command line ----------------------------------------------------------


@pytest.fixture
def here(monkeypatch):
    """Commands that compute in this process."""
    monkeypatch.setattr(cli, "make_engine", lambda *arguments: None)


def test_the_command_says_what_it_has_done(pool, here, capsys):
    out = pool.with_name("labelled.xyz")
    command = ["label", pool, "--level", "LOW", "--with", SPRINGS, "--out", out]
    wrong = ["--arg", "wrong=nan", "--arg", "formula=H3N"]
    assert exit_code(*command, *wrong) == 0
    said = capsys.readouterr()
    assert said.out == f"{out}: 9 structures with LOW/EF (what {SPRINGS} usually gives)\n"
    assert f"3 structures failed, and are in {pool.with_name('labelled.failed.xyz')}" in said.err
    assert "structure 4 (NH3): the calculator gives NaN" in said.err
    assert exit_code(*command) == 2
    assert "exists. Choose another name, or replace it with --force" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argument", "message"),
    [("wait", "--arg expects KEY=VALUE"), ("a b=3", "--arg expects KEY=VALUE")],
)
def test_arguments_have_a_form(pool, here, capsys, argument, message):
    command = ["label", pool, "--level", "LOW", "--with", SPRINGS]
    assert exit_code(*command, "--out", pool.with_name("o.xyz"), "--arg", argument) == 2
    assert message in capsys.readouterr().err


# Programs of the extra -----------------------------------------------------


def test_xtb_labels_are_those_of_tblite(tmp_path):
    tblite = pytest.importorskip("tblite.ase", reason="needs the extra qm")
    write(tmp_path / "pool.xyz", displaced(("H2O",), n=2))
    labelling.label(
        tmp_path / "pool.xyz",
        level="GFN2",
        calculator="tblite:GFN2-xTB",
        out=tmp_path / "out.xyz",
        progress=False,
    )
    for atoms, new in zip(
        read(tmp_path / "pool.xyz", ":"), read(tmp_path / "out.xyz", ":"), strict=True
    ):
        atoms.calc = tblite.TBLite(method="GFN2-xTB", verbosity=0, accuracy=0.01)
        assert new.info["energy_GFN2"] == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(new.arrays["forces_GFN2"], atoms.get_forces(), atol=1e-8)


def test_charge_and_spin_are_handed_to_tblite(tmp_path):
    tblite = pytest.importorskip("tblite.ase", reason="needs the extra qm")
    ion, radical = molecule("NH3") + Atoms("H", [(0, 0, 1.1)]), molecule("CH3")
    ion.info["charge"] = 1
    write(tmp_path / "pool.xyz", [ion, radical])
    labelling.label(
        tmp_path / "pool.xyz",
        level="GFN2",
        calculator="tblite:GFN2-xTB",
        accept_charged=True,
        out=tmp_path / "out.xyz",
        progress=False,
    )
    for atoms, charge, multiplicity in zip(
        read(tmp_path / "out.xyz", ":"), (1, 0), (1, 2), strict=True
    ):
        atoms.calc = tblite.TBLite(
            method="GFN2-xTB", verbosity=0, accuracy=0.01, charge=charge, multiplicity=multiplicity
        )
        assert atoms.info["energy_GFN2"] == pytest.approx(atoms.get_potential_energy(), abs=1e-9)


def test_tblite_and_pyscf_refuse_what_they_do_not_have(pool):
    pytest.importorskip("tblite", reason="needs the extra qm")
    pytest.importorskip("pyscf", reason="needs the extra qm")
    for values, message in (
        ({"calculator": "tblite:GFN3-xTB"}, r"Unknown method 'GFN3-xTB'\. Did you mean"),
        (
            {"calculator": "tblite:GFN2-xTB", "arguments": {"acuracy": 1}},
            "Unknown argument 'acuracy'. Did you mean accuracy",
        ),
        ({"calculator": "pyscf:XX"}, r"Unknown level of PySCF 'XX'\. Known: DZ, TZ, MP2, CC"),
        ({"calculator": "pyscf:CC"}, "pyscf:CC computes CC; found --level LOW"),
        ({"calculator": "tblite:GFN2-xTB", "level": "TZ"}, "pyscf:TZ computes this one"),
    ):
        with pytest.raises(UserError, match=message):
            springs_label(pool, **values)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # PySCF and its imports warn about themselves
@pytest.mark.parametrize("level", ["DZ", "TZ", "MP2", "CC"])
def test_the_packages_own_levels_are_those_of_the_embedded_data(tmp_path, level):
    pytest.importorskip("pyscf", reason="needs the extra qm")
    import h5py

    from hippynn_mf import MINI_ANI1X

    of_level = KNOWN_LEVELS.get(level)
    with h5py.File(MINI_ANI1X) as file:
        group = file["H2O"]
        row = int(np.flatnonzero(np.isfinite(group["ccsd(t)_cbs.energy"][()]))[0])
        water = Atoms(group["atomic_numbers"][()], group["coordinates"][row].astype(float))
        expected = sum(group[key][row] for key in of_level.energy_keys)
        forces = group[f"{of_level.id}.forces"][row] if level in ("DZ", "TZ") else None
    write(tmp_path / "pool.xyz", water, format="extxyz", write_results=False)
    labelling.label(
        tmp_path / "pool.xyz",
        level=level,
        calculator=f"pyscf:{level}",
        properties="EF",
        out=tmp_path / "out.xyz",
        progress=False,
    )
    labelled = read(tmp_path / "out.xyz")
    energy = labelled.info[f"energy_{of_level.id}"] / EV_PER_HARTREE
    assert energy == pytest.approx(expected, abs=1e-6)
    found = labelled.arrays[f"forces_{of_level.id}"] / EV_PER_HARTREE
    np.testing.assert_allclose(found.sum(axis=0), 0, atol=1e-5)
    if forces is not None:
        np.testing.assert_allclose(found, forces, atol=1e-5)


@pytest.mark.parametrize("said", [{"charge": 1}, {"multiplicity": 3}])
def test_pyscf_s_levels_refuse_what_is_charged_or_open(said):
    """Before anything is computed: they would give the energy of the neutral closed shell."""
    atoms = molecule("H2O")
    atoms.info |= said
    atoms.calc = ReferenceCalculator("DZ")
    with pytest.raises(UserError, match=f"{next(iter(said))}={next(iter(said.values()))}"):
        atoms.get_potential_energy()
