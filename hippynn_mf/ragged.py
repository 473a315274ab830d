"""Values of atoms without padding, structure after structure; only what is cut out is padded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import DTypeLike

from hippynn_mf.stores import copy_of, new_store

ROWS_AT_ONCE = 2**14  # structures


@dataclass(frozen=True)
class Cut:
    """Places of padded structures in a store: `index` (n, width), where `is_atom` (n, width)."""

    index: np.ndarray
    is_atom: np.ndarray


@dataclass(frozen=True, eq=False)
class Places:
    """Where structures lie in a store: the first atom (n,) of each, and how many it has."""

    starts: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of_sizes(cls, sizes: np.ndarray) -> Places:
        """Structures of some sizes (n,), one after another."""
        ends = np.cumsum(sizes, dtype=np.int64)
        kind = np.int32 if not len(ends) or ends[-1] < 2**31 else np.int64
        return cls((ends - sizes).astype(kind), np.asarray(sizes, np.int32))

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: np.ndarray | slice) -> Places:
        """Those of some structures, by an integer or boolean index, or a slice."""
        return Places(self.starts[index], self.sizes[index])

    @cached_property
    def width(self) -> int:
        """Atoms of the largest structure."""
        return int(self.sizes.max(initial=0))

    @cached_property
    def n_atoms(self) -> int:
        """Atoms of all structures."""
        return int(self.sizes.sum())

    @property
    def are_whole(self) -> bool:
        """Whether the structures lie one after another, from the beginning of the store."""
        return bool((self.starts == np.cumsum(self.sizes, dtype=np.int64) - self.sizes).all())

    def rows(self) -> np.ndarray:
        """(n_atoms,) place of every atom, structure after structure."""
        sizes = self.sizes.astype(np.int64)
        shifts = self.starts - (np.cumsum(sizes) - sizes)
        return np.asarray(np.arange(self.n_atoms) + np.repeat(shifts, sizes))

    def cut(self, width: int | None = None) -> Cut:
        """Places of the structures padded to a width, by default to that of the largest."""
        within = np.arange(self.width if width is None else width)
        is_atom = within < self.sizes[:, None]
        return Cut(np.where(is_atom, self.starts[:, None] + within, 0), is_atom)


@dataclass(frozen=True, eq=False)
class Ragged(NDArrayOperatorsMixin):
    """An array of n structures that have different numbers of atoms.

    To read, it is like an array (n, n_atoms_max, …) padded with zeros, of which every index makes
    a copy: `array[rows]` (an integer or boolean index, or a slice) is padded to the largest of
    these structures alone, and `array[row]` is one without padding. `array[:]` is all of it, which
    for many structures is better taken in blocks; comparisons and arithmetic are of that.

    Attributes:
        values: (n_values, …) of atoms. Several arrays may share them, and an array need not use
            all of them.
        places: where its structures are.
    """

    values: np.ndarray
    places: Places

    @classmethod
    def of(cls, padded: np.ndarray, sizes: np.ndarray) -> Ragged:
        """Of an array (n, n_atoms_max, …) of structures with `sizes` (n,) atoms each."""
        is_atom = np.arange(padded.shape[1]) < np.asarray(sizes)[:, None]
        return cls(padded[is_atom], Places.of_sizes(np.asarray(sizes)))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of its numbers."""
        return self.values.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape as a padded array."""
        return len(self.places), self.places.width, *self.values.shape[1:]

    @property
    def nbytes(self) -> int:
        """Bytes of its atoms."""
        return self.places.n_atoms * int(np.prod(self.values.shape[1:])) * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, key: Any) -> np.ndarray:
        """Structures as an array of their own, see above."""
        rows, *within = key if isinstance(key, tuple) else (key,)
        if isinstance(rows, int | np.integer):
            start = int(self.places.starts[rows])
            found = self.values[start : start + int(self.places.sizes[rows])].copy()
            return found[tuple(within)] if within else found
        found = self.take(self.places[rows].cut())
        return found[(slice(None), *within)] if within else found

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        """All of it, padded."""
        return self[:] if dtype is None else self[:].astype(dtype)

    def __array_ufunc__(self, function: Any, method: str, *inputs: Any, **keywords: Any) -> Any:
        """A function of numpy, of all of it, padded."""
        plain = [each[:] if isinstance(each, Ragged) else each for each in inputs]
        return getattr(function, method)(*plain, **keywords)

    def numpy(self) -> np.ndarray:
        """All of it, padded, as a tensor's."""
        return self[:]

    def take(self, cut: Cut) -> np.ndarray:
        """(n, width, …) of what `Places.cut` gives of its own places, 0 where there is no atom."""
        if not len(self.values):
            return np.zeros((*cut.index.shape, *self.values.shape[1:]), self.dtype)
        found = self.values.take(cut.index, axis=0)
        found[~cut.is_atom] = 0
        return found

    def at(self, places: Places) -> Ragged:
        """Other structures of the same values."""
        return Ragged(self.values, places)

    def first(self) -> np.ndarray:
        """(n, …) of the first atom of every structure, zeros of one that has none."""
        has_any = self.places.sizes > 0
        found = np.zeros((len(self), *self.values.shape[1:]), self.dtype)
        found[has_any] = self.values[self.places.starts[has_any]]
        return found

    def compact(self) -> Ragged:
        """The same with values of its own, one structure after another."""
        places = Places.of_sizes(self.places.sizes)
        values = new_store((places.n_atoms, *self.values.shape[1:]), self.dtype, self.values)
        for rows in blocks_of(len(self)):
            block = self.places[rows]
            if len(block):
                start = int(places.starts[rows][0])
                values[start : start + block.n_atoms] = self.values.take(block.rows(), axis=0)
        return Ragged(values, places)

    def replaced(self, others: Mapping[int, np.ndarray | float]) -> Ragged:
        """With other values (n_atoms, …), or one number, of structures by index; this one stays."""
        if not others:
            return self
        values = copy_of(self.values)
        for row, of_row in others.items():
            start = int(self.places.starts[row])
            values[start : start + int(self.places.sizes[row])] = of_row
        return Ragged(values, self.places)


