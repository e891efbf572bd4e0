# SPDX-License-Identifier: Apache-2.0
"""Differences are named by field, in order, and never more or longer than a person reads."""

from typing import Any

import msgspec
import pytest

from atoll.env.comparing import (
    DIFFERENCES_MAX,
    SHOWN_CHARS_MAX,
    Difference,
    differences,
    grouped_effects,
    plain_effects,
    plain_tuple,
    shown,
)
from atoll.env.plain_data import MapKey
from atoll.env.records import Ended, Item, Note, Post

encode = msgspec.msgpack.encode


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (1, 1, ()),
        ({"a": [1, {"b": 2}]}, {"a": (1, {"b": 2})}, ()),
        (1, 2, (Difference("", "1", "2"),)),
        (1, "1", (Difference("", "1", "'1'"),)),
        ({"a": 1}, {"a": 2}, (Difference("a", "1", "2"),)),
        ({"a": {"x y": 1}}, {"a": {"x y": 2}}, (Difference("a['x y']", "1", "2"),)),
        ({"a": 1}, {"b": 1}, (Difference("a", "1", "nothing"), Difference("b", "nothing", "1"))),
        ({"a": [1, 2]}, {"a": [1]}, (Difference("a[1]", "2", "nothing"),)),
        ({"a": [1]}, {"a": {}}, (Difference("a", "[1]", "{}"),)),
        ({1: 1}, {1: 2}, (Difference("[1]", "1", "2"),)),
        ({"a": b"\x01"}, {"a": b"\x02"}, (Difference("a", "01", "02"),)),
    ],
)
def test_fields_that_differ_are_named(one: Any, other: Any, expected: tuple[Difference, ...]) -> None:
    assert differences(one, other) == expected


def test_an_order_of_keys_is_a_difference_because_what_is_written_differs() -> None:
    (found,) = differences({"a": {"x": 1, "y": 2}}, {"a": {"y": 2, "x": 1}})
    assert found == Difference("a", "keys ['x', 'y']", "keys ['y', 'x']")


def test_what_is_found_is_bounded() -> None:
    one = {str(number): number for number in range(1_000)}
    assert len(differences(one, {})) == DIFFERENCES_MAX
    assert len(differences(one, {}, 3)) == 3
    (found,) = differences({"a": "x" * 10_000}, {"a": ""})
    assert len(found.expected) == SHOWN_CHARS_MAX


def test_a_value_is_shown_in_one_line() -> None:
    assert shown(b"\xff") == "ff"
    assert shown({b"\xff": [b"\xfe", (1,)]}) == "{ff: [fe, (1,)]}"
    assert shown({MapKey(a=b"\xff"): 1}) == "{{'a': ff}: 1}"
    assert shown("x\ny") == "'x\\ny'"


def test_effects_are_shown_item_by_item() -> None:
    items = encode([Item(msgspec.Raw(encode({"is": "A"})), 0, 3), Item(msgspec.Raw(encode({"is": "B"})))])
    assert plain_effects([Note("x"), Post(b"p", 7, 2, items), Ended()]) == [
        {"log": "x"},
        {"to": b"p", "number": 7, "event": {"is": "A"}, "re": 3},
        {"to": b"p", "number": 8, "event": {"is": "B"}},
        {"ended": {}},
    ]


def test_a_tuple_is_shown_as_a_dictionary() -> None:
    assert plain_tuple(encode({"is": "A", "x": 1})) == {"is": "A", "x": 1}


def test_effects_are_grouped_so_that_one_more_shifts_only_its_kind() -> None:
    items = encode([Item(msgspec.Raw(encode({"is": "A"})), 5)])
    assert grouped_effects([Note("x"), Post(b"p", 7, 1, items), Ended()]) == {
        "log": ["x"],
        "sent": [{"to": b"p", "event": {"is": "A"}}],
        "other": [{"ended": {}}],
    }
