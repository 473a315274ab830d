"""Formats of other people's data as kinds of input: how each is made, and made wrong."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from random import Random

import made_crystals
import made_formats
import mutations
import numpy as np
from test_matpes import record, write_records

from hippynn_mf.data.convert import convert_data
from hippynn_mf.data.formats.ani1x import read_ani1x
from hippynn_mf.data.formats.sources import open_data, with_declared
from hippynn_mf.data.info import describe_file
from hippynn_mf.labels import parse_labels
from hippynn_mf.levels import DZ

LABELS = parse_labels({"DZ": "EF"})
OTHERS = (
    *(np.zeros(0), np.zeros((0, 3)), np.zeros((2, 2, 2, 2)), np.array(b"text"), np.array("text")),
    *(np.array([{"a": 1}], object), np.zeros(3, "c8"), np.array([True]), np.array([1e300] * 3)),
)


def _bytes(content: bytes, random: Random, folder: Path) -> bytes:
    return mutations.of_bytes(content, random)


def _text(content: bytes, random: Random, folder: Path) -> bytes:
    return mutations.of_text(content, random)


def _json(content: bytes, random: Random, folder: Path) -> bytes:
    return mutations.of_json(content, random)


def _changed(array: np.ndarray, random: Random) -> np.ndarray:
    """An array with one other value, or another array."""
    if not array.size or array.dtype.kind not in "fiu" or random.randrange(2):
        return random.choice(OTHERS)
    array = array.copy()
    number = random.choice([np.nan, np.inf, -np.inf, 0, -1, 1e30, 255])
    with np.errstate(all="ignore"):
        array.ravel()[random.randrange(array.size)] = np.array(number).astype(array.dtype)
    return array


def _npz(content: bytes, random: Random, folder: Path) -> bytes:
    """One array changed, renamed or left out; sometimes bytes."""
    if random.randrange(4) == 0:
        return mutations.of_bytes(content, random)
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = dict(file)
    name = random.choice(sorted(arrays))
    array = arrays.pop(name)
    if (kind := random.randrange(6)) == 0:
        arrays[random.choice(["x", "energy", "Z", "E", "../x"])] = array
    elif kind > 1:
        arrays[name] = _changed(array, random)
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def _npy(content: bytes, random: Random, folder: Path) -> bytes:
    """An array changed; sometimes bytes."""
    if random.randrange(4) == 0:
        return mutations.of_bytes(content, random)
    stream = io.BytesIO()
    np.save(stream, _changed(np.load(io.BytesIO(content), allow_pickle=False), random))
    return stream.getvalue()


def _make_crystals(folder: Path) -> None:
    made_crystals.write_crystals(
        folder / "in.xyz", made_crystals.label(made_crystals.crystals(4), [DZ])
    )


def _make_matpes(folder: Path) -> None:
    write_records(folder / "in.json", [record(atoms) for atoms in made_crystals.crystals(4)])


def use_format(folder: Path, path: Path) -> None:
    """Read labels of one level; raises AssertionError if what was accepted is not sound."""
    if path.parent != folder:  # of a folder of DeePMD
        path = folder / path.relative_to(folder).parts[0]
    source = with_declared({"DZ": path})
    structures, _ = read_ani1x(source, LABELS)
    with open_data(source) as file:
        n_atoms = [len(group["atomic_numbers"]) for group in file.values()]
    assert len(structures) > 0
    assert min(n_atoms) > 0
    assert np.isfinite(structures.positions).all()
    assert not np.isinf(structures.energies[DZ.id]).any()
    assert not np.isinf(structures.forces[DZ.id]).any()


def use_periodic(folder: Path, path: Path) -> None:
    """Describe and convert a file that names its levels."""
    described = describe_file(path)
    assert described["n_structures"] > 0
    convert_data(path, folder / "out.h5", drop_others=True)
    assert describe_file(folder / "out.h5")["n_structures"] > 0


# title → file that is made wrong, how the input is made, how it is made wrong, how it is used
Entry = tuple[
    str,
    Callable[[Path], object],
    Callable[[bytes, Random, Path], bytes],
    Callable[[Path, Path], None],
]
FORMATS: dict[str, Entry] = {
    "extended XYZ, packed": (
        "in.xyz.gz", lambda f: made_formats.write_packed(f / "in.xyz.gz"), _bytes, use_format,
    ),
    "extended XYZ, crystals": ("in.xyz", _make_crystals, _text, use_periodic),
    "ASE trajectory": (
        "in.traj", lambda f: made_formats.write_trajectory(f / "in.traj"), _bytes, use_format,
    ),
    "ASE database": (
        "in.db", lambda f: made_formats.write_database(f / "in.db"), _bytes, use_format,
    ),
    "numpy arrays, one molecule": (
        "in.npz", lambda f: made_formats.write_sgdml(f / "in.npz"), _npz, use_format,
    ),
    "numpy arrays, padded": (
        "in.npz", lambda f: made_formats.write_physnet(f / "in.npz"), _npz, use_format,
    ),
    "DeePMD, arrays": (
        "in/H2O/set.000/coord.npy", lambda f: made_formats.write_deepmd(f / "in"), _npy, use_format,
    ),
    "DeePMD, types": (
        "in/H2O/type.raw", lambda f: made_formats.write_deepmd(f / "in"), _text, use_format,
    ),
    "HDF5, SPICE layout": (
        "in.h5", lambda f: made_formats.write_spice(f / "in.h5"), mutations.of_hdf5, use_format,
    ),
    "HDF5, Transition1x layout": (
        "in.h5", lambda f: made_formats.write_transition1x(f / "in.h5"), mutations.of_hdf5,
        use_format,
    ),
    "MatPES (JSON)": ("in.json", _make_matpes, _json, use_format),
}  # fmt: skip
