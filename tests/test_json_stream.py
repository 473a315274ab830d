"""Bounds on the nesting and the records of JSON that is read as a stream."""

import gzip
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hippynn_mf.data.formats import json_stream
from hippynn_mf.data.formats.json_stream import BoundedJson
from hippynn_mf.data.formats.matpes import is_matpes, read_matpes
from hippynn_mf.errors import UserError
from hippynn_mf.levels import DZ

JSON = st.recursive(
    st.none() | st.integers() | st.text(alphabet='a[]{}"\\é\n'),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='b"\\{]'), inner, max_size=3)
    ),
    max_leaves=20,
)


def depth_of(value):
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


def read_all(content, size, **options):
    stream = BoundedJson(io.BytesIO(content), "made.json", **{"outside": 1, **options})
    blocks = []
    while block := stream.read(size):
        blocks.append(block)
    return b"".join(blocks)


@settings(deadline=None)
@given(value=JSON, size=st.integers(1, 40), is_ascii=st.booleans())
def test_the_depth_is_that_of_the_value_whatever_its_strings_hold(value, size, is_ascii):
    content = json.dumps(value, ensure_ascii=is_ascii).encode()
    deepest = depth_of(value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "MAX_DEPTH", deepest)
        assert read_all(content, size) == content
        patch.setattr(json_stream, "MAX_DEPTH", deepest - 1)
        if deepest:
            with pytest.raises(UserError, match="deep"):
                read_all(content, size)


@pytest.mark.parametrize(("outside", "join"), [(1, ", "), (0, "\n")])
def test_a_record_has_a_bound_and_the_file_has_none(outside, join, monkeypatch):
    monkeypatch.setattr(json_stream, "MAX_RECORD", 1000)
    small, large = ({"a": ["x" * n]} for n in (200, 2000))

    def text(records):
        lines = join.join(map(json.dumps, records))
        return (f"[{lines}]" if outside else lines).encode()

    many = text([small] * 50)
    assert read_all(many, 64, outside=outside) == many
    with pytest.raises(UserError, match="record of more than"):
        read_all(text([small, large, small]), 64, outside=outside)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b" " * 10**6 + b"[]", "begins with more than"),
        (b'["' + b"A" * 10**6 + b'"]', "record of more than"),
        (b"[" + b" " * 10**6 + b"{}]", "record of more than"),
        (b"[" + b"1" * 10**6 + b"]", "record of more than"),
        (b"  \n ", "is empty"),
    ],
)
@pytest.mark.parametrize("is_packed", [False, True])
def test_blanks_and_texts_without_end_are_refused_soon(
    tmp_path, monkeypatch, content, message, is_packed
):
    monkeypatch.setattr(json_stream, "MAX_RECORD", 10**5)
    path = tmp_path / ("a.json.gz" if is_packed else "a.json")
    path.write_bytes(gzip.compress(content) if is_packed else content)
    assert not is_matpes(path)
    with pytest.raises(UserError, match=message):
        read_matpes(path, DZ)
