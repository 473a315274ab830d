"""Write a file with the layout, the sizes and the gaps of `ani1x-release.h5`, and made-up physics.

    python scripts/make_synthetic_ani1x.py synthetic.h5
    python scripts/make_synthetic_ani1x.py small.h5 --conformers 10000
    python scripts/make_synthetic_ani1x.py full.h5 --full
    python scripts/make_synthetic_ani1x.py sparse.h5 --full --conformers 10000

It is for measuring readers and trying out trainings at scale, without the download; nothing learnt
from it is chemistry. Exact are the counts of the published file: 3,114 groups of 2 to 63 atoms, and
489,571 conformers with coupled-cluster labels that have 6,763,288 atoms together. They lie among
10⁶ conformers, half of them labelled, or with `--full` among all 4,956,005, a tenth of them; with
`--conformers` all counts shrink in proportion. Assumed is what is not known here of the published
file: conformers without CC labels have 15.5 atoms on average, CC labels stop at molecules of 28
atoms, every conformer has DZ labels, 19 in 20 of those without CC labels have TZ labels, and the
MP2 and coupled-cluster keys are there where the CC label is. Dipoles, charges and other keys that
no level here reads are left out.

The molecules are random trees of bonded atoms on a lattice, with hydrogen at their ends and its
bonds as long and stiff as real ones, shaken by 0.05 Å per coordinate. The energy is a sum of Morse
bonds, scaled differently at each level, and of atomic energies; forces
are its exact derivatives. The CC energy is the published composite of the other keys.
"""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import h5py
import numpy as np
import typer
from scipy.special import gammaln
from tqdm import tqdm

from hippynn_mf.data.composite import published_ccsd_t_cbs
from hippynn_mf.errors import UserError
from hippynn_mf.files import replace_when_complete
from hippynn_mf.levels import SELF_ENERGIES

N_DEFAULT, N_FULL = 1_000_000, 4_956_005
N_CC, N_CC_ATOMS, N_GROUPS = 489_571, 6_763_288, 3_114
MIN_ATOMS, MAX_ATOMS, MAX_CC_ATOMS = 2, 63, 28
MEAN_ATOMS = 15.5  # of conformers without CC labels
MIN_GROUPS, MIN_CONFORMERS = 12, 1_000  # of a small file

SYMBOLS = {1: "H", 6: "C", 7: "N", 8: "O"}
SPACING = 1.3  # Å, of the lattice and of a bond at rest, but for those of hydrogen:
TO_HYDROGEN = {1: 0.74, 6: 1.09, 7: 1.015, 8: 0.96}  # Å
SPREAD = 0.05  # Å, of every coordinate
DEPTH, WIDTH = 0.22, 1.8  # hartree and 1/Å, of a Morse bond: as stiff as one of hydrogen

# Share of the bonds' energy in every key, and whether it is an energy with self energies.
DFT = {"wb97x_dz.energy": 1.0, "wb97x_tz.energy": 1.1}
HF = {"hf_dz.energy": 0.8, "hf_tz.energy": 0.9, "hf_qz.energy": 0.92}
CORRELATION = {
    "mp2_dz.corr_energy": 0.25,
    "mp2_tz.corr_energy": 0.30,
    "mp2_qz.corr_energy": 0.32,
    "npno_ccsd(t)_dz.corr_energy": 0.27,
    "npno_ccsd(t)_tz.corr_energy": 0.31,
    "tpno_ccsd(t)_dz.corr_energy": 0.28,
}
FORCES = {"wb97x_dz.forces": "wb97x_dz.energy", "wb97x_tz.forces": "wb97x_tz.energy"}
CC_KEY, TZ_KEYS = "ccsd(t)_cbs.energy", ("wb97x_tz.energy", "wb97x_tz.forces")


@dataclass(frozen=True)
class Plan:
    """How many conformers of which molecules: arrays (n_groups,)."""

    n_atoms: np.ndarray
    n_cc: np.ndarray
    n_other: np.ndarray

    @property
    def n_bytes(self) -> int:
        """Size of the data in the file, without the file's own structure."""
        n = self.n_cc + self.n_other
        n_energies = len(DFT) + len(HF) + len(CORRELATION) + 1
        return int((n * (4 * 3 * self.n_atoms * (1 + len(FORCES)) + 8 * n_energies)).sum())


def plan_file(n_conformers: int, n_whole: int, rng: np.random.Generator) -> Plan:
    """Draw the groups of a file, with the counts of one of `n_whole` conformers in proportion."""
    share = n_conformers / n_whole
    n_cc, n_cc_atoms = round(share * N_CC), round(share * N_CC_ATOMS)
    n_groups = max(MIN_GROUPS, round(share * N_GROUPS))
    n_atoms = np.clip(rng.gamma(7.0, 2.7, n_groups).round().astype(int), MIN_ATOMS, MAX_ATOMS)
    n_atoms[:4] = MIN_ATOMS, int(MEAN_ATOMS), int(MEAN_ATOMS) + 1, MAX_ATOMS
    popularity = rng.lognormal(sigma=1.0, size=n_groups)
    small = n_atoms <= MAX_CC_ATOMS
    cc = np.zeros(n_groups, int)
    cc[small] = draw_counts(n_atoms[small], popularity[small], n_cc, n_cc_atoms)
    n_other = n_conformers - n_cc
    other = draw_counts(n_atoms, popularity, n_other, round(MEAN_ATOMS * n_other), fewest=1)
    return Plan(n_atoms, cc, other)


