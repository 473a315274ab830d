"""Commands of the pages on data and formats run as they are written, on files made here."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import made_crystals
import made_formats
import made_xyz
import pytest
from ase.io import write
from made_runs import exit_code
from pages import DOCS
from test_matpes import record, write_records

from hippynn_mf.levels import CC, DZ

SMALL = ["--set", "n_features=4", "--set", "n_sensitivities=4", "--set", "max_epochs=1"]
ENERGIES = {"DZ": ("wb97x_dz",), "CC": ("ccsd(t)_cbs",)}


def write_conformers(name, energies, columns=None, *, n=20):
    molecules = made_xyz.molecules(n, names=["H2O", "CH4"])
    of_forces = dict.fromkeys(columns or (), ("wb97x_dz",))
    write(name, made_xyz.label(molecules, energies, of_forces), format="extxyz")


def files_of_formats():
    names = {"dft_energy": ENERGIES["DZ"], "U0": ENERGIES["CC"]}
    write_conformers("my.xyz", names, ["dft_forces"])
    made_formats.write_rmd17(Path("rmd17_ethanol.npz"))
    made_formats.write_spice(Path("spice.hdf5"))


def files_of_crystals():
    structures = made_crystals.crystals(24)
    both = made_crystals.label(structures, [DZ, CC])
    for atoms in both:
        atoms.info = {
            "energy_PBE": atoms.info["energy_wb97x_dz"],
            "stress_PBE": atoms.info["stress_wb97x_dz"],
            "energy_R2SCAN": atoms.info["energy_ccsd(t)_cbs"],
        }
        atoms.arrays["forces_PBE"] = atoms.arrays["forces_wb97x_dz"]
        del atoms.arrays["forces_wb97x_dz"], atoms.arrays["forces_ccsd(t)_cbs"]
    write("both.xyz", both, format="extxyz")
    for name, level in (("pbe", DZ), ("r2scan", CC)):
        labelled = made_crystals.label(structures, [level])
        for atoms in labelled:
            atoms.info = {
                f"REF_{kind}": atoms.info[f"{kind}_{level.id}"] for kind in ("energy", "stress")
            }
            atoms.arrays["REF_forces"] = atoms.arrays.pop(f"forces_{level.id}")
        write(f"{name}.xyz", labelled, format="extxyz")
    for functional, name in (("PBE", "PBE"), ("r2SCAN", "R2SCAN")):
        records = [record(atoms, functional) for atoms in structures]
        write_records(Path(f"MatPES-{name}-2025.2.json.gz"), records)


def files_of_own_data():
    names = {f"energy_{label}": levels for label, levels in ENERGIES.items()}
    write_conformers("my.xyz", names, ["forces_DZ"])
    write_conformers("dft.xyz", {"REF_energy": ENERGIES["DZ"]}, ["REF_forces"])
    write_conformers("coupled-cluster.xyz", {"energy": ENERGIES["CC"]})


# Page → what makes its files, and a word of commands that are left out.
PAGES = {
    "formats.md": (files_of_formats, None),
    "periodic.md": (files_of_crystals, "periodic.h5"),  # of minutes of quantum chemistry
    "own-data.md": (files_of_own_data, "SF-CC/E"),  # splits, of files of the user's
}


def commands_of(page):
    """The commands of a page in their order, in words."""
    text = re.sub(r"\\\n\s*", " ", (DOCS / page).read_text(encoding="utf-8"))
    lines = re.findall(r"^    hippynn-mf ([^\n]*)$", text, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize("page", PAGES)
def test_commands_run_as_they_are_written(page, tmp_path, monkeypatch, capfd):
    make, left_out = PAGES[page]
    monkeypatch.chdir(tmp_path)
    make()
    n_run = 0
    for words in commands_of(page):
        if left_out is not None and any(left_out in word for word in words):
            continue
        trains = words[0] in ("train", "campaign")
        more = [*SMALL, "--out", f"results-{n_run}"] if trains else []
        code = exit_code(*words, *more)
        said = capfd.readouterr()
        if page == "formats.md" and words == ["data", "info", "my.xyz"]:
            assert "It holds U0 (a number; 40), dft_energy" in said.err  # and what is missing
            assert code == 2
        else:
            assert code == 0, (words, said.err)
        n_run += 1
    assert n_run >= 4
