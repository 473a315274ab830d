"""The one container of labelled structures that readers fill and everything else reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from hippynn_mf import cells
from hippynn_mf.errors import refuse_unknown_elements
from hippynn_mf.labels import Labels
from hippynn_mf.levels import Level
from hippynn_mf.ragged import Places, Ragged, as_ragged, blocks_of, recentred


@dataclass(frozen=True)
class Structures:
    """Conformers of molecules of any size, with labels of several levels.

    What belongs to atoms is kept without padding, and shared by all selections of the same
    structures. Padded arrays (n, n_atoms_max, …) may be given for it as well.

    Attributes:
        species: (n, n_atoms_max) uint8 atomic numbers, 0 where there is no atom.
        positions: (n, n_atoms_max, 3) float32 in Å, see `recentred`.
        energies: level id → (n,) float64 in hartree, NaN where the label is missing.
        forces: level id → (n, n_atoms_max, 3) float32, −dE/dR in hartree/Å. All atoms of a
            conformer without the label are NaN.
        stress: level id → (n, 3, 3) float64, V⁻¹ dE/dε in hartree/Å³, NaN where missing, as it is
            for all that are not periodic along three axes.
        cells: (n, 3, 3) float64 in Å, the rows are lattice vectors, 0 along an axis without
            periodicity; None if no structure is periodic.
        groups: (n,) index into `group_names`, the file's groups, in ascending order.
        rows: (n,) position of each conformer in the whole file, which identifies it.
        group_names: names of the file's groups.
    """

    species: Ragged
    positions: Ragged
    energies: Mapping[str, np.ndarray]
    forces: Mapping[str, Ragged]
    groups: np.ndarray
    rows: np.ndarray
    group_names: tuple[str, ...]
    stress: Mapping[str, np.ndarray] = field(default_factory=dict)
    cells: np.ndarray | None = None

    def __post_init__(self) -> None:
        arrays = as_ragged(self.species, self.positions, *self.forces.values())
        object.__setattr__(self, "species", arrays[0])
        object.__setattr__(self, "positions", arrays[1])
        object.__setattr__(self, "forces", dict(zip(self.forces, arrays[2:], strict=True)))

    def __len__(self) -> int:
        return len(self.species)

    def __getitem__(self, index: np.ndarray | slice) -> Structures:
        """The conformers selected by an integer or boolean index, or by a slice."""
        chosen: dict[int, Places] = {}

        def of_atoms(array: Ragged) -> Ragged:
            places = array.places  # of several arrays
            if id(places) not in chosen:
                chosen[id(places)] = places[index]
            return array.at(chosen[id(places)])

        return replace(
            self,
            species=of_atoms(self.species),
            positions=of_atoms(self.positions),
            energies={level: values[index] for level, values in self.energies.items()},
            forces={level: of_atoms(values) for level, values in self.forces.items()},
            stress={level: values[index] for level, values in self.stress.items()},
            cells=None if self.cells is None else self.cells[index],
            groups=self.groups[index],
            rows=self.rows[index],
        )

    @property
    def n_atoms(self) -> np.ndarray:
        """(n,) how many atoms each has."""
        return self.species.places.sizes

    @property
    def atom_mask(self) -> np.ndarray:
        """(n, n_atoms_max) True where there is an atom."""
        return np.asarray(np.arange(self.species.places.width) < self.n_atoms[:, None])

    def has_energy(self, level: Level) -> np.ndarray:
        """(n,) True where a conformer has an energy of this level."""
        return np.isfinite(self.energies[level.id])

    def has_forces(self, level: Level) -> np.ndarray:
        """(n,) True where a conformer has forces of this level."""
        return np.isfinite(self.forces[level.id].first()).all(axis=1)  # none or all atoms

    def has_stress(self, level: Level) -> np.ndarray:
        """(n,) True where a conformer has the stress of this level."""
        return np.isfinite(self.stress[level.id]).all(axis=(1, 2))

    @property
    def pbc(self) -> np.ndarray:
        """(n, 3) True along an axis with periodicity."""
        if self.cells is None:
            return np.zeros((len(self), 3), bool)
        return cells.is_periodic_along(self.cells)

    @property
    def is_periodic(self) -> np.ndarray:
        """(n,) True of what is periodic along any axis."""
        return np.asarray(self.pbc.any(axis=1))

    @property
    def is_crystal(self) -> np.ndarray:
        """(n,) True of what is periodic along all axes."""
        return np.asarray(self.pbc.all(axis=1))

    def labelled(self, labels: Labels) -> Structures:
        """The conformers that have any of these labels."""
        has_any = np.zeros(len(self), bool)
        for level, properties in labels.items():
            has_any |= self.has_energy(level)
            if properties.forces:
                has_any |= self.has_forces(level)
            if properties.stress:
                has_any |= self.has_stress(level)
        return self if has_any.all() else self[has_any]

    def only(self, labels: Labels) -> Structures:
        """The same conformers with these labels alone."""
        kept = {level.id for level in labels}
        with_forces = {level.id for level, properties in labels.items() if properties.forces}
        with_stress = {level.id for level, properties in labels.items() if properties.stress}
        return replace(
            self,
            energies={name: v for name, v in self.energies.items() if name in kept},
            forces={name: v for name, v in self.forces.items() if name in with_forces},
            stress={name: v for name, v in self.stress.items() if name in with_stress},
        )

    def by_group(self) -> Iterator[tuple[str, Structures]]:
        """The conformers of each group that has any, with its name."""
        bounds = np.searchsorted(self.groups, np.arange(len(self.group_names) + 1))
        for name, start, stop in zip(self.group_names, bounds[:-1], bounds[1:], strict=True):
            if stop > start:
                yield name, self[slice(start, stop)]


def is_periodic(parts: Iterable[Structures]) -> bool:
    """Whether any of the structures is periodic, along any axis."""
    return any(part.cells is not None and bool(part.cells.any()) for part in parts)


def with_cells(parts: Mapping[str, Structures]) -> dict[str, Structures]:
    """The parts, all of which have cells if a structure of any is periodic, and else none."""
    if not is_periodic(parts.values()):
        return {name: replace(part, cells=None) for name, part in parts.items()}
    return {
        name: part if part.cells is not None else replace(part, cells=np.zeros((len(part), 3, 3)))
        for name, part in parts.items()
    }


@dataclass(frozen=True)
class Block:
    """The kept conformers of one group of a file, unpadded: what a reader makes of it.

    Attributes:
        name: the group.
        numbers: (n_atoms,) atomic numbers.
        kept: (n_file,) which of the group's conformers are kept; n is their number.
        positions: (n, n_atoms, 3) in Å.
        energies: level id → (n,) in hartree.
        forces: level id → (n, n_atoms, 3) in hartree/Å.
    """

    name: str
    numbers: np.ndarray
    kept: np.ndarray
    positions: np.ndarray
    energies: Mapping[str, np.ndarray]
    forces: Mapping[str, np.ndarray]


def join_blocks(blocks: Sequence[Block]) -> Structures:
    """The groups of a file, which all carry the same labels, as one."""
    sizes = [len(block.positions) for block in blocks]
    n_atoms = np.repeat([len(block.numbers) for block in blocks], sizes)
    places = Places.of_sizes(n_atoms)

    def joined(parts: Sequence[np.ndarray], dtype: type[np.generic], width: int) -> Ragged:
        flat = [np.asarray(part, dtype).reshape(-1, width) for part in parts]
        values = np.concatenate([np.zeros((0, width), dtype), *flat])
        return Ragged(values[:, 0] if width == 1 else values, places)

    return Structures(
        species=joined(
            [np.tile(b.numbers, n) for b, n in zip(blocks, sizes, strict=True)], np.uint8, 1
        ),
        positions=joined([recentred(block.positions) for block in blocks], np.float32, 3),
        energies={
            level: np.concatenate([block.energies[level] for block in blocks], dtype=np.float64)
            for level in blocks[0].energies
        },
        forces={
            level: joined([block.forces[level] for block in blocks], np.float32, 3)
            for level in blocks[0].forces
        },
        groups=np.repeat(np.arange(len(blocks)), sizes),
        rows=np.flatnonzero(np.concatenate([block.kept for block in blocks])),
        group_names=tuple(block.name for block in blocks),
    )


def atomic_energy_sum(species: Ragged | np.ndarray, level: Level) -> np.ndarray:
    """Sum of a level's self energies over the atoms, (n,) float64 in hartree.

    Raises UserError naming the elements for which the level has no self energy.
    """
    total = np.empty(len(species))
    for rows in blocks_of(len(species)):
        total[rows] = level.self_energies_of(species[rows]).sum(axis=1)
    return total


def elements_of(species: Ragged | np.ndarray) -> list[int]:
    """The atomic numbers that occur, in ascending order; 0 is padding."""
    elements: set[int] = set()
    for rows in blocks_of(len(species)):
        elements.update(np.flatnonzero(np.bincount(species[rows].ravel())).tolist())
    return sorted(elements)


def composition(species: Ragged | np.ndarray, numbers: Sequence[int]) -> np.ndarray:
    """(n, n_numbers) int32, how many atoms of every element each structure has."""
    counts = np.empty((len(species), len(numbers)), np.int32)
    for rows in blocks_of(len(species)):
        block = species[rows]
        for place, number in enumerate(numbers):
            counts[rows, place] = (block == number).sum(axis=1)
    return counts


def refuse_unknown_species(species: Ragged | np.ndarray, known: Sequence[int]) -> None:
    """Raise UserError if there are elements that a model of the `known` ones has no input for."""
    refuse_unknown_elements(elements_of(species), known)
