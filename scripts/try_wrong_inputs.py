"""What is said of wrong inputs of many kinds, in every format that labels are read from.

    python scripts/try_wrong_inputs.py        # writes scripts/benchmarks/wrong_inputs.json

Some conformers of the embedded data with DZ energies and forces and CC energies are written with
one thing wrong, and read as a command would read them. An input is *refused* with one clear error,
*said* if the checks remark what they do not remark of the right file, or *accepted*. `KINDS` says
what is right: some things cannot be known from a file, or are no mistakes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import h5py
import numpy as np
import typer
from ase import units
from ase.data import chemical_symbols

from hippynn_mf.data.checks.report import CheckReport
from hippynn_mf.data.embedded import MINI_ANI1X
from hippynn_mf.data.formats.ani1x import read_ani1x
from hippynn_mf.data.formats.xyz_file import write_molecule
from hippynn_mf.data.loading import load_splits
from hippynn_mf.errors import UserError
from hippynn_mf.evaluation.test_sets import read_test_set
from hippynn_mf.labels import parse_labels
from hippynn_mf.levels import CC, DZ

TOP = Path(__file__).parent.parent
RESULT = TOP / "scripts" / "benchmarks" / "wrong_inputs.json"
LABELS = {"DZ": "EF", "CC": "E"}
N_EACH = 24  # conformers of a molecule
FORMATS = ("HDF5", "extended XYZ", "DeePMD", "SPICE", "COMP6", "test file")
KCAL = units.kcal / units.mol / units.Hartree


@dataclass
class Molecule:
    """Conformers of one group: hartree and Å. `digits` of energies printed, `dtype` stored."""

    name: str
    numbers: np.ndarray
    positions: np.ndarray
    dz: np.ndarray
    forces: np.ndarray
    cc: np.ndarray
    dtype: str = "f8"


@dataclass(frozen=True)
class Kind:
    """A kind of wrong input.

    Attributes:
        title: what is wrong.
        change: makes it so.
        right: what should happen: `refused`, `said` (or refused), or `accepted`.
        why: of what is accepted rightly.
    """

    title: str
    change: Callable[[list[Molecule], np.random.Generator], list[Molecule]]
    right: str = "refused"
    why: str = field(default="")


def each(change: Callable[[Molecule, np.random.Generator], dict[str, Any]]) -> Any:
    """A change of every molecule."""
    return lambda molecules, rng: [replace(m, **change(m, rng)) for m in molecules]


def one(change: Callable[[Molecule, np.random.Generator], dict[str, Any]]) -> Any:
    """A change of the largest molecule alone."""

    def changed(molecules: list[Molecule], rng: np.random.Generator) -> list[Molecule]:
        largest = max(range(len(molecules)), key=lambda i: len(molecules[i].numbers))
        return [
            replace(m, **change(m, rng)) if i == largest else m for i, m in enumerate(molecules)
        ]

    return changed


def dispersion(m: Molecule) -> np.ndarray:
    """A pairwise −C6/r⁶ that is damped at short distance, hartree."""
    first, second = np.triu_indices(len(m.numbers), 1)
    apart = np.linalg.norm(m.positions[:, first] - m.positions[:, second], axis=-1)
    return -(1.5 / (apart**6 + 3.0**6)).sum(axis=1)


def repeated(m: Molecule, _: np.random.Generator) -> dict[str, Any]:
    """The first five conformers again, with energies 5 kcal/mol higher."""
    doubled = {
        name: np.concatenate([values, values[:5]])
        for name, values in (("positions", m.positions), ("forces", m.forces), ("cc", m.cc))
    }
    return {**doubled, "dz": np.concatenate([m.dz, m.dz[:5] + 5 * KCAL])}


KINDS = (
    Kind("nothing", each(lambda m, rng: {}), "accepted", "this is the right file"),
    Kind("forces of other conformers", each(lambda m, rng: {"forces": np.roll(m.forces, 7, 0)})),
    Kind("forces of atoms in reverse order", each(lambda m, rng: {"forces": m.forces[:, ::-1]})),
    Kind("forces with axes z, y, x", each(lambda m, rng: {"forces": m.forces[:, :, ::-1]})),
    Kind("forces of one molecule with the wrong sign", one(lambda m, rng: {"forces": -m.forces})),
    Kind(
        "forces of one molecule in hartree/bohr",
        one(lambda m, rng: {"forces": m.forces * units.Bohr}),
    ),
    Kind(
        "positions of one molecule in bohr",
        one(lambda m, rng: {"positions": m.positions / units.Bohr}),
    ),
    Kind(
        "energies of one molecule in another unit",
        one(lambda m, rng: {"dz": m.dz * units.Hartree, "cc": m.cc * units.Hartree}),
    ),
    Kind(
        "energies per atom",
        each(lambda m, rng: {"dz": m.dz / len(m.numbers), "cc": m.cc / len(m.numbers)}),
    ),
    Kind(
        "energies from each molecule's minimum",
        each(lambda m, rng: {"dz": m.dz - m.dz.min() + 1e-9, "cc": m.cc - m.cc.min() + 1e-9}),
    ),
    Kind("energies of half precision", each(lambda m, rng: {"dtype": "f2"})),
    Kind("the same conformers with other energies", each(repeated)),
    Kind(
        "CC energies of one molecule 2 eV too high",
        one(lambda m, rng: {"cc": m.cc + 2 / units.Hartree}),
        "said",
        "a molecule may be a special case, so it is not refused",
    ),
    Kind(
        "a constant of each molecule up to 2 eV in both levels",
        each(
            lambda m, rng: (lambda c: {"dz": m.dz + c, "cc": m.cc + c})(
                rng.uniform(-2, 2) / units.Hartree
            )
        ),
        "accepted",
        "differences within a molecule are right, and those between molecules may be",
    ),
    Kind(
        "zero-point energies included",
        each(
            lambda m, rng: {
                "dz": m.dz + 0.0095 * len(m.numbers),
                "cc": m.cc + 0.0095 * len(m.numbers),
            }
        ),
        "accepted",
        "nearly a constant of each atom, which the fit of composition takes",
    ),
    Kind(
        "dispersion at one level alone",
        each(lambda m, rng: {"cc": m.cc + dispersion(m)}),
        "accepted",
        "another level of theory, which is smooth",
    ),
    Kind("CC energies that are those of DZ", each(lambda m, rng: {"cc": m.dz.copy()})),
    Kind("CC energies of other conformers", each(lambda m, rng: {"cc": np.roll(m.cc, 3)})),
    Kind(
        "forces turned by 90° without their positions",
        each(lambda m, rng: {"forces": m.forces @ np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])}),
    ),
)


@cache
def molecules_of(path: Path = MINI_ANI1X) -> list[Molecule]:
    """Conformers with both levels, `N_EACH` of each group that has as many."""
    structures = read_ani1x(path, parse_labels(LABELS))[0]
    has_all = structures.has_energy(CC) & structures.has_forces(DZ)
    found = []
    for name, part in structures[np.flatnonzero(has_all)].by_group():
        some, mask = part[np.arange(min(N_EACH, len(part)))], part.atom_mask[0]
        found.append(
            Molecule(
                name,
                part.species[0][mask],
                some.positions[:, mask].astype(float),
                some.energies[DZ.id],
                some.forces[DZ.id][:, mask].astype(float),
                some.energies[CC.id],
            )
        )
    return found


def stored(values: np.ndarray, dtype: str) -> np.ndarray:
    """Energies as they come out of this type."""
    return values.astype(dtype).astype(float)


def outcome(kind: Kind, form: str, folder: Path) -> tuple[str, list[str]]:
    """What reading a wrong input of a kind ends with, and what is remarked."""
    molecules = kind.change(molecules_of(), np.random.default_rng(100))
    reports: list[CheckReport] = []
    try:
        if form == "extended XYZ":
            path = folder / "wrong.xyz"
            write_xyz(path, molecules)
            read_as_training(path, reports)
        elif form in ("DeePMD", "SPICE"):
            write = write_deepmd if form == "DeePMD" else write_spice
            paths = {level: folder / f"{level}.h5" for level in LABELS}
            for level, path in paths.items():
                write(path, molecules, level)
            read_as_training(paths, reports)
        elif form == "COMP6":
            path = folder / "wrong.h5"
            write_comp6(path, molecules)
            keys = {
                "wb97x_dz": {"energy": "energies", "gradient": "forces"},
                "ccsd(t)_cbs": {"energy": "cc"},
            }
            read_test_set("wrong", path, species=[0, 1, 6, 7, 8], keys=keys, reports=reports)
        else:
            path = folder / "wrong.h5"
            write_hdf5(path, molecules)
            if form == "HDF5":
                read_as_training(path, reports)
            else:
                read_test_set("wrong", path, species=[0, 1, 6, 7, 8], reports=reports)
    except UserError as error:
        return "refused", [str(error)]
    return "", [text for report in reports for text in report.remarks]


def read_as_training(path: Any, reports: list[CheckReport]) -> None:
    """Read and split a file as a training would."""
    load_splits(
        path,
        parse_labels(LABELS),
        common_levels=[DZ, CC],
        rows="common",
        split_seed=100,
        reports=reports,
    )


def write_hdf5(path: Path, molecules: list[Molecule]) -> None:
    """The layout of ANI-1x."""
    with h5py.File(path, "w") as file:
        for m in molecules:
            group = file.create_group(m.name)
            group["atomic_numbers"] = m.numbers
            group["coordinates"] = m.positions
            group["wb97x_dz.energy"] = m.dz.astype(m.dtype)
            group["wb97x_dz.forces"] = m.forces
            group["ccsd(t)_cbs.energy"] = m.cc.astype(m.dtype)


def labels_of(m: Molecule, level: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Energies as stored, and forces where the level has any."""
    return stored(m.dz if level == "DZ" else m.cc, m.dtype), m.forces if level == "DZ" else None