def draw_counts(
    n_atoms: np.ndarray, popularity: np.ndarray, n: int, total: int, fewest: int = 0
) -> np.ndarray:
    """Conformers of every group: `n` in all, with `total` atoms exactly, at least `fewest` each."""
    low, high = -2.0, 2.0
    for _ in range(60):  # bisection: the heavier the tilt to large molecules, the more atoms
        tilt = (low + high) / 2
        weights = popularity * np.exp(tilt * (n_atoms - n_atoms.mean()))
        mean = np.average(n_atoms, weights=weights)
        low, high = (tilt, high) if mean * n < total else (low, tilt)
    counts = np.maximum((n * weights / weights.sum()).astype(int), fewest)
    while excess := counts.sum() - n:
        largest = np.argsort(-counts)[: abs(excess)]
        counts[largest] -= np.sign(excess)
    order = np.argsort(n_atoms, kind="stable")
    while lacking := total - counts @ n_atoms:
        # Exchange one conformer for a larger or a smaller one, by no more atoms than are wrong.
        for first, second in itertools.permutations(order, 2):
            step = n_atoms[second] - n_atoms[first]
            if counts[first] > fewest and step * lacking > 0 and abs(step) <= abs(lacking):
                n_exchanged = min(counts[first] - fewest, abs(lacking) // abs(step))
                counts[first] -= n_exchanged
                counts[second] += n_exchanged
                break
        else:
            raise UserError(f"{n} conformers with {total} atoms cannot be made of these groups.")
    return counts


def choose_formulas(n_atoms: np.ndarray, rng: np.random.Generator) -> list[Counter[int]]:
    """Atoms per element of every group: no formula twice, half of the atoms hydrogen on average."""
    elements, shares = list(SYMBOLS), np.log([0.5, 0.3, 0.1, 0.1])
    formulas: list[Counter[int]] = [Counter()] * len(n_atoms)
    for size in np.unique(n_atoms):
        grid = np.indices((size + 1,) * 3).reshape(3, -1)
        grid = grid[:, grid.sum(axis=0) <= size]
        counts = np.vstack([grid, size - grid.sum(axis=0)]).T  # every formula of this size
        likely = counts @ shares - gammaln(counts + 1).sum(axis=1)
        drawn = np.argsort(-(likely + rng.gumbel(size=len(likely))))  # without replacement
        places = np.flatnonzero(n_atoms == size)
        if len(places) > len(drawn):
            raise UserError(f"There are {len(drawn)} formulas of {size} atoms, not {len(places)}.")
        for place, row in zip(places, drawn, strict=False):
            formulas[place] = Counter(dict(zip(elements, counts[row].tolist(), strict=True)))
    return formulas


def grow_molecule(
    numbers: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions (n_atoms, 3) in Å of a tree on a cubic lattice, its bonds and their lengths.

    `numbers` (n_atoms,) has hydrogen last: it is bound to other atoms, as long as these have room.
    Bonds (n_atoms - 1, 2) are of an atom and a later one; lengths (n_atoms - 1,) in Å at rest.
    """
    steps = [step for step in itertools.product((-1, 0, 1), repeat=3) if np.abs(step).sum() == 1]
    n_heavy = max(int((numbers > 1).sum()), 1)
    taken, places, bonds = {(0, 0, 0)}, [(0, 0, 0)], []
    positions, lengths = [np.zeros(3)], []
    while len(places) < len(numbers):
        free = [
            (parent, step)
            for parent in range(min(len(places), n_heavy))
            for step in steps
            if tuple(a + b for a, b in zip(places[parent], step, strict=True)) not in taken
        ] or [
            (parent, step)
            for parent in range(len(places))
            for step in steps
            if tuple(a + b for a, b in zip(places[parent], step, strict=True)) not in taken
        ]
        parent, step = free[rng.integers(len(free))]
        place = tuple(a + b for a, b in zip(places[parent], step, strict=True))
        pair = sorted((int(numbers[parent]), int(numbers[len(places)])))
        length = TO_HYDROGEN[pair[1]] if pair[0] == 1 else SPACING
        bonds.append((parent, len(places)))
        lengths.append(length)
        positions.append(positions[parent] + length * np.array(step))
        places.append(place)
        taken.add(place)
    return np.array(positions), np.array(bonds), np.array(lengths)


def bond_energies(
    positions: np.ndarray, bonds: np.ndarray, at_rest: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sum of Morse bonds (n,) in hartree and its forces (n, n_atoms, 3) in hartree/Å."""
    first, second = bonds.T
    vectors = positions[:, second] - positions[:, first]
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    decay = np.exp(-WIDTH * (lengths - at_rest[:, None]))
    energies = DEPTH * ((1 - decay) ** 2).sum(axis=(1, 2))
    pulls = 2 * DEPTH * WIDTH * (1 - decay) * decay * vectors / lengths
    incidence = np.zeros((positions.shape[1], len(bonds)))
    incidence[first, np.arange(len(bonds))] = 1
    incidence[second, np.arange(len(bonds))] = -1
    return energies, incidence @ pulls


def make_group(
    formula: Counter[int], n_cc: int, n_other: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """The datasets of a group, by key; NaN where a conformer lacks a label."""
    numbers = np.array(sorted(formula.elements(), reverse=True), "u1")
    rest, bonds, lengths = grow_molecule(numbers, rng)
    n = n_cc + n_other
    shaken = rest + SPREAD * rng.standard_normal((n, *rest.shape), "f4")
    positions = shaken.astype("f4")
    energies, forces = bond_energies(positions.astype("f8"), bonds, lengths)

    columns: dict[str, np.ndarray] = {}
    for place, (key, share) in enumerate({**DFT, **HF, **CORRELATION}.items()):
        own = {z: 0.0 if key in CORRELATION else SELF_ENERGIES[z] for z in SYMBOLS}
        atoms = sum(count * (own[z] + 1e-3 * (place + 1) * z) for z, count in formula.items())
        columns[key] = atoms + share * energies
    parts = {
        f"{method}_{basis}": columns[f"{method}{theory}_{basis}.{energy}"]
        for method, theory, energy, bases in (
            ("hf", "", "energy", ("tz", "qz")),
            ("mp2", "", "corr_energy", ("tz", "qz")),
            ("npno", "_ccsd(t)", "corr_energy", ("tz", "dz")),
            ("tpno", "_ccsd(t)", "corr_energy", ("dz",)),
        )
        for basis in bases
    }
    columns[CC_KEY] = published_ccsd_t_cbs(**parts)
    for key, energy_key in FORCES.items():
        columns[key] = (DFT[energy_key] * forces).astype("f4")

    has_cc = rng.permutation(n) < n_cc
    for key in (*HF, *CORRELATION, CC_KEY):
        columns[key][~has_cc] = np.nan
    no_tz = ~has_cc & (rng.random(n) < 1 / 20)
    for key in TZ_KEYS:
        columns[key][no_tz] = np.nan
    return {"atomic_numbers": numbers, "coordinates": positions, **columns}


def write_file(path: Path, n_conformers: int, *, n_whole: int = N_DEFAULT, seed: int = 0) -> Plan:
    """Write a file of `n_conformers`, in proportion to one of `n_whole`; returns what is in it.

    Raises UserError for too few or too many conformers, no such folder, or a full disk.
    """
    if not MIN_CONFORMERS <= n_conformers <= n_whole:
        raise UserError(
            f"{n_conformers} conformers cannot be made; choose {MIN_CONFORMERS} to {n_whole}."
        )
    if not path.parent.is_dir():
        raise UserError(f"No folder {path.parent} for {path.name}.")
    rng = np.random.default_rng(seed)
    plan = plan_file(n_conformers, n_whole, rng)
    free = shutil.disk_usage(path.parent).free
    if plan.n_bytes > 0.95 * free:
        raise UserError(
            f"{path} would take {plan.n_bytes / 1e9:.1f} GB; {free / 1e9:.1f} GB are free. Choose "
            "another disk, or fewer --conformers."
        )
    formulas = choose_formulas(plan.n_atoms, rng)
    progress = tqdm(total=n_conformers, desc=path.name, unit="conformer", unit_scale=True)
    with progress, replace_when_complete(path) as partial, h5py.File(partial, "w") as file:
        for formula, n_cc, n_other in zip(formulas, plan.n_cc, plan.n_other, strict=True):
            name = "".join(f"{SYMBOLS[z]}{formula[z]}" for z in SYMBOLS if formula[z])
            group = file.create_group(name)
            for key, values in make_group(formula, int(n_cc), int(n_other), rng).items():
                group[key] = values
            progress.update(int(n_cc + n_other))
    return plan


def main(
    path: Annotated[Path, typer.Argument(help="The file to write.")],
    conformers: Annotated[
        int | None, typer.Option(help="How many conformers, instead of all.", show_default=False)
    ] = None,
    full: Annotated[bool, typer.Option(help=f"Of {N_FULL:,} conformers (3.3 GB).")] = False,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
) -> None:
    """Write a synthetic file in the ANI-1x layout."""
    n_whole = N_FULL if full else N_DEFAULT
    try:
        n_conformers = n_whole if conformers is None else conformers
        plan = write_file(path, n_conformers, n_whole=n_whole, seed=seed)
    except UserError as error:
        typer.echo(f"Error: {error}", err=True)
        raise SystemExit(2) from None
    n = plan.n_cc + plan.n_other
    typer.echo(
        f"{path}: {n.sum():,} conformers, {n @ plan.n_atoms:,} atoms in {len(n):,} groups; "
        f"{plan.n_cc.sum():,} conformers, {plan.n_cc @ plan.n_atoms:,} atoms with CC labels"
    )


if __name__ == "__main__":
    typer.run(main)
