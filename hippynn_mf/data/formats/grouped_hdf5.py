"""HDF5 files with a group for each molecule, in the layouts of several data sets.

- SPICE: `atomic_numbers`, `conformations` in bohr, `dft_total_energy` in hartree and
  `dft_total_gradient`, the **gradient**, in hartree/bohr; datasets say their unit as an attribute
  (downloader.py of https://github.com/openmm/spice-dataset).
- Transition1x: `data/<formula>/<reaction>/` with `atomic_numbers`, `positions`,
  `wB97x_6-31G(d).energy` and `.forces` in eV, Å and eV/Å; its other groups lead to the same
  (https://gitlab.com/matschreiner/Transition1x, its dataloader).
- COMP6 and pyanitools: `species` as symbols, `coordinates` in Å, `energies` in hartree, and in
  COMP6 `forces`, which are the **gradient** there (see `comp6.py`).
- ANI-1x: `atomic_numbers`, `coordinates` in Å, labels in hartree; read here only where their names
  or units are declared, and else by `ani1x.py`, which takes far less memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

import h5py
import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from hippynn_mf.cells import is_periodic_along
from hippynn_mf.data.formats.array_frames import Conformers, frames_of, held_in, systems_of
from hippynn_mf.data.formats.comp6 import KEYS_OF_LOT, level_of_theory
from hippynn_mf.data.formats.declared import NOTHING_DECLARED, Declared, Label, Told, Units
from hippynn_mf.data.formats.frames import Content
from hippynn_mf.data.formats.hdf5 import SUFFIXES, check_numbers, is_hdf5, open_hdf5
from hippynn_mf.data.formats.label_names import Held, Usual, find_labels, other_names
from hippynn_mf.data.formats.system_keys import KEPT
from hippynn_mf.errors import UserError
from hippynn_mf.keys import CELL, ENERGY, FORCES, STRESS
from hippynn_mf.levels import KNOWN_LEVELS, Level, Levels

ATOMIC_NUMBERS, SPECIES, LOT = "atomic_numbers", "species", "lot"
N_LOOKED_AT = 3  # groups of a group, to find a layout
DEEPEST = 4  # groups in groups
GRADIENT = "gradient"
UNIT = "units"  # the attribute of a dataset


@dataclass(frozen=True)
class Hdf5Layout:
    """A layout of HDF5 files.

    Attributes:
        name: for messages.
        numbers, positions: datasets of a group.
        usual: names of labels, with what they mean.
        units: of its numbers.
        named: whether its groups are molecules, and stay groups; else the formula is one.
    """

    name: str
    numbers: str
    positions: str
    usual: Usual
    units: Units
    named: bool = True


SPICE = Hdf5Layout(
    "HDF5 in the layout of SPICE",
    ATOMIC_NUMBERS,
    "conformations",
    (("dft_total_energy", ENERGY), ("dft_total_gradient", GRADIENT)),
    Units("hartree", "bohr"),
)
TRANSITION1X = Hdf5Layout(
    "HDF5 in the layout of Transition1x",
    ATOMIC_NUMBERS,
    "positions",
    (("wB97x_6-31G(d).energy", ENERGY), ("wB97x_6-31G(d).forces", FORCES)),
    Units("eV"),
    named=False,
)
COMP6 = Hdf5Layout(
    "HDF5 in the layout of COMP6",
    SPECIES,
    "coordinates",
    (("energies", ENERGY), ("forces", GRADIENT)),
    Units("hartree"),
)
PYANITOOLS = Hdf5Layout(
    "HDF5 in the layout of pyanitools",
    SPECIES,
    "coordinates",
    (("energies", ENERGY),),  # `forces` may be gradients: a key has to say it
    Units("hartree"),
)
ANI1X = Hdf5Layout(
    "HDF5 in the layout of ANI-1x",
    ATOMIC_NUMBERS,
    "coordinates",
    (("energy", ENERGY), ("energies", ENERGY), ("forces", FORCES)),
    Units("hartree"),
)
LAYOUTS = (SPICE, TRANSITION1X, COMP6, PYANITOOLS, ANI1X)
ALIKE = (COMP6, PYANITOOLS)


def find_hdf5_layout(path: Path) -> Hdf5Layout | None:
    """The layout of an HDF5 file; None for another file, or none of `LAYOUTS`.

    Raises UserError for a damaged one, and as `open_hdf5`.
    """
    if not path.is_file() or not (path.suffix.lower() in SUFFIXES or is_hdf5(path)):
        return None
    status = path.stat()
    return _layout_of(path, (status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=64)
def _layout_of(path: Path, stamp: object) -> Hdf5Layout | None:
    with open_hdf5(path) as file:
        group = _first_group(file, 0)
        keys = set() if group is None else set(group)
    if group is None:
        return None
    for layout in LAYOUTS:
        if {layout.numbers, layout.positions} <= keys:
            if layout in ALIKE:
                return COMP6 if LOT in keys else PYANITOOLS
            return layout
    return None


def _first_group(parent: h5py.Group, depth: int) -> h5py.Group | None:
    """The first group that has datasets of atoms, in groups of groups."""
    for item in islice(parent.values(), N_LOOKED_AT):
        if not isinstance(item, h5py.Group):
            continue
        if ATOMIC_NUMBERS in item or SPECIES in item:
            return item
        if depth < DEEPEST and (found := _first_group(item, depth + 1)) is not None:
            return found
    return None


def read_grouped_hdf5(
    path: Path,
    level: Level | None = None,
    *,
    levels: Levels = KNOWN_LEVELS,
    declared: Declared = NOTHING_DECLARED,
) -> Content:
    """Read all molecules of a file in one of `LAYOUTS`.

    Raises UserError for a file in none of them, for datasets of wrong shapes or types, and for
    units that a dataset names and nobody has declared.
    """
    told = Told(level, levels, declared)
    layout = find_hdf5_layout(path)
    if layout is None:
        raise UserError(
            f"{path} is an HDF5 file in none of the known layouts: "
            f"{', '.join(each.name.removeprefix('HDF5 in the layout of ') for each in LAYOUTS)}."
        )
    with open_hdf5(path) as file:
        parts = list(_parts(file, path, layout))
        held = held_in(parts)
        labels = _of_layout(layout, held, told)
        if not labels:
            labels = find_labels(path, layout.name, held, told, layout.usual)
        _refuse_other_lot(path, parts, labels, told)
        for name, label in labels.items():
            units = told.units(layout.units, label.level)
            arrays = [part.arrays.get(name) for part in parts]
            _check_unit(path, arrays, name, units.of(label.kind))
        own = [part.positions for part in parts]
        _check_unit(path, own, "positions", told.units(layout.units).positions)
        frames = frames_of(path, parts, labels, told, layout.units)
    absent = [name for name in told.labels() if name not in held]
    others = other_names(held, labels, (LOT, "smiles", "subset", *KEPT))
    return Content(frames, others, [], held, absent, told.units(layout.units).energy)


def _refuse_other_lot(
    path: Path, parts: Sequence[Conformers], labels: Mapping[str, Label], told: Told
) -> None:
    """Raise UserError if a molecule's `lot` says another level than its labels are read as."""
    for part in parts:
        lot = part.arrays.get(LOT)
        if lot is None or h5py.check_string_dtype(lot.dtype) is None or not lot.size:
            continue
        text = bytes(np.ravel(lot[()])[0]).decode(errors="replace")
        said = level_of_theory(text, told.levels)
        for name in KEYS_OF_LOT:
            label = labels.get(name)
            if said is not None and label is not None and label.level not in (None, said):
                raise UserError(
                    f"{part.place}: {name} is {text!r} by the file's {LOT}, so of level "
                    f"{said.label}, and would be read as {label.shown}. Name the file "
                    f"{said.label}={path}, or correct the key."
                )