def n_atoms_of(species: np.ndarray) -> np.ndarray:
    """(n,) atoms of padded species; a ValueError for padding before an atom."""
    is_atom = species > 0
    sizes = is_atom.sum(axis=1)
    if not (is_atom == (np.arange(species.shape[1]) < sizes[:, None])).all():
        raise ValueError("Padding (0) stands between or before the atoms of a structure.")
    return np.asarray(sizes)


def as_ragged(species: Ragged | np.ndarray, *others: Ragged | np.ndarray) -> tuple[Ragged, ...]:
    """Species and other arrays of the same atoms, padded or not."""
    if not isinstance(species, Ragged):
        padded = np.asarray(species)
        species = Ragged.of(padded, n_atoms_of(padded))
    sizes = species.places.sizes
    return species, *(
        array if isinstance(array, Ragged) else Ragged.of(np.asarray(array), sizes)
        for array in others
    )


def blocks_of(n: int, at_once: int = ROWS_AT_ONCE) -> Iterator[slice]:
    """Slices of some rows out of `n`: what is computed in float64 stays small."""
    return (slice(start, start + at_once) for start in range(0, n, at_once))


def blocks_by_size(sizes: np.ndarray, squares_at_once: int) -> Iterator[np.ndarray]:
    """Numbers of structures with `sizes` (n,) atoms, by size: a large one costs itself alone.

    The squares of their numbers of atoms, padded to the largest of a block, add up to no more than
    `squares_at_once`, unless it is one structure.
    """
    order = np.argsort(sizes, kind="stable")
    start = 0
    while start < len(order):
        some = sizes[order[start : start + ROWS_AT_ONCE]].astype(np.int64)
        squares = some**2 * np.arange(1, len(some) + 1)
        n = max(1, int(np.searchsorted(squares, squares_at_once, side="right")))
        yield order[start : start + n]
        start += n


def recentred(positions: np.ndarray) -> np.ndarray:
    """Positions (…, n_atoms, 3) in Å as single precision takes them, far from the origin or not.

    Double ones are moved to their own mean before the cast, which leaves distances, cells and
    images as they are; what is single already has lost its digits, and stays. The moved ones are
    returned in float32.
    """
    if positions.dtype == np.float32 or not positions.size:
        return positions.astype(np.float32, copy=False)
    with np.errstate(invalid="ignore"):  # of damaged ones, which readers refuse
        mean = positions.mean(axis=-2, keepdims=True, dtype=np.float64)
        return np.asarray(positions - mean, np.float32)
