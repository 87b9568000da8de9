"""Lines and array elements come out the same however they arrive."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.json_arrays import NotAnArray, elements, member
from app.domain.ndjson import TOO_LONG, LineSplitter


def lines_of(pieces, max_bytes=1 << 20):
    splitter = LineSplitter(max_bytes)
    found = [line for piece in pieces for line in splitter.feed(piece)]
    return [*found, *splitter.end()]


@given(st.lists(st.binary()), st.data())
def test_lines_do_not_depend_on_how_the_stream_is_cut(lines, data):
    stream = b"\n".join(lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    bounds = [0, *cuts, len(stream)]
    pieces = [stream[a:b] for a, b in itertools.pairwise(bounds)]
    expected = [
        (number, line.strip(b" \t\r"))
        for number, line in enumerate(stream.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1)
        if line.strip(b" \t\r")
    ]
    assert lines_of(pieces) == expected


@given(st.integers(1, 50), st.lists(st.integers(0, 100), max_size=5), st.integers(1, 30))
def test_a_line_too_long_is_dropped_alone(most, lengths, step):
    stream = b"\r\n".join(b"x" * length for length in lengths)
    pieces = [stream[at : at + step] for at in range(0, len(stream), step)]
    expected = [
        (number, b"x" * length if length <= most else TOO_LONG)
        for number, length in enumerate(lengths, 1)
        if length
    ]
    assert lines_of(pieces, most) == expected


def test_a_line_that_never_ends_is_not_kept():
    splitter = LineSplitter(10)
    for _ in range(100):
        assert list(splitter.feed(b"x" * 1000)) == []
        assert sum(map(len, splitter._parts)) <= 11
    assert list(splitter.feed(b"\nfine\n")) == [(1, TOO_LONG), (2, b"fine")]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.lists(JSON), st.sampled_from([None, 2]), st.booleans())
def test_elements_are_what_a_parser_finds(values, indent, ascii_only):
    text = json.dumps(values, indent=indent, ensure_ascii=ascii_only)
    found = list(elements(f" \n{text}\t ".encode(errors="surrogatepass")))
    assert [json.loads(one.decode(errors="surrogatepass")) for one in found] == values


SPACE = st.text(alphabet=" \t\r\n", max_size=2)
PAIRS = st.tuples(st.text(st.characters(codec="utf-8")), JSON, SPACE, st.booleans())


@given(st.lists(PAIRS, min_size=1), st.data())
def test_a_member_is_the_last_of_its_name_as_it_stands(pairs, data):
    texts = {}
    written = []
    for name, value, space, ascii_only in pairs:
        texts[name] = json.dumps(value, ensure_ascii=True, indent=len(space) or None)
        key = json.dumps(name, ensure_ascii=ascii_only)
        written.append(f"{space}{key}{space}:{space}{texts[name]}{space}")
    name = data.draw(st.sampled_from(list(texts)))
    text = f" {{{','.join(written)}}}\n"
    assert member(text.encode(), name).decode() == texts[name]


def parsed(text):
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, list) else None


def split_and_parsed(text):
    try:
        return [json.loads(one) for one in elements(text.encode())]
    except ValueError:  # NotAnArray is one
        return None


@given(st.text(alphabet='[]{},":\\ a1', max_size=30))
def test_whatever_is_no_array_is_refused_now_or_by_its_elements(text):
    assert split_and_parsed(text) == parsed(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "expected"),
        (b"{}", "expected"),
        (b"[1", "no end"),
        (b"[1,]", "commas"),
        (b"[,1]", "commas"),
        (b'["a]', "no end"),
        (b"[1] 2", "ends at"),
        (b"[1}", "ends at"),
    ],
)
def test_what_is_wrong_is_said(text, says):
    with pytest.raises(NotAnArray, match=says):
        list(elements(text))
