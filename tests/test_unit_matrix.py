"""Every unit that energies, positions and forces may be in by mistake, in every format."""

import itertools
from functools import cache

import h5py
import numpy as np
import planted
import pytest
from ase import units as ase_units

from hippynn_mf.data.checks.gate import check_structures, pass_gate
from hippynn_mf.data.embedded import MINI_ANI1X, MINI_CC_FORCES
from hippynn_mf.data.formats.ani1x import labels_in_file, read_ani1x
from hippynn_mf.data.formats.comp6 import read_comp6
from hippynn_mf.data.formats.xyz_file import write_molecule
from hippynn_mf.errors import UserError
from hippynn_mf.labels import parse_labels
from hippynn_mf.levels import DZ, KNOWN_LEVELS

ENERGY = {
    "hartree": 1.0,
    "eV": ase_units.Hartree,
    "kcal/mol": ase_units.Hartree * ase_units.mol / ase_units.kcal,
}
LENGTH = {"Å": 1.0, "bohr": 1 / ase_units.Bohr}
# Energies, positions, and forces: consistent if forces are energy per length.
CASES = [
    (energy, length, force, per)
    for energy, length, force, per in itertools.product(ENERGY, LENGTH, ENERGY, LENGTH)
]
FORMATS = ("ani1x", "comp6", "xyz", "xyz of a level")


@cache
def groups_of(name, tmp):
    """Numbers, positions, energies and forces of DZ by group, hartree and Å."""
    if name == "planted":
        planted.write_ani1x(tmp / "planted.h5", 14)
        path, step = tmp / "planted.h5", 1
    else:
        path, step = {"mini": (MINI_ANI1X, 16), "cc": (MINI_CC_FORCES, 1)}[name]
    structures, _ = read_ani1x(path, parse_labels({"DZ": "EF"}))
    structures = structures if step == 1 else structures[close(structures)]
    return [
        (
            members.species[0][members.atom_mask[0]],
            members.positions[:, members.atom_mask[0]].astype(float),
            members.energies[DZ.id],
            members.forces[DZ.id][:, members.atom_mask[0]].astype(float),
        )
        for _, members in structures.by_group()
    ]


def close(structures):
    """The first conformers of every group."""
    first = np.searchsorted(structures.groups, np.unique(structures.groups))
    place = (
        np.arange(len(structures))
        - first[np.searchsorted(np.unique(structures.groups), structures.groups)]
    )
    return place < 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("units")


def write(path, kind, groups, energy, length, force):
    """A file in one of the formats, with the numbers of a data set times these factors."""
    scaled = [(z, r * length, e * energy, f * force) for z, r, e, f in groups]
    if kind.startswith("xyz"):
        names = ("energy_DZ", "forces_DZ") if kind == "xyz" else ("energy", "forces")
        with path.open("w") as stream:
            for numbers, positions, energies, forces in scaled:
                for r, e, f in zip(positions, energies, forces, strict=True):
                    write_molecule(stream, numbers, {"pos": r, names[1]: f}, {names[0]: float(e)})
        return {"DZ": path} if kind != "xyz" else path
    with h5py.File(path, "w") as file:
        for place, (numbers, positions, energies, forces) in enumerate(scaled):
            if kind == "ani1x":
                group = file.create_group(f"g{place}")
                group["atomic_numbers"] = numbers
                group["wb97x_dz.energy"], group["wb97x_dz.forces"] = energies, forces
            else:
                group = file.create_group(f"all/g{place:02}")
                symbols = [ase_symbol(number) for number in numbers]
                group["species"] = np.array(symbols, "S2")
                group["lot"] = np.array([b"wb97x/6-31g(d)"])
                group["energies"], group["forces"] = energies, -forces
            group["coordinates"] = positions
    return path


def ase_symbol(number):
    return {1: b"H", 6: b"C", 7: b"N", 8: b"O"}[int(number)]


def read(source, kind):
    if kind == "comp6":
        return read_comp6(source)
    return read_ani1x(source, labels_in_file(source))[0]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", ["planted", "mini", "cc"])
def test_only_the_units_of_the_format_pass(name, kind, folder):
    groups = groups_of(name, folder)
    own = "eV" if kind.startswith("xyz") else "hartree"
    wrong = []
    for energy, length, force, per in CASES:
        suffix = ".xyz" if kind.startswith("xyz") else ".h5"
        path = folder / f"{name}{FORMATS.index(kind)}{CASES.index((energy, length, force, per))}"
        factor = ENERGY[force] / LENGTH[per]
        path = path.with_suffix(suffix)
        source = write(path, kind, groups, ENERGY[energy], LENGTH[length], factor)
        report = check_structures(read(source, kind), KNOWN_LEVELS, source)
        passed = not any(outcome.verdict == "refused" for outcome in report.outcomes)
        is_right = (energy, length, force, per) == (own, "Å", own, "Å")
        if passed != is_right:
            wrong.append((energy, length, f"{force}/{per}", report.text()))
        if not is_right and not passed:
            message = " ".join(o.text for o in report.outcomes if o.verdict == "refused")
            named = []
            named += [f"They are in {energy}."] if energy != own else []
            named += ["They are in bohr."] if length != "Å" else []
            slope = ENERGY[energy] / (factor * LENGTH[length])
            if abs(np.log(slope)) > 0.1:  # else consistent, and the others are wrong
                named.append(f"in {force}/{per}.")
            if not all(text in message for text in named):
                wrong.append((energy, length, f"{force}/{per}", named, message))
        path.unlink()
    assert not wrong, "\n".join(map(str, wrong[:3]))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_refusal_is_one_error_with_everything_in_it(kind, folder):
    groups = groups_of("planted", folder)
    own = ase_units.Hartree if kind.startswith("xyz") else 1.0
    path = folder / ("all.xyz" if kind.startswith("xyz") else "all.h5")
    source = write(path, kind, groups, own, LENGTH["bohr"], -own * 2)
    with pytest.raises(UserError) as caught:
        pass_gate(read(source, kind), KNOWN_LEVELS, source)
    assert "positions are not in Å" in str(caught.value)
    assert "have the wrong sign" in str(caught.value)