def write_spice(path: Path, molecules: list[Molecule], level: str) -> None:
    """One level in the layout of SPICE: bohr, and gradients."""
    with h5py.File(path, "w") as file:
        for m in molecules:
            energies, forces = labels_of(m, level)
            group = file.create_group(m.name)
            group["atomic_numbers"] = m.numbers
            group["conformations"] = m.positions / units.Bohr
            group["dft_total_energy"] = energies
            if forces is not None:
                group["dft_total_gradient"] = -forces * units.Bohr


def write_deepmd(path: Path, molecules: list[Molecule], level: str) -> None:
    """One level as folders of DeePMD-kit, a molecule each."""
    for m in molecules:
        energies, forces = labels_of(m, level)
        folder = path / m.name / "set.000"
        folder.mkdir(parents=True)
        np.save(folder / "coord.npy", m.positions.reshape(len(m.positions), -1))
        np.save(folder / "energy.npy", energies * units.Hartree)
        if forces is not None:
            np.save(folder / "force.npy", forces.reshape(len(forces), -1) * units.Hartree)
        elements = sorted(set(m.numbers.tolist()))
        types = " ".join(str(elements.index(number)) for number in m.numbers)
        (path / m.name / "type.raw").write_text(types + "\n")
        names = "\n".join(chemical_symbols[number] for number in elements)
        (path / m.name / "type_map.raw").write_text(names + "\n")
        (path / m.name / "nopbc").touch()


