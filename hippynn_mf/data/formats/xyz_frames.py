"""Structures as files hold them; plain frames of extended XYZ, read without ASE.

ASE's reader takes a comment apart letter by letter and turns atoms into rows of a table one by
one. What most files hold, `name=value` and `name="some numbers"` beside columns of symbols and
numbers, is read here in a fifth of its time, into the same values. Anything else is left to ASE.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_properties
from ase.data import atomic_numbers
from ase.io import read
from ase.io.extxyz import parse_properties, per_config_properties

from hippynn_mf.cells import VOIGT
from hippynn_mf.data.formats.system_keys import LEAST_MOMENT
from hippynn_mf.errors import UserError, comes_from

# A name with a value, in double quotes or without; of all that ASE may give a meaning of its own
# (other brackets, signs of escape, a second =) there is nothing in it.
PAIR = re.compile(
    r'\s*([A-Za-z0-9_().+*-]+)=(?:"([^"\\]*)"|([^\s"\'{}\[\]\\=]+))(?=\s|$)', re.ASCII
)
# Of a comment that ASE reads: values in any brackets or quotes, and names beside them.
VALUES = re.compile(r'"(?:\\.|[^"\\])*"|\'[^\']*\'|\{[^}]*\}|\[[^=]*\]')
NAMES = re.compile(r"(?:^|\s)([^\s=]+)=")
TWICE = "Readers would take the last one; keep the right one."
TENSORS = ("Lattice", "virial", "stress")  # nine numbers, column by column
TRUTH = {"T": True, "true": True, "True": True, "TRUE": True}
TRUTH |= {"F": False, "false": False, "False": False, "FALSE": False}
MAY_BE_NUMBERS = frozenset("+-.0123456789nNiI")  # how they begin
# Of a calculator's results, those that are kept as they are written. Constraints are no columns.
PLAIN_RESULTS = {"energy", "free_energy", "stress"}
OTHERS = set(per_config_properties) - PLAIN_RESULTS | {"uid", "move_mask"}


@dataclass(frozen=True)
class FileStructure:
    """A structure, and all that its file says of it.

    Attributes:
        numbers: (n_atoms,) atomic numbers.
        positions: (n_atoms, 3) float64, in the unit of the file.
        cell: (3, 3) float64, rows are lattice vectors.
        pbc: (3,) bool.
        info: names with values of the structure.
        values: these, the columns of the atoms, and the results of a calculator.
    """

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    info: Mapping[str, Any]
    values: Mapping[str, Any]

    @classmethod
    def of(cls, atoms: Atoms) -> FileStructure:
        """What ASE has read, of which it takes a part for results."""
        arrays = {k: a for k, a in atoms.arrays.items() if k not in ("numbers", "positions")}
        results = {} if atoms.calc is None else atoms.calc.results
        info = {**_totals(atoms, results), **atoms.info}
        values = {**info, **arrays, **results}
        return cls(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, info, values)

    def __len__(self) -> int:
        return len(self.numbers)


def _totals(atoms: Atoms, results: Mapping[str, Any]) -> dict[str, float]:
    """Charge and spin of a molecule whose atoms or calculator have any.

    Charges of crystals' atoms are those of ions, and their moments an order of many.
    """
    if atoms.pbc.any():
        return {}
    charge = float(np.sum(atoms.arrays.get("initial_charges", 0.0)))
    moments = [np.sum(atoms.arrays.get("initial_magmoms", 0.0)), results.get("magmom") or 0.0]
    spin = max((float(np.sum(each)) for each in moments), key=abs)
    found = {"charge": charge, "total_spin": spin}
    return {name: value for name, value in found.items() if not abs(value) <= LEAST_MOMENT}


def read_frame(comment: str, lines: Sequence[str]) -> FileStructure:
    """A structure of its comment and the lines of its atoms.

    Raises what ASE raises for a wrong one, of any class.
    """
    found = _read_plain(comment, lines)
    if found is not None:
        return found
    names = NAMES.findall(VALUES.sub("", comment))
    if len(set(names)) < len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise UserError(f"{twice} is there twice. {TWICE}")
    text = io.StringIO(f"{len(lines)}\n{comment.rstrip()}\n{''.join(lines)}")
    return FileStructure.of(read(text, format="extxyz"))


@dataclass(frozen=True)
class _Columns:
    """Which columns are what: names, in the spelling of ASE, of runs of columns of numbers."""

    width: int
    species: int
    numbers: tuple[tuple[str, slice | int], ...]


@lru_cache(maxsize=64)
def _columns(properties: str) -> _Columns | None:
    """The columns that a text says; None for other than one of symbols and several of numbers."""
    kinds = properties.split(":")[1::3]
    if not set(kinds) <= {"S", "R"} or kinds.count("S") != 1:
        return None
    try:
        named, order, _, converters = parse_properties(properties)
    except Exception as error:  # left to ASE
        if not comes_from(error, "ase"):
            raise
        return None
    start, species = 0, -1
    numbers: list[tuple[str, slice | int]] = []
    for name, kind in zip(order, kinds, strict=False):
        ase_name, width = named[name]
        if kind == "S":
            species = start if ase_name == "symbols" and width == 1 else -1
        else:
            numbers.append((ase_name, start if width == 1 else slice(start, start + width)))
        start += width
    names = [name for name, _ in numbers]
    if (
        species != 0
        or ("positions", slice(1, 4)) not in numbers
        or OTHERS & set(names)
        or len(order) < len(kinds)  # a name twice
        or start != len(converters)
        or "initial_charges" in names
        or "numbers" in names
    ):
        return None
    return _Columns(start, species, tuple(numbers))


def _read_plain(comment: str, lines: Sequence[str]) -> FileStructure | None:
    """As `read_frame`; None for what is not plain, or wrong."""
    info = _pairs(comment.strip())
    if info is None:
        return None
    properties = info.pop("Properties", None)
    columns = _columns(properties) if isinstance(properties, str) else None
    if columns is None or not OTHERS.isdisjoint(info):
        return None
    rows = [line.split() for line in lines]
    try:
        numbers = np.array([_number_of(row[0]) for row in rows])
        flat = [float(text) for row in rows for text in row[1:]]
        table = np.array(flat).reshape(len(rows), columns.width - 1)
        pbc = np.zeros(3, bool)
        pbc[:] = info.pop("pbc", "Lattice" in info)
    except (ValueError, KeyError, TypeError):
        return None
    cell = info.pop("Lattice", None)
    arrays = {
        name: table[:, k - 1].copy() if isinstance(k, int) else table[:, k.start - 1 : k.stop - 1]
        for name, k in columns.numbers
    }
    positions = arrays.pop("positions")
    results = {name: info.pop(name) for name in list(info) if name in PLAIN_RESULTS}
    if (stress := results.get("stress")) is not None:
        results["stress"] = stress[tuple(zip(*VOIGT, strict=True))].astype(np.float64)
    by_atoms = {name: array for name, array in arrays.items() if name in all_properties}
    others = {name: array for name, array in arrays.items() if name not in all_properties}
    return FileStructure(
        numbers,
        positions,
        np.zeros((3, 3)) if cell is None else cell.T.astype(np.float64),
        pbc,
        info,
        {**info, **others, **by_atoms, **results},
    )


def _number_of(symbol: str) -> int:
    number = atomic_numbers.get(symbol)
    return atomic_numbers[symbol.capitalize()] if number is None else number


def _pairs(comment: str) -> dict[str, Any] | None:
    """Names and values of a comment, as ASE gives them; None for what is not plain."""
    found: dict[str, Any] = {}
    place = 0
    while place < len(comment):
        match = PAIR.match(comment, place)
        if match is None:
            return None
        name, quoted, bare = match.groups()
        if name in found:
            raise UserError(f"{name} is there twice. {TWICE}")
        value = _value(bare if quoted is None else quoted)
        if value is None or (name in TENSORS and np.shape(value) != (9,)):
            return None
        found[name] = value.reshape((3, 3), order="F") if name in TENSORS else value
        place = match.end()
    return found


def _value(text: str) -> Any:
    """Numbers, truth or a text; None for what is not plain."""
    parts = text.replace(",", " ").split() if "," in text else text.split()
    if not parts or text.startswith("_JSON "):
        return None
    if parts[0][0] in MAY_BE_NUMBERS:
        try:
            return _numbers(parts)
        except OverflowError:
            return None
        except ValueError:
            pass
    truth = [TRUTH.get(part) for part in parts]
    if None in truth:
        return text
    return truth[0] if len(truth) == 1 else truth


def _numbers(parts: Sequence[str]) -> Any:
    """One number or several, whole ones if all are."""
    if any("." in part for part in parts):  # of which an attempt at whole ones would be slow
        numbers: list[float] = [float(part) for part in parts]
    else:
        try:
            whole = [int(part) for part in parts]
            return np.int64(whole[0]) if len(whole) == 1 else np.array(whole, np.int64)
        except ValueError:
            numbers = [float(part) for part in parts]
    return np.float64(numbers[0]) if len(numbers) == 1 else np.array(numbers)
