"""Databases of ASE, read without writing: ASE itself makes its tables in any file that it opens.

ASE's SQLite backend adds tables and indices to a database that lacks them, and that of LMDB makes a
file of locks and fills an empty one, also if nothing is asked for but to read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.db import connect
from ase.db.sqlite import SQLite3Database
from ase.io.formats import string2index

from hippynn_mf.errors import UserError

DATABASES = {".db": "db", ".aselmdb": "aselmdb"}
BACKEND = "ase-db-backends"  # the package that ASE needs for LMDB
TABLE = "SELECT COUNT(*) FROM sqlite_master WHERE name='systems'"


class _ReadOnlyDatabase(SQLite3Database):
    """ASE's SQLite database, of which nothing is written."""

    def _connect(self) -> sqlite3.Connection:
        return _read_only(Path(self.filename))


def database_images(path: Path, name: str, part: str | None = None) -> Iterator[Atoms]:
    """The rows of a database, with their key-value pairs and data beside what they are of.

    Args:
        path: the file, which stays as it is; nothing is written beside it.
        name: its format, as ASE names it: `db`, `aselmdb` or `json`.
        part: an index as `0:10`, or a selection of ASE as `energy<0`; all by default.

    Raises UserError for a database that is damaged or not ASE's, or whose package is not installed;
    else what ASE raises.
    """
    database = _open(path, name)
    for row in _rows(database, part):
        atoms = row.toatoms()
        plain = {key: value for key, value in dict(row.data).items() if _is_plain(value)}
        atoms.info = {**plain, **row.key_value_pairs, **atoms.info}
        for key, value in plain.items():
            array = np.asarray(value)
            if array.shape == (len(atoms), 3) and key not in atoms.arrays:
                atoms.arrays[key] = array
                del atoms.info[key]
        yield atoms


def _open(path: Path, name: str) -> Any:
    if name == "json":
        return connect(str(path), type=name, use_lock_file=False)
    if name == "aselmdb":
        return _open_lmdb(path)
    try:
        with closing(_read_only(path)) as connection:
            has_table = bool(connection.execute(TABLE).fetchone()[0])
    except sqlite3.Error as error:
        raise UserError(f"{path} is damaged, or no database ({error}). Copy it again.") from None
    if not has_table:
        raise UserError(
            f"{path} holds no structure: it is empty, or a database of another program than ASE."
        )
    return _ReadOnlyDatabase(str(path.absolute()), use_lock_file=False)


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=20)


def _open_lmdb(path: Path) -> Any:
    try:
        import lmdb
        from ase_db_backends.aselmdb import LMDBDatabase
    except ImportError:
        raise UserError(
            f"{path}: ASE reads such databases with the package {BACKEND}, which is not installed. "
            f"Install it: pip install {BACKEND}."
        ) from None
    try:  # first, for an object of ASE's that cannot open it complains once more at its end
        lmdb.open(str(path), subdir=False, readonly=True, lock=False).close()
    except lmdb.Error as error:
        raise UserError(
            f"{path} is empty, damaged, or no database of LMDB ({error}). Copy it again."
        ) from None
    return LMDBDatabase(str(path), use_lock_file=False, readonly=True)


def _rows(database: Any, part: str | None) -> Iterator[Any]:
    """The rows of a part, see `database_images`."""
    try:
        index = None if part is None else string2index(part)
    except ValueError:
        index = part
    if index is None or isinstance(index, str):
        return iter(database.select(index))
    chosen = slice(index, index + 1 or None) if isinstance(index, int) else index
    return iter(list(database.select())[chosen])


def _is_plain(value: object) -> bool:
    if isinstance(value, list):
        try:
            np.asarray(value)
        except ValueError:  # lists of several lengths
            return False
    return isinstance(value, int | float | str | bool | np.ndarray | list)
