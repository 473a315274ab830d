"""Plain frames of extended XYZ are read as ASE reads them, value by value."""

from __future__ import annotations

import io

import numpy as np
import pytest
from ase.io import read
from hypothesis import given, settings
from hypothesis import strategies as st

from hippynn_mf.data.formats import xyz_frames
from hippynn_mf.data.formats.xyz_frames import FileStructure, read_frame

NAMES = ["energy", "energy_wb97x_dz", "energy_ccsd(t)_cbs", "REF_energy", "charge", "head"]
NAMES += ["config_type", "free_energy", "name", "virials", "total_charge", "Time", "weight"]
VALUES = ["1", "-3", "+2", "1.5", "-1e-3", "2E5", "1e400", "99999999999999999999", "nan", "inf"]
VALUES += ["T", "F", "True", "false", "tt", "IsolatedAtom", "C2H6", "1_0", "1,2", "1.5,x", "0x1"]
QUOTED = ["", " ", "1 2 3", "1 2.5", "T F T", "a b", "T x", "1 2 3 4 5 6 7 8 9", "_JSON [1, 2]"]
COLUMNS = ["forces:R:3", "REF_forces:R:3", "charges:R:1", "magmoms:R:1", "q:R:1"]


def value(text: str) -> str:
    return f'"{text}"' if not text or " " in text else text


COMMENTS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(NAMES), st.sampled_from([*VALUES, *QUOTED]).map(value)),
        st.tuples(st.just("pbc"), st.sampled_from(['"F F F"', '"T T F"', "T", '"1 0 1"', "x"])),
        st.tuples(st.just("stress"), st.sampled_from(['"1 2 3 2 5 6 3 6 9"', '"1 2 3"', "4"])),
        st.tuples(st.just("Lattice"), st.sampled_from(['"4 0 0 0.5 5 0 0 1 6"', '"4 4 4"'])),
        st.tuples(st.just("dipole"), st.just('"1 2 3"')),
        st.tuples(st.just("uid"), st.just("12")),
    ).map("=".join),
    max_size=6,
)


def read_by_ase(comment, lines):
    text = io.StringIO(f"{len(lines)}\n{comment}\n{''.join(lines)}")
    return FileStructure.of(read(text, format="extxyz"))


def assert_same(one, other):
    assert type(one) is type(other)
    if isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    elif one == one:  # no NaN
        assert one == other


def assert_same_structures(found, expected):
    np.testing.assert_array_equal(found.numbers, expected.numbers)
    np.testing.assert_array_equal(found.positions, expected.positions)
    np.testing.assert_array_equal(found.cell, expected.cell)
    np.testing.assert_array_equal(found.pbc, expected.pbc)
    assert list(found.values) == list(expected.values)
    assert list(found.info) == list(expected.info)
    for name in found.values:
        assert_same(found.values[name], expected.values[name])
    for name in found.info:
        assert_same(found.info[name], expected.info[name])


@st.composite
def frames(draw):
    """A comment, its columns anywhere in it, and lines of atoms, some of them wrong."""
    start = draw(st.sampled_from(["species:S:1:pos:R:3"] * 5 + ["species:S:1", "Z:I:1:pos:R:3"]))
    columns = [start, *draw(st.lists(st.sampled_from(COLUMNS), max_size=3, unique=True))]
    parts = draw(COMMENTS)
    parts.insert(draw(st.integers(0, len(parts))), f"Properties={':'.join(columns)}")
    n_numbers = sum(map(int, ":".join(columns).split(":")[2::3])) - 1
    numbers = st.one_of(
        *[st.floats(-1e3, 1e3).map(repr)] * 3, st.integers(-9, 9).map(str), st.sampled_from(["x"])
    )
    atom = st.tuples(
        st.sampled_from(["C", "H", "C", "H", "he", "CL", "X", "Q"]),
        st.lists(numbers, min_size=n_numbers, max_size=n_numbers),
    )
    atoms = draw(st.lists(atom, min_size=1, max_size=3))
    return " ".join(parts), [f"{symbol} {'  '.join(row)}\n" for symbol, row in atoms]


@settings(max_examples=400, deadline=None)
@given(frames())
def test_a_frame_is_what_ase_reads(frame):
    comment, lines = frame
    names = xyz_frames.NAMES.findall(xyz_frames.VALUES.sub("", comment))
    if len(set(names)) < len(names):  # of which ASE takes the last without a word
        with pytest.raises(Exception):  # noqa: B017, PT011
            read_frame(comment, lines)
        return
    try:
        expected = read_by_ase(comment, lines)
    except Exception as error:
        with pytest.raises(type(error)):
            read_frame(comment, lines)
    else:
        assert_same_structures(read_frame(comment, lines), expected)


@pytest.mark.parametrize(
    "comment",
    [
        'Properties=species:S:1:pos:R:3 energy=-1.5 config_type=water pbc="F F F"',
        'Lattice="5 0 0 0 5 0 0 0 5" Properties=species:S:1:pos:R:3 stress="1 0 0 0 1 0 0 0 1"',
    ],
)
def test_plain_frames_do_not_need_ase(comment, monkeypatch):
    lines = ["O 0 0 0\n", "H 0.97 0 0\n"]
    expected = read_by_ase(comment, lines)

    def refuse(*_, **__):
        raise AssertionError("ASE was asked")

    monkeypatch.setattr(xyz_frames, "read", refuse)
    assert_same_structures(read_frame(comment, lines), expected)


@pytest.mark.parametrize(
    "comment",
    [
        "",
        "a molecule of water",
        "Properties=species:S:1:pos:R:3:move_mask:L:1",
        "Properties=species:S:1:pos:R:3 note='single quotes'",
        "Properties=species:S:1:pos:R:3 vector={1 2 3}",
        "Properties=species:S:1:pos:R:3 converged",
        "Properties=pos:R:3:species:S:1",
        "Properties=species:S:1:pos:R:3 text=a\\=b",
    ],
)
def test_what_is_not_plain_is_left_to_ase(comment):
    lines = ["O 0 0 0 1\n", "H 0.97 0 0 1\n"]
    if comment.startswith("Properties=pos"):
        lines = ["0 0 0 O\n", "0.97 0 0 H\n"]
    elif "mask" not in comment:
        lines = [line.replace(" 1\n", "\n") for line in lines]
    else:
        lines = [line.replace(" 1\n", " T\n") for line in lines]
    assert_same_structures(read_frame(comment, lines), read_by_ase(comment, lines))
