# SPDX-License-Identifier: Apache-2.0
"""Any query: printed and read, encoded and decoded, it is the same; any text and any bytes are taken or refused."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.base.errors import UserError, WireError
from atoll.env.limits import QUERY_BYTES_MAX, QUERY_DEPTH_MAX, QUERY_TEXT_CHARS_MAX
from atoll.env.query import (
    OPERATORS,
    Compare,
    Contains,
    Every,
    Everything,
    IsType,
    Not,
    OneOf,
    Query,
    QueryError,
    Some,
    StartsWith,
    Value,
    decode,
    encode,
    matches,
    types_of,
)
from atoll.env.query_grammar import parse, text

texts = st.text(max_size=12)
bare = st.sampled_from(("a", "b", "who", "amount", "not", "in", "x", "is", "größe"))
names = st.one_of(bare, st.text(min_size=1, max_size=6))
fields = st.lists(names, min_size=1, max_size=3).map(tuple)
numbers = st.one_of(st.integers(-(1 << 63), (1 << 64) - 1), st.floats(allow_nan=False, allow_infinity=False))
few: st.SearchStrategy[Value] = st.sampled_from((None, True, False, 0, 1, 1.0, 2, "", "a", "ab", b"", b"a"))
values: st.SearchStrategy[Value] = st.one_of(few, numbers, texts, st.binary(max_size=12))
ordered = st.one_of(numbers, texts, st.binary(max_size=12))
leaves: st.SearchStrategy[Query] = st.one_of(
    st.just(Everything()),
    st.builds(IsType, names),
    st.builds(Compare, fields, st.sampled_from(("==", "!=")), values),
    st.builds(Compare, fields, st.sampled_from(sorted(OPERATORS)), ordered),
    st.builds(OneOf, fields, st.lists(values, min_size=1, max_size=3).map(tuple)),
    st.builds(Contains, fields, values),
    st.builds(StartsWith, fields, st.one_of(texts, st.binary(max_size=12))),
)


def _joined(parts: st.SearchStrategy[Query]) -> st.SearchStrategy[Query]:
    rows = st.lists(parts, min_size=2, max_size=3).map(tuple)
    return st.one_of(_possible(Every, rows), _possible(Some, rows), _possible(Not, parts))


def _possible(kind: Callable[[Any], Query], parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Query]:
    """Queries of a kind; where one would be beyond the limits, everything."""

    def make(part: Any) -> Query:
        try:
            return kind(part)
        except QueryError:
            return Everything()

    return parts.map(make)


queries = st.recursive(leaves, _joined, max_leaves=12)
plain = st.recursive(
    values,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3)),
    max_leaves=6,
)
tuples = st.dictionaries(names, plain, max_size=4).map(lambda value: {**value, "is": value.get("is", "a")})


@given(query=queries)
def test_what_is_printed_is_read_as_the_same_query(query: Query) -> None:
    line = text(query)
    assert line.isprintable()
    assert len(line) <= QUERY_TEXT_CHARS_MAX
    assert parse(line) == query
    assert encode(parse(line)) == encode(query)  # True and 1 are equal, and not the same.


@given(query=queries)
def test_what_is_encoded_is_decoded_as_the_same_query(query: Query) -> None:
    payload = encode(query)
    assert len(payload) <= QUERY_BYTES_MAX
    assert decode(payload) == query
    assert encode(decode(payload)) == payload


@given(query=queries, value=tuples)
def test_a_query_is_asked_of_anything_and_of_its_copy_alike(query: Query, value: dict[str, Any]) -> None:
    copy = msgspec.msgpack.decode(msgspec.msgpack.encode(value))
    answer = matches(query, value)
    assert answer is matches(decode(encode(query)), copy)
    names = types_of(query)
    if answer and names is not None:
        assert value["is"] in names


@given(line=st.one_of(st.text(max_size=200), st.text("aA1.x\"'()=<>!,- notandorinu{}\\", max_size=80)))
def test_any_text_is_a_query_or_is_refused_with_its_column(line: str) -> None:
    refused = ""
    try:
        query = parse(line)
    except UserError as error:
        refused = error.sentence
    else:
        assert parse(text(query)) == query
    assert not refused or 1 <= int(refused.split()[1]) <= len(line) + 1


@given(query=queries, data=st.data())
def test_damaged_encodings_are_decoded_or_refused(query: Query, data: st.DataObject) -> None:
    payload = bytearray(encode(query))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = decode(payload[: data.draw(st.integers(0, len(payload)))])
    except WireError:
        return
    assert parse(text(found)) == found


@pytest.mark.parametrize("head", [b"\x92\x08", b"\x92\x06\x92", b"\x92\x07\x92\x91\x00"])
@given(levels=st.integers(QUERY_DEPTH_MAX, QUERY_BYTES_MAX // 2))
def test_no_depth_of_nesting_is_too_much_to_refuse(head: bytes, levels: int) -> None:
    with pytest.raises(WireError, match="query"):
        decode(head * levels + b"\x91\x00" * levels)
