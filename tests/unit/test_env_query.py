# SPDX-License-Identifier: Apache-2.0
"""Queries: what each kind of comparison means, and which queries cannot be."""

from math import inf, nan
from typing import Any

import msgspec
import pytest

from atoll.base.errors import UsageError, WireError
from atoll.env.limits import CONTAINS_TERMS, QUERY_BYTES_MAX, QUERY_DEPTH_MAX, QUERY_TERMS_MAX
from atoll.env.query import (
    Compare,
    Contains,
    Every,
    Everything,
    Field,
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
    field,
    matches,
    types_of,
    where,
)
from atoll.env.tuples import Tuple


class Bid(Tuple, frozen=True):
    who: str
    amount: int


BID: dict[str, object] = msgspec.to_builtins(Bid("alice", 100))
MIXED: dict[str, object] = {
    "is": "Mixed",
    "none": None,
    "yes": True,
    "one": 1,
    "half": 0.5,
    "text": "needle in a haystack",
    "raw": b"\x00\x01\x02",
    "list": ["a", 1, None, 2.0, [3]],
    "flags": [False, True],
    "pair": ("x", "y"),
    "map": {"inner": {"deep": 7}, "a.b": 8},
}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (field("one") == 1, True),
        (field("one") == 1.0, True),
        (field("one") == True, False),  # noqa: E712  A query.
        (field("one") == "1", False),
        (field("one") != 2, True),
        (field("one") != 1, False),
        (field("one") != "1", False),
        (field("yes") == True, True),  # noqa: E712  A query.
        (field("yes") == 1, False),
        (field("yes") != False, True),  # noqa: E712  A query.
        (field("half") < 1, True),
        (field("half") <= 0.5, True),
        (field("half") > 0, True),
        (field("half") >= 0.6, False),
        (field("text") < "z", True),
        (field("text") < b"z", False),
        (field("raw") >= b"\x00", True),
        (field("list") == "a", False),
        (field("gone") == 1, False),
        (field("gone") != 1, False),
        (field("gone") < 1, False),
    ],
)
def test_values_of_one_kind_are_compared_and_others_never_hold(query: Query, expected: bool) -> None:
    assert matches(query, MIXED) is expected


@pytest.mark.parametrize(
    ("name", "equal", "unequal"), [("none", True, False), ("one", False, True), ("gone", False, False)]
)
def test_none_asks_whether_a_field_has_a_value(name: str, equal: bool, unequal: bool) -> None:
    assert matches(field(name) == None, MIXED) is equal  # noqa: E711  A query.
    assert matches(field(name) != None, MIXED) is unequal  # noqa: E711  A query.


def test_dots_lead_into_maps() -> None:
    assert matches(field("map.inner.deep") == 7, MIXED)
    assert not matches(field("map.gone.deep") == 7, MIXED)
    assert not matches(field("one.deep") == 7, MIXED)
    assert not matches(field("list.deep") == 7, MIXED)
    assert not matches(field("map.a.b") == 8, MIXED)
    assert matches(field(("map", "a.b")) == 8, MIXED)
    assert matches(field("is") == "Mixed", MIXED)


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("one", (2, 1), True),
        ("one", (2, 3), False),
        ("one", (True, 1.0), True),
        ("one", (True, "1"), False),
        ("none", (1, None), True),
        ("gone", (1, None), False),
        ("list", ("a",), False),
    ],
)
def test_in_is_equality_with_one_of_the_values(name: str, values: tuple[Value, ...], expected: bool) -> None:
    assert matches(field(name).one_of(*values), MIXED) is expected


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("list", "a", True),
        ("list", "b", False),
        ("list", 1.0, True),
        ("list", True, False),
        ("list", None, True),
        ("list", 3, False),
        ("flags", 1, False),
        ("flags", True, True),
        ("pair", "y", True),
        ("text", "needle", True),
        ("text", "pin", False),
        ("text", b"needle", False),
        ("raw", b"\x01\x02", True),
        ("raw", "\x01", False),
        ("one", 1, False),
        ("map", "inner", False),
        ("gone", "a", False),
    ],
)
def test_contains_is_an_item_or_a_piece(name: str, value: Value, expected: bool) -> None:
    assert matches(field(name).contains(value), MIXED) is expected


