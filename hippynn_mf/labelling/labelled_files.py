"""The files of labels: structures with what was in the pool and the labels, and those without."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms

from hippynn_mf.data.formats.extxyz_keys import energy_key, forces_key, stress_key
from hippynn_mf.data.formats.xyz_file import write_structures, written_xyz
from hippynn_mf.errors import UserError
from hippynn_mf.files import replace_when_complete
from hippynn_mf.keys import ENERGY, FORCES, STRESS
from hippynn_mf.labelling.pools import named
from hippynn_mf.labelling.provenance import plain_text, provenance_key
from hippynn_mf.labelling.records import ERROR, Record
from hippynn_mf.levels import Level


def refuse_labelled(structures: Sequence[Atoms], level: Level, path: Path) -> None:
    """Raise UserError for a pool that has labels of the level already."""
    names = {
        f"{kind}_{name}" for kind in (ENERGY, FORCES, STRESS) for name in (level.id, level.label)
    }
    has = [k for k, a in enumerate(structures) if names & {*a.info, *a.arrays}]
    if has:
        raise UserError(
            f"{path}: {named(structures, has)} have labels of {level.label} already. Remove them, "
            "or name another --level."
        )


def write_labelled(
    path: Path,
    structures: Sequence[Atoms],
    records: Sequence[Record],
    level: Level,
    provenance: str,
) -> None:
    """Write structures with their labels, complete or not at all; other labels stay."""
    _write(path, (_labelled(a, r, level, provenance) for a, r in _pairs(structures, records)))


def write_failed(
    path: Path, structures: Sequence[Atoms], records: Sequence[Record], level: Level
) -> None:
    """Write structures without their labels, and `failed_<level>`, why; complete or not at all."""
    _write(path, (_failed(a, r, level) for a, r in _pairs(structures, records)))


def write_structures_to(path: Path, structures: Sequence[Atoms]) -> None:
    """Write structures as extended XYZ with every digit, complete or not at all."""
    _write(path, iter(structures))


def _pairs(
    structures: Sequence[Atoms], records: Sequence[Record]
) -> Iterator[tuple[Atoms, Record]]:
    return zip(structures, records, strict=True)


def _write(path: Path, structures: Iterator[Atoms]) -> None:
    with replace_when_complete(path) as partial, written_xyz(partial, path) as stream:
        write_structures(stream, structures, exact=True)


def _copy(atoms: Atoms, level: Level) -> Atoms:
    copy: Atoms = atoms.copy()
    copy.calc = atoms.calc  # labels of the structure's own
    copy.info.pop(_failed_key(level), None)
    return copy


def _labelled(atoms: Atoms, record: Mapping[str, object], level: Level, provenance: str) -> Atoms:
    copy = _copy(atoms, level)
    copy.info[energy_key(level)] = record[ENERGY]
    if FORCES in record:
        copy.arrays[forces_key(level)] = np.array(record[FORCES])
    if STRESS in record:
        copy.info[stress_key(level)] = np.array(record[STRESS])
    copy.info[provenance_key(level.id)] = provenance
    return copy


def _failed(atoms: Atoms, record: Mapping[str, object], level: Level) -> Atoms:
    copy = _copy(atoms, level)
    copy.info[_failed_key(level)] = plain_text(str(record[ERROR]))
    return copy


def _failed_key(level: Level) -> str:
    return f"failed_{level.id}"