def held_of(path: Path) -> dict[str, Held]:
    """What a file in one of `LAYOUTS` holds beside atoms and positions, whatever its labels are."""
    layout = find_hdf5_layout(path)
    if layout is None:
        return {}
    with open_hdf5(path) as file:
        return held_in(list(_parts(file, path, layout)))


def _of_layout(layout: Hdf5Layout, held: Mapping[str, Held], told: Told) -> dict[str, Label]:
    """The datasets of known levels in the ANI-1x layout, with declared ones in their place."""
    if layout is not ANI1X or told.level is not None:
        return {}
    declared = {name: label for name, label in told.labels().items() if name in held}
    done = {(label.level, label.kind) for label in declared.values()}
    found: dict[str, Label] = {}
    for level in told.levels:
        for kind, names in (
            (ENERGY, (*level.energy_keys, level.energy_name)),
            (FORCES, (str(level.force_key),)),
            (STRESS, (level.stress_name,)),
        ):
            if (level, kind) not in done:
                found |= {name: Label(level, kind, part=name) for name in names if name in held}
    return {**found, **declared}


def _parts(file: h5py.File, path: Path, layout: Hdf5Layout) -> Iterator[Conformers]:
    """The conformers of every group, each group once, whatever names lead to it."""
    waiting, seen = [(file["/"], 0)], set()
    while waiting:
        group, depth = waiting.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:
            continue
        seen.add(address)
        if layout.numbers in group and layout.positions in group:
            yield _conformers(group, path, layout)
        if depth < DEEPEST + 1:
            inner = [item for item in group.values() if isinstance(item, h5py.Group)]
            waiting += [(item, depth + 1) for item in reversed(inner)]


