"""Compute periodic structures with two cheap levels of theory: energies, forces and stress.

    pip install -e '.[qm]'
    python scripts/generate_xtb_periodic.py periodic.h5
    hippynn-mf campaign --levels scripts/xtb_levels.json --data periodic.h5 \
        --experiments SF-GFN2/E,MF-GFN1/EFS-GFN2/E,SF-GFN2/EFS --out periodic

The file has the ANI-1x layout with `cell` and `<level>.stress`: molecular crystals of C, H, N, O,
an ice and boxes of water, by GFN1-xTB and GFN2-xTB of tblite. Every crystal is relaxed roughly by
GFN1-xTB; then its cell is strained, its molecules are moved and turned as wholes and all atoms are
displaced, all by normal draws. A structure depends on the seed and on its number only: a larger
file holds those of a smaller one. One in five is a single molecule without a cell, so that both
kinds are in one file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # read by the libraries when they load: one core, one job

import h5py  # noqa: E402
import numpy as np  # noqa: E402
import typer  # noqa: E402
from ase import Atoms, units  # noqa: E402
from ase.build import molecule  # noqa: E402
from ase.filters import FrechetCellFilter  # noqa: E402
from ase.optimize import FIRE  # noqa: E402
from joblib import Parallel, delayed  # noqa: E402
from scipy.spatial.transform import Rotation  # noqa: E402
from tblite.ase import TBLite  # noqa: E402
from tqdm import tqdm  # noqa: E402

from hippynn_mf.data.formats.ani1x_writer import write_ani1x  # noqa: E402
from hippynn_mf.data.formats.frames import Frame  # noqa: E402
from hippynn_mf.files import replace_when_complete  # noqa: E402

METHODS = {"gfn1_xtb": "GFN1-xTB", "gfn2_xtb": "GFN2-xTB"}
ACCURACY = 0.01  # tblite's own 1 leaves errors of 1e-5 hartree/Å in forces
N_RELAXED = 40  # steps of the rough relaxation
FORCE_ENOUGH = 0.05  # eV/Å
STRAIN = 0.02  # standard deviations: of every component of the strain,
MOVED = 0.12  # of a molecule's translation along an axis, Å,
TURNED = 0.12  # of its rotation about an axis,
DISPLACED = 0.035  # and of an atom along an axis, Å
MOLECULE_EVERY = 5  # one in so many structures is a molecule
NEAREST = 0.7  # Å; what is closer is drawn again
MOST_DRAWS = 100
# Four sites of a face-centred cell, and the body diagonals along which molecules point there: the
# order of solid CO2 and N2 (space group Pa-3).
SITES = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
AXES = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3)


@dataclass(frozen=True)
class Crystal:
    """A crystal, and which molecule each atom belongs to."""

    atoms: Atoms
    molecule_of_atom: np.ndarray


def face_centred(name: str, edge: float) -> Crystal:
    """Four molecules in a cubic cell, their longest axes along the body diagonals."""
    one = molecule(name)
    places = one.positions - one.positions.mean(axis=0)
    longest = np.linalg.svd(places)[2][0]
    positions = [
        Rotation.align_vectors(axis[None], longest[None])[0].apply(places) + edge * site
        for axis, site in zip(AXES, SITES, strict=True)
    ]
    atoms = Atoms(np.tile(one.numbers, 4), np.concatenate(positions), cell=3 * [edge], pbc=True)
    return Crystal(atoms, np.repeat(np.arange(4), len(one)))


def water(n_along: int, edge: float, seed: int) -> Crystal:
    """Water molecules in random orientations on a body-centred or simple grid of a cubic cell."""
    generator = np.random.default_rng(seed)
    one = molecule("H2O")
    places = one.positions - one.positions[0]
    grid = np.array(np.meshgrid(*3 * [np.arange(n_along)])).reshape(3, -1).T / n_along
    turns = Rotation.random(len(grid), random_state=generator)
    positions = [turn.apply(places) + edge * site for turn, site in zip(turns, grid, strict=True)]
    atoms = Atoms(
        np.tile(one.numbers, len(grid)), np.concatenate(positions), cell=3 * [edge], pbc=True
    )
    return Crystal(atoms, np.repeat(np.arange(len(grid)), 3))


def ice() -> Crystal:
    """Four waters on the sites of cubic ice, a proton-ordered form of it, in its primitive shape.

    Oxygen atoms are those of a diamond lattice, in the tetragonal cell of half its volume; protons
    lie on the bonds so that every oxygen atom has two.
    """
    edge, bond = 6.36, 0.97
    a = edge / np.sqrt(2)
    cell = np.diag([a, a, edge])
    oxygen = np.array([[0, 0, 0], [0.5, 0, 0.25], [0.5, 0.5, 0.5], [0, 0.5, 0.75]])
    numbers, positions = [], []
    for site in oxygen:
        shifts = np.array([[i, j, k] for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)])
        others = (oxygen[:, None] + shifts - site).reshape(-1, 3) @ cell
        lengths = np.linalg.norm(others, axis=1)
        bonds = others[(lengths > 0.1) & (lengths < 0.45 * edge)]
        # Protons go up: those of the two bonds to the next layer.
        upwards = bonds[bonds[:, 2] > 0]
        numbers += [8, 1, 1]
        centre = site @ cell
        positions += [centre, *(centre + bond * v / np.linalg.norm(v) for v in upwards)]
    atoms = Atoms(numbers, positions, cell=cell, pbc=True)
    return Crystal(atoms, np.repeat(np.arange(4), 3))


CRYSTALS: dict[str, Callable[[], Crystal]] = {
    "CO2": lambda: face_centred("CO2", 5.55),
    "N2": lambda: face_centred("N2", 5.60),
    "C2H2": lambda: face_centred("C2H2", 6.05),
    "NH3": lambda: face_centred("NH3", 5.15),
    "CH4": lambda: face_centred("CH4", 5.80),
    "HCN": lambda: face_centred("HCN", 5.90),
    "ice": ice,
    "water": lambda: water(2, 6.2, seed=1),
}


def relaxed(name: str) -> Crystal:
    """A crystal roughly at rest by GFN1-xTB, in a cell that has relaxed as well."""
    crystal = CRYSTALS[name]()
    crystal.atoms.calc = TBLite(method="GFN1-xTB", verbosity=0, accuracy=ACCURACY)
    optimizer = FIRE(FrechetCellFilter(crystal.atoms), logfile=None, maxstep=0.1)
    optimizer.run(fmax=FORCE_ENOUGH, steps=N_RELAXED)
    crystal.atoms.calc = None
    return crystal


def draw_structure(crystal: Crystal, seed: tuple[int, int], *, single: bool) -> Atoms:
    """A strained crystal with moved molecules, or (`single`) one of its molecules by itself."""
    generator = np.random.default_rng(seed)
    for _ in range(MOST_DRAWS):
        atoms = crystal.atoms.copy()
        strain = generator.normal(scale=STRAIN, size=(3, 3))
        deformed = np.eye(3) + (strain + strain.T) / 2
        positions = np.empty_like(atoms.positions)
        for number in range(crystal.molecule_of_atom.max() + 1):
            members = crystal.molecule_of_atom == number
            places = atoms.positions[members]
            centre = places.mean(axis=0)
            turn = Rotation.from_rotvec(generator.normal(scale=TURNED, size=3))
            moved = centre @ deformed + generator.normal(scale=MOVED, size=3)
            positions[members] = turn.apply(places - centre) + moved
        positions += generator.normal(scale=DISPLACED, size=positions.shape)
        atoms.set_cell(atoms.cell.array @ deformed)
        atoms.positions = positions
        if single:
            atoms = atoms[crystal.molecule_of_atom == 0]
            atoms.set_cell(None)
            atoms.pbc = False
        distances = atoms.get_all_distances(mic=not single)
        if distances[np.triu_indices(len(atoms), 1)].min() > NEAREST:
            return atoms
    raise SystemExit(f"No structure of {crystal.atoms.symbols} without a clash in {MOST_DRAWS}.")


def compute(number: int, name: str, crystal: Crystal, seed: int) -> Frame:
    """The structure with this number in the file, with the labels of both levels."""
    single = number // len(CRYSTALS) % MOLECULE_EVERY == MOLECULE_EVERY - 1
    drawn = draw_structure(crystal, (seed, number), single=single)
    energies, forces, stress = {}, {}, {}
    for level, method in METHODS.items():
        atoms = drawn.copy()
        atoms.calc = TBLite(method=method, verbosity=0, accuracy=ACCURACY)
        energies[f"{level}.energy"] = float(atoms.get_potential_energy() / units.Hartree)
        forces[f"{level}.forces"] = (atoms.get_forces() / units.Hartree).astype("f4").astype("f8")
        if not single:
            stress[f"{level}.stress"] = atoms.get_stress(voigt=False) / units.Hartree
    return Frame(
        numbers=drawn.numbers.astype("u1"),
        positions=drawn.positions,
        energies=energies,
        forces=forces,
        group=f"{name}-molecule" if single else name,
        path=Path(__file__),
        number=number + 1,
        cell=None if single else drawn.cell.array,
        stress=stress,
    )


def write_periodic(
    path: Path, n: int, *, seed: int = 0, jobs: int = 1, progress: bool = True
) -> None:
    """Write a file of `n` structures, as many of each crystal, complete or not at all."""
    path = path.absolute()
    with Parallel(n_jobs=jobs, return_as="generator") as parallel:
        names = list(CRYSTALS)[:n]
        starts = list(parallel(delayed(relaxed)(name) for name in names))
        tasks = (
            delayed(compute)(k, names[k % len(names)], starts[k % len(names)], seed)
            for k in range(n)
        )
        frames = list(tqdm(parallel(tasks), total=n, desc=path.name, disable=not progress))
    with replace_when_complete(path) as partial, h5py.File(partial, "w") as file:
        write_ani1x(file, frames)


def main(
    out: Annotated[Path, typer.Argument(help="HDF5 file to write.")],
    n: Annotated[int, typer.Option(min=1, help="Structures in all.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Processes at a time.")] = 2,
) -> None:
    """Compute a file of periodic structures and molecules."""
    if out.exists():
        raise SystemExit(f"generate_xtb_periodic: {out} exists. Choose another name.")
    write_periodic(out, n, seed=seed, jobs=jobs)
    typer.echo(f"{out}: {n} structures")


if __name__ == "__main__":
    typer.run(main)
