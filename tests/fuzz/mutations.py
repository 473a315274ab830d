"""Small valid inputs made wrong: bytes, words, values of JSON, and objects of HDF5 files.

Every function draws from a `random.Random`, of a seed that hypothesis or `scripts/fuzz_counts.py`
chooses.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np

OUTSIDE = "../outside/secret"
WORDS = (
    *("", "-1", "0", "99999999999", "1" + "0" * 20, "9" * 5000, "nan", "inf", "-inf", "1e308"),
    *("1e400", "٣", "x", "Xx", "\x00", "\ud83d", "\u2028", "pos:R:99999999999", "pos:R:3:pos:R:3"),
    *("Properties=species:S:1", 'Lattice="1 2 3"', 'pbc="T T T"', "energy=", "energy=nan"),
    *("head=CC", "charge=1", '"', "'", "{", "[" * 200, "\n\n", "\r", OUTSIDE, "/etc/passwd"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 10**30, 1e308, float("nan"), float("inf"), "", "x", "\ud800", "\x1b[2J"),
    *([], {}, [[]], {"a": 1}, OUTSIDE, "../..", "/etc/passwd", "a" * 10_000, 2**63, -(10**12)),
)


def of_bytes(content: bytes, random: Random) -> bytes:
    """Bytes changed, put in, taken out or cut off, at one to four places."""
    data = bytearray(content)
    for _ in range(random.randint(1, 4)):
        place = random.randrange(len(data) + 1)
        kind = random.randrange(5)
        some = bytes(random.randrange(256) for _ in range(random.randint(1, 8)))
        if kind == 0:
            data[place : place + len(some)] = some
        elif kind == 1:
            data[place:place] = some
        elif kind == 2:
            del data[place : place + random.randint(1, 64)]
        elif kind == 3:
            del data[place:]
        elif place < len(data):
            data[place] ^= 1 << random.randrange(8)
    return bytes(data)


def of_text(content: bytes, random: Random) -> bytes:
    """Words and lines changed, repeated or taken out; sometimes bytes."""
    if random.randrange(4) == 0:
        return of_bytes(content, random)
    lines = content.decode().split("\n")
    for _ in range(random.randint(1, 3)):
        number = random.randrange(len(lines))
        words = lines[number].split(" ")
        kind = random.randrange(7)
        if kind > 4:  # what a slip of the finger does
            place = random.randrange(len(words))
            words[place] = random.choice((f"{random.uniform(-3, 3):.4f}", "H", "C", "1", "2"))
            lines[number] = " ".join(words)
        elif kind == 0:
            lines.insert(number, lines[number])
        elif kind == 1 and len(lines) > 1:
            del lines[number]
        elif kind == 2:
            lines.insert(number, "")
        else:
            words[random.randrange(len(words))] = random.choice(WORDS)
            lines[number] = " ".join(words)
    return "\n".join(lines).encode(errors="surrogatepass")


def of_json(content: bytes, random: Random) -> bytes:
    """Values and keys changed, repeated, nested deeply; sometimes words."""
    if random.randrange(4) == 0:
        return of_text(content, random)
    value = json.loads(content)
    for _ in range(random.randint(1, 2)):
        parent, key = _place(value, random)
        kind = random.randrange(4)
        if kind == 0 and isinstance(parent, dict):
            parent[random.choice(("", "x", "slug", "format", OUTSIDE))] = parent.pop(key)
        elif kind == 1:
            del parent[key]
        else:
            parent[key] = deepcopy(random.choice(VALUES))  # which may be changed in turn
        if not value:
            break
    text = json.dumps(value)
    if random.randrange(8) == 0:
        text = '{"a":' * 50_000 + text + "}" * 50_000
    elif random.randrange(8) == 0 and text.startswith("{") and len(text) > 2:
        text = text[:-1] + ", " + text[1:]  # every key twice
    return text.encode(errors="surrogatepass")


def _place(value: Any, random: Random) -> tuple[Any, Any]:
    """A container in nested JSON, and a key of it."""
    parent, key = value, random.choice(_keys(value))
    while isinstance(parent[key], dict | list) and parent[key] and random.randrange(5):
        parent = parent[key]
        key = random.choice(_keys(parent))
    return parent, key


def _keys(container: Any) -> list[Any]:
    return list(container) if isinstance(container, dict) else list(range(len(container)))


def of_hdf5(content: bytes, random: Random, folder: Path) -> bytes:
    """Objects replaced by links, foreign storage, other shapes and types; sometimes bytes."""
    if random.randrange(4) == 0:
        return of_bytes(content, random)
    path = folder / "mutated.h5"
    path.write_bytes(content)
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        name = random.choice(names)
        item = file[name]
        values = item[()] if isinstance(item, h5py.Dataset) else np.zeros(3)
        del file[name]
        random.choice(HDF5)(file, name, values, random, folder)
    return path.read_bytes()


def _linked(file: h5py.File, name: str, values: Any, random: Random, folder: Path) -> None:
    links = (
        h5py.ExternalLink(OUTSIDE, "/"),
        h5py.ExternalLink(str(folder / "other.h5"), "/x"),
        h5py.SoftLink("/nowhere"),
        h5py.SoftLink(f"/{name}"),
        h5py.SoftLink("/"),
    )
    file[name] = random.choice(links)


def _external(file: h5py.File, name: str, values: Any, random: Random, folder: Path) -> None:
    file.create_dataset(name, shape=(4, 3), dtype="f4", external=[(OUTSIDE, 0, h5py.h5f.UNLIMITED)])


def _virtual(file: h5py.File, name: str, values: Any, random: Random, folder: Path) -> None:
    layout = h5py.VirtualLayout(shape=(4,), dtype="f4")
    layout[:] = h5py.VirtualSource(OUTSIDE, "x", shape=(4,))
    file.create_virtual_dataset(name, layout)


def _huge(file: h5py.File, name: str, values: Any, random: Random, folder: Path) -> None:
    shape = random.choice([(10**9, 5, 3), (2**40,), (10**7, 1000)])
    file.create_dataset(name, shape=shape, dtype="f8", chunks=True)


def _other_values(file: h5py.File, name: str, values: Any, random: Random, folder: Path) -> None:
    others = (
        *(1.0, np.nan, b"text", "text", np.zeros(0), np.zeros((0, 3)), np.zeros((2, 2, 2, 2))),
        *(np.array([b"C", b"\xff"]), np.array([np.inf] * 3), np.array([1e300] * 3)),
        *(h5py.Empty("f4"), np.zeros(3, [("a", "f4")]), np.array([True, False]), np.zeros(3, "c8")),
    )
    file[name] = random.choice(others)


def _changed(file: h5py.File, name: str, values: Any, random: Random, folder: Path) -> None:
    array = np.array(values)
    if array.size and array.dtype.kind in "fiu":
        number = random.choice([np.nan, np.inf, -np.inf, 0, -1, 1e30, 255])
        with np.errstate(all="ignore"):
            array.ravel()[random.randrange(array.size)] = np.array(number).astype(array.dtype)
    file[name] = array


def _missing(file: h5py.File, name: str, values: Any, random: Random, folder: Path) -> None:
    """Leave it out."""


HDF5: tuple[Callable[..., None], ...] = (
    *(_linked, _linked, _external, _virtual, _huge),
    *(_other_values, _other_values, _changed, _changed, _missing),
)
