"""The format extended XYZ: read as ASE does, with the checks that it lacks, and written."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.io.extxyz import key_val_dict_to_str, output_column_format, save_calc_results, write_xyz
from tqdm import tqdm

from hippynn_mf.data.formats.xyz_frames import FileStructure, read_frame
from hippynn_mf.data.formats.xyz_scan import PACKERS, scan
from hippynn_mf.errors import UserError, comes_from, errors_about, one_line

PLAIN = (".xyz", ".extxyz")
SUFFIXES = (*PLAIN, *(suffix + packed for suffix in PLAIN for packed in (".gz", ".bz2", ".xz")))
SYMBOLS = np.array(chemical_symbols)
NOT_COLUMNS = ("numbers", "positions", "species", "pos")  # of ASE's writer, beside its own


def is_xyz(path: Path) -> bool:
    """Whether the name of a file says that it is extended XYZ."""
    return path.name.lower().endswith(SUFFIXES)


def read_molecules(path: Path) -> Iterator[FileStructure]:
    """The structures of a file in its order.

    Raises UserError for a file that is empty, cut off or not extended XYZ, and for structures that
    have atoms without an element, or positions that are not finite.
    """
    with progress_bar(path, in_bytes=True) as progress:
        for number, (comment, lines) in enumerate(scan(path, progress=progress.update), 1):
            try:
                with errors_about(f"{path}, structure {number}"):
                    structure = read_frame(comment, lines)
            except Exception as error:  # ASE has no class for what a wrong file raises
                if not comes_from(error, "ase"):
                    raise
                raise UserError(
                    f"{path}, structure {number}: ASE cannot read it as extended XYZ "
                    f"({type(error).__name__}: {one_line(error)})."
                ) from None
            refuse_structure(structure, f"{path}, structure {number}")
            yield structure


def progress_bar(path: Path, *, in_bytes: bool = False) -> tqdm[Any]:
    """A bar that counts structures, or bytes of the file; seen after two seconds, on a terminal."""
    return tqdm(
        total=path.stat().st_size if in_bytes and path.is_file() else None,
        desc=f"{path.name}: structures",
        unit="B" if in_bytes else "structure",
        unit_scale=in_bytes,
        delay=2,
        disable=None,
    )


@contextmanager
def written_xyz(partial: Path, out: Path) -> Iterator[TextIO]:
    """A stream of text into `partial`, packed as the suffix of `out` says."""
    packed = out.suffix.lower().lstrip(".")
    if packed in PACKERS:
        with PACKERS[packed].open(partial, "wt", encoding="utf-8") as stream:
            yield stream
    else:
        with partial.open("w", encoding="utf-8") as stream:
            yield stream


def write_molecule(
    stream: TextIO,
    numbers: np.ndarray,
    columns: Mapping[str, np.ndarray],
    info: Mapping[str, Any],
    cell: np.ndarray | None = None,
) -> None:
    """Append a structure of atomic `numbers` (n_atoms,); `columns` (n_atoms, 3), `pos` first.

    `cell` (3, 3) has vectors of zeros along axes without periodicity.

    ASE's own writer keeps 8 decimals of what belongs to atoms; here no digit is lost.
    """
    properties = ":".join(["species:S:1", *(f"{name}:R:3" for name in columns)])
    pbc = np.zeros(3, bool) if cell is None else cell.any(axis=1)
    comment = key_val_dict_to_str({**info, "pbc": pbc})
    lattice = ""
    if cell is not None and pbc.any():
        lattice = f'Lattice="{" ".join(map(repr, cell.ravel().tolist()))}" '
    stream.write(f"{len(numbers)}\n{lattice}Properties={properties} {comment}\n")
    rows = np.concatenate(list(columns.values()), axis=1, dtype=np.float64).tolist()
    for symbol, row in zip(Atoms(numbers).symbols, rows, strict=True):
        stream.write(f"{symbol} {' '.join(map(repr, row))}\n")


def write_structures(stream: TextIO, structures: Iterable[Atoms], *, exact: bool = False) -> None:
    """Append structures as ASE's writer does, byte for byte, in a third of its time.

    With `exact` every digit is kept, where ASE keeps 8 decimals of what belongs to atoms; not of
    structures with constraints or results of a stress. Results of a calculator are moved into the
    structures' `info` and `arrays`.
    """
    for atoms in structures:
        save_calc_results(atoms, calc_prefix="", remove_atoms_calc=True)
        if atoms.constraints or "stress" in atoms.info:  # which are converted
            write_xyz(stream, atoms)
            continue
        names = [name for name in atoms.arrays if name not in NOT_COLUMNS]
        arrays = {"symbols": SYMBOLS[atoms.numbers]}
        arrays |= {name: atoms.arrays[name] for name in ("positions", *names)}
        comment, _, _, line = output_column_format(atoms, list(arrays), arrays)
        if exact:
            line = line.replace("%16.8f", "%r")
        columns = [c for each in arrays.values() for c in each.reshape(len(atoms), -1).T.tolist()]
        values = itertools.chain.from_iterable(zip(*columns, strict=True))
        stream.write(f"{len(atoms)}\n{comment}\n{line * len(atoms) % tuple(values)}")


def refuse_structure(atoms: Atoms | FileStructure, place: str) -> None:
    """Raise UserError for what nothing can be trained on."""
    if not len(atoms):
        raise UserError(f"{place} has no atoms. Remove it.")
    if not (atoms.numbers > 0).all():
        raise UserError(f"{place} has atoms without an element (X). Remove it.")
    if (largest := int(atoms.numbers.max(initial=0))) >= len(chemical_symbols):
        raise UserError(
            f"{place} has the atomic number {largest}; elements end at {len(chemical_symbols) - 1}."
        )
    if not np.isfinite(atoms.positions).all():
        raise UserError(f"{place} has NaN or infinite positions. Remove it.")
