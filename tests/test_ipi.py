"""The real i-PI moves atoms on our forces, through its driver of any ASE calculator."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import units
from ase.io import read, write
from conservation import (
    LEVEL,
    N_STEPS,
    TEMPERATURE,
    TIMESTEP,
    is_conserved,
    methanol,
    one_member,
)
from mliap_data import cell
from pages import blocks_of, run_block

from hippynn_mf import MultiFidelityCalculator
from hippynn_mf.potentials.lammps import VOIGT

COMMAND = shutil.which("i-pi", path=os.pathsep.join([str(Path(sys.executable).parent), os.defpath]))
pytestmark = [
    pytest.mark.slow,  # i-PI starts in seconds
    pytest.mark.skipif(
        importlib.util.find_spec("ipi") is None or COMMAND is None,
        reason="pip install 'hippynn_mf[ipi]'",
    ),
]
TIMEOUT = 300  # s


def documented() -> dict[str, str]:
    """The files of the documentation, and the script that makes the first structure."""
    structure, driver = blocks_of("engines.md", "i-PI")
    (settings,) = blocks_of("engines.md", "i-PI", "xml")
    return {"structure": structure, "driver.py": driver, "input.xml": settings}


def changed(text: str, **changes: str) -> str:
    """A text with words replaced, each of which must be there."""
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return text


def run(folder: Path, driver: str, settings: str) -> dict[str, np.ndarray]:
    """Run `i-pi input.xml` in a folder; its properties by name, (n_steps,) or (n_steps, 6) each."""
    (folder / "driver.py").write_text(driver)
    (folder / "input.xml").write_text(settings)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    finished = subprocess.run(
        [sys.executable, str(COMMAND), "input.xml"],
        cwd=folder,
        env=environment,
        timeout=TIMEOUT,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    lines = (folder / "methanol.out").read_text().splitlines()
    values = np.loadtxt(folder / "methanol.out", ndmin=2)
    found = {}
    for line in lines:
        if match := re.match(r"# (?:column|cols\.) +(\d+)(?:-(\d+))? +--> (\w+)", line):
            first, last, name = match.groups()
            columns = values[:, int(first) - 1 : int(last or first)]
            found[name] = columns if last else columns[:, 0]
    return found


def test_the_example_of_the_documentation_runs(tmp_path, monkeypatch):
    files = documented()
    monkeypatch.chdir(tmp_path)
    run_block("engines.md", files["structure"])
    found = run(tmp_path, files["driver.py"], files["input.xml"])
    np.testing.assert_array_equal(found["step"], np.arange(51))
    potentials = []
    for bead in range(8):
        last = read(tmp_path / f"methanol.pos_{bead}.extxyz", index=-1)
        last.pbc = True
        last.calc = MultiFidelityCalculator("mini-ani1x", "CC")
        potentials.append(last.get_potential_energy())
    assert np.ptp(potentials) > 1e-3
    assert found["potential"][-1] == pytest.approx(np.mean(potentials), abs=1e-4)
    assert np.ptp(found["conserved"]) < 0.01 * np.ptp(found["potential"])


def test_a_skew_cell_has_the_calculators_results(tmp_path):
    """Also the pressure, whose sign and unit i-PI makes of the stress."""
    atoms = cell()
    files = documented()
    write(tmp_path / "methanol.xyz", atoms, format="extxyz")
    settings = changed(
        files["input.xml"],
        **{
            'nbeads="8"': 'nbeads="1"',
            "<total_steps>50": "<total_steps>1",
            "temperature{kelvin} ]": "virial_md{gigapascal}, forcemod{ev/ang} ]",
        },
    )
    found = run(tmp_path, files["driver.py"], settings)
    atoms.calc = MultiFidelityCalculator("mini-ani1x", "CC")
    assert found["potential"][0] == pytest.approx(atoms.get_potential_energy(), abs=1e-5)
    assert found["forcemod"][0] == pytest.approx(np.linalg.norm(atoms.get_forces()), rel=1e-6)
    stress = atoms.get_stress(voigt=False) / units.GPa
    virial = [-stress[k] for k in VOIGT]
    assert np.abs(virial).min() > 1e-3
    np.testing.assert_allclose(found["virial_md"][0], virial, rtol=1e-4)  # of i-PI's constants


def test_a_picosecond_conserves_energy(tmp_path):
    member = one_member()
    member.save(tmp_path / "member.safetensors")
    atoms = methanol(MultiFidelityCalculator(member, LEVEL))
    atoms.pbc = True
    write(tmp_path / "methanol.xyz", atoms, format="extxyz", write_results=False)
    files = documented()
    settings = changed(
        files["input.xml"],
        **{
            'nbeads="8"': 'nbeads="1"',
            "<total_steps>50": f"<total_steps>{N_STEPS}",
            'units="kelvin">300': f'units="kelvin">{TEMPERATURE}',
            ">0.25<": f">{TIMESTEP}<",
        },
    )
    driver = changed(files["driver.py"], **{'"mini-ani1x"': '"member.safetensors"'})
    found = run(tmp_path, driver, settings)
    assert found["time"][-1] == pytest.approx(1000)
    assert is_conserved(found["conserved"], found["potential"])
