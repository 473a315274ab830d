"""Reader of files in the COMP6 layout.

One group per molecule below one top-level group: `species` (n_atoms,) as bytes, `coordinates`
(n_conformers, n_atoms, 3) in Å, `energies` in hartree, and `forces`, which in the published files
hold the **gradient** +dE/dR in hartree/Å. Per-atom properties of other lengths are not read.

A key map says which level and property each key holds, as JSON:

    {"wb97x_dz": {"energy": "energies", "gradient": "forces"},
     "mp2_tz": {"energy": "mp2_tz.energy", "gradient": "mp2_tz_grad"}}

`gradient` is negated on reading; a key that holds true forces is declared as `forces`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from hippynn_mf.data.formats.hdf5 import (
    open_hdf5,
    read_array,
    refuse_beyond_float32,
    refuse_infinite,
    require_dataset,
)
from hippynn_mf.data.formats.system_keys import PERIODIC
from hippynn_mf.data.structures import Block, Structures, join_blocks
from hippynn_mf.errors import UserError, shown, unknown_name_message
from hippynn_mf.files import exists, parse_json, read_text
from hippynn_mf.keys import CELL
from hippynn_mf.levels import KNOWN_LEVELS, Level, Levels

log = logging.getLogger(__name__)

KeyMap = Mapping[str, Mapping[str, str]]
PROPERTIES = ("energy", "gradient", "forces")

PUBLIC_KEYS: KeyMap = {"wb97x_dz": {"energy": "energies", "gradient": "forces"}}
# The keys whose level a molecule's `lot` names.
KEYS_OF_LOT = ("energies", "forces")


def read_key_map(path: Path, *, levels: Levels = KNOWN_LEVELS) -> KeyMap:
    """Read a key map, whose levels are among `levels`; anything unknown is a UserError."""
    if not exists(path):
        raise UserError(f"No key map {path}.")
    content = parse_json(read_text(path, "a key map (JSON)"), path)
    return check_key_map(content, path, levels=levels)


def check_key_map(content: Any, source: object, *, levels: Levels = KNOWN_LEVELS) -> KeyMap:
    """A key map from plain values, checked; `source` is where it is from, for messages."""
    if not _is_key_map(content):
        raise UserError(
            f'{source}: expected {{"<level>": {{"energy": "<key>"}}}}, found {shown(content)}.'
        )
    named: set[Level] = set()
    for level, keys in content.items():
        if (found := levels.get(level)) in named:
            raise UserError(f"{source}: level {found.id} ({found.label}) is named twice.")
        named.add(found)
        for name in keys:
            if name not in PROPERTIES:
                raise UserError(f"{source}: {unknown_name_message('property', name, PROPERTIES)}")
        if {"gradient", "forces"} <= set(keys):
            raise UserError(f"{source}: level {level} has both a gradient and forces; keep one.")
    return content


def _is_key_map(content: object) -> bool:
    """Whether this is a JSON object of objects of strings."""
    return isinstance(content, dict) and all(
        isinstance(keys, dict) and all(isinstance(key, str) for key in keys.values())
        for keys in content.values()
    )


def read_comp6(
    path: Path, keys: KeyMap = PUBLIC_KEYS, *, levels: Levels = KNOWN_LEVELS
) -> Structures:
    """Read a file in the COMP6 layout, or every `*.h5` file of a folder.

    Energies and forces of the levels in `keys`, which are among `levels`; forces are true forces,
    −dE/dR. Each molecule is a group. Raises UserError for a file, key or value that
    cannot be right, naming it.
    """
    path = Path(path)
    files = sorted(path.glob("*.h5")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"The folder {path} holds no .h5 files.")
    mapped = [(levels.get(name), properties) for name, properties in keys.items()]
    blocks: list[Block] = []
    for file_path in files:
        with open_hdf5(file_path) as file:
            for top in file.values():
                if isinstance(top, h5py.Group):
                    blocks += [_read_molecule(group, file_path, mapped) for group in top.values()]
    if not blocks:
        raise UserError(f"{path} holds no molecules in the COMP6 layout (group/molecule/species).")
    return join_blocks(blocks)


def _read_molecule(
    group: h5py.Group, path: Path, keys: list[tuple[Level, Mapping[str, str]]]
) -> Block:
    if not isinstance(group, h5py.Group):
        raise UserError(
            f"{path}: {group.name} is a dataset where COMP6 files have one group per molecule. "
            "If this is a file in the ANI-1x layout, pass it as --data."
        )
    where = group.name.lstrip("/")
    dataset = require_dataset(group, "species", path)
    if dataset.ndim != 1 or h5py.check_string_dtype(dataset.dtype) is None:
        raise UserError(
            f"{path}, molecule {where}: species has shape {dataset.shape} and type "
            f"{dataset.dtype}; a list of chemical symbols was expected."
        )
    for key in (CELL, *PERIODIC):
        if key in group and np.any(np.asarray(group[key][()])):
            raise UserError(
                f"{path}, molecule {where}: periodic ({key}), and a test set in the COMP6 layout "
                "holds molecules. Test on it as LEVEL=FILE with --test, or remove the key."
            )
    if not dataset.size:
        raise UserError(f"{path}, molecule {where}: there are no atoms. Remove it.")
    symbols = [bytes(symbol).decode(errors="replace") for symbol in dataset[()]]
    unknown = sorted(set(symbols) - set(chemical_symbols[1:]))  # ASE's first is X, a ghost
    if unknown:
        raise UserError(f"{path}, molecule {where}: unknown elements {unknown}.")
    coordinates = require_dataset(group, "coordinates", path)
    n_conformers = coordinates.shape[0] if coordinates.shape else 0
    shape = (n_conformers, len(symbols), 3)
    positions = read_array(group, "coordinates", path, shape)
    if not np.isfinite(positions).all():
        raise UserError(f"{path}, molecule {where}: NaN or infinite coordinates. Remove them.")

    refuse_beyond_float32(positions, f"{path}, molecule {where}: coordinates")
    energies, forces = {}, {}
    for level, properties in keys:
        for name, key in properties.items():
            _check_level_of_theory(group, key, level, path)
            expected = (n_conformers,) if name == "energy" else shape
            values = read_array(group, key, path, expected)
            refuse_infinite(values, key, path, where)
            refuse_beyond_float32(values, f"{path}, molecule {where}: {key}")
            if name == "energy":
                energies[level.id] = values.astype(np.float64)
            else:
                missing = np.isnan(values).any(axis=(1, 2), keepdims=True)
                signed = -values if name == "gradient" else values
                forces[level.id] = np.where(missing, np.nan, signed)
    return Block(
        name=where,
        numbers=np.array([atomic_numbers[symbol] for symbol in symbols]),
        kept=np.ones(n_conformers, bool),
        positions=positions,
        energies=energies,
        forces=forces,
    )


def _check_level_of_theory(group: h5py.Group, key: str, level: Level, path: Path) -> None:
    """Refuse a key map that calls `energies` or `forces` another level than the file's `lot`."""
    if key not in KEYS_OF_LOT:
        return
    if "lot" not in group:
        log.warning("%s: %s has no lot; %s is taken for %s", path, group.name, key, level.id)
        return
    lot = require_dataset(group, "lot", path)
    if h5py.check_string_dtype(lot.dtype) is None or not lot.size:
        raise UserError(f"{path}, molecule {group.name.lstrip('/')}: lot is no text. Remove it.")
    found = bytes(np.ravel(lot[()])[0]).decode(errors="replace")
    expected = f"{level.method}/{level.basis}"
    if _plain(found) != _plain(expected):
        raise UserError(
            f"{path}, molecule {group.name.lstrip('/')}: {key} is {found!r} by the file's lot, but "
            f"the key map calls it {level.id} ({expected}). Correct the key map."
        )


def level_of_theory(text: str, levels: Levels) -> Level | None:
    """The level whose method and basis a `lot` says; None if it is none of them."""
    said = _plain(text)
    return next((each for each in levels if _plain(f"{each.method}/{each.basis}") == said), None)


def _plain(level_of_theory: str) -> str:
    """Spelling without case, spaces, Greek, and with (d) for a star."""
    text = level_of_theory.lower().replace(" ", "").replace("ω", "w").replace("-", "")
    return text.replace("*", "(d)")
