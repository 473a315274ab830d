"""Where the conformers of the second edition come from: molecules by SMILES, and dimers of two."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from ase import Atoms, units
from ase.data import vdw_radii
from qm_molecules import DIMERS, SMILES
from qm_starts import find_minimum
from rdkit import Chem
from rdkit.Chem import AllChem
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from hippynn_mf.labelling.harmonic import (
    HIGHEST_ENERGY,
    MOST_DRAWS,
    TEMPERATURES,
    Minimum,
    draw_conformer,
    draw_harmonic,
    minimum_near,
    round_as_stored,
    xtb_energy,
)
from hippynn_mf.labelling.torsions import Rotor

EMBEDDING_SEED = 20261122
# Closest contact of a dimer over the sum of the van der Waals radii; a hydrogen bond has 0.7.
CONTACTS = (0.65, 1.5)
PLACEMENTS = 64  # of which one is chosen by its Boltzmann weight


@dataclass(frozen=True)
class Molecule:
    """A minimum with the single bonds about which its parts turn."""

    minimum: Minimum
    rotors: tuple[Rotor, ...] = ()

    @property
    def numbers(self) -> np.ndarray:
        """Atomic numbers (n_atoms,)."""
        return self.minimum.numbers

    def draw(self, seed: tuple[int, ...]) -> np.ndarray:
        """Positions (n_atoms, 3) in Å of one conformer."""
        return draw_conformer(self.minimum, seed, rotors=self.rotors)


@dataclass(frozen=True)
class Dimer:
    """Two molecules in contact.

    A harmonic model of soft intermolecular modes would be wrong everywhere but at the minimum.
    Instead, the thermally displaced molecules are placed at random many times, and one placement
    is chosen by its Boltzmann weight of GFN2-xTB energies at the temperature of the conformer.
    """

    first: Minimum
    second: Minimum

    @property
    def order(self) -> np.ndarray:
        """Order of the joined atoms by symbol, as in every molecule."""
        symbols = Atoms(np.concatenate([self.first.numbers, self.second.numbers])).symbols
        return np.argsort(symbols, kind="stable")

    @property
    def numbers(self) -> np.ndarray:
        """Atomic numbers (n_atoms,)."""
        return np.concatenate([self.first.numbers, self.second.numbers])[self.order]

    def draw(self, seed: tuple[int, ...]) -> np.ndarray:
        """Positions (n_atoms, 3) in Å of one conformer."""
        rng = np.random.default_rng(seed)
        parts = (self.first, self.second)
        highest = sum(xtb_energy(m.numbers, m.positions) for m in parts) + HIGHEST_ENERGY
        for _ in range(MOST_DRAWS):
            temperature = float(np.exp(rng.uniform(*np.log(TEMPERATURES))))
            monomers = [
                draw_harmonic(m, rng, temperatures=(temperature, temperature)) for m in parts
            ]
            placed = [
                round_as_stored(self._place(*monomers, rng)[self.order]) for _ in range(PLACEMENTS)
            ]
            energies = np.array([xtb_energy(self.numbers, positions) for positions in placed])
            thermal = units.kB * temperature / (units.kcal / units.mol)
            if np.isfinite(energies).any():
                weights = np.exp(-(energies - energies.min()) / thermal)
                chosen = rng.choice(PLACEMENTS, p=weights / weights.sum())
                if energies[chosen] <= highest:
                    return placed[chosen]
        raise RuntimeError(f"{MOST_DRAWS} dimers of {self.numbers} lie above {HIGHEST_ENERGY}")

    def _place(self, first: np.ndarray, second: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Both molecules, the second turned at random and moved until it touches the first."""
        first = first - first.mean(axis=0)
        turned = Rotation.from_quat(rng.normal(size=4)).apply(second - second.mean(axis=0))
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        contact = rng.uniform(*CONTACTS) * np.add.outer(
            vdw_radii[self.first.numbers], vdw_radii[self.second.numbers]
        )
        # Along the direction, each pair is at its contact distance at the larger root of a
        # quadratic equation; the pair that touches first when coming from afar decides.
        along = (first[:, None] - turned) @ direction
        rest = contact**2 - cdist(first, turned, "sqeuclidean") + along**2
        shift = np.max(
            along + np.sqrt(np.where(rest >= 0, rest, np.nan)), initial=0, where=rest >= 0
        )
        return np.concatenate([first, turned + shift * direction])


@cache
def source(name: str) -> Molecule | Dimer:
    """What draws the conformers of a molecule or dimer."""
    if name in DIMERS:
        first, second = (source(part) for part in DIMERS[name])
        return Dimer(first.minimum, second.minimum)
    if name not in SMILES:
        return Molecule(find_minimum(name))
    atoms, rotors = embed(SMILES[name])
    return Molecule(minimum_near(atoms, name), rotors)


def embed(smiles: str) -> tuple[Atoms, tuple[Rotor, ...]]:
    """Rough geometry of a molecule, its atoms ordered by symbol, and its rotors."""
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    if AllChem.EmbedMolecule(molecule, randomSeed=EMBEDDING_SEED) != 0:
        raise RuntimeError(f"RDKit found no geometry of {smiles}")
    symbols = [atom.GetSymbol() for atom in molecule.GetAtoms()]
    order = np.argsort(symbols, kind="stable")
    place = {int(old): new for new, old in enumerate(order)}
    atoms = Atoms(symbols, molecule.GetConformer().GetPositions())[order]
    rotors = tuple(
        Rotor(place[start], place[end], tuple(sorted(place[k] for k in moving)))
        for start, end, moving in rotatable_bonds(molecule)
    )
    return atoms, rotors


def rotatable_bonds(molecule: Chem.Mol) -> list[tuple[int, int, list[int]]]:
    """Single bonds outside rings whose turn changes a geometry: both ends, and what turns."""
    found = []
    for bond in molecule.GetBonds():
        ends = bond.GetBeginAtom(), bond.GetEndAtom()
        linear = any(end.GetHybridization() == Chem.HybridizationType.SP for end in ends)
        terminal = any(end.GetDegree() == 1 for end in ends)
        if bond.GetBondType() != Chem.BondType.SINGLE or bond.IsInRing() or linear or terminal:
            continue
        start, end = (atom.GetIdx() for atom in ends)
        cut = Chem.RWMol(molecule)
        cut.RemoveBond(start, end)
        sides = Chem.GetMolFrags(cut)
        moving = next(side for side in sides if end in side)
        found.append((start, end, [k for k in moving if k != end]))
    return found