def write_comp6(path: Path, molecules: list[Molecule]) -> None:
    """The layout of COMP6, where `forces` are gradients."""
    with h5py.File(path, "w") as file:
        for m in molecules:
            group = file.create_group(f"all/{m.name}")
            group["species"] = np.array([chemical_symbols[z].encode() for z in m.numbers])
            group["lot"] = np.array([b"wb97x/6-31g(d)"])
            group["coordinates"] = m.positions
            group["energies"] = m.dz.astype(m.dtype)
            group["forces"] = -m.forces
            group["cc"] = m.cc.astype(m.dtype)


def write_xyz(path: Path, molecules: list[Molecule]) -> None:
    """Extended XYZ with names of levels, in eV."""
    with path.open("w") as stream:
        for m in molecules:
            dz, cc = (stored(values * units.Hartree, m.dtype) for values in (m.dz, m.cc))
            for i, positions in enumerate(m.positions):
                columns = {"pos": positions, "forces_DZ": m.forces[i] * units.Hartree}
                info = {"energy_DZ": float(dz[i]), "energy_CC": float(cc[i])}
                write_molecule(stream, m.numbers, columns, info)


def is_right(kind: Kind, found: str) -> bool:
    """Whether an input of a kind ends as it should."""
    if kind.right == "accepted":
        return found in ("accepted", "said")
    return found == "refused" or found == kind.right


def table(rows: list[dict[str, Any]]) -> str:
    """What was found, as Markdown."""
    lines = [
        f"| what is wrong | {' | '.join(FORMATS)} | rightly |",
        f"|---|{'---|' * len(FORMATS)}---|",
    ]
    for row in rows:
        cells = " | ".join(row["found"][form] for form in FORMATS)
        rightly = ("yes" if row["rightly"] else "no") + (f": {row['why']}" if row["why"] else "")
        lines.append(f"| {row['kind']} | {cells} | {rightly} |")
    return "\n".join(lines)


def main(
    out: Annotated[Path, typer.Option(help="File to write.")] = RESULT,
) -> None:
    """Try every kind in every format and write what was found."""
    logging.getLogger("hippynn_mf").setLevel(logging.ERROR)
    rows: list[dict[str, Any]] = []
    usual: dict[str, int] = {}
    for kind in KINDS:
        found = {}
        for form in FORMATS:
            with TemporaryDirectory() as folder:
                verdict, remarks = outcome(kind, form, Path(folder))
            # The first kind is the right file, whose remarks are no news.
            usual.setdefault(form, len(remarks))
            found[form] = verdict or ("said" if len(remarks) > usual[form] else "accepted")
            typer.echo(f"{kind.title}, {form}: {found[form]} {' '.join(remarks)[:250]}")
        rightly = all(is_right(kind, each_found) for each_found in found.values())
        rows.append({"kind": kind.title, "found": found, "rightly": rightly, "why": kind.why})
    content = json.dumps({"rows": rows[1:]}, indent=1, ensure_ascii=False)
    out.write_text(content + "\n", encoding="utf-8")
    typer.echo(table(rows))


if __name__ == "__main__":
    typer.run(main)