def _conformers(group: h5py.Group, path: Path, layout: Hdf5Layout) -> Conformers:
    place = f"{path}, group {group.name.lstrip('/')}"
    numbers = _numbers(group[layout.numbers], place, layout.numbers)
    dataset = group[layout.positions]
    if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 3:
        raise UserError(f"{place}: {layout.positions} is no array of shape (structures, atoms, 3).")
    n = dataset.shape[0]
    datasets = {
        name: item
        for name, item in group.items()
        if isinstance(item, h5py.Dataset)
        and item.shape is not None
        and name not in (layout.numbers, layout.positions)
    }
    cells = None
    if CELL in datasets and datasets[CELL].shape in ((3, 3), (n, 3, 3)):
        cells = np.broadcast_to(np.asarray(datasets[CELL][()], np.float64), (n, 3, 3))
    small = {name: np.asarray(datasets[name][()]) for name in KEPT if name in datasets}
    return Conformers(
        place,
        numbers,
        dataset,
        {name: item for name, item in datasets.items() if name not in (*small, CELL)},
        group=group.name.rpartition("/")[2] if layout.named else None,
        systems=systems_of(small, n, place),
        cells=cells,
        pbc=None if cells is None else is_periodic_along(cells),
    )


def _numbers(dataset: object, place: str, key: str) -> np.ndarray:
    """Atomic numbers of a group, from numbers or symbols."""
    if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 1:
        raise UserError(f"{place}: {key} is no list of atoms.")
    if h5py.check_string_dtype(dataset.dtype) is None:
        if dataset.dtype.kind not in "iuf":
            raise UserError(f"{place}: {key} holds {dataset.dtype}; atoms were expected.")
        return check_numbers(np.ravel(dataset[()]), f"{place}: {key}")
    symbols = [bytes(symbol).decode(errors="replace") for symbol in dataset[()]]
    if unknown := sorted(set(symbols) - set(chemical_symbols[1:])):
        raise UserError(f"{place}: unknown elements {unknown}.")
    return np.array([atomic_numbers[symbol] for symbol in symbols], np.uint8)


def _check_unit(path: Path, arrays: Sequence[object], name: str, unit: str | None) -> None:
    """Raise UserError if a dataset names another unit than that in which it would be read."""
    for dataset in arrays:
        if not isinstance(dataset, h5py.Dataset) or UNIT not in dataset.attrs:
            continue
        said = dataset.attrs[UNIT]
        text = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        if re.sub("angstroms?", "Å", text, flags=re.IGNORECASE).lower() != str(unit).lower():
            raise UserError(
                f"{path}: {name} says that it is in {text!r}, and would be read in {unit}. Declare "
                "its unit with --units, as energy=hartree, forces=hartree/bohr or positions=bohr."
            )
        return