def test_startswith_is_for_texts_and_bytes() -> None:
    assert matches(field("text").startswith("needle"), MIXED)
    assert not matches(field("text").startswith("hay"), MIXED)
    assert not matches(field("text").startswith(b"needle"), MIXED)
    assert matches(field("raw").startswith(b"\x00"), MIXED)
    assert not matches(field("pair").startswith("x"), MIXED)
    assert not matches(field("gone").startswith(""), MIXED)


def test_queries_combine() -> None:
    yes, no = field("one") == 1, field("one") == 2
    assert matches(yes & yes, MIXED)
    assert not matches(yes & no, MIXED)
    assert matches(no | yes, MIXED)
    assert not matches(no | no, MIXED)
    assert matches(~no, MIXED)
    assert not matches(~yes, MIXED)
    assert matches(Everything(), MIXED)
    assert yes & no & yes == Every((yes, no, yes))
    assert yes | (no | yes) == Some((yes, no, yes))
    assert yes & no | yes == Some((Every((yes, no)), yes))
    assert ~yes == Not(yes)


def test_where_is_a_type_and_conditions() -> None:
    assert where(Bid) == IsType("Bid")
    assert where(Bid, amount=100) == Every((IsType("Bid"), Compare(("amount",), "==", 100)))
    assert where(Bid, field("amount") > 50) == where("Bid", field("amount") > 50)
    assert matches(where(Bid, field("amount") > 50, who="alice"), BID)
    assert not matches(where(Bid, field("amount") > 50, who="bob"), BID)
    assert not matches(where("Ask"), BID)


def test_operators_make_the_comparison_that_they_look_like() -> None:
    made: list[Compare] = [
        field("a") == 1,
        field("a") != 1,
        field("a") < 1,
        field("a") <= 1,
        field("a") > 1,
        field("a") >= 1,
    ]
    assert [one.operator for one in made] == ["==", "!=", "<", "<=", ">", ">="]
    assert (1 < field("a")) == Compare(("a",), ">", 1)  # noqa: SIM300 -- Python turns it round.
    assert field("a.b").one_of(1, 2) == OneOf(("a", "b"), (1, 2))
    assert field("a").contains(1) == Contains(("a",), 1)
    assert field("a").startswith("1") == StartsWith(("a",), "1")


def test_a_query_is_not_a_truth_value() -> None:
    with pytest.raises(UsageError, match="neither true nor false"):
        assert 1 < field("a") < 9
    other: Any = "Bid"
    with pytest.raises(TypeError):
        assert where(Bid) & other
    with pytest.raises(TypeError):
        assert where(Bid) | other
    with pytest.raises(TypeError):
        hash(field("a"))


def test_types_bound_what_can_match() -> None:
    bid, ask, more = where("Bid"), where("Ask"), field("amount") > 1
    assert types_of(bid) == ("Bid",)
    assert types_of(bid & more) == ("Bid",)
    assert types_of(more & (bid | ask)) == ("Bid", "Ask")
    assert types_of((bid | ask) & ask) == ("Ask",)
    assert types_of(bid | (ask | bid) & more) == ("Bid", "Ask")
    assert types_of(bid | more) is None
    assert types_of(more & more) is None
    assert types_of(~bid) is None
    assert types_of(Everything()) is None


