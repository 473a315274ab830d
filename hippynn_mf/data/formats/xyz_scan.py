"""Extended XYZ files, looked through while they are read.

ASE ends without a word at a blank line, allocates whatever a line asks for, and waits for ever for
a pipe. So the file's own counts are compared with its lines first, within bounds.
"""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from ase.io.formats import get_compression

from hippynn_mf.errors import UserError
from hippynn_mf.files import reading, require_file

MOST_ATOMS = 10**6  # of a structure
LONGEST_LINE = 2**20  # characters
# Characters of a compressed file: so many in any, and so many for each of its bytes; texts of
# structures reach 10.
LEAST_UNPACKED, MOST_RATIO = 2**26, 100
PACKERS: dict[str, Any] = {"gz": gzip, "bz2": bz2, "xz": lzma}
MOST_COLUMNS = 9999  # of all properties together
# The type of a property and its number of columns, wherever ASE may find them in a line.
COLUMNS = re.compile(r":[RISL]:\s*([^:\s\"']+)")
PROPERTIES = re.compile(r"(?:^|\s)Properties=[\"']?([^\s\"']+)")


def count_structures(path: Path, *, strict_end: bool = True, least_atoms: int = 1) -> int:
    """Number of structures by the file's own counts of atoms; raises as `scan`."""
    return sum(1 for _ in scan(path, strict_end=strict_end, least_atoms=least_atoms))


def scan(
    path: Path,
    *,
    strict_end: bool = True,
    least_atoms: int = 1,
    progress: Callable[[int], object] = int,
) -> Iterator[tuple[str, list[str]]]:
    """The comment of every structure, and the lines of its atoms, by the file's own counts.

    `progress` is told the bytes of the file that were read since it was told before.

    Raises UserError for a file that is empty, cut off, no XYZ, no regular file, or has a blank line
    between structures, more than `MOST_ATOMS` or fewer than `least_atoms` atoms in one, lines of
    more than `LONGEST_LINE` characters, more than `MOST_COLUMNS` columns, or other columns than
    its Properties say: ASE leaves out without a word what is too much. With `strict_end`, the
    last line has to end with a line break: without one it may be cut off.
    """
    require_file(path, "an extended XYZ file")
    count, number, last, told = 0, 0, "", 0
    with unpacking(path), path.open("rb") as file, _as_text(path, file) as stream:
        lines = _lines(stream, path)
        for line in lines:
            number += 1
            if not line.strip():
                if any(rest.strip() for rest in lines):
                    raise UserError(
                        f"{path}, line {number} is blank, and more follows. Remove the line."
                    )
                break
            n_atoms = _n_atoms(line.strip(), least_atoms, f"{path}, line {number}")
            comment = next(lines, "")
            if comment:
                _refuse_columns(comment, f"{path}, line {number + 1}")
            atoms = list(itertools.islice(lines, n_atoms))
            if len(atoms) < n_atoms or not comment:
                raise UserError(
                    f"{path} is truncated: structure {count + 1}, which begins in line "
                    f"{number}, should have {n_atoms} atoms. Copy the file again."
                )
            said = _said_columns(comment)
            for place, atom in enumerate(atoms if said is not None else (), 1):
                found = len(atom.split())
                if found != said and atom.endswith("\n"):
                    raise UserError(
                        f"{path}, structure {count + 1}: line {number + place + 1} has {found} "
                        f"columns, and Properties in line {number + 1} say {said}. Name every "
                        "column there, or write the structure again."
                    )
            last = atoms[-1] if atoms else comment
            yield comment, atoms
            count, number = count + 1, number + n_atoms + 1
            progress(file.tell() - told)
            told = file.tell()
    if not count:
        raise UserError(f"{path} is empty: it holds no structure.")
    if strict_end and not last.endswith("\n"):
        raise UserError(
            f"{path} does not end with a line break, so it may be truncated. Copy it again, or add "
            "the line break if it is complete."
        )


def _as_text(path: Path, file: BinaryIO) -> TextIO:
    """The file as text, a compressed one as what it holds, without a mark of the order of bytes.

    A compressed file that ends too early, or is none, raises EOFError, OSError or zlib.error.
    """
    packed = get_compression(str(path))[1]
    if packed is None:
        return io.TextIOWrapper(file, encoding="utf-8-sig")
    if packed in PACKERS:
        stream: TextIO = PACKERS[packed].open(file, "rt", encoding="utf-8-sig")
        return stream
    raise UserError(f"{path}: files packed with {packed} are not read. Unpack it first.")


@contextmanager
def unpacking(path: Path) -> Iterator[None]:
    """Make what a damaged compressed file raises a UserError that names it."""
    with reading(path):
        try:
            yield
        except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise UserError(
                f"{path} is truncated or damaged: it cannot be unpacked ({error}). Copy it again."
            ) from None


def _lines(stream: TextIO, path: Path) -> Iterator[str]:
    """The lines of a file, which are not longer than a line should be."""
    most, n_characters = max(LEAST_UNPACKED, MOST_RATIO * path.stat().st_size), 0
    while line := stream.readline(LONGEST_LINE + 1):
        n_characters += len(line)
        if len(line) > LONGEST_LINE:
            raise UserError(
                f"{path} has a line of more than {LONGEST_LINE:,} characters. This is no XYZ file."
            )
        if n_characters > most:
            raise UserError(
                f"{path} unpacks to more than {MOST_RATIO} times its size; it is damaged or was "
                "made to fill memory. It is not read."
            )
        yield line


def _n_atoms(text: str, least: int, place: str) -> int:
    """The number of atoms that a line says."""
    is_count = text.isascii() and text.isdecimal()
    if is_count and (len(text) > len(str(MOST_ATOMS)) or int(text) > MOST_ATOMS):
        raise UserError(
            f"{place}: a structure of {text[:40]} atoms; at most {MOST_ATOMS:,} are read. This is "
            "no XYZ file, or lines are missing."
        )
    if not is_count or int(text) < least:
        raise UserError(
            f"{place}: a number of atoms was expected, found {text[:40]!r}. This is no XYZ file, "
            "or lines are missing."
        )
    return int(text)


def _said_columns(comment: str) -> int | None:
    """The columns that a comment says atoms have; None where it says none, or is wrong itself."""
    match = PROPERTIES.search(comment)
    return None if match is None else _sum_of_columns(match[1])


@lru_cache(maxsize=64)
def _sum_of_columns(properties: str) -> int | None:
    counts = properties.split(":")[2::3]
    if not counts or not all(text.isascii() and text.isdecimal() for text in counts):
        return None
    return sum(map(int, counts))


def _refuse_columns(comment: str, place: str) -> None:
    """Raise UserError for properties that ask for absurdly many columns."""
    n_columns = 0
    for text in COLUMNS.findall(comment):
        if len(text) >= len(str(MOST_COLUMNS)):
            raise UserError(
                f"{place}: a property of {text[:40]} columns; at most {MOST_COLUMNS} are read."
            )
        n_columns += int(text) if text.isascii() and text.isdecimal() else 0
    if n_columns > MOST_COLUMNS:
        raise UserError(f"{place}: {n_columns} columns; at most {MOST_COLUMNS} are read.")
