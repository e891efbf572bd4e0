# SPDX-License-Identifier: Apache-2.0
"""Tuples are maps that name their type; a reader may know fewer fields than the writer had, or more with defaults."""

import msgspec
import pytest

from atoll.env.tuples import TYPE_FIELD, Tuple


class Bid(Tuple, frozen=True):
    who: str
    amount: int = 0


class Old(Tuple, frozen=True, tag="Bid"):
    who: str


def test_a_tuple_is_a_map_that_names_its_type() -> None:
    plain = msgspec.msgpack.decode(msgspec.msgpack.encode(Bid("ann", 3)))
    assert plain == {TYPE_FIELD: "Bid", "who": "ann", "amount": 3}


def test_versions_of_a_type_read_each_other() -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(Bid("ann", 3)), type=Old) == Old("ann")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(Old("ann")), type=Bid) == Bid("ann", 0)


def test_a_tuple_does_not_change() -> None:
    bid = Bid("ann")
    with pytest.raises(AttributeError):
        bid.amount = 4  # type: ignore[misc]  # pyright: ignore  That is what is tested.