def _wrong_queries() -> list[Any]:
    anything: Any = object()
    nested: Query = IsType("a")
    for _ in range(QUERY_DEPTH_MAX - 1):
        nested = Not(nested)
    deepest = nested
    return [
        (lambda: IsType(""), "an empty name"),
        (lambda: field(""), "an empty name"),
        (lambda: field("a..b"), "an empty name"),
        (lambda: Field(()), "a field needs a name"),
        (lambda: Compare(anything, "==", 1), "a field needs a name"),
        (lambda: field(("a", anything)), "an empty name"),
        (lambda: Compare(("a",), anything, 1), "no operator"),
        (lambda: field("a") == anything, "a object cannot be compared"),
        (lambda: field("a") < None, "< has no meaning for none"),
        (lambda: field("a") >= True, ">= has no meaning for boolean"),
        (lambda: Compare(("a",), "==", nan), "not finite"),
        (lambda: field("a").one_of(inf), "not finite"),
        (lambda: field("a") == 1 << 64, "cannot be written"),
        (lambda: field("a") == "\ud800", "cannot be written"),
        (lambda: field("a").one_of(), "at least one value"),
        (lambda: OneOf(("a",), anything), "at least one value"),
        (lambda: field("a").one_of(anything), "cannot be compared"),
        (lambda: field("a").contains(anything), "cannot be compared"),
        (lambda: StartsWith(("a",), 1), "needs a text or bytes"),
        (lambda: Every((IsType("a"),)), "join at least two"),
        (lambda: Some(anything), "join at least two"),
        (lambda: Every((IsType("a"), anything)), "a object is no query"),
        (lambda: Not(anything), "a object is no query"),
        (lambda: where(Bid, anything), "a object is no query"),
        (lambda: Not(deepest), f"nested more than {QUERY_DEPTH_MAX} deep"),
        (lambda: deepest & deepest, f"nested more than {QUERY_DEPTH_MAX} deep"),
        (lambda: field("a").one_of(*range(QUERY_TERMS_MAX + 1)), f"more than {QUERY_TERMS_MAX} terms"),
        (lambda: field("a") == "x" * QUERY_BYTES_MAX, f"longer than {QUERY_BYTES_MAX} bytes"),
    ]


@pytest.mark.parametrize(("make", "what"), _wrong_queries())
def test_a_query_that_cannot_be_is_refused_when_it_is_made(make: Any, what: str) -> None:
    with pytest.raises(QueryError, match=what):
        make()


def test_a_type_that_is_called_by_a_number_is_refused() -> None:
    class Numbered(Tuple, frozen=True, tag=7):
        pass

    with pytest.raises(QueryError, match="not called by a text"):
        where(Numbered)


def test_contains_counts_for_more_because_it_costs_more() -> None:
    piece: Query = field("a").contains(1)
    row = [piece] * (QUERY_TERMS_MAX // CONTAINS_TERMS)
    assert matches(Some(tuple(row)), MIXED) is False
    with pytest.raises(QueryError, match="terms"):
        Some((*row, piece))


def test_the_largest_queries_travel() -> None:
    for query in (
        field("a").one_of(*range(QUERY_TERMS_MAX)),
        field("a") == "x" * (QUERY_BYTES_MAX - 11),
        Some(tuple(field("a") == number for number in range(QUERY_TERMS_MAX))),
        Every((where(Bid, amount=1), ~(field("who").startswith("a") | field("who").contains("b")))),
        Everything(),
    ):
        assert decode(encode(query)) == query
        assert len(encode(query)) <= QUERY_BYTES_MAX


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc0",
        b"\x91\x09",
        b"\x92\x01\xa0",  # A type without a name.
        b"\x94\x02\x91\xa1a\xa1=\x01",  # No such operator.
        b"\x94\x02\x91\xa1a\xa1<\xc0",
        b"\x94\x02\x91\xa1a\xa2==\x90",  # A list for a value.
        b"\x94\x02\x91\xa1a\xa2==\xcb\x7f\xf0\0\0\0\0\0\0",  # Infinity.
        b"\x92\x06\x91\x91\x00",  # One part.
        b"\x92\x08" * QUERY_DEPTH_MAX + b"\x91\x00",
        b"\x92\x08" * 2000 + b"\x91\x00",
        b"\x92\x06\xdc\x04\x00" + b"\x91\x00" * 1024,
        b"\x92\x01\xda\x10\x00" + b"x" * QUERY_BYTES_MAX,
        b"\x91\x00\x00",
    ],
)
def test_bytes_that_are_no_query_are_refused(payload: bytes) -> None:
    with pytest.raises(WireError, match="query"):
        decode(payload)


def test_a_message_that_holds_a_query_bounds_it_too() -> None:
    decoder: msgspec.msgpack.Decoder[list[Query]] = msgspec.msgpack.Decoder(list[Query])
    fine, deep = b"\x92\x08" * (QUERY_DEPTH_MAX - 1) + b"\x91\x00", b"\x92\x08" * QUERY_DEPTH_MAX + b"\x91\x00"
    assert len(decoder.decode(b"\x91" + fine)) == 1
    with pytest.raises(msgspec.ValidationError, match="deep"):
        decoder.decode(b"\x91" + deep)
