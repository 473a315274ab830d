"""Records of pymatgen structures in JSON, as MatPES is published: PBE and r2SCAN in a file each.

A file is a list of records, or a record in every line; gzipped or not. A record has `structure`
(pymatgen's dictionary of a `Structure`: `lattice` with `matrix` and `pbc`, `sites` with `species`
and `xyz` or `abc`), `energy` in eV, `forces` in eV/Å, `stress` in kbar with VASP's sign, six
numbers in the order xx, yy, zz, yz, xz, xy (or `stress_matrix`), and `functional`, which names the
level.
Sources: https://matpes.ai, and `MatPESTrainDoc` of the package emmet-core; that the stress is −0.1
GPa times what is written, the notebook on training in https://github.com/materialyzeai/matpes.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import ijson
import numpy as np
from ase import Atoms, units

from hippynn_mf.cells import stress_tensor
from hippynn_mf.data.formats.declared import NOTHING_DECLARED, Declared, Told
from hippynn_mf.data.formats.extxyz import content_of_atoms
from hippynn_mf.data.formats.frames import Content
from hippynn_mf.data.formats.json_stream import BoundedJson, NotedKeys, first_letter
from hippynn_mf.data.formats.label_styles import HEAD
from hippynn_mf.data.formats.pymatgen_structure import STRUCTURE, atoms_of, dictionary
from hippynn_mf.data.formats.xyz_file import progress_bar, refuse_structure
from hippynn_mf.data.formats.xyz_frames import FileStructure
from hippynn_mf.errors import UserError, one_line
from hippynn_mf.files import reading, require_file
from hippynn_mf.keys import ENERGY, FORCES, STRESS
from hippynn_mf.levels import KNOWN_LEVELS, Level, Levels

WHAT = "JSON of pymatgen structures, as MatPES"
SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
FUNCTIONAL, MATRIX = "functional", "stress_matrix"
SAME_STRESS = 0.1  # kbar
LOOKED_AT = 2**16  # bytes of a damaged file, to tell its format
EV_PER_ANGSTROM3_PER_KBAR = -0.1 * units.GPa  # of VASP's stress, whose sign is that of a pressure


def is_matpes(path: Path) -> bool:
    """Whether a file is JSON whose first record has a structure of pymatgen."""
    if not path.name.lower().endswith(SUFFIXES) or not path.is_file():
        return False
    status = path.stat()
    return _begins_with_a_structure(path, (status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=64)
def _begins_with_a_structure(path: Path, stamp: object) -> bool:
    try:
        first = next(_records(path), None)
    except UserError:  # if it is one, its reader says what is wrong
        with _opened(path) as stream, suppress(OSError, EOFError, zlib.error):
            start = stream.read(LOOKED_AT)
            return all(word in start for word in (b'"lattice"', b'"sites"'))
        return False
    except (OSError, EOFError):
        return False
    return isinstance(first, dict) and "lattice" in dictionary(first.get(STRUCTURE))


def read_matpes(
    path: Path,
    level: Level | None = None,
    *,
    levels: Levels = KNOWN_LEVELS,
    declared: Declared = NOTHING_DECLARED,
) -> Content:
    """Read all records of a file; `functional` is the level where the file has none told.

    Upper and lower case do not matter in its name. Raises UserError for JSON that cannot be read,
    for records without a structure, sites of several elements, and as `read_extxyz`.
    """
    require_file(path, "a file of records")
    told = Told(level, levels, declared)
    if declared.units:
        raise UserError(
            f"{path}: records of pymatgen structures are read in eV, eV/Å and VASP's kbar, as they "
            "are published, so units cannot be declared for them. Leave --units out; for other "
            "files of the same command, convert those first ('hippynn-mf data convert')."
        )
    functionals: dict[str, int] = {}
    read = map(FileStructure.of, _structures(path, told, functionals))
    content = content_of_atoms(path, WHAT, read, told)
    if level is not None and (unlike := _unlike(functionals, level)):
        remark = f"functional={unlike} is read as level {level.label}"
        return replace(content, remarks=(*content.remarks, remark))
    return content


def _structures(path: Path, told: Told, functionals: dict[str, int]) -> Iterator[Atoms]:
    """The structures; the functionals with the first record of each are filled in."""
    with progress_bar(path) as progress:
        for number, record in enumerate(_records(path), 1):
            place = f"{path}, structure {number}"
            atoms = _atoms_of(record, place)
            if (said := dictionary(record).get(FUNCTIONAL)) is not None:
                functionals.setdefault(str(said).lower(), number)
            if told.level is not None and len(functionals) > 1:
                first, second = functionals.items()
                raise UserError(
                    f"{path}: {FUNCTIONAL} is {first[0]} in structure {first[1]} and {second[0]} "
                    f"in structure {second[1]}, and all are read as level {told.level.label}. Name "
                    "the file without a level, with the functionals as levels (--levels)."
                )
            head = _level_of(record, told, place)
            if head is not None:
                atoms.info[HEAD] = head.id
            refuse_structure(atoms, place)
            yield atoms
            progress.update()


def _opened(path: Path) -> Any:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")


def _records(path: Path) -> Iterator[Any]:
    """The records of a list, or of lines, one after another."""
    with reading(path), _opened(path) as stream:
        try:
            prefix = "item" if first_letter(stream, path) == b"[" else ""
            bounded = BoundedJson(stream, path, outside=1 if prefix else 0)
            twice: list[str] = []
            for record in ijson.items(
                *(bounded, prefix), use_float=True, multiple_values=True,
                map_type=lambda: NotedKeys(twice),
            ):  # fmt: skip
                if twice:
                    raise UserError(f"{path}: an object has {twice[0]!r} twice. Keep one of them.")
                yield record
        except (ijson.JSONError, EOFError, gzip.BadGzipFile, UnicodeDecodeError) as error:
            raise UserError(
                f"{path} is damaged, or no JSON ({one_line(error)}). Copy or download it again."
            ) from None


def _atoms_of(record: object, place: str) -> Atoms:
    """A structure with its labels under ASE's names, in ASE's units."""
    content = dictionary(record)
    try:
        atoms = atoms_of(content, place)
        if content.get("charge") not in (None, 0):
            atoms.info["charge"] = float(content["charge"])
        if isinstance(content.get(ENERGY), bool):
            raise TypeError(f"the energy is {content[ENERGY]}")
        if content.get(ENERGY) is not None:
            atoms.info[ENERGY] = float(content[ENERGY])
        if content.get(FORCES) is not None:
            atoms.arrays[FORCES] = np.array(content[FORCES], np.float64)
        tensors = [
            stress_tensor(np.array(content[name], np.float64), f"{place}: {name}")
            for name in (STRESS, MATRIX)
            if content.get(name) is not None
        ]
        if tensors and np.abs(tensors[0] - tensors[-1]).max() > SAME_STRESS:
            raise UserError(f"{place}: {STRESS} and {MATRIX} are different. Correct one of them.")
        if tensors:
            atoms.info[STRESS] = tensors[0] * EV_PER_ANGSTROM3_PER_KBAR
    except (TypeError, ValueError, KeyError) as error:
        raise UserError(
            f"{place}: a structure of pymatgen with numbers was expected "
            f"({type(error).__name__}: {one_line(error)})."
        ) from None
    return atoms


def _unlike(functionals: Mapping[str, int], level: Level) -> str:
    """The functional of a file that is read as another level by name; empty if it is the same."""
    names = (level.id.lower(), level.label.lower(), level.method.lower())
    return next((name for name in functionals if name not in names), "")


def _level_of(record: object, told: Told, place: str) -> Level | None:
    """The level that a record names; None where that of the file counts."""
    functional = dictionary(record).get(FUNCTIONAL)
    if functional is None:
        return None
    name = str(functional).lower()
    found = [level for level in told.levels if name in (level.id.lower(), level.label.lower())]
    if found:
        return found[0]
    if told.level is not None:
        return None
    known = ", ".join(level.label for level in told.levels)
    raise UserError(
        f"{place}: functional={functional} names no level; known are {known}. Declare it, as "
        f"--levels {functional}, or name the level of the file."
    )
